package statesync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/ledger"
)

// run syncs and fails the test where it does not come to its end.
func run(t *testing.T, s *Client) uint64 {
	t.Helper()
	height, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return height
}

// TestSync copies a ledger from four peers while the chain goes on.
func TestSync(t *testing.T) {
	c := newChain(t)
	c.blocks(10, 60)
	n, o, fs := newPeers(), newTold(), vfs.NewMem()
	n.honest(c.ledger, 4)
	s := c.client(fs, n, o, nil)
	stop := c.grow(10*time.Millisecond, 60)
	height := run(t, s)
	stop()
	c.check(fs, height)
	for p, times := range n.asked {
		if times == 0 {
			t.Errorf("%s was never asked", p)
		}
	}
	if n.most > 6 {
		t.Errorf("%d requests at a time", n.most)
	}
	p := s.Progress()
	if p.Step != Done || p.Bytes != p.TotalBytes || p.Accounts != p.TotalAccounts || p.TotalAccounts < chainAccounts || p.Height < height || p.Share() != 1 {
		t.Errorf("at the end: %+v", p)
	}
	if len(o.dropped)+len(o.again) > 0 || !slices.Equal(o.steps, []Step{Finding, Chunks, Differences, Receipts, Finishing, Done}) {
		t.Errorf("told: %+v", o)
	}
}

// TestGenesis: a chain that has hardly begun can be copied as soon as it has three blocks and two on top.
func TestGenesis(t *testing.T) {
	c := newChain(t)
	c.blocks(1, 3)
	n, fs := newPeers(), vfs.NewMem()
	n.honest(c.ledger, 1)
	s := c.client(fs, n, newTold(), nil)
	stop := c.grow(20*time.Millisecond, 3)
	height := run(t, s)
	stop()
	c.check(fs, height)
}

// lie makes a handler of an honest one. It is told of the request and gives another answer.
type lie func(ctx context.Context, r *request, honest func() []byte) []byte

func (c *chain) liar(n *peers, name string, source Source, l lie) {
	p := Peer(name)
	h := serving(NewServer(source, Limits{BytesPerSecond: 1 << 30}), p)
	n.by[p] = func(ctx context.Context, b []byte) ([]byte, error) {
		r, err := decodeRequest(b)
		if err != nil {
			return nil, err
		}
		var failed error
		a := l(ctx, r, func() []byte {
			b, err := h(ctx, b)
			failed = err
			return b
		})
		return a, failed
	}
}

// on lies about one type of request only, once the answer is one.
func on(typ byte, change func(r *request, a []byte) []byte) lie {
	return func(_ context.Context, r *request, honest func() []byte) []byte {
		a := honest()
		if r.typ != typ || len(a) == 0 || a[0] == typeRefusal {
			return a
		}
		return change(r, bytes.Clone(a))
	}
}

// flip changes the last byte.
func flip(_ *request, a []byte) []byte {
	a[len(a)-1] ^= 1
	return a
}

// parts of an answer, and the answer of other parts.
func partsOf(r *request, a []byte) [][]byte {
	parts, err := decodeAnswer(r, a)
	if err != nil {
		panic(err)
	}
	return parts
}

// flipFirst changes the last byte of the first part: later ones may be of blocks that nobody can check yet.
func flipFirst(r *request, a []byte) []byte {
	parts := partsOf(r, a)
	flip(r, parts[0])
	return encodeAnswer(r.typ, parts...)
}

// bump adds to the height in front of the first part.
func bump(by int64) func(*request, []byte) []byte {
	return func(r *request, a []byte) []byte {
		parts := partsOf(r, a)
		binary.BigEndian.PutUint64(parts[0], uint64(int64(binary.BigEndian.Uint64(parts[0]))+by))
		return encodeAnswer(r.typ, parts...)
	}
}

