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
	bytes  traffic
	err    error
}

// traffic is bytes with other nodes since a validator's start: payload, and on the wire.
type traffic struct{ sent, received, wireSent, wireReceived float64 }

// rate is the traffic a second between two moments, seconds apart.
func (t traffic) rate(since traffic, seconds float64) traffic {
	return traffic{
		(t.sent - since.sent) / seconds, (t.received - since.received) / seconds,
		(t.wireSent - since.wireSent) / seconds, (t.wireReceived - since.wireReceived) / seconds,
	}
}

func (t traffic) plus(o traffic) traffic {
	return traffic{t.sent + o.sent, t.received + o.received, t.wireSent + o.wireSent, t.wireReceived + o.wireReceived}
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
		s.bytes, s.err = v.traffic(ctx)
	}
	if s.err != nil {
		s.err = fmt.Errorf("%s: %w", v.name, s.err)
	}
	return s
}

// maxMetrics bounds an answer of /metrics.
const maxMetrics = 4 << 20

// traffic reads the validator's traffic counters.
func (v *validator) traffic(ctx context.Context) (t traffic, err error) {
	ctx, cancel := context.WithTimeout(ctx, validatorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/metrics", nil)
	if err != nil {
		return t, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return t, fmt.Errorf("/metrics: HTTP status %s", resp.Status)
	}
	return trafficOf(io.LimitReader(resp.Body, maxMetrics))
}

// trafficOf adds up the counters of traffic over their other labels.
func trafficOf(r io.Reader) (t traffic, err error) {
	found := map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		metric, rest, _ := strings.Cut(lines.Text(), "{")
		labels, value, cut := strings.Cut(rest, "} ")
		if !cut || metric != netBytes && metric != wireBytes {
			continue
		}
		into := [...]*float64{&t.sent, &t.received}
		if metric == wireBytes {
			into = [...]*float64{&t.wireSent, &t.wireReceived}
		}
		direction := 0
		if strings.Contains(labels, `direction="received"`) {
			direction = 1
		}
		value, _, _ = strings.Cut(value, " ") // a time stamp may follow
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return t, fmt.Errorf("metric %s: %w", metric, err)
		}
		*into[direction] += n
		found[metric] = true
	}
	if err := lines.Err(); err != nil {
		return t, err
	}
	for _, metric := range []string{netBytes, wireBytes} {
		if !found[metric] {
			return t, fmt.Errorf("there is no metric %s: is the node of the same version?", metric)
		}
	}
	return t, nil
}

// Metrics of a node.
const (
	netBytes  = "tutti_net_bytes_total"
	wireBytes = "tutti_net_wire_bytes_total"
)

// usage is what validators used in a measurement.
type usage struct {
	cores         float64  // all together
	cpuUs, rssMiB *float64 // for each transaction and validator; memory for each validator. nil: not measured

	sent, received, wireSent, wireReceived *float64 // bytes for each transaction and validator. nil: not measured
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
	var txs, cpu, rss float64 // a second
	var bytes traffic
	for i, v := range all {
		a, b := m.begin.validators[i], m.end.validators[i]
		between := float64(b.status.TimeMs-a.status.TimeMs) / 1000
		if a.err != nil || b.err != nil || between <= 0 || b.status.UptimeS < between { // gone, or begun anew
			return usage{}
		}
		txs += float64(o.End.Shards[v.shard].Transactions-o.Begin.Shards[v.shard].Transactions) / span
		cpu += (b.status.CPUS - a.status.CPUS) / between
		bytes = bytes.plus(b.bytes.rate(a.bytes, between))
		rss += b.status.Memory.RSSMiB
	}
	u.cores = cpu
	figure := func(v float64, decimals int) *float64 { v = report.Round(v, decimals); return &v }
	u.rssMiB = figure(rss/float64(len(all)), 1)
	if txs > 0 {
		u.cpuUs = figure(cpu/txs*1e6, 1)
		u.sent, u.received = figure(bytes.sent/txs, 0), figure(bytes.received/txs, 0)
		u.wireSent, u.wireReceived = figure(bytes.wireSent/txs, 1), figure(bytes.wireReceived/txs, 1)
	}
	return u
}
