package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/state/receipt"
	"tutti/state/store"
	"tutti/state/tx"
)

// crashes collects copies of a disk as a crash would leave it before each operation that changes it: with none of what
// was not synced (a power cut) and with all of it (a killed process). It can make these operations fail from one of
// them on, but for the sync of pebble's folder, after which pebble ends the process itself.
type crashes struct {
	disk *vfs.MemFS
	rng  *rand.Rand

	mu   sync.Mutex
	ops  int
	fail int // index of the first operation that fails; -1: none
	take bool
	at   []*vfs.MemFS
}

func newCrashes() *crashes {
	return &crashes{disk: vfs.NewCrashableMem(), rng: rand.New(rand.NewPCG(11, 12)), fail: -1}
}

func (c *crashes) fs() vfs.FS {
	return errorfs.Wrap(c.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.take {
			c.at = append(c.at, c.disk.CrashClone(vfs.CrashCloneCfg{}), c.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: c.rng}))
		}
		if c.ops++; c.fail >= 0 && c.ops > c.fail && !strings.HasSuffix(op.Path, "db") {
			return &errorOf{syscall.EIO}
		}
		return nil
	}))
}

// errorOf is an error that is no more than what the operating system said.
type errorOf struct{ syscall.Errno }

func (e *errorOf) Unwrap() error { return e.Errno }

// outboxAgrees takes the receipts that wait in each channel from Outbox and proves them.
func outboxAgrees(m *model, l *Ledger) error {
	for shard, ch := range m.channels {
		if ch.acked == uint64(len(ch.sent)) {
			continue
		}
		o, err := l.Outbox(shard, ch.acked, uint64(len(ch.sent)))
		if err != nil {
			return fmt.Errorf("outbox to shard %d: %w", shard, err)
		}
		if o, err = DecodeOutbox(o.Append(nil)); err != nil {
			return err
		}
		first := o.Before.Count()
		if first > ch.acked || o.rangeWith(m.params.Shard).Root() != m.sentRange(shard).Root() || o.Receipts[ch.acked-first] != ch.sent[ch.acked] {
			return fmt.Errorf("outbox to shard %d from %d is not what was sent", shard, first)
		}
	}
	return nil
}

// upgraded checks a ledger that was upgraded from testdata/folder-v1: all is there, and all outboxes but one are proven.
func upgraded(s *story, fs vfs.FS) error {
	o, _ := folderOptions(s, fs, "ledger", false)
	l, err := Open(o)
	if err != nil {
		return err
	}
	m := s.models[folderBlocks]
	if err := m.agrees(l); err != nil {
		return errors.Join(err, l.Close())
	}
	without := m.clone()
	delete(without.channels, 3)
	if err := outboxAgrees(without, l); err != nil {
		return errors.Join(err, l.Close())
	}
	if _, err := l.Outbox(3, m.channels[3].acked, m.channels[3].acked+1); !errors.Is(err, ErrNoProof) {
		return errors.Join(fmt.Errorf("receipts from before the oldest difference: %w", err), l.Close())
	}
	// What was sent since the oldest difference can be proven all the same.
	if _, err := l.Outbox(3, uint64(len(m.channels[3].sent)-1), uint64(len(m.channels[3].sent))); err != nil {
		return errors.Join(err, l.Close())
	}
	err = s.extend(l)
	if err == nil {
		err = s.models[folderBlocks+1].agrees(l)
	}
	return errors.Join(err, l.Close())
}

func folderV1(t *testing.T, to vfs.FS) {
	t.Helper()
	if ok, err := vfs.Clone(vfs.Default, to, folderName(1)+"/ledger", "ledger", vfs.CloneSync); err != nil || !ok {
		t.Fatal(ok, err)
	}
	d, err := to.OpenDir("")
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestUpgradeCrash opens the folder of version 1 and crashes at every operation; each crash leaves a folder that opens.
func TestUpgradeCrash(t *testing.T) {
	s := newFolderStory(t)
	c := newCrashes()
	folderV1(t, c.disk)
	c.take = true
	o, _ := folderOptions(s, c.fs(), "ledger", false)
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.take = false
	c.mu.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for i, fs := range append(c.at, c.disk) {
		if err := upgraded(s, fs); err != nil {
			t.Fatalf("crash %d of %d: %v", i, len(c.at), err)
		}
	}
	if len(c.at) < 40 {
		t.Errorf("%d crashes", len(c.at))
	}
	t.Logf("%d crashes", len(c.at))
}

// TestUpgradeFails makes the disk fail from each operation of the upgrade on, once pebble is open (when it is not yet,
// pebble may end the process, which is TestUpgradeCrash). That is an error, and nothing is lost.
func TestUpgradeFails(t *testing.T) {
	s := newFolderStory(t)
	failed := 0
	for more := true; more; {
		c := newCrashes()
		folderV1(t, c.disk)
		o, _ := folderOptions(s, c.fs(), "ledger", false)
		l, err := newLedger(o)
		if err != nil {
			t.Fatal(err)
		}
		d, err := store.Open(store.Options{FS: o.FS, Dir: o.Dir, Binding: s.p.hash(), Upgrade: func(d *store.Store, version int) error {
			c.mu.Lock()
			c.fail = c.ops + failed
			c.mu.Unlock()
			return l.upgrade(d, version)
		}})
		c.mu.Lock()
		c.fail = -1 // pebble may still be at it
		c.mu.Unlock()
		var f *store.FatalError
		switch {
		case err == nil:
			more = false
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		case !errors.As(err, &f):
			t.Fatalf("failure %d: %v", failed, err)
		default:
			failed++
		}
		if err := upgraded(s, c.disk.CrashClone(vfs.CrashCloneCfg{})); err != nil {
			t.Fatalf("failure %d: %v", failed, err)
		}
	}
	if failed < 5 {
		t.Errorf("%d failures", failed)
	}
	t.Logf("%d failures", failed)
}

// TestUpgradeRefuses spoils what the upgrade reads.
func TestUpgradeRefuses(t *testing.T) {
	s := newFolderStory(t)
	for name, spoil := range map[string]func(*store.Batch){
		"a cut block":       func(b *store.Batch) { b.Block(folderBlocks-5, make([]byte, 50)) },
		"a block of zeros":  func(b *store.Batch) { b.Block(folderBlocks-5, make([]byte, 5000)) },
		"half a receipt":    func(b *store.Batch) { b.Receipts(2, 0, receipt.Range{}.AppendBytes(nil), make([]byte, 10)) },
		"another's receipt": func(b *store.Batch) { b.Receipts(2, 0, nil, (&tx.Receipt{}).Append(nil)[1:]) },
	} {
		fs := vfs.NewMem()
		folderV1(t, fs)
		d, err := store.Open(store.Options{FS: fs, Dir: "ledger", Binding: s.p.hash(), Upgrade: func(d *store.Store, _ int) error {
			b := d.NewBatch()
			spoil(b)
			return errors.Join(d.Commit(b), errors.New("not upgraded"))
		}})
		if err == nil {
			t.Fatal(d.Close())
		}
		o, _ := folderOptions(s, fs, "ledger", false)
		if _, err := Open(o); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
