package load

import (
	"context"
	"math"
	"time"
)

// Stretch is a part of a phase at one rate.
type Stretch struct {
	Rate     float64 // transactions due a second
	Duration time.Duration
	Invalid  float64 // share with a wrong signature, 0 to 1
	GiveUp   bool    // what a node refuses for now is not sent again: it ends as Rejected
}

// schedule says when transactions are due: within a stretch one every 1/rate seconds.
type schedule struct {
	parts []part        // ascending; never empty
	burst time.Duration // each second's transactions are due within so long from its beginning; 0: evenly
}

// part is a stretch at its place.
type part struct {
	rate  float64
	from  time.Duration
	first uint64 // transaction of the schedule
}

// newSchedule lays stretches one after the other. The last one has no end.
func newSchedule(burst time.Duration, stretches ...Stretch) schedule {
	s := schedule{burst: burst}
	next := part{}
	for _, t := range stretches {
		next.rate = t.Rate
		s.parts = append(s.parts, next)
		next.from += t.Duration
		if t.Duration > 0 { // else it is the last
			next.first = s.dueBy(next.from - 1)
		}
	}
	return s
}

// part is the one that a transaction belongs to.
func (s schedule) part(n uint64) int {
	k := len(s.parts) - 1
	for k > 0 && s.parts[k].first > n {
		k--
	}
	return k
}

// due is when number n is due.
func (s schedule) due(n uint64) time.Duration {
	p := s.parts[s.part(n)]
	at := p.from + time.Duration(float64(n-p.first)/p.rate*float64(time.Second))
	if s.burst > 0 {
		second := at.Truncate(time.Second)
		at = second + time.Duration(float64(at-second)*s.burst.Seconds())
	}
	return at
}

// dueBy is how many are due at or before a time after the start.
func (s schedule) dueBy(at time.Duration) uint64 {
	if at < 0 {
		return 0
	}
	even := at // when the same number would be due without bursts
	if s.burst > 0 {
		second := at.Truncate(time.Second)
		even = second + time.Duration(math.Min(float64(at-second)/s.burst.Seconds(), float64(time.Second)))
	}
	k := len(s.parts) - 1
	for k > 0 && s.parts[k].from > even {
		k--
	}
	p := s.parts[k]
	n := p.first + uint64((even-p.from).Seconds()*p.rate)
	for n > 0 && s.due(n-1) > at { // rounding
		n--
	}
	for s.due(n) <= at {
		n++
	}
	return n
}

// run calls emit every tick with the numbers that have come due since the last call, first to next-1. A call that is
// late, for whatever reason, brings all that has come due meanwhile. It returns once everything due before length has
// been emitted; with a length of 0, or when ctx ends before, it returns ctx's error.
func (s schedule) run(ctx context.Context, start time.Time, length, tick time.Duration, emit func(first, next uint64)) error {
	total := ^uint64(0)
	if length > 0 {
		total = s.dueBy(length - 1)
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	for first := uint64(0); ; {
		if next := min(s.dueBy(time.Since(start)), total); next > first {
			emit(first, next)
			first = next
		}
		if first == total {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
