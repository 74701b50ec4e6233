package statesync

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"tutti/state/ledger"
	"tutti/state/receipt"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chain is shard 0 of two on a real ledger: transfers here and to the other shard, openings with BLS keys, receipts that
// are acknowledged later. It remembers its headers and bodies.
type chain struct {
	t       testing.TB
	members uint64 // accounts at genesis
	params  ledger.Params
	ledger  *ledger.Ledger
	now     time.Time // of the ledger's pages
	rng     *rand.Rand
	nonces  map[tx.ID]uint32
	opened  uint64
	headsMu sync.Mutex // guards heads, which grows while syncs read it
	heads   []ledger.Trusted
	bodies  [][]byte // from height 1 on
	wants   []ledger.Commitments
}

const (
	chainAccounts = 30_000 // in 128 partitions
	chainBLS      = 5_000  // a whole segment of keys and a part of one
)

// trusting accepts every signature: they are not what is tested here.
type trusting struct{}

func (trusting) Check(_ context.Context, _ []tx.Signed, _ [][32]byte, _ []uint16, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

// fakeHeaders takes the header itself for a proof.
type fakeHeaders struct{}

func (fakeHeaders) Verify(_ uint16, _ ledger.Known, proof []byte) (h ledger.ForeignHeader, err error) {
	err = json.Unmarshal(proof, &h)
	return h, err
}

func blockName(n uint64) tx.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("block"), n))
}

func newChain(t testing.TB) *chain {
	t.Helper()
	return newChainOf(t, chainAccounts, vfs.NewMem(), "source")
}

func newChainOf(t testing.TB, accounts uint64, fs vfs.FS, dir string) *chain {
	t.Helper()
	table, err := ledger.GenesisTable(2)
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{t: t, members: accounts, rng: rand.New(rand.NewPCG(1, 2)), nonces: map[tx.ID]uint32{}, now: time.Unix(1e9, 0)}
	c.params = ledger.Params{
		GenesisHash: tx.Hash(sha256.Sum256([]byte("test chain"))), GenesisBlock: blockName(0), Shards: 2, Table: table,
		Fees: []uint64{2}, OpenDeposit: 10, OpenCap: 8, AccountLimit: accounts + 10_000, ReceiptWindow: 5000,
		Supplies: []uint64{accounts * 1000, accounts * 1000},
	}
	c.ledger = c.open(fs, dir, true)
	c.heads = []ledger.Trusted{{Hash: blockName(0), State: c.ledger.Stats().Root}}
	return c
}

func (c *chain) accounts(yield func(ledger.GenesisAccount) bool) {
	for i := range c.members {
		a := ledger.GenesisAccount{ID: c.params.GenesisID(i), Key: [32]byte{byte(i), byte(i >> 8), 1}, Balance: 1000}
		if i < chainBLS {
			a.BLS = &[48]byte{byte(i), byte(i >> 8), 2}
		}
		if !yield(a) {
			return
		}
	}
}

// open opens a ledger of this chain, until the test ends.
func (c *chain) open(fs vfs.FS, dir string, create bool) *ledger.Ledger {
	c.t.Helper()
	l, err := ledger.Open(ledger.Options{
		FS: fs, Dir: dir, Create: create, Genesis: c.accounts, Params: c.params, Verifier: trusting{}, Headers: fakeHeaders{},
		Possession: func([48]byte, []byte, [96]byte) bool { return true }, Workers: 2,
		Now: func() time.Time { return c.now },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return l
}

func (c *chain) height() uint64 {
	c.headsMu.Lock()
	defer c.headsMu.Unlock()
	return uint64(len(c.heads)) - 1
}

func (c *chain) candidates(n int) (out []tx.Signed) {
	for range n {
		from := c.params.GenesisID(c.rng.Uint64N(c.members))
		t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: from, To: c.params.GenesisID(c.rng.Uint64N(c.members)), Amount: 1, Nonce: c.nonces[from], Expiry: 1 << 30}}
		switch c.rng.IntN(8) {
		case 0:
			t.To = tx.MakeID(128+uint16(c.rng.UintN(128)), c.rng.Uint32N(100)) // of the other shard
		case 1:
			c.opened++
			t.Kind, t.To, t.Key = tx.Open, 0, [32]byte{byte(c.opened), byte(c.opened >> 8), 3}
			t.BLS = &tx.BLSKey{Key: [48]byte{byte(c.opened), byte(c.opened >> 8), 4}}
		}
		if t.From == t.To {
			continue
		}
		c.nonces[from]++
		out = append(out, t)
	}
	return out
}

