package evidence_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tutti/consensus"
	"tutti/consensus/evidence"
)

const path = "evidence"

var chain = consensus.Hash{0xc4}

// offence is a proof of validator i in a view, with signatures of no value: the store does not look at them.
func offence(i uint16, view consensus.View) *evidence.Proof {
	return &evidence.Proof{Chain: chain, Votes: &[2]consensus.Vote{
		{Statement: statement(consensus.Nullify, view, 0), Validator: i}, {Statement: statement(consensus.Finalize, view, 1), Validator: i},
	}}
}

func conflict(view consensus.View) *evidence.Proof {
	return &evidence.Proof{Chain: chain, Certificates: &[2]consensus.Certificate{
		{Statement: statement(consensus.Notarize, view, 1), Signers: consensus.Signers{1}}, {Statement: statement(consensus.Notarize, view, 2), Signers: consensus.Signers{1}},
	}}
}

func open(tb testing.TB, fs vfs.FS) *evidence.Store {
	tb.Helper()
	s, err := evidence.OpenStore(fs, path, chain)
	must(tb, err)
	return s
}

func add(tb testing.TB, s *evidence.Store, p *evidence.Proof, want evidence.Outcome) {
	tb.Helper()
	got, err := s.Add(p)
	must(tb, err)
	if got != want {
		tb.Errorf("added with outcome %d, want %d", got, want)
	}
}

// TestStore: one proof an offence, in order, over restarts.
func TestStore(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	add(t, s, offence(1, 5), evidence.Added)
	add(t, s, offence(1, 5), evidence.Known)
	other := offence(1, 5)
	other.Votes[1].Block[0] = 9
	add(t, s, other, evidence.Known) // the same kinds in the same view: the same offence
	add(t, s, offence(2, 5), evidence.Added)
	add(t, s, offence(1, 6), evidence.Added)
	add(t, s, conflict(5), evidence.Added)
	must(t, s.Close())

	s = open(t, fs)
	add(t, s, offence(2, 5), evidence.Known)
	add(t, s, conflict(5), evidence.Known)
	all, total := s.Proofs(0, 100)
	if total != 4 || len(all) != 4 || all[1].ID() != offence(2, 5).ID() || all[3].ID() != conflict(5).ID() {
		t.Errorf("%d proofs: %v", total, all)
	}
	for _, tc := range []struct{ from, limit, want int }{{1, 2, 2}, {3, 9, 1}, {4, 9, 0}, {99, 9, 0}, {-1, 1, 1}, {0, -1, 0}} {
		if page, total := s.Proofs(tc.from, tc.limit); len(page) != tc.want || total != 4 {
			t.Errorf("from %d, limit %d: %d of %d", tc.from, tc.limit, len(page), total)
		}
	}
	must(t, s.Close())
}

// TestStoreBounds: who contradicts itself without end takes no room from others.
func TestStoreBounds(t *testing.T) {
	s := open(t, vfs.NewMem())
	for v := range consensus.View(evidence.PerValidator) {
		add(t, s, offence(1, v), evidence.Added)
	}
	add(t, s, offence(1, 1000), evidence.Full)
	for v := range consensus.View(evidence.PerCommittee) {
		add(t, s, conflict(v), evidence.Added)
	}
	add(t, s, conflict(1000), evidence.Full)
	add(t, s, offence(2, 1000), evidence.Added)
	next := offence(1, 1)
	next.Votes[0].Epoch, next.Votes[1].Epoch = 4, 4
	add(t, s, next, evidence.Added)
	for i := 0; ; i++ {
		p := offence(uint16(i%consensus.MaxCommittee), 7)
		p.Votes[0].Epoch, p.Votes[1].Epoch = consensus.Epoch(10+i/consensus.MaxCommittee), consensus.Epoch(10+i/consensus.MaxCommittee)
		if out, err := s.Add(p); err != nil || out == evidence.Full {
			must(t, err)
			break
		}
	}
	if _, total := s.Proofs(0, 0); total != evidence.MaxProofs {
		t.Errorf("%d proofs", total)
	}
	must(t, s.Close())
}

