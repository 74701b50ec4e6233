package ledger

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/prefetch"
	"tutti/state/tx"
)

// signers is the directory of BLS keys in memory, decoded, by which distilled batches are judged: places below final as of
// the final block, and those above as of the branch that was judged last. Branches in which accounts with BLS keys are
// opened put different keys at one place, so each brings its own in before its batches are judged, which is rare.
//
// Its lock is taken alone.
type signers struct {
	mu     sync.RWMutex
	keys   *bls.Directory
	final  uint64              // places below it are final
	recent map[uint64]keyEntry // by place; those from final on that are in keys

	// Batches that were found good under final keys alone. Keys don't change, so they stay good.
	good   map[[32]byte][]tx.Hash // ids, by digest
	order  [][32]byte             // oldest first
	cached int                    // ids

	checked, known atomic.Uint64 // batches that were verified, and that needed not to be
}

// maxGoodIDs bounds the ids of good batches that are remembered, of 32 bytes each: some seconds of full load.
const maxGoodIDs = 1 << 18

// init makes an empty directory for a shard of at most limit accounts.
func (s *signers) init(limit uint64) {
	s.keys, s.recent, s.good = bls.NewDirectory(int(min(limit, noPlace))), map[uint64]keyEntry{}, map[[32]byte][]tx.Hash{}
}

// loadSigners decodes the final keys of the store. What it learns by that is kept there, so that each key is checked to be in
// the group once, and the next start takes two microseconds a key and not seventy. It is called once, before the ledger is used.
func (l *Ledger) loadSigners() error {
	count := l.last.meta.Directory.Count()
	for from := uint64(0); from < count; from += SegmentKeys {
		keys, err := l.DirectoryKeys(from, SegmentKeys)
		if err != nil {
			return err
		}
		known, err := l.ordinates(from, len(keys))
		if err != nil {
			return err
		}
		learned, errs := make([]bool, len(keys)), make([]error, len(keys))
		l.parallelRange(len(keys), func(a, b int) {
			for i := a; i < b; i++ {
				learned[i], errs[i] = l.signers.load(from+uint64(i), keys[i].Key, &known[i])
			}
		})
		if err := errors.Join(errs...); err != nil {
			return l.corrupt("the key directory: %v", err)
		}
		if err := l.keepOrdinates(from, known, learned); err != nil {
			return err
		}
		l.tell("decoding BLS keys", from+uint64(len(keys)), count)
	}
	l.signers.final = count
	return nil
}

// ordinates are those of n keys from a place on, as far as they are known, else zero, which none is.
func (l *Ledger) ordinates(from uint64, n int) ([][48]byte, error) {
	out := make([][48]byte, n)
	err := l.store.Points(from, func(place uint64, v []byte) (bool, error) {
		if place >= from+uint64(n) {
			return false, nil
		}
		if len(v) != 48 {
			return false, l.corrupt("what decodes entry %d of the key directory has %d bytes", place, len(v))
		}
		out[place-from] = [48]byte(v)
		return true, nil
	})
	return out, err
}

// keepOrdinates stores those that were learned of keys from a place on.
func (l *Ledger) keepOrdinates(from uint64, ordinates [][48]byte, learned []bool) error {
	if !slices.Contains(learned, true) {
		return nil
	}
	b := l.store.NewBatch()
	for i := range ordinates {
		if learned[i] {
			b.Point(from+uint64(i), ordinates[i][:])
		}
	}
	return l.store.Commit(b)
}

// load enters the key of a place, whose ordinate is known or zero, and then learned if that can be.
func (s *signers) load(place uint64, key [48]byte, ordinate *[48]byte) (learned bool, err error) {
	if *ordinate != ([48]byte{}) {
		k, err := bls.ParseChecked(key, *ordinate)
		if err != nil {
			return false, fmt.Errorf("entry %d does not belong to what decodes it: %w", place, err)
		}
		return false, s.keys.AddTrustedKey(uint32(place), k)
	}
	k, err := bls.ParsePublicKey(key)
	if errors.Is(err, bls.ErrKey) {
		return false, nil
	}
	if err == nil {
		err = s.keys.AddTrustedKey(uint32(place), k)
	}
	*ordinate = k.Ordinate()
	return err == nil, err
}

