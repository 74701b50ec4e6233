package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// network is a set of nodes, some of whom are the committee of an epoch: from one to the next a member leaves and another comes.
// A node goes from epoch to epoch by itself, as a member or as an observer. Epochs are so many blocks long.
type network struct {
	tb         testing.TB
	wire       *wire
	length     consensus.Height
	retention  consensus.Height
	limits     simplex.Limits
	genesis    *consensus.Header
	members    [][]int // by epoch
	committees []*consensus.Committee
	keys       []consensus.Keys
	signers    []consensus.Signer // by node
	nodes      []*walker
}

// walker is a node that goes through the epochs.
type walker struct {
	net  *network
	i    int
	fs   *vfs.MemFS
	disk *toyDisk
	log  *blocklog.Log

	mu      sync.Mutex
	engine  *Engine
	closing bool
	failed  error // instead of an error of the test, if behind is set
	behind  bool
	starts  map[consensus.Epoch]int
	ends    map[consensus.Epoch]*consensus.EpochEnd
	synced  uint64 // runs asked for, in epochs that are over
	done    chan struct{}
}

const testEpochs = 12

// newNetwork makes n members an epoch out of n+3 nodes, with powers 2 and 3.
func newNetwork(tb testing.TB, n int, length consensus.Height) *network {
	tb.Helper()
	all := n + 3
	net := &network{tb: tb, wire: newWire(all), length: length, retention: 1000}
	var validators []consensus.Validator
	for i := range all {
		k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		must(tb, err)
		validators = append(validators, consensus.Validator{Key: k.Public(), Power: consensus.Power(2 + i%2)})
		net.signers = append(net.signers, consensus.NewSigner(k))
	}
	for e := range testEpochs {
		var members []int
		var vs []consensus.Validator
		for k := range n {
			members = append(members, (e+k)%all)
			vs = append(vs, validators[(e+k)%all])
		}
		c, err := consensus.NewCommittee(testShard, consensus.Epoch(e), consensus.Hash{5, byte(e)}, vs)
		must(tb, err)
		keys, err := consensus.NewKeys(c)
		must(tb, err)
		net.members, net.committees, net.keys = append(net.members, members), append(net.committees, c), append(net.keys, keys)
	}
	net.genesis = &consensus.Header{
		Version: consensus.HeaderVersion, Chain: testChain, Shard: testShard, Body: consensus.NewBodyRef(nil),
		Committee: net.committees[0].Hash(), NextCommittee: net.committees[0].Hash(),
	}
	for i := range all {
		net.wire.unplug(i)
		net.nodes = append(net.nodes, &walker{
			net: net, i: i, fs: vfs.NewCrashableMem(), disk: &toyDisk{hash: net.genesis.Hash()},
			starts: map[consensus.Epoch]int{}, ends: map[consensus.Epoch]*consensus.EpochEnd{},
		})
	}
	return net
}

// committeesOf sets what a block of this chain has to name.
func (net *network) committeesOf(h *consensus.Header) {
	h.Committee = net.committees[h.Epoch].Hash()
	if h.NextCommittee = h.Committee; h.Height == consensus.Height(h.Epoch+1)*net.length {
		h.NextCommittee = net.committees[h.Epoch+1].Hash()
	}
}

// start brings nodes up.
func (net *network) start(is ...int) {
	net.tb.Helper()
	for _, i := range is {
		w := net.nodes[i]
		log, err := blocklog.Open(blocklog.Options{FS: w.fs, Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: net.retention, SegmentBytes: 8 << 10})
		must(net.tb, err)
		app := newToyApp(net.tb, testChain, w.disk)
		app.every, app.epochs = 100*time.Millisecond, net.committeesOf
		app.refuse = func(bl consensus.Block) bool {
			want := *bl.Header
			net.committeesOf(&want)
			return want.NextCommittee != bl.Header.NextCommittee
		}
		w.log, w.closing, w.done = log, false, make(chan struct{})
		ready := make(chan struct{})
		go func() {
			defer close(w.done)
			w.walk(app, ready)
		}()
		<-ready
	}
}

