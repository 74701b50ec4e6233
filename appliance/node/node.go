// Package node is one running node: it wires keys, network, consensus, state and API together, and is the only place
// that knows them all. Everything it does for a transaction is listed in Pipeline (pipeline.go).
//
// Run opens a home folder that `tutti init` or `tutti localnet` has made, recovers, serves until its context ends, and
// closes in reverse order. What it starts it also stops: no goroutine outlives Run.
//
// # Fatal and not
//
// A failed write or sync, and contradicting votes in the log end Run with an error that says what to do; nothing is sent after
// it. So does a state that contradicts a certified root, unless a copy of the others' mends it (mend.go). Everything about one peer, one request or one transaction is
// refused, counted, and goes no further.
//
// # Commit point
//
// A block is final when its finalization certificate is durable in the block log (consensus/engine). State becomes
// durable after it, in height order, and is recomputed from the block log when a crash comes between.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/dashboard"
	"tutti/appliance/epochs"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/keys"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/engine"
	"tutti/netstack"
	"tutti/netstack/p2p"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/statesync"
	"tutti/state/store"
	"tutti/state/tx"
	"tutti/state/verify"
)

// Bounds that are not an operator's business.
const (
	verifyDepth         = 16384   // signatures waiting
	verifyCache         = 1 << 17 // verdicts remembered
	maxAhead            = 100_000 // blocks that an expiry may lie ahead
	poolBytes           = 64 << 20
	batchBytes          = 64 << 20           // encodings of distilled batches that wait
	accountChunksPerSec = api.MaxProofChunks // hashed for account proofs, 0.3 ms each
	accountProofWait    = 500 * time.Millisecond
	diskEvery           = 10 * time.Second

	apiRequests   = 128             // in work at a time
	apiTimeout    = 5 * time.Second // of one; well below the ten seconds in which a node has to stop
	apiQueue      = 64              // blocks waiting for one subscriber
	apiQueueBytes = 64 << 20        // of them
)

// Build says which build this is.
type Build struct{ Version, Commit string }

// Options of Run.
type Options struct {
	Home     config.Home
	Config   config.Config
	Password keys.Password
	Build    Build
	Source   Source
	Log      *slog.Logger
	// Ready is called once, when the node's API answers; api is the address that it listens at. While a node copies its
	// data from others, its status and progress is all that it tells.
	Ready func(api string)
}

// Node is one running node. Fields are set before anything that reads them starts and not modified afterwards: running and
// overview last, everything else before the engine acts.
type Node struct {
	cfg        config.Config
	build      Build
	log        *slog.Logger
	started    time.Time
	home       config.Home
	genesis    *genesis.Genesis
	chain      tx.Hash
	table      ledger.PartitionTable
	shard      consensus.ShardID
	index      int                    // among the shard's validators in the genesis file
	committees []*consensus.Committee // of the first epoch, by shard
	signer     consensus.Signer
	params     ledger.Params     // of the shard
	root       *consensus.Header // genesis block of the shard
	supply     uint64            // units in the shard at genesis

	queue         *ed25519.Queue
	verifier      *verify.Verifier
	ledger        *ledger.Ledger
	transport     *p2p.Node
	blocks        *blocklog.Log
	pool          *pool.Pool
	batches       *pool.Batches
	history       *history
	opened        openedBlocks
	meter         *meter
	cross         *crossLinks
	credits       *credits
	forward       *forwarder
	overview      *overview
	evidence      *evidenceKeeper
	app           *application
	epochs        *epochs.Store
	seats         *seats
	router        *committeeRouter
	running       atomic.Pointer[running]
	server        *api.Server
	metrics       *metrics.Metrics
	accountChunks *rate.Limiter
	states        *statesync.Server
	listener      net.Listener
	disk          diskSize
	writes        writeMeter
	logWritten    atomic.Uint64 // bytes written to block log and vote log
	finalTxs      atomic.Uint64 // transactions in blocks that became final
	wake          chan struct{} // capacity 1: there may be something to propose
	sampled       sampled       // owned by the scrape
	endEarly      func()        // ends the API of a node that copies its data; may be called again
	closers       []io.Closer   // in the order of opening
}

