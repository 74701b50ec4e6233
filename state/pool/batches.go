package pool

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"tutti/accel/distill"
	"tutti/state/tx"
)

// BatchOptions of Batches. All limits must be above zero.
type BatchOptions struct {
	Height       uint64        // final height at the start
	MaxCount     int           // transfers of one batch
	MaxSize      int           // bytes of its encoding
	MaxTransfers int           // held in all
	MaxBytes     int           // of encodings held
	MaxAhead     uint32        // blocks that an expiry may lie ahead of the final height
	Client, Peer Quota         // for each source of Submit and of Forwarded; rates in units of BatchCost, the rest in transfers
	ResendAfter  time.Duration // first repeat of an own batch; doubles four times
	// Check judges a batch in the final state and returns its transfers' ids (ledger.CheckBatch). Safe for concurrent use.
	Check func(*distill.Batch) ([]tx.Hash, error)
}

// Batches holds distilled batches that are right and not in a final block yet, in the order in which they came. It is what
// Pool is for single transactions, and much less, since a broker answers for the nonces and balances in its batch: what
// can't be paid is skipped in the block. A batch that a block leaves out because too much of it would be skipped may have
// come before the one with its senders' earlier nonces: it is offered again after the next final block, maxSkipped times in
// all. It is safe for concurrent use. Its lock is not held while a batch is checked, which is done once, and not for what is
// held or has lately been final.
type Batches struct {
	opts BatchOptions

	mu       sync.Mutex
	height   uint64
	held     []*pooledBatch // oldest first
	names    map[tx.Hash]*pooledBatch
	blocks   map[tx.Hash][]tx.Hash // batches of unfinalised blocks, by block
	past     map[tx.Hash]struct{}  // batches that were final lately
	order    []tx.Hash             // of past, oldest first
	sources  sources
	counters BatchCounters
}

const (
	maxSkipped = 8
	maxPast    = 1024
)

type pooledBatch struct {
	batch  *distill.Batch
	name   tx.Hash
	expiry uint32 // the lowest of its transfers
	source *source
	ids    func() map[tx.Hash]struct{} // made when somebody asks

	skipped int    // times that a block left it out
	after   uint64 // final height above which it is offered

	own    bool // of a client of this node
	level  int  // times that it was sent again
	sentAt time.Time
}

// BatchCounters counts since the start, but for the first three.
type BatchCounters struct {
	Batches, Transfers, Bytes int             // now
	Added                     uint64          // admitted
	AddedTransfers            uint64          // in those
	Used                      uint64          // left because they are in a final block
	Expired                   uint64          // left because a transfer has expired
	Dropped                   uint64          // left because blocks could not take them
	Resent                    uint64          // given out by Resend
	Rejected                  map[Code]uint64 // refused, by reason
}

// NewBatches makes an empty one.
func NewBatches(opts BatchOptions) (*Batches, error) {
	least := min(opts.MaxCount, opts.MaxSize, opts.MaxTransfers, opts.MaxBytes, int(opts.MaxAhead), int(opts.ResendAfter))
	for _, q := range []Quota{opts.Client, opts.Peer} {
		least = min(least, q.PerSecond, q.Burst, q.Held)
	}
	if least <= 0 || opts.Check == nil {
		return nil, errors.New("pool: all options for batches must be given and above zero")
	}
	s := &Batches{
		opts: opts, height: opts.Height, names: map[tx.Hash]*pooledBatch{}, blocks: map[tx.Hash][]tx.Hash{}, past: map[tx.Hash]struct{}{},
	}
	s.counters.Rejected = map[Code]uint64{}
	s.sources.init(opts.Client, opts.Peer)
	return s, nil
}

// BatchName names a right batch: its root stands for its transfers.
func BatchName(b *distill.Batch) tx.Hash {
	d := sha256.New()
	root, aggregate := b.Root(), b.Aggregate()
	d.Write(root[:])
	d.Write(aggregate[:])
	d.Write(binary.BigEndian.AppendUint32(nil, uint32(b.Count())))
	d.Write(b.StragglerBits())
	return tx.Hash(d.Sum(nil))
}

// What checking costs beside a transfer's part of it, in transfers: a batch's pairing, a straggler's signature. A batch that
// turns out to be wrong costs its source a second's worth.
const (
	batchWeight     = 4096
	stragglerWeight = 32
)

// BatchCost is what a batch takes of a source's rate.
func BatchCost(b *distill.Batch) int {
	return b.Count() + batchWeight + stragglerWeight*b.Stragglers()
}

