package pool

import (
	"math"
	"slices"
	"time"
)

// Waiting times that the gate works with; all in terms of the target, which is leastTarget but where the network is slow of
// itself.
const (
	leastTarget = 800 * time.Millisecond // so that what is admitted is final within a second
	mostTarget  = 2 * time.Second
	targetShare = 1.5             // of the wait in a network without a queue, at least
	easedShare  = 0.75            // of the target: what the limit is set to where waiting took longer than that
	openShare   = 2.5             // of the target: what may wait while waiting is short
	stallShare  = 3               // of the target: without a final block for so long, the shard stands still; above openShare
	easesAfter  = 3 * time.Second // in which a limit that is not needed doubles
	forgets     = 5 * time.Minute // in which the shortest wait that is remembered doubles
	rateOver    = time.Second     // at least, for a rate
	peakOver    = 5 * time.Second // to twice that, for the highest rate
	markEvery   = 10 * time.Millisecond
	ageStep     = 16 * time.Millisecond
	ageSteps    = 256 // the last one holds all longer ones
)

const (
	burst      = 4096 // transactions that may wait in an idle network: one full call of the API
	leastLimit = 1024 // so many may wait in any case
	mostExtra  = 9.0  // seconds beyond the first one that a refusal asks for
)

// gate bounds how many transactions wait, by how long they do; the rule is in the package comment. The pool's lock guards it.
type gate struct {
	limit float64       // on those that wait; infinite until there is a reason
	base  time.Duration // the shortest wait lately; 0: not known
	final time.Time     // of the last final block, or the start

	rate  float64 // transactions a second that left for good, over the last second or the block that took longer
	peaks [2]float64
	since time.Time // of peaks[0]
	total int
	marks []mark // a second of final blocks, and the one before

	ages [ageSteps]int // of those that left for good since the last final block
	left int           // all of ages
}

// mark is a final block.
type mark struct {
	at    time.Time
	total int // that had left for good
}

func newGate(now time.Time) gate {
	return gate{limit: math.Inf(1), final: now, since: now, marks: []mark{{at: now}}}
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
	g.measure(now)
	if g.base > 0 {
		g.base = time.Duration(float64(g.base) * math.Exp2(gap.Seconds()/forgets.Seconds()))
	}
	crowd := g.left + waiting
	if g.left == 0 {
		g.ease(gap)
		return
	}
	if quick := g.aged(0.1); g.base == 0 || quick < g.base {
		g.base = quick
	}
	// One that waited for longer than there was no block has been passed over. Else the shard stood still and its leader took
	// what had come meanwhile, which says nothing about how much it can take.
	if median := g.aged(0.5); median > g.target() && median > gap && crowd > leastLimit {
		g.limit = max(leastLimit, g.rate*easedShare*g.target().Seconds())
	} else {
		g.ease(gap)
	}
	g.ages, g.left = [ageSteps]int{}, 0
}

// ease lets the limit grow.
func (g *gate) ease(gap time.Duration) {
	g.limit *= math.Exp2(min(gap, rateOver).Seconds() / easesAfter.Seconds())
}

// measure takes the rates.
func (g *gate) measure(now time.Time) {
	g.total += g.left
	for len(g.marks) > 1 && now.Sub(g.marks[1].at) >= rateOver {
		g.marks = slices.Delete(g.marks, 0, 1)
	}
	first := g.marks[0]
	g.rate = float64(g.total-first.total) / max(rateOver, now.Sub(first.at)).Seconds()
	if last := &g.marks[len(g.marks)-1]; len(g.marks) > 1 && now.Sub(last.at) < markEvery {
		last.total = g.total
	} else {
		g.marks = append(g.marks, mark{now, g.total})
	}
	if now.Sub(g.since) >= peakOver {
		g.peaks[1], g.peaks[0], g.since = g.peaks[0], 0, now
	}
	g.peaks[0] = max(g.peaks[0], g.rate)
}

// room is how many may wait. While the shard stands still there is room for as many as it would have taken meanwhile.
func (g *gate) room(now time.Time) int {
	peak, target := max(g.peaks[0], g.peaks[1]), g.target()
	n := min(g.limit, max(burst, peak*openShare*target.Seconds()))
	if stall := now.Sub(g.final) - stallShare*target; stall > 0 {
		n += peak * stall.Seconds()
	}
	return int(min(n, math.MaxInt32))
}

// retry is when one that finds no room shall come again: when those before it are likely to be gone, and a second for those
// that ask again like it.
func (g *gate) retry(now time.Time, waiting int) time.Duration {
	over := float64(waiting-g.room(now)) / max(g.rate, leastLimit)
	return time.Second + time.Duration(min(max(over, 0), mostExtra)*float64(time.Second))
}
