package pool

import (
	"math"
	"slices"
	"time"
)

const (
	leastTarget = time.Second // of waiting
	mostTarget  = 2 * time.Second
	targetShare = 1.5              // of the shortest wait lately: the target where even that is long
	easedShare  = 0.8              // of the target: what may wait once waiting has taken longer than the target
	openShare   = 2                // of the target: what may wait else; without a final block for so long, the shard stands still
	easesAfter  = 3 * time.Second  // in which a limit that is not needed doubles
	lasts       = 10 * time.Second // in which the recent rate halves
	forgets     = 5 * time.Minute  // in which the shortest wait doubles and the highest rate halves
	rateOver    = time.Second      // at least, for a rate
	standstill  = time.Second / 5  // what one counts as in a rate
	markEvery   = 10 * time.Millisecond
	ageStep     = 16 * time.Millisecond
	ageSteps    = 256 // the last one holds all longer waits

	burst      = 4096 // transactions that may wait in an idle network: one full call of the API
	leastLimit = 1024 // so many may wait in any case
	mostExtra  = 9.0  // seconds beyond the first one that a refusal asks for
)

// gate says how many transactions may wait, by how long they do; the rule is in the package comment. The pool's lock guards it.
type gate struct {
	limit float64       // on those that wait; infinite until there is a reason
	base  time.Duration // the shortest wait lately; 0: not known
	final time.Time     // of the last final block, or the start

	rate  float64       // transactions a second that left for good, over the last second or the block that took longer
	high  float64       // the highest rate of the last seconds
	peak  float64       // of the last minutes
	clock time.Duration // from the start, but for standstills
	total int           // that left for good
	marks []mark        // a second of final blocks, and the one before

	ages [ageSteps]int // waits of those that left for good since the last final block
	left int           // all of ages
}

// mark is a final block.
type mark struct {
	clock time.Duration
	total int
}

func newGate(now time.Time) gate {
	return gate{limit: math.Inf(1), final: now, marks: []mark{{}}}
}

// leaves says that an entry's nonce is used, and how long the entry waited.
func (g *gate) leaves(waited time.Duration) {
	g.ages[min(max(0, waited/ageStep), ageSteps-1)]++
	g.left++
}

// aged is the wait that a share of those that left did not exceed.
func (g *gate) aged(share float64) time.Duration {
	sum := 0
	for i, n := range g.ages {
		if sum += n; float64(sum) >= share*float64(g.left) {
			return time.Duration(i+1) * ageStep
		}
	}
	return ageSteps * ageStep
}

func (g *gate) target() time.Duration {
	return min(max(leastTarget, time.Duration(targetShare*float64(g.base))), mostTarget)
}

// block says that a block is final and its transactions have left; so many wait still.
func (g *gate) block(now time.Time, waiting int) {
	gap := now.Sub(g.final)
	g.final = now
	fade := math.Exp2(gap.Seconds() / forgets.Seconds())
	g.base, g.peak = time.Duration(float64(g.base)*fade), g.peak/fade
	g.high /= math.Exp2(gap.Seconds() / lasts.Seconds())
	if quick := g.aged(0.1); g.left > 0 && (g.base == 0 || quick < g.base) {
		g.base = quick
	}
	// One that waited for longer than there was no block has been passed over. Else the leader took all that had come, which
	// says nothing about how much it can take; and if there was no block for long, the shard stood still.
	median, crowd := g.aged(0.5), g.left+waiting
	passed := g.left > 0 && median > gap
	if !passed && gap > leastTarget {
		g.measure(standstill)
	} else {
		g.measure(gap)
	}
	// The highest rate, not the last one: what a machine that was busy otherwise made final in a bad second would throttle it
	// to less than it can do, second by second.
	if passed && median > g.target() && crowd > leastLimit {
		g.limit = max(leastLimit, g.high*easedShare*g.target().Seconds())
	} else {
		g.limit *= math.Exp2(min(gap, rateOver).Seconds() / easesAfter.Seconds())
	}
	g.ages, g.left = [ageSteps]int{}, 0
}

// measure takes the rates; the last block took so long.
func (g *gate) measure(took time.Duration) {
	g.clock += took
	g.total += g.left
	for len(g.marks) > 1 && g.clock-g.marks[1].clock >= rateOver {
		g.marks = slices.Delete(g.marks, 0, 1)
	}
	first := g.marks[0]
	g.rate = float64(g.total-first.total) / max(rateOver, g.clock-first.clock).Seconds()
	g.high, g.peak = max(g.high, g.rate), max(g.peak, g.rate)
	if last := &g.marks[len(g.marks)-1]; len(g.marks) > 1 && g.clock-last.clock < markEvery {
		last.total = g.total
	} else {
		g.marks = append(g.marks, mark{g.clock, g.total})
	}
}

// room is how many may wait. While the shard stands still there is room for as many as it would have taken meanwhile, but not
// if too many waited before.
func (g *gate) room(now time.Time) int {
	open := time.Duration(openShare * float64(g.target()))
	n := max(burst, g.peak*open.Seconds())
	if stall := now.Sub(g.final); stall > open && g.limit >= n {
		n += g.peak * stall.Seconds()
	}
	return int(min(g.limit, n, math.MaxInt32))
}

// retry is when one that finds no room shall come again: when those before it are likely to be gone, and a second for those
// that ask again like it.
func (g *gate) retry(now time.Time, waiting int) time.Duration {
	over := float64(waiting-g.room(now)) / max(g.rate, leastLimit)
	return time.Second + time.Duration(min(max(over, 0), mostExtra)*float64(time.Second))
}
