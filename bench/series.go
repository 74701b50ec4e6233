package bench

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"tutti/appliance/api"
	"tutti/bench/load"
	"tutti/bench/report"
)

// row is what was seen at the end of one interval of a run.
type row struct {
	at                          time.Duration // of the session
	submitted, settled, refused uint64
	live                        int
	p50Ms, p99Ms                report.Value // of what settled in it
	cores                       report.Value // of all validators together
	rssMiB                      report.Value // of the one that has most
}

// recorder keeps a row for every second of a run. One goroutine writes it, and others read when that has ended.
type recorder struct {
	rows []row
	last []api.Status // by validator; zero: it did not answer
}

// statusTimeout bounds how long a validator is waited for.
const statusTimeout = time.Second

// add asks the session and the validators.
func (r *recorder) add(ctx context.Context, t *target, s session) load.Snapshot {
	at := s.Snapshot()
	now := row{
		at: at.At, submitted: at.Submitted, settled: at.Settled, refused: at.Refused, live: at.Live,
		p50Ms: report.None, p99Ms: report.None, cores: report.None, rssMiB: report.None,
	}
	if at.Latency.TotalCount() > 0 {
		q := report.QuantilesOf(at.Latency)
		now.p50Ms, now.p99Ms = report.Value(q.P50), report.Value(q.P99)
	}
	statuses := t.statuses(ctx)
	whole := len(r.last) == len(statuses)
	cores, rss := 0.0, 0.0
	for i, b := range statuses {
		rss = max(rss, b.Memory.RSSMiB)
		if whole = whole && b.TimeMs > r.last[i].TimeMs && r.last[i].TimeMs > 0; whole {
			cores += (b.CPUS - r.last[i].CPUS) / (float64(b.TimeMs-r.last[i].TimeMs) / 1000)
		}
	}
	if whole {
		now.cores = report.Value(report.Round(cores, 2))
	}
	if rss > 0 {
		now.rssMiB = report.Value(report.Round(rss, 1))
	}
	r.last = statuses
	r.rows = append(r.rows, now)
	return at
}

// statuses asks every validator for its status alone. One that does not answer in time has none.
func (t *target) statuses(ctx context.Context) []api.Status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	all := slices.Concat(t.nodes...)
	out := make([]api.Status, len(all))
	var group sync.WaitGroup
	for i, v := range all {
		group.Go(func() {
			if s, err := v.client.Status(ctx); err == nil {
				out[i] = s
			}
		})
	}
	group.Wait()
	return out
}

// series is the rows from a time of the session on, relative to the beginning of a measurement.
func (r *recorder) series(from, zero time.Duration) *report.Series {
	s := &report.Series{}
	second := func(d time.Duration) report.Value { return report.Value(report.Round(d.Seconds(), 1)) }
	for i := 1; i < len(r.rows); i++ {
		a, b := r.rows[i-1], r.rows[i]
		span := (b.at - a.at).Seconds()
		if b.at <= from || span <= 0 {
			continue
		}
		rate := func(a, b uint64) report.Value { return report.Value(report.Round(float64(b-a)/span, 0)) }
		s.AtS = append(s.AtS, second(b.at-zero))
		s.Submitted = append(s.Submitted, rate(a.submitted, b.submitted))
		s.Finalised = append(s.Finalised, rate(a.settled, b.settled))
		s.Refused = append(s.Refused, rate(a.refused, b.refused))
		s.P50Ms, s.P99Ms = append(s.P50Ms, b.p50Ms), append(s.P99Ms, b.p99Ms)
		s.CPUCores, s.RSSMiB = append(s.CPUCores, b.cores), append(s.RSSMiB, b.rssMiB)
		s.UnderWay = append(s.UnderWay, report.Value(b.live))
	}
	return s
}

// peakRSS is the most memory that any validator had between two times of the session; nil if none said.
func (r *recorder) peakRSS(from, to time.Duration) (peak *float64) {
	for _, w := range r.rows {
		if v := float64(w.rssMiB); w.at > from && w.at <= to && !math.IsNaN(v) && (peak == nil || v > *peak) {
			peak = &v
		}
	}
	return peak
}
