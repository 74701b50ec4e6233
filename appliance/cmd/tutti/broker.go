package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"tutti/accel"
	"tutti/accel/distill"
	"tutti/appliance/broker"
	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/host"
	"tutti/appliance/metrics"
)

// brokerOptions are the flags of tutti broker.
type brokerOptions struct {
	network          networkFlags
	listen, key      string
	metrics          string
	window, patience time.Duration
	least            int
	quota            broker.Quota
	parentFD         int
	profile          string
}

// brokerStatus is how long two lines about what a broker did are apart.
const brokerStatus = 10 * time.Second

func brokerCommand(a *app) *cobra.Command {
	o := brokerOptions{quota: broker.DefaultQuota}
	c := &cobra.Command{
		Use:   "broker",
		Short: "Run a broker of distilled batches until Ctrl-C",
		Long: `Run a broker of distilled batches until Ctrl-C: it collects transfers, has their senders sign them together, and gives them to nodes.

Validators check such a batch by one signature instead of thousands. Nobody has to trust a broker: it can delay a transfer, and no
more; wallets send on their own what it does not bring into a block in time. Nodes tell wallets about it when its address stands in
api.brokers of their config.toml. Every ten seconds in which something happened it prints what it did.`,
		Example: `  tutti broker --home localnet --listen 127.0.0.1:9720
  tutti broker --genesis genesis.json --api http://10.0.0.1:9700 --api http://10.0.0.2:9700 --listen 0.0.0.0:9720
  tutti broker --window 50ms --patience 100ms`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if o.parentFD > 0 {
				var cancel context.CancelFunc
				ctx, cancel = untilParentEnds(ctx, o.parentFD)
				defer cancel()
			}
			stop, err := profileTo(o.profile)
			if err != nil {
				return err
			}
			return errors.Join(a.broker(ctx, o), stop())
		},
	}
	o.network.add(c)
	f := c.Flags()
	f.StringVar(&o.listen, "listen", net.JoinHostPort("0.0.0.0", strconv.Itoa(config.DefaultBrokerPort)), "UDP address, host:port, to listen at")
	f.StringVar(&o.key, "key", "", "file with the broker's own key, made if it is not there (default: broker.key in the home folder)")
	f.StringVar(&o.metrics, "metrics", "", "address, host:port, to serve Prometheus metrics at, under /metrics")
	f.DurationVar(&o.window, "window", broker.DefaultWindow, "from the first transfer of a batch until it is offered to its senders")
	f.DurationVar(&o.patience, "patience", broker.DefaultPatience, "how long senders have to sign it")
	f.IntVar(&o.least, "least", broker.DefaultLeast, "transfers of a batch; fewer are sent on with their own signatures")
	f.IntVar(&o.quota.PerSecond, "per-second", o.quota.PerSecond, "transfers that one client address may submit each second")
	f.IntVar(&o.quota.InWorkEach, "in-work", o.quota.InWorkEach, "transfers of one client address in work at once")
	f.StringVar(&o.profile, "cpu-profile", "", "file for a CPU profile of the whole run, for 'go tool pprof'")
	f.IntVar(&o.parentFD, "parent-fd", 0, "descriptor whose end of file means that the parent has ended")
	if err := f.MarkHidden("parent-fd"); err != nil {
		panic(err) // the flag was defined above
	}
	return c
}

