package blocklog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// epochs is a chain over several epochs of so many blocks each. Of every epoch but the last there are, above its last block, as
// many echoes as its number, and side blocks that nothing makes final.
type epochs struct {
	chain []consensus.Block // by height, from 1
	last  []int             // places of the last blocks in chain, by epoch
	above [][]consensus.Block
	ends  []consensus.EpochEnd
}

func makeEpochs(n, blocks int) *epochs {
	e := &epochs{}
	parent, height := genesis, consensus.Height(0)
	for epoch := range consensus.Epoch(n) {
		for k := range blocks {
			height++
			b := makeBlock(height, parent, 90, byte(epoch))
			b.Header.Epoch, b.Header.View = epoch, consensus.View(k+1)
			b.Header.Committee = consensus.Hash{0xee, byte(epoch)}
			if b.Header.NextCommittee = b.Header.Committee; k == blocks-1 {
				b.Header.NextCommittee[1]++
			}
			e.chain, parent = append(e.chain, b), b.Header.Hash()
		}
		top := e.chain[len(e.chain)-1].Header
		end := consensus.EpochEnd{Last: top}
		var above []consensus.Block
		for range epoch {
			top = consensus.Echo(top, top.View+1)
			end.Echoes, above = append(end.Echoes, top), append(above, consensus.Block{Header: top, Body: []byte{}})
		}
		end.Cert = *finalization(consensus.Block{Header: top})
		end.Cert.Epoch = epoch
		e.last, e.above, e.ends = append(e.last, len(e.chain)-1), append(e.above, above), append(e.ends, end)
	}
	return e
}

// write appends all of an epoch as an engine does, with a vote of each kind, and says after each Sync what is promised.
func (e *epochs) write(l *Log, epoch int, promise func(final consensus.Height, votes consensus.View)) error {
	from := 0
	if epoch > 0 {
		from = e.last[epoch-1] + 1
	}
	vote := func(k consensus.Kind, v consensus.View) simplex.Record {
		own := ownVote(k, v)
		own.Epoch = consensus.Epoch(epoch)
		return simplex.Record{Vote: own}
	}
	for _, b := range e.chain[from : e.last[epoch]+1] {
		v := b.Header.View
		if err := errors.Join(l.AppendBlock(b), l.AppendRecord(vote(consensus.Notarize, v)), l.Sync()); err != nil {
			return err
		}
		promise(consensus.Height(from), v)
	}
	for _, b := range e.above[epoch] {
		v := b.Header.View
		if err := errors.Join(l.AppendBlock(b), l.AppendRecord(vote(consensus.Finalize, v)), l.Sync()); err != nil {
			return err
		}
		promise(consensus.Height(from), v)
	}
	cert := e.ends[epoch].Cert
	if err := errors.Join(l.AppendFinal(&cert), l.AppendRecord(simplex.Record{Cert: &cert}), l.Sync()); err != nil {
		return err
	}
	promise(e.chain[e.last[epoch]].Header.Height, 0)
	return nil
}

// holds checks that a log has the first epochs final, with what proves their ends, and no echo in its chain.
func (e *epochs) holds(l *Log, n int) error {
	for epoch := range n {
		at := e.chain[e.last[epoch]].Header
		end, err := l.EpochEnd(consensus.Epoch(epoch))
		if err != nil {
			return fmt.Errorf("end of epoch %d: %w", epoch, err)
		}
		if d := cmp.Diff(&e.ends[epoch], end); d != "" {
			return fmt.Errorf("end of epoch %d differs:\n%s", epoch, d)
		}
		if h, ok := l.EndOf(consensus.Epoch(epoch)); !ok || h != at.Height {
			return fmt.Errorf("epoch %d ends at %d, %v", epoch, h, ok)
		}
		if h, cert, err := l.Finalization(at.Height); err != nil || h != at.Height || cert.Block != end.Cert.Block {
			return fmt.Errorf("finalization of %d: of %d, %w", at.Height, h, err)
		}
	}
	for i, b := range e.chain {
		if hash, ok := l.FinalAt(consensus.Height(i + 1)); ok && hash != b.Header.Hash() {
			return fmt.Errorf("another block at height %d", i+1)
		}
	}
	return nil
}

