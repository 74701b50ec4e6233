// Package api is the node's HTTP interface: for wallets, exchanges, developers, the dashboard, `tutti status` and
// load generators.
//
// It takes a Backend, which is the node, and serves the routes in routes.go, described in openapi.yaml (embedded; a
// test holds the two together). Requests and answers are JSON; transactions also go in, and blocks come out, in
// binary; distilled batches only so. Refusals carry a code from the one table in errors.go. Heights are block heights, amounts are in units and
// travel as decimal strings where money is acted on (accounts, transactions), times are Unix milliseconds.
//
// # Bounds
//
// Every request has a size limit, a time limit and a token-bucket rate, for each client address and over all; so have
// transactions, which are counted one by one. Requests in work, connections, subscribers and each subscriber's queue
// are bounded. What is over a bound is refused with 429 or 503 and Retry-After; a subscriber that falls behind is cut
// off and told so. Decoding is strict: unknown fields and parameters are refused by name.
//
// # Trust
//
// The API has no secrets and no administration: all it can do for a client is to pass on what the client signed.
// appliance/config makes loopback the default address. Proofs are checked by the client (appliance/client), never believed.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"tutti/accel/distill"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
)

// Limits of one proof of several accounts.
const (
	MaxProofAccounts = 256
	MaxProofChunks   = 64 // of 4,096 neighbouring accounts: what the proof costs the node (ledger.ProofChunks)
)

// MaxEvidence is the most proofs of slashable votes in one answer.
const MaxEvidence = 100

// Limits of one answer of hand-overs; it has at least one where there is one.
const (
	MaxHandovers      = 64
	maxHandoversBytes = 2 << 20 // encoded; hex doubles it
	// MaxHandoversAnswer bounds the JSON of an answer.
	MaxHandoversAnswer = 2*(maxHandoversBytes+proof.MaxHandoverBytes) + MaxHandovers*512 + 512
)

// MaxTransactions is the most transactions in one call.
const MaxTransactions = 4096

// Options configure a Server. Zero numbers mean the defaults of Options.withDefaults.
type Options struct {
	Log         *slog.Logger
	Params      Params
	Genesis     []byte       // the genesis file as it was read
	GenesisType string       // its content type; application/json if empty
	Metrics     http.Handler // GET /metrics; nil: not served
	Dashboard   http.Handler // GET / and every other path that is not the API's; nil: not served
	Counters    *metrics.API // what this server counts
	// Hold, if set, says why everything is refused but what does not depend on the chain and GET /v1/status; nil error:
	// nothing is.
	Hold func() error

	Rates          Rates
	MaxBodyBytes   int64         // of a request; 2 MiB
	MaxInFlight    int           // requests in work, subscribers not counted; 128
	MaxConns       int           // open connections; 1024
	MaxSubscribers int           // 64
	QueueEvents    int           // waiting events of one subscriber; 64
	QueueBytes     int64         // waiting bytes of one subscriber; 64 MiB
	Timeout        time.Duration // to read a request and to answer it; 15 s
	Heartbeat      time.Duration // between signs of life on an idle subscription; 5 s
}

// Rates are token buckets. A client is an IPv4 address or an IPv6 /64 network.
type Rates struct {
	ClientRequests     float64 // a second for each client; 100
	TotalRequests      float64 // a second over all; ten times ClientRequests
	ClientTransactions float64 // a second for each client; 10,000
	TotalTransactions  float64 // a second over all; ten times ClientTransactions
	ClientBatched      float64 // transfers in batches (pool.BatchCost), a second for each client; 150,000
	TotalBatched       float64 // a second over all; ten times ClientBatched
}

func or[T int | int64 | float64 | time.Duration](v *T, standard T) {
	if *v == 0 {
		*v = standard
	}
}

