package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"tutti/bench/load"
	"tutti/bench/report"
)

// progress prints a line each second, on a terminal over the one before, until the answer is called.
func (c *Config) progress(ctx context.Context, s *load.Session) (stop func()) {
	if c.Out == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		begun, last := time.Now(), s.Snapshot()
		for pause(ctx, time.Second) {
			now := s.Snapshot()
			line := progressLine(time.Since(begun), last, now)
			if c.Terminal {
				fmt.Fprintf(c.Out, "\r\x1b[K%s", line)
			} else {
				fmt.Fprintln(c.Out, line)
			}
			last = now
		}
		if c.Terminal {
			fmt.Fprintln(c.Out)
		}
	})
	return func() { cancel(); group.Wait() }
}

func progressLine(at time.Duration, a, b load.Snapshot) string {
	tps := float64(b.Settled-a.Settled) / (b.At - a.At).Seconds()
	var heights []string
	for _, s := range b.Shards {
		heights = append(heights, fmt.Sprint(s.Height))
	}
	final := "nothing final"
	if b.Latency.TotalCount() > 0 {
		q := report.QuantilesOf(b.Latency)
		final = fmt.Sprintf("final in %.0f ms, 99%% in %.0f ms", q.P50, q.P99)
	}
	return fmt.Sprintf("%4.0f s  %7s tx/s  %7s under way  %s  heights %s", at.Seconds(), report.Number(tps), report.Number(float64(b.Live)), final, strings.Join(heights, " "))
}
