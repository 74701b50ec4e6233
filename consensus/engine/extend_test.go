package engine

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// votedLog is a log with a validator's vote and the oracle's blocks up to a height, all synced.
func votedLog(t *testing.T, fs vfs.FS, o *oracle, height consensus.Height) *blocklog.Log {
	t.Helper()
	l := openLog(t, fs)
	vote := consensus.Vote{Statement: consensus.Statement{Kind: consensus.Nullify, Shard: testShard, View: 3}, Validator: 3}
	must(t, l.AppendRecord(simplex.Record{Vote: &vote}))
	for h := consensus.Height(1); h <= height; h++ {
		must(t, l.AppendBlock(o.chain[h]))
		must(t, l.AppendFinal(o.c.finalization(o.chain[h].Header)))
	}
	must(t, l.Sync())
	return l
}

// TestExtend: a log with votes goes on from where it is, keeps its votes, and gets no floor.
func TestExtend(t *testing.T) {
	for _, from := range []consensus.Height{0, 7} {
		c := newCluster(t, 4)
		o := newOracle(c, 40)
		f := c.follower(3, o)
		fs := vfs.NewCrashableMem()
		l := votedLog(t, fs, o, from)
		if err := f.Adopt(context.Background(), l, 30); err == nil {
			t.Error("a log with votes is adopted")
		}
		must(t, f.Extend(context.Background(), l, 30))
		must(t, f.Extend(context.Background(), l, 20))
		must(t, l.Close())
		l = openLog(t, fs.CrashClone(vfs.CrashCloneCfg{})) // it was synced
		final, hash := l.Final()
		votes := slices.ContainsFunc(l.Records(), func(r simplex.Record) bool { return r.Vote != nil && r.Vote.View == 3 })
		if final != 30 || hash != o.chain[30].Header.Hash() || l.Base() != 1 || !votes || floorOf(l) != 0 {
			t.Errorf("from %d: final %d, from %d on, votes %t, floor %d", from, final, l.Base(), votes, floorOf(l))
		}
		must(t, l.Close())
	}
}

// TestExtendPruned: nobody keeps the blocks that the log lacks.
func TestExtendPruned(t *testing.T) {
	c := newCluster(t, 4)
	o := newOracle(c, 40)
	o.spoil = func(_ int, r request, b []byte) ([]byte, error) {
		if r.typ == typeGetRun && r.from < 20 {
			return []byte{typeNothing}, nil
		}
		return b, nil
	}
	l := votedLog(t, vfs.NewMem(), o, 7)
	defer l.Close()
	if err := c.follower(3, o).Extend(context.Background(), l, 30); !errors.Is(err, ErrNoAnswer) {
		t.Error(err)
	}
	if final, _ := l.Final(); final != 7 {
		t.Errorf("final %d", final)
	}
}
