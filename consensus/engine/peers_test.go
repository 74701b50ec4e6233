package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// watcher is an Observer that keeps the penalties it is told of.
type watcher struct {
	deaf
	mu     sync.Mutex
	guilty []int
	told   []string
}

func (w *watcher) Penalised(i int, reason string, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guilty, w.told = append(w.guilty, i), append(w.told, reason)
}

func (w *watcher) seen() ([]int, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.guilty), strings.Join(w.told, "; ")
}

// alone starts node 0 of four, with nobody else running.
func alone(t *testing.T) (*cluster, *watcher) {
	return aloneAfter(t, func(*blocklog.Log) error { return nil })
}

// aloneAfter is alone with something done to the log before.
func aloneAfter(t *testing.T, prepare func(*blocklog.Log) error) (*cluster, *watcher) {
	c, w := newCluster(t, 4), &watcher{}
	c.options = func(i int, cfg *Config) {
		cfg.Observer = w
		must(t, prepare(cfg.Log))
	}
	for i := 1; i < 4; i++ {
		c.wire.unplug(i)
	}
	c.start(0)
	return c, w
}

// leaderOf is the first validator but node 0 that leads a view, and the view.
func (c *cluster) leaderOf() (int, consensus.View) {
	for v := consensus.View(1); ; v++ {
		if l := c.committee.Leader(v); l != 0 {
			return l, v
		}
	}
}

// proposal makes a valid first proposal for a view with the given time.
func (c *cluster) proposal(leader int, v consensus.View, at time.Time) *consensus.Proposal {
	body := []byte("proposed by hand")
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: testChain, Shard: testShard, View: v, Height: 1, TimeMs: at.UnixMilli(), Parent: c.genesis.Hash(),
		Body: consensus.NewBodyRef(body), Committee: c.committee.Hash(), NextCommittee: c.committee.Hash(),
	}
	return &consensus.Proposal{Block: consensus.Block{Header: h, Body: body}, Vote: *c.vote(leader, consensus.Notarize, v, h.Hash())}
}

func (c *cluster) vote(i int, k consensus.Kind, v consensus.View, block consensus.Hash) *consensus.Vote {
	st := consensus.Statement{Kind: k, Shard: testShard, View: v, Block: block}
	return &consensus.Vote{Statement: st, Validator: uint16(i), Signature: c.signers[i].Sign(consensus.VoteMessage(testChain, st))}
}

// TestInbound: what each kind of bad message costs, and that it is counted by reason.
func TestInbound(t *testing.T) {
	for _, tc := range []struct {
		name    string
		class   Class
		from    int
		payload func(*cluster) []byte
		count   func(Counters) uint64
		penalty bool
	}{
		{"empty", ClassVote, 1, func(*cluster) []byte { return nil }, func(c Counters) uint64 { return c.DroppedMalformed }, true},
		{"no message", ClassVote, 1, func(*cluster) []byte { return []byte("hello") }, func(c Counters) uint64 { return c.DroppedMalformed }, true},
		{"vote among the proposals", ClassProposal, 1, func(c *cluster) []byte {
			return encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{}))
		}, func(c Counters) uint64 { return c.DroppedMalformed }, true},
		{"stranger", ClassVote, -1, func(c *cluster) []byte {
			return encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{}))
		}, func(c Counters) uint64 { return c.DroppedStranger }, false},
		{"vote of another", ClassVote, 2, func(c *cluster) []byte {
			return encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{}))
		}, func(c Counters) uint64 { return c.Penalties }, true},
		{"certificate with a bad signature", ClassVote, 2, func(c *cluster) []byte {
			st := consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: 1}
			return encodeCertificate(&consensus.Certificate{Statement: st, Signers: consensus.Signers{0x0f}, Signature: consensus.Signature{1}})
		}, func(c Counters) uint64 { return c.Penalties }, true},
		{"proposal from the future", ClassProposal, 1, func(c *cluster) []byte {
			l, v := c.leaderOf()
			return encodeProposal(c.proposal(l, v, time.Now().Add(3*time.Second)))
		}, func(c Counters) uint64 { return c.DroppedClock }, false},
		{"proposal by a clock slightly ahead", ClassProposal, 1, func(c *cluster) []byte {
			l, v := c.leaderOf()
			return encodeProposal(c.proposal(l, v, time.Now().Add(time.Second)))
		}, func(c Counters) uint64 { return 1 + c.DroppedClock + c.DroppedMalformed }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := alone(t)
				c.wire.deliver(tc.from, 0, tc.class, tc.payload(c))
				synctest.Wait()
				if n := tc.count(c.nodes[0].Status().Counters); n != 1 {
					t.Errorf("counted %d times: %+v", n, c.nodes[0].Status().Counters)
				}
				guilty, why := w.seen()
				if got := slices.Equal(guilty, []int{tc.from}); got != tc.penalty {
					t.Errorf("penalised %v (%s), want %v", guilty, why, tc.penalty)
				}
				c.stop(0)
			})
		})
	}
}

