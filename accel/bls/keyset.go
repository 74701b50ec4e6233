package bls

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync/atomic"

	"tutti/accel/bls/internal/curve"
)

// KeySet is the keys of one committee, decoded and checked. Immutable but for a memo of recent messages; safe for
// concurrent use.
type KeySet struct {
	engine curve.Engine
	keys   []curve.G1
	coded  [][48]byte  // the same, as they came
	total  curve.G1Jac // sum of all keys

	// A committee signs few messages many times, and hashing one to the curve is a sixth of a verification. Each slot
	// holds one recent message, chosen by the hash of the message.
	seed maphash.Seed
	memo [8]atomic.Pointer[hashed]
}

// hashed is a message and its point in G2.
type hashed struct {
	msg   string
	point curve.G2
}

// memoBytes bounds the messages that are remembered; votes are about 100 bytes long.
const memoBytes = 256

// NewKeySet decodes and checks at least one key (about 70 microseconds each). It does not check possession.
func NewKeySet(keys [][48]byte) (*KeySet, error) { return newKeySet(engine(), keys) }

func newKeySet(e curve.Engine, keys [][48]byte) (*KeySet, error) {
	return (&KeySet{engine: e}).With(keys)
}

// With is a set of other keys. Those that are in s are not decoded again, which is what most of the time goes for.
func (s *KeySet) With(keys [][48]byte) (*KeySet, error) {
	old := make(map[[48]byte]int, len(s.coded))
	for i, k := range s.coded {
		old[k] = i
	}
	if len(keys) == 0 {
		return nil, errors.New("bls: no keys")
	}
	next := &KeySet{engine: s.engine, keys: make([]curve.G1, len(keys)), coded: slices.Clone(keys), seed: maphash.MakeSeed()}
	for i := range keys {
		at, ok := old[keys[i]]
		if ok {
			next.keys[i] = s.keys[at]
		} else if next.keys[i], ok = s.engine.DecodeG1(&keys[i]); !ok {
			return nil, fmt.Errorf("bls: key %d is not a valid public key", i)
		}
	}
	next.total = s.engine.SumG1(next.keys)
	return next, nil
}

// Len is the number of keys.
func (s *KeySet) Len() int { return len(s.keys) }

// Verify reports whether sig is key i's signature on msg; false for an i that is not a key's. It takes about 1 ms.
func (s *KeySet) Verify(i int, msg []byte, sig [96]byte) bool {
	if i < 0 || i >= len(s.keys) {
		return false
	}
	p, ok := parse(s.engine, sig[:])
	return ok && equation(s.engine, &s.keys[i], s.hash(msg), &p)
}

// VerifyAggregate reports whether sig is the sum of the signatures on msg of exactly the keys in signers: bit i%8,
// least significant first, of byte i/8 stands for key i. The bitmap has ceil(n/8) bytes, no bit beyond n and at least
// one bit set. It takes about 1 ms for committees up to a few hundred.
func (s *KeySet) VerifyAggregate(signers []byte, msg []byte, sig [96]byte) bool {
	key, ok := s.sum(signers)
	if !ok {
		return false
	}
	p, ok := parse(s.engine, sig[:])
	return ok && equation(s.engine, &key, s.hash(msg), &p)
}

// Aggregate adds up one or more signatures. It fails if one is not a valid point of the group, or if the sum is
// infinity. It does not verify: pass only signatures that Verify accepted, or check the sum with VerifyAggregate
// before it is used or sent, because one wrong signature makes the sum worthless. About 90 microseconds per signature.
func (s *KeySet) Aggregate(sigs [][96]byte) ([96]byte, error) {
	if len(sigs) == 0 {
		return [96]byte{}, errors.New("bls: no signatures to aggregate")
	}
	points := make([]curve.G2, len(sigs))
	for i := range sigs {
		var ok bool
		if points[i], ok = parse(s.engine, sigs[i][:]); !ok {
			return [96]byte{}, fmt.Errorf("bls: signature %d is not a valid point", i)
		}
	}
	sum := affineG2(s.engine.SumG2(points))
	if sum.IsInfinity() {
		return [96]byte{}, errors.New("bls: the signatures add up to infinity")
	}
	return sum.Bytes(), nil
}

// sum adds the keys in signers; false if the bitmap is malformed or the sum is infinity.
func (s *KeySet) sum(signers []byte) (curve.G1, bool) {
	n := len(s.keys)
	if len(signers) != (n+7)/8 || n%8 != 0 && signers[n/8]>>(n%8) != 0 {
		return curve.G1{}, false
	}
	present := 0
	for _, b := range signers {
		present += bits.OnesCount8(b)
	}
	few, fewBit := present, byte(1)
	if present > n/2 {
		few, fewBit = n-present, 0
	}
	points := make([]curve.G1, 0, few)
	for i := range s.keys {
		if signers[i/8]>>(i%8)&1 == fewBit {
			points = append(points, s.keys[i])
		}
	}
	sum := s.engine.SumG1(points)
	if fewBit == 0 {
		sum.Neg(&sum)
		sum.AddAssign(&s.total)
	}
	key := affineG1(sum)
	return key, !key.IsInfinity()
}

// hash is msg's point, from the memo if it is there.
func (s *KeySet) hash(msg []byte) curve.G2 {
	if len(msg) > memoBytes {
		return s.engine.HashToG2(msg, dstVote)
	}
	slot := &s.memo[maphash.Bytes(s.seed, msg)%uint64(len(s.memo))]
	if h := slot.Load(); h != nil && h.msg == string(msg) {
		return h.point
	}
	h := &hashed{string(msg), s.engine.HashToG2(msg, dstVote)}
	slot.Store(h)
	return h.point
}
