package proof_test

import (
	"testing"

	"tutti/internal/plant"
)

// bugs are faults of the checks of hand-overs and of headers around them that the tests of this package must notice, each in
// one run of them.
var bugs = []plant.Bug{
	{Name: "the next committee's hash is not compared", File: "trust.go", Old: "got != b.NextCommittee {", New: "got != b.NextCommittee && !planted(%q) {"},
	{Name: "the next committee's place is not compared", File: "trust.go", Old: "if h.Next.Shard != b.Shard || h.Next.Epoch != b.Epoch+1 {", New: "if !planted(%q) && (h.Next.Shard != b.Shard || h.Next.Epoch != b.Epoch+1) {"},
	{Name: "the last block need not end its epoch", File: "trust.go", Old: "if !b.Ends() {", New: "if !b.Ends() && !planted(%q) {"},
	{Name: "a hand-over's certificate is not checked", File: "trust.go", Old: "if err := k.committee.VerifyEnd(t.genesis, k.keys, h.End); err != nil {", New: "if err := k.committee.VerifyEnd(t.genesis, k.keys, h.End); err != nil && !planted(%q) {"},
	{Name: "an old committee is brought back unseen", File: "trust.go", Old: "case r.committee != h.Next.Hash() || r.height", New: "case planted(%q): case r.committee != h.Next.Hash() || r.height"},
	{Name: "where an epoch ended is not compared", File: "trust.go", Old: "case k.end == nil:", New: "case k.end == nil || planted(%q):"},
	{Name: "where an epoch began is not compared", File: "trust.go", Old: "h.Parent != k.start.block:", New: "h.Parent != k.start.block && !planted(%q):"},
	{Name: "links are not checked", File: "proof.go", Old: "if i > 0 && (x.Parent != f.Headers[i-1].Hash() ||", New: "if i > 0 && !planted(%q) && (x.Parent != f.Headers[i-1].Hash() ||"},
	{Name: "what follows the last block need be no echo", File: "proof.go", Old: "f.Headers[i+1:]); err != nil {", New: "f.Headers[i+1:]); err != nil && !planted(%q) {"},
	{Name: "an echo is taken for a block", File: "proof.go", Old: "case x.IsEcho() && i == 0:", New: "case planted(%q): case x.IsEcho() && i == 0:"},
	{Name: "a checkpoint is not compared", File: "checkpoint.go", Old: "case ok && r != record{s.Committee, s.Height, s.Block}:", New: "case ok && !planted(%q) && r != record{s.Committee, s.Height, s.Block}:"},
}

// TestPlanted: each bug makes the tests fail, and without one they pass.
func TestPlanted(t *testing.T) {
	plant.Noticed(t, bugs, "-test.run", "^Test(Handover.*|Epochs|Checkpoint)$")
}