// TestPenaltyExpires: a penalised peer's messages and requests are refused, it is not asked for blocks, and after its
// time it is heard again; a second offence lasts longer.
func TestPenaltyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := alone(t)
		e := c.nodes[0].Engine
		offend := func() { c.wire.deliver(1, 0, ClassVote, []byte{0xff}); synctest.Wait() }
		heard := func() bool {
			before := e.Status().Validators[1].Seen
			time.Sleep(time.Millisecond)
			c.wire.deliver(1, 0, ClassVote, encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{})))
			synctest.Wait()
			return e.Status().Validators[1].Seen != before
		}
		request := func() error {
			_, err := e.serve(context.Background(), 1, request{typ: typeGetLatest}.encode())
			return err
		}
		if !heard() || request() != nil {
			t.Fatal("not heard at first")
		}
		offend()
		if heard() || !errors.Is(request(), errPenalty) {
			t.Error("heard while in penalty")
		}
		if s := e.Status(); s.Counters.DroppedPenalty != 1 || s.Counters.RefusedPenalty != 1 || s.Validators[1].Strikes != 1 || time.Until(s.Validators[1].PenaltyUntil) <= 0 {
			t.Errorf("status %+v", s)
		}
		time.Sleep(penaltyFirst)
		if !heard() || request() != nil {
			t.Error("not heard after the penalty")
		}
		offend()
		time.Sleep(penaltyFirst)
		if heard() {
			t.Error("heard before the second, longer penalty was over")
		}
		time.Sleep(penaltyFirst)
		if !heard() {
			t.Error("not heard after the second penalty")
		}
		c.stop(0)
	})
}

func TestPenaltySpan(t *testing.T) {
	p, now := newPenalties(1), time.Unix(0, 0)
	var got []time.Duration
	for range 9 {
		got = append(got, p.add(0, now).Sub(now))
	}
	m := time.Minute
	if want := []time.Duration{m, 2 * m, 4 * m, 8 * m, 16 * m, 32 * m, time.Hour, time.Hour, time.Hour}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestFlood: a peer above its rate is cut, and others are not.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := alone(t)
		vote := encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{}))
		for range votesBurst + 100 {
			c.wire.deliver(1, 0, ClassVote, vote)
			synctest.Wait()
		}
		c.wire.deliver(2, 0, ClassVote, encodeVote(c.vote(2, consensus.Nullify, 1, consensus.Hash{})))
		synctest.Wait()
		s := c.nodes[0].Status()
		if guilty, _ := w.seen(); s.Counters.DroppedRate != 100 || len(guilty) != 0 || s.Validators[2].View != 1 {
			t.Errorf("dropped %d, penalised %v", s.Counters.DroppedRate, guilty)
		}
		for range requestsBurst + 5 {
			c.nodes[0].serve(context.Background(), 3, request{typ: typeGetLatest}.encode())
		}
		if n := c.nodes[0].Status().Counters.RefusedRate; n != 5 {
			t.Errorf("refused %d requests", n)
		}
		c.stop(0)
	})
}

// TestBackpressure: while the application is far behind, messages wait in the network and nothing is lost of what was
// asked of it.
func TestBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := alone(t)
		e := c.nodes[0].Engine
		hold, ran := make(chan struct{}), 0
		e.post(func() error {
			e.enqueue(func() outcome { <-hold; return nil })
			for range maxJobs + 1 {
				e.enqueue(func() outcome { return func() error { ran++; return nil } })
			}
			return nil
		})
		synctest.Wait()
		for range 200 {
			c.wire.deliver(1, 0, ClassVote, encodeVote(c.vote(1, consensus.Nullify, 1, consensus.Hash{})))
		}
		synctest.Wait()
		if waiting := len(c.wire.ports[0].in[ClassVote]); waiting < 200-cap(e.votes)-1 {
			t.Errorf("%d of 200 messages wait", waiting)
		}
		close(hold)
		synctest.Wait()
		if waiting := len(c.wire.ports[0].in[ClassVote]); waiting != 0 || ran != maxJobs+1 {
			t.Errorf("%d messages wait, %d jobs ran", waiting, ran)
		}
		c.stop(0)
	})
}

