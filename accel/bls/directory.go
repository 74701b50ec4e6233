package bls

import (
	"errors"
	"fmt"
	"sync"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/bls/internal/keysum"
)

// What a Directory's methods return.
var (
	ErrCapacity   = errors.New("bls: index is beyond the directory's capacity")
	ErrOccupied   = errors.New("bls: index has a key already")
	ErrUnknown    = errors.New("bls: index has no key")
	ErrPossession = errors.New("bls: proof of possession is wrong")
	ErrNoSum      = errors.New("bls: the keys add up to nothing")
)

// Directory holds the public keys of up to a fixed number of signers, by index, decoded once and kept in the form that
// this machine adds up fastest (package keysum): 128 bytes each, which the garbage collector does not look into. Memory
// is taken in blocks of 512 KiB as indices come into use. Safe for concurrent use: sums run side by side, and a change
// waits for the sums that are running. A sum sees all changes that returned before it began. Keys have no generations
// here: a caller that judges by an earlier state keeps two directories, or refuses what was signed before a change.
type Directory struct {
	engine   curve.Engine
	adder    keysum.Adder
	capacity uint32

	mu     sync.RWMutex // guards what follows
	blocks []*block     // of blockKeys indices each; nil before the first key
	count  int
}

const blockKeys = 4096

// block is the keys of neighbouring indices.
type block struct {
	present [blockKeys / 64]uint64 // a bit for each row that is a key
	rows    [blockKeys]keysum.Row
}

// NewDirectory makes an empty directory for indices 0 to capacity-1.
func NewDirectory(capacity int) *Directory {
	return newDirectory(engine(), adders().For(capacity), capacity)
}

func newDirectory(e curve.Engine, a keysum.Adder, capacity int) *Directory {
	capacity = min(max(capacity, 0), 1<<31)
	return &Directory{engine: e, adder: a, capacity: uint32(capacity), blocks: make([]*block, (capacity+blockKeys-1)/blockKeys)}
}

// Add enters a key for an index that has none, after decoding it, checking that it is in the group and that proof
// proves possession over possessionMsg, as VerifyPossession does (about 1.3 ms). The caller has made sure that
// possessionMsg contains the key. Errors: ErrKey, ErrPossession, ErrCapacity, ErrOccupied.
func (d *Directory) Add(index uint32, key [48]byte, possessionMsg []byte, proof [96]byte) error {
	p, err := proven(key, possessionMsg, proof)
	if err != nil {
		return err
	}
	return d.set(index, p, false)
}

// AddTrusted is Add for a key whose possession was proven before: one of genesis, or one that this process or its
// predecessor checked and stored. Adding a key of which nobody knows the secret to others lets its owner sign for them.
// The key is decoded and checked to be in the group nevertheless (about 65 microseconds). Errors: ErrKey, ErrCapacity,
// ErrOccupied.
func (d *Directory) AddTrusted(index uint32, key [48]byte) error {
	p, err := ParsePublicKey(key)
	if err != nil {
		return err
	}
	return d.set(index, p, false)
}

// AddTrustedKey is AddTrusted for a key that is decoded already. Errors: ErrKey for the zero value, ErrCapacity,
// ErrOccupied.
func (d *Directory) AddTrustedKey(index uint32, key PublicKey) error {
	if key.point.IsInfinity() {
		return ErrKey
	}
	return d.set(index, key, false)
}

// Replace is Add for an index that has a key. Errors: as Add, but ErrUnknown instead of ErrOccupied. On an error the
// old key stays.
func (d *Directory) Replace(index uint32, key [48]byte, possessionMsg []byte, proof [96]byte) error {
	p, err := proven(key, possessionMsg, proof)
	if err != nil {
		return err
	}
	return d.set(index, p, true)
}

