package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

func logOptions(fs vfs.FS) blocklog.Options {
	return blocklog.Options{FS: fs, Dir: "log", Chain: testChain, Shard: testShard, Create: true, Retention: 1000, SegmentBytes: 256 << 10}
}

func openLog(tb testing.TB, fs vfs.FS) *blocklog.Log {
	tb.Helper()
	l, err := blocklog.Open(logOptions(fs))
	must(tb, err)
	return l
}

func emptyLog(tb testing.TB) *blocklog.Log { return openLog(tb, vfs.NewMem()) }

// floorOf is the floor in a log, 0 if there is none.
func floorOf(l *blocklog.Log) (v consensus.View) {
	for _, r := range l.Records() {
		if r.Floor != nil {
			v = max(v, r.Floor.View)
		}
	}
	return v
}

// adopted checks that a log begins at a height, with the oracle's blocks, a finalization and the floor.
func adopted(l *blocklog.Log, o *oracle, at consensus.Height) error {
	final, _ := l.Final()
	if l.Base() != at || final < at {
		return fmt.Errorf("the log holds heights %d to %d, wanted from %d", l.Base(), final, at)
	}
	for h := at; h <= final; h++ {
		hash, ok := l.FinalAt(h)
		if bl, err := l.Block(hash); !ok || err != nil || hash != o.chain[h].Header.Hash() || string(bl.Body) != string(o.chain[h].Body) {
			return fmt.Errorf("block %d: %v, %v", h, ok, err)
		}
	}
	if got, want := floorOf(l), o.lead+simplex.FloorMargin; got != want {
		return fmt.Errorf("floor %d, want %d", got, want)
	}
	return nil
}

// TestAdopt: heights with and without a finalization of their own, near it and far from it; a second call changes nothing.
func TestAdopt(t *testing.T) {
	for _, tc := range []struct{ every, at, final consensus.Height }{
		{1, 1, 2}, {1, 40, 40}, {5, 21, 25}, {5, 25, 25}, {30, 2, 30}, {100, 7, 40},
	} {
		t.Run(fmt.Sprintf("%d of %d", tc.at, tc.every), func(t *testing.T) {
			c := newCluster(t, 4)
			o := newOracle(c, 40)
			o.every = tc.every
			f := c.follower(3, o)
			fs := vfs.NewCrashableMem()
			l := openLog(t, fs)
			must(t, f.Adopt(context.Background(), l, tc.at))
			must(t, adopted(l, o, tc.at))
			if final, _ := l.Final(); tc.every > 1 && final != tc.final {
				t.Errorf("final %d, want %d", final, tc.final)
			}
			must(t, f.Adopt(context.Background(), l, tc.at))
			l = openLog(t, fs.CrashClone(vfs.CrashCloneCfg{})) // it was synced
			must(t, adopted(l, o, tc.at))
			o.spoil = func(int, request, []byte) ([]byte, error) { return nil, errors.New("nothing is needed any more") }
			must(t, f.Adopt(context.Background(), l, tc.at))
			must(t, adopted(l, o, tc.at))
			must(t, l.Close())
		})
	}
}

// TestAdoptMore: a log that began lower than now wanted goes on from where it is.
func TestAdoptMore(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 40)
	o.every = 4
	f := c.follower(3, o)
	l := emptyLog(t)
	defer l.Close()
	must(t, f.Adopt(context.Background(), l, 10))
	must(t, f.Adopt(context.Background(), l, 30))
	must(t, adopted(l, o, 10))
	if final, _ := l.Final(); final != 32 {
		t.Errorf("final %d", final)
	}
	if err := f.Adopt(context.Background(), l, 9); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("a height below the log's first: %v", err)
	}
}

// TestAdoptFloorOnly: a validator whose state is genesis needs a floor all the same, an observer needs none.
func TestAdoptFloorOnly(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 40)
	l := emptyLog(t)
	must(t, c.follower(3, o).Adopt(context.Background(), l, 0))
	if got := floorOf(l); got != o.lead+simplex.FloorMargin || l.Stats().Blocks != 0 {
		t.Errorf("floor %d, %+v", got, l.Stats())
	}
	must(t, l.Close())
	l = emptyLog(t)
	must(t, c.follower(-1, o).Adopt(context.Background(), l, 9))
	must(t, c.follower(-1, o).Adopt(context.Background(), l, 9))
	if len(l.Records()) != 0 || l.Base() != 9 {
		t.Errorf("an observer's log: %d records, base %d", len(l.Records()), l.Base())
	}
	must(t, l.Close())
	o.spoil = func(_ int, r request, b []byte) ([]byte, error) {
		if r.typ == typeGetLeading {
			return []byte{typeNothing}, nil
		}
		return b, nil
	}
	l = emptyLog(t)
	must(t, c.follower(3, o).Adopt(context.Background(), l, 0))
	if got := floorOf(l); got != simplex.FloorMargin {
		t.Errorf("floor %d where nobody has seen a certificate", got)
	}
	must(t, l.Close())
}