func (o *Options) withDefaults() {
	or(&o.Rates.ClientRequests, 100)
	or(&o.Rates.ClientTransactions, 10_000)
	or(&o.Rates.TotalRequests, 10*o.Rates.ClientRequests)
	or(&o.Rates.TotalTransactions, 10*o.Rates.ClientTransactions)
	or(&o.Rates.ClientBatched, 150_000)
	or(&o.Rates.TotalBatched, 10*o.Rates.ClientBatched)
	or(&o.MaxBodyBytes, 2<<20)
	or(&o.MaxInFlight, 128)
	or(&o.MaxConns, 1024)
	or(&o.MaxSubscribers, 64)
	or(&o.QueueEvents, 64)
	or(&o.QueueBytes, 64<<20)
	or(&o.Timeout, 15*time.Second)
	or(&o.Heartbeat, 5*time.Second)
	if o.GenesisType == "" {
		o.GenesisType = "application/json"
	}
}

// Server serves the API. Make it with New, then Serve. All methods are safe for concurrent use.
type Server struct {
	backend Backend
	opt     Options
	mux     *http.ServeMux
	limits  *limits
	hub     *hub
	slots   chan struct{} // one for each request in work

	batchBytes *semaphore.Weighted // in work
}

// New makes a server. It fails if an option is missing or out of range.
func New(b Backend, opt Options) (*Server, error) {
	opt.withDefaults()
	switch {
	case b == nil || opt.Log == nil || opt.Counters == nil:
		return nil, errors.New("api: Backend, Log and Counters are needed")
	case opt.Rates.ClientRequests < 0 || opt.Rates.TotalRequests < 0 || opt.Rates.ClientTransactions < 0 || opt.Rates.TotalTransactions < 0 ||
		opt.Rates.ClientBatched < 0 || opt.Rates.TotalBatched < 0:
		return nil, errors.New("api: rates must be positive")
	case opt.MaxBodyBytes < 0 || opt.MaxInFlight < 0 || opt.MaxConns < 0 || opt.MaxSubscribers < 0 ||
		opt.QueueEvents < 0 || opt.QueueBytes < 0 || opt.Timeout < 0 || opt.Heartbeat < 0:
		return nil, errors.New("api: limits must be positive")
	}
	opt.Params.MaxTransactions = MaxTransactions
	or(&opt.Params.MaxBatchTransfers, distill.MaxCount)
	or(&opt.Params.MaxBatchBytes, distill.MaxBatchBytes)
	if opt.Params.Brokers == nil {
		opt.Params.Brokers = []string{} // none, and not null
	}
	s := &Server{
		backend: b, opt: opt, mux: http.NewServeMux(), limits: newLimits(opt.Rates),
		hub:   newHub(opt.MaxSubscribers, opt.QueueEvents, opt.QueueBytes, opt.Counters),
		slots: make(chan struct{}, opt.MaxInFlight), batchBytes: semaphore.NewWeighted(batchBytesInWork),
	}
	for _, r := range s.routes() {
		s.mux.Handle(r.Method+" "+r.Pattern, s.handler(r))
	}
	if opt.Dashboard != nil {
		s.mux.Handle("GET /", opt.Dashboard)
	}
	return s, nil
}

// Publish tells the subscribers of GET /v1/finality about a final block. The caller publishes blocks in height order
// and does not modify them afterwards. Publish never blocks: a subscriber whose queue is full is cut off.
func (s *Server) Publish(b *proof.Block) { s.hub.publish(b) }

// Serve answers connections from l until ctx ends, then ends all subscriptions and waits for the requests in work, at
// most the request timeout. It closes l. The error is nil after a clean stop.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.opt.Timeout,
		ReadTimeout:       s.opt.Timeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(limitConns(l, s.opt.MaxConns)) }()
	select {
	case err := <-failed:
		s.hub.close()
		return fmt.Errorf("api: %w", errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	s.hub.close()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.Timeout)
	defer cancel()
	err := server.Shutdown(stop)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	<-failed
	return err
}
