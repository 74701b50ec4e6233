package faults

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tutti/internal/plant"
)

var (
	duration = flag.Duration("duration", 0, "run time of the black-box campaign at this commit, that of the runs in -results included; 0: the short version")
	parallel = flag.Int("parallel", 1, "black-box runs at once")
)

// boxes makes black-box runs with their folders in a new one, or with -keep below the system's one for temporary files.
func boxes(t *testing.T, o BoxOptions) func(seed uint64) BoxResult {
	t.Helper()
	if err := BoxSupported(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	parent := dir(t)
	return func(seed uint64) BoxResult {
		o := o
		o.Seed = seed
		var err error
		if o.Dir, err = os.MkdirTemp(parent, fmt.Sprintf("tutti-box-%d-", seed)); err != nil {
			t.Error(err)
			return BoxResult{Result: Result{Wrongs: []string{err.Error()}}}
		}
		r, err := BlackBox(t.Context(), o)
		if err != nil {
			r.Seed, r.Wrongs = seed, append(r.Wrongs, err.Error())
		}
		t.Logf("seed %d: %s, %d shards of %d, %s: %d blocks, %d proofs, %.1f s without finality, settled after %.1f s, took %.1f s",
			seed, r.Build, r.Shards, r.Validators, r.Nemeses, r.Blocks, r.Proofs, r.Stall.Seconds(), r.Settle.Seconds(), r.Took.Seconds())
		if len(r.Wrongs) > 0 {
			text, _ := os.ReadFile(filepath.Join(o.Dir, "run.log"))
			t.Logf("seed %d: see %s\n%s\n%s", seed, o.Dir, text, strings.Join(r.Wrongs, "\n"))
		}
		return r
	}
}

// TestBlackBox runs the real binary on machines of its own, with nemeses: a short version, or a campaign.
func TestBlackBox(t *testing.T) {
	if *duration == 0 && *seed == 0 {
		unsynced := build(t, "tutti_unsynced")
		r := boxes(t, BoxOptions{Unsynced: unsynced, Short: true})(freshSeed())
		if len(r.Wrongs) > 0 {
			t.Errorf("seed %d: %s", r.Seed, strings.Join(r.Wrongs, "\n"))
		}
		return
	}
	if err := BoxSupported(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	run := boxes(t, BoxOptions{
		Product: build(t, ""), Clock: true,
		Unsynced: build(t, "tutti_unsynced", "-overlay", clockOverlay(t, "../../appliance/cmd/tutti")),
	})
	if *seed != 0 {
		if r := run(*seed); len(r.Wrongs) > 0 {
			t.Errorf("seed %d failed", *seed)
		}
		return
	}
	results := BoxResults{*results, commit(t)}
	var group sync.WaitGroup
	var mu sync.Mutex // guards the file
	for range *parallel {
		group.Go(func() {
			for {
				mu.Lock()
				all, here, bad, err := results.Done()
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				if bad > 0 || all >= *duration && here >= *duration/presentShare {
					t.Logf("%s of runs, of these %s at %s; %d failed there", all.Round(time.Second), here.Round(time.Second), results.Commit, bad)
					return
				}
				r := run(freshSeed())
				mu.Lock()
				err = results.Append(r, "")
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if _, _, bad, err := results.Done(); err != nil || bad > 0 {
		t.Errorf("%d runs failed (%v): see %s", bad, err, results.Path)
	}
}

// presentShare: of the campaign's time one part in so many is of the present code, the rest may be of any since a run failed.
const presentShare = 3

// planted are the bugs that black-box runs must find: what they break is what a cut of the power shows.
var planted = []plant.Bug{
	{
		Name: "vote sent before it is synced", File: "../../consensus/engine/loop.go",
		Old: "\tif err := e.persist(r.Persist); err != nil {\n",
		New: "\tif planted(%q) {\n\t\tfor i := range r.Send {\n\t\t\te.sendOut(&r.Send[i], nil)\n\t\t}\n\t}\n" +
			"\tif err := e.persist(r.Persist); err != nil {\n",
	},
	{
		Name: "finalize sent before the body is synced", File: "../../consensus/engine/loop.go",
		Old: "\tif err := e.persist(r.Persist); err != nil {\n",
		New: "\tif planted(%q) {\n\t\tlate := simplex.Persist{Blocks: r.Persist.Blocks}\n\t\tr.Persist.Blocks = nil\n\t\tdefer func() { _ = e.persist(late) }()\n\t}\n" +
			"\tif err := e.persist(r.Persist); err != nil {\n",
	},
}

// boxCatchWithin is in how many runs the campaign has to notice a planted bug.
const boxCatchWithin = 8

// TestBlackBoxCatches is the campaign's canary: runs of cuts of power on builds with planted bugs have to fail.
func TestBlackBoxCatches(t *testing.T) {
	if *duration == 0 {
		t.Skip("part of the campaign: make soak-blackbox")
	}
	if err := BoxSupported(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	binary, err := plant.Program(t.TempDir(), "tutti/appliance/cmd/tutti", planted, "-tags", "tutti_unsynced")
	if err != nil {
		t.Fatal(err)
	}
	at := BoxResults{*results, commit(t)}
	if caught, err := at.Caught(); err != nil || caught >= len(planted) {
		t.Logf("%d planted bugs were caught at %s before (%v)", caught, at.Commit, err)
		return
	}
	for _, bug := range planted {
		t.Run(bug.Name, func(t *testing.T) {
			t.Setenv("TUTTI_PLANTED", bug.Name)
			run := boxes(t, BoxOptions{Unsynced: binary, Power: true})
			for n := 1; n <= boxCatchWithin; n++ {
				r := run(freshSeed())
				if len(r.Wrongs) == 0 {
					continue
				}
				if err := at.Append(r, fmt.Sprintf("%s caught: %s, run %d: %s", canary, bug.Name, n, r.Wrongs[0])); err != nil {
					t.Error(err)
				}
				return
			}
			t.Errorf("%d runs did not notice", boxCatchWithin)
		})
	}
}