// TestLyingPeers: while it catches up, a node gets garbage, a run that is not linked, one with a forged certificate, and
// another block than the one it fetches. Each costs its sender its place; the node catches up from the others.
func TestLyingPeers(t *testing.T) {
	for _, tc := range []struct {
		name string
		lie  func(req request, honest []byte) []byte // nil: no lie
		why  string
	}{
		{"garbage", func(request, []byte) []byte { return []byte("garbage") }, "malformed"},
		{"a hole in the run", func(r request, honest []byte) []byte {
			return changeRun(r, honest, func(x *run) { x.blocks = append(x.blocks[:1], x.blocks[2:]...) })
		}, "broken at height"},
		{"a run from elsewhere", func(r request, honest []byte) []byte {
			return changeRun(r, honest, func(x *run) { x.blocks = x.blocks[1:] })
		}, "broken at height"},
		{"certificate for another block", func(r request, honest []byte) []byte {
			return changeRun(r, honest, func(x *run) { x.blocks = x.blocks[:len(x.blocks)-1] })
		}, "not for its end"},
		{"forged certificate", func(r request, honest []byte) []byte {
			return changeRun(r, honest, func(x *run) { x.cert.Signers = consensus.Signers{0x0f}; x.cert.Signature[5]++ })
		}, "does not verify"},
		{"body exchanged", func(r request, honest []byte) []byte {
			return changeRun(r, honest, func(x *run) { x.blocks[0].Body = []byte("other") })
		}, "body does not match"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newCluster(t, 4), &watcher{}
				c.options = func(i int, cfg *Config) {
					cfg.Limits = nearReach()
					if i == 3 {
						cfg.Observer = w
					}
				}
				c.wire.unplug(3)
				c.start(0, 1, 2)
				c.reach(10, 5*time.Minute, 0, 1, 2)
				c.wire.mu.Lock()
				c.wire.asked = func(from, to int, req []byte) ([]byte, error, bool) {
					r, err := decodeRequest(req)
					if from != 3 || to != 1 || err != nil || r.typ == typeGetLatest {
						return nil, nil, false
					}
					honest, err := c.nodes[2].serve(context.Background(), 3, req)
					if err != nil {
						return nil, err, true
					}
					lie := tc.lie(r, honest)
					return lie, nil, lie != nil
				}
				c.wire.mu.Unlock()
				c.start(3)
				c.reach(14, 30*time.Second, 3)
				if guilty, why := w.seen(); !slices.Equal(guilty, []int{1}) || !strings.Contains(why, tc.why) {
					t.Errorf("penalised %v: %s", guilty, why)
				}
				c.stop(all(4)...)
				c.agree()
			})
		})
	}
}

// changeRun changes an honest run; nil if the request is for something else.
func changeRun(r request, honest []byte, change func(*run)) []byte {
	x, err := decodeRun(honest)
	if err != nil || r.typ != typeGetRun {
		return nil
	}
	change(&x)
	return x.encode()
}

// TestLyingFetch: a peer that answers a fetch with another block loses its place, and the block comes from another peer.
func TestLyingFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t, 4), &watcher{}
		c.options = func(i int, cfg *Config) {
			if i == 3 {
				cfg.Observer = w
			}
		}
		c.start(all(4)...)
		c.reach(3, time.Minute, all(4)...)
		c.stop(3)
		c.reach(8, time.Minute, 0, 1, 2)
		var lied atomic.Int32
		c.wire.mu.Lock()
		c.wire.asked = func(from, to int, req []byte) ([]byte, error, bool) {
			r, err := decodeRequest(req)
			if err != nil || from != 3 || r.typ != typeGetBlock || to != 1 {
				return nil, nil, false
			}
			lied.Add(1)
			return blockAnswer{block: c.proposal(1, 1, time.Now()).Block}.encode(), nil, true
		}
		c.wire.mu.Unlock()
		c.start(3)
		c.reach(12, time.Minute, 3)
		if guilty, why := w.seen(); lied.Load() == 0 || !slices.Equal(slices.Compact(guilty), []int{1}) || !strings.Contains(why, "another block") {
			t.Errorf("%d lies, penalised %v: %s", lied.Load(), guilty, why)
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// nearReach makes a node ask for runs when it is only a few blocks behind.
func nearReach() simplex.Limits {
	l := simplex.DefaultLimits()
	l.Reach = 4
	return l
}

// TestNobodyHelps: a node that learns that it is behind, with nobody to serve it, rests between attempts and goes on as soon
// as somebody does.
func TestNobodyHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(_ int, cfg *Config) { cfg.Limits = nearReach() }
		c.wire.unplug(3)
		c.start(0, 1, 2)
		c.reach(10, 5*time.Minute, 0, 1, 2)
		var refused atomic.Int32
		var helpful atomic.Bool
		c.wire.mu.Lock()
		c.wire.asked = func(from, to int, req []byte) ([]byte, error, bool) {
			if r, err := decodeRequest(req); from != 3 || err != nil || r.typ == typeGetLatest || helpful.Load() {
				return nil, nil, false
			}
			refused.Add(1)
			return nil, errBusy, true
		}
		c.wire.mu.Unlock()
		c.start(3)
		time.Sleep(10 * time.Second)
		if h, _ := c.nodes[3].disk.final(); h != 0 || refused.Load() < 5 || refused.Load() > 400 {
			t.Errorf("height %d after %d refusals", h, refused.Load())
		}
		helpful.Store(true)
		c.reach(consensus.Height(len(c.nodes[0].disk.chainOf()))+4, 30*time.Second, 3)
		c.stop(all(4)...)
		c.agree()
	})
}

