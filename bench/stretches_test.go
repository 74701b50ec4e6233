package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/api"
	"tutti/appliance/proof/prooftest"
	"tutti/bench/load"
	"tutti/bench/report"
)

func mib(v float64) *float64 { return &v }

// overload is stretches that pass.
func overload() []report.Stretch {
	return []report.Stretch{
		{Name: atLimit, Rate: 1000, TPS: 1000, PeakRSSMiB: mib(100)},
		{Name: overloaded, Rate: 3000, TPS: 910, PeakRSSMiB: mib(300), Rejected: map[string]uint64{"pool_full": 5, "wrong_signature": 7}},
		{Name: afterwards, Rate: 1000, TPS: 1000, PeakRSSMiB: mib(310), InTime: []report.Value{0.2, 0.98, report.None, 0.99, 1, 1, 0.5}},
	}
}

// alternating is stretches that pass.
func alternating() []report.Stretch {
	return []report.Stretch{{Name: withoutBad, TPS: 1010}, {Name: withBad, TPS: 850, InvalidShare: 0.1}, {Name: withoutBad, TPS: 990}, {Name: withBad, TPS: 855, InvalidShare: 0.1}}
}

func TestJudgeStretches(t *testing.T) {
	failed := func(all []report.Stretch) (names []string) {
		judgeStretches(all, func(name string, bad error, good string) {
			if bad != nil {
				names = append(names, name)
			} else if good == "" {
				t.Errorf("%s says nothing", name)
			}
		})
		return names
	}
	if got := append(failed(overload()), failed(alternating())...); len(got) > 0 {
		t.Errorf("%v failed", got)
	}
	for want, change := range map[string]func(a, o []report.Stretch){
		"invalid_throughput": func(a, _ []report.Stretch) { a[1].TPS = 820 },
		"overload_rate":      func(_, o []report.Stretch) { o[1].TPS = 890 },
		"overload_memory":    func(_, o []report.Stretch) { o[2].PeakRSSMiB = mib(410) },
		"overload_answers":   func(_, o []report.Stretch) { o[1].Rejected["internal"] = 1 },
		"overload_answers overload_recovery": func(_, o []report.Stretch) {
			o[1].Retried = map[string]uint64{load.Unreachable: 1}
			o[2].InTime = []report.Value{0, 0, 0, 0, 0, 0, 1, 1, 1}
		},
		"overload_recovery": func(_, o []report.Stretch) { o[2].InTime[4] = 0.9 },
	} {
		a, o := alternating(), overload()
		change(a, o)
		if got := strings.Join(append(failed(a), failed(o)...), " "); got != want {
			t.Errorf("failed: %q, want %q", got, want)
		}
	}
}

func TestStretches(t *testing.T) {
	b := &bench{Config: Standard()}
	if then, _ := b.stretches(1000); then != nil || b.stretched(&measurement{rate: 1000}) != nil {
		t.Error("a plain run has stretches")
	}
	b.Overload = 3
	then, names := b.stretches(1000)
	if len(then) != 2 || len(names) != 3 || then[0].Rate != 3000 || !then[0].GiveUp || then[1].Rate != 1000 || then[1].GiveUp {
		t.Errorf("%+v", then)
	}
	b.Overload, b.Alternate, b.Invalid = 0, true, 0.1
	then, names = b.stretches(900)
	if len(then) != 3 || len(names) != 4 || then[0].Rate != 1000 || then[0].Invalid != 0.1 || then[1].Rate != 900 || then[1].Invalid != 0 || b.mixed() != 0 {
		t.Errorf("%+v", then)
	}
	o := outcome(900, 100*time.Millisecond)
	o.Seconds = []load.Second{{Due: 4, InTime: 3}, {}}
	o.Then = []*load.Outcome{outcome(880, time.Second), outcome(900, time.Second), outcome(890, time.Second)}
	all := b.stretched(&measurement{rate: 900, outcome: o})
	if len(all) != 4 || all[0].InTime[0] != 0.75 || all[1].TPS != 880 || all[1].InvalidShare != 0.1 || all[3].Name != withBad {
		t.Errorf("%+v", all)
	}
}

// counting is a session that settles a thousand between two snapshots.
type counting struct {
	session
	n uint64
}

func (c *counting) Snapshot() load.Snapshot {
	c.n++
	h := hdrhistogram.New(1, 1_000_000, 3)
	if c.n == 3 {
		_ = h.RecordValue(250_000)
	}
	return load.Snapshot{Totals: load.Totals{At: time.Duration(c.n) * time.Second, Submitted: 1000 * c.n, Settled: 900 * c.n, Refused: 100 * c.n}, Latency: h, Live: 5}
}

func TestSeries(t *testing.T) {
	n := prooftest.New(t, "series", 1)
	busy := &fake{status: func(n int) api.Status { // a tenth of a core
		return api.Status{TimeMs: int64(1000 * (n + 1)), CPUS: 0.1 * float64(n), Memory: api.Memory{RSSMiB: float64(100 + n)}}
	}}
	target := targetOf(t, n, 0, [][]*fake{{busy, busy}})
	target.nodes[0] = target.nodes[0][:1]
	var r recorder
	for range 4 {
		r.add(t.Context(), target, &counting{n: uint64(len(r.rows))})
	}
	s := r.series(1500*time.Millisecond, 2500*time.Millisecond)
	if len(s.AtS) != 3 || s.AtS[0] != -0.5 || s.AtS[2] != 1.5 || s.Submitted[1] != 1000 || s.Finalised[1] != 900 || s.Refused[2] != 100 || s.CPUCores[1] != 0.1 ||
		s.RSSMiB[2] != 103 || s.P99Ms[0] == s.P99Ms[0] || s.P99Ms[1] < 249 || s.UnderWay[0] != 5 {
		t.Errorf("%+v", s)
	}
	if peak := r.peakRSS(time.Second, 3*time.Second); peak == nil || *peak != 102 {
		t.Errorf("peak %v", peak)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.add(ctx, target, &counting{n: 4})
	if last := r.rows[4]; last.cores == last.cores || last.rssMiB == last.rssMiB {
		t.Errorf("of no answer: %+v", last)
	}
}