// Remove takes an index's key out. Errors: ErrUnknown.
func (d *Directory) Remove(index uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(index) {
		return fmt.Errorf("%w: %d", ErrUnknown, index)
	}
	d.blocks[index/blockKeys].present[index%blockKeys/64] &^= 1 << (index % 64)
	d.count--
	return nil
}

// Key is an index's key. Errors: ErrUnknown.
func (d *Directory) Key(index uint32) (PublicKey, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if !d.has(index) {
		return PublicKey{}, fmt.Errorf("%w: %d", ErrUnknown, index)
	}
	return PublicKey{d.adder.Unpack(d.row(index))}, nil
}

// Len is the number of keys.
func (d *Directory) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.count
}

// Capacity is the number of indices.
func (d *Directory) Capacity() int { return int(d.capacity) }

// Sum adds the keys of the indices up; an index that occurs twice counts twice. Errors: ErrUnknown, which names the
// first such index; ErrNoSum if the sum is infinity, as it is for no indices.
func (d *Directory) Sum(indices []uint32) (PublicKey, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.know(indices); err != nil {
		return PublicKey{}, err
	}
	sum := d.sum(indices)
	if sum.IsInfinity() {
		return PublicKey{}, ErrNoSum
	}
	return PublicKey{sum}, nil
}

// CheckShares is CheckShares under the keys of the indices. Errors: as there, and ErrUnknown.
func (d *Directory) CheckShares(indices []uint32, msg []byte, shares []Share) (sum [96]byte, bad []int, err error) {
	if len(indices) != len(shares) {
		return sum, nil, fmt.Errorf("bls: %d indices for %d shares", len(indices), len(shares))
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.know(indices); err != nil {
		return sum, nil, err
	}
	sumKeys := func(lo, hi int) curve.G1 { return d.sum(indices[lo:hi]) }
	return checkShares(d.engine, sumKeys, msg, shares)
}

// proven decodes a key and checks its proof of possession.
func proven(key [48]byte, msg []byte, proof [96]byte) (PublicKey, error) {
	p, err := ParsePublicKey(key)
	if err != nil {
		return PublicKey{}, err
	}
	if !VerifyPossession(key, msg, proof) {
		return PublicKey{}, ErrPossession
	}
	return p, nil
}

// has reports whether an index has a key. The caller holds mu.
func (d *Directory) has(index uint32) bool {
	if index >= d.capacity {
		return false
	}
	b := d.blocks[index/blockKeys]
	return b != nil && b.present[index%blockKeys/64]>>(index%64)&1 == 1
}

// row is the place of an index below the capacity whose block exists. The caller holds mu.
func (d *Directory) row(index uint32) *keysum.Row {
	return &d.blocks[index/blockKeys].rows[index%blockKeys]
}

// know returns ErrUnknown for the first index without a key. The caller holds mu.
func (d *Directory) know(indices []uint32) error {
	for _, i := range indices {
		if !d.has(i) {
			return fmt.Errorf("%w: %d", ErrUnknown, i)
		}
	}
	return nil
}

// set enters a checked key.
func (d *Directory) set(index uint32, key PublicKey, replace bool) error {
	if index >= d.capacity {
		return fmt.Errorf("%w: %d of %d", ErrCapacity, index, d.capacity)
	}
	row := d.adder.Pack(&key.point)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch had := d.has(index); {
	case had && !replace:
		return fmt.Errorf("%w: %d", ErrOccupied, index)
	case !had && replace:
		return fmt.Errorf("%w: %d", ErrUnknown, index)
	case !had:
		d.count++
	}
	b := &d.blocks[index/blockKeys]
	if *b == nil {
		*b = new(block)
	}
	(*b).rows[index%blockKeys] = row
	(*b).present[index%blockKeys/64] |= 1 << (index % 64)
	return nil
}

// sum adds the keys of indices up that all have one. The caller holds mu.
func (d *Directory) sum(indices []uint32) curve.G1 {
	return affineG1(d.adder.Sum(len(indices), func(i int) *keysum.Row { return d.row(indices[i]) }))
}