// Run runs a node until ctx ends or something fatal happens. What is missing or contradicts the others, and can be copied from
// them, ends a node and not Run: it goes on with a copy (mend.go).
func Run(ctx context.Context, opt Options) error {
	release, err := opt.Home.Lock()
	if err != nil {
		return err
	}
	defer release()
	told := "" // address
	ready := func(api string) {
		if opt.Ready != nil && told == "" {
			opt.Ready(api)
		}
		told = api
	}
	for mended := 0; ; mended++ {
		err := once(ctx, opt, ready)
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) { // it was told to stop while it recovered
			return nil
		}
		again, worse := mend(err, opt.Home, mended, opt.Log)
		if worse != nil {
			err = errors.Join(err, worse)
		}
		if !again {
			return explain(err, opt.Home)
		}
		opt.Source = AsItIs
	}
}

// once runs a node until ctx ends or something fatal happens.
func once(ctx context.Context, opt Options, ready func(api string)) (err error) {
	n := &Node{cfg: opt.Config, build: opt.Build, log: opt.Log, home: opt.Home, started: time.Now(), endEarly: func() {}}
	defer func() {
		n.endEarly()
		for i := len(n.closers) - 1; i >= 0; i-- {
			if again := n.closers[i].Close(); !errors.Is(err, again) { // the engine says once more why it ended
				err = errors.Join(err, again)
			}
		}
	}()
	if err := n.open(ctx, opt, ready); err != nil {
		return err
	}
	ready(n.listener.Addr().String())
	n.log.Info("node runs", "shard", n.shard, "validator", n.index, "node", n.transport.Self().Short(),
		"api", n.listener.Addr().String(), "final_height", n.history.height(), "start_ms", time.Since(n.started).Milliseconds())
	return n.serve(ctx)
}

// explain adds what to do to errors of the machine that people meet.
func explain(err error, home config.Home) error {
	switch {
	case err == nil:
	case isDiskFull(err):
		return fmt.Errorf("the disk of %s is full: free space there and start again, nothing is lost (%w)", home, err)
	case errors.Is(err, store.ErrCorrupt) || errors.Is(err, engine.ErrContradiction) || errors.Is(err, engine.ErrPruned) || errors.Is(err, engine.ErrBehind) ||
		errors.As(err, new(*blocklog.CorruptionError)):
		return fmt.Errorf("%w. To repair it, run once: tutti run --home %s --resync. It moves what is damaged aside, copies the state from the other validators, and keeps this validator's votes where they are intact", err, home)
	}
	return err
}

// open brings everything up that does not act by itself, in the order of dependence.
func (n *Node) open(ctx context.Context, opt Options, ready func(api string)) error {
	if err := config.CheckFormat(string(n.home), config.HomeFormat); err != nil {
		return err
	}
	if err := opt.Source.prepare(n.home); err != nil {
		return err
	}
	if err := n.checkData(); err != nil {
		return err
	}
	n.limitMemory()
	verified, err := genesis.Open(n.home.Genesis())
	if err != nil {
		return err
	}
	n.genesis, n.table, n.chain = verified.Genesis, verified.Genesis.Table, tx.Hash(verified.Hash())
	voting, node, err := n.keys(opt.Password)
	if err != nil {
		return err
	}
	if err := n.takeKey(voting.Public()); err != nil {
		return err
	}
	if err := n.committeesOf(verified, [32]byte(node.Public())); err != nil {
		return err
	}
	headers, err := newFinalHeaders(consensus.Hash(n.chain), n.committees)
	if err != nil {
		return err
	}
	if n.root, err = genesisHeader(n.home, verified, n.shard, n.log); err != nil {
		return err
	}
	n.params = shardParams(verified, n.shard)
	n.params.GenesisBlock = tx.Hash(n.root.Hash())
	n.supply = verified.Supplies[n.shard]
	if marked(n.home) {
		if err := n.join(ctx, node, ready); err != nil {
			return err
		}
	} else if err := n.openEpochs(); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if n.metrics, err = metrics.New(registry, n.build.Version, n.build.Commit); err != nil {
		return err
	}
	if err := n.openState(headers); err != nil {
		return err
	}
	if err := n.openNetwork(ctx, node); err != nil {
		return err
	}
	if err := n.wire(headers, verified); err != nil {
		return err
	}
	if err := n.openEvidence(); err != nil {
		return err
	}
	n.endEarly()
	if err := n.openAPI(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})); err != nil {
		return err
	}
	return n.startEngine(ctx, voting)
}

