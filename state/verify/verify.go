// Package verify tells whether transactions carry their payers' signatures, each signature checked once.
//
// In: decoded transactions with the Ed25519 key and key generation of each payer. Out: one verdict for each, by the
// ZIP-215 rule of accel/ed25519. Verdicts of both kinds are remembered in a cache of fixed size, so that what was
// checked when it arrived costs a digest when the block with it is judged. Which key is the right one is the caller's
// affair: for a block it is the one in the parent state.
//
// A cached verdict is found only by the whole SHA-256 of signed message (which names the chain), signature, key and
// generation. It is a pure function of these, so the cache can make a verdict faster but never another one.
//
// Errors mean that nothing was found out about the transactions without a verdict; none is fatal.
package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"tutti/accel/ed25519"
	"tutti/state/tx"
)

// Queue is accel/ed25519's Queue: it verifies items for a source, or fails with ed25519.ErrQueueFull at once.
type Queue interface {
	Verify(ctx context.Context, source uint64, items []ed25519.Item, ok []bool) error
}

// DefaultEntries is a good cache size for a validator: a few seconds of full load in 10 MiB.
const DefaultEntries = 1 << 18

// Verifier is safe for concurrent use.
type Verifier struct {
	genesis tx.Hash
	queue   Queue
	cache   *cache
	scratch sync.Pool // *scratch
	hits    atomic.Uint64
	misses  atomic.Uint64
}

// New makes a Verifier for the chain with the given genesis hash, with a cache of at least entries verdicts.
func New(genesis tx.Hash, queue Queue, entries int) (*Verifier, error) {
	const most = 1 << 26
	if entries < 1 || entries > most {
		return nil, fmt.Errorf("verify: cache of %d verdicts: need 1 to %d", entries, most)
	}
	return &Verifier{genesis: genesis, queue: queue, cache: newCache(entries)}, nil
}

// scratch is the working memory of one call.
type scratch struct {
	bytes   []byte // the messages of items, among others; and behind them what a digest is made of
	items   []ed25519.Item
	at      []int // index of each item in the call
	digests []digest
	ok      []bool
}

// Check sets ok[i] to whether txs[i] is signed under keys[i], which is of generations[i]. The slices are as long as txs.
// Signatures without a cached verdict go to the queue under the source's name; an error of the queue's is returned
// and leaves ok false where no verdict was cached.
func (v *Verifier) Check(ctx context.Context, source uint64, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) error {
	return v.check(txs, keys, generations, ok, func(items []ed25519.Item, ok []bool) error {
		return v.queue.Verify(ctx, source, items, ok)
	})
}

func (v *Verifier) check(txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool, verify func([]ed25519.Item, []bool) error) error {
	s, _ := v.scratch.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	defer v.scratch.Put(s)
	s.bytes, s.items, s.at, s.digests = s.bytes[:0], s.items[:0], s.at[:0], s.digests[:0]
	for from := 0; from < len(txs); from += stretch {
		v.look(s, from, min(from+stretch, len(txs)), txs, keys, generations, ok)
	}
	v.hits.Add(uint64(len(txs) - len(s.items)))
	v.misses.Add(uint64(len(s.items)))
	if len(s.items) == 0 {
		return nil
	}
	if cap(s.ok) < len(s.items) {
		s.ok = make([]bool, cap(s.items))
	}
	verdicts := s.ok[:len(s.items)]
	clear(verdicts)
	if err := verify(s.items, verdicts); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for k, i := range s.at {
		ok[i] = verdicts[k]
		v.cache.put(&s.digests[k], verdicts[k])
	}
	return nil
}

// stretch is how many verdicts are looked up together: the digests of all are made before the first is looked for, so that
// memory has answered by then.
const stretch = 32

// look sets ok[i] for from <= i < to where there is a verdict, and appends the others to s, to be checked.
func (v *Verifier) look(s *scratch, from, to int, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) {
	var digests [stretch]digest
	var starts [stretch + 1]int // of messages, which follow one another
	begin := len(s.bytes)
	for i := from; i < to; i++ {
		t := &txs[i]
		start := len(s.bytes)
		s.bytes = t.AppendMessage(s.bytes, v.genesis)
		end := len(s.bytes)
		s.bytes = append(s.bytes, t.Signature[:]...)
		s.bytes = append(s.bytes, keys[i][:]...)
		s.bytes = binary.BigEndian.AppendUint16(s.bytes, generations[i])
		digests[i-from] = sha256.Sum256(s.bytes[start:])
		v.cache.expect(&digests[i-from])
		s.bytes = s.bytes[:end]
		starts[i-from], starts[i-from+1] = start, end
	}
	some := false // are not known
	for i := from; i < to; i++ {
		d := &digests[i-from]
		var known bool
		if ok[i], known = v.cache.get(d); known {
			continue
		}
		some = true
		start, end := starts[i-from], starts[i-from+1]
		s.items = append(s.items, ed25519.Item{Key: keys[i], Message: s.bytes[start:end:end], Signature: txs[i].Signature})
		s.at = append(s.at, i)
		s.digests = append(s.digests, *d)
	}
	if !some {
		s.bytes = s.bytes[:begin]
	}
}

// Counters counts transactions since New.
type Counters struct {
	Hits, Misses uint64 // verdict was cached, was not
}

// Counters is a snapshot.
func (v *Verifier) Counters() Counters { return Counters{v.hits.Load(), v.misses.Load()} }

// Ledger is the Verifier as the execution of blocks sees it: a block is always judged, even while floods of
// transactions fill the queue. Safe for concurrent use.
type Ledger struct {
	Verifier *Verifier
	Source   uint64 // the name of blocks in the queue, which no peer or client has
}

// Check is Verifier.Check. When the queue is full, the calling goroutine verifies.
func (l Ledger) Check(ctx context.Context, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) error {
	return l.Verifier.check(txs, keys, generations, ok, func(items []ed25519.Item, ok []bool) error {
		err := l.Verifier.queue.Verify(ctx, l.Source, items, ok)
		if errors.Is(err, ed25519.ErrQueueFull) {
			const batch = 512 // between looks at the context
			for len(items) > 0 {
				if err := ctx.Err(); err != nil {
					return err
				}
				n := min(batch, len(items))
				ed25519.VerifyMany(items[:n], ok[:n])
				items, ok = items[n:], ok[n:]
			}
			return nil
		}
		return err
	})
}