// brokerKey reads or makes the key that a broker is known by. Nothing rests on it but that clients find the same broker again.
func brokerKey(path string) (ed25519.PrivateKey, error) {
	b, err := readBounded(path, 1024)
	if errors.Is(err, fs.ErrNotExist) {
		var seed [ed25519.SeedSize]byte
		if _, err := rand.Read(seed[:]); err != nil {
			return nil, err
		}
		if err := host.CreateFile(path, []byte(hex.EncodeToString(seed[:])+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("the broker's key can't be kept: %w: name another file with --key", err)
		}
		return ed25519.NewKeyFromSeed(seed[:]), nil
	}
	if err != nil {
		return nil, err
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not a broker's key of 64 hexadecimal digits: remove it to have a new one made, or name another file with --key", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (a *app) broker(ctx context.Context, o brokerOptions) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	n, err := o.network.load(h)
	if err != nil {
		return err
	}
	c, err := o.network.client(h, n.trust)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := accel.Ready(accel.SelfTest()); err != nil {
		return err
	}
	if o.key == "" {
		o.key = filepath.Join(string(h), "broker.key")
	}
	key, err := brokerKey(o.key)
	if err != nil {
		return err
	}
	p, err := c.Params(ctx)
	if err != nil {
		return err
	}
	s, err := newBroker(n, c, o, broker.Options{Key: key, MaxExpiry: p.MaxExpiry, MaxCount: p.MaxBatchTransfers, Log: slog.New(slog.NewTextHandler(a.stderr, nil))})
	if err != nil {
		return usageError{err}
	}
	at, err := net.ListenPacket("udp", o.listen)
	if err != nil {
		return fmt.Errorf("the broker cannot listen at %s (%w): stop the program that uses the port, or choose another with --listen", o.listen, err)
	}
	if o.metrics != "" {
		stop, err := a.serveBrokerMetrics(o.metrics, s)
		if err != nil {
			return errors.Join(err, at.Close())
		}
		defer stop()
	}
	a.say("Broker: %x@%s", key.Public(), at.LocalAddr())
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go a.watchBroker(watching, s)
	return s.Serve(ctx, at)
}

// metricsTimeout is on a call for metrics, and on the last one at the end.
const metricsTimeout = 5 * time.Second

// serveBrokerMetrics serves them until stop is called.
func (a *app) serveBrokerMetrics(addr string, s *broker.Server) (stop func(), err error) {
	registry, v := prometheus.NewRegistry(), thisVersion()
	if err := metrics.NewBroker(registry, v.Version, v.Commit, func() metrics.Broker { return brokerCounts(s.Stats()) }); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics cannot be served at %s (%w): stop the program that uses the port, or choose another with --metrics", addr, err)
	}
	routes := http.NewServeMux()
	routes.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{Handler: routes, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.say("metrics are not served any more: %v", err)
		}
	}()
	a.say("Metrics: http://%s/metrics", l.Addr())
	return func() {
		_ = server.Close() // the listener's own error says nothing to anybody here
		<-ended
	}, nil
}

// brokerCounts are a broker's for its metrics.
func brokerCounts(s broker.Stats) metrics.Broker {
	out := metrics.Broker{
		Submitted: s.Submitted, Batches: s.Batches, Batched: s.Batched, Stragglers: s.Stragglers, Single: s.Single, Again: s.Again, Strikes: s.Strikes,
		Excluded: s.Excluded, Connections: s.Conns, InWork: s.InWork, Refused: map[string]uint64{},
	}
	for code, n := range s.Refused {
		if n > 0 {
			out.Refused[strings.ReplaceAll(broker.Code(code).String(), " ", "_")] = n
		}
	}
	return out
}

func newBroker(n *network, c *client.Client, o brokerOptions, opt broker.Options) (*broker.Server, error) {
	opt.Chain, opt.Shards, opt.ShardOf = distill.Chain(n.hash), n.trust.Shards(), n.trust.ShardOf
	opt.Fees, opt.Nodes = n.genesis.Parameters.Fees, c
	opt.Window, opt.Patience, opt.Least, opt.Quota = o.window, o.patience, o.least, o.quota
	return broker.New(opt)
}

// watchBroker prints what a broker did, as long as it does something.
func (a *app) watchBroker(ctx context.Context, s *broker.Server) {
	beat := time.NewTicker(brokerStatus)
	defer beat.Stop()
	for last := uint64(0); ; {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
		st := s.Stats()
		if st.Submitted == last {
			continue
		}
		last = st.Submitted
		refused := uint64(0)
		for _, k := range st.Refused {
			refused += k
		}
		a.say("%s submitted, %s in %s batches (%s stragglers), %s sent on their own, %s refused, %s in work, %s connections", number(st.Submitted), number(st.Batched),
			number(st.Batches), number(st.Stragglers), number(st.Single), number(refused), number(uint64(st.InWork)), number(uint64(st.Conns)))
	}
}