// lies are all ways to send something wrong that this test knows. Each must cost the peer its place.
func lies() map[string]lie {
	truncated := func(r *request, a []byte) []byte {
		parts := partsOf(r, a)
		parts[0] = parts[0][:len(parts[0])-7]
		return encodeAnswer(r.typ, parts...)
	}
	return map[string]lie{
		"another record":     on(typeChunks, flip),
		"another path":       on(typeChunks, func(_ *request, a []byte) []byte { a[2+4+20] ^= 1; return a }),
		"a height below":     on(typeChunks, bump(-1)),
		"a height above":     on(typeChunks, bump(1)),
		"a height far above": on(typeChunks, bump(1<<40)),
		"the last height": on(typeChunks, func(r *request, a []byte) []byte {
			p := partsOf(r, a)
			binary.BigEndian.PutUint64(p[0], ^uint64(0))
			return encodeAnswer(r.typ, p...)
		}),
		"a chunk cut short": on(typeChunks, truncated),
		"an account left out": on(typeChunks, func(r *request, a []byte) []byte {
			p := partsOf(r, a)
			p[0] = p[0][:len(p[0])-64]
			return encodeAnswer(r.typ, p...)
		}),
		"another chunk": on(typeChunks, func(r *request, a []byte) []byte {
			p := partsOf(r, a)
			p[0] = p[len(p)-1]
			p[len(p)-1][13] ^= 1
			return encodeAnswer(r.typ, p...)
		}),
		"garbage":        func(_ context.Context, _ *request, _ func() []byte) []byte { return []byte("garbage") },
		"nothing at all": func(_ context.Context, _ *request, _ func() []byte) []byte { return nil },
		"an answer of 16 MiB": func(_ context.Context, r *request, _ func() []byte) []byte {
			return append([]byte{r.typ | answerBit}, make([]byte, MaxAnswerBytes-1)...)
		},
		"an answer cut short":  on(typeChunks, func(_ *request, a []byte) []byte { return a[:len(a)/2] }),
		"another outline":      on(typeOutline, flip),
		"another difference":   on(typeDifferences, flipFirst),
		"difference misplaced": on(typeDifferences, bump(1)),
		"difference cut short": on(typeDifferences, truncated),
		"another top":          on(typeTops, flip),
		"another key":          on(typeKeys, flip),
		"other receipts":       on(typeOutbox, flip),
		"fewer receipts":       on(typeOutbox, truncated),
		"broken words": func(_ context.Context, r *request, honest func() []byte) []byte {
			if r.typ == typeDifferences {
				return refusal{why: notKept, kept: r.from}.encode()
			}
			return honest()
		},
	}
}

// TestLiars: each kind of liar alone beside two honest peers, who are busy until it has lied. It is dropped and named, and
// nobody else is.
func TestLiars(t *testing.T) {
	c := newChain(t)
	c.blocks(12, 60)
	all := lies()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			c.t = t
			n, o, fs := newPeers(), newTold(), vfs.NewMem()
			n.honest(c.ledger, 2)
			asked := make(chan struct{})
			var once sync.Once
			for p, h := range n.by {
				n.by[p] = func(ctx context.Context, b []byte) ([]byte, error) {
					select {
					case <-asked:
						return h(ctx, b)
					default: // until the liar has been asked for what it lies about
						return refusal{why: busy, wait: 20 * time.Millisecond}.encode(), nil
					}
				}
			}
			c.liar(n, "liar", c.ledger, func(ctx context.Context, r *request, honest func() []byte) []byte {
				before := honest()
				a := all[name](ctx, r, func() []byte { return before })
				if !bytes.Equal(a, before) {
					once.Do(func() { close(asked) })
				}
				return a
			})
			s := c.client(fs, n, o, nil)
			stop := c.grow(20*time.Millisecond, 20)
			height := run(t, s)
			stop()
			c.check(fs, height)
			if why := o.dropped["liar"]; why == "" || len(o.dropped) != 1 {
				t.Errorf("dropped: %v", o.dropped)
			}
			for _, p := range s.Progress().Peers {
				if (p.Dropped != "") != (p.Peer == "liar") {
					t.Errorf("peer %+v", p)
				}
			}
			t.Log(o.dropped)
		})
	}
}

