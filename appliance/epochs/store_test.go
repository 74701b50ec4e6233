package epochs_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/appliance/epochs"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
)

var update = flag.Bool("update", false, "rewrite the golden file in testdata/")

const path = "epochs"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// chain is hand-overs of a network whose genesis' epoch is 1.
func chain(tb testing.TB, echoes ...int) (*prooftest.Network, []*proof.Handover) {
	n := prooftest.New(tb, "store", 1)
	var list []*proof.Handover
	for _, k := range echoes {
		h, _ := n.HandOver(0, k)
		list = append(list, h)
	}
	return n, list
}

func open(fs vfs.FS, n *prooftest.Network) (*epochs.Store, error) {
	return epochs.Open(fs, path, n.Genesis, n.Committees[0])
}

func content(tb testing.TB, fs vfs.FS) []byte {
	tb.Helper()
	f, err := fs.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	return must(io.ReadAll(f))
}

func write(fs vfs.FS, b []byte) {
	f := must(fs.Create(path, vfs.WriteCategoryUnspecified))
	must(f.Write(bytes.Clone(b)))
	if err := f.Close(); err != nil {
		panic(err)
	}
}

func middle(i int) consensus.Hash { return consensus.Hash{0x77, byte(i)} }

// TestStore: what is added is there, also after it was opened again, and nothing else is taken.
func TestStore(t *testing.T) {
	n, list := chain(t, 0, 2, 0, 1)
	fs := vfs.NewMem()
	s := must(open(fs, n))
	for i, h := range list {
		epoch := consensus.Epoch(1 + i)
		if got := s.Newest(); got.Committee.Epoch != epoch {
			t.Fatalf("newest %d, want %d", got.Committee.Epoch, epoch)
		}
		if _, ok := s.Middle(epoch); ok {
			t.Fatal("a middle that nobody has set")
		}
		for range 2 {
			if err := s.SetMiddle(epoch, middle(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SetMiddle(epoch, middle(99)); !errors.Is(err, epochs.ErrOrder) {
			t.Errorf("another middle: %v", err)
		}
		if err := s.SetMiddle(epoch+1, middle(i)); !errors.Is(err, epochs.ErrOrder) {
			t.Errorf("the middle of an epoch to come: %v", err)
		}
		if i == 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = must(open(fs, n))
		}
		if got, ok := s.Middle(epoch); !ok || got != middle(i) {
			t.Errorf("middle %s, %t", got.Short(), ok)
		}
		for k, other := range list {
			if k != i {
				if err := s.Add(other); !errors.Is(err, epochs.ErrOrder) {
					t.Errorf("hand-over %d in place of %d: %v", k, i, err)
				}
			}
		}
		if err := s.Add(h); err != nil {
			t.Fatal(err)
		}
		if err := s.SetMiddle(epoch, middle(99)); err != nil {
			t.Errorf("of an epoch that is over: %v", err)
		}
	}
	for range 2 {
		for e := consensus.Epoch(1); e <= 5; e++ {
			term, err := s.Term(e)
			if err != nil || term.Committee.Epoch != e || (e == 1) != (term.Start == 0) || e > 1 && term.Block != list[e-2].End.Last.Hash() {
				t.Errorf("term of epoch %d: %+v, %v", e, term, err)
			}
		}
		for _, e := range []consensus.Epoch{0, 6} {
			if _, err := s.Term(e); !errors.Is(err, epochs.ErrUnknown) {
				t.Errorf("term of epoch %d: %v", e, err)
			}
		}
		trust := n.NewTrust()
		for _, h := range must(s.Handovers(1, 9, 1<<20)) {
			if err := trust.Advance(h); err != nil {
				t.Fatal(err)
			}
		}
		if trust.Newest(0) != 5 {
			t.Errorf("followed to epoch %d", trust.Newest(0))
		}
		if got := must(s.Handovers(2, 2, 1<<20)); len(got) != 2 || got[0].Epoch() != 2 {
			t.Errorf("%d hand-overs out of epoch 2 on", len(got))
		}
		if got := must(s.Handovers(1, 9, 1)); len(got) != 1 {
			t.Errorf("%d hand-overs in a byte", len(got))
		}
		for _, from := range []consensus.Epoch{0, 5, 1 << 63} {
			if got := must(s.Handovers(from, 9, 1<<20)); len(got) != 0 {
				t.Errorf("%d hand-overs out of epoch %d on", len(got), from)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = must(open(fs, n))
	}
	golden(t, content(t, fs))
	other, _ := chain(t)
	if _, err := epochs.Open(fs, path, consensus.Hash{1}, other.Committees[0]); !errors.Is(err, epochs.ErrOther) {
		t.Errorf("another chain: %v", err)
	}
}

func golden(t *testing.T, got []byte) {
	const file = "testdata/store.hex"
	text := []byte(hex.EncodeToString(got) + "\n")
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(file, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if want := must(os.ReadFile(file)); !bytes.Equal(want, text) {
		t.Errorf("%s changed (-update rewrites it)", file)
	}
}

// TestCrash: whatever write or sync is the last one before the power goes, all that was said to be durable is there, and the store
// goes on.
func TestCrash(t *testing.T) {
	n, list := chain(t, 0, 1, 0)
	for ops := range 200 {
		mem := vfs.NewCrashableMem()
		left := ops
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
				return nil
			}
			if left--; left < 0 {
				return errorfs.ErrInjected
			}
			return nil
		}))
		added, middles, failed := 0, 0, false
		s, err := open(fs, n)
		failed = err != nil
		for i := 0; i < len(list) && !failed; i++ {
			if failed = s.SetMiddle(consensus.Epoch(1+i), middle(i)) != nil; failed {
				break
			}
			middles++
			if failed = s.Add(list[i]) != nil; !failed {
				added++
			} else if err := s.Add(list[i]); err == nil {
				t.Fatal("after a failed write another one is taken")
			}
		}
		for _, unsynced := range []int{0, 50, 100} {
			after := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rand.New(rand.NewPCG(uint64(ops), 1))})
			s, err := open(after, n)
			if err != nil {
				t.Fatalf("after %d operations: %v", ops, err)
			}
			if got := int(s.Newest().Committee.Epoch) - 1; got < added || got > added+1 {
				t.Fatalf("after %d operations: %d hand-overs, %d were durable", ops, got, added)
			} else if _, ok := s.Middle(consensus.Epoch(1 + got)); got == added && middles > added && !ok {
				t.Fatalf("after %d operations: the middle of epoch %d is lost", ops, 1+got)
			} else if got < len(list) {
				if err := errors.Join(s.SetMiddle(consensus.Epoch(1+got), middle(got)), s.Add(list[got])); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !failed {
			if ops < 8 {
				t.Fatalf("only %d operations", ops)
			}
			return
		}
	}
	t.Fatal("it never ran to its end")
}

// TestDamage: a torn last record is cut off, and whatever else is changed is found.
func TestDamage(t *testing.T) {
	n, list := chain(t, 0, 1)
	fs := vfs.NewMem()
	s := must(open(fs, n))
	if err := errors.Join(s.Add(list[0]), s.SetMiddle(2, middle(2))); err != nil {
		t.Fatal(err)
	}
	head := len(content(t, fs))
	if err := errors.Join(s.Add(list[1]), s.Close()); err != nil {
		t.Fatal(err)
	}
	whole := content(t, fs)
	for end := head; end < len(whole); end += 7 {
		write(fs, whole[:end])
		s, err := open(fs, n)
		if err != nil {
			t.Fatalf("cut to %d: %v", end, err)
		}
		if s.Newest().Committee.Epoch != 2 {
			t.Fatalf("cut to %d: epoch %d", end, s.Newest().Committee.Epoch)
		}
		if err := errors.Join(s.Add(list[1]), s.Close()); err != nil || !bytes.Equal(content(t, fs), whole) {
			t.Fatalf("cut to %d: not as before: %v", end, err)
		}
	}
	for i := 0; i < head; i += 3 {
		b := bytes.Clone(whole)
		b[i] ^= 4
		write(fs, b)
		if _, err := open(fs, n); err == nil {
			t.Fatalf("byte %d changed: taken", i)
		}
	}
	b := bytes.Clone(whole)
	b[9] = 2
	write(fs, b)
	if _, err := open(fs, n); !errors.Is(err, epochs.ErrVersion) {
		t.Errorf("a version to come: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	n, list := chain(f, 0, 2)
	fs := vfs.NewMem()
	s := must(open(fs, n))
	if err := errors.Join(s.SetMiddle(1, middle(1)), s.Add(list[0]), s.Add(list[1]), s.SetMiddle(3, middle(3)), s.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(content(f, fs))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		write(fs, b)
		s, err := open(fs, n)
		if err != nil {
			return
		}
		if _, err := s.Handovers(1, 64, 1<<20); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := content(t, fs); !bytes.HasPrefix(b, got) {
			t.Error("the file is not what it was, or a part of that")
		}
	})
}
