package protection_test

import (
	"testing"

	"tutti/internal/plant"
)

// bugs are faults that the tests of this package must notice, each in one run of them.
var bugs = []plant.Bug{
	{Name: "the chain is not compared", File: "read.go", Old: "if consensus.Hash(root) != v.Chain {", New: "if consensus.Hash(root) != v.Chain && !planted(%q) {"},
	{Name: "signatures are not checked", File: "read.go", Old: "int(vote.Validator) != v.Index || !v.Keys.Verify(", New: "int(vote.Validator) != v.Index || !planted(%q) && !v.Keys.Verify("},
	{Name: "what no vote accounts for is passed over", File: "read.go", Old: "&& view > max(s.Bar, held.Bar) {", New: "&& view > max(s.Bar, held.Bar) && !planted(%q) {"},
	{Name: "no margin above what another tool wrote", File: "read.go", Old: "said.Bar = max(said.Bar, view+simplex.FloorMargin)\n\t\t}\n\t\treturn nil", New: "said.Bar = max(said.Bar, view+simplex.FloorMargin)\n\t\t\tif planted(%q) { said.Bar = view }\n\t\t}\n\t\treturn nil"},
	{Name: "a field may be there twice", File: "read.go", Old: "case seen[name]:", New: "case seen[name] && !planted(%q):"},
	{Name: "the bar is not exported", File: "protection.go", Old: "if s.Bar > 0 {", New: "if s.Bar > 0 && !planted(%q) {"},
	{Name: "finalize is exported as a block", File: "protection.go", Old: "if vote.Kind == consensus.Notarize {", New: "if vote.Kind == consensus.Notarize || planted(%q) && vote.Kind == consensus.Finalize {"},
	{Name: "finalizations raise no bar", File: "protection.go", Old: "case r.Cert != nil && r.Cert.Kind == consensus.Finalize &&", New: "case r.Cert != nil && !planted(%q) && r.Cert.Kind == consensus.Finalize &&"},
	{Name: "a contradiction is passed over", File: "protection.go", Old: "found = true", New: "found = !planted(%q)"},
	{Name: "the lower bar wins", File: "protection.go", Old: "Bar: max(s.Bar, o.Bar), Votes:", New: "Bar: map[bool]consensus.View{true: o.Bar, false: max(s.Bar, o.Bar)}[planted(%q)], Votes:"},
	{Name: "imported votes are lost", File: "../blocklog/votes.go", Old: "for i := range cast {", New: "for i := range cast { if planted(%q) { break }"},
	{Name: "an imported floor is lost", File: "../blocklog/votes.go", Old: "all = append(all, simplex.Record{Floor: floor})", New: "if !planted(%q) { all = append(all, simplex.Record{Floor: floor}) }"},
}

// TestVerifyPlanted: each bug makes the tests fail, and without one they pass.
func TestVerifyPlanted(t *testing.T) {
	plant.Noticed(t, bugs, "-test.run", "^Test(Read|Signatures|Conflicts|VerifyRoundTrip)$")
}