// TestAdoptRefuses: logs that are not empty, and committees that can't say how far they are.
func TestAdoptRefuses(t *testing.T) {
	silent := func(members ...int) func(*oracle) {
		return func(o *oracle) {
			o.spoil = func(to int, r request, b []byte) ([]byte, error) {
				if r.typ == typeGetLeading && slices.Contains(members, to) {
					return nil, errSilent
				}
				return b, nil
			}
		}
	}
	nonsense := func(members ...int) func(*oracle) {
		return func(o *oracle) {
			o.spoil = func(to int, r request, b []byte) ([]byte, error) {
				if slices.Contains(members, to) {
					return []byte("nonsense"), nil
				}
				return b, nil
			}
		}
	}
	block := func(c *cluster, l *blocklog.Log) error { return l.AppendBlock(newOracle(c, 3).chain[1]) }
	for _, tc := range []struct {
		name string
		n    int
		log  func(*cluster, *blocklog.Log) error
		net  func(*oracle)
		want error
	}{
		{"own votes", 4, func(c *cluster, l *blocklog.Log) error {
			return l.AppendRecord(simplex.Record{Vote: c.vote(3, consensus.Nullify, 1, consensus.Hash{})})
		}, nil, ErrNotEmpty},
		{"own blocks", 4, block, nil, ErrNotEmpty},
		{"own certificates", 4, func(c *cluster, l *blocklog.Log) error {
			return l.AppendRecord(simplex.Record{Cert: c.nullification(3)})
		}, nil, ErrNotEmpty},
		{"a quorum and no more answers", 7, nil, silent(0), nil},
		{"less than a quorum answers", 7, nil, silent(0, 4), ErrNoAnswer},
		{"a third sends nonsense", 7, nil, nonsense(1, 5), nil},
		{"one of four sends nonsense", 4, nil, nonsense(1), nil},
		{"more than a third sends nonsense", 7, nil, func(o *oracle) { // and one is silent: with the third liar it would be enough
			lie, hush := nonsense(0, 1, 2), silent(3)
			lie(o)
			lying := o.spoil
			hush(o)
			hushed := o.spoil
			o.spoil = func(to int, r request, b []byte) ([]byte, error) {
				if b, err := hushed(to, r, b); err != nil {
					return b, err
				}
				return lying(to, r, b)
			}
		}, ErrNoAnswer},
		{"the others are no quorum", 3, nil, nil, ErrIndispensable},
		{"alone", 1, nil, nil, ErrIndispensable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, tc.n)
			o := newOracle(c, 30)
			if tc.net != nil {
				tc.net(o)
			}
			fs := vfs.NewMem()
			l := openLog(t, fs)
			if tc.log != nil {
				must(t, tc.log(c, l))
				must(t, l.Close())
				l = openLog(t, fs)
			}
			err := c.follower(tc.n-1, o).Adopt(context.Background(), l, 20)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err != nil && (l.Stats().Blocks > 1 || floorOf(l) != 0) {
				t.Errorf("refused, and left floor %d and %+v", floorOf(l), l.Stats())
			}
			must(t, l.Close())
		})
	}
	t.Run("a height that nobody has", func(t *testing.T) {
		c := newCluster(t, 4)
		l := emptyLog(t)
		if err := c.follower(3, newOracle(c, 30)).Adopt(context.Background(), l, 31); !errors.Is(err, ErrNoAnswer) {
			t.Error(err)
		}
		must(t, l.Close())
	})
}

// TestAdoptCrashEverywhere takes the power away before every file system operation of Adopt, with none, some and all of the
// unsynced data kept, and does it again on what is left.
func TestAdoptCrashEverywhere(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 60)
	o.every = 7
	const at = 30
	base := vfs.NewCrashableMem()
	must(t, openLog(t, base).Close())
	points, seed := 0, uint64(0)
	crash := errorfs.InjectorFunc(func(op errorfs.Op) error {
		points++
		for _, percent := range []int{0, 50, 100} {
			seed++
			left := base.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
			l := openLog(t, left)
			if h, _ := l.Final(); floorOf(l) == 0 && (h > 0 || l.Stats().Blocks > 0) {
				t.Fatalf("crash before operation %d (%s), seed %d: blocks without a floor", points, op.Path, seed)
			}
			err := c.follower(3, o).Adopt(context.Background(), l, at)
			if err == nil {
				err = adopted(l, o, at)
			}
			if err := errors.Join(err, l.Close()); err != nil {
				t.Fatalf("crash before operation %d (%s), seed %d: %v", points, op.Path, seed, err)
			}
			l = openLog(t, left)
			must(t, adopted(l, o, at))
			must(t, l.Close())
		}
		return nil
	})
	l := openLog(t, errorfs.Wrap(base, crash))
	must(t, c.follower(3, o).Adopt(context.Background(), l, at))
	must(t, adopted(l, o, at))
	must(t, l.Close())
	if points < 25 {
		t.Errorf("only %d operations", points)
	}
	t.Logf("%d operations", points)
}

