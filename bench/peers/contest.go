package peers

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"tutti/bench/report"
)

// Entry is a contender and where it starts on the ladder.
type Entry struct {
	Contender
	Start float64 // transactions a second
	Climb bool    // while rates hold; else it stays where it is, and only goes down from a rate that does not
	Peer  bool    // else it is ours, and is divided by the best peer
	Goal  float64 // of ours: how many times the best peer it is to reach; 0: none
}

// Contest is who is measured, and how often.
type Contest struct {
	Entries []Entry
	Rounds  int
	Step    float64           // of the ladder: each rate is so many times the last
	Each    func(Trial) error // called with each trial; an error ends the contest
	Out     io.Writer         // progress; nil: none
}

// Trial is the figures of one trial, and whose.
type Trial struct {
	Round   int // from 1
	Name    string
	TxBytes int
	Figures
}

// Standing is a contender's best in a round: the highest rate that held.
type Standing struct {
	Entry
	Rounds []Figures // by round
}

// maxTrials bounds the trials of a contender in one round, and maxStep how far apart their rates are.
const (
	maxTrials = 12
	maxStep   = 2
)

// Run lets the contenders take turns. The answer is in the order of the entries.
func (c *Contest) Run(ctx context.Context) ([]Standing, error) {
	if !(c.Step > 1) || c.Step > maxStep || c.Rounds < 1 || len(c.Entries) == 0 {
		return nil, fmt.Errorf("peers: a ladder of steps of %v, %d rounds, %d contenders: choose above 1 and at most %d, and 1 or more", c.Step, c.Rounds, len(c.Entries), maxStep)
	}
	for _, e := range c.Entries {
		if !(e.Start >= 1) {
			return nil, fmt.Errorf("peers: %s starts at %v tx/s: choose 1 or more", e.Name(), e.Start)
		}
	}
	out := make([]Standing, len(c.Entries))
	rungs := make([]int, len(c.Entries))
	for i, e := range c.Entries {
		out[i].Entry = e
	}
	for round := 1; round <= c.Rounds; round++ {
		for i, e := range c.Entries {
			best := Figures{Why: "no rate held"}
			err := climb(&rungs[i], e.Climb, func(rung int) (bool, error) {
				f, err := c.trial(ctx, round, e, max(1, math.Round(e.Start*math.Pow(c.Step, float64(rung)))))
				if err == nil && f.Held() {
					best = f
				}
				return f.Held(), err
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.Name(), err)
			}
			out[i].Rounds = append(out[i].Rounds, best)
		}
	}
	return out, nil
}

// climb tries rungs, from where at says: up while they hold, if it may go up, or down until one does. at is then the
// highest that held, or the lowest that was tried.
func climb(at *int, up bool, try func(rung int) (bool, error)) error {
	held, err := try(*at)
	if err != nil || held && !up {
		return err
	}
	step := -1
	if held {
		step = 1
	}
	for range maxTrials - 1 {
		now, err := try(*at + step)
		if err != nil {
			return err
		}
		if held && !now {
			return nil
		}
		*at += step
		if now && !held {
			return nil
		}
	}
	return nil
}

func (c *Contest) trial(ctx context.Context, round int, e Entry, rate float64) (Figures, error) {
	say(c.Out, "%s  round %d, %s: %s tx/s", time.Now().Format(time.TimeOnly), round, e.Name(), report.Number(rate))
	f, err := e.Trial(ctx, rate)
	if err != nil {
		return f, err
	}
	verdict := "held"
	if !f.Held() {
		verdict = "did not hold (" + f.Why + ")"
	}
	say(c.Out, "          %s: %s tx/s, p50 %.0f ms, p99 %.0f ms, %.0f us of CPU a transaction, other work %.2f cores", verdict, report.Number(f.TPS), f.P50, f.P99, f.CPUUs, f.Foreign)
	return f, c.Each(Trial{round, e.Name(), e.TxBytes(), f})
}

// median sorts a copy.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
