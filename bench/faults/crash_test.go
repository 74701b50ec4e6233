package faults

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestUnsyncedDisk runs the tests of the file system that loses what was not synced, which need its build tag.
func TestUnsyncedDisk(t *testing.T) {
	out, err := exec.Command("go", "test", "-count=1", "-tags", "tutti_unsynced", "-run", "^TestUnsynced", "tutti/appliance/node").CombinedOutput()
	if err != nil || strings.Contains(string(out), "no tests to run") {
		t.Errorf("%v\n%s", err, out)
	}
}

// crashes makes a crash campaign and ends it with the test. The short version has few accounts.
func crashes(t *testing.T, binary, dir string) func() (Result, string) {
	c := &Crashes{Binary: binary, Dir: dir, Accounts: 2000, Logf: t.Logf}
	if *runs > 0 {
		c.Accounts = 100_000
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return func() (Result, string) {
		r, detail, err := c.Run(t.Context(), freshSeed())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %s, %.1f s, %d proofs checked again", r.Seed, detail, r.Took.Seconds(), r.Proofs)
		return r, detail
	}
}

// TestCrashes is the crash campaign on the build that loses what was not synced: a few runs, or as many as -runs says.
func TestCrashes(t *testing.T) {
	campaign(t, 2, Results{*results, commit(t)}, crashes(t, build(t, "tutti_unsynced"), dir(t)))
}

// catchWithin is in how many runs the campaign has to notice that syncs are skipped. It takes 3 on the average with the
// vote log and 1 with the block log.
const catchWithin = 50

// TestCrashesCatch is the canary: the same campaign on a build in which one kind of sync is skipped has to fail. The vote
// log's takes up to some dozens of runs, and so belongs to the campaign alone.
func TestCrashesCatch(t *testing.T) {
	binary := build(t, "tutti_unsynced,tutti_skipsync")
	logs := []string{"blocks"}
	if *runs > 0 {
		logs = append(logs, "votes")
	}
	for _, skipped := range logs {
		t.Run(skipped, func(t *testing.T) {
			t.Setenv("TUTTI_SKIPSYNC", skipped)
			at := Results{*results, commit(t)}
			run := crashes(t, binary, t.TempDir())
			for n := 1; n <= catchWithin; n++ {
				r, detail := run()
				if len(r.Wrongs) == 0 {
					continue
				}
				t.Logf("caught in run %d:\n%s", n, strings.Join(r.Wrongs, "\n"))
				if *runs > 0 {
					if err := at.AppendCanary(r, fmt.Sprintf("caught: no sync of the %s log, run %d (%s): %s", skipped, n, detail, r.Wrongs[0])); err != nil {
						t.Error(err)
					}
				}
				return
			}
			t.Errorf("no append to the %s log was synced, and %d runs did not notice", skipped, catchWithin)
		})
	}
}