// add decodes a key of which possession was proven when it got its place. One that is no key after all, as a genesis file
// that nobody verified may have it, leaves its place empty: its owner can't sign batches, here and everywhere.
func (s *signers) add(place uint64, key [48]byte) error {
	err := s.keys.AddTrusted(uint32(place), key)
	if errors.Is(err, bls.ErrKey) {
		return nil
	}
	return err
}

// branchKeys are the keys that the blocks above the final one, down from b, have appended, by place.
func (l *Ledger) branchKeys(b *block) map[uint64]keyEntry {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := map[uint64]keyEntry{}
	for ; b != nil && b.height > l.last.height; b = b.parent {
		for i, k := range b.keys {
			out[b.meta.Directory.Count()-uint64(len(b.keys)-i)] = k
		}
	}
	return out
}

// judge calls f with a directory in which the keys of the branch are, and tells whether the keys are those of final blocks
// up to a place. The directory does not change while f runs.
func (s *signers) judge(branch map[uint64]keyEntry, f func(keys *bls.Directory, final uint64) error) error {
	for {
		s.mu.RLock()
		if s.holds(branch) {
			defer s.mu.RUnlock()
			return f(s.keys, s.final)
		}
		s.mu.RUnlock()
		if err := s.bring(branch, 0); err != nil {
			return err
		}
	}
}

func (s *signers) holds(branch map[uint64]keyEntry) bool {
	for place, k := range branch {
		if place >= s.final && s.recent[place] != k {
			return false
		}
	}
	return true
}

// bring puts the keys of a branch into the directory and makes places below final, if that is more, final.
func (s *signers) bring(branch map[uint64]keyEntry, final uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for place, k := range branch {
		if place < s.final || s.recent[place] == k {
			continue
		}
		if err := s.keys.Remove(uint32(place)); err != nil && !errors.Is(err, bls.ErrUnknown) {
			return err
		}
		if err := s.add(place, k.key); err != nil {
			return err
		}
		s.recent[place] = k
	}
	for ; s.final < final; s.final++ {
		delete(s.recent, s.final)
	}
	return nil
}

// recall finds the ids of a batch that was good before.
func (s *signers) recall(digest [32]byte) ([]tx.Hash, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids, ok := s.good[digest]
	return ids, ok
}

// remember keeps the ids of a good batch.
func (s *signers) remember(digest [32]byte, ids []tx.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good[digest] != nil {
		return
	}
	s.good[digest] = ids
	s.order, s.cached = append(s.order, digest), s.cached+len(ids)
	for s.cached > maxGoodIDs && len(s.order) > 1 {
		s.cached -= len(s.good[s.order[0]])
		delete(s.good, s.order[0])
		s.order = s.order[1:]
	}
}

// Signer is an account's record as of the final block and its BLS key, decoded; known: the account exists, signs: it has a key
// that can sign batches.
func (l *Ledger) Signer(id tx.ID) (r Record, key bls.PublicKey, known, signs bool) {
	if r, known = l.Account(id); !known || r.Extension == 0 {
		return r, key, known, false
	}
	key, signs = l.signers.key(r.Extension-1, id)
	return r, key, true, signs
}

// key is the key at a place, if it is of an account: above the final ones there may be another branch's.
func (s *signers) key(place uint64, id tx.ID) (bls.PublicKey, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if place >= s.final && s.recent[place].id != id {
		return bls.PublicKey{}, false
	}
	key, err := s.keys.Key(uint32(place))
	return key, err == nil
}

// batchKeys are where the keys of a batch's senders are, in the order in which Batch.Verify asks.
type batchKeys struct {
	places []uint32   // of those who signed the batch; noPlace: without a BLS key
	keys   [][32]byte // of stragglers
	most   uint64     // places are below
}

const noPlace = 1<<32 - 1

// Slots implements distill.Keys.
func (k *batchKeys) Slots(senders []uint64, slots []uint32) int {
	for i := range senders {
		if slots[i] = k.places[i]; slots[i] == noPlace {
			return i
		}
	}
	return len(senders)
}