// TestEpochs: a log goes through epochs, serves what proves the end of each, also after another Open, and lists no echo that is
// decided.
func TestEpochs(t *testing.T) {
	o := options(newFS(t))
	o.SegmentBytes = 1 << 20
	l := mustOpen(t, o)
	e := makeEpochs(4, 3)
	for epoch := range e.ends {
		if _, err := l.EpochEnd(consensus.Epoch(epoch)); !errors.Is(err, ErrNotFound) {
			t.Fatalf("the end of epoch %d before it: %v", epoch, err)
		}
		must(t, e.write(l, epoch, func(consensus.Height, consensus.View) {}))
		must(t, e.holds(l, epoch+1))
		if left := l.Undecided(); len(left) != 0 {
			t.Errorf("%d blocks undecided after the end of epoch %d", len(left), epoch)
		}
		must(t, l.Close())
		l = mustOpen(t, o)
		must(t, e.holds(l, epoch+1))
	}
	tip, hash := l.Final()
	// A lower finalization says nothing new, one of an echo beside the chain is a conflict.
	low := finalization(e.chain[e.last[3]])
	must(t, l.AppendFinal(low))
	beside := makeBlock(tip, e.chain[tip-2].Header.Hash(), 5, 99)
	beside.Header.NextCommittee = consensus.Hash{3}
	echo := consensus.Block{Header: consensus.Echo(beside.Header, 50)}
	must(t, errors.Join(l.AppendBlock(beside), l.AppendBlock(echo)))
	if err := l.AppendFinal(finalization(echo)); !errors.Is(err, ErrConflict) {
		t.Errorf("an echo of another last block is final: %v", err)
	}
	if h, got := l.Final(); h != tip || got != hash {
		t.Errorf("final height %d", h)
	}
	must(t, l.Close())
}

// TestEchoVersion: a segment with echoes has a version that earlier builds refuse; one of before is left, complete, behind.
func TestEchoVersion(t *testing.T) {
	o := options(newFS(t))
	o.SegmentBytes = 1 << 20
	l := mustOpen(t, o)
	e := makeEpochs(2, 2)
	versions := func(want ...byte) {
		t.Helper()
		for i, v := range want {
			f, err := openSealed(o.FS, o.FS.PathJoin(o.Dir, segmentName(uint64(i+1))), kindBlocks, uint64(i+1))
			must(t, err)
			if f.version != v {
				t.Errorf("segment %d has version %d, want %d", i+1, f.version, v)
			}
			must(t, f.close())
		}
	}
	quiet := func(consensus.Height, consensus.View) {}
	must(t, e.write(l, 0, quiet)) // without an echo
	versions(FormatVersion)
	must(t, e.write(l, 1, quiet))
	versions(FormatVersion, echoVersion)
	must(t, l.Close())
	l = mustOpen(t, o)
	must(t, e.holds(l, 2))
	must(t, l.Close())
	if n := len(segments(t, o)); n != 2 {
		t.Errorf("%d segments", n)
	}
}

func segments(tb testing.TB, o Options) (names []string) {
	tb.Helper()
	all, err := o.FS.List(o.Dir)
	must(tb, err)
	for _, n := range all {
		if _, ok := segmentNumber(n); ok {
			names = append(names, n)
		}
	}
	return names
}

// TestEpochsPruned: with the segments of an epoch goes what proves its end, and nothing else, however the cut falls.
func TestEpochsPruned(t *testing.T) {
	for _, size := range []int64{600, 900, 1500, 4 << 10} {
		o := options(newFS(t))
		o.SegmentBytes = size
		l := mustOpen(t, o)
		e := makeEpochs(12, 10)
		for epoch := range e.ends {
			must(t, e.write(l, epoch, func(consensus.Height, consensus.View) {}))
		}
		for range 2 {
			base := l.Base()
			if base == 1 {
				t.Errorf("segments of %d: nothing was pruned", size)
			}
			for epoch := range e.ends {
				at := e.chain[e.last[epoch]].Header.Height
				end, err := l.EpochEnd(consensus.Epoch(epoch))
				if held := at >= base; held != (err == nil) || !held && !errors.Is(err, ErrNotFound) {
					t.Errorf("segments of %d, base %d: the end of epoch %d at %d: %v", size, base, epoch, at, err)
				} else if held && !cmp.Equal(end, &e.ends[epoch]) {
					t.Errorf("the end of epoch %d differs", epoch)
				}
			}
			must(t, l.Close())
			l = mustOpen(t, o)
			if b := l.Base(); b > base {
				t.Errorf("base %d after %d", b, base)
			}
		}
		must(t, l.Close())
	}
}

