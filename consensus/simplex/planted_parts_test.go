package simplex_test

import (
	"testing"

	"tutti/internal/plant"
)

// partBugs are faults in the handling of parts that the scenarios or TestRandomSteps have to notice.
var partBugs = []plant.Bug{
	{
		Name: "parts are passed on with a vote that nobody checked", File: "parts.go",
		Old: "c.Header, c.Vote = b.Header, b.vote", New: "if c.Header = b.Header; !planted(%q) { c.Vote = b.vote }",
	},
	{
		Name: "the own part is kept unchecked once the body is here", File: "parts.go",
		Old: "err = shred.Check(m.c.Committee, p)", New: "if !planted(%q) { err = shred.Check(m.c.Committee, p) }",
	},
	{
		Name: "parts go back to the leader", File: "parts.go",
		Old: "i != leader && lacks(i)", New: "(i != leader || planted(%q)) && lacks(i)",
	},
	{
		Name: "a bad encoding is waited for instead of nullified", File: "parts.go",
		Old: "if b.verdict == unknown {", New: "if b.verdict == unknown && !planted(%q) {",
	},
	{
		Name: "a vote needs no part of the body", File: "rules.go",
		Old: "!(b.here || b.own != nil)", New: "!(planted(%q) || b.here || b.own != nil)",
	},
}

// TestVerifyPlantedParts is a canary: the scenarios and TestRandomSteps, built with a bug, fail within 400 worlds, and
// without one pass in the same build.
func TestVerifyPlantedParts(t *testing.T) {
	plant.Noticed(t, partBugs, "-test.run", "^Test(Traces|RandomSteps)$", "-seed", "1")
}
