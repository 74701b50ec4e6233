package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// double is a second process with a member's keys: it sends in the member's name and hears all that is sent to it.
func (c *cluster) double(i int, n *node) Config {
	c.tb.Helper()
	c.nodes = append(c.nodes, n)
	c.signers = append(c.signers, c.signers[i])
	c.wire.mu.Lock()
	c.wire.ports = append(c.wire.ports, nil)
	c.wire.mu.Unlock()
	at := len(c.nodes) - 1
	cfg := c.config(at)
	cfg.Index = i
	n.app.padding = 1 // it has another pool of transactions, too
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	p := c.wire.ports[at]
	p.self = i
	c.wire.sent = func(from, to int, class Class, payload []byte) bool {
		if to == i {
			time.AfterFunc(c.wire.delay, func() { c.wire.deliver(from, at, class, payload) })
		}
		return true
	}
	return cfg
}

// TestTwoProcessesOnOneKey: while a validator runs, another process begins with its key, and with an old copy of its data or
// with none. One of the two stops, says why, and the shard goes on.
func TestTwoProcessesOnOneKey(t *testing.T) {
	for name, copied := range map[string]bool{"an old copy": true, "an empty log": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4)
				c.start(all(4)...)
				c.reach(3, time.Minute, all(4)...)
				fs := vfs.NewCrashableMem()
				n := &node{fs: fs, view: fs, disk: &toyDisk{hash: c.genesis.Hash()}}
				if copied {
					n.disk = c.nodes[3].disk.copy()
					n.fs = c.nodes[3].fs.CrashClone(vfs.CrashCloneCfg{})
					n.view = n.fs
				}
				c.reach(8, time.Minute, all(4)...)
				e, err := Start(context.Background(), c.double(3, n))
				must(t, err)
				n.Engine = e
				c.await("one of the two stops", time.Minute, func() bool {
					return n.Err() != nil || c.nodes[3].Err() != nil
				})
				for i, n := range c.nodes {
					if err := n.Err(); err != nil && (!errors.Is(err, ErrKeyElsewhere) || i < 3) {
						t.Errorf("node %d: %v", i, err)
					}
				}
				at, _ := c.nodes[0].disk.final()
				c.reach(at+10, time.Minute, 0, 1, 2)
				for _, n := range c.nodes {
					if err := n.Close(); err != nil && !errors.Is(err, ErrKeyElsewhere) {
						t.Error(err)
					}
					must(t, n.log.Close())
				}
				c.agree()
			})
		})
	}
}

// TestKeyElsewhereSendsNothing: in the very step in which the engine hears its own key it logs and sends nothing more.
func TestKeyElsewhereSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(0)
		st := consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: 1}
		v := consensus.Vote{Statement: st, Signature: c.signers[0].Sign(consensus.VoteMessage(testChain, st))}
		c.wire.sent = func(from, _ int, _ Class, _ []byte) bool {
			if from == 0 {
				t.Error("something left")
			}
			return true
		}
		cert := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(4)}
		sigs := []consensus.Signature{v.Signature}
		cert.Signers.Add(0)
		for i := 1; i < 3; i++ {
			cert.Signers.Add(i)
			sigs = append(sigs, c.signers[i].Sign(consensus.VoteMessage(testChain, st)))
		}
		var err error
		cert.Signature, err = c.keys.Aggregate(sigs)
		must(t, err)
		c.wire.deliver(1, 0, ClassVote, encodeCertificate(&cert)) // leads to view 2, with its timer, and perhaps a block
		<-c.nodes[0].Done()
		if err := c.nodes[0].Err(); !errors.Is(err, ErrKeyElsewhere) {
			t.Errorf("ended with %v", err)
		}
		for _, r := range c.nodes[0].log.Records() {
			t.Errorf("logged %+v", r)
		}
		must(t, c.nodes[0].log.Close())
	})
}

// TestListensFirst: a copy of the data that is more than a minute old listens before it does anything: it stops without having
// sent a vote while the validator itself runs, and votes after two seconds where that has ended.
func TestListensFirst(t *testing.T) {
	for name, runs := range map[string]bool{"the validator runs": true, "it has ended": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4)
				c.options = func(_ int, cfg *Config) { cfg.App.(*toyApp).every = 1500 * time.Millisecond }
				c.start(all(4)...)
				c.reach(3, time.Minute, all(4)...)
				fs := c.nodes[3].fs.CrashClone(vfs.CrashCloneCfg{})
				n := &node{fs: fs, view: fs, disk: c.nodes[3].disk.copy()}
				if !runs {
					c.stop(3)
				}
				time.Sleep(listenAfter + 5*time.Second)
				at, _ := c.nodes[0].disk.final()
				began := time.Now()
				cfg := c.double(3, n)
				var spoke atomic.Bool
				cfg.Network = &mouth{cfg.Network.(*port), func(class Class, payload []byte) {
					if m, err := decodeInbound(class, payload); err == nil && (m.vote != nil || m.proposal != nil) {
						spoke.Store(true)
					}
				}}
				e, err := Start(context.Background(), cfg)
				must(t, err)
				n.Engine = e
				if runs {
					c.await("the copy stops", time.Second, func() bool { return n.Err() != nil })
					if !errors.Is(n.Err(), ErrKeyElsewhere) || spoke.Load() {
						t.Errorf("ended with %v, voted %v", n.Err(), spoke.Load())
					}
				} else {
					c.wire.mu.Lock()
					c.wire.ports[3], c.wire.sent = c.wire.ports[4], nil // it is the validator now
					c.wire.mu.Unlock()
					c.await("it votes", 30*time.Second, spoke.Load)
					if took := time.Since(began); took < listenLeast || took > 4*listenLeast {
						t.Errorf("it votes after %v", took)
					}
				}
				c.reach(at+5, 2*time.Minute, 0, 1, 2)
				for i, n := range c.nodes {
					if !runs && i == 3 {
						continue // stopped above
					}
					if err := n.Close(); err != nil && !errors.Is(err, ErrKeyElsewhere) {
						t.Error(err)
					}
					must(t, n.log.Close())
				}
				c.agree()
			})
		})
	}
}