// ack is the word of the other shard that it has consumed receipts.
func (c *chain) ack(height, received uint64) tx.Bundle {
	proof, err := json.Marshal(ledger.ForeignHeader{
		Shard: 1, Known: ledger.Known{Epoch: 1}, Height: height, Links: []ledger.Link{{Received: received, Root: receipt.Range{}.Root()}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return tx.Bundle{Source: 1, Proof: proof}
}

// block makes the next final block.
func (c *chain) block(txs int) {
	c.t.Helper()
	h := c.height() + 1
	in := ledger.BuildInput{Parent: blockName(h - 1), Height: h, Candidates: c.candidates(txs), MaxBytes: 4 << 20, MaxTxs: 10_000}
	if sent := c.ledger.Meta().Channels[0].Sent.Count(); h%8 == 0 && sent > 20 {
		in.Bundles = []tx.Bundle{c.ack(h, sent-20)}
	}
	built, err := c.ledger.Build(context.Background(), in)
	if err != nil {
		c.t.Fatal(err)
	}
	for i, r := range built.Left {
		if r != ledger.None {
			delete(c.nonces, in.Candidates[i].From)
			if r, ok := c.ledger.Account(in.Candidates[i].From); ok {
				c.nonces[in.Candidates[i].From] = r.Nonce
			}
		}
	}
	c.execute(c.ledger, h, built.Body, built.Commitments)
	c.bodies, c.wants = append(c.bodies, built.Body), append(c.wants, built.Commitments)
	c.headsMu.Lock()
	defer c.headsMu.Unlock()
	c.heads = append(c.heads, ledger.Trusted{Hash: blockName(h), Parent: blockName(h - 1), State: built.Commitments.State, Diff: built.Commitments.Diff})
}

func (c *chain) execute(l *ledger.Ledger, h uint64, body []byte, want ledger.Commitments) {
	c.t.Helper()
	if _, err := l.Execute(context.Background(), ledger.ExecuteInput{Parent: blockName(h - 1), Block: blockName(h), Height: h, Body: body, Want: want}); err != nil {
		c.t.Fatalf("block %d: %v", h, err)
	}
	if err := l.Finalise(context.Background(), blockName(h)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chain) blocks(n, txs int) {
	for range n {
		c.block(txs)
	}
}

// grow makes a block every now and then until stop is called.
func (c *chain) grow(every time.Duration, txs int) (stop func()) {
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		beat := time.NewTicker(every)
		defer beat.Stop()
		for {
			select {
			case <-beat.C:
				c.block(txs)
			case <-done:
				return
			}
		}
	})
	return func() { close(done); group.Wait() }
}

// Advance implements Headers.
func (c *chain) Advance(context.Context) (uint64, error) { return c.height(), nil }

// Headers implements Headers.
func (c *chain) Headers(_ context.Context, from, to uint64) ([]ledger.Trusted, error) {
	c.headsMu.Lock()
	defer c.headsMu.Unlock()
	if from > to || to-from >= MaxHeaders || to >= uint64(len(c.heads)) {
		return nil, fmt.Errorf("headers %d to %d of %d", from, to, len(c.heads))
	}
	return append([]ledger.Trusted{}, c.heads[from:to+1]...), nil
}

// handler answers as a peer.
type handler func(ctx context.Context, request []byte) ([]byte, error)

// peers is a network in memory. It counts what comes over it.
type peers struct {
	mu    sync.Mutex
	by    map[Peer]handler
	bytes uint64
	asked map[Peer]int
	most  int // requests under way at a time
	out   int
	seen  func(p Peer) // at each request
}

func newPeers() *peers { return &peers{by: map[Peer]handler{}, asked: map[Peer]int{}} }

// honest adds peers with a server each over one source.
func (n *peers) honest(source Source, count int) {
	for range count {
		p := Peer(fmt.Sprintf("honest%d", len(n.by)))
		n.by[p] = serving(NewServer(source, Limits{BytesPerSecond: 1 << 30}), p)
	}
}

func serving(s *Server, p Peer) handler {
	return func(ctx context.Context, b []byte) ([]byte, error) { return s.Answer(ctx, string(p), b) }
}

// Peers implements Network.
func (n *peers) Peers() (out []Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.by {
		out = append(out, p)
	}
	return out
}

// Request implements Network.
func (n *peers) Request(ctx context.Context, to Peer, b []byte) ([]byte, error) {
	n.mu.Lock()
	h := n.by[to]
	n.asked[to]++
	n.out++
	n.most = max(n.most, n.out)
	seen := n.seen
	n.mu.Unlock()
	if seen != nil {
		seen(to)
	}
	a, err := h(ctx, b)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out--
	n.bytes += uint64(len(a))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return a, err
}

// told is an Observer that remembers.
type told struct {
	mu      sync.Mutex
	steps   []Step
	dropped map[Peer]string
	again   []uint64
}

func newTold() *told { return &told{dropped: map[Peer]string{}} }

func (o *told) Began(s Step) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.steps = append(o.steps, s)
}

func (o *told) Dropped(p Peer, why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropped[p] = why
}

func (o *told) Again(below uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again = append(o.again, below)
}

const joinDir = "joiner"

// client makes a client over a folder. The restore is closed when the test ends.
func (c *chain) client(fs vfs.FS, n Network, o Observer, change func(*Options)) *Client {
	c.t.Helper()
	r, err := ledger.OpenRestore(ledger.RestoreOptions{FS: fs, Dir: joinDir, Params: c.params, Workers: 2})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			c.t.Error(err)
		}
	})
	opt := Options{
		Restore: r, Network: n, Headers: c, Observer: o, Partitions: c.params.Table.Partitions(0),
		Timeout: 500 * time.Millisecond, Grace: time.Second, Patience: 20 * time.Second,
	}
	if change != nil {
		change(&opt)
	}
	s, err := NewClient(opt)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// check opens what was synced, final at a height, lets it catch up with the source, and compares them.
