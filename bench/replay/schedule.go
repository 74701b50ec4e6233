package replay

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/bench/openloop"
)

// Slot is the precision of due times in evidence. A slot begins when the measurement does, and every stretch that another one
// follows is of whole slots, so that none is of two stretches or of the warm-up too.
const Slot = time.Millisecond

// Burst is the Phase.Burst that a report's scenario.burst stands for.
const Burst = time.Second / 10

// Rates of a schedule that can be replayed.
const (
	minRate = 0.001
	maxRate = 10_000_000
)

// check says what is wrong with a phase.
func (p *Phase) check() error {
	switch {
	case p.Start < 0 || p.Start > 1<<62 || p.WarmUp < 0 || p.WarmUp > MaxLength || p.Burst < 0 || p.Burst > time.Second:
		return malformed("begun at %d with a warm-up of %s, and bursts of %s", p.Start, p.WarmUp, p.Burst)
	case len(p.Stretches) == 0 || len(p.Stretches) > MaxStretches:
		return malformed("%d stretches, need 1 to %d", len(p.Stretches), MaxStretches)
	case p.Burst > 0 && p.WarmUp%time.Second != 0:
		return malformed("a warm-up of %s before bursts, which begin with whole seconds", p.WarmUp)
	}
	length := p.WarmUp
	for k, t := range p.Stretches {
		whole := Slot
		switch {
		case p.Burst > 0:
			whole = time.Second
		case k == len(p.Stretches)-1:
			whole = 1
		}
		switch {
		case math.IsNaN(t.Rate) || t.Rate < minRate || t.Rate > maxRate:
			return malformed("rate %v, need %v to %v", t.Rate, minRate, maxRate)
		case t.Duration <= 0 || t.Duration > MaxLength-length:
			return malformed("a run of %s after %s, at most %s together", t.Duration, length, MaxLength)
		case t.Duration%whole != 0:
			return malformed("a stretch of %s that is not a multiple of %s", t.Duration, whole)
		case t.Begin < 0 || t.End <= t.Begin || t.End > 2*MaxLength:
			return malformed("counts at %s and %s", t.Begin, t.End)
		}
		length += t.Duration
	}
	return nil
}

// Schedule says when the transactions of the phase are due. Its stretch 0 is the warm-up, also where that has no length, and
// stretch k+1 is Stretches[k].
func (p *Phase) Schedule() openloop.Schedule {
	all := []openloop.Stretch{{Rate: p.Stretches[0].Rate, Duration: p.WarmUp}}
	for _, t := range p.Stretches {
		all = append(all, openloop.Stretch{Rate: t.Rate, Duration: t.Duration})
	}
	return openloop.New(p.Burst, all...)
}

// from is when a stretch begins; that of the number of stretches is when the load ends.
func (p *Phase) from(k int) time.Duration {
	at := p.WarmUp
	for _, t := range p.Stretches[:k] {
		at += t.Duration
	}
	return at
}

// warmSlots is how many slots are of the warm-up.
func (p *Phase) warmSlots() uint32 { return uint32((p.WarmUp + Slot - 1) / Slot) }

// bounds are the first slot of a stretch and the first after it.
func (p *Phase) bounds(k int) (first, end uint32) {
	at := func(k int) uint32 { return p.warmSlots() + uint32((p.from(k)-p.WarmUp+Slot-1)/Slot) }
	return at(k), at(k + 1)
}

// slots is how many slots there are.
func (p *Phase) slots() uint32 {
	_, end := p.bounds(len(p.Stretches) - 1)
	return end
}

// slot is the slot of a due time within the phase.
func (p *Phase) slot(due time.Duration) uint32 {
	at := due - p.WarmUp + time.Duration(p.warmSlots())*Slot // not negative
	return min(uint32(at/Slot), p.slots()-1)
}

// edges are the first and the last moment of a slot.
func (p *Phase) edges(slot uint32) (first, last time.Duration) {
	first = p.WarmUp + time.Duration(int64(slot)-int64(p.warmSlots()))*Slot
	return max(first, 0), min(first+Slot, p.from(len(p.Stretches))) - 1
}

// scheduled is how many transactions are due in each slot.
func (p *Phase) scheduled() []uint32 {
	s, out, before := p.Schedule(), make([]uint32, p.slots()), uint64(0)
	for i := range out {
		_, last := p.edges(uint32(i))
		by := s.DueBy(last)
		out[i], before = uint32(by-before), by
	}
	return out
}

// longest is the latency above which one counts as this.
const longest = 10 * time.Minute

// NewHistogram counts microseconds up to ten minutes, to three digits.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest.Microseconds(), 3) }

// Record enters a latency n times.
func Record(h *hdrhistogram.Histogram, d time.Duration, n int64) {
	_ = h.RecordValues(min(max(d.Microseconds(), 1), longest.Microseconds()), n) // in range by the bounds
}
