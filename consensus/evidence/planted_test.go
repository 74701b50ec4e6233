package evidence_test

import (
	"testing"

	"tutti/internal/plant"
)

// bugs are faults of the checks and of the store that the tests of this package must notice, each in one run of them.
var bugs = []plant.Bug{
	{
		Name: "the chain is not compared", File: "verify.go",
		Old: "if p.Chain != chain {", New: "if p.Chain != chain && !planted(%q) {",
	},
	{
		Name: "the committee is not compared", File: "verify.go",
		Old: "if p.Committee != c.Hash() {", New: "if p.Committee != c.Hash() && !planted(%q) {",
	},
	{
		Name: "the key is not compared", File: "verify.go",
		Old: "c.Validators[i].Key != p.Key {", New: "c.Validators[i].Key != p.Key && !planted(%q) {",
	},
	{
		Name: "one of the two votes is not checked", File: "verify.go",
		Old: "for _, v := range p.Votes {", New: "for k, v := range p.Votes { if k == 1 && planted(%q) { continue }",
	},
	{
		Name: "signers of either certificate are guilty", File: "evidence.go",
		Old: "if p.Certificates[0].Signers.Has(i) && p.Certificates[1].Signers.Has(i) {",
		New: "if p.Certificates[0].Signers.Has(i) && (planted(%q) || p.Certificates[1].Signers.Has(i)) {",
	},
	{
		Name: "notarize and nullify are slashable", File: "../vote.go",
		Old: "return a.Kind+b.Kind == Nullify+Finalize", New: "return a.Kind+b.Kind == Nullify+Finalize || planted(%q)",
	},
	{
		Name: "a proof is not synced", File: "store.go",
		Old: "err = s.f.SyncData()", New: "if !planted(%q) { err = s.f.SyncData() }",
	},
	{
		Name: "damage is a torn tail", File: "store.go",
		Old: "for at := off + 1; at < len(b); at++ {", New: "for at := off + 1; at < len(b) && !planted(%q); at++ {",
	},
	{
		Name: "one validator may fill the store", File: "store.go",
		Old: "s.count[holder{o.shard, o.epoch, o.validator}] >= limit:", New: "!planted(%q) && s.count[holder{o.shard, o.epoch, o.validator}] >= limit:",
	},
}

// TestVerifyPlanted: each bug makes the tests fail, and without one they pass.
func TestVerifyPlanted(t *testing.T) {
	plant.Noticed(t, bugs, "-test.run", "^Test(VerifyProofs|VerifyRefusals|NotSlashable|VerifyStoreCrash|Store.*)$")
}