// TestAdoptFailEverywhere fails every writing operation of Adopt in turn: it says so, and the next attempt succeeds.
func TestAdoptFailEverywhere(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 60)
	o.every = 7
	for fail := 1; ; fail++ {
		fs := vfs.NewCrashableMem()
		must(t, openLog(t, fs).Close())
		n, open := 0, false
		l := openLog(t, errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if open && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
				if n++; n == fail {
					return errors.New("planted")
				}
			}
			return nil
		})))
		open = true
		err := c.follower(3, o).Adopt(context.Background(), l, 30)
		open = false
		l.Close()
		if n < fail {
			must(t, err)
			t.Logf("%d operations", n)
			if n < 8 {
				t.Error("too few")
			}
			return
		}
		if err == nil {
			t.Fatalf("operation %d failed and nobody said so", fail)
		}
		l = openLog(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		must(t, c.follower(3, o).Adopt(context.Background(), l, 30))
		must(t, adopted(l, o, 30))
		must(t, l.Close())
	}
}

// oath watches the votes of a validator on the wire, over all its lives.
type oath struct {
	mu    sync.Mutex
	cast  map[consensus.View]*[4]consensus.Hash
	floor consensus.View // after which no vote at or below it may leave
	last  consensus.View
	above int // votes above the floor
}

func (o *oath) watch(tb testing.TB, i int) func(from, to int, class Class, payload []byte) bool {
	o.cast = map[consensus.View]*[4]consensus.Hash{}
	return func(from, to int, class Class, payload []byte) bool {
		m, err := decodeInbound(class, payload)
		if err != nil || from != i {
			return true
		}
		v := m.vote
		if m.proposal != nil {
			v = &m.proposal.Vote
		}
		if v == nil {
			return true
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.last = max(o.last, v.View); o.floor > 0 {
			if o.above++; v.View <= o.floor {
				tb.Errorf("%s of view %d with a floor at %d", v.Kind, v.View, o.floor)
			}
		}
		name := v.Block
		if v.Kind == consensus.Nullify {
			name = consensus.Hash{1}
		}
		all := o.cast[v.View]
		if all == nil {
			all = &[4]consensus.Hash{}
			o.cast[v.View] = all
		}
		if old := all[v.Kind]; !old.IsZero() && old != name {
			tb.Errorf("two %s in view %d", v.Kind, v.View)
		}
		if all[v.Kind] = name; !all[consensus.Nullify].IsZero() && !all[consensus.Finalize].IsZero() {
			tb.Errorf("nullify and finalize in view %d", v.View)
		}
		return true
	}
}

// TestLostDisk: a validator loses its disk in the middle of a view. Its state comes from another one's, at some height, and
// its log by Adopt, while the others go on. It votes again within seconds, on a busy chain and on an idle one, nothing that
// it says contradicts what it said before, and its log serves and restarts like any.
func TestLostDisk(t *testing.T) {
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 11))
		every := []time.Duration{100 * time.Millisecond, 1500 * time.Millisecond}[seed%2]
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lostDisk(t, rng, every) })
		})
	}
}

func lostDisk(t *testing.T, rng *rand.Rand, every time.Duration) {
	const n, lost = 4, 2
	c := newCluster(t, n)
	o := &oath{}
	c.wire.sent = o.watch(t, lost)
	c.options = func(i int, cfg *Config) { cfg.App.(*toyApp).every = every }
	c.start(all(n)...)
	c.reach(consensus.Height(5+rng.IntN(10)), time.Minute, all(n)...)
	time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond) // any moment of a view
	c.stop(lost)
	before := o.last
	time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
	source := c.nodes[0].disk.copy()
	at := 1 + rng.IntN(len(source.blocks))
	fs := vfs.NewCrashableMem()
	c.nodes[lost] = &node{fs: fs, view: fs, disk: c.rebuilt(source, at)}
	cfg := c.config(lost)
	f := c.follower(lost, cfg.Network)
	must(t, f.Adopt(context.Background(), cfg.Log, consensus.Height(at)))
	o.mu.Lock()
	if o.floor = floorOf(cfg.Log); o.floor < before {
		t.Fatalf("the floor is %d, and votes left in view %d", o.floor, before)
	}
	o.mu.Unlock()
	began := time.Now()
	e, err := Start(context.Background(), cfg)
	must(t, err)
	c.nodes[lost].Engine = e
	c.await("it votes again", 15*time.Second, func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.above > 0 })
	t.Logf("height %d, floor %d, votes up to view %d before; votes again after %v", at, o.floor, before, time.Since(began))
	if s := e.Status(); s.Silent {
		t.Error("it votes and says that it is silent")
	}
	top, _ := c.nodes[0].disk.final()
	c.reach(top+5, time.Minute, all(n)...)
	servesFrom(t, e, consensus.Height(at), c)
	c.crash(lost) // and again, with the log it has now
	c.start(lost)
	c.reach(top+8, time.Minute, all(n)...)
	c.stop(all(n)...)
	joined := c.nodes[lost].disk.chainOf()
	if !slices.Equal(joined, c.nodes[0].disk.chainOf()[:len(joined)]) {
		t.Error("it finalised other blocks")
	}
}