// Ed25519 implements distill.Keys.
func (k *batchKeys) Ed25519(senders []uint64, keys [][32]byte) int {
	n := copy(keys[:len(senders)], k.keys)
	k.keys = k.keys[n:]
	return n
}

// batchKeysOf reads the keys of a batch's senders as of a block of which the table has the state, or one below it that is
// final: keys and places don't change. exec is held, or mu for reading.
func (l *Ledger) batchKeysOf(at *block, b *distill.Batch) (*batchKeys, error) {
	k := &batchKeys{places: make([]uint32, 0, b.Count()-b.Stragglers()), keys: make([][32]byte, 0, b.Stragglers())}
	find := func(i int) *cell {
		id := tx.ID(distill.Sender(b.Body(i)))
		slot := l.table.route[id.Partition()]
		if slot < 0 || id.Index() >= at.meta.Next[slot] {
			return nil
		}
		return l.table.parts[slot].cell(id.Index())
	}
	for i := range b.Count() {
		if i+prefetch.Ahead < b.Count() {
			if c := find(i + prefetch.Ahead); c != nil {
				prefetch.Line(c)
			}
		}
		c := find(i)
		if c == nil {
			return nil, invalid("transfer %d of a batch: %v", i, UnknownPayer)
		}
		if b.Straggler(i) {
			k.keys = append(k.keys, c.key())
			continue
		}
		place := c.extension() - 1 // 0: none
		if place < noPlace {
			k.most = max(k.most, place+1)
		}
		k.places = append(k.places, uint32(min(place, noPlace)))
	}
	return k, nil
}

// checkBatch judges a batch in the parent state, where keys says its senders' keys are, and returns its transfers' ids, which
// are shared. The error of a wrong batch wraps ErrInvalidBody and what package distill says.
func (l *Ledger) checkBatch(parent *block, b *distill.Batch, read func() (*batchKeys, error)) ([]tx.Hash, error) {
	digest := b.Digest()
	if ids, ok := l.signers.recall(digest); ok {
		l.signers.known.Add(1)
		return ids, nil
	}
	if _, err := tx.NewBody(nil, []*distill.Batch{b}); err != nil {
		return nil, fmt.Errorf("ledger: %w: batch: %w", ErrInvalidBody, err)
	}
	keys, err := read()
	if err != nil {
		return nil, err
	}
	var ids []tx.Hash
	var lasting bool
	err = l.signers.judge(l.branchKeys(parent), func(directory *bls.Directory, final uint64) error {
		lasting = keys.most <= final
		l.signers.checked.Add(1)
		found, err := b.Verify(distill.Chain(l.o.Params.GenesisHash), directory, keys)
		ids = idsOf(found)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ledger: %w: batch: %w", ErrInvalidBody, err)
	}
	if lasting {
		l.signers.remember(digest, ids)
	}
	return ids, nil
}

// checkBatches judges the batches of a body on a parent, side by side.
func (l *Ledger) checkBatches(parent *block, batches []*distill.Batch) (ids [][]tx.Hash, errs []error) {
	ids, errs = make([][]tx.Hash, len(batches)), make([]error, len(batches))
	l.parallel(len(batches), func(_, i int) {
		ids[i], errs[i] = l.checkBatch(parent, batches[i], func() (*batchKeys, error) {
			if err := l.enter(parent); err != nil {
				return nil, err
			}
			defer l.exec.Unlock()
			return l.batchKeysOf(parent, batches[i])
		})
	})
	return ids, errs
}

// CheckBatch judges a batch in the final state and returns its transfers' ids, which are shared: do not modify. A good one
// is remembered for when a block with it is executed. Whether the transfers can be paid is not looked at. The error of a
// wrong batch wraps ErrInvalidBody and what package distill says.
func (l *Ledger) CheckBatch(b *distill.Batch) ([]tx.Hash, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	l.mu.RLock()
	last := l.last
	l.mu.RUnlock()
	return l.checkBatch(last, b, func() (*batchKeys, error) {
		l.mu.RLock()
		defer l.mu.RUnlock()
		if l.closed {
			return nil, ErrClosed
		}
		return l.batchKeysOf(last, b)
	})
}
