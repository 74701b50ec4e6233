package explore_test

import (
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"tutti/internal/plant"
)

// twin is a bug in the production code that the explorer has to catch.
type twin struct {
	name   string
	says   string // in the failure
	within int    // states
	edits  []plant.Bug
}

func edit(file, before, after string) plant.Bug {
	return plant.Bug{File: file, Old: before, New: after}
}

const (
	rules   = "../simplex/rules.go"
	inbound = "../simplex/inbound.go"
	machine = "../simplex/machine.go"
	repeats = "../simplex/repeat.go"
	config  = "../simplex/config.go"
)

var twins = []twin{
	{"a quorum is half of the power", "a view both nullified and final", 2000, []plant.Bug{
		edit("../committee.go", "return 3*p > 2*c.total", "if planted(%q) { return 2*p >= c.total }; return 3*p > 2*c.total"),
	}},
	{"finalize after nullify", "own votes contradict", 2000, []plant.Bug{
		edit(rules, "barred = r.own[nullify]", "if !planted(%q) { barred = r.own[nullify] }"),
	}},
	{"nullify after finalize", "own votes contradict", 60000, []plant.Bug{
		edit(rules, "barred = r.own[finalize]", "if !planted(%q) { barred = r.own[finalize] }"),
	}},
	{"notarize without the nullifications between", "without a nullification", 80000, []plant.Bug{
		edit(rules, "if !m.nullifiedBetween(p.view, m.view) || !m.room(b) ||",
			"if (!planted(%q) && !m.nullifiedBetween(p.view, m.view)) || !m.room(b) ||"),
	}},
	{"notarize on a parent that is not certified", "parent is not certified", 80000, []plant.Bug{
		edit(rules, "if p == nil || !p.notarized || p.verdict != valid {\n\t\treturn false\n\t}\n\tif wrong",
			"if p == nil || (!planted(%q) && (!p.notarized || p.verdict != valid)) {\n\t\treturn false\n\t}\n\tif wrong"),
	}},
	{"a second notarize in a view", "own votes contradict", 20000, []plant.Bug{
		edit(inbound, "if r.proposal != nil {\n\t\treturn // not the first", "if r.proposal != nil && !planted(%q) {\n\t\treturn // not the first"),
		edit(rules, "if r.own[notarize] != nil || r.own[nullify] != nil {\n\t\treturn false\n\t}\n\tp :=",
			"if (r.own[notarize] != nil && !planted(%q)) || r.own[nullify] != nil {\n\t\treturn false\n\t}\n\tp :="),
		edit(rules, "if barred != nil || r.own[k-1] != nil {",
			"if barred != nil || (r.own[k-1] != nil && (!planted(%q) || k != consensus.Notarize || r.own[k-1].Block == h)) {"),
	}},
	{"invalid blocks are certified", "no good verdict", 40000, []plant.Bug{
		edit(inbound, "case b != nil && b.verdict == asked && e.Valid:", "case b != nil && b.verdict == asked && (e.Valid || planted(%q)):"),
	}},
	{"final without a verdict", "final without a good verdict", 20000, []plant.Bug{
		edit(rules, "case whole && verdict == valid:", "case whole && (verdict == valid || planted(%q)):"),
	}},
	{"votes are not logged", "without a record", 100, []plant.Bug{
		edit(rules, "m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})",
			"if !planted(%q) { m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v}) }"),
	}},
	{"a restart forgets own votes", "own votes contradict", 60000, []plant.Bug{
		edit(config, "r.own[v.Kind-1] = v\n", "if !planted(%q) { r.own[v.Kind-1] = v }\n"),
	}},
	{"a late success does not lead out of a nullified view", "liveness", 20000, []plant.Bug{
		edit(rules, "m.enter(r.view + 1)\n\t\tcase invalid", "if !planted(%q) || r.own[nullify] == nil { m.enter(r.view + 1) }\n\t\tcase invalid"),
	}},
	{"no nullify after notarize", "liveness", 40000, []plant.Bug{
		edit(machine, "if e.View == m.view && m.cast(",
			"if e.View == m.view && !(planted(%q) && m.find(e.View) != nil && m.find(e.View).own[notarize] != nil) && m.cast("),
	}},
	{"an invalid block keeps its view from being nullified", "liveness", 40000, []plant.Bug{
		edit(rules, "case invalid:\n\t\t\tm.cast(consensus.Nullify", "case invalid:\n\t\t\tif planted(%q) { break }\n\t\t\tm.cast(consensus.Nullify"),
		edit(machine, "case TimerFired:\n\t\tif", "case TimerFired:\n\t\tif r := m.find(e.View); r != nil && planted(%q) && m.blocks[r.block] != nil && m.blocks[r.block].verdict == invalid { break }\n\t\tif"),
	}},
	{"a nullification leads nowhere", "liveness", 20000, []plant.Bug{
		edit(inbound, "if c.Kind != consensus.Notarize {\n\t\tm.enter", "if c.Kind != consensus.Notarize && !planted(%q) {\n\t\tm.enter"),
	}},
	{"nothing is repeated", "liveness", 20000, []plant.Bug{
		edit(repeats, "if m.age%repeatTicks == 0 {", "if m.age&(repeatTicks-1) == 0 && !planted(%q) {"),
	}},
	{"nothing is fetched again", "liveness", 40000, []plant.Bug{
		edit(repeats, "m.apply(Fetch{Block: w.hash, View: w.view})", "if !planted(%q) { m.apply(Fetch{Block: w.hash, View: w.view}) }"),
	}},
}