// Submit judges and holds a batch that a client of this node, whom source names, sent. Resend gives it out until it is final
// or expired. The error is nil or a *Reject.
func (s *Batches) Submit(source uint64, b *distill.Batch) error {
	return s.add(sourceKey{own: true, id: source}, b)
}

// Forwarded judges and holds a batch that another validator accepted, like Submit; it is not given out again.
func (s *Batches) Forwarded(source uint64, b *distill.Batch) error {
	return s.add(sourceKey{id: source}, b)
}

func (s *Batches) add(key sourceKey, b *distill.Batch) error {
	name, now := BatchName(b), time.Now()
	first, most := expiries(b)
	if r := s.screen(now, key, b, name, first, most); r != nil {
		return r
	}
	ids, err := s.opts.Check(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sources.get(key, now)
	if err != nil {
		src.tokens -= float64(src.quota.PerSecond)
		return s.refuse(reject(WrongBatch, "%v", err))
	}
	if r := s.fits(src, b, name, first); r != nil { // others came meanwhile
		return s.refuse(r)
	}
	p := &pooledBatch{batch: b, name: name, expiry: first, source: src, own: key.own, sentAt: now}
	p.ids = sync.OnceValue(func() map[tx.Hash]struct{} {
		set := make(map[tx.Hash]struct{}, len(ids))
		for _, id := range ids {
			set[id] = struct{}{}
		}
		return set
	})
	s.held, s.names[name] = append(s.held, p), p
	src.held += b.Count()
	s.counters.Batches++
	s.counters.Transfers += b.Count()
	s.counters.Bytes += b.Bytes()
	s.counters.Added++
	s.counters.AddedTransfers += uint64(b.Count())
	return nil
}

// expiries are the lowest and the highest of a batch's transfers.
func expiries(b *distill.Batch) (first, most uint32) {
	first = 1<<32 - 1
	for i := range b.Count() {
		e := binary.BigEndian.Uint32(b.Body(i)[24:])
		first, most = min(first, e), max(most, e)
	}
	return first, most
}

// screen refuses what need not be checked, and takes from the source's quota.
func (s *Batches) screen(now time.Time, key sourceKey, b *distill.Batch, name tx.Hash, first, most uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.sources.get(key, now)
	if b.Count() > s.opts.MaxCount || b.Bytes() > s.opts.MaxSize {
		return s.refuse(reject(TooLarge, "the batch has %d transfers in %d bytes; here at most %d in %d", b.Count(), b.Bytes(), s.opts.MaxCount, s.opts.MaxSize))
	}
	if uint64(most) > s.height+uint64(s.opts.MaxAhead) {
		return s.refuse(reject(ExpiresTooFar, "a transfer expires at height %d; here at most %d, %d blocks ahead", most, s.height+uint64(s.opts.MaxAhead), s.opts.MaxAhead))
	}
	if r := s.fits(src, b, name, first); r != nil {
		return s.refuse(r)
	}
	if !src.take(BatchCost(b)) {
		return s.refuse(reject(RateLimited, "more than %d transfers a second, where a batch counts as %d and a straggler as %d more, and a wrong batch as all of them", src.quota.PerSecond, batchWeight, stragglerWeight))
	}
	return nil
}

// fits reports why a batch can't be held now. mu is held.
func (s *Batches) fits(src *source, b *distill.Batch, name tx.Hash, first uint32) *Reject {
	_, past := s.past[name]
	switch {
	case past:
		return reject(Duplicate, "batch %s is final already", name)
	case s.names[name] != nil:
		return reject(Duplicate, "batch %s is held already", name)
	case uint64(first) <= s.height:
		return reject(Expired, "a transfer expires at height %d, and block %d is final", first, s.height)
	case src.held+b.Count() > src.quota.Held:
		return reject(AccountLimit, "%d transfers of this source wait; at most %d may", src.held, src.quota.Held)
	case s.counters.Transfers+b.Count() > s.opts.MaxTransfers || s.counters.Bytes+b.Bytes() > s.opts.MaxBytes:
		return reject(PoolFull, "%d transfers wait", s.counters.Transfers)
	}
	return nil
}

func (s *Batches) refuse(r *Reject) error {
	s.counters.Rejected[r.Code]++
	return r
}

// Offer offers batches for a block, oldest first, at most maxTxs transfers and maxBytes of encoding with
// outcome bits, but for those in the unfinalised blocks named by ancestors.
func (s *Batches) Offer(maxTxs, maxBytes int, ancestors []tx.Hash) []*distill.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[tx.Hash]bool{}
	for _, a := range ancestors {
		for _, name := range s.blocks[a] {
			used[name] = true
		}
	}
	var out []*distill.Batch
	for _, p := range s.held {
		if len(out) == tx.MaxBatches {
			break
		}
		size := p.batch.Bytes() + p.batch.Count()/8 + 1
		if used[p.name] || p.skipped > 0 && p.after >= s.height || p.batch.Count() > maxTxs || size > maxBytes {
			continue
		}
		out = append(out, p.batch)
		maxTxs, maxBytes = maxTxs-p.batch.Count(), maxBytes-size
	}
	return out
}

