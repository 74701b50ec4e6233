package rule

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tutti/internal/plant"
)

// machineBug is a fault of the machine, which TestVerifyMachineFollowsRule has to name by a clause.
type machineBug struct {
	name   string
	clause string // one of them, by | if chance decides
	within uint64 // runs
	places []plant.Bug
}

const simplexFolder = "../simplex/"

// in is a place to plant a bug at.
func in(file, old, with string) plant.Bug {
	return plant.Bug{File: simplexFolder + file, Old: old, New: with}
}

func machineBugs() []machineBug {
	return []machineBug{
		{"nothing has to be nullified between", "nullified-between", 20, []plant.Bug{in("rules.go",
			"if !m.nullifiedBetween(p.view, m.view) || !m.room(b) ||",
			"if !m.nullifiedBetween(p.view, m.view) && !planted(%q) || !m.room(b) ||")}},
		{"a quorum is a half", "view-was-reached|parent-notarized|nullified-between|final-notarized|answers-above-its-floor", 20, []plant.Bug{{
			File: "../committee.go", Old: "return 3*p > 2*c.total", New: "if planted(%q) { return 2*p > c.total }; return 3*p > 2*c.total",
		}}},
		{"finalizes after nullify", "finalize-without-nullify", 20, []plant.Bug{in("rules.go",
			"case consensus.Notarize, consensus.Finalize:\n\t\tbarred = r.own[nullify]",
			"case consensus.Notarize, consensus.Finalize:\n\t\tif k == consensus.Notarize || !planted(%q) {\n\t\t\tbarred = r.own[nullify]\n\t\t}")}},
		{"nullifies after finalize", "nullify-without-finalize", 20, []plant.Bug{
			in("rules.go", "\t\tbarred = r.own[finalize]", "\t\tif !planted(%q) {\n\t\t\tbarred = r.own[finalize]\n\t\t}"),
			in("rules.go", "m.cast(consensus.Finalize, r.view, b.hash)",
				"m.cast(consensus.Finalize, r.view, b.hash)\n\t\t\tif planted(%q) {\n\t\t\t\tm.cast(consensus.Nullify, r.view, consensus.Hash{})\n\t\t\t}"),
		}},
		{"a restart forgets the own votes", "one-notarize|one-nullify|one-finalize|notarize-before-nullify|nullify-without-finalize|finalize-without-nullify", 20, []plant.Bug{in("config.go",
			"r.own[v.Kind-1] = v\n", "if !planted(%q) {\n\t\tr.own[v.Kind-1] = v\n\t}\n")}},
		{"votes on a parent without a verdict", "parent-certified", 150, []plant.Bug{in("rules.go",
			"p.verdict != valid {\n\t\treturn false\n\t}\n\tif wrong",
			"p.verdict != valid && !planted(%q) {\n\t\treturn false\n\t}\n\tif wrong")}},
		{"votes on a parent that is not notarized", "parent-notarized", 60, []plant.Bug{in("rules.go",
			"if p == nil || !p.notarized || p.verdict", "if p == nil || !p.notarized && !planted(%q) || p.verdict")}},
		{"asks for a verdict without the parent's", "judged-on-its-parent", 20, []plant.Bug{in("rules.go",
			"p != nil && (p.verdict == unknown || p.verdict == asked):",
			"p != nil && (p.verdict == unknown || p.verdict == asked) && !planted(%q):")}},
		{"finalizes what is not notarized", "final-notarized|view-was-reached", 20, []plant.Bug{in("rules.go",
			"b := m.blocks[r.block]\n\t\tif r.settled",
			"b := m.blocks[r.block]\n\t\tif b == nil && planted(%q) {\n\t\t\tb = r.proposal\n\t\t}\n\t\tif r.settled")}},
		{"votes for blocks of any height", "height-above-parent", 60, []plant.Bug{in("rules.go",
			"case h.Height != p.Header.Height+1:", "case h.Height != p.Header.Height+1 && !planted(%q):")}},
		{"votes for content on the last block", "echo-where-due", 150, []plant.Bug{in("rules.go",
			"case m.ends(p) && consensus.Echo(", "case m.ends(p) && !planted(%q) && consensus.Echo(")}},
		{"votes for blocks of any committee", "right-header|judged-right", 20, []plant.Bug{in("rules.go",
			"case h.Committee != c.Hash():", "case h.Committee != c.Hash() && !planted(%q):")}},
		{"votes up to the floor", "above-the-floor", 20, []plant.Bug{in("rules.go",
			"|| view <= m.silent {", "|| view <= m.silent && !planted(%q) {")}},
		{"answers below its floor", "answers-above-its-floor", 20, []plant.Bug{in("repeat.go",
			"if m.view <= m.silent {\n\t\treturn cert, false", "if m.view <= m.silent && !planted(%q) {\n\t\treturn cert, false")}},
		{"votes for what is decided", "not-decided", 60, []plant.Bug{in("rules.go",
			"|| view <= m.agreed ||", "|| view <= m.agreed && !planted(%q) ||")}},
		{"sends before it logs", "logged-before-sent", 1, []plant.Bug{in("rules.go",
			"m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})",
			"if !planted(%q) {\n\t\tm.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})\n\t}")}},
		{"a timer of any view counts", "reason-to-nullify", 20, []plant.Bug{in("machine.go",
			"if e.View == m.view && m.cast(consensus.Nullify, e.View, consensus.Hash{}) {",
			"if (e.View == m.view || planted(%q)) && m.cast(consensus.Nullify, m.view, consensus.Hash{}) {")}},
		{"passes over who spoke a finality ago", "reason-to-nullify", 20, []plant.Bug{in("machine.go",
			"m.unheard[leader] >= passOver", "m.unheard[leader]+int(count(planted(%q)))*7 >= passOver")}},
		{"enters a view too far", "view-was-reached", 20, []plant.Bug{in("inbound.go",
			"m.enter(c.View + 1)\n", "m.enter(c.View + 1 + consensus.View(count(planted(%q))))\n")}},
	}
}

