package load

import (
	"context"
	"time"
)

// Schedule is the open loop of this package for loads that are not its own: transaction n is due n/Rate seconds after the
// start, whatever the system does that is loaded.
type Schedule struct{ Rate float64 }

// Due is when transaction n is due, after the start.
func (s Schedule) Due(n uint64) time.Duration { return schedule{s.Rate}.due(n) }

// DueBefore is how many are due before a time after the start.
func (s Schedule) DueBefore(at time.Duration) uint64 { return schedule{s.Rate}.dueBy(at - 1) }

// Run calls emit every tick with the numbers that have come due since the last call, first to next-1. A call that is
// late brings all that has come due meanwhile. It returns once everything due before length has been emitted, or
// with ctx's error.
func (s Schedule) Run(ctx context.Context, start time.Time, length, tick time.Duration, emit func(first, next uint64)) error {
	return schedule{s.Rate}.run(ctx, start, length, tick, emit)
}
