package selftest

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"time"
)

const (
	trials   = 9                     // at most, per backend and size; the fastest counts, because noise only adds
	shortest = 20 * time.Microsecond // that is timed at once; reading the clock takes half a microsecond
	noise    = 0.05                  // by less than this share nobody takes over from the first candidate, or from the winner at the size below
	behind   = 2.0                   // a backend this many times slower than the best, and not catching up, is not measured further
)

// measure times the eligible candidates at every size within the operation's budget and writes the costs into their
// verdicts. It returns the indices of those that survived: a panic disables.
//
// Sizes come in ascending order, and what one leaves of its share of the budget passes on to the next, so that most
// of it goes where single runs take long. A run is only begun if it should fit, going by the costs at smaller sizes;
// what does not fit keeps the cost of the size below as a guess. The first size is measured once in any case. Costs
// are by the CPU time of this thread where the system tells it: on a busy machine the clock on the wall measures the
// neighbours.
func (t *Table[B]) measure(op Operation[B], clock func() time.Duration, candidates []B, eligible []int) []int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	left := op.Budget
	alive := slices.Clone(eligible)
	for k, size := range op.Sizes {
		share := left / time.Duration(len(op.Sizes)-k)
		slices.SortStableFunc(alive, func(a, b int) int { return cmp.Compare(t.lastNs(a), t.lastNs(b)) })
		for at := 0; at < len(alive); {
			v := &t.verdicts[alive[at]]
			slice := share / time.Duration(len(alive)-at)
			if k > 0 && (expected(v.Costs, size) > max(slice, left/3) || t.hopeless(alive, alive[at], k)) {
				v.Costs = append(v.Costs, Cost{Size: size, Ns: v.Costs[k-1].Ns, Guessed: true})
				at++
				continue
			}
			var best, spent time.Duration
			err := guard(func() error {
				best, spent = fastest(clock, slice, func() { op.Work(candidates[alive[at]], size) })
				return nil
			})
			share, left = share-spent, left-spent
			if err != nil {
				v.Passed, v.Failed, v.Costs, v.Reason = false, true, []Cost{}, "disabled: "+err.Error()
				alive = slices.Delete(alive, at, at+1)
				continue
			}
			v.Costs = append(v.Costs, Cost{Size: size, Ns: tenths(float64(best) / float64(size))})
			at++
		}
	}
	slices.Sort(alive)
	return alive
}

// fastest runs f until slice is used up or often enough, but at least once, and returns the best time of one run. Runs
// too short for the clock are timed many at a time.
func fastest(clock func() time.Duration, slice time.Duration, f func()) (best, spent time.Duration) {
	start := clock()
	f()
	best = clock() - start
	spent = best
	many := 1
	if best < shortest {
		many = int(shortest/max(best, shortest/1000)) + 1
	}
	for i := 1; i < trials && spent+best*time.Duration(many) <= slice; i++ {
		start = clock()
		for range many {
			f()
		}
		d := clock() - start
		spent += d
		best = min(best, d/time.Duration(many))
	}
	return best, spent
}

// expected is how long a run at the next size should take: as long per item as at the largest size so far, or where
// two sizes are known, by the straight line through their runs.
func expected(costs []Cost, size int) time.Duration {
	last := costs[len(costs)-1]
	atMost := last.Ns * float64(size)
	if len(costs) < 2 {
		return time.Duration(atMost)
	}
	before := costs[len(costs)-2]
	total, less := last.Ns*float64(last.Size), before.Ns*float64(before.Size)
	slope := max(0, total-less) / float64(last.Size-before.Size)
	return time.Duration(min(atMost, total+slope*float64(size-last.Size)))
}

// lastNs is the cost per item at the largest size so far, 0 before the first.
func (t *Table[B]) lastNs(i int) float64 {
	if c := t.verdicts[i].Costs; len(c) > 0 {
		return c[len(c)-1].Ns
	}
	return 0
}

// hopeless reports whether backend i is far behind at the size before the k-th without having gained from the growth
// of the batch.
func (t *Table[B]) hopeless(alive []int, i, k int) bool {
	if k < 2 {
		return false
	}
	best := math.Inf(1)
	for _, j := range alive {
		best = min(best, t.verdicts[j].Costs[k-1].Ns)
	}
	own := t.verdicts[i].Costs
	return own[k-1].Ns > behind*best && own[k-1].Ns > own[k-2].Ns*0.8
}

// tenths rounds to a tenth, and up to it, so that no cost is 0.
func tenths(ns float64) float64 { return max(math.Round(ns*10)/10, 0.1) }

// step is the smallest batch size from which the candidate at index is the fastest.
type step struct{ from, index int }

// crossovers finds out from the costs who is the fastest where. Between two measured sizes with different winners the
// time of a whole batch is taken to grow in a straight line for each of the two, and the crossover is where the lines
// meet.
func crossovers(sizes []int, verdicts []Verdict, contest []int) (steps []step) {
	batch := func(i, k int) float64 { return verdicts[i].Costs[k].Ns * float64(sizes[k]) }
	for k := range sizes {
		win := contest[0]
		if k > 0 {
			win = steps[len(steps)-1].index
		}
		incumbent := verdicts[win].Costs[k].Ns * (1 - noise)
		for _, i := range contest {
			if ns := verdicts[i].Costs[k].Ns; ns < incumbent {
				win, incumbent = i, ns
			}
		}
		if k == 0 {
			steps = append(steps, step{1, win})
			continue
		}
		before := steps[len(steps)-1].index
		if win == before {
			continue
		}
		lead := max(0, batch(win, k-1)-batch(before, k-1)) // of the old winner at the size below
		gain := batch(before, k) - batch(win, k)           // of the new one here; positive, for it won
		low, high := sizes[k-1], sizes[k]
		at := low + int(math.Ceil(float64(high-low)*lead/(lead+gain)))
		steps = append(steps, step{min(max(at, low+1), high), win})
	}
	return steps
}
