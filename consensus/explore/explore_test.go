package explore_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"tutti/consensus"
	"tutti/consensus/explore"
	"tutti/consensus/sim/simtest"
)

var (
	views   = flag.Int("views", 3, "TestCampaign: explore up to so many views")
	budget  = flag.Duration("budget", 0, "TestCampaign: how long it may take; it is skipped without")
	memory  = flag.Uint64("memory", 16, "TestCampaign: GiB that it may take")
	reduce  = flag.Bool("reduce", false, "TestTwin: reduce all worlds, and only those that are not large without")
	results = flag.String("results", "", "TestCampaign: a file to add its rows to")
)

// scene is a committee whose faulty validators have a part in the first views' leadership.
type scene struct {
	name      string
	powers    []consensus.Power
	seed      uint64
	byzantine []int
}

var (
	four  = []consensus.Power{1, 1, 1, 1}
	seven = []consensus.Power{3, 2, 2, 1, 1, 1, 1} // 11: a quorum is 8, and 3 may be faulty

	// Leaders of four are 1, 0, 3, 2, 0, 1; of seven 5, 0, 4, 1, 0, 3.
	fourFollower = scene{"four, faulty 2", four, 1, []int{2}} // leads view 4
	fourSecond   = scene{"four, faulty 0", four, 1, []int{0}} // leads view 2
	fourFirst    = scene{"four, faulty 1", four, 1, []int{1}} // leads view 1
	sevenBig     = scene{"seven, faulty 0", seven, 1, []int{0}}
	sevenTwo     = scene{"seven, faulty 1 and 3", seven, 1, []int{1, 3}}
	sevenSmall   = scene{"seven, faulty 3, 4 and 5", seven, 1, []int{3, 4, 5}} // 5 leads view 1
)

