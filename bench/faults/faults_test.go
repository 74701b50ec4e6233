package faults

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// The flags turn tests into campaigns; `make soak-faults` and `make soak-crash` give them.
var (
	runs    = flag.Int("runs", 0, "runs of the campaign at this commit, those in -results included; 0: the short version")
	results = flag.String("results", "", "file to append each run of a campaign to")
	seed    = flag.Uint64("seed", 0, "seed of the first run; 0: a fresh one for each")
	keep    = flag.Bool("keep", false, "keep the homes of runs that failed")
)

func TestMain(m *testing.M) {
	InBox()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(buildFolder)
		os.Exit(code)
	}))
}

// build builds tutti from this tree.
func build(t *testing.T, tags string, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "tutti")
	cmd := exec.Command("go", slices.Concat([]string{"build", "-tags", tags, "-o", binary}, flags, []string{"tutti/appliance/cmd/tutti"})...)
	if os.Getenv("CGO_CFLAGS") == "" { // as the Makefile has it
		cmd.Env = append(os.Environ(), "CGO_CFLAGS=-O2 -D__BLST_PORTABLE__")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build -tags %q: %v\n%s", tags, err, out)
	}
	return binary
}

// commit names the tree that is tested: the last commit that changed it, and a few digits that tell what differs from it.
func commit(t *testing.T) string {
	t.Helper()
	if *results == "" {
		return "" // nothing is written; the test may run where there is no git
	}
	hash, err := exec.Command("git", "-C", "../..", "log", "-1", "--format=%h", "--abbrev=12", "--", "*.go", "go.mod", "go.sum").Output()
	if err != nil {
		t.Fatalf("git log: %v", err)
	}
	changed, err := exec.Command("git", "-C", "../..", "diff", "HEAD", "--", "*.go", "go.mod", "go.sum").Output()
	if err != nil {
		t.Fatalf("git diff: %v", err)
	}
	name := string(bytes.TrimSpace(hash))
	if len(changed) > 0 {
		name += fmt.Sprintf("+%.3x", sha256.Sum256(changed))
	}
	return name
}

// dir is a folder for networks, removed at the end of the test unless -keep is given.
func dir(t *testing.T) string {
	if *keep {
		return os.TempDir()
	}
	return t.TempDir()
}

func freshSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(rand.Uint32()) // short enough to type
}

// campaign makes a few runs or, with -runs, as many as are missing at this commit, and appends each to the results.
func campaign(t *testing.T, few int, results Results, run func() (Result, string)) {
	t.Helper()
	for n := 0; ; n++ {
		if *runs == 0 && n == few {
			return
		}
		if *runs > 0 {
			done, bad, err := results.Done()
			if err != nil {
				t.Fatal(err)
			}
			if done >= *runs {
				t.Logf("%d runs at %s, %d failed", done, results.Commit, bad)
				if bad > 0 {
					t.Errorf("%d of %d runs failed: see %s", bad, done, results.Path)
				}
				return
			}
		}
		r, detail := run()
		if len(r.Wrongs) > 0 {
			t.Errorf("seed %d %s:\n%s", r.Seed, detail, strings.Join(r.Wrongs, "\n"))
		}
		if *runs > 0 {
			if err := results.Append(r, detail); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFaults runs the fault scenario on the real binary under load: once, or as a campaign.
func TestFaults(t *testing.T) {
	binary := build(t, "")
	campaign(t, 1, Results{*results, commit(t)}, func() (Result, string) {
		s := freshSeed()
		t.Logf("seed %d", s)
		r, err := Faults(t.Context(), binary, dir(t), s, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("seed %d: %.1f s, %d proofs checked again", s, r.Took.Seconds(), r.Proofs)
		return r, ""
	})
}
