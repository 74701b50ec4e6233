package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// toyApp is an application whose state is the digest of all bodies, with a durable part that survives restarts. It checks
// every promise that App's comments make.
type toyApp struct {
	tb      testing.TB
	chain   consensus.Hash
	durable *toyDisk
	padding int // bytes more in a body
	refer   func(body []byte) consensus.BodyRef
	every   time.Duration // a block is due this long after its parent's Finalise or verdict

	gate   chan struct{}              // if set, Certify takes one token for each call
	refuse func(consensus.Block) bool // if set, blocks that are judged invalid
	final  func([]consensus.Block)    // if set, sees what is about to be finalised
	epochs func(*consensus.Header)    // if set, says of a block in the making which committees it names

	waits atomic.Int32 // calls of Await that have not returned

	judging, finalising atomic.Bool
	states              map[consensus.Hash]toyState // valid, neither finalised nor abandoned; durable.mu guards it
}

type toyState struct {
	height consensus.Height
	digest [32]byte
}

// toyDisk is what a toyApp keeps.
type toyDisk struct {
	mu     sync.Mutex
	height consensus.Height
	hash   consensus.Hash
	digest [32]byte
	blocks []consensus.Hash // finalised, from height 1
}

func newToyApp(tb testing.TB, chain consensus.Hash, d *toyDisk) *toyApp {
	return &toyApp{tb: tb, chain: chain, durable: d, refer: consensus.NewBodyRef, every: 200 * time.Millisecond, states: map[consensus.Hash]toyState{}}
}

// enter checks that the calls of one kind come one at a time.
func (a *toyApp) enter(busy *atomic.Bool) func() {
	if !busy.CompareAndSwap(false, true) {
		a.tb.Error("two calls of the application at a time")
	}
	return func() { busy.Store(false) }
}

func (a *toyApp) state(hash consensus.Hash) (toyState, bool) {
	a.durable.mu.Lock()
	defer a.durable.mu.Unlock()
	if hash == a.durable.hash {
		return toyState{a.durable.height, a.durable.digest}, true
	}
	s, ok := a.states[hash]
	return s, ok
}

func (a *toyApp) Await(ctx context.Context, req BuildRequest) error {
	a.waits.Add(1)
	defer a.waits.Add(-1)
	select {
	case <-time.After(a.every):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *toyApp) Build(ctx context.Context, req BuildRequest) (*consensus.Block, error) {
	defer a.enter(&a.judging)()
	if _, ok := a.state(req.Parent.Hash()); !ok {
		a.tb.Errorf("build on %d, whose state is not here", req.Parent.Height)
	}
	if req.Parent.Ends() && req.Parent.Epoch == req.Epoch {
		a.tb.Errorf("build on %d, which ended the epoch", req.Parent.Height)
	}
	body := append(fmt.Appendf(nil, "body of view %d", req.View), make([]byte, a.padding)...)
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: a.chain, Shard: testShard, Epoch: req.Epoch, View: req.View, Height: req.Parent.Height + 1,
		TimeMs: max(time.Now().UnixMilli(), req.Parent.TimeMs+1), Parent: req.Parent.Hash(), Body: a.refer(body),
		Committee: req.Parent.Committee, NextCommittee: req.Parent.NextCommittee,
	}
	if a.epochs != nil {
		a.epochs(h)
	}
	return &consensus.Block{Body: body, Header: h}, nil
}

func (a *toyApp) Certify(ctx context.Context, bl consensus.Block) (bool, error) {
	defer a.enter(&a.judging)()
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	hash := bl.Header.Hash()
	parent, ok := a.state(bl.Header.Parent)
	a.durable.mu.Lock()
	_, twice := a.states[hash]
	a.durable.mu.Unlock()
	if !ok || twice || parent.height+1 != bl.Header.Height || bl.Header.IsEcho() {
		a.tb.Errorf("certify %d: parent here %v, asked before %v", bl.Header.Height, ok, twice)
	}
	if a.refuse != nil && a.refuse(bl) {
		return false, nil
	}
	a.durable.mu.Lock()
	defer a.durable.mu.Unlock()
	a.states[hash] = toyState{bl.Header.Height, sha256.Sum256(append(parent.digest[:], bl.Body...))}
	return true, nil
}

