package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tutti/accel/ed25519"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var chain = tx.Hash{0xc4}

// batch makes n signed transfers and what is needed to check them.
func batch(n int) (txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) {
	signer := ed25519.NewPrivateKey([32]byte{7})
	for i := range n {
		t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: 1, To: 2, Amount: 3, Nonce: uint32(i), Expiry: 9}}
		t.Signature = signer.Sign(t.Message(chain))
		txs = append(txs, t)
		keys = append(keys, signer.Public())
	}
	return txs, keys, make([]uint16, n), make([]bool, n)
}

// direct is a Queue without a queue, which counts.
type direct struct {
	mu    sync.Mutex
	items int
	last  uint64 // source
	err   error
}

func (d *direct) Verify(_ context.Context, source uint64, items []ed25519.Item, ok []bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = source
	if d.err != nil {
		return d.err
	}
	d.items += len(items)
	ed25519.VerifyMany(items, ok)
	return nil
}

func (d *direct) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.items
}

func newVerifier(t testing.TB, q Queue, entries int) *Verifier {
	v, err := New(chain, q, entries)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerdicts(t *testing.T) {
	q, err := ed25519.NewQueue(ed25519.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	v := newVerifier(t, q, 100)
	txs, keys, gens, ok := batch(6)
	txs[1].Signature[5] ^= 1
	txs[2].Amount++
	keys[3] = ed25519.NewPrivateKey([32]byte{8}).Public()
	other := txs[4].Tx
	txs[4].Signature = ed25519.NewPrivateKey([32]byte{7}).Sign(other.Message(tx.Hash{1})) // another chain
	want := []bool{true, false, false, false, false, true}
	for round := range 3 { // the second and third from the cache
		if err := v.Check(t.Context(), 1, txs, keys, gens, ok); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(ok, want) {
			t.Fatalf("round %d: %v, want %v", round, ok, want)
		}
	}
	if c := v.Counters(); c != (Counters{Hits: 12, Misses: 6}) {
		t.Errorf("counters %+v", c)
	}
}

// TestCacheKey changes each part of a verdict's name in turn: none may be answered from the cache of another.
func TestCacheKey(t *testing.T) {
	d := &direct{}
	v := newVerifier(t, d, 1000)
	for _, c := range []struct {
		name string
		edit func(*tx.Signed, *[32]byte, *uint16)
		want bool
	}{
		{"as it is", func(*tx.Signed, *[32]byte, *uint16) {}, true},
		{"message", func(s *tx.Signed, _ *[32]byte, _ *uint16) { s.Amount++ }, false},
		{"signature", func(s *tx.Signed, _ *[32]byte, _ *uint16) { s.Signature[63] ^= 1 }, false},
		{"key", func(_ *tx.Signed, k *[32]byte, _ *uint16) { *k = ed25519.NewPrivateKey([32]byte{9}).Public() }, false},
		{"generation", func(_ *tx.Signed, _ *[32]byte, g *uint16) { *g++ }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			txs, keys, gens, ok := batch(1)
			c.edit(&txs[0], &keys[0], &gens[0])
			for range 2 {
				before := d.count()
				if err := v.Check(t.Context(), 1, txs, keys, gens, ok); err != nil || ok[0] != c.want {
					t.Fatalf("%v, %v", ok[0], err)
				}
				if n := d.count() - before; n > 1 {
					t.Fatalf("%d checks", n)
				}
			}
		})
	}
	if n := d.count(); n != 5 {
		t.Errorf("%d signatures checked, want each of the 5 once", n)
	}
}

func TestQueueErrors(t *testing.T) {
	d := &direct{}
	v := newVerifier(t, d, 100)
	txs, keys, gens, ok := batch(3)
	if err := v.Check(t.Context(), 1, txs[:1], keys, gens, ok); err != nil {
		t.Fatal(err)
	}
	d.err = ed25519.ErrQueueFull
	ok[1], ok[2] = true, true
	if err := v.Check(t.Context(), 1, txs, keys, gens, ok); !errors.Is(err, ed25519.ErrQueueFull) {
		t.Fatalf("got %v", err)
	}
	if want := []bool{true, false, false}; !slices.Equal(ok, want) {
		t.Fatalf("after an error: %v, want %v", ok, want)
	}

	l := Ledger{Verifier: v, Source: 77}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Check(ctx, txs, keys, gens, ok); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	txs[2].Nonce++
	if err := l.Check(t.Context(), txs, keys, gens, ok); err != nil {
		t.Fatalf("a full queue stops the ledger: %v", err)
	}
	if want := []bool{true, true, false}; !slices.Equal(ok, want) {
		t.Fatalf("verified by the caller: %v, want %v", ok, want)
	}
	if d.last != 77 {
		t.Errorf("source %d", d.last)
	}
	if err := v.Check(t.Context(), 1, txs, keys, gens, ok); err != nil || d.count() != 1 {
		t.Errorf("verdicts of the caller are not cached: %v", err)
	}
	d.err = ed25519.ErrQueueClosed
	txs[0].Nonce += 10
	if err := l.Check(t.Context(), txs, keys, gens, ok); !errors.Is(err, ed25519.ErrQueueClosed) {
		t.Fatalf("closed: %v", err)
	}
}

func TestCacheIsBoundedAndForgetsTheOldest(t *testing.T) {
	c := newCache(ways) // one set
	d := func(i int) *digest {
		var d digest
		binary.BigEndian.PutUint64(d[:], uint64(i))
		return &d
	}
	for i := range 3 * ways {
		c.put(d(i), i%2 == 0)
		c.put(d(i), i%2 == 0) // twice is once
		for k := range i + 1 {
			verdict, known := c.get(d(k))
			if wantKnown := k > i-ways; known != wantKnown || known && verdict != (k%2 == 0) {
				t.Fatalf("after %d: verdict %d is %v, known %v", i, k, verdict, known)
			}
		}
	}
	for _, entries := range []int{0, -1, 1<<26 + 1} {
		if _, err := New(chain, nil, entries); err == nil {
			t.Errorf("cache of %d accepted", entries)
		}
	}
}

// TestConcurrent has callers share few entries, so that they evict one another's all the time.
func TestConcurrent(t *testing.T) {
	v := newVerifier(t, &direct{}, 16)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			txs, keys, gens, ok := batch(24)
			for i := g; i < len(txs); i += 4 {
				txs[i].Signature[0] ^= 1
			}
			for range 4 {
				if err := v.Check(t.Context(), uint64(g), txs, keys, gens, ok); err != nil {
					t.Error(err)
				}
				for i := range ok {
					if ok[i] != (i%4 != g) {
						t.Errorf("verdict %d of caller %d is %v", i, g, ok[i])
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCheckWarm(b *testing.B) {
	v := newVerifier(b, &direct{}, DefaultEntries)
	txs, keys, gens, ok := batch(1000)
	_ = v.Check(b.Context(), 1, txs, keys, gens, ok)
	b.ReportAllocs()
	for b.Loop() {
		_ = v.Check(b.Context(), 1, txs, keys, gens, ok)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(txs)), "ns/tx")
}

// BenchmarkCheckCold leaves the signatures out, to show what the cache adds to them.
func BenchmarkCheckCold(b *testing.B) {
	v := newVerifier(b, accept{}, DefaultEntries)
	txs, keys, gens, ok := batch(1000)
	b.ReportAllocs()
	round := uint16(0)
	for b.Loop() {
		round++
		for i := range gens {
			gens[i] = round
		}
		_ = v.Check(b.Context(), 1, txs, keys, gens, ok)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(txs)), "ns/tx")
}

type accept struct{}

func (accept) Verify(_ context.Context, _ uint64, _ []ed25519.Item, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

func BenchmarkCheckColdSigned(b *testing.B) {
	q, err := ed25519.NewQueue(ed25519.QueueOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	v := newVerifier(b, q, DefaultEntries)
	txs, keys, gens, ok := batch(1000)
	round := uint16(0)
	for b.Loop() {
		round++
		for i := range gens {
			gens[i] = round
		}
		_ = v.Check(b.Context(), 1, txs, keys, gens, ok)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(txs)), "ns/tx")
}