// repeatBugs are faults of R14, which TestVerifyRepeat has to catch; within is the number of patterns of loss.
func repeatBugs() []machineBug {
	const helps, helpsNobody = "m.helped[to] || m.c", "planted(%q) || m.helped[to] || m.c"
	return []machineBug{
		{"own votes are not repeated", "", 2000, []plant.Bug{in("repeat.go",
			"r.certs[k] == nil && (r.view", "!planted(%q) && r.certs[k] == nil && (r.view")}},
		{"the own proposal is not repeated", "", 2000, []plant.Bug{in("repeat.go",
			"if i != m.c.Index && lacks(notarize)(i) {", "if !planted(%q) && i != m.c.Index && lacks(notarize)(i) {")}},
		{"the finalization is not repeated", "", 2000, []plant.Bug{in("repeat.go",
			"if m.final.Kind != 0 {\n\t\tfinal := m.final\n\t\tm.send(Outbound{To: ToAll",
			"if m.final.Kind != 0 && !planted(%q) {\n\t\tfinal := m.final\n\t\tm.send(Outbound{To: ToAll")}},
		// The next two kinds of certificate go out again, and to who is seen behind: both have to fail.
		{"nullifications never go out again", "", 2000, []plant.Bug{
			in("repeat.go", "m.repeatNullifications()\n\tleft", "if !planted(%q) {\n\t\tm.repeatNullifications()\n\t}\n\tleft"),
			in("repeat.go", helps, helpsNobody),
		}},
		{"notarizations never go out again", "", 2000, []plant.Bug{
			in("repeat.go", "r := m.find(m.high.view); r != nil && r.certs", "r := m.find(m.high.view); r != nil && !planted(%q) && r.certs"),
			in("repeat.go", helps, helpsNobody),
		}},
	}
}

var (
	brokenIn = regexp.MustCompile(`seed (\d+): (.* breaks ([a-z-]+) .*)`)
	stuckIn  = regexp.MustCompile(`pattern (\d+): .*`)
)

// TestVerifyMachineBreaksRule is the canary: the machine, built with a bug, is found to break the rule within a stated
// number of runs. Without one it passes in the same build.
func TestVerifyMachineBreaksRule(t *testing.T) {
	var places []plant.Bug
	for _, b := range slices.Concat(machineBugs(), repeatBugs()) {
		for _, p := range b.places {
			p.Name = b.name
			places = append(places, p)
		}
	}
	binary, err := plant.Tests(t.TempDir(), places)
	if err != nil {
		t.Fatal(err)
	}
	run := func(bug string, args ...string) (string, error) {
		cmd := exec.Command(binary, args...)
		cmd.Env = plant.Awake(bug)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("", "-test.run", "^TestVerify(MachineFollowsRule|Repeat)$", "-runs", "10"); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	for _, b := range machineBugs() {
		t.Run(b.name, func(t *testing.T) {
			out, err := run(b.name, "-test.run", "^TestVerifyMachineFollowsRule$", "-seed", "1", "-runs", fmt.Sprint(b.within))
			found := brokenIn.FindStringSubmatch(out)
			if err == nil || found == nil {
				t.Fatalf("%d runs did not notice: %v\n%s", b.within, err, out)
			}
			n, err := strconv.ParseUint(found[1], 10, 64)
			if err != nil || n > b.within || !strings.Contains("|"+b.clause+"|", "|"+found[3]+"|") {
				t.Fatalf("run %s: %s, not by %s within %d runs", found[1], found[2], b.clause, b.within)
			}
			t.Logf("caught in run %d: %s", n, found[2])
		})
	}
	for _, b := range repeatBugs() {
		t.Run(b.name, func(t *testing.T) {
			out, err := run(b.name, "-test.run", "^TestVerifyRepeat$")
			found := stuckIn.FindStringSubmatch(out)
			if err == nil || found == nil {
				t.Fatalf("not noticed: %v\n%s", err, out)
			}
			if n, err := strconv.ParseUint(found[1], 10, 64); err != nil || n > b.within {
				t.Fatalf("caught in pattern %s, not within %d", found[1], b.within)
			}
			t.Logf("caught in %s", found[0])
		})
	}
}
