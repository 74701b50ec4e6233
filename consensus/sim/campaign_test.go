package sim_test

import (
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tutti/consensus"
	"tutti/consensus/sim"
)

var (
	seeds     = flag.Int("seeds", 40, "number of seeds of the simulations with faults")
	lost      = flag.Int("lost", 0, "number of seeds with lost disks; 0: half as many as -seeds")
	schedules = flag.Int("schedules", 60, "number of Twins schedules")
	each      = flag.Bool("each", false, "of the schedules that are enumerated, each from -first on, instead of even steps")
	first     = flag.Uint64("first", 1, "the first seed")
	seed      = flag.Uint64("seed", 0, "run only this seed, with a trace")
)

// sums are what a campaign did in all.
type sums struct {
	first, last                            uint64
	heights                                consensus.Height
	restarts, synced, lost, joined, events int
	epochs, echoes                         int

	evidence, convicted, blamed, led, conflicts int // pieces; seeds with them; seeds with blame; views led by twins; seeds
	clashes                                     map[string]int

	final                                  [10]int // seeds by the number of views to finality, from 1
	worst, worstFinal                      consensus.View
	worstIn, worstGoal                     time.Duration
	worstGoalSeed                          uint64
	worstSeed, worstFinalSeed, worstInSeed uint64
}

func (s *sums) String() string {
	ms := time.Millisecond
	return fmt.Sprintf("seeds %d to %d: %d blocks, %d restarts, %d syncs, %d events; ", s.first, s.last, s.heights, s.restarts, s.synced, s.events) +
		fmt.Sprintf("views to finality after settling %v, at most %d (seed %d), %v (seed %d); ", s.final, s.worstFinal, s.worstFinalSeed, s.worstIn.Round(ms), s.worstInSeed) +
		fmt.Sprintf("all have the goal after at most %d views (seed %d), %v (seed %d)", s.worst, s.worstSeed, s.worstGoal.Round(ms), s.worstGoalSeed)
}

func (s *sums) add(seed uint64, r sim.Report) {
	s.heights, s.restarts, s.synced, s.events = s.heights+r.Height, s.restarts+r.Restarts, s.synced+r.Synced, s.events+r.Events
	s.epochs, s.echoes = s.epochs+r.Epochs, s.echoes+r.Echoes
	s.lost, s.joined, s.led = s.lost+r.Lost, s.joined+r.Joined, s.led+r.Led
	for _, n := range r.Evidence {
		s.evidence += n
	}
	if len(r.Evidence) > 0 {
		s.convicted++
	}
	if len(r.Blamed) > 0 {
		s.blamed++
	}
	if r.Conflict {
		s.conflicts++
		s.clashes[r.Clash]++
	}
	if r.Final > 0 {
		s.final[min(int(r.Final), len(s.final))-1]++
	}
	if r.Final > s.worstFinal {
		s.worstFinal, s.worstFinalSeed = r.Final, seed
	}
	if r.GoalIn > s.worstGoal {
		s.worstGoal, s.worstGoalSeed = r.GoalIn, seed
	}
	if r.FinalIn > s.worstIn {
		s.worstIn, s.worstInSeed = r.FinalIn, seed
	}
	if r.Settled > s.worst {
		s.worst, s.worstSeed = r.Settled, seed
	}
}

// campaign runs the seeds from -first on, as many as there are processors at a time, or only -seed with its trace. The
// first failure ends it, with the lowest seed that failed.
func campaign(t *testing.T, test string, n int, draw func(seed uint64) (sim.Options, string)) *sums {
	t.Helper()
	from := *first
	if *seed != 0 {
		from, n = *seed, 1
	}
	sum := &sums{first: from, last: from + uint64(n) - 1, clashes: map[string]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Uint64
	failed, failure := ^uint64(0), ""
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for s := from + next.Add(1) - 1; s <= sum.last; s = from + next.Add(1) - 1 {
				o, says := draw(s)
				if *seed != 0 {
					o.Trace = func(f string, a ...any) { fmt.Printf(f+"\n", a...) }
				}
				r, err := sim.Run(o)
				mu.Lock()
				sum.add(s, r)
				if err != nil && s < failed {
					failed = s
					failure = fmt.Sprintf("seed %d (%s): %v\nreport %+v\nagain: go test ./consensus/sim -run %s -seed %d", s, says, err, r, test, s)
					next.Store(sum.last)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failure != "" {
		t.Fatal(failure)
	}
	return sum
}
