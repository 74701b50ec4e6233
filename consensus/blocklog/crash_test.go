package blocklog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// acked is what the log has promised to keep.
type acked struct {
	created bool
	blocks  int              // chain[:blocks] are synced
	final   consensus.Height // a finalization at this height is synced
	votes   consensus.View   // own votes up to this view are synced
}

// workload writes a chain with its votes and finalizations in the engine's rhythm and says after each Sync what it was
// promised. Small limits make it roll, compact and prune. It stops at the first error.
func workload(fs vfs.FS, chain []consensus.Block, promise func(acked)) error {
	o := options(fs)
	o.SegmentBytes, o.VoteLogBytes = 2500, 1500
	l, err := Open(o)
	if err != nil {
		return err
	}
	defer l.Close() // with the lock, whatever happens
	a := acked{created: true}
	promise(a)
	for i, b := range chain {
		v := b.Header.View
		steps := []error{
			l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, v)}),
			l.Sync(),
			l.AppendBlock(b),
			l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Finalize, v)}),
			l.Sync(),
		}
		if err := errors.Join(steps...); err != nil {
			return err
		}
		a.blocks, a.votes = i+1, v
		promise(a)
		if i%2 == 1 {
			cert := finalization(b)
			if err := errors.Join(l.AppendRecord(simplex.Record{Cert: cert}), l.AppendFinal(cert), l.Sync()); err != nil {
				return err
			}
			a.final = b.Header.Height
			promise(a)
		}
	}
	return nil
}

// verify opens what a crash left and holds it against the promises.
func verify(fs vfs.FS, chain []consensus.Block, a acked) error {
	o := options(fs)
	o.Create = !a.created // before the first promise a folder need not exist; after it, it must
	l, err := Open(o)
	if err != nil {
		return err
	}
	defer l.Close()
	final, hash := l.Final()
	if final < a.final {
		return fmt.Errorf("final height %d, promised %d", final, a.final)
	}
	if final > 0 && hash != chain[final-1].Header.Hash() {
		return fmt.Errorf("another block is final at %d", final)
	}
	for i, b := range chain[:a.blocks] {
		if consensus.Height(i)+1+o.Retention < final {
			continue // retention may have dropped it
		}
		got, err := l.Block(b.Header.Hash())
		if err != nil || !bytes.Equal(got.Body, b.Body) {
			return fmt.Errorf("block %d of %d: %w", i+1, a.blocks, err)
		}
	}
	for h := l.Base(); h <= final && final > 0; h++ {
		if hash, ok := l.FinalAt(h); !ok || !l.Has(hash) {
			return fmt.Errorf("hole in the finalised chain at %d", h)
		}
	}
	return verifyVotes(l, a)
}

func verifyVotes(l *Log, a acked) error {
	var finalView consensus.View
	have := map[consensus.Statement]bool{}
	for _, r := range l.Records() {
		if r.Cert != nil {
			finalView = max(finalView, r.Cert.View)
		} else {
			have[r.Vote.Statement] = true
		}
	}
	if finalView < consensus.View(a.final) {
		return fmt.Errorf("last finalization is of view %d, promised %d", finalView, a.final)
	}
	for v := finalView + 1; v <= a.votes; v++ {
		if !have[ownVote(consensus.Notarize, v).Statement] || !have[ownVote(consensus.Finalize, v).Statement] {
			return fmt.Errorf("a vote of view %d of %d is lost (final view %d)", v, a.votes, finalView)
		}
	}
	if a.votes > 0 {
		var top consensus.View
		for st := range have {
			top = max(top, st.View)
		}
		if top < a.votes {
			return fmt.Errorf("highest own vote is of view %d, promised %d", top, a.votes)
		}
	}
	return nil
}

// workloadChain is long enough to roll, compact and prune: heights run ahead of retention.
func workloadChain() []consensus.Block {
	chain := makeChain(MinRetention+16, 90)
	return chain
}