// walk runs engines, one epoch after another, until it is closed.
func (w *walker) walk(app *toyApp, ready chan struct{}) {
	once := sync.OnceFunc(func() { close(ready) })
	defer once()
	for {
		height, hash := app.Final()
		_, epoch, err := EpochOf(w.log, w.net.genesis, height, hash)
		if err != nil {
			w.net.tb.Errorf("node %d: %v", w.i, err)
			return
		}
		port := w.net.wire.plug(w.i, w.net.members[epoch]...)
		c := Config{
			Chain: testChain, Genesis: w.net.genesis, Committee: w.net.committees[epoch], Keys: w.net.keys[epoch],
			Index: port.place(w.i), Log: w.log, App: app, Network: port, Limits: w.net.limits,
			Ends: func(e consensus.Epoch) (*consensus.EpochEnd, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.ends[e], nil
			},
		}
		if c.Index >= 0 {
			c.Signer = w.net.signers[w.i]
		}
		e, err := Start(context.Background(), c)
		if err != nil {
			w.net.tb.Errorf("node %d, epoch %d: %v", w.i, epoch, err)
			return
		}
		w.mu.Lock()
		w.engine = e
		w.starts[epoch]++
		if w.closing {
			e.cancel()
		}
		w.mu.Unlock()
		once()
		<-e.Done()
		end := e.Ended()
		if err := e.Err(); err != nil || end == nil {
			if w.failed = err; err != nil && !w.behind {
				w.net.tb.Errorf("node %d, epoch %d: %v", w.i, epoch, err)
			}
			return
		}
		if err := c.Committee.VerifyEnd(testChain, c.Keys, end); err != nil {
			w.net.tb.Errorf("node %d, epoch %d: %v", w.i, epoch, err)
		}
		if height, hash := app.Final(); hash != end.Last.Hash() || height != end.Last.Height {
			w.net.tb.Errorf("node %d: epoch %d is over at height %d, the application is at %d", w.i, epoch, end.Last.Height, height)
		}
		w.mu.Lock()
		w.ends[epoch] = end
		w.synced += e.Status().Counters.Syncs
		w.mu.Unlock()
	}
}

// close ends a node's walk.
func (w *walker) close() {
	w.mu.Lock()
	w.closing = true
	if w.engine != nil {
		w.engine.cancel()
	}
	w.mu.Unlock()
	<-w.done
	must(w.net.tb, w.log.Close())
}

func (net *network) stop(is ...int) {
	for _, i := range is {
		net.wire.unplug(i)
	}
	for _, i := range is {
		net.nodes[i].close()
	}
}

// crash takes the power from nodes, all at the same moment.
func (net *network) crash(is ...int) {
	for _, i := range is {
		net.wire.unplug(i)
	}
	for _, i := range is {
		w := net.nodes[i]
		d := w.disk.copy() // before the log, which it must not be ahead of
		fs := w.fs.CrashClone(vfs.CrashCloneCfg{})
		w.close()
		w.fs, w.disk = fs, d
	}
}

// reach waits until nodes have finalised a height.
func (net *network) reach(h consensus.Height, limit time.Duration, is ...int) {
	net.tb.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		low := h
		for _, i := range is {
			got, _ := net.nodes[i].disk.final()
			low = min(low, got)
		}
		if low >= h {
			return
		}
		if time.Since(began) > limit {
			for _, w := range net.nodes {
				at, _ := w.disk.final()
				w.mu.Lock()
				if w.engine != nil {
					net.tb.Logf("node %d: final %d, err %v, status %+v", w.i, at, w.engine.Err(), w.engine.Status())
				}
				w.mu.Unlock()
			}
			net.tb.Fatalf("height %d on %v: not within %v", h, is, limit)
		}
	}
}

