package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/erasure"
)

// Validator is one seat of a committee.
type Validator struct {
	Key   PublicKey // voting key; its proof of possession was checked when it entered genesis or stake
	Node  [32]byte  // Ed25519 public key of the node that answers for it on the network
	Power Power
}

// Keys checks signatures of one committee. Implementations hold the decoded keys and are safe for concurrent use.
// The product's is NewKeys, over accel/bls; tests of the machine bring their own.
type Keys interface {
	// Verify checks validator i's signature over msg, i below the committee's size.
	Verify(i int, msg []byte, sig Signature) bool
	// VerifyAggregate checks an aggregate by exactly the validators in signers over one msg.
	VerifyAggregate(signers Signers, msg []byte, sig Signature) bool
	// Aggregate adds signatures up. It fails if one is not a point of the group.
	Aggregate(sigs []Signature) (Signature, error)
}

// Signer signs votes with one validator's key.
type Signer interface {
	Sign(msg []byte) Signature
}

// Committee is a shard's validators for one epoch, in a fixed order. Immutable after NewCommittee.
type Committee struct {
	Shard      ShardID
	Epoch      Epoch
	Seed       Hash // drives the leader schedule
	Validators []Validator

	total  Power
	order  []uint16 // indexes shuffled by seed
	bounds []Power  // bounds[k]: power of order[0..k] together
	start  uint64
	hash   Hash
	code   func() *erasure.Committee // chosen at the first call
}

// NewCommittee checks and prepares a committee.
func NewCommittee(shard ShardID, epoch Epoch, seed Hash, validators []Validator) (*Committee, error) {
	if len(validators) == 0 || len(validators) > MaxCommittee {
		return nil, fmt.Errorf("consensus: committee of %d validators: need 1 to %d", len(validators), MaxCommittee)
	}
	c := &Committee{Shard: shard, Epoch: epoch, Seed: seed, Validators: validators}
	seen := make(map[PublicKey]bool, len(validators))
	for i, v := range validators {
		if v.Power == 0 || v.Power > MaxTotalPower {
			return nil, fmt.Errorf("consensus: validator %d has power %d: need 1 to %d", i, v.Power, MaxTotalPower)
		}
		if seen[v.Key] {
			return nil, fmt.Errorf("consensus: validator %d repeats a voting key: each seat needs its own", i)
		}
		seen[v.Key] = true
		if c.total += v.Power; c.total > MaxTotalPower {
			return nil, fmt.Errorf("consensus: total power above %d", MaxTotalPower)
		}
	}
	c.prepare()
	return c, nil
}

// prepare computes the hash and the seed-shuffled power line.
func (c *Committee) prepare() {
	d := sha256.New()
	d.Write(tagCommittee[:])
	var n [8]byte
	put := func(x uint64) { binary.BigEndian.PutUint64(n[:], x); d.Write(n[:]) }
	put(uint64(c.Shard))
	put(uint64(c.Epoch))
	d.Write(c.Seed[:])
	put(uint64(len(c.Validators)))
	for _, v := range c.Validators {
		d.Write(v.Key[:])
		d.Write(v.Node[:])
		put(uint64(v.Power))
	}
	d.Sum(c.hash[:0])

	draw := func(i uint64) uint64 {
		b := binary.BigEndian.AppendUint64(append(append([]byte{}, tagCommittee[:]...), c.Seed[:]...), i)
		h := sha256.Sum256(b)
		return binary.BigEndian.Uint64(h[:])
	}
	c.start = draw(0)
	c.order = make([]uint16, len(c.Validators))
	for i := range c.order {
		c.order[i] = uint16(i)
	}
	for i := len(c.order) - 1; i > 0; i-- { // Fisher-Yates; the modulo bias of 2^-54 at most does not matter here
		j := draw(uint64(i)) % uint64(i+1)
		c.order[i], c.order[j] = c.order[j], c.order[i]
	}
	c.bounds = make([]Power, len(c.order))
	var sum Power
	for k, i := range c.order {
		sum += c.Validators[i].Power
		c.bounds[k] = sum
	}
	c.code = sync.OnceValue(c.newCode)
}

// MaxCommitteeBytes bounds an encoded committee.
const (
	MaxCommitteeBytes = 2 + 8 + 32 + 2 + MaxCommittee*seatBytes
	seatBytes         = 48 + 32 + 8
)

