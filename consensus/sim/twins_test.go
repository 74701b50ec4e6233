package sim_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tutti/consensus"
	"tutti/consensus/sim"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// even is a committee of which exactly a third can be faulty: safety holds there too, liveness need not.
var even = []consensus.Power{2, 2, 1, 1}

// twins is what a seed of a Twins schedule stands for. The faulty power is at most a third; above, a little more than that
// and at most two thirds.
func twins(seed uint64, above bool) (sim.Options, string) {
	rng := rand.New(rand.NewPCG(seed, 2))
	powers := [][]consensus.Power{four, seven, unequal, even}[seed%4]
	o := options(seed, powers)
	o.Above = above
	total := o.Committee.Total()
	sc := &sim.Schedule{BySender: rng.IntN(3) == 0}
	var bad consensus.Power
	for _, i := range rng.Perm(len(powers)) {
		p := bad + powers[i]
		if above && 3*bad <= total && 3*p <= 2*total || !above && 3*p <= total {
			sc.Twins, bad = append(sc.Twins, i), p
		}
	}
	if above && 3*bad <= total { // those of an odd committee that come last may not fit
		return twins(seed+1_000_003*4, above)
	}
	slices.Sort(sc.Twins)
	views := 3 + rng.IntN(6)
	if rng.IntN(2) == 0 { // of some leader schedules the one with most views led by twins
		led := func(c *consensus.Committee) (n int) {
			for v := range consensus.View(views) {
				if slices.Contains(sc.Twins, c.Leader(v+1)) {
					n++
				}
			}
			return n
		}
		for k := range uint64(8) {
			if c := simtest.Committee(seed<<8+k, powers...); led(c) > led(o.Committee) {
				o.Committee, o.Genesis = c, simtest.Genesis(c)
			}
		}
	}
	machines := len(powers) + 1 + len(sc.Twins)
	halves := func() []int { // the twins' two machines are kept apart
		g := make([]int, machines)
		for i := range powers {
			g[i] = rng.IntN(2)
		}
		g[len(powers)] = rng.IntN(2)
		for k, i := range sc.Twins {
			g[len(powers)+1+k] = 1 - g[i]
		}
		return g
	}
	groups := func() []int {
		g := make([]int, machines)
		if n := rng.IntN(5); n > 0 { // one time in five all are together
			for i := range g {
				g[i] = rng.IntN(min(n, 3) + 1)
			}
		}
		return g
	}
	scattered := func(g []int, half int) []int { // everybody of one half is alone
		g = slices.Clone(g)
		for i := range g {
			if g[i] == half {
				g[i] = 2 + i
			}
		}
		return g
	}
	quorums := func(g []int) bool { // each half has one, with a machine of each twin
		power := [2]consensus.Power{bad, bad}
		for i, p := range powers {
			if !slices.Contains(sc.Twins, i) {
				power[g[i]] += p
			}
		}
		return o.Committee.IsQuorum(power[0]) && o.Committee.IsQuorum(power[1])
	}
	fixed := halves()
	same := above && rng.IntN(4) > 0
	for try := 0; same && !quorums(fixed) && try < 100; try++ {
		fixed = halves()
	}
	for range views {
		s := sim.Split{groups(), nil}
		switch {
		case same:
			s = sim.Split{fixed, fixed}
			if half := rng.IntN(4); half < 2 { // it notarizes, and hears of nothing else
				s[1] = scattered(fixed, half)
			}
		case rng.IntN(3) == 0:
			s[0] = halves()
		}
		if s[1] == nil {
			s[1] = s[0]
			if rng.IntN(3) == 0 {
				s[1] = groups()
			}
		}
		var heal time.Duration
		if !same && rng.IntN(4) > 0 {
			heal = time.Duration(1 + rng.Int64N(int64(6*time.Second)))
		}
		sc.Views, sc.Heal = append(sc.Views, s), append(sc.Heal, heal)
	}
	sc.Lasts = time.Duration(views) * 6 * time.Second
	o.Schedule, o.Safe = sc, !o.Committee.IsQuorum(total-bad)
	return o, fmt.Sprintf("n=%d, total power %d, twins of %v, %d views", len(powers), total, sc.Twins, views)
}