func (a *toyApp) Finalise(ctx context.Context, blocks []consensus.Block, cert consensus.Certificate) error {
	defer a.enter(&a.finalising)()
	if a.final != nil {
		a.final(blocks)
	}
	for i, bl := range blocks {
		hash := bl.Header.Hash()
		a.durable.mu.Lock()
		s, ok := a.states[hash]
		if !ok || bl.Header.Parent != a.durable.hash || i == len(blocks)-1 && cert.Block != hash && !bl.Header.Ends() {
			a.tb.Errorf("finalise %d: certified %v", bl.Header.Height, ok)
		}
		delete(a.states, hash)
		a.durable.height, a.durable.hash, a.durable.digest = s.height, hash, s.digest
		a.durable.blocks = append(a.durable.blocks, hash)
		a.durable.mu.Unlock()
	}
	return nil
}

func (a *toyApp) Abandon(hash consensus.Hash) {
	defer a.enter(&a.judging)()
	a.durable.mu.Lock()
	defer a.durable.mu.Unlock()
	if _, ok := a.states[hash]; !ok {
		a.tb.Errorf("abandon of %s, which is not open", hash.Short())
	}
	delete(a.states, hash)
}

func (a *toyApp) Final() (consensus.Height, consensus.Hash) { return a.durable.final() }

func (d *toyDisk) final() (consensus.Height, consensus.Hash) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.height, d.hash
}

func (d *toyDisk) copy() *toyDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &toyDisk{height: d.height, hash: d.hash, digest: d.digest, blocks: append([]consensus.Hash(nil), d.blocks...)}
}

// chainOf copies the finalised blocks.
func (d *toyDisk) chainOf() []consensus.Hash {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]consensus.Hash(nil), d.blocks...)
}

// wire is an in-memory network with a delay. It belongs to one cluster.
type wire struct {
	delay time.Duration
	mu    sync.Mutex
	ports []*port
	sent  func(from, to int, class Class, payload []byte) bool // if set, sees each message as it is sent; false drops it
	asked func(from, to int, req []byte) ([]byte, error, bool) // if set, may answer in the peer's place
}

// port is one member's Network.
type port struct {
	w       *wire
	self    int
	in      [2]chan Message
	handler func(context.Context, int, []byte) ([]byte, error)
	up      bool
	members []int // of the committee that places are in; nil: all, each at its own
}

// place is a node's place in the port's committee, -1 if it has none.
func (p *port) place(node int) int {
	if p.members == nil {
		return node
	}
	return slices.Index(p.members, node)
}

// node is the node at a place in the port's committee.
func (p *port) node(place int) int {
	if p.members == nil {
		return place
	}
	return p.members[place]
}

func newWire(n int) *wire {
	w := &wire{delay: 5 * time.Millisecond}
	for i := range n {
		w.ports = append(w.ports, &port{w: w, self: i})
		w.plug(i)
	}
	return w
}

// plug gives a member fresh queues and connects it. Given members, places are those of a committee of these nodes.
func (w *wire) plug(i int, members ...int) *port {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &port{w: w, self: i, up: true, members: members}
	for c := range p.in {
		p.in[c] = make(chan Message, 1024)
	}
	w.ports[i] = p
	return p
}

func (w *wire) unplug(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports[i].up = false
}

func (p *port) Send(to int, class Class, payload []byte) {
	to = p.node(to)
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if sent := p.w.sent; sent != nil && !sent(p.self, to, class, payload) || !p.up {
		return
	}
	time.AfterFunc(p.w.delay, func() { p.w.deliver(p.self, to, class, payload) })
}

func (w *wire) deliver(from, to int, class Class, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.ports[to]; p.up {
		select {
		case p.in[class] <- Message{From: p.place(from), Payload: payload}:
		default:
		}
	}
}

func (p *port) Receive(class Class) <-chan Message { return p.in[class] }

func (p *port) Serve(h func(context.Context, int, []byte) ([]byte, error)) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.handler = h
}

