package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tutti/consensus"
)

// oracle answers like the members of a committee that all hold one chain and nothing else.
type oracle struct {
	c     *cluster
	chain []consensus.Block                                      // from genesis
	lead  consensus.View                                         // a nullification of this view is the leading certificate
	every consensus.Height                                       // heights with a finalization of their own
	spoil func(to int, r request, answer []byte) ([]byte, error) // if set, changes answers
	mu    sync.Mutex
	asked map[int][]request // by member
}

// newOracle makes a chain of n blocks above genesis.
func newOracle(c *cluster, n int) *oracle {
	o := &oracle{c: c, chain: []consensus.Block{{Header: c.genesis}}, every: 1, asked: map[int][]request{}, lead: consensus.View(n) + 3}
	for h := 1; h <= n; h++ {
		p := o.chain[h-1].Header
		body := fmt.Appendf(nil, "body of height %d", h)
		hd := *p
		hd.View, hd.Height, hd.TimeMs, hd.Parent, hd.Body = consensus.View(h), consensus.Height(h), p.TimeMs+1, p.Hash(), consensus.NewBodyRef(body)
		o.chain = append(o.chain, consensus.Block{Header: &hd, Body: body})
	}
	return o
}

func (o *oracle) top() *consensus.Header { return o.chain[len(o.chain)-1].Header }

func (o *oracle) Request(ctx context.Context, to int, b []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[to] = append(o.asked[to], r)
	answer := o.answer(r)
	if o.spoil != nil {
		return o.spoil(to, r, answer)
	}
	return answer, nil
}

func (o *oracle) answer(r request) []byte {
	switch r.typ {
	case typeGetLatest:
		return encodeLatest(&consensus.FinalHeader{Header: o.top(), Cert: *o.c.finalization(o.top())})
	case typeGetLeading:
		return encodeLeading(o.c.nullification(o.lead))
	case typeGetHeaders:
		for i := range o.chain {
			if h := o.chain[i].Header; h.Hash() == r.hash {
				var hs []*consensus.Header
				for ; i > 0 && len(hs) < r.most; i-- {
					hs = append(hs, o.chain[i].Header)
				}
				return encodeHeaders(hs)
			}
		}
	case typeGetRun:
		if r.from > 0 && int(r.from) < len(o.chain) {
			return o.run(r.from).encode()
		}
	}
	return []byte{typeNothing}
}

// run is at most two blocks, and the headers to the next one with a finalization.
func (o *oracle) run(from consensus.Height) (r run) {
	end := min((from+o.every-1)/o.every*o.every, o.top().Height)
	for h := from; h <= end; h++ {
		if len(r.blocks) < 2 {
			r.blocks = append(r.blocks, o.chain[h])
		} else {
			r.links = append(r.links, o.chain[h].Header)
		}
	}
	r.cert = *o.c.finalization(o.chain[end].Header)
	return r
}

// count is how often a member was asked for something.
func (o *oracle) count(typ byte, members ...int) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, i := range members {
		for _, r := range o.asked[i] {
			if r.typ == typ {
				n++
			}
		}
	}
	return n
}

// nullification makes a real certificate by validators 0 to 2.
func (c *cluster) nullification(v consensus.View) *consensus.Certificate {
	return c.certify(consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: v})
}

func (c *cluster) follower(index int, net Requester) *Follower {
	return NewFollower(FollowerConfig{Chain: testChain, Genesis: c.genesis, Committee: c.committee, Keys: c.keys, Index: index, Network: net})
}

func checkHeaders(t *testing.T, f *Follower, o *oracle, from, to consensus.Height) {
	t.Helper()
	hs, err := f.Headers(context.Background(), from, to)
	if err != nil || len(hs) != int(to-from)+1 {
		t.Fatalf("headers %d to %d: %d, %v", from, to, len(hs), err)
	}
	for i, h := range hs {
		if h.Hash() != o.chain[int(from)+i].Header.Hash() {
			t.Fatalf("headers %d to %d: another one at %d", from, to, int(from)+i)
		}
	}
}