// servesFrom checks what a node serves whose log begins at a height: everything from there on, nothing below.
func servesFrom(t *testing.T, e *Engine, at consensus.Height, c *cluster) {
	t.Helper()
	b, err := e.serveRun(at)
	must(t, err)
	r, err := decodeRun(b)
	must(t, err)
	must(t, e.c.verifier().run(r, at))
	if b, err := e.serveRun(at - 1); at > 1 && (b != nil || err != nil) {
		t.Errorf("below its first block: %d bytes, %v", len(b), err)
	}
	tip, hash := e.c.Log.Final()
	b, err = e.serveHeaders(context.Background(), hash, maxAnswerHeaders)
	must(t, err)
	hs, err := decodeHeaders(b)
	must(t, err)
	if len(hs) != int(tip-at)+1 || hs[len(hs)-1].Height != at {
		t.Errorf("%d headers from %d down to %d", len(hs), tip, hs[len(hs)-1].Height)
	}
}

// TestServeHeaders: from the machine above the final block, from the log below, and nothing for what nobody has.
func TestServeHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(i int, cfg *Config) { // blocks are notarized and never final, but for the first ones
			cfg.Limits = nearReach()
		}
		c.start(all(4)...)
		c.reach(5, time.Minute, all(4)...)
		c.wire.mu.Lock()
		c.wire.sent = func(from, to int, class Class, payload []byte) bool {
			m, err := decodeInbound(class, payload)
			return err != nil || m.vote == nil || m.vote.Kind != consensus.Finalize
		}
		c.wire.mu.Unlock()
		var high *consensus.Header
		c.await("some certified blocks above the final one", time.Minute, func() bool {
			high, _ = look(context.Background(), c.nodes[0].Engine, func() *consensus.Header { return c.nodes[0].machine.Status().Highest })
			final, _ := c.nodes[0].disk.final()
			return high.Height > final+3
		})
		b, err := c.nodes[0].serve(context.Background(), 1, request{typ: typeGetHeaders, hash: high.Hash(), most: maxAnswerHeaders}.encode())
		must(t, err)
		hs, err := linked(b, trusted{Header: &consensus.Header{Height: high.Height + 1, Parent: high.Hash()}}, maxAnswerHeaders)
		if err != nil || len(hs) != int(high.Height) {
			t.Errorf("%d headers from height %d down: %v", len(hs), high.Height, err)
		}
		b, err = c.nodes[0].serve(context.Background(), 1, request{typ: typeGetHeaders, hash: high.Hash(), most: 2}.encode())
		must(t, err)
		if hs, err := decodeHeaders(b); err != nil || len(hs) != 2 {
			t.Errorf("two headers: %d, %v", len(hs), err)
		}
		b, err = c.nodes[0].serve(context.Background(), 1, request{typ: typeGetHeaders, hash: consensus.Hash{1}, most: 2}.encode())
		if err != nil || !isNothing(b) {
			t.Errorf("a block that nobody has: %x, %v", b, err)
		}
		b, err = c.nodes[0].serve(context.Background(), 1, request{typ: typeGetLeading}.encode())
		must(t, err)
		if cert, err := decodeLeading(b); err != nil || cert.View+1 < high.View {
			t.Errorf("leading certificate %+v, %v", cert, err)
		}
		c.stop(all(4)...)
	})
}

// TestSilentDoesNotTell: a validator that is not above its own floor is no witness for another's.
func TestSilentDoesNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := aloneAfter(t, func(l *blocklog.Log) error { return l.SetFloor(simplex.Floor{Shard: testShard, View: 50}, nil) })
		if _, err := c.nodes[0].serve(context.Background(), 1, request{typ: typeGetLeading}.encode()); !errors.Is(err, errSilent) {
			t.Errorf("got %v", err)
		}
		if s := c.nodes[0].Status(); !s.Silent {
			t.Error("its status does not say so")
		}
		c.stop(0)
	})
}
