package localnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"tutti/appliance/api"
)

// page is a writer that may be read meanwhile.
type page struct {
	mu   sync.Mutex
	text strings.Builder
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// shown is a network whose first node is a server of the test's, and whose processes are none.
func shown(t *testing.T, names ...string) *Network {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Network{Shards: []api.ShardStatus{
			{Shard: 0, Height: 41, TPS: 12.5, FinalityMs: api.Quantiles{P50: 150, P99: 300}, Validators: []api.ValidatorStatus{
				{Self: true}, {Connected: true}, {Connected: true, Lag: 8}, {},
			}},
			{Shard: 1, Height: 42},
		}})
	}))
	t.Cleanup(server.Close)
	return &Network{APIs: [][]string{{server.URL}}, Names: names, children: &children{ended: make(chan *child, len(names))}}
}

func TestRunShows(t *testing.T) {
	n := shown(t, "s0v0", "s0v1")
	n.opt = Options{HomeFlag: "/somewhere", LoadTPS: 50, Load: func(ctx context.Context, _ *Network, tps int, report func(LoadStats)) error {
		report(LoadStats{Submitted: 1000, Final: 990, Rejected: 2, P50Ms: 200, P99Ms: 590})
		<-ctx.Done()
		return ctx.Err()
	}}
	fmt.Fprintln(&n.broker, "Broker: 12ab@127.0.0.1:19708")
	var out page
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, Screen{Out: &out}) }()
	until(t, "the network is shown", func() bool { return strings.Contains(out.String(), "shard 1") })
	n.children.ended <- &child{name: "s0v1", err: errors.New("signal: killed")}
	until(t, "the end of a node is told", func() bool { return strings.Contains(out.String(), "s0v1 ended (signal: killed)") })
	n.children.ended <- &child{name: brokerName}
	until(t, "the end of the broker is told", func() bool {
		return strings.Contains(out.String(), "broker ended (exit status 0); its log: "+n.brokerLog())
	})
	if said := n.broker.String(); said != "ended" {
		t.Errorf("the broker's line stays %q", said)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended by Ctrl-C: %v", err)
	}
	for _, want := range []string{
		"API and dashboard: http://127.0.0.1:", "wallet send demo", "--home /somewhere", "Ctrl-C stops everything",
		"broker   12ab@127.0.0.1:19708\n",
		"shard 0  height       41      12.5 tx/s  final in  150 ms, 99% in  300 ms  2 of 4 validators", "50 tx/s wanted",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("cursor movements where there is no terminal")
	}
}

func TestRunEnds(t *testing.T) {
	t.Run("with its last node", func(t *testing.T) {
		n := shown(t, "s0v0")
		n.children.ended <- &child{name: "s0v0"}
		if err := n.Run(t.Context(), Screen{Out: &page{}}); err == nil || !strings.Contains(err.Error(), "every validator has ended") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("not with its broker", func(t *testing.T) {
		n := shown(t, "s0v0", "s0v1")
		n.children.ended <- &child{name: brokerName}
		n.children.ended <- &child{name: "s0v0"}
		var out page
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, Screen{Out: &out}) }()
		until(t, "both ends are told", func() bool { return strings.Contains(out.String(), "s0v0 ended") })
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended though a validator runs: %v", err)
		}
	})
	t.Run("with its load", func(t *testing.T) {
		n := shown(t, "s0v0")
		n.opt = Options{LoadTPS: 1, Load: func(context.Context, *Network, int, func(LoadStats)) error { return errors.New("no money left") }}
		if err := n.Run(t.Context(), Screen{Out: &page{}}); err == nil || !strings.Contains(err.Error(), "no money left") {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestTerminal(t *testing.T) {
	n := shown(t, "s0v0")
	n.APIs[0] = append(n.APIs[0], "")
	var out page
	v := &view{n: n, screen: Screen{Out: &out, Terminal: true}}
	long := api.Network{Shards: []api.ShardStatus{{TPS: 1e20, Height: 1 << 60}}}
	v.draw(long, errors.New(strings.Repeat("long ", 40)))
	for _, line := range strings.Split(out.String(), "\n") {
		if n := len([]rune(line)); n >= 80 {
			t.Errorf("a line of %d characters wraps: %q", n, line)
		}
	}
	v.note("news")
	if got := out.String(); !strings.HasSuffix(got, "\x1b[3A\x1b[Jnews\n") {
		t.Errorf("three lines are not drawn over: %q", got)
	}
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{{"short", 80, "short"}, {"exactly", 8, "exactly"}, {"exactly", 7, "exact…"}, {"ünï çödé", 5, "ünï…"}, {"x", 0, "…"}} {
		if got := cut(c.line, c.width); got != c.want {
			t.Errorf("%q cut to %d: %q, want %q", c.line, c.width, got, c.want)
		}
	}
}