// TestFollower: the tip, ranges of all kinds, what is not asked for twice, and refusals.
func TestFollower(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 5000)
	f := c.follower(3, o)
	if _, err := f.Headers(context.Background(), 1, 1); !errors.Is(err, ErrAboveTip) {
		t.Errorf("above genesis before any Advance: %v", err)
	}
	hs, err := f.Headers(context.Background(), 0, 0)
	if err != nil || len(hs) != 1 || hs[0] != c.genesis {
		t.Errorf("genesis: %v, %v", hs, err)
	}
	tip, err := f.Advance(context.Background())
	if err != nil || tip.Hash() != o.top().Hash() || f.Tip() != tip {
		t.Fatalf("tip %v, %v", tip, err)
	}
	for _, r := range [][2]consensus.Height{{5000, 5000}, {4900, 4950}, {4000, 4999}, {0, 10}, {1, 5000}, {2500, 2500}} {
		checkHeaders(t, f, o, r[0], r[1])
	}
	if n := o.count(typeGetHeaders, 0, 1, 2); n > 10 {
		t.Errorf("%d requests for 5000 headers", n)
	}
	before := o.count(typeGetHeaders, 0, 1, 2)
	checkHeaders(t, f, o, 0, 5000)
	if n := o.count(typeGetHeaders, 0, 1, 2); n != before {
		t.Errorf("%d requests for what was known", n-before)
	}
	if o.count(typeGetHeaders, 3)+o.count(typeGetLatest, 3) != 0 {
		t.Error("it asked itself")
	}
	for _, tc := range []struct {
		from, to consensus.Height
		want     error
	}{{3, 2, ErrRange}, {0, MaxHeaders, ErrRange}, {0, 5001, ErrAboveTip}} {
		if _, err := f.Headers(context.Background(), tc.from, tc.to); !errors.Is(err, tc.want) {
			t.Errorf("headers %d to %d: %v, want %v", tc.from, tc.to, err, tc.want)
		}
	}
	if n := len(f.Liars()); n != 0 {
		t.Errorf("%d liars", n)
	}
}

// TestFollowerContext: an ended context ends every call, with its own error.
func TestFollowerContext(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 5)
	f := c.follower(-1, o)
	_, err := f.Advance(context.Background())
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Advance(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Advance: %v", err)
	}
	if _, err := f.Headers(ctx, 1, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("Headers: %v", err)
	}
	if err := f.Adopt(ctx, emptyLog(t), 3); !errors.Is(err, context.Canceled) {
		t.Errorf("Adopt: %v", err)
	}
	if n := len(f.Liars()); n != 0 {
		t.Errorf("%d liars", n)
	}
}