// agree checks that all have one chain, that the log of each has it, and that the members of each epoch were not penalised.
func (net *network) agree() (heights []int) {
	net.tb.Helper()
	var longest []consensus.Hash
	for _, w := range net.nodes {
		chain := w.disk.chainOf()
		for k := range min(len(chain), len(longest)) {
			if chain[k] != longest[k] {
				net.tb.Fatalf("node %d finalised another block at height %d", w.i, k+1)
			}
		}
		if len(chain) > len(longest) {
			longest = chain
		}
		heights = append(heights, len(chain))
	}
	return heights
}

func (net *network) penalties() (n uint64) {
	for _, w := range net.nodes {
		w.mu.Lock()
		if w.engine != nil {
			n += w.engine.Status().Counters.Penalties
		}
		w.mu.Unlock()
	}
	return n
}

// lossy drops messages and requests at random.
func (net *network) lossy(seed uint64, share float64) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(seed, 3))
	lost := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rng.Float64() < share
	}
	net.wire.mu.Lock()
	defer net.wire.mu.Unlock()
	net.wire.sent = func(int, int, Class, []byte) bool { return !lost() }
	net.wire.asked = func(int, int, []byte) ([]byte, error, bool) {
		if lost() {
			return nil, errors.New("lost"), true
		}
		return nil, nil, false
	}
}

// TestEpochs: a shard goes through epochs of a few blocks, a member in and a member out each time, and nobody is blamed for
// being on the other side of a hand-over.
func TestEpochs(t *testing.T) {
	for _, n := range []int{4, 7} {
		t.Run(fmt.Sprint("n=", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := newNetwork(t, n, 4)
				net.start(all(n + 3)...)
				began := time.Now()
				net.reach(5*4+2, 2*time.Minute, all(n+3)...)
				t.Logf("five epochs in %v", time.Since(began))
				if p := net.penalties(); p != 0 {
					t.Errorf("%d penalties", p)
				}
				net.stop(all(n + 3)...)
				net.agree()
				for _, w := range net.nodes {
					for e := range consensus.Epoch(5) {
						if end := w.ends[e]; end == nil || w.starts[e] != 1 || end.Last.Height != consensus.Height(e+1)*4 || end.Last.Epoch != e {
							t.Errorf("node %d, epoch %d: started %d times, ended with %+v", w.i, e, w.starts[e], end)
						}
					}
				}
			})
		})
	}
}

// TestEpochsUnderLoss: the same with a fifth of all messages and requests lost.
func TestEpochsUnderLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, 4, 3)
		net.lossy(1, 0.2)
		net.start(all(7)...)
		net.reach(5*3+1, 10*time.Minute, all(7)...)
		if p := net.penalties(); p != 0 {
			t.Errorf("%d penalties", p)
		}
		net.stop(all(7)...)
		net.agree()
		echoed := 0
		for _, w := range net.nodes {
			for _, end := range w.ends {
				echoed = max(echoed, len(end.Echoes))
			}
		}
		t.Logf("an epoch ended with up to %d echoes", echoed)
	})
}

// TestEchoesEndAnEpoch: no finalize vote of views 3 to 5 arrives, where the last blocks are and their first echoes. A later echo makes them
// final, everywhere, also where all power was lost meanwhile, and for a node that has to get it all by runs.
func TestEchoesEndAnEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, 4, 3)
		net.limits = nearReach()
		net.wire.sent = func(_, _ int, class Class, payload []byte) bool {
			m, err := decodeInbound(class, payload)
			if err != nil {
				t.Errorf("sent: %v", err)
				return true
			}
			late := func(st consensus.Statement) bool { return st.Kind == consensus.Finalize && st.View >= 3 && st.View < 6 }
			return !(m.vote != nil && late(m.vote.Statement) || m.cert != nil && late(m.cert.Statement))
		}
		most := []int{0, 1, 2, 4, 5, 6}
		net.start(most...)
		net.reach(2, time.Minute, most...)
		time.Sleep(300 * time.Millisecond) // the last block of epoch 0 is there, and not final
		net.crash(most...)
		net.start(most...)
		net.reach(2*3+2, 5*time.Minute, most...)
		net.start(3)
		net.reach(2*3+2, 5*time.Minute, 3)
		net.stop(all(7)...)
		net.agree()
		for _, w := range net.nodes {
			for e := range consensus.Epoch(2) {
				if end := w.ends[e]; end == nil || len(end.Echoes) == 0 || end.Cert.View < 6 {
					t.Errorf("node %d: epoch %d ended with %+v", w.i, e, end)
				}
			}
		}
		if net.nodes[3].synced == 0 {
			t.Error("nothing was asked for by runs")
		}
	})
}

