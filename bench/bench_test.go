package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"

	"tutti/appliance/api"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/bench/load"
	"tutti/bench/report"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidate(t *testing.T) {
	good := Standard()
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"uniform, valid transfers": func(c *Config) { c.Distilled, c.Invalid = 0.1, 0.1 },
		"name none that runs":      func(c *Config) { c.Distilled, c.Attach = 0.1, &Attach{} },
		"above 1":                  func(c *Config) { c.Overload = 1 },
		"single transfers":         func(c *Config) { c.Distilled, c.Overload = 1, 3 },
		"give an invalid share":    func(c *Config) { c.Alternate = true },
		"number from 0 to 1":       func(c *Config) { c.Invalid = math.NaN() },
		"choose uniform or zipf":   func(c *Config) { c.Workload = "" },
		"or max":                   func(c *Config) { c.Rate = -1 },
		"choose 1s to":             func(c *Config) { c.Duration = time.Millisecond },
		"no other to send to":      func(c *Config) { c.CrossShard = 0.2 },
		"the limit is":             func(c *Config) { c.Accounts = 1 << 40 },
		"whole seconds of warm-up": func(c *Config) { c.Burst, c.WarmUp = true, 500*time.Millisecond },
	} {
		c := Standard()
		change(&c)
		if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c := Standard()
	c.CrossShard, c.Attach = 0.2, &Attach{} // how many shards the network has is not known yet
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestBracket(t *testing.T) {
	for name, c := range map[string]struct{ capacity, low, high float64 }{
		"below the first": {300, 0, 1000},
		"middling":        {9300, 9000, 9300},
		"endless":         {math.Inf(1), maxRate / 2, maxRate},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			got, err := bracket(1000, 4, func(rate float64) (bool, error) { tries++; return rate <= c.capacity, nil })
			if err != nil || got < c.low || got > c.high || got > c.capacity || tries > 20 {
				t.Errorf("found %.0f after %d tries: %v", got, tries, err)
			}
		})
	}
	boom := errors.New("boom")
	if _, err := bracket(1, 1, func(float64) (bool, error) { return false, boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func outcome(tps float64, p99 time.Duration) *load.Outcome {
	o := &load.Outcome{Begin: load.Totals{Shards: make([]load.ShardTotals, 2)}, End: load.Totals{At: 10 * time.Second, Settled: uint64(10 * tps), Shards: make([]load.ShardTotals, 2)}}
	o.Latency, o.Cross = hdrhistogram.New(1, time.Minute.Microseconds(), 3), hdrhistogram.New(1, 10, 1)
	if err := o.Latency.RecordValue(p99.Microseconds()); err != nil {
		panic(err)
	}
	return o
}

func TestVerdict(t *testing.T) {
	b := &bench{Config: Config{Invalid: 0.1}}
	if why := b.verdict(1000, outcome(900, 800*time.Millisecond)); why != "" {
		t.Errorf("did not stand: %s", why)
	}
	lost, unsent := outcome(900, time.Millisecond), outcome(900, time.Millisecond)
	lost.Lost, unsent.Unsent = 1, 2
	for want, o := range map[string]*load.Outcome{
		"p99 over 1s": outcome(900, 1100*time.Millisecond), "finalised 800 tx/s": outcome(800, 900*time.Millisecond), "1 lost": lost, "2 could not be sent": unsent,
	} {
		if why := b.verdict(1000, o); !strings.Contains(why, want) {
			t.Errorf("%q, want %q", why, want)
		}
	}
}

// fake is a validator that says what the test wants.
type fake struct {
	status  func(n int) api.Status // the n-th answer, from 0
	metrics string
	blocks  []*proof.Block // by height from 1
	pruned  int            // of them
	asked   atomic.Int32
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var v any
	var height int
	switch {
	case r.URL.Path == "/v1/status":
		v = f.status(int(f.asked.Add(1)) - 1)
	case r.URL.Path == "/v1/params":
		v = api.Params{Shard: f.status(0).Shard}
	case r.URL.Path == "/metrics":
		fmt.Fprint(w, f.metrics)
		return
	case strings.HasPrefix(r.URL.Path, "/v1/blocks/"):
		if _, err := fmt.Sscanf(r.URL.Path, "/v1/blocks/%d/raw", &height); err == nil && height > f.pruned && height <= len(f.blocks) {
			_, _ = w.Write(f.blocks[height-1].Append(nil))
			return
		}
		w.WriteHeader(http.StatusGone)
		v = api.Answer{Error: api.ErrorBody{Code: api.Pruned}}
	case strings.HasPrefix(r.URL.Path, "/v1/accounts/"):
		id, err := tx.ParseID(strings.TrimPrefix(r.URL.Path, "/v1/accounts/"))
		if err != nil {
			panic(err)
		}
		v = api.Account{ID: id, Balance: f.status(0).Accounts}
	}
	_ = json.NewEncoder(w).Encode(v)
}

const sentMetric = "# TYPE tutti_net_bytes_total counter\ntutti_net_bytes_total{class=\"vote\",direction=\"sent\"} 1000\n" +
	"tutti_net_bytes_total{class=\"vote\",direction=\"received\"} 7\ntutti_net_bytes_total{class=\"body\",direction=\"sent\"} 2.5e+03\n" +
	"tutti_net_wire_bytes_total{direction=\"received\"} 12\ntutti_net_wire_bytes_total{direction=\"sent\"} 4000 1700000000000\n"

// targetOf makes a target of fakes, by shard.
func targetOf(t *testing.T, n *prooftest.Network, total uint64, fakes [][]*fake) *target {
	t.Helper()
	out := &target{trust: n.Trust, genesis: &genesis.Genesis{}, nodes: make([][]*validator, len(fakes))}
	out.genesis.Accounts.Total = total
	for s, row := range fakes {
		for i, f := range row {
			if f.metrics == "" {
				f.metrics = sentMetric
			}
			server := httptest.NewServer(f)
			t.Cleanup(server.Close)
			if err := out.add(consensus.ShardID(s), fmt.Sprintf("s%dv%d", s, i), server.URL); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		if err := out.close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return out
}

// moving is a validator that goes on: its state height grows with each answer, from first on.
func moving(shard consensus.ShardID, first int, root func(height consensus.Height) byte) *fake {
	return &fake{status: func(n int) api.Status {
		h := consensus.Height(first + n)
		return api.Status{Shard: shard, StateHeight: h, StateRoot: proof.Digest{root(h)}}
	}}
}

func TestCompare(t *testing.T) {
	n := prooftest.New(t, "compare", 1)
	same := func(h consensus.Height) byte { return byte(h) }
	apart := targetOf(t, n, 0, [][]*fake{{moving(0, 7, same), moving(0, 9, same), moving(0, 8, same)}})
	if good, err := apart.compare(t.Context()); err != nil || good != "3 validators, at heights 9" {
		t.Errorf("%q, %v", good, err)
	}
	forked := targetOf(t, n, 0, [][]*fake{{moving(0, 7, same), moving(0, 9, func(h consensus.Height) byte { return byte(h + 1) })}})
	if _, err := forked.compare(t.Context()); err == nil || !strings.Contains(err.Error(), "s0v0 has root") && !strings.Contains(err.Error(), "s0v1 has root") {
		t.Errorf("a fork was not seen: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	dead := targetOf(t, n, 0, [][]*fake{{moving(0, 7, same), {status: func(int) api.Status { panic(http.ErrAbortHandler) }}}})
	if _, err := dead.compare(ctx); err == nil {
		t.Error("a validator that does not answer agrees")
	}
}

// holding is a shard's supply after it got in and sent out so much.
func holding(shard consensus.ShardID, genesis, in, out, received, sent uint64) *fake {
	return &fake{status: func(int) api.Status {
		return api.Status{
			Shard: shard, Links: []api.LinkStatus{{Shard: 1 - shard, Sent: sent, Received: received}},
			Supply: api.Supply{Balances: genesis + in - out, Genesis: genesis, Inflow: in, Outflow: out},
		}
	}}
}

func TestSupply(t *testing.T) {
	n := prooftest.New(t, "supply", 2)
	minted := holding(0, 100, 0, 0, 0, 0)
	minted.status = func(int) api.Status { return api.Status{Supply: api.Supply{Balances: 101, Genesis: 100}} }
	late := holding(1, 100, 5, 0, 1, 0) // its credit is seen before the debit
	early := holding(0, 100, 0, 0, 0, 0)
	early.status = func(n int) api.Status {
		if n < 2 {
			return holding(0, 100, 0, 0, 0, 0).status(0)
		}
		return holding(0, 100, 0, 5, 0, 1).status(0)
	}
	for name, c := range map[string]struct {
		fakes       [][]*fake
		total       uint64
		good, wrong string
	}{
		"settled":      {[][]*fake{{holding(0, 100, 3, 5, 1, 2)}, {holding(1, 100, 5, 3, 2, 1)}}, 200, "200 units, 0 of them", ""},
		"on the way":   {[][]*fake{{holding(0, 100, 0, 5, 0, 1)}, {holding(1, 100, 0, 0, 0, 0)}}, 200, "200 units, 5 of them", ""},
		"asked apart":  {[][]*fake{{early}, {late}}, 200, "200 units, 0 of them", ""},
		"minted":       {[][]*fake{{minted}, {holding(1, 100, 0, 0, 0, 0)}}, 200, "", "does not add up"},
		"other supply": {[][]*fake{{holding(0, 100, 0, 0, 0, 0)}, {holding(1, 100, 0, 0, 0, 0)}}, 300, "", "genesis file says 300"},
		"out of thin":  {[][]*fake{{holding(0, 100, 0, 0, 0, 0)}, {holding(1, 100, 5, 0, 1, 0)}}, 200, "", "received 5 units"},
		"receipt lost": {[][]*fake{{holding(0, 100, 0, 5, 0, 1)}, {holding(1, 100, 3, 0, 1, 0)}}, 200, "", "is not the supply"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			good, err := targetOf(t, n, c.total, c.fakes).supply(ctx)
			if c.wrong == "" && err != nil || !strings.HasPrefix(good, c.good) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("%q, %v; want %q, %q", good, err, c.good, c.wrong)
			}
		})
	}
}

func TestKept(t *testing.T) {
	n := prooftest.New(t, "kept", 1)
	status := func(int) api.Status { return api.Status{} }
	var blocks []*proof.Block
	var seen []load.Seen
	for range 3 {
		h := n.Add(0, nil, nil)
		blocks = append(blocks, n.Finalise(0)...)
		seen = append(seen, load.Seen{Height: h.Height, Hash: h.Hash()})
	}
	whole, forgetful := &fake{status: status, blocks: blocks}, &fake{status: status, blocks: blocks[:2]}
	if good, err := targetOf(t, n, 0, [][]*fake{{whole, whole}}).kept(t.Context(), [][]load.Seen{seen}); err != nil || good != "6 blocks proven by 2 validators" {
		t.Errorf("%q, %v", good, err)
	}
	if _, err := targetOf(t, n, 0, [][]*fake{{whole, forgetful}}).kept(t.Context(), [][]load.Seen{seen}); err == nil || !strings.Contains(err.Error(), "s0v1, block 3") {
		t.Errorf("a lost block was not missed: %v", err)
	}
	pruned := &fake{status: status, blocks: blocks, pruned: 2}
	if good, err := targetOf(t, n, 0, [][]*fake{{whole, pruned}}).kept(t.Context(), [][]load.Seen{seen}); err != nil || good != "4 blocks proven by 2 validators; 2 times one had pruned it" {
		t.Errorf("%q, %v", good, err)
	}
	if _, err := targetOf(t, n, 0, [][]*fake{{pruned, pruned}}).kept(t.Context(), [][]load.Seen{seen}); err == nil || !strings.Contains(err.Error(), "block 2: every validator has pruned it") {
		t.Errorf("a block that nobody has: %v", err)
	}
	seen[1].Hash[0] ^= 1
	if _, err := targetOf(t, n, 0, [][]*fake{{whole}}).kept(t.Context(), [][]load.Seen{seen}); err == nil || !strings.Contains(err.Error(), "the client saw") {
		t.Errorf("another block passed: %v", err)
	}
}

func TestUsage(t *testing.T) {
	used := func(cpu, sent float64, at int64) sample {
		return sample{status: api.Status{TimeMs: at, CPUS: cpu, UptimeS: 100, Memory: api.Memory{RSSMiB: 200}}, bytes: traffic{sent, 2 * sent, 3 * sent, 4 * sent}}
	}
	n := &target{nodes: [][]*validator{{{}, {}}, {{shard: 1}, {shard: 1}}}}
	m := &measurement{outcome: outcome(0, time.Second)}
	m.outcome.End.Shards[0].Transactions, m.outcome.End.Shards[1].Transactions = 30_000, 10_000 // in 10 s
	for i := range 4 {
		at := int64(1000 * i) // they answer at different moments
		m.begin.validators = append(m.begin.validators, used(5, 100, at))
		m.end.validators = append(m.end.validators, used(6, 40_100, at+10_000))
	}
	u := n.usage(m) // 0.4 cores and 16,000 bytes a second for 2*3000 + 2*1000 transactions
	if u.cpuUs == nil || *u.cpuUs != 50 || *u.sent != 2 || *u.received != 4 || *u.wireSent != 6 || *u.wireReceived != 8 || *u.rssMiB != 200 || math.Abs(u.cores-0.4) > 1e-9 {
		t.Errorf("%+v", u)
	}
	m.end.validators[2].status.UptimeS = 3 // begun anew in between
	if u := n.usage(m); u.cpuUs != nil {
		t.Errorf("a restarted validator was measured: %v", *u.cpuUs)
	}
}

func TestSamples(t *testing.T) {
	n := prooftest.New(t, "samples", 1)
	target := targetOf(t, n, 0, [][]*fake{{
		{status: func(int) api.Status { return api.Status{CPUS: 3} }},
		{status: func(int) api.Status { return api.Status{} }, metrics: "nothing\n"},
	}})
	got := target.samples(t.Context())
	if got[0].err != nil || got[0].bytes != (traffic{3500, 7, 4000, 12}) || got[0].status.CPUS != 3 {
		t.Errorf("%+v", got[0])
	}
	if got[1].err == nil || !strings.Contains(got[1].err.Error(), "s0v1: there is no metric") {
		t.Errorf("%v", got[1].err)
	}
	if target.link() != report.Loopback {
		t.Error("loopback not recognised")
	}
	target.nodes[0][1].url = "http://192.0.2.1:9700"
	if target.link() != report.Network {
		t.Error("another machine taken for this one")
	}
}

func TestScreen(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "begin\n1 s\n2 s\nend\n",
		true:  "begin\n1 s\r\x1b[K2 s\r\x1b[Kend\n",
	} {
		var out bytes.Buffer
		s := screen{out: &out, terminal: terminal}
		s.say("begin")
		s.line("1 s", false)
		s.line("2 s", false)
		s.say("%s", "end")
		if out.String() != want {
			t.Errorf("terminal %t: %q, want %q", terminal, out.String(), want)
		}
	}
	(&screen{}).say("to nobody")
	a := load.Snapshot{Totals: load.Totals{}}
	b := load.Snapshot{Totals: load.Totals{At: 2 * time.Second, Settled: 4000, Shards: []load.ShardTotals{{Height: 5}, {Height: 6}}}, Live: 1234, Latency: outcome(0, 300*time.Millisecond).Latency}
	if got, want := progressLine(3*time.Second, a, b), "   3 s    2,000 tx/s    1,234 under way  final in 300 ms, 99% in 300 ms  heights 5 6"; got != want {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	b.Latency = hdrhistogram.New(1, 10, 1)
	if got := progressLine(0, a, b); !strings.Contains(got, "nothing final") {
		t.Errorf("%q", got)
	}
}

func TestReport(t *testing.T) {
	b := &bench{Config: Standard()}
	b.Workload, b.Shards = workload.Zipf, 2
	target := &target{nodes: [][]*validator{{{url: "http://127.0.0.1:1"}}, {{url: "http://localhost:1"}}}, accounts: 12}
	o := outcome(900, 250*time.Millisecond)
	o.Due, o.Unsent, o.Finalised, o.Rejected, o.Retried = 1000, 10, 980, map[string]uint64{"wrong_signature": 10}, map[string]uint64{}
	o.End.Shards[0].Blocks, o.End.Shards[1].Blocks = 40, 60
	now := time.Now()
	m := &measurement{rate: 100, outcome: o, begin: moment{at: now}, end: moment{at: now.Add(10 * time.Second), own: 0.0198, machineErr: errors.New("no /proc")}}
	r := b.report(target, m, hdrhistogram.New(1, 10, 1))
	if r.Scenario.Name != "zipf-2x1" || r.Scenario.Link != report.Loopback || r.Result.Submitted != 990 || r.Result.TPS != 900 || r.BlocksPerS != 5 ||
		r.Details.GeneratorUsPerTx != 20.2 || r.Result.CPUUsPerTxPerValidator != nil || r.AccountProofMs != nil || r.Result.FinalityMs.P99 < 249 {
		t.Errorf("%+v", r)
	}
}
