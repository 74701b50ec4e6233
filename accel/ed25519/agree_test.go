package ed25519

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"tutti/accel/ed25519/internal/reference"
)

var (
	agreeCases = flag.Int("cases", 6000, "signatures that TestAgree gives to all backends and to the reference")
	agreeSeed  = flag.Uint64("seed", 1, "seed of TestAgree")
)

// judged are backends that a test compares: all candidates, and those with a memory once more with one that is small
// enough to be full.
func judges() (all []Backend) {
	all = Backends()
	for _, b := range Backends() {
		if r, ok := b.(rememberer); ok {
			all = append(all, memorized{r.remembering(40)})
		}
	}
	return all
}

type memorized struct{ Backend }

func (m memorized) Name() string { return m.Backend.Name() + " with memory" }

// cases makes signatures to verify: most of them good or spoilt by one bit, five in a hundred from the edges of the rule.
type cases struct {
	rnd  *rand.Rand
	pool []Item // good signatures under few keys
}

func newCases(seed uint64) *cases {
	c := &cases{rnd: rand.New(rand.NewPCG(seed, 215))}
	for range 100 {
		k := NewPrivateKey([32]byte{byte(c.rnd.IntN(60)), 7})
		message := make([]byte, c.rnd.IntN(300))
		for i := range message {
			message[i] = byte(c.rnd.Uint32())
		}
		c.pool = append(c.pool, Item{k.Public(), message, k.Sign(message)})
	}
	return c
}

func (c *cases) torsion() *[32]byte {
	b := fixed(smallOrder[c.rnd.IntN(len(smallOrder))])
	return (*[32]byte)(b[:32])
}

func (c *cases) next() Item {
	at := c.rnd.IntN(len(c.pool))
	if c.rnd.IntN(16) == 0 { // a fresh signature from time to time, so that the pool moves on
		k := NewPrivateKey([32]byte{byte(c.rnd.IntN(60)), 7})
		message := binary.LittleEndian.AppendUint64(make([]byte, 0, 8), c.rnd.Uint64())
		c.pool[at] = Item{k.Public(), message, k.Sign(message)}
	}
	it := c.pool[at]
	switch kind := c.rnd.IntN(100); {
	case kind < 50:
	case kind < 60:
		it.Key[c.rnd.IntN(32)] ^= 1 << c.rnd.IntN(8)
	case kind < 72:
		it.Signature[c.rnd.IntN(32)] ^= 1 << c.rnd.IntN(8)
	case kind < 84:
		it.Signature[32+c.rnd.IntN(32)] ^= 1 << c.rnd.IntN(8)
	case kind < 90:
		it.Message = append([]byte{1}, it.Message...)
	case kind < 95:
		it.Key = c.pool[c.rnd.IntN(len(c.pool))].Key
	default:
		it = c.edge(it)
	}
	return it
}

// edge is a case from the edges of the rule.
func (c *cases) edge(it Item) Item {
	switch c.rnd.IntN(9) {
	case 0: // key and R of small order, S = 0
		it.Key = *c.torsion()
		clear(it.Signature[:])
		copy(it.Signature[:], c.torsion()[:])
	case 1:
		it.Key = *c.torsion()
	case 2:
		copy(it.Signature[:], c.torsion()[:])
	case 3: // S + L, which wraps for no S below L
		addToS(&it.Signature, groupOrder)
	case 4: // S = L - 1, L, L + 1 or 2^256 - 1
		clear(it.Signature[32:])
		s := big.NewInt(int64(c.rnd.IntN(3)) - 1)
		addToS(&it.Signature, s.Add(s, groupOrder))
		if c.rnd.IntN(4) == 0 {
			for i := range 32 {
				it.Signature[32+i] = 0xff
			}
		}
	case 5: // y from p - 20 to 2^255 - 1, either sign
		into := it.Key[:]
		if c.rnd.IntN(2) == 0 {
			into = it.Signature[:32]
		}
		for i := range into {
			into[i] = 0xff
		}
		into[0] -= byte(c.rnd.IntN(39))
		into[31] -= byte(c.rnd.IntN(2)) << 7
	case 6:
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], c.rnd.Uint64N(8))
		it.Key, it.Signature = reference.Torsioned(seed, it.Message, c.torsion(), c.torsion())
	case 7: // all of it is noise
		for i := range it.Signature {
			it.Signature[i] = byte(c.rnd.Uint32())
			it.Key[i%32] = byte(c.rnd.Uint32())
		}
		it.Signature[63] &= 0x0f
	case 8: // few bits set
		clear(it.Signature[:])
		clear(it.Key[:])
		it.Signature[c.rnd.IntN(64)] = 1 << c.rnd.IntN(8)
		it.Key[c.rnd.IntN(32)] = 1 << c.rnd.IntN(8)
	}
	return it
}

// TestAgree gives random and edge cases to the reference and to every backend, in batches of all lengths. With
// -cases=10000000 it is the long run whose counts are in the notes.
func TestAgree(t *testing.T) {
	const round = 500
	rounds := (*agreeCases + round - 1) / round
	var next, accepted atomic.Int64
	var wait sync.WaitGroup
	for range min(rounds, runtime.GOMAXPROCS(0)) {
		wait.Go(func() {
			all := judges()
			for r := next.Add(1); r <= int64(rounds) && !t.Failed(); r = next.Add(1) {
				n, err := agree(all, *agreeSeed<<32+uint64(r), round)
				accepted.Add(int64(n))
				if err != nil {
					t.Errorf("round %d of seed %d: %v", r, *agreeSeed, err)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d cases, %d accepted, %d backends", rounds*round, accepted.Load(), len(judges()))
}

func agree(all []Backend, seed uint64, n int) (accepted int, err error) {
	c := newCases(seed)
	items, want, got := make([]Item, n), make([]bool, n), make([]bool, n)
	for i := range items {
		items[i] = c.next()
		want[i] = reference.Verify(&items[i].Key, items[i].Message, &items[i].Signature)
		if want[i] {
			accepted++
		}
	}
	for _, b := range all {
		for from := 0; from < n; {
			to := min(n, from+1+c.rnd.IntN(140))
			b.VerifyMany(items[from:to], got[from:to])
			for i := from; i < to; i++ {
				if got[i] != want[i] {
					return accepted, fmt.Errorf("%s says %v at %d of %d items, the reference %v: key %x, message %x, signature %x",
						b.Name(), got[i], i-from, to-from, want[i], items[i].Key, items[i].Message, items[i].Signature)
				}
			}
			from = to
		}
	}
	return accepted, nil
}

// TestAgreeCatches is TestAgree's canary: another rule does not get through.
func TestAgreeCatches(t *testing.T) {
	for _, b := range []Backend{ruled{"crypto/ed25519", stdlibAccepts}, allOrNothing{}} {
		if _, err := agree([]Backend{b}, 3, 500); err == nil {
			t.Errorf("%s agrees", b.Name())
		}
	}
}