func (p *port) Request(ctx context.Context, to int, req []byte) ([]byte, error) {
	to = p.node(to)
	select {
	case <-time.After(2 * p.w.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.w.mu.Lock()
	peer, asked := p.w.ports[to], p.w.asked
	handler, up := peer.handler, peer.up && p.up
	p.w.mu.Unlock()
	if asked != nil {
		if b, err, done := asked(p.self, to, req); done {
			return b, err
		}
	}
	if !up || handler == nil {
		return nil, errors.New("not reached")
	}
	return handler(ctx, peer.place(p.self), req)
}

const testShard = 3

var testChain = consensus.Hash{0xab}

// cluster is n validators with real keys, each on a crashable file system.
type cluster struct {
	tb        testing.TB
	committee *consensus.Committee
	keys      consensus.Keys
	signers   []consensus.Signer
	genesis   *consensus.Header
	wire      *wire
	nodes     []*node
	options   func(i int, c *Config) // if set, changes the configs
}

type node struct {
	fs   *vfs.MemFS
	view vfs.FS // fs, or something around it
	log  *blocklog.Log
	disk *toyDisk
	app  *toyApp
	*Engine
}

func newCluster(tb testing.TB, n int) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, wire: newWire(n)}
	var vs []consensus.Validator
	for i := range n {
		k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		must(tb, err)
		vs = append(vs, consensus.Validator{Key: k.Public(), Power: 1})
		c.signers = append(c.signers, consensus.NewSigner(k))
	}
	var err error
	c.committee, err = consensus.NewCommittee(testShard, 0, consensus.Hash{5}, vs)
	must(tb, err)
	c.keys, err = consensus.NewKeys(c.committee)
	must(tb, err)
	c.genesis = &consensus.Header{
		Version: consensus.HeaderVersion, Chain: testChain, Shard: testShard, Body: consensus.NewBodyRef(nil),
		Committee: c.committee.Hash(), NextCommittee: c.committee.Hash(),
	}
	for range n {
		fs := vfs.NewCrashableMem()
		c.nodes = append(c.nodes, &node{fs: fs, view: fs, disk: &toyDisk{hash: c.genesis.Hash()}})
	}
	return c
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// config opens node i's log and makes its config.
func (c *cluster) config(i int) Config {
	c.tb.Helper()
	n := c.nodes[i]
	var err error
	n.log, err = blocklog.Open(blocklog.Options{FS: n.view, Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: 1000, SegmentBytes: 256 << 10})
	must(c.tb, err)
	n.app = newToyApp(c.tb, testChain, n.disk)
	n.app.refer = c.committee.BodyRef
	cfg := Config{
		Chain: testChain, Genesis: c.genesis, Committee: c.committee, Keys: c.keys, Signer: c.signers[i], Index: i,
		Log: n.log, App: n.app, Network: c.wire.plug(i),
	}
	if c.options != nil {
		c.options(i, &cfg)
	}
	return cfg
}

func (c *cluster) start(is ...int) {
	c.tb.Helper()
	for _, i := range is {
		e, err := Start(context.Background(), c.config(i))
		must(c.tb, err)
		c.nodes[i].Engine = e
	}
}

// stop ends engines cleanly.
func (c *cluster) stop(is ...int) {
	c.tb.Helper()
	for _, i := range is {
		c.wire.unplug(i)
		if err := c.nodes[i].Close(); err != nil {
			c.tb.Errorf("node %d: %v", i, err)
		}
		must(c.tb, c.nodes[i].log.Close())
	}
}

// crash ends engines as a power loss does: nothing unsynced survives on the file system.
func (c *cluster) crash(is ...int) {
	c.tb.Helper()
	for _, i := range is {
		n := c.nodes[i]
		d := n.disk.copy() // before the logs, which it must not be ahead of
		n.fs = n.fs.CrashClone(vfs.CrashCloneCfg{})
		n.view = n.fs
		c.stop(i) // whatever it still writes goes to the old disks
		n.disk = d
	}
}

// await advances time until the condition holds.
func (c *cluster) await(what string, limit time.Duration, ok func() bool) {
	c.tb.Helper()
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > limit {
			for i, n := range c.nodes {
				if n.Engine != nil {
					h, _ := n.disk.final()
					c.tb.Logf("node %d: final %d, err %v, status %+v", i, h, n.Err(), n.Status())
				}
			}
			c.tb.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// reach waits until the nodes have finalised a height.
func (c *cluster) reach(h consensus.Height, limit time.Duration, is ...int) {
	c.tb.Helper()
	c.await(fmt.Sprintf("height %d on %v", h, is), limit, func() bool {
		for _, i := range is {
			if got, _ := c.nodes[i].disk.final(); got < h {
				return false
			}
		}
		return true
	})
}

// agree checks that no two nodes finalised different blocks and that each log holds its node's chain.
func (c *cluster) agree() {
	c.tb.Helper()
	var longest []consensus.Hash
	for i, n := range c.nodes {
		chain := n.disk.chainOf()
		for k := range min(len(chain), len(longest)) {
			if chain[k] != longest[k] {
				c.tb.Fatalf("node %d finalised another block at height %d", i, k+1)
			}
		}
		if len(chain) > len(longest) {
			longest = chain
		}
	}
}

func all(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}
