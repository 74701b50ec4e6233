package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tutti/appliance/api"
	"tutti/bench/report"
)

// sample is what one validator says about itself.
type sample struct {
	status api.Status
	sent   float64 // bytes to other nodes since its start
	err    error
}

// samples asks all validators at once, in the order of nodes.
func (t *target) samples(ctx context.Context) []sample {
	all := slices.Concat(t.nodes...)
	out := make([]sample, len(all))
	var group sync.WaitGroup
	for i, v := range all {
		group.Go(func() { out[i] = v.sample(ctx) })
	}
	group.Wait()
	return out
}

func (v *validator) sample(ctx context.Context) (s sample) {
	if s.status, s.err = v.client.Status(ctx); s.err == nil {
		s.sent, s.err = v.sentBytes(ctx)
	}
	if s.err != nil {
		s.err = fmt.Errorf("%s: %w", v.name, s.err)
	}
	return s
}

// maxMetrics bounds an answer of /metrics.
const maxMetrics = 4 << 20

// sentBytes reads the validator's traffic counters.
func (v *validator) sentBytes(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, validatorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("/metrics: HTTP status %s", resp.Status)
	}
	return sumOf(io.LimitReader(resp.Body, maxMetrics), "tutti_net_bytes_total", `direction="sent"`)
}

// sumOf adds up a metric over all its label sets that contain label.
func sumOf(r io.Reader, metric, label string) (sum float64, err error) {
	found := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), metric+"{")
		labels, value, cut := strings.Cut(rest, "} ")
		if !ok || !cut || !strings.Contains(labels, label) {
			continue
		}
		value, _, _ = strings.Cut(value, " ") // a time stamp may follow
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", metric, err)
		}
		sum, found = sum+n, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", metric)
	}
	return sum, nil
}

// usage is what validators used in a measurement.
type usage struct {
	cores                float64  // all together
	cpuUs, bytes, rssMiB *float64 // for each transaction and validator; memory for each validator. nil: not measured
}

// usage divides what the validators used by what their shards executed. Both are rates, so that it does not matter that
// a validator answers a little later than it was asked.
func (t *target) usage(m *measurement) (u usage) {
	all := slices.Concat(t.nodes...)
	if len(m.begin.validators) != len(all) || len(m.end.validators) != len(all) {
		return u
	}
	o := m.outcome
	span := (o.End.At - o.Begin.At).Seconds()
	var txs, cpu, sent, rss float64 // a second
	for i, v := range all {
		a, b := m.begin.validators[i], m.end.validators[i]
		between := float64(b.status.TimeMs-a.status.TimeMs) / 1000
		if a.err != nil || b.err != nil || between <= 0 || b.status.UptimeS < between { // gone, or begun anew
			return usage{}
		}
		txs += float64(o.End.Shards[v.shard].Transactions-o.Begin.Shards[v.shard].Transactions) / span
		cpu += (b.status.CPUS - a.status.CPUS) / between
		sent += (b.sent - a.sent) / between
		rss += b.status.Memory.RSSMiB
	}
	u.cores = cpu
	figure := func(v float64, decimals int) *float64 { v = report.Round(v, decimals); return &v }
	u.rssMiB = figure(rss/float64(len(all)), 1)
	if txs > 0 {
		u.cpuUs, u.bytes = figure(cpu/txs*1e6, 1), figure(sent/txs, 0)
	}
	return u
}
