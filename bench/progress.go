package bench

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"tutti/bench/load"
	"tutti/bench/report"
)

// screen is where progress goes. Safe for concurrent use.
type screen struct {
	out      io.Writer // nil: nowhere
	terminal bool

	mu   sync.Mutex // guards what follows, and out
	open bool       // the last line may be drawn over
}

// say writes a line that stays.
func (s *screen) say(format string, args ...any) { s.line(fmt.Sprintf(format, args...), true) }

// line writes a line; on a terminal, one that does not stay is drawn over by the next.
func (s *screen) line(text string, stays bool) {
	if s.out == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		text = "\r\x1b[K" + text
	}
	if s.open = s.terminal && !stays; !s.open {
		text += "\n"
	}
	fmt.Fprint(s.out, text)
}

// progress writes and records a line each second until the answer is called.
func (b *bench) progress(ctx context.Context, t *target, s session) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		begun, last := time.Now(), b.recorder.add(ctx, t, s)
		beat := time.NewTicker(time.Second)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
			case <-ctx.Done():
				return
			}
			now := b.recorder.add(ctx, t, s)
			b.screen.line(progressLine(time.Since(begun), last, now), false)
			last = now
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