func (s scene) options(views consensus.View) explore.Options {
	c := simtest.Committee(s.seed, s.powers...)
	o := explore.Options{
		Chain: simtest.Chain, Committee: c, Genesis: simtest.Genesis(c), Keys: simtest.NewKeys(len(s.powers)), Byzantine: s.byzantine,
		Views: views, FairViews: 5,
	}
	for i := range s.powers {
		o.Signers = append(o.Signers, simtest.NewKeys(len(s.powers)).Signer(i))
	}
	return o
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func says(r explore.Report) string {
	return fmt.Sprintf("states %d, transitions %d, depth %d, places %d, steps %d, fair runs %d in up to %d views, %d MiB, %v",
		r.States, r.Transitions, r.Depth, r.Places, r.Steps, r.Fair, r.FairViews, r.Memory>>20, r.Took.Round(time.Millisecond))
}

// run explores a world that has to be right, to its end.
func run(t *testing.T, o explore.Options) explore.Report {
	t.Helper()
	began := cpu()
	r, err := explore.Explore(o)
	t.Logf("%s, CPU %v", says(r), (cpu() - began).Round(time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Whole {
		t.Fatal("it was not explored to the end")
	}
	return r
}

// TestVerifyExplore: every schedule of one view and of two. TestCampaign has the larger ones.
func TestVerifyExplore(t *testing.T) {
	for _, tc := range []struct {
		scene
		views    consensus.View
		restarts int
		reduced  bool
		fair     int
		slow     bool // left out under the race detector
	}{
		{fourFollower, 1, 0, false, 5, false},
		{fourSecond, 1, 0, false, 5, true},
		{fourFirst, 1, 0, false, 23, true},
		{fourFirst, 1, 0, true, 5, false},
		{fourFirst, 1, 1, true, 101, true},
		{sevenBig, 1, 0, true, 23, false},
		{sevenTwo, 1, 0, true, 23, false},
		{sevenSmall, 1, 0, true, 101, true},
		{fourFollower, 2, 0, true, 101, true},
		{fourFirst, 2, 0, true, 1009, true},
	} {
		name := fmt.Sprintf("%s, %d views, %d restarts, reduced %v", tc.name, tc.views, tc.restarts, tc.reduced)
		t.Run(name, func(t *testing.T) {
			if tc.slow && (race || testing.Short()) {
				t.Skip("too large under the race detector")
			}
			o := tc.options(tc.views)
			o.Restarts, o.Reduced, o.Fair = tc.restarts, tc.reduced, tc.fair
			run(t, o)
		})
	}
}

// TestVerifyExploreFair: from every state of one view.
func TestVerifyExploreFair(t *testing.T) {
	if race {
		t.Skip("too large under the race detector")
	}
	for _, s := range []scene{fourFollower, fourSecond} {
		t.Run(s.name, func(t *testing.T) {
			o := s.options(1)
			o.Fair = 1
			run(t, o)
		})
	}
}

// TestByVotes: machines that make the certificates themselves come to just the same states.
func TestByVotes(t *testing.T) {
	for _, s := range []scene{fourFollower, fourFirst} {
		o := s.options(1)
		whole := run(t, o)
		o.ByVotes = true
		if r := run(t, o); r.States != whole.States || r.Transitions != whole.Transitions || r.Places != whole.Places {
			t.Errorf("%s: by votes %s, by certificates %s", s.name, says(r), says(whole))
		}
	}
}

// TestVerifyExploreWalks draws schedules of worlds that are too large to be visited whole.
func TestVerifyExploreWalks(t *testing.T) {
	sets := uint64(3)
	if race {
		sets = 1
	}
	for _, s := range []scene{fourFollower, fourFirst, sevenBig, sevenTwo, sevenSmall} {
		for _, views := range []consensus.View{3, 5} {
			var states, walks int
			for seed := uint64(1); seed <= sets; seed++ {
				o := s.options(views)
				o.Modest, o.Fair, o.Restarts = true, 1, int(seed%2)
				r, err := explore.Walk(o, seed, 20)
				if err != nil {
					t.Fatalf("%s, %d views, seed %d: %v", s.name, views, seed, err)
				}
				states, walks = states+r.States, walks+r.Fair
			}
			t.Logf("%s, %d views: %d walks, %d states", s.name, views, walks, states)
		}
	}
}

// TestRefused: worlds in which the checks would mean nothing.
func TestRefused(t *testing.T) {
	for _, s := range []scene{
		{"two of four", four, 1, []int{0, 1}},
		{"two are a quorum", []consensus.Power{5, 5, 1, 1}, 1, []int{2}},
	} {
		if _, err := explore.Explore(s.options(1)); err == nil {
			t.Errorf("%s: explored", s.name)
		}
	}
}

// TestBounds: a bound ends an exploration, which then does not count as whole.
func TestBounds(t *testing.T) {
	for _, set := range []func(*explore.Options){
		func(o *explore.Options) { o.States = 100 },
		func(o *explore.Options) { o.Deadline = time.Now() },
		func(o *explore.Options) { o.Memory = 1 },
	} {
		o := fourFirst.options(1)
		set(&o)
		if r, err := explore.Explore(o); err != nil || r.Whole {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestCampaign explores one view, two, three and so on, of committees of four in half of its budget and of seven in the rest, and
// says how many it finished. bench/results/explore.tsv has its rows.
func TestCampaign(t *testing.T) {
	if *budget == 0 {
		t.Skip("no -budget")
	}
	deadline := time.Now().Add(*budget)
	campaign(t, "four", time.Now().Add(*budget/2), fourFollower, fourFirst, fourSecond)
	campaign(t, "seven", deadline, sevenSmall, sevenTwo, sevenBig)
}

func campaign(t *testing.T, size string, deadline time.Time, scenes ...scene) {
	commit := "unknown"
	if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	finished := 0
	for v := 1; v <= *views; v++ {
		whole := true
		for _, s := range scenes {
			if time.Now().After(deadline) {
				whole = false
				break
			}
			o := s.options(consensus.View(v))
			o.Reduced, o.Fair, o.Deadline, o.Memory = true, 1009, deadline, *memory<<30
			r, err := explore.Explore(o)
			outcome := "clean"
			if err != nil {
				outcome = "FAILED: " + strings.ReplaceAll(err.Error(), "\n", ";")
			} else if !r.Whole {
				outcome, whole = "clean, not finished", false
			}
			row := fmt.Sprintf("%s\t%d\t%v\t%v\t%d\t%d\t%d\t%.0f\t%d\t%s\n", commit, len(s.powers), s.powers, s.byzantine, v, r.States,
				r.Transitions, r.Took.Seconds(), r.Memory>>20, outcome)
			if *results != "" {
				add(t, *results, row)
			}
			t.Log(row)
			if err != nil {
				t.Error(err)
			}
		}
		if !whole {
			break
		}
		finished = v
	}
	t.Logf("%s: %d views finished", size, finished)
}

func add(t *testing.T, path, row string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		row = "commit\tn\tpowers\tfaulty\tviews\tstates\ttransitions\tduration_s\tmemory_mib\toutcome\n" + row
	}
	if _, err := f.WriteString(row); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTwin is what TestVerifyExploreTwins runs in a build with bugs: worlds of growing size, until a check fails.
func TestTwin(t *testing.T) {
	if os.Getenv("TUTTI_PLANTED") == "" {
		t.Skip("nothing is planted")
	}
	seen := 0
	for _, w := range []struct {
		scene
		views    consensus.View
		restarts int
		reduced  bool
		fair     int
	}{
		{fourFollower, 1, 0, false, 5},
		{fourFirst, 1, 0, false, 23},
		{fourFirst, 1, 1, true, 101},
		{fourFollower, 2, 0, true, 101},
	} {
		if w.reduced && *reduce {
			break
		}
		o := w.options(w.views)
		o.Restarts, o.Reduced, o.Fair = w.restarts, w.reduced, w.fair
		if *reduce {
			o.Reduced, o.Fair = true, 1
		}
		r, err := explore.Explore(o)
		seen += r.States
		if f := (*explore.Failure)(nil); errors.As(err, &f) {
			t.Fatalf("caught after %d states: %v", seen, f)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("not caught in %d states", seen)
}