// enumerated is schedule number k of all those of two views at n=4: validator 0 runs twice, every way to part the five
// machines into two groups in each phase of each view, and every kind of leader pair. The honest are alike, so three
// pairs stand for all.
func enumerated(k uint64) sim.Options {
	const ways = 16
	leaders := [][2]int{{0, 1}, {1, 0}, {1, 2}}[k/(ways*ways*ways*ways)]
	var c *consensus.Committee
	for s := uint64(1); c == nil || c.Leader(1) != leaders[0] || c.Leader(2) != leaders[1]; s++ {
		c = simtest.Committee(s, four...)
	}
	o := options(k, four)
	o.Committee, o.Genesis = c, simtest.Genesis(c)
	sc := &sim.Schedule{Twins: []int{0}, Heal: []time.Duration{4 * time.Second, 4 * time.Second}, Lasts: 10 * time.Second}
	split := func() []int {
		g := []int{0, int(k & 1), int(k >> 1 & 1), int(k >> 2 & 1), 0, int(k >> 3 & 1)} // the observer is with machine 0
		k /= ways
		return g
	}
	for range 2 {
		s := sim.Split{split(), nil}
		s[1] = split()
		sc.Views = append(sc.Views, s)
	}
	o.Schedule = sc
	return o
}

const enumeratedAll = 3 * 16 * 16 * 16 * 16

// TestVerifyTwins plays Twins schedules with twins of at most a third of the power. All checks of the simulator are on;
// nobody is blamed, for every machine is honest, and evidence names twins alone.
func TestVerifyTwins(t *testing.T) {
	sum := campaign(t, "TestVerifyTwins", *schedules, func(seed uint64) (sim.Options, string) { return twins(seed, false) })
	t.Logf("%s; %d views led by twins, %d schedules with evidence, %d pieces", sum, sum.led, sum.convicted, sum.evidence)
	if *seed == 0 && (sum.convicted < *schedules/4 || sum.led < *schedules/2 || sum.blamed > 0) {
		t.Errorf("%d schedules with evidence, %d with blame: this test tests little, or blames the honest", sum.convicted, sum.blamed)
	}
}

// TestVerifyTwinsEnumerated plays schedules of two views in even steps through all there are, or each with -each.
func TestVerifyTwinsEnumerated(t *testing.T) {
	step := uint64(max(enumeratedAll / *schedules, 1))
	if *each {
		step = 1
	}
	sum := campaign(t, "TestVerifyTwinsEnumerated", *schedules, func(seed uint64) (sim.Options, string) {
		k := (seed - 1) * step % enumeratedAll
		return enumerated(k), fmt.Sprintf("number %d of %d, steps of %d", k, enumeratedAll, step)
	})
	t.Logf("%s; one in %d, %d with evidence", sum, step, sum.convicted)
}

// TestVerifyAbove: with twins of more than a third conflicting finalizations occur, and what honest validators have logged
// convicts more than a third of the power and nobody honest.
func TestVerifyAbove(t *testing.T) {
	sum := campaign(t, "TestVerifyAbove", *schedules, func(seed uint64) (sim.Options, string) { return twins(seed, true) })
	t.Logf("%s; %d conflicting finalizations, convicted by %v", sum, sum.conflicts, sum.clashes)
	if *seed == 0 && (sum.conflicts < *schedules/10 || len(sum.clashes) < 3) {
		t.Errorf("%d conflicts of kinds %v: this test tests little", sum.conflicts, sum.clashes)
	}
}

// TestAccountableTwin is a canary for TestVerifyAbove: machines that do not log certificates leave too little to convict by.
func TestAccountableTwin(t *testing.T) {
	unlogged := breaking(func(b *broken, _ sim.Env) {
		b.after = func(r *simplex.Ready) {
			r.Persist.Records = slices.DeleteFunc(r.Persist.Records, func(rec simplex.Record) bool { return rec.Cert != nil })
		}
	})
	for s := uint64(1); s <= 100; s++ {
		o, _ := twins(s, true)
		o.Honest, o.Skip = unlogged, "without a nullification"
		if _, err := sim.Run(o); err != nil {
			t.Logf("seed %d: %v", s, err)
			return
		}
	}
	t.Error("not caught in 100 seeds")
}