// Included says that an unfinalised block contains these batches. Report every block with batches that is built or found
// valid, and later exactly one of Finalised and Abandoned for it.
func (s *Batches) Included(block tx.Hash, batches []*distill.Batch) {
	if len(batches) == 0 {
		return
	}
	names := make([]tx.Hash, len(batches))
	for i, b := range batches {
		names[i] = BatchName(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.blocks) < maxBlocks {
		s.blocks[block] = names
	}
}

// Abandoned says that the block will never be final.
func (s *Batches) Abandoned(block tx.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocks, block)
}

// Finalised says that the block at a height, with these batches, is final. They leave, and so do those with a transfer that
// has expired.
func (s *Batches) Finalised(block tx.Hash, height uint64, batches []*distill.Batch) {
	used := map[tx.Hash]bool{}
	for _, b := range batches {
		used[BatchName(b)] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocks, block)
	for name := range used {
		if _, again := s.past[name]; again {
			continue
		}
		if len(s.order) == maxPast {
			delete(s.past, s.order[0])
			s.order = s.order[1:]
		}
		s.past[name] = struct{}{}
		s.order = append(s.order, name)
	}
	s.height = max(s.height, height)
	s.leave(func(p *pooledBatch) *uint64 {
		switch {
		case used[p.name]:
			return &s.counters.Used
		case uint64(p.expiry) <= s.height:
			return &s.counters.Expired
		}
		return nil
	})
}

// Drop takes out a batch that no block can take: it is wrong by now.
func (s *Batches) Drop(b *distill.Batch) {
	name := BatchName(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(name)
}

// Skipped says that a block left out a batch because too much of it would be skipped.
func (s *Batches) Skipped(b *distill.Batch) {
	name := BatchName(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.names[name]
	if p == nil {
		return
	}
	p.after = s.height
	if p.skipped++; p.skipped == maxSkipped {
		s.drop(name)
	}
}

func (s *Batches) drop(name tx.Hash) {
	s.leave(func(p *pooledBatch) *uint64 {
		if p.name == name {
			return &s.counters.Dropped
		}
		return nil
	})
}

// leave takes out those for which why is a counter. mu is held.
func (s *Batches) leave(why func(*pooledBatch) *uint64) {
	kept := s.held[:0]
	for _, p := range s.held {
		counter := why(p)
		if counter == nil {
			kept = append(kept, p)
			continue
		}
		*counter++
		delete(s.names, p.name)
		p.source.held -= p.batch.Count()
		s.counters.Batches--
		s.counters.Transfers -= p.batch.Count()
		s.counters.Bytes -= p.batch.Bytes()
	}
	clear(s.held[len(kept):])
	s.held = kept
}

// Counters is a snapshot.
func (s *Batches) Counters() BatchCounters {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counters
	c.Rejected = maps.Clone(c.Rejected)
	return c
}

// Waits reports whether a batch is held that is in none of the ancestors.
func (s *Batches) Waits(ancestors []tx.Hash) bool {
	return len(s.Offer(tx.MaxBodyTx, distill.MaxBatchBytes, ancestors)) > 0
}

// Resend gives out batches that clients of this node sent and that are due to be forwarded again, at most maxBytes of them:
// not in an unfinalised block, and ResendAfter times 1, 2, 4, 8, then 16 after the last time. Their receiver forwards them
// the first time. Call it regularly.
func (s *Batches) Resend(now time.Time, maxBytes int) (out []*distill.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[tx.Hash]bool{}
	for _, names := range s.blocks {
		for _, name := range names {
			used[name] = true
		}
	}
	for _, p := range s.held {
		if !p.own || used[p.name] || now.Sub(p.sentAt) < s.opts.ResendAfter<<p.level {
			continue
		}
		if maxBytes -= p.batch.Bytes(); maxBytes < 0 {
			break
		}
		p.sentAt, p.level = now, min(p.level+1, resendLevels-1)
		s.counters.Resent++
		out = append(out, p.batch)
	}
	return out
}

// Has reports whether a transfer is in a batch that is held.
func (s *Batches) Has(id tx.Hash) bool {
	s.mu.Lock()
	held := slices.Clone(s.held)
	s.mu.Unlock()
	for _, p := range held {
		if _, ok := p.ids()[id]; ok {
			return true
		}
	}
	return false
}
