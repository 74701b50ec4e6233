package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// TestBehind: a node that was away for so long that the others have dropped what it lacks ends with ErrBehind, but not on the
// word of a third, nor of those who are no further.
func TestBehind(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pruned []int // members that say that they do not hold a run
		silent []int // members that do not answer to that
		behind bool
	}{
		{"two of them say so", []int{0, 1}, []int{2}, true},
		{"all say so", []int{0, 1, 2}, nil, true},
		{"one has it", []int{0, 1}, nil, false},
		{"one says so", []int{0}, []int{1, 2}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 4)
				c.start(all(4)...)
				c.reach(2, time.Minute, all(4)...)
				c.stop(3)
				h, _ := c.nodes[0].disk.final()
				c.reach(h+80, 10*time.Minute, 0, 1, 2)
				c.wire.mu.Lock()
				c.wire.asked = func(from, to int, req []byte) ([]byte, error, bool) {
					if r, err := decodeRequest(req); err != nil || from != 3 || r.typ != typeGetRun {
						return nil, nil, false
					}
					switch {
					case slices.Contains(tc.pruned, to):
						return []byte{typeNothing}, nil, true
					case slices.Contains(tc.silent, to):
						return nil, context.DeadlineExceeded, true
					}
					return nil, nil, false
				}
				c.wire.mu.Unlock()
				c.start(3)
				if tc.behind {
					<-c.nodes[3].Done()
					if err := c.nodes[3].Err(); !errors.Is(err, ErrBehind) {
						t.Error(err)
					}
					must(t, c.nodes[3].log.Close())
					c.stop(0, 1, 2)
					return
				}
				if len(tc.silent) == 0 {
					c.reach(h+80, time.Minute, 3)
				} else {
					time.Sleep(30 * time.Second)
				}
				c.stop(all(4)...)
			})
		})
	}
}

// TestCarry: a log whose blocks end too far below goes on as one that begins high up, with the votes, the certificates and the
// undecided blocks of later views; with a floor where enough others say how far they are, and without where they do not.
func TestCarry(t *testing.T) {
	for _, answer := range []bool{true, false} {
		c := newCluster(t, 4)
		o := newOracle(c, 40)
		o.spoil = func(_ int, r request, b []byte) ([]byte, error) {
			if r.typ == typeGetLeading && !answer {
				return nil, errors.New("not reached")
			}
			return b, nil
		}
		fs := vfs.NewCrashableMem()
		old := votedLog(t, fs, o, 7)
		root := o.chain[30].Header.View
		late := consensus.Vote{Statement: consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: root + 1000}, Validator: 3}
		cert := *o.c.finalization(o.chain[39].Header)
		undecided := o.chain[38]
		must(t, old.AppendRecord(simplex.Record{Vote: &late}))
		must(t, old.AppendRecord(simplex.Record{Cert: &cert}))
		must(t, old.AppendBlock(undecided))
		must(t, old.Sync())
		must(t, old.Close())
		old = openLog(t, fs) // Records is what a log held when it was opened
		made := vfs.NewCrashableMem()
		l := openLog(t, made)
		must(t, c.follower(3, o).Carry(t.Context(), old, l, 30))
		if err := c.follower(3, o).Carry(t.Context(), old, l, 30); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("again: %v", err)
		}
		must(t, old.Close())
		must(t, l.Close())
		l = openLog(t, made.CrashClone(vfs.CrashCloneCfg{})) // it was synced
		has := func(ok func(simplex.Record) bool) bool { return slices.ContainsFunc(l.Records(), ok) }
		final, hash := l.Final()
		votes := has(func(r simplex.Record) bool { return r.Vote != nil && r.Vote.Statement == late.Statement })
		certs := has(func(r simplex.Record) bool { return r.Cert != nil && r.Cert.Statement == cert.Statement })
		if final != 30 || hash != o.chain[30].Header.Hash() || l.Base() != 30 || !votes || !certs || !l.Has(undecided.Header.Hash()) || (floorOf(l) > 0) != answer {
			t.Errorf("answers %t: final %d, from %d on, vote %t, certificate %t, block %t, floor %d", answer, final, l.Base(), votes, certs, l.Has(undecided.Header.Hash()), floorOf(l))
		}
		must(t, l.Close())
	}
}

// TestFromFork: a member that alone saw a block notarized, certified it and voted to finalize it comes back from a crash after the
// others have nullified its view and gone on: with its vote, and without the block.
func TestFromFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		const lone = 3
		view := consensus.View(8)
		for c.committee.Leader(view) != lone {
			view++
		}
		var cut, forked, back bool // the wire's mutex
		c.wire.sent = func(from, to int, class Class, payload []byte) bool {
			if cut && (from == lone || to == lone) {
				return false
			}
			in, err := decodeInbound(class, payload)
			if err != nil || in.proposal != nil || in.part != nil {
				return err == nil
			}
			st := consensus.Statement{}
			if in.vote != nil {
				st = in.vote.Statement
			} else {
				st = in.cert.Statement
			}
			switch {
			case st.View != view || back:
				return true
			case from == lone && st.Kind == consensus.Finalize:
				cut, forked = true, true
				return false
			case st.Kind == consensus.Notarize:
				return to == lone && from != lone // nobody else learns of the quorum
			}
			return true
		}
		c.start(all(4)...)
		c.await("the fork", 5*time.Minute, func() bool {
			c.wire.mu.Lock()
			defer c.wire.mu.Unlock()
			return forked
		})
		undecided := slices.DeleteFunc(c.nodes[lone].log.Undecided(), func(hash consensus.Hash) bool {
			h, err := c.nodes[lone].log.Header(hash)
			return err != nil || h.View != view
		})
		c.crash(lone)
		h, _ := c.nodes[0].disk.final()
		c.reach(h+5, 5*time.Minute, 0, 1, 2)
		c.wire.mu.Lock()
		cut, back = false, true
		c.wire.mu.Unlock()
		c.start(lone)
		finalize := slices.ContainsFunc(c.nodes[lone].log.Records(), func(r simplex.Record) bool {
			return r.Vote != nil && r.Vote.Kind == consensus.Finalize && r.Vote.View == view && slices.Contains(undecided, r.Vote.Block)
		})
		if !finalize {
			t.Errorf("the vote to finalize the fork at view %d is not in the log", view)
		}
		above, _ := c.nodes[0].disk.final()
		c.await("its signature", time.Minute, func() bool {
			final, _ := c.nodes[0].log.Final()
			for h := above + 1; h <= final; h++ {
				if _, cert, err := c.nodes[0].log.Finalization(h); err == nil && cert.Signers.Has(lone) {
					return true
				}
			}
			return false
		})
		for _, hash := range undecided {
			for _, n := range c.nodes {
				if slices.Contains(n.disk.chainOf(), hash) {
					t.Errorf("%s, which the others gave up, is final", hash.Short())
				}
			}
		}
		c.agree()
		c.stop(all(4)...)
	})
}