// TestBehindOverEpochs: a member that was away for epochs, whose blocks nobody holds any more, learns from the others what ended the
// one it is in, and ends with ErrBehind: in the midst of its epoch, or lacking only the last block of it.
func TestBehindOverEpochs(t *testing.T) {
	const length = 40
	for _, had := range []consensus.Height{5, length - 1} {
		synctest.Test(t, func(t *testing.T) {
			net := newNetwork(t, 4, length)
			net.retention = blocklog.MinRetention
			w := net.nodes[3] // of the first epochs
			net.start(all(7)...)
			net.reach(had, time.Minute, 3)
			net.stop(3)
			at, _ := w.disk.final()
			t.Logf("it has %d blocks", at)
			others := []int{0, 1, 2, 4, 5, 6}
			for net.nodes[0].log.Base() <= at+length {
				h, _ := net.nodes[0].disk.final()
				net.reach(h+1, time.Minute, others...)
			}
			w.behind = true
			net.start(3)
			<-w.done
			if !errors.Is(w.failed, ErrBehind) {
				t.Error(w.failed)
			}
			must(t, w.log.Close())
			if p := net.penalties(); p != 0 {
				t.Errorf("%d penalties", p)
			}
			net.stop(others...)
		})
	}
}

// TestFollowOverEpochs: a follower of an epoch says when it is over, gets headers of earlier epochs by their hashes, and leaves
// blocks that another committee made final alone, without blaming anybody.
func TestFollowOverEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, 4, 30)
		net.start(all(7)...)
		net.reach(30+2, time.Minute, net.members[1]...)
		follow := func(epoch int) *Follower {
			port := &port{w: net.wire, self: 6, up: true, members: net.members[epoch]}
			return NewFollower(FollowerConfig{
				Chain: testChain, Genesis: net.genesis, Committee: net.committees[epoch], Keys: net.keys[epoch], Index: -1, Network: port,
			})
		}
		ctx := context.Background()
		if _, err := follow(0).Advance(ctx); !errors.Is(err, ErrEpochOver) {
			t.Errorf("epoch 0: %v", err)
		}
		if _, err := follow(3).Advance(ctx); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("epoch 3, which has not begun: %v", err)
		}
		f := follow(1)
		tip, err := f.Advance(ctx)
		must(t, err)
		hs, err := f.Headers(ctx, 1, tip.Height)
		must(t, err)
		if hs[0].Epoch != 0 || hs[29].Epoch != 0 || !hs[29].Ends() || hs[30].Epoch != 1 {
			t.Errorf("headers of epochs %d, %d, %d", hs[0].Epoch, hs[29].Epoch, hs[30].Epoch)
		}
		adopt := func(f *Follower, at consensus.Height) error {
			log, err := blocklog.Open(blocklog.Options{FS: vfs.NewMem(), Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: 1000})
			must(t, err)
			defer func() { must(t, log.Close()) }()
			return f.Adopt(ctx, log, at)
		}
		if err := adopt(f, 2); !errors.Is(err, ErrForeignEpoch) {
			t.Errorf("adopting a block of the epoch before: %v", err)
		}
		must(t, adopt(f, 31))
		member := follow(0)
		member.c.Index = 1
		if err := adopt(member, 2); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("a floor in an epoch that is over: %v", err)
		}
		// Who may have a seat later gets a floor in the present epoch, and none in one that is over, where it may have voted since.
		later := follow(1)
		later.c.Later = true
		log, err := blocklog.Open(blocklog.Options{FS: vfs.NewMem(), Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: 1000})
		must(t, err)
		must(t, later.Adopt(ctx, log, 0))
		if rs := log.Records(); len(rs) == 0 || rs[len(rs)-1].Floor == nil || rs[len(rs)-1].Floor.Epoch != 1 {
			t.Errorf("without a seat: %+v", rs)
		}
		must(t, follow(1).Adopt(ctx, log, 31))
		must(t, log.Close())
		over := follow(0)
		over.c.Later = true
		if err := adopt(over, 0); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("a floor without a seat in an epoch that is over: %v", err)
		}
		for _, f := range []*Follower{f, member} {
			if lies := f.Liars(); len(lies) != 0 {
				t.Errorf("liars: %+v", lies)
			}
		}
		net.stop(all(7)...)
	})
}