// TestFollowerLiars: each kind of nonsense is passed over, names its member, and ends the interest in it.
func TestFollowerLiars(t *testing.T) {
	forged := func(c *cluster, h *consensus.Header) consensus.Certificate {
		cert := *c.finalization(h)
		cert.Signature = c.finalization(c.genesis).Signature
		return cert
	}
	for _, tc := range []struct {
		name string
		typ  byte
		lie  func(o *oracle, r request, good []byte) []byte
	}{
		{"latest that does not decode", typeGetLatest, func(*oracle, request, []byte) []byte { return []byte("hello") }},
		{"latest with a forged certificate", typeGetLatest, func(o *oracle, _ request, _ []byte) []byte {
			h := *o.top()
			h.Height += 10
			return encodeLatest(&consensus.FinalHeader{Header: &h, Cert: forged(o.c, &h)})
		}},
		{"latest of another chain", typeGetLatest, func(o *oracle, _ request, _ []byte) []byte {
			h := *o.top()
			h.Chain[0]++
			return encodeLatest(&consensus.FinalHeader{Header: &h, Cert: *o.c.finalization(&h)})
		}},
		{"empty answer", typeGetHeaders, func(*oracle, request, []byte) []byte { return []byte{} }},
		{"headers of another block", typeGetHeaders, func(o *oracle, _ request, _ []byte) []byte {
			return encodeHeaders([]*consensus.Header{o.chain[2].Header})
		}},
		{"headers with a gap", typeGetHeaders, func(o *oracle, r request, good []byte) []byte {
			hs, _ := decodeHeaders(good)
			return encodeHeaders(slices.Delete(hs, 1, 2))
		}},
		{"headers with one changed", typeGetHeaders, func(o *oracle, r request, good []byte) []byte {
			hs, _ := decodeHeaders(good)
			hs[len(hs)-1].State[0]++
			return encodeHeaders(hs)
		}},
		{"more headers than asked for", typeGetHeaders, func(o *oracle, r request, good []byte) []byte {
			r.most++
			return o.answer(r)
		}},
		{"leading certificate that does not decode", typeGetLeading, func(*oracle, request, []byte) []byte { return []byte{typeLeading} }},
		{"leading certificate with a forged signature", typeGetLeading, func(o *oracle, _ request, _ []byte) []byte {
			cert := o.c.nullification(1 << 40)
			cert.Signature[3]++
			return encodeLeading(cert)
		}},
		{"run that does not decode", typeGetRun, func(*oracle, request, []byte) []byte { return []byte{typeRun} }},
		{"run with a forged certificate", typeGetRun, func(o *oracle, r request, _ []byte) []byte {
			lie := o.run(r.from)
			lie.cert.Signature = o.c.nullification(1).Signature
			return lie.encode()
		}},
		{"run of another height", typeGetRun, func(o *oracle, r request, _ []byte) []byte { return o.run(r.from + 1).encode() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, 7)
			o := newOracle(c, 40)
			liars := []int{1, 4}
			o.spoil = func(to int, r request, answer []byte) ([]byte, error) {
				if r.typ == tc.typ && slices.Contains(liars, to) {
					return tc.lie(o, r, answer), nil
				}
				return answer, nil
			}
			f := c.follower(6, o)
			work := func() {
				for start := range 7 { // everybody is asked first once
					f.turn(start)
					tip, err := f.Advance(context.Background())
					if err != nil || tip.Hash() != o.top().Hash() {
						t.Fatalf("tip %v, %v", tip, err)
					}
					f.turn(start)
					f.kept = map[consensus.Height]trusted{}
					f.turn(start)
					checkHeaders(t, f, o, 20, 30)
					f.turn(start)
					_, err = f.run(context.Background(), 20)
					must(t, err)
					log := emptyLog(t)
					must(t, f.Adopt(context.Background(), log, 20))
					must(t, log.Close())
				}
			}
			work()
			work()
			var named []int
			for _, l := range f.Liars() {
				if named = append(named, l.Member); l.Reason == "" {
					t.Errorf("%d without a reason", l.Member)
				}
			}
			if slices.Sort(named); !slices.Equal(named, liars) {
				t.Fatalf("named %v, want %v", named, liars)
			}
			before := o.count(tc.typ, liars...)
			work()
			if n := o.count(tc.typ, liars...); n != before {
				t.Errorf("the liars were asked %d times more", n-before)
			}
		})
	}
}

// TestFollowerPatience: members that are silent, refuse or do not hold something are nobody's liars and are asked again;
// when nobody answers, the error says so.
func TestFollowerPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		o := newOracle(c, 40)
		dead := map[int]bool{0: true, 1: true, 2: true, 3: true}
		f := c.follower(-1, slow{o, func(to int) bool { return dead[to] }})
		if _, err := f.Advance(context.Background()); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("nobody answers: %v", err)
		}
		delete(dead, 2)
		_, err := f.Advance(context.Background())
		must(t, err)
		checkHeaders(t, f, o, 1, 20)
		dead[2] = true
		if _, err := f.Headers(context.Background(), 10, 40); err != nil {
			t.Errorf("what is known: %v", err)
		}
		f.kept = map[consensus.Height]trusted{}
		if _, err := f.Headers(context.Background(), 10, 30); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("nobody answers: %v", err)
		}
		clear(dead)
		checkHeaders(t, f, o, 1, 20)
		if n := len(f.Liars()); n != 0 {
			t.Errorf("%d liars", n)
		}
		o.spoil = func(to int, r request, answer []byte) ([]byte, error) {
			if to == 1 || r.typ == typeGetLatest {
				return answer, nil
			}
			return []byte{typeNothing}, nil
		}
		f.kept = map[consensus.Height]trusted{}
		f.turn(2)
		checkHeaders(t, f, o, 1, 20)
	})
}