// checkData accepts data of this format, and data that is being copied, which is not whole.
func (n *Node) checkData() error {
	err := config.CheckFormat(n.home.Data(), config.DataFormat)
	switch {
	case marked(n.home):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no chain data in %s: if this validator begins together with its network, start it once with 'tutti run --first-start'; if the network runs already, or this validator's data is lost, use 'tutti run --sync'", n.home)
	}
	return err
}

// closeFunc is a Close that cannot fail.
type closeFunc func()

func (f closeFunc) Close() error {
	f()
	return nil
}

// limitMemory sets the Go heap's soft limit: half of the machine's memory if the operator says nothing.
func (n *Node) limitMemory() {
	limit := int64(n.cfg.Memory.LimitMiB) << 20
	if total, _, err := host.Memory(); limit == 0 && err == nil {
		limit = int64(total / 2)
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// keys opens the voting key and the node key.
func (n *Node) keys(password keys.Password) (voting, node *keys.Secret, err error) {
	for _, k := range []struct {
		path string
		t    keys.Type
		to   **keys.Secret
	}{{n.home.VotingKey(), keys.Voting, &voting}, {n.home.NodeKey(), keys.Node, &node}} {
		sealed, err := keys.LoadType(k.path, k.t)
		if err != nil {
			return nil, nil, err
		}
		if *k.to, err = sealed.Open(password); err != nil {
			return nil, nil, fmt.Errorf("%w (%s)", err, k.path)
		}
	}
	return voting, node, nil
}

// takeKey makes this the only node on this machine with the voting key, whatever its home.
func (n *Node) takeKey(public []byte) error {
	release, err := host.Take(public)
	if errors.Is(err, host.ErrTaken) {
		return fmt.Errorf("another node on this machine runs with the voting key in %s, from another home: two nodes with one key sign contradictions and are slashed; stop one of the two for good", n.home.VotingKey())
	}
	if err != nil {
		return err
	}
	n.closers = append(n.closers, closeFunc(release))
	return nil
}

// Seat finds a node key among the validators of a genesis.
func Seat(v *genesis.Verified, node [32]byte) (shard consensus.ShardID, index int, ok bool) {
	for s := range v.Shards {
		for i := range v.Shards[s].Validators {
			if v.Shards[s].Validators[i].Node == node {
				return consensus.ShardID(s), i, true
			}
		}
	}
	return 0, 0, false
}

// committeesOf makes all first committees and finds this node among the validators.
func (n *Node) committeesOf(v *genesis.Verified, self [32]byte) error {
	for s := range v.Shards {
		c, err := v.Committee(consensus.ShardID(s))
		if err != nil {
			return err
		}
		n.committees = append(n.committees, c)
	}
	var ok bool
	if n.shard, n.index, ok = Seat(v, self); !ok {
		return fmt.Errorf("the node key in %s is no validator's of network %s: use the home of a validator", n.home.Keys(), v.Name)
	}
	return nil
}

// workers is how many goroutines check and execute.
func (n *Node) workers() int {
	if n.cfg.Verify.Workers == 0 {
		return runtime.NumCPU()
	}
	return n.cfg.Verify.Workers
}

// openState opens signature checking and the ledger.
func (n *Node) openState(headers *finalHeaders) (err error) {
	workers := n.workers()
	if n.queue, err = ed25519.NewQueue(ed25519.QueueOptions{Workers: workers, MaxBatch: 512, MaxDelay: time.Millisecond, Depth: verifyDepth}); err != nil {
		return err
	}
	n.closers = append(n.closers, closeFunc(n.queue.Close))
	if n.verifier, err = verify.New(n.chain, n.queue, verifyCache); err != nil {
		return err
	}
	if n.ledger, err = ledger.Open(ledger.Options{
		FS: disk(), Dir: n.home.State(), Params: n.params, Verifier: verify.Ledger{Verifier: n.verifier}, Headers: headers,
		Possession: bls.VerifyPossession, Workers: workers, CacheBytes: int64(n.cfg.Memory.CacheMiB) << 20, Progress: opening(n.log),
		History: keptEffects(n.cfg.Storage.RetentionBlocks),
	}); err != nil {
		return err
	}
	n.closers = append(n.closers, n.ledger)
	return nil
}

// openNetwork starts the transport.
func (n *Node) openNetwork(ctx context.Context, node *keys.Secret) (err error) {
	if n.transport, err = n.dial(ctx, node); err != nil {
		return err
	}
	n.closers = append(n.closers, n.transport)
	return nil
}

// dial makes a transport with this node's identity. The caller closes it.
func (n *Node) dial(ctx context.Context, node *keys.Secret) (*p2p.Node, error) {
	peers := make([]p2p.Peer, 0, len(n.cfg.Peers))
	for _, p := range n.cfg.Peers {
		id, err := p.NodeID()
		if err != nil {
			return nil, err
		}
		peers = append(peers, p2p.Peer{ID: id, Addrs: p.Addrs})
	}
	// It ends when everything that uses it has, not before.
	return p2p.New(context.WithoutCancel(ctx), p2p.Config{Seed: node.Seed(), Listen: n.cfg.Network.Listen, Peers: peers})
}

// others lists the other validators, with and without a seat, by shard and all.
func (n *Node) others() (byShard [][]netstack.NodeID, all []seat) {
	self := n.transport.Self()
	byShard = make([][]netstack.NodeID, len(n.committees))
	for s := range n.committees {
		for _, v := range n.genesis.Shards[s].Validators {
			if id := netstack.NodeID(v.Node); id != self {
				byShard[s] = append(byShard[s], id)
				all = append(all, seat{id, consensus.ShardID(s), v.Name})
			}
		}
	}
	return byShard, all
}

func (n *Node) shardOf(id tx.ID) consensus.ShardID { return shardOf(n.table)(id) }

// shardOf tells which shard of a table keeps an account.
func shardOf(table ledger.PartitionTable) func(tx.ID) consensus.ShardID {
	return func(id tx.ID) consensus.ShardID {
		s, ok := table.ShardOf(id.Partition())
		if !ok {
			return consensus.ShardID(math.MaxUint16) // no shard of any network
		}
		return consensus.ShardID(s)
	}
}

// openAPI binds the API's port.
func (n *Node) openAPI(scrape http.Handler) (err error) {
	n.server, n.listener, err = n.listen(backend{n}, api.Options{Metrics: n.scraper(scrape), Counters: &n.metrics.API})
	if err == nil {
		n.closers = append(n.closers, closeFunc(func() { _ = n.listener.Close() })) // again, where the server ran
	}
	return err
}

// listen makes an API server over a backend, and binds its port. The rest of opt is filled in. Serve closes the listener.
func (n *Node) listen(b api.Backend, opt api.Options) (*api.Server, net.Listener, error) {
	var err error
	if opt.Dashboard, err = dashboard.Handler(); err != nil {
		return nil, nil, err
	}
	if opt.Genesis, err = os.ReadFile(n.home.Genesis()); err != nil {
		return nil, nil, err
	}
	p := n.genesis.Parameters
	batchCount, batchSize := n.largestBatch()
	opt.Log = n.log
	opt.Params = api.Params{
		Chain: n.genesis.Name, Genesis: proof.Digest(n.chain), Shard: n.shard, Shards: len(n.committees), Fees: p.Fees,
		OpenDeposit: p.OpenDeposit, ReceiptWindow: p.ReceiptWindow, MaxExpiry: maxAhead,
		BlockIntervalMs: int64(p.BlockIntervalMs), MaxBodyBytes: int(p.MaxBodyBytes),
		MaxBatchTransfers: batchCount, MaxBatchBytes: batchSize, Brokers: n.cfg.API.Brokers,
	}
	opt.Rates = api.Rates{
		ClientRequests: float64(n.cfg.API.RequestsPerSecond), TotalRequests: float64(n.cfg.API.TotalRequestsPerSecond),
		ClientTransactions: float64(n.cfg.API.TransactionsPerSecond), TotalTransactions: float64(n.cfg.API.TotalTransactionsPerSecond),
		ClientBatched: float64(n.cfg.API.BatchedPerSecond), TotalBatched: float64(n.cfg.API.TotalBatchedPerSecond),
	}
	opt.MaxInFlight, opt.MaxConns, opt.MaxSubscribers = apiRequests, n.cfg.API.MaxConnections, n.cfg.API.MaxSubscribers
	opt.QueueEvents, opt.QueueBytes, opt.Timeout = apiQueue, apiQueueBytes, apiTimeout
	server, err := api.New(b, opt)
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", n.cfg.API.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("the API cannot listen at %s (%w): stop the program that uses the port, or change api.listen in %s", n.cfg.API.Listen, err, n.home.Config())
	}
	return server, listener, nil
}

// serve runs everything until parent ends or one part fails.
func (n *Node) serve(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	if err := n.cross.run(ctx, &group); err != nil {
		return err
	}
	for _, run := range []func(context.Context){
		n.forward.run, n.overview.run, n.receive, n.watchDisk,
		func(ctx context.Context) { n.router.run(ctx, engine.ClassVote) },
		func(ctx context.Context) { n.router.run(ctx, engine.ClassProposal) },
	} {
		group.Go(func() { run(ctx) })
	}
	group.Go(func() {
		if err := n.server.Serve(ctx, n.listener); err != nil {
			cancel(err)
		}
	})
	cancel(n.walk(ctx))
	n.log.Info("node stops", "final_height", n.history.height(), "uptime_s", int(time.Since(n.started).Seconds()))
	group.Wait()
	if err := context.Cause(ctx); err != context.Cause(parent) { // not only that it was time to stop
		return err
	}
	return nil
}

// receive takes transactions that other validators forward, one batch at a time.
func (n *Node) receive(ctx context.Context) {
	in := n.transport.Receive(netstack.ClassTransaction)
	for {
		select {
		case m, ok := <-in:
			if !ok {
				return
			}
			if err := n.takeIn(ctx, m); err != nil {
				n.metrics.Consensus.Misbehaviour.WithLabelValues("transactions").Inc()
				n.transport.Penalise(m.From, time.Now().Add(penalty))
				continue
			}
			n.app.nudge()
		case <-ctx.Done():
			return
		}
	}
}

// takeIn takes a message of signed transactions or of one distilled batch. Verdicts are counted by the pools; the error says
// that no correct validator sends such a message.
func (n *Node) takeIn(ctx context.Context, m netstack.Message) error {
	if batch, ok := bytes.CutPrefix(m.Payload, []byte{batchMark}); ok {
		b, err := distill.Decode(batch)
		if err == nil {
			_ = n.batches.Forwarded(sourceOf(m.From), b)
		}
		return err
	}
	txs, err := tx.DecodeMany(m.Payload, maxForwarded)
	if err == nil {
		n.pool.Forwarded(ctx, sourceOf(m.From), txs)
	}
	return err
}

// maxForwarded bounds a forwarded batch in transactions; penalty is how long a peer that sends nonsense is cut off.
const (
	maxForwarded = netstack.MaxTransactionBytes / tx.TransferWire
	penalty      = 30 * time.Second
)

// dataFolders are what watchDisk adds up.
func (n *Node) dataFolders() []string {
	return []string{n.home.Data(), filepath.Join(string(n.home), "log")}
}
