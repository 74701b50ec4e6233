package load

import (
	"context"
	"time"
)

// schedule says when transactions are due: number n at n/rate seconds.
type schedule struct{ rate float64 }

func (s schedule) due(n uint64) time.Duration {
	return time.Duration(float64(n) / s.rate * float64(time.Second))
}

// dueBy is how many are due at or before a time after the start.
func (s schedule) dueBy(at time.Duration) uint64 {
	if at < 0 {
		return 0
	}
	n := uint64(at.Seconds() * s.rate)
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