// TestCrashEverywhere takes the power away before every single file system operation of the workload, with none, some and
// all of the unsynced data kept, and opens what is left. Then it crashes the recovery itself as well.
func TestCrashEverywhere(t *testing.T) {
	chain := workloadChain()
	fs := newFS(t)
	var now acked
	var ops, crashes int
	seed := uint64(1)
	crash := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		ops++
		percents := []int{0}
		if ops < 200 || ops%3 == 0 {
			percents = append(percents, 40, 100)
		}
		if ops < 40 { // the making of the folder
			percents = append(percents, slices.Repeat([]int{60}, 20)...)
		}
		for _, percent := range percents {
			seed++
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
			if err := verify(crashed, chain, now); err != nil {
				t.Fatalf("crash before operation %d (%s), %d %% of unsynced data kept, seed %d: %v", ops, op.Path, percent, seed, err)
			}
			crashes++
		}
		return nil
	})
	if err := workload(errorfs.Wrap(fs, crash), chain, func(a acked) { now = a }); err != nil {
		t.Fatal(err)
	}
	if now.blocks != len(chain) || ops < 400 {
		t.Fatalf("the workload did %d operations and %+v", ops, now)
	}
	t.Logf("%d operations, %d crashes", ops, crashes)
}

// TestCrashInRecovery crashes at every operation of Open on a folder with torn tails, then opens again.
func TestCrashInRecovery(t *testing.T) {
	chain := workloadChain()
	fs := newFS(t)
	var now acked
	must(t, workload(fs, chain, func(a acked) { now = a }))
	tear(t, fs, "home/log/"+votesName)
	tear(t, fs, lastSegment(t, fs))
	var seed uint64
	points := 0
	must(t, func() error {
		l, err := Open(options(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			points++
			for _, percent := range []int{0, 50, 100} {
				seed++
				crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})
				if err := verify(crashed, chain, now); err != nil {
					t.Fatalf("crash before operation %d of recovery (%s), seed %d: %v", points, op.Path, seed, err)
				}
			}
			return nil
		}))))
		if err != nil {
			return err
		}
		return l.Close()
	}())
	must(t, verify(fs, chain, now))
}

// TestOpenMakesDurable: what Open has read may be acted on, so a power loss right after Open must not lose it, even if
// the process before had died between append and sync, and even behind a tail that was cut off.
func TestOpenMakesDurable(t *testing.T) {
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprintf("torn %v", torn), func(t *testing.T) {
			fs := newFS(t)
			chain := makeChain(2, 50)
			l := mustOpen(t, options(fs))
			must(t, l.AppendBlock(chain[0]))
			must(t, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, 1)}))
			must(t, l.Close())
			if torn {
				tear(t, fs, "home/log/"+votesName)
				tear(t, fs, lastSegment(t, fs))
			}
			l = mustOpen(t, options(fs))
			must(t, verify(fs.CrashClone(vfs.CrashCloneCfg{}), chain, acked{created: true, blocks: 1}))
			must(t, verifyVotesOf(fs.CrashClone(vfs.CrashCloneCfg{}), 1))
			must(t, l.AppendBlock(chain[1]))
			must(t, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, 2)}))
			must(t, l.Sync())
			must(t, verify(fs.CrashClone(vfs.CrashCloneCfg{}), chain, acked{created: true, blocks: 2}))
			must(t, verifyVotesOf(fs.CrashClone(vfs.CrashCloneCfg{}), 2))
			must(t, l.Close())
		})
	}
}

// verifyVotesOf opens the folder and wants n own votes.
func verifyVotesOf(fs vfs.FS, n int) error {
	l, err := Open(options(fs))
	if err != nil {
		return err
	}
	if len(l.Records()) != n {
		err = fmt.Errorf("%d votes, want %d", len(l.Records()), n)
	}
	return errors.Join(err, l.Close())
}

// tear appends half a record to a file, as a crash in the middle of a write leaves it.
func tear(tb testing.TB, fs vfs.FS, path string) {
	tb.Helper()
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	must(tb, err)
	info, err := f.Stat()
	must(tb, err)
	half := appendRecord(nil, identity{}, info.Size(), 0, recordBlock, bytes.Repeat([]byte{1}, 500), nil)[:200]
	_, err = f.WriteAt(half, info.Size())
	must(tb, errors.Join(err, f.Sync(), f.Close()))
}