// TestThirdLies: a third of the peers lie or do not work, all in different ways, while the chain goes on. The liars are
// named, all of them and nobody else; those that are slow, refuse or are behind are not called liars.
func TestThirdLies(t *testing.T) {
	c := newChain(t)
	c.blocks(12, 60)
	stale := c.standStill()
	c.blocks(8, 60)
	n, o, fs := newPeers(), newTold(), vfs.NewMem()
	n.honest(c.ledger, 8)
	c.liar(n, "liar of chunks", c.ledger, on(typeChunks, flip))
	c.liar(n, "garbage", c.ledger, lies()["garbage"])
	n.by["endless"] = func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	n.by["refusing"] = func(context.Context, []byte) ([]byte, error) { return refusal{why: notHere}.encode(), nil }
	n.by["stale"] = serving(NewServer(stale, Limits{}), "stale")
	n.by["broken line"] = func(context.Context, []byte) ([]byte, error) { return nil, errors.New("connection reset") }
	n.seen = slowly(5 * time.Millisecond)
	s := c.client(fs, n, o, func(opt *Options) { opt.MaxBehind, opt.Requests = 4, 28 }) // so that everybody is asked
	stop := c.grow(20*time.Millisecond, 60)
	height := run(t, s)
	stop()
	c.check(fs, height)
	if got := slices.Sorted(maps.Keys(o.dropped)); !slices.Equal(got, []Peer{"garbage", "liar of chunks"}) {
		t.Errorf("dropped: %v", o.dropped)
	}
	for _, p := range s.Progress().Peers {
		want := map[Peer]int{"endless": p.Slow, "refusing": p.Refused, "stale": p.Behind, "broken line": p.Unreachable}
		if times, ok := want[p.Peer]; ok && (times == 0 || p.Last == "" || p.Answers > 0) {
			t.Errorf("what is told of %+v", p)
		}
	}
}

// slowly makes every request take a while.
func slowly(d time.Duration) func(Peer) {
	return func(Peer) {
		wait := time.NewTimer(d)
		defer wait.Stop()
		<-wait.C
	}
}

// standStill is a copy of the source that stays as it is now.
func (c *chain) standStill() *ledger.Ledger {
	c.t.Helper()
	l := c.open(vfs.NewMem(), "stale", true)
	for h := uint64(1); h <= c.height(); h++ {
		c.execute(l, h, c.bodies[h-1], c.wants[h-1])
	}
	return l
}

// TestAllLie: with nobody honest the sync ends soon, and says who did what.
func TestAllLie(t *testing.T) {
	c := newChain(t)
	c.blocks(12, 60)
	n, o := newPeers(), newTold()
	for i := range 5 {
		c.liar(n, fmt.Sprintf("liar %d", i), c.ledger, on(typeChunks, flip))
	}
	s := c.client(vfs.NewMem(), n, o, nil)
	began := time.Now()
	_, err := s.Run(t.Context())
	if !errors.Is(err, ErrNobody) || len(o.dropped) != 5 || time.Since(began) > 10*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	for i := range 5 {
		if !strings.Contains(err.Error(), fmt.Sprintf("liar %d: chunk ", i)) {
			t.Errorf("liar %d is not named: %v", i, err)
		}
	}
}

// TestNobodyAnswers: silence, refusal and an empty list of peers end the sync as well, when patience does.
func TestNobodyAnswers(t *testing.T) {
	c := newChain(t)
	c.blocks(5, 10)
	for name, h := range map[string]handler{
		"silent":   func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"refusing": func(context.Context, []byte) ([]byte, error) { return refusal{why: notHere}.encode(), nil },
		"busy": func(context.Context, []byte) ([]byte, error) {
			return refusal{why: busy, wait: 50 * time.Millisecond}.encode(), nil
		},
		"absent": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			n := newPeers()
			if h != nil {
				n.by["peer"] = h
			}
			s := c.client(vfs.NewMem(), n, newTold(), func(o *Options) { o.Patience = time.Second })
			if _, err := s.Run(t.Context()); !errors.Is(err, ErrNobody) {
				t.Fatal(err)
			}
			if p := s.Progress(); p.LeftKnown || p.TotalBytes > 0 || p.Step != Finding {
				t.Errorf("progress from nobody: %+v", p)
			}
		})
	}
}