// Append appends the encoding of c: shard, epoch, seed, u16 number of seats, then for each key, node and u64 power.
func (c *Committee) Append(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint16(b, uint16(c.Shard))
	b = be.AppendUint64(b, uint64(c.Epoch))
	b = append(b, c.Seed[:]...)
	b = be.AppendUint16(b, uint16(len(c.Validators)))
	for _, v := range c.Validators {
		b = append(b, v.Key[:]...)
		b = append(b, v.Node[:]...)
		b = be.AppendUint64(b, uint64(v.Power))
	}
	return b
}

// DecodeCommittee decodes exactly one committee, and refuses one that NewCommittee refuses. Who vouches for it is not asked:
// compare its Hash. Whether its keys are points is for NewKeys.
func DecodeCommittee(b []byte) (*Committee, error) {
	s := cryptobyte.String(b)
	var shard, n uint16
	var epoch uint64
	var seed Hash
	if !(s.ReadUint16(&shard) && s.ReadUint64(&epoch) && s.CopyBytes(seed[:]) && s.ReadUint16(&n)) {
		return nil, malformed("committee", "too short")
	}
	if n > MaxCommittee || len(s) != int(n)*seatBytes {
		return nil, malformed("committee", "%d bytes for %d seats, limit %d", len(s), n, MaxCommittee)
	}
	validators := make([]Validator, n)
	for i := range validators {
		v := &validators[i]
		if !(s.CopyBytes(v.Key[:]) && s.CopyBytes(v.Node[:]) && s.ReadUint64((*uint64)(&v.Power))) {
			return nil, malformed("committee", "seat %d too short", i)
		}
	}
	c, err := NewCommittee(ShardID(shard), Epoch(epoch), seed, validators)
	if err != nil {
		return nil, malformed("committee", "%v", err)
	}
	return c, nil
}

// Hash commits to everything in the committee.
func (c *Committee) Hash() Hash { return c.hash }

// Total is the committee's power.
func (c *Committee) Total() Power { return c.total }

// IsQuorum reports whether p is strictly more than two thirds of the total.
func (c *Committee) IsQuorum(p Power) bool { return 3*p > 2*c.total }

// PowerOf is the power of the validators in s.
func (c *Committee) PowerOf(s Signers) (p Power) {
	for i, v := range c.Validators {
		if s.Has(i) {
			p += v.Power
		}
	}
	return p
}

// Leader is the index of the validator that leads view v: the point start + v*phi on the circle, scaled to the
// power line that the seed shuffled. A golden-ratio (Weyl) sequence visits each validator in proportion to its
// power and as evenly as possible.
func (c *Committee) Leader(v View) int {
	const phi = 0x9E3779B97F4A7C15 // 2^64 / golden ratio, odd
	point := c.start + uint64(v)*phi
	at, _ := bits.Mul64(point, uint64(c.total)) // in [0, total)
	lo, hi := 0, len(c.bounds)-1
	for lo < hi {
		mid := (lo + hi) / 2
		if uint64(c.bounds[mid]) > at {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return int(c.order[lo])
}

// Errors of VerifyCertificate.
var (
	ErrWrongCommittee = errors.New("certificate is for another shard or epoch")
	ErrNoQuorum       = errors.New("signers hold no more than two thirds of the power")
	ErrBadSignature   = errors.New("aggregate signature does not verify")
)

// VerifyCertificate checks that cert is a quorum of this committee on the chain with the given genesis hash.
func (c *Committee) VerifyCertificate(genesis Hash, keys Keys, cert *Certificate) error {
	if cert.Shard != c.Shard || cert.Epoch != c.Epoch {
		return fmt.Errorf("consensus: %w", ErrWrongCommittee)
	}
	n := len(c.Validators)
	if len(cert.Signers) != (n+7)/8 || (n%8 != 0 && cert.Signers[n/8]>>(n%8) != 0) {
		return malformed("certificate", "signers not sized for a committee of %d", n)
	}
	if !c.IsQuorum(c.PowerOf(cert.Signers)) {
		return fmt.Errorf("consensus: %w", ErrNoQuorum)
	}
	if !keys.VerifyAggregate(cert.Signers, VoteMessage(genesis, cert.Statement), cert.Signature) {
		return fmt.Errorf("consensus: %w", ErrBadSignature)
	}
	return nil
}