// TestRuns builds a log with long bodies and rare finalizations and reads it as a peer would, run by run.
func TestRuns(t *testing.T) {
	for _, tc := range []struct {
		name      string
		blocks    int
		bodyBytes int
		certEvery int
		wantRuns  int
		wantLinks bool
	}{
		{"small blocks, each final by itself", 300, 100, 1, 1, false},
		{"more than a run may have", 1500, 10, 30, 2, false},
		{"groups that fit", 30, 300 << 10, 5, 3, false},
		{"groups that do not fit", 24, 900 << 10, 12, 6, true},
		{"a block larger than a run", 3, 5 << 20, 1, 3, false},
		{"many empty blocks under one finalization", 1100, 0, 1100, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCluster(t, 4)
			l, err := blocklog.Open(blocklog.Options{FS: vfs.Default, Dir: t.TempDir() + "/log", Chain: testChain, Shard: testShard, Create: true, Retention: 10_000})
			must(t, err)
			defer l.Close()
			e := &Engine{c: Config{Chain: testChain, Committee: c.committee, Keys: c.keys, Log: l}}
			parent := c.genesis.Hash()
			for h := 1; h <= tc.blocks; h++ {
				body := bytes.Repeat([]byte{byte(h)}, tc.bodyBytes)
				bl := consensus.Block{Body: body, Header: &consensus.Header{
					Version: consensus.HeaderVersion, Chain: testChain, Shard: testShard, View: consensus.View(h), Height: consensus.Height(h), TimeMs: int64(h),
					Parent: parent, Body: consensus.NewBodyRef(body),
				}}
				parent = bl.Header.Hash()
				must(t, l.AppendBlock(bl))
				if h%tc.certEvery == 0 {
					must(t, l.AppendFinal(c.finalization(bl.Header)))
				}
			}
			next, runs, links := consensus.Height(1), 0, false
			for next <= consensus.Height(tc.blocks) {
				b, err := e.serveRun(next)
				must(t, err)
				if len(b) > MaxAnswerBytes {
					t.Fatalf("answer of %d bytes", len(b))
				}
				r, err := decodeRun(b)
				must(t, err)
				must(t, e.c.verifier().run(r, next))
				next = r.blocks[len(r.blocks)-1].Header.Height + 1
				runs++
				links = links || len(r.links) > 0
			}
			if runs != tc.wantRuns || links != tc.wantLinks {
				t.Errorf("%d runs, links %v; want %d, %v", runs, links, tc.wantRuns, tc.wantLinks)
			}
			if b, err := e.serveRun(next); b != nil || err != nil {
				t.Errorf("above the tip: %d bytes, %v", len(b), err)
			}
		})
	}
}

// finalization makes a real certificate by validators 0 to 2 of four, or as many as are a quorum.
func (c *cluster) finalization(h *consensus.Header) *consensus.Certificate {
	return c.certify(consensus.Statement{Kind: consensus.Finalize, Shard: testShard, View: h.View, Block: h.Hash()})
}

func (c *cluster) certify(st consensus.Statement) *consensus.Certificate {
	cert := &consensus.Certificate{Statement: st, Signers: consensus.NewSigners(len(c.signers))}
	var sigs []consensus.Signature
	for i := 0; !c.committee.IsQuorum(c.committee.PowerOf(cert.Signers)); i++ {
		sigs = append(sigs, c.signers[i].Sign(consensus.VoteMessage(testChain, st)))
		cert.Signers.Add(i)
	}
	var err error
	cert.Signature, err = c.keys.Aggregate(sigs)
	must(c.tb, err)
	return cert
}