func lastSegment(tb testing.TB, fs vfs.FS) string {
	tb.Helper()
	names, err := fs.List("home/log")
	must(tb, err)
	var last uint64
	for _, n := range names {
		if k, ok := segmentNumber(n); ok {
			last = max(last, k)
		}
	}
	return "home/log/" + segmentName(last)
}

// TestFailEverywhere fails every writing operation of the workload in turn: the error is a *WriteError, it sticks, and
// what was promised before it is there after a restart.
func TestFailEverywhere(t *testing.T) {
	chain := workloadChain()
	total := countWrites(t, chain)
	for fail := 1; fail <= total; fail += 1 + fail/40 { // every early one, then sparser
		fs := newFS(t)
		n := 0
		broken := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if isDurable(op) {
				if n++; n == fail {
					return syscall.ENOSPC
				}
			}
			return nil
		})
		var now acked
		err := workload(errorfs.Wrap(fs, broken), chain, func(a acked) { now = a })
		if w := (*WriteError)(nil); !errors.As(err, &w) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("operation %d failed and the log said %v", fail, err)
		}
		if err := verify(fs.CrashClone(vfs.CrashCloneCfg{}), chain, now); err != nil {
			t.Fatalf("after failing operation %d: %v", fail, err)
		}
		if err := verify(fs, chain, now); err != nil {
			t.Fatalf("after failing operation %d, without power loss: %v", fail, err)
		}
	}
}

// isDurable says whether a failure of the operation is one that the log must report.
func isDurable(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData,
		errorfs.OpRename, errorfs.OpRemove, errorfs.OpMkdirAll:
		return op.Path != "home/log/"+lockName
	}
	return false
}

func countWrites(tb testing.TB, chain []consensus.Block) (n int) {
	count := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isDurable(op) {
			n++
		}
		return nil
	})
	must(tb, workload(errorfs.Wrap(newFS(tb), count), chain, func(acked) {}))
	return n
}

// fullFS is a disk that takes only so many bytes: the write that hits the limit is cut short, as on a real one.
type fullFS struct {
	vfs.FS
	left *int
}

type fullFile struct {
	vfs.File
	left *int
}

func (f fullFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return fullFile{file, f.left}, nil
}

func (f fullFile) WriteAt(b []byte, off int64) (int, error) {
	if len(b) <= *f.left {
		*f.left -= len(b)
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[:*f.left], off)
	*f.left = 0
	return n, errors.Join(err, syscall.ENOSPC)
}

func TestDiskFull(t *testing.T) {
	chain := workloadChain()
	for bytesLeft := 100; bytesLeft < 60_000; bytesLeft += 1777 {
		fs := newFS(t)
		left := bytesLeft
		var now acked
		err := workload(fullFS{fs, &left}, chain, func(a acked) { now = a })
		w := (*WriteError)(nil)
		if errors.As(err, &w) {
			if !errors.Is(err, syscall.ENOSPC) || w.Remedy() != "The disk is full: free space, or lower the retention, and start again" {
				t.Fatalf("%v", err)
			}
		} else if err != nil || left == 0 {
			t.Fatalf("disk full and the log said %v", err)
		}
		if err := verify(fs, chain, now); err != nil { // room again, same process image: the cut write is a torn tail
			t.Fatalf("disk full after %d bytes: %v", bytesLeft, err)
		}
	}
}

// TestSticky: after a failed sync nothing succeeds again, although the disk would take it.
func TestSticky(t *testing.T) {
	var fail errorfs.Toggle
	fail.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			return syscall.EIO
		}
		return nil
	})
	l := mustOpen(t, options(errorfs.Wrap(newFS(t), &fail)))
	defer l.Close()
	b := makeChain(1, 1)[0]
	must(t, l.AppendBlock(b))
	fail.On()
	first := l.Sync()
	fail.Off()
	for _, err := range []error{first, l.Sync(), l.AppendBlock(b), l.AppendFinal(finalization(b)), l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Nullify, 1)})} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v, want the failed sync", err)
		}
	}
}
