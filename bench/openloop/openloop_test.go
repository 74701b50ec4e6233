package openloop

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestDueBy: DueBy is the inverse of Due, at any rate.
func TestDueBy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.5, 1e6)
		length := rapid.Map(rapid.Int64Range(int64(time.Second), int64(5*time.Minute)), func(n int64) time.Duration { return time.Duration(n) })
		s := New(time.Duration(rapid.SampledFrom([]int64{0, 0, int64(time.Millisecond), int64(100 * time.Millisecond), int64(time.Second)}).Draw(t, "burst")),
			Stretch{Rate: rate.Draw(t, "rate"), Duration: length.Draw(t, "length")}, Stretch{Rate: rate.Draw(t, "rate"), Duration: length.Draw(t, "length")}, Stretch{Rate: rate.Draw(t, "rate")})
		at := time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "at"))
		n := s.DueBy(at)
		if n == 0 || s.Due(n-1) > at || s.Due(n) <= at {
			t.Fatalf("%d due by %s, but %d at %s and %d at %s", n, at, n-1, s.Due(n-1), n, s.Due(n))
		}
	})
	if n := New(0, Stretch{Rate: 1000}).DueBy(-1); n != 0 {
		t.Errorf("%d due before the start", n)
	}
}

// TestOpenLoop: a generator that is held up for a while emits everything that came due meanwhile, once, in order, and
// the number of transactions depends on rate and length alone.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, length, tick = 1000, 3 * time.Second, 10 * time.Millisecond
		start := time.Now()
		var emitted uint64
		var worst time.Duration
		err := New(0, Stretch{Rate: rate}).Run(t.Context(), start, length, tick, func(first, next uint64) {
			if first != emitted || next <= first {
				t.Errorf("emitted %d to %d after %d", first, next, emitted)
			}
			emitted = next
			worst = max(worst, time.Since(start)-New(0, Stretch{Rate: rate}).Due(first))
			if first >= 1000 && worst < 100*time.Millisecond {
				time.Sleep(400 * time.Millisecond) // the generator is held up
			}
		})
		if err != nil || emitted != rate*3 {
			t.Errorf("%d emitted, want %d; %v", emitted, rate*3, err)
		}
		if worst < 395*time.Millisecond || worst > 400*time.Millisecond {
			t.Errorf("the transaction that waited longest was %s late, want its whole wait of about 400 ms", worst)
		}
		if d := time.Since(start); d < length-tick || d > length+tick {
			t.Errorf("took %s", d)
		}
	})
}

func TestScheduleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var emitted uint64
		err := New(0, Stretch{Rate: 100}).Run(ctx, time.Now(), 0, time.Millisecond, func(_, next uint64) { emitted = next })
		if !errors.Is(err, context.DeadlineExceeded) || emitted < 99 || emitted > 101 {
			t.Errorf("%d emitted in a second at 100 a second: %v", emitted, err)
		}
	})
}

// TestStretches counts what is due in stretches of several rates, also where each second's transactions come in a burst.
func TestStretches(t *testing.T) {
	for _, burst := range []time.Duration{0, 100 * time.Millisecond} {
		s := New(burst, Stretch{Rate: 1000, Duration: 2 * time.Second}, Stretch{Rate: 3000, Duration: 4 * time.Second}, Stretch{Rate: 1000})
		for at, want := range map[time.Duration]uint64{2 * time.Second: 2000, 6 * time.Second: 14_000, 8 * time.Second: 16_000} {
			if got := s.DueBy(at - 1); got != want {
				t.Errorf("burst %s: %d due before %s, want %d", burst, got, at, want)
			}
		}
		if a, b := s.Stretch(1999), s.Stretch(2000); a != 0 || b != 1 {
			t.Errorf("transactions 1999 and 2000 are of stretches %d and %d", a, b)
		}
	}
	s := New(100*time.Millisecond, Stretch{Rate: 1000})
	for at, want := range map[time.Duration]uint64{50 * time.Millisecond: 500, 100 * time.Millisecond: 1000, 999 * time.Millisecond: 1000, 1050 * time.Millisecond: 1500} {
		if got := s.DueBy(at); got < want || got > want+1 {
			t.Errorf("%d due by %s, want %d", got, at, want)
		}
	}
}