func (c *chain) check(fs vfs.FS, height uint64) {
	c.t.Helper()
	l := c.open(fs, joinDir, false)
	if h, name := l.Final(); h != height || name != blockName(height) {
		c.t.Fatalf("final at height %d, block %v; the sync said %d", h, name, height)
	}
	if from := l.EffectsFrom(); from != height+1 {
		c.t.Errorf("credits and openings are known from block %d on, the copy is of block %d", from, height)
	}
	channel := l.Meta().Channels[0]
	if _, err := l.Receipts(1, channel.Acked, channel.Sent.Count()); err != nil {
		c.t.Errorf("receipts on their way: %v", err)
	}
	for h := height + 1; h <= c.height(); h++ {
		c.execute(l, h, c.bodies[h-1], c.wants[h-1])
	}
	a, b := c.ledger.Stats(), l.Stats()
	if a.Root != b.Root || a.Height != b.Height || a.Accounts != b.Accounts {
		c.t.Fatalf("the copy is at height %d with root %v and %d accounts, the source at %d with %v and %d",
			b.Height, b.Root, b.Accounts, a.Height, a.Root, a.Accounts)
	}
	for i := uint64(0); i < c.members; i += 997 {
		id := c.params.GenesisID(i)
		x, _ := c.ledger.Account(id)
		y, ok := l.Account(id)
		if !ok || x != y {
			c.t.Fatalf("account %v: %+v, want %+v", id, y, x)
		}
		k1, ok1, err1 := c.ledger.BLSKey(id)
		k2, ok2, err2 := l.BLSKey(id)
		if k1 != k2 || ok1 != ok2 || errors.Join(err1, err2) != nil {
			c.t.Fatalf("key of account %v: %x %t, want %x %t (%v, %v)", id, k2, ok2, k1, ok1, err1, err2)
		}
	}
}