// TestCrashOverEpochs takes the power away before every file system operation of three epochs, with none, some and all of the
// unsynced data kept. What a restart then needs is there: an epoch's end is final with all that proves it, or not at all and
// the votes and echoes of that epoch are.
func TestCrashOverEpochs(t *testing.T) {
	e := makeEpochs(4, 2)
	fs := newFS(t)
	var final consensus.Height
	var epoch, ops, crashes int
	var votes consensus.View
	crash := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead || epoch < 0 {
			return nil
		}
		ops++
		for _, percent := range []int{0, 50, 100} {
			crashes++
			image := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(crashes), 7))})
			if err := e.afterCrash(image, final, epoch, votes); err != nil {
				t.Fatalf("crash before operation %d (%s) in epoch %d, %d %% of unsynced data kept: %v", ops, op.Path, epoch, percent, err)
			}
		}
		return nil
	})
	epoch = -1 // no promise while the folder is made
	o := options(errorfs.Wrap(fs, crash))
	o.SegmentBytes, o.VoteLogBytes = 1500, 1000
	l := mustOpen(t, o)
	for epoch = range e.ends {
		votes = 0
		must(t, e.write(l, epoch, func(f consensus.Height, v consensus.View) { final, votes = f, v }))
	}
	must(t, l.Close())
	if ops < 100 {
		t.Errorf("%d operations", ops)
	}
	t.Logf("%d operations, %d crashes", ops, crashes)
}

// afterCrash checks a folder that promised height f final and votes up to view v of an epoch.
func (e *epochs) afterCrash(fs vfs.FS, f consensus.Height, epoch int, v consensus.View) error {
	o := options(fs)
	l, err := Open(o)
	if err != nil {
		return err
	}
	defer l.Close()
	final, hash := l.Final()
	if final < f {
		return fmt.Errorf("height %d is final, %d was promised", final, f)
	}
	n := 0
	for n < len(e.last) && e.chain[e.last[n]].Header.Height <= final {
		n++
	}
	if err := e.holds(l, n); err != nil {
		return err
	}
	if final > 0 && e.chain[final-1].Header.Hash() != hash {
		return fmt.Errorf("another block at the tip")
	}
	if n > epoch || v == 0 {
		return nil // over
	}
	have := map[consensus.View]bool{}
	var decided consensus.View // by a certificate in the vote log, which needs no votes below
	for _, r := range l.Records() {
		if r.Cert != nil && r.Cert.Epoch == consensus.Epoch(epoch) {
			decided = r.Cert.View
		}
		if r.Vote != nil && r.Vote.Epoch == consensus.Epoch(epoch) {
			have[r.Vote.View] = true
		}
	}
	from := 0
	if epoch > 0 {
		from = e.last[epoch-1] + 1
	}
	mine := append(append([]consensus.Block{}, e.chain[from:e.last[epoch]+1]...), e.above[epoch]...)
	for _, b := range mine {
		if b.Header.View > v {
			continue
		}
		if !have[b.Header.View] && b.Header.View > decided {
			return fmt.Errorf("epoch %d: the vote of view %d of %d is gone", epoch, b.Header.View, v)
		}
		if got, err := l.Block(b.Header.Hash()); err != nil || !bytes.Equal(got.Body, b.Body) {
			return fmt.Errorf("epoch %d: the block of view %d of %d: %w", epoch, b.Header.View, v, err)
		}
	}
	return nil
}

// TestFloorsOfEpochs: a floor of the next epoch takes none away from the one before, which a restart may still be in, until a
// finalization is above it.
func TestFloorsOfEpochs(t *testing.T) {
	o := options(newFS(t))
	l := mustOpen(t, o)
	floor := func(e consensus.Epoch, v consensus.View) simplex.Floor {
		return simplex.Floor{Shard: 3, Epoch: e, View: v}
	}
	for _, f := range []simplex.Floor{floor(1, 40), floor(1, 30), floor(2, 5)} {
		must(t, l.SetFloor(f, nil))
	}
	must(t, l.Close())
	l = mustOpen(t, o)
	one, two := floor(1, 40), floor(2, 5)
	wantRecords(t, l, simplex.Record{Floor: &one}, simplex.Record{Floor: &two})
	cert := &consensus.Certificate{
		Statement: consensus.Statement{Kind: consensus.Finalize, Shard: 3, Epoch: 1, View: 90, Block: consensus.Hash{1}}, Signers: consensus.Signers{7},
	}
	must(t, errors.Join(l.AppendRecord(simplex.Record{Cert: cert}), l.Sync(), l.Close()))
	l = mustOpen(t, o)
	wantRecords(t, l, simplex.Record{Floor: &two}, simplex.Record{Cert: cert})
	must(t, l.Close())
}