// mouth is a network that tells what is sent.
type mouth struct {
	*port
	says func(Class, []byte)
}

func (m *mouth) Send(to int, class Class, payload []byte) {
	m.says(class, payload)
	m.port.Send(to, class, payload)
}

// TestAllListen: a network that was stopped as a whole for long goes on soon after it is started, though everybody listens; and a
// validator alone with a silent majority begins in the end, and can do nothing.
func TestAllListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(all(4)...)
		c.reach(5, time.Minute, all(4)...)
		c.stop(all(4)...)
		at, _ := c.nodes[0].disk.final()
		time.Sleep(time.Hour)
		began := time.Now()
		c.start(0)
		time.Sleep(20 * time.Second)
		if s := c.nodes[0].Status(); s.View == 0 {
			t.Error("alone it never began")
		}
		c.start(1, 2, 3)
		again := time.Now()
		c.reach(at+4, time.Minute, all(4)...)
		if took := time.Since(again); took < listenLeast || took > 10*time.Second {
			t.Errorf("all go on after %v, %v after the first", took, time.Since(began))
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// TestListenHasLimits: lies of a third do not end a validator, and a vote that is in the log does not.
func TestListenHasLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.options = func(_ int, cfg *Config) { cfg.App.(*toyApp).every = 1500 * time.Millisecond }
		c.start(all(4)...)
		c.reach(5, time.Minute, all(4)...)
		c.stop(3)
		time.Sleep(listenAfter + 5*time.Second)
		c.wire.mu.Lock()
		c.wire.asked = func(from, to int, req []byte) ([]byte, error, bool) {
			r, err := decodeRequest(req)
			if from != 3 || to != 1 || err != nil || r.typ != typeGetOwn {
				return nil, nil, false
			}
			st := consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: 1 << 20}
			forged := consensus.Vote{Statement: st, Validator: 3, Signature: c.signers[1].Sign(consensus.VoteMessage(testChain, st))}
			return ownAnswer{vote: &forged}.encode(), nil, true
		}
		c.wire.mu.Unlock()
		at, _ := c.nodes[0].disk.final()
		c.start(3)
		c.reach(at+5, time.Minute, 3)
		c.stop(all(4)...)
		c.agree()
	})
}

// TestListenBelowFloor: who lost its votes and joined with a floor is not taken for another by a vote from before that.
func TestListenBelowFloor(t *testing.T) {
	for name, above := range map[string]bool{"up to the floor": false, "above it": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4)
				c.start(all(4)...)
				c.reach(5, time.Minute, all(4)...)
				c.stop(all(4)...)
				cfg := c.config(3)
				h, hash := cfg.Log.Final()
				last, err := cfg.Log.Header(hash)
				must(t, err)
				floor := last.View + 40
				must(t, cfg.Log.Protect(&simplex.Floor{Shard: testShard, View: floor}, nil))
				must(t, cfg.Log.Close())
				time.Sleep(listenAfter + time.Second)
				lost := consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: floor}
				if above {
					lost.View++
				}
				c.wire.mu.Lock()
				c.wire.asked = func(from, _ int, req []byte) ([]byte, error, bool) {
					r, err := decodeRequest(req)
					if from != 3 || err != nil || r.typ != typeGetOwn {
						return nil, nil, false
					}
					v := consensus.Vote{Statement: lost, Validator: 3, Signature: c.signers[3].Sign(consensus.VoteMessage(testChain, lost))}
					return ownAnswer{vote: &v}.encode(), nil, true
				}
				c.wire.mu.Unlock()
				c.start(all(4)...)
				if above {
					c.await("it stops", 10*time.Second, func() bool { return c.nodes[3].Err() != nil })
					if err := c.nodes[3].Close(); !errors.Is(err, ErrKeyElsewhere) {
						t.Error(err)
					}
					must(t, c.nodes[3].log.Close())
				} else {
					c.reach(h+2, time.Minute, 3)
					c.stop(3)
				}
				c.stop(0, 1, 2)
				c.agree()
			})
		})
	}
}