// TestMissedEpochs: a node that is down over three epochs, and one that never ran, come back hand-over by hand-over.
func TestMissedEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newNetwork(t, 7, 4)
		most := []int{0, 1, 2, 4, 5, 6, 7, 9} // 3 is a member of the first four epochs, 8 from the third on
		net.start(append(most, 3)...)
		net.reach(2, time.Minute, most...)
		net.stop(3)
		net.reach(3*4+1, 5*time.Minute, most...)
		began := time.Now()
		net.start(3, 8)
		net.reach(3*4, time.Minute, 3, 8)
		t.Logf("three epochs made good in %v", time.Since(began))
		net.reach(5*4+2, 5*time.Minute, all(10)...)
		if p := net.penalties(); p != 0 {
			t.Errorf("%d penalties", p)
		}
		net.stop(all(10)...)
		net.agree()
		for _, w := range net.nodes {
			for e := range consensus.Epoch(5) {
				if end := w.ends[e]; end == nil || end.Last.Height != consensus.Height(e+1)*4 {
					t.Errorf("node %d, epoch %d: %+v", w.i, e, end)
				}
			}
		}
	})
}

// TestPowerLossOverEpochs takes the power from all at moments around a hand-over, and again; half of the times the application
// has to be replayed over the hand-over.
func TestPowerLossOverEpochs(t *testing.T) {
	for round := range 4 {
		synctest.Test(t, func(t *testing.T) {
			net := newNetwork(t, 4, 3)
			for k := range 3 {
				net.start(all(7)...)
				net.reach(consensus.Height(3*(k+1)), 5*time.Minute, net.members[k][0])
				time.Sleep(time.Duration(round) * 41 * time.Millisecond)
				before := net.nodes[net.members[k][0]].disk.chainOf()
				net.crash(all(7)...)
				for _, w := range net.nodes {
					if h, _ := w.disk.final(); round%2 == 1 && h > 2 && w.i%2 == 0 {
						w.disk = net.rebuilt(w.disk, int(h)-2)
					}
				}
				net.start(all(7)...)
				net.reach(consensus.Height(len(before)), 5*time.Minute, all(7)...)
				for _, w := range net.nodes {
					for i, hash := range w.disk.chainOf()[:len(before)] {
						if hash != before[i] {
							t.Fatalf("node %d: height %d was final and is not any more", w.i, i+1)
						}
					}
				}
				net.stop(all(7)...)
			}
			net.start(all(7)...)
			net.reach(4*3+1, 5*time.Minute, all(7)...)
			net.stop(all(7)...)
			net.agree()
		})
	}
}

// rebuilt is the disk as it was when it had only the first k blocks.
func (net *network) rebuilt(d *toyDisk, k int) *toyDisk {
	out := &toyDisk{hash: net.genesis.Hash()}
	app := newToyApp(net.tb, testChain, out)
	for _, hash := range d.blocks[:k] {
		var bl consensus.Block
		err := error(blocklog.ErrNotFound)
		for _, w := range net.nodes {
			if err != nil && w.log.Has(hash) {
				bl, err = w.log.Block(hash)
			}
		}
		must(net.tb, err)
		_, err = app.Certify(context.Background(), bl)
		must(net.tb, err)
		must(net.tb, app.Finalise(context.Background(), []consensus.Block{bl}, consensus.Certificate{Statement: consensus.Statement{Block: hash}}))
	}
	return out
}