// large is the size of the worlds that TestTwin does not reduce.
const large = 5136 + 27584

var caughtAfter = regexp.MustCompile(`caught after (\d+) states: after \d+ states: (.*)`)

// TestVerifyExploreTwins: each bug is caught within a stated number of states, by the check that it belongs to. All are in
// one build, in which nothing is caught while they sleep. What a check of safety
// catches in a whole world is caught in the reduced one too.
func TestVerifyExploreTwins(t *testing.T) {
	if race || testing.Short() {
		t.Skip("a build of its own, with nothing in it that runs side by side")
	}
	var all []plant.Bug
	for _, tw := range twins {
		for _, b := range tw.edits {
			b.Name = tw.name
			all = append(all, b)
		}
	}
	binary, err := plant.Tests(t.TempDir(), all)
	if err != nil {
		t.Fatal(err)
	}
	explore := func(bug string, flags ...string) (states int, failure, out string) {
		cmd := exec.Command(binary, append([]string{"-test.run", "^TestTwin$", "-test.v"}, flags...)...)
		cmd.Env = plant.Awake(bug)
		text, err := cmd.CombinedOutput()
		if found := caughtAfter.FindStringSubmatch(string(text)); found != nil && err != nil {
			states, err = strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			failure = found[2]
		}
		return states, failure, string(text)
	}
	if _, failure, out := explore("none of them"); failure != "" || !strings.Contains(out, "not caught in") {
		t.Fatalf("with all asleep: %s", out)
	}
	for _, tw := range twins {
		t.Run(tw.name, func(t *testing.T) {
			states, failure, out := explore(tw.name)
			if failure == "" || states > tw.within || !strings.Contains(failure, tw.says) {
				t.Fatalf("caught after %d states of at most %d: %q, not %q\n%s", states, tw.within, failure, tw.says, out)
			}
			t.Logf("caught after %d states: %s", states, failure)
			if states > large || tw.says == "liveness" {
				return // a fair run from reduced states does not stand for all
			}
			if states, failure, out = explore(tw.name, "-reduce"); failure == "" {
				t.Fatalf("caught in a whole world, and not in the reduced one\n%s", out)
			}
			t.Logf("reduced: caught after %d states: %s", states, failure)
		})
	}
}
