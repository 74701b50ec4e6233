package bench

import (
	"context"
	"fmt"
	"time"

	"tutti/bench/load"
	"tutti/bench/report"
)

// What a rate has to stand, and how the highest is searched for.
const (
	maxP99        = time.Second
	minShare      = 0.97 // of the rate that is finalised in the measurement
	firstTrial    = 1000 // tx/s
	trialWarmUp   = 3 * time.Second
	trialDuration = 8 * time.Second
	bisections    = 4
	finalTries    = 4
	finalStep     = 0.93 // of the rate after a full run that failed
)

// verdict says why a phase does not count as stood; empty: it does.
func (b *bench) verdict(rate float64, o *load.Outcome) string {
	p99 := time.Duration(o.Latency.ValueAtQuantile(99)) * time.Microsecond
	switch {
	case o.Lost+o.Expired > 0:
		return fmt.Sprintf("%d lost or expired", o.Lost+o.Expired)
	case o.Unsent > 0:
		return fmt.Sprintf("%d could not be sent", o.Unsent)
	case p99 > maxP99:
		return fmt.Sprintf("p99 over %s", maxP99)
	case o.TPS() < minShare*rate*(1-b.mixed()):
		return fmt.Sprintf("finalised %.0f tx/s", o.TPS())
	}
	return ""
}

// trial runs one short phase.
func (b *bench) trial(ctx context.Context, s session, rate float64) (report.Trial, error) {
	if err := s.Known(ctx); err != nil {
		return report.Trial{}, err
	}
	o, err := s.Run(ctx, load.Phase{Rate: rate, WarmUp: trialWarmUp, Duration: trialDuration, Drain: b.Drain, Burst: b.burst()})
	if err != nil {
		return report.Trial{}, err
	}
	return b.judge(rate, o), nil
}

func (b *bench) judge(rate float64, o *load.Outcome) report.Trial {
	why := b.verdict(rate, o)
	t := report.Trial{Rate: report.Round(rate, 1), TPS: report.Round(o.TPS(), 1), P99Ms: report.QuantilesOf(o.Latency).P99, OK: why == "", Why: why}
	line := fmt.Sprintf("%s tx/s: stood, p99 %.0f ms", report.Number(rate), t.P99Ms)
	if !t.OK {
		line = fmt.Sprintf("%s tx/s: too much (%s)", report.Number(rate), why)
	}
	b.screen.say("%s", line)
	return t
}

// bracket finds a rate that passes and a higher one that does not, by doubling from first and then by halving the
// distance so many times. try reports whether a rate passes. The answer is the highest that did, 0 if none.
func bracket(first float64, halvings int, try func(float64) (bool, error)) (float64, error) {
	low, high := 0.0, 0.0
	for rate := first; rate <= maxRate; rate *= 2 {
		ok, err := try(rate)
		if err != nil {
			return 0, err
		}
		if !ok {
			high = rate
			break
		}
		low = rate
	}
	for range halvings {
		if high == 0 {
			break
		}
		middle := (low + high) / 2
		ok, err := try(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// search finds the highest rate in short trials, and measures it in full; if it does not stand that, a lower one.
func (b *bench) search(ctx context.Context, t *target, s session) (*measurement, error) {
	var trials []report.Trial
	rate, err := bracket(firstTrial, bisections, func(rate float64) (bool, error) {
		tr, err := b.trial(ctx, s, rate)
		trials = append(trials, tr)
		return tr.OK, err
	})
	if err != nil {
		return nil, err
	}
	if rate == 0 {
		rate = firstTrial / 16
	}
	var m *measurement
	for range finalTries {
		if err := s.Known(ctx); err != nil {
			return nil, err
		}
		if m, err = b.phase(ctx, t, s, rate); err != nil {
			return nil, err
		}
		tr := b.judge(rate, m.outcome)
		trials = append(trials, tr)
		if tr.OK {
			break
		}
		rate *= finalStep
	}
	m.search = trials
	return m, nil
}