// slow is a Requester where some members never answer.
type slow struct {
	Requester
	silent func(int) bool
}

func (s slow) Request(ctx context.Context, to int, b []byte) ([]byte, error) {
	if s.silent(to) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(10 * time.Millisecond)
	return s.Requester.Request(ctx, to, b)
}

// TestFollowerContradiction: two finalised blocks at one height end it; nobody is blamed for telling.
func TestFollowerContradiction(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 20)
	f := c.follower(-1, o)
	_, err := f.Advance(context.Background())
	must(t, err)
	checkHeaders(t, f, o, 10, 20)
	other := newOracle(c, 20)
	for h := 15; h <= 20; h++ {
		hd := *other.chain[h].Header
		hd.State[0], hd.Parent = 1, other.chain[h-1].Header.Hash()
		other.chain[h].Header = &hd
	}
	o.chain = other.chain
	if _, err := f.Advance(context.Background()); !errors.Is(err, ErrHalted) {
		t.Errorf("another tip at the same height: %v", err)
	}
	longer := newOracle(c, 30)
	copy(longer.chain, other.chain)
	for h := 21; h <= 30; h++ {
		hd := *longer.chain[h].Header
		hd.Parent = longer.chain[h-1].Header.Hash()
		longer.chain[h].Header = &hd
	}
	o.chain = longer.chain
	_, err = f.Advance(context.Background())
	must(t, err)
	if _, err := f.Headers(context.Background(), 10, 25); !errors.Is(err, ErrHalted) {
		t.Errorf("a tip on another chain: %v", err)
	}
	if n := len(f.Liars()); n != 0 {
		t.Errorf("%d liars", n)
	}
}

// TestFollowerBounded: what is kept has a bound, the tip stays, and what went is fetched again.
func TestFollowerBounded(t *testing.T) {
	c := newCluster(t, 4)
	n := consensus.Height(keptHeaders + 8000)
	o := newOracle(c, int(n))
	index := map[consensus.Hash]int{}
	for i, b := range o.chain {
		index[b.Header.Hash()] = i
	}
	f := c.follower(-1, quick{o, index})
	_, err := f.Advance(context.Background())
	must(t, err)
	most := int(n/maxAnswerHeaders) + 10
	for range 3 {
		before := o.count(typeGetHeaders, 0, 1, 2, 3)
		for to := n; to > 5000; to -= 5000 {
			checkHeaders(t, f, o, to-4999, to)
			if len(f.kept) > keptHeaders || f.bytes > keptHeaderBytes {
				t.Fatalf("%d headers of %d bytes kept", len(f.kept), f.bytes)
			}
		}
		if _, ok := f.kept[n]; !ok || len(f.kept) < keptHeaders/2 {
			t.Errorf("%d kept, the tip %v", len(f.kept), ok)
		}
		if again := o.count(typeGetHeaders, 0, 1, 2, 3) - before; again == 0 || again > most {
			t.Errorf("%d requests for a chain longer than what is kept", again)
		}
		most = most/2 + 1
	}
	many := c.follower(-1, o)
	wide := *c.genesis
	for s := range consensus.MaxShards {
		wide.Links = append(wide.Links, consensus.Link{Shard: consensus.ShardID(s)})
	}
	for h := consensus.Height(1); h < 3000; h++ {
		w := wide
		w.Height = h
		many.tip = trusted{&w, consensus.Hash{byte(h), byte(h >> 8)}}
		if many.keep(many.tip); many.bytes > keptHeaderBytes {
			t.Fatalf("%d bytes kept", many.bytes)
		}
	}
}

// quick is an oracle that finds blocks by hash without a search.
type quick struct {
	*oracle
	index map[consensus.Hash]int
}

func (q quick) Request(ctx context.Context, to int, b []byte) ([]byte, error) {
	r, err := decodeRequest(b)
	if err != nil || r.typ != typeGetHeaders {
		return q.oracle.Request(ctx, to, b)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked[to] = append(q.asked[to], r)
	var hs []*consensus.Header
	for i := q.index[r.hash]; i > 0 && len(hs) < r.most; i-- {
		hs = append(hs, q.chain[i].Header)
	}
	return encodeHeaders(hs), nil
}
