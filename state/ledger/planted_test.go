package ledger

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"tutti/internal/plant"
)

// TestSkippedSync is a canary for TestPowerCampaign: a disk that leaves out one sync of a kind in each life has to make
// it fail within the given number of runs.
func TestSkippedSync(t *testing.T) {
	for kind, within := range map[string]uint64{"log": 1000, "sst": 50, "MANIFEST": 50} {
		t.Run(kind, func(t *testing.T) {
			for n := uint64(1); n <= within; n++ {
				r := newPowerRun(t, n)
				r.skipSync = kind
				if err := r.run(); err != nil {
					t.Logf("caught in run %d: %v", n, err)
					return
				}
			}
			t.Errorf("a sync was left out in each life, and %d runs did not notice", within)
		})
	}
}

// bug is a fault that TestPowerCampaign has to catch.
type bug struct {
	plant.Bug
	within uint64 // runs
}

var bugs = []bug{
	{plant.Bug{
		Name: "one commit in eight is not synced", File: "../store/batch.go",
		Old: "return s.db.Apply(b.b, pebble.Sync)",
		New: "if planted(%q) && every(8) { return s.db.Apply(b.b, pebble.NoSync) }; return s.db.Apply(b.b, pebble.Sync)",
	}, 400}, // found when power is lost before the next synced commit: one run in 30 or so
	{plant.Bug{
		Name: "a page holds a block above its height", File: "finalise.go",
		Old: "l.cellsAt(base, slot, p.Page<<pageLog, page)",
		New: "if planted(%q) { l.cellsAt(l.last, slot, p.Page<<pageLog, page) } else { l.cellsAt(base, slot, p.Page<<pageLog, page) }",
	}, 40},
	{plant.Bug{
		Name: "differences are dropped one cycle too early", File: "finalise.go",
		Old: "s.DropBlocks(p.Cycle)",
		New: "if planted(%q) { s.DropBlocks(base.height) } else { s.DropBlocks(p.Cycle) }",
	}, 40},
	{plant.Bug{
		Name: "keys of the directory are stored one place too far", File: "finalise.go",
		Old: "s.Key(last.meta.Directory.Count()+uint64(i), b.keys[i].append(nil))",
		New: "s.Key(last.meta.Directory.Count()+uint64(i)+count(planted(%q)), b.keys[i].append(nil))",
	}, 40},
}

var caughtSeed = regexp.MustCompile(`seed (\d+): .*`)

// TestPlantedBugs is the other canary: TestPowerCampaign, built with a bug, has to fail within a stated number of runs.
// Without one it passes in the same build.
func TestPlantedBugs(t *testing.T) {
	var all []plant.Bug
	for _, b := range bugs {
		all = append(all, b.Bug)
	}
	binary, err := plant.Tests(t.TempDir(), all)
	if err != nil {
		t.Fatal(err)
	}
	campaign := func(bug string, runs uint64) (string, error) {
		cmd := exec.Command(binary, "-test.run", "^TestPowerCampaign$", "-seed", "1", "-runs", fmt.Sprint(runs), "-recoveries", "1000000")
		cmd.Env = plant.Awake(bug)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := campaign("", 5); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			out, err := campaign(b.Name, b.within)
			found := caughtSeed.FindStringSubmatch(out)
			if err == nil || found == nil {
				t.Fatalf("%d runs did not notice: %v\n%s", b.within, err, out)
			}
			if n, err := strconv.ParseUint(found[1], 10, 64); err != nil || n > b.within {
				t.Fatalf("caught in run %s, not within %d", found[1], b.within)
			}
			t.Logf("caught in run %s", found[0][len("seed "):])
		})
	}
}
