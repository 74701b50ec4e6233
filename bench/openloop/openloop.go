// Package openloop says when the transactions of a load are due: at times that depend on nothing that the loaded system does, so
// that one which is slow is offered no less, and what waits counts as late (no coordinated omission).
package openloop

import (
	"context"
	"math"
	"time"
)

// Stretch is a part of a schedule at one rate.
type Stretch struct {
	Rate     float64       // transactions due a second, above 0
	Duration time.Duration // of the last stretch it has no meaning: that has no end
}

// Schedule says when transactions are due: within a stretch one every 1/rate seconds. Make it with New.
type Schedule struct {
	parts []part        // ascending; never empty
	burst time.Duration // each second's transactions are due within so long from its beginning; 0: evenly
}

// part is a stretch at its place.
type part struct {
	rate  float64
	from  time.Duration
	first uint64 // transaction of the schedule
}

// New lays stretches one after the other, one at least. With a burst each second's transactions are due within so long from its
// beginning, else evenly.
func New(burst time.Duration, stretches ...Stretch) Schedule {
	s := Schedule{burst: burst}
	next := part{}
	for i, t := range stretches {
		next.rate = t.Rate
		s.parts = append(s.parts, next)
		if i < len(stretches)-1 {
			next.from += t.Duration
			next.first = s.DueBy(next.from - 1)
		}
	}
	return s
}

// Stretch is the number of the stretch that a transaction belongs to.
func (s Schedule) Stretch(n uint64) int {
	k := len(s.parts) - 1
	for k > 0 && s.parts[k].first > n {
		k--
	}
	return k
}

// Due is when number n is due.
func (s Schedule) Due(n uint64) time.Duration {
	p := s.parts[s.Stretch(n)]
	at := p.from + time.Duration(float64(n-p.first)/p.rate*float64(time.Second))
	if s.burst > 0 {
		second := at.Truncate(time.Second)
		at = second + time.Duration(float64(at-second)*s.burst.Seconds())
	}
	return at
}

// DueBy is how many are due at or before a time after the start.
func (s Schedule) DueBy(at time.Duration) uint64 {
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
	for n > 0 && s.Due(n-1) > at { // rounding
		n--
	}
	for s.Due(n) <= at {
		n++
	}
	return n
}

// Run calls emit every tick with the numbers that have come due since the last call, first to next-1. A call that is
// late, for whatever reason, brings all that has come due meanwhile. It returns once everything due before length has
// been emitted; with a length of 0, or when ctx ends before, it returns ctx's error.
func (s Schedule) Run(ctx context.Context, start time.Time, length, tick time.Duration, emit func(first, next uint64)) error {
	total := ^uint64(0)
	if length > 0 {
		total = s.DueBy(length - 1)
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	for first := uint64(0); ; {
		if next := min(s.DueBy(time.Since(start)), total); next > first {
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

// Wait waits for d, and reports whether ctx is still alive then.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