// TestResume kills the sync at random points, with what was not synced lost, and goes on from there: little is fetched
// twice.
func TestResume(t *testing.T) {
	c := newChain(t)
	c.blocks(10, 60)
	disk, n := vfs.NewCrashableMem(), newPeers()
	n.honest(c.ledger, 3)
	rng := rand.New(rand.NewPCG(3, 4))
	stop := c.grow(20*time.Millisecond, 40)
	defer func() { stop() }()
	const requests = 2
	lost := uint64(0)
	for cut := 0; ; cut++ {
		left := 1 + rng.Int64N(12) // requests until the crash
		if cut < 3 {
			left = 1 + rng.Int64N(3) // too few to finish
		}
		var asked atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var after *vfs.MemFS
		var once sync.Once
		n.mu.Lock()
		n.seen = func(Peer) {
			if asked.Add(1) >= left {
				once.Do(func() { after = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}); cancel() })
			}
		}
		n.mu.Unlock()
		before := n.bytes
		s := c.client(disk, n, newTold(), func(o *Options) { o.Requests, o.PeerRequests = requests, 1 })
		height, err := s.Run(ctx)
		cancel()
		if err == nil {
			n.mu.Lock()
			n.seen = nil
			n.mu.Unlock()
			stop()
			stop = func() {}
			c.check(disk, height)
			// What was under way at a crash is lost, and nothing else; beside it there are differences, paths and outlines,
			// some of which each run asks for again.
			const again = 64 << 10
			total := s.Progress().TotalBytes
			t.Logf("%d crashes; %d bytes fetched, the ledger has %d, under way at crashes were at most %d", cut, n.bytes, total, lost)
			if cut < 3 || n.bytes > total*5/4+lost+uint64(cut)*again {
				t.Errorf("%d crashes; %d bytes fetched, the ledger has %d, under way at crashes were at most %d", cut, n.bytes, total, lost)
			}
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		disk = after
		lost += min(n.bytes-before, requests*MaxChunks*16<<10)
	}
}

// TestTooOld: a sync is interrupted, and when it goes on the peers have dropped the differences that it needs. What is too
// old is fetched again, and nothing else.
func TestTooOld(t *testing.T) {
	c := newChain(t)
	c.blocks(10, 60)
	fs, n := vfs.NewMem(), newPeers()
	n.honest(c.ledger, 2)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	n.seen = func(Peer) {
		if asked.Add(1) == 6 {
			cancel()
		}
	}
	s := c.client(fs, n, newTold(), nil)
	if _, err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.o.Restore.Close(); err != nil {
		t.Fatal(err)
	}
	n.seen = nil
	for range 40 { // cycles of pages end, and differences go
		c.now = c.now.Add(6 * time.Minute)
		c.block(10)
	}
	oldest, err := c.ledger.Oldest()
	if err != nil || oldest < 20 {
		t.Fatalf("the source keeps differences from %d on: %v", oldest, err)
	}
	o := newTold()
	s = c.client(fs, n, o, nil)
	stop := c.grow(20*time.Millisecond, 10)
	height := run(t, s)
	stop()
	c.check(fs, height)
	if len(o.again) != 1 || o.again[0] < oldest {
		t.Errorf("fetched again below %v, the source keeps %d", o.again, oldest)
	}
	if len(o.dropped) > 0 {
		t.Errorf("dropped: %v", o.dropped)
	}
}

// TestProgress: figures grow, and time left is told once the rate is known, and not before.
func TestProgress(t *testing.T) {
	m := newMeter(time.Unix(0, 0))
	at := func(s float64) time.Time { return time.Unix(0, int64(s*1e9)) }
	if p := m.read(at(1)); p.LeftKnown || p.Rate != 0 || p.Share() != 0 {
		t.Errorf("before anything: %+v", p)
	}
	m.set(func(p *Progress) { p.TotalBytes, p.TotalAccounts = 100*64*1000, 100_000 })
	for s := 0.25; s <= 5; s += 0.25 {
		m.chunks(1000)
		m.sample(at(s))
	}
	p := m.read(at(5))
	if !p.LeftKnown || p.Accounts != 20_000 || p.Rate < 240_000 || p.Rate > 270_000 || p.Left < 19*time.Second || p.Left > 21*time.Second || p.Share() != 0.2 {
		t.Errorf("after five seconds: %+v", p)
	}
	for s := 5.25; s < 30; s += 0.25 {
		m.sample(at(s))
	}
	if p := m.read(at(30)); p.LeftKnown || p.Rate != 0 {
		t.Errorf("after a long time without anything: %+v", p)
	}
}
