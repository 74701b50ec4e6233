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