// TestVerifyStoreCrash: whatever a power loss leaves, all that was added is there, and the store takes more.
func TestVerifyStoreCrash(t *testing.T) {
	for seed := range uint64(200) {
		fs := vfs.NewCrashableMem()
		s := open(t, fs)
		rng := rand.New(rand.NewPCG(seed, 0))
		n := rng.IntN(12)
		for i := range n {
			add(t, s, offence(uint16(i), 1), evidence.Added)
		}
		after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		if f, err := after.OpenReadWrite(path, vfs.WriteCategoryUnspecified); err == nil { // and a torn write of one more
			info, err := f.Stat()
			must(t, err)
			torn := record(offence(99, 1))[:rng.IntN(100)]
			if _, err := f.WriteAt(torn, info.Size()); err != nil {
				t.Fatal(err)
			}
			must(t, f.Close())
		}
		s = open(t, after)
		if _, total := s.Proofs(0, 0); total != n {
			t.Fatalf("seed %d: %d of %d proofs survived", seed, total, n)
		}
		add(t, s, offence(99, 2), evidence.Added)
		must(t, s.Close())
		s = open(t, after)
		if _, total := s.Proofs(0, 0); total != n+1 {
			t.Fatalf("seed %d: %d of %d proofs after one more", seed, total, n+1)
		}
		must(t, s.Close())
	}
}

func record(p *evidence.Proof) []byte {
	raw := p.Append(nil)
	table := crc32.MakeTable(crc32.Castagnoli)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	b = binary.BigEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b, table), table, raw))
	return append(b, raw...)
}

func content(tb testing.TB, fs vfs.FS) []byte {
	tb.Helper()
	f, err := fs.Open(path)
	must(tb, err)
	b, err := io.ReadAll(f)
	must(tb, err)
	must(tb, f.Close())
	return b
}

// TestStoreDamage: bytes that were durable and are not what was written are never taken for a torn tail, nor for proofs.
func TestStoreDamage(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	for i := range uint16(3) {
		add(t, s, offence(i, 1), evidence.Added)
	}
	must(t, s.Close())
	whole := content(t, fs)
	last := len(whole) - len(record(offence(2, 1)))
	for at := range last {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x40
		spoiled := vfs.NewMem()
		put(t, spoiled, b)
		if _, err := evidence.OpenStore(spoiled, path, chain); !errors.Is(err, evidence.ErrDamaged) && !errors.Is(err, evidence.ErrVersion) && !errors.Is(err, evidence.ErrOtherChain) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
	}
	if _, err := evidence.OpenStore(fs, path, consensus.Hash{1}); !errors.Is(err, evidence.ErrOtherChain) {
		t.Errorf("another chain: %v", err)
	}
	later := vfs.NewMem()
	b := append([]byte(nil), whole...)
	b[9] = 2
	put(t, later, b)
	if _, err := evidence.OpenStore(later, path, chain); !errors.Is(err, evidence.ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	foreign := vfs.NewMem()
	alien := offence(7, 1)
	alien.Chain = consensus.Hash{1}
	put(t, foreign, append(append([]byte(nil), whole...), record(alien)...))
	if _, err := evidence.OpenStore(foreign, path, chain); !errors.Is(err, evidence.ErrDamaged) {
		t.Errorf("a proof of another chain among ours: %v", err)
	}
}

func put(tb testing.TB, fs vfs.FS, b []byte) {
	tb.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(tb, err)
	_, err = f.Write(append([]byte(nil), b...))
	must(tb, err)
	must(tb, errors.Join(f.Sync(), f.Close()))
}

// TestStoreFailure: after a failed write or sync nothing is kept any more, and what was kept is still there.
func TestStoreFailure(t *testing.T) {
	for _, op := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSyncData} {
		t.Run(fmt.Sprint(op), func(t *testing.T) {
			broken := false
			fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(o errorfs.Op) error {
				if broken && o.Kind == op {
					return errors.New("the disk is gone")
				}
				return nil
			}))
			s := open(t, fs)
			add(t, s, offence(1, 1), evidence.Added)
			broken = true
			if _, err := s.Add(offence(2, 1)); err == nil {
				t.Error("no error")
			}
			broken = false
			if _, err := s.Add(offence(3, 1)); err == nil {
				t.Error("the failure was forgotten")
			}
			if _, total := s.Proofs(0, 0); total != 1 {
				t.Errorf("%d proofs", total)
			}
			must(t, s.Close())
			if _, total := open(t, fs).Proofs(0, 0); total < 1 {
				t.Errorf("%d proofs", total)
			}
		})
	}
}

// FuzzStore: a file of any content is refused, or opens and is a store of whole proofs.
func FuzzStore(f *testing.F) {
	fs := vfs.NewMem()
	s := open(f, fs)
	add(f, s, offence(1, 1), evidence.Added)
	add(f, s, conflict(2), evidence.Added)
	must(f, s.Close())
	f.Add(content(f, fs))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		put(t, fs, b)
		s, err := evidence.OpenStore(fs, path, chain)
		if err != nil {
			return
		}
		add(t, s, offence(1000, 77), evidence.Added)
		_, total := s.Proofs(0, 0)
		must(t, s.Close())
		if _, again := open(t, fs).Proofs(0, 0); again != total {
			t.Fatalf("%d proofs became %d", total, again)
		}
	})
}
