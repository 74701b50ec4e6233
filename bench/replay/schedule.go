package replay

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/bench/openloop"
)

// Slot is the precision of due times in evidence. A slot begins when the measurement does, so that none is of both it and
// the warm-up.
const Slot = time.Millisecond

// Rates of a schedule that can be replayed.
const (
	minRate = 0.001
	maxRate = 10_000_000
)

// check says what is wrong with a phase.
func (p *Phase) check() error {
	switch {
	case math.IsNaN(p.Rate) || p.Rate < minRate || p.Rate > maxRate:
		return malformed("rate %v, need %v to %v", p.Rate, minRate, maxRate)
	case p.WarmUp < 0 || p.Duration <= 0 || p.WarmUp > MaxLength || p.Duration > MaxLength || p.WarmUp+p.Duration > MaxLength:
		return malformed("a run of %s after %s, at most %s together", p.Duration, p.WarmUp, MaxLength)
	case p.Start < 0 || p.Start > 1<<62 || p.Begin < 0 || p.End <= p.Begin || p.End > 2*MaxLength:
		return malformed("begun at %d, counts at %s and %s", p.Start, p.Begin, p.End)
	}
	return nil
}

// warmSlots is how many slots are of the warm-up.
func (p *Phase) warmSlots() uint32 { return uint32((p.WarmUp + Slot - 1) / Slot) }

// slots is how many slots there are.
func (p *Phase) slots() uint32 { return p.warmSlots() + uint32((p.Duration+Slot-1)/Slot) }

// slot is the slot of a due time within the phase.
func (p *Phase) slot(due time.Duration) uint32 {
	at := due - p.WarmUp + time.Duration(p.warmSlots())*Slot // not negative
	return min(uint32(at/Slot), p.slots()-1)
}

// edges are the first and the last moment of a slot.
func (p *Phase) edges(slot uint32) (first, last time.Duration) {
	first = p.WarmUp + time.Duration(int64(slot)-int64(p.warmSlots()))*Slot
	return max(first, 0), min(first+Slot, p.WarmUp+p.Duration) - 1
}

// scheduled is how many transactions are due in each slot.
func (p *Phase) scheduled() []uint32 {
	s, out, before := openloop.New(0, openloop.Stretch{Rate: p.Rate}), make([]uint32, p.slots()), uint64(0)
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
