package faults

import (
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

// TestCrashes is the crash campaign on the build that loses what was not synced.
func TestCrashes(t *testing.T) {
	c := &Crashes{Binary: build(t, "tutti_unsynced"), Home: func() string { return home(t) }, Logf: t.Logf}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	campaign(t, Results{*results, commit(t)}, func() (Result, string) {
		s := freshSeed()
		r, detail, err := c.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %s, %.1f s, %d proofs checked again", s, detail, r.Took.Seconds(), r.Proofs)
		return r, detail
	})
}

// catchWithin is in how many runs the campaign has to notice that one sync is skipped.
const catchWithin = 100

// TestCrashesCatch is the canary: the same campaign on a build in which one sync is skipped has to fail.
func TestCrashesCatch(t *testing.T) {
	binary := build(t, "tutti_unsynced,tutti_skipsync")
	for _, skipped := range []string{"votes", "blocks"} {
		t.Run(skipped, func(t *testing.T) {
			t.Setenv("TUTTI_SKIPSYNC", skipped)
			c := &Crashes{Binary: binary, Home: func() string { return home(t) }, Logf: t.Logf}
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			for n := 1; n <= catchWithin; n++ {
				s := freshSeed()
				r, detail, err := c.Run(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("seed %d: %s, %.1f s, %d proofs checked again", s, detail, r.Took.Seconds(), r.Proofs)
				if len(r.Wrongs) > 0 {
					t.Logf("caught in run %d:\n%s", n, strings.Join(r.Wrongs, "\n"))
					return
				}
			}
			t.Errorf("no sync of the %s log is made, and %d runs did not notice", skipped, catchWithin)
		})
	}
}
