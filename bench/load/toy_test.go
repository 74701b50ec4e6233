package load

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/genesis"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// toy is a network behind the real API: a chain for each shard, signed by prooftest's committees, that executes what its
// nodes were given: nonces are kept, signatures are checked, receipts are carried. Its nodes can be stopped.
type toy struct {
	crowd   *workload.Crowd
	account map[tx.ID]uint32
	net     *prooftest.Network // the loop's alone
	nodes   [][]*toyNode
	hide    func(*tx.Signed) bool // accepted, but never executed; set before the network is used

	mu       sync.Mutex         // guards what follows and the nodes' pools
	batches  [][]*distill.Batch // by shard
	nonces   map[tx.ID]uint32
	executed map[tx.Hash]int
	offered  map[tx.Hash]int                       // how often a node was given it
	outbox   map[[2]consensus.ShardID][]tx.Receipt // source, destination
	sent     map[[2]consensus.ShardID]uint64
}

// toyNode is one node. Its chain is the shard's, its pool is its own.
type toyNode struct {
	*apitest.Backend
	toy    *toy
	server *httptest.Server
	api    *api.Server
	pool   []tx.Signed
	full   int // so many transactions are refused for now
	down   bool
}

const toyBlock = 25 * time.Millisecond

func newToy(t *testing.T, shards, nodes, accounts int, hide func(*tx.Signed) bool) *toy {
	t.Helper()
	y := &toy{
		net: prooftest.New(t, "toy", shards), account: map[tx.ID]uint32{}, nonces: map[tx.ID]uint32{}, executed: map[tx.Hash]int{}, offered: map[tx.Hash]int{},
		outbox: map[[2]consensus.ShardID][]tx.Receipt{}, sent: map[[2]consensus.ShardID]uint64{}, hide: hide, batches: make([][]*distill.Batch, shards),
	}
	c := genesis.Crowd{Seed: [32]byte{1}, Count: uint64(accounts)}
	ids := make([]tx.ID, accounts)
	for i := range ids {
		ids[i] = tx.MakeID(uint16(i%shards), uint32(i/shards))
		y.account[ids[i]] = uint32(i)
	}
	var err error
	if y.crowd, err = workload.NewCrowd(t.Context(), c, ids, 0, c.Count, y.net.Genesis, nil); err != nil {
		t.Fatal(err)
	}
	for s := range consensus.ShardID(shards) {
		shared := apitest.New(y.net, s)
		var row []*toyNode
		for range nodes {
			row = append(row, y.node(t, shared))
		}
		y.nodes = append(y.nodes, row)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go y.run(stop, done)
	t.Cleanup(func() {
		close(stop)
		<-done
		for _, n := range slices.Concat(y.nodes...) {
			n.server.Close()
		}
	})
	return y
}

func (y *toy) node(t *testing.T, shared *apitest.Backend) *toyNode {
	t.Helper()
	m, err := metrics.New(prometheus.NewRegistry(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	n := &toyNode{Backend: shared, toy: y}
	n.api, err = api.New(n, api.Options{
		Log: slog.New(slog.DiscardHandler), Params: shared.Params(), Counters: &m.API, Heartbeat: 100 * time.Millisecond,
		Rates: api.Rates{ClientRequests: 10_000, ClientTransactions: 100_000},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.server = httptest.NewServer(n.api)
	return n
}

// Submit implements api.Backend.
func (n *toyNode) Submit(_ context.Context, _ uint64, txs []tx.Signed) []error {
	y := n.toy
	out := make([]error, len(txs))
	for i := range txs {
		item := ed25519.Item{Key: y.crowd.PublicKey(y.account[txs[i].From]), Message: txs[i].Message(y.crowd.Genesis()), Signature: txs[i].Signature}
		if !ed25519.Verify(item) {
			out[i] = api.Refuse(api.WrongSignature, "")
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for i := range txs {
		y.offered[txs[i].TxID(y.crowd.Genesis())]++
		switch {
		case out[i] != nil:
		case n.down:
			out[i] = &api.Error{Code: api.ShuttingDown}
		case n.full > 0:
			n.full--
			out[i] = &api.Error{Code: api.PoolFull, RetryAfter: 100 * time.Millisecond}
		case txs[i].Nonce < y.nonces[txs[i].From]:
			out[i] = api.Refuse(api.NonceTooLow, "")
		default:
			n.pool = append(n.pool, txs[i])
		}
	}
	return out
}

// Account implements api.Backend. Account 0 belongs to somebody else.
func (n *toyNode) Account(_ context.Context, id tx.ID) (api.Account, error) {
	y := n.toy
	y.mu.Lock()
	defer y.mu.Unlock()
	a := api.Account{ID: id, Shard: n.Shard, Nonce: y.nonces[id], Key: proof.Digest(y.crowd.PublicKey(y.account[id]))}
	if y.account[id] == 0 {
		a.Key[0] ^= 1
	}
	return a, nil
}

// crash stops a node for good; what only it had is lost.
func (n *toyNode) crash() {
	n.toy.mu.Lock()
	n.down, n.pool = true, nil
	n.toy.mu.Unlock()
	n.server.CloseClientConnections()
	n.server.Listener.Close()
}

func (y *toy) run(stop, done chan struct{}) {
	defer close(done)
	beat := time.NewTicker(toyBlock)
	defer beat.Stop()
	for {
		for s := range y.nodes {
			y.block(consensus.ShardID(s))
		}
		select {
		case <-beat.C:
		case <-stop:
			return
		}
	}
}

// block makes the next block of a shard final.
func (y *toy) block(s consensus.ShardID) {
	y.mu.Lock()
	txs := y.candidates(s)
	var bundles []tx.Bundle
	for source := range y.nodes {
		link := [2]consensus.ShardID{consensus.ShardID(source), s}
		if r := y.outbox[link]; len(r) > 0 {
			bundles = append(bundles, tx.Bundle{Source: uint16(source), First: y.sent[link], Receipts: r})
			y.sent[link] += uint64(len(r))
			delete(y.outbox, link)
		}
	}
	for i := range txs {
		if dest := y.net.ShardOf(txs[i].To); dest != s {
			link := [2]consensus.ShardID{s, dest}
			y.outbox[link] = append(y.outbox[link], y.net.Receipt(txs[i]))
		}
	}
	batches, failed := y.distilled(s, len(txs))
	y.mu.Unlock()
	y.net.AddBatches(s, txs, batches, bundles, failed...)
	blocks := y.net.Finalise(s)
	y.nodes[s][0].Append(blocks...)
	for _, n := range y.nodes[s] {
		for _, b := range blocks {
			n.api.Publish(b)
		}
	}
}

// candidates takes what can be executed from the pools, in nonce order. mu is held.
func (y *toy) candidates(s consensus.ShardID) (txs []tx.Signed) {
	for _, n := range y.nodes[s] {
		slices.SortStableFunc(n.pool, func(a, b tx.Signed) int { return int(a.Nonce) - int(b.Nonce) })
		keep := n.pool[:0]
		for _, t := range n.pool {
			switch {
			case t.Nonce < y.nonces[t.From]: // executed, here or from another pool
			case t.Nonce > y.nonces[t.From] || y.hide != nil && y.hide(&t):
				keep = append(keep, t)
			default:
				y.nonces[t.From]++
				y.executed[t.TxID(y.crowd.Genesis())]++
				txs = append(txs, t)
			}
		}
		n.pool = keep
	}
	return txs
}

// distilled takes all batches of a shard, whose transfers stay in it, and says which of their transfers do not take effect, counted
// from first on. mu is held.
func (y *toy) distilled(s consensus.ShardID, first int) (batches []*distill.Batch, failed []int) {
	batches, y.batches[s] = y.batches[s], nil
	body, err := tx.NewBody(nil, batches)
	if err != nil {
		panic(err) // a broker made them
	}
	for i, id := range body.IDs(y.crowd.Genesis()) {
		if t := body.Tx(i); t.Nonce == y.nonces[t.From] {
			y.nonces[t.From]++
			y.executed[id]++
		} else {
			failed = append(failed, first+i)
		}
	}
	return batches, failed
}

// options are those of a session with the toy network.
func (y *toy) options(w workload.Options) Options {
	w.Shards = len(y.nodes)
	if w.Kind == "" {
		w.Kind = workload.Uniform
	}
	if w.Accounts == 0 {
		w.Accounts = y.crowd.Len()
	}
	apis := make([][]string, len(y.nodes))
	for s, nodes := range y.nodes {
		for _, n := range nodes {
			apis[s] = append(apis[s], n.server.URL)
		}
	}
	return Options{
		Target: Target{Trust: y.net.Trust, APIs: apis, Crowd: y.crowd, Fee: 1}, Workload: w, Fresh: true, ExpiryBlocks: 10_000,
		ReadRate: 10_000,
	}
}

func open(t *testing.T, opt Options) *Session {
	t.Helper()
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
