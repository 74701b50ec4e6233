package consensus

import (
	"fmt"

	"tutti/accel/bls"
)

// NewKeys decodes and checks a committee's voting keys once (about 0.1 ms each). Possession of their secrets was
// proved when the keys entered genesis or stake. The result is safe for concurrent use.
func NewKeys(c *Committee) (Keys, error) { return decode(c, bls.NewKeySet) }

// NewKeysFrom is NewKeys where before holds the keys of a committee that shares most of them, such as the one before: only
// the others are decoded.
func NewKeysFrom(before Keys, c *Committee) (Keys, error) {
	if b, ok := before.(keySet); ok {
		return decode(c, b.set.With)
	}
	return NewKeys(c)
}

func decode(c *Committee, keys func([][48]byte) (*bls.KeySet, error)) (Keys, error) {
	raw := make([][48]byte, len(c.Validators))
	for i, v := range c.Validators {
		raw[i] = v.Key
	}
	set, err := keys(raw)
	if err != nil {
		return nil, fmt.Errorf("consensus: committee of shard %d, epoch %d: %w", c.Shard, c.Epoch, err)
	}
	return keySet{set}, nil
}

type keySet struct{ set *bls.KeySet }

func (k keySet) Verify(i int, msg []byte, sig Signature) bool { return k.set.Verify(i, msg, sig) }

func (k keySet) VerifyAggregate(signers Signers, msg []byte, sig Signature) bool {
	return k.set.VerifyAggregate(signers, msg, sig)
}

func (k keySet) Aggregate(sigs []Signature) (Signature, error) {
	raw := make([][96]byte, len(sigs))
	for i, s := range sigs {
		raw[i] = s
	}
	sum, err := k.set.Aggregate(raw)
	return sum, err
}

// NewSigner signs votes with a voting key. Safe for concurrent use.
func NewSigner(k *bls.SecretKey) Signer { return signer{k} }

type signer struct{ key *bls.SecretKey }

func (s signer) Sign(msg []byte) Signature { return s.key.Sign(msg) }
