// Package bls signs and verifies BLS signatures over BLS12-381: 48-byte public keys in G1, 96-byte signatures in G2
// (min-pk), both compressed, message hashed to G2, proof-of-possession scheme.
//
// It serves three kinds of load, each by the cheapest check that proves what the caller needs:
//
//   - Votes of a committee. A KeySet is a committee's keys, decoded and checked once. VerifyAggregate checks a
//     certificate as one pairing equation against the sum of the signers' keys, taken as the committee's total minus
//     the missing keys where that is shorter. VerifySameMessage checks many votes under one message, each of which is
//     to be credited to its signer: by a random linear combination, so that every vote has its own verdict.
//   - Distilled batches. A Directory holds the keys of very many clients in the form that is added up fastest; Sum
//     adds up the signers of a batch. CheckShares is the broker's side: it adds clients' shares up and finds the bad
//     ones. Only the sum is used, so that a plain sum checked by one pairing is enough.
//   - Anything else. VerifyMany checks signatures under keys and messages of all kinds.
//
// Rogue keys are kept out by proofs of possession (VerifyPossession, Directory.Add), which must have been checked
// before a key is added to another.
//
// What is refused: encodings that are not canonical or not on the curve, points outside the prime-order group (keys
// when parsed, signatures before they count; a random combination never replaces that), the point at infinity as key,
// as sum of keys and as signature, and secret keys that are zero or not below the group order.
//
// The arithmetic is done by an engine (internal/curve): blst where the build has cgo, gnark-crypto where not, or where
// blst gives wrong answers on this machine. All give the same verdicts. SelfTest gives the engines embedded known
// answers and tells which is in use. The default build of blst uses the ADX instructions without asking; on an x86 CPU
// without them the process dies at start, whose remedy is a build with CGO_CFLAGS="-O2 -D__BLST_PORTABLE__"
// (accel.Detect says which one this is). Verification is not constant-time; key generation and signing are, with
// blst. Nothing here starts goroutines, keeps its inputs or is fatal.
//
// Source: draft-irtf-cfrg-bls-signature-05, sections 2 and 3.3; RFC 9380; EIP-2333 for key generation. Deviation:
// the possession proof covers a message that the caller composes, which contains the key, so that it can be bound to
// a chain and an account.
package bls

import (
	"errors"
	"fmt"
	"math/bits"

	"tutti/accel/bls/internal/curve"
)

// Domain separation tags: what is hashed to the curve for a vote never collides with a possession proof.
var (
	dstVote       = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")
	dstPossession = []byte("BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")
)

// SecretKey signs. It must not be copied into logs or errors; its String tells nothing.
type SecretKey struct{ scalar [32]byte }

// NewSecretKey derives a key from at least 32 bytes of secret randomness (EIP-2333's master key of the seed ikm).
func NewSecretKey(ikm []byte) (*SecretKey, error) { return newSecretKey(engine(), ikm) }

func newSecretKey(e curve.Engine, ikm []byte) (*SecretKey, error) {
	if len(ikm) < 32 {
		return nil, fmt.Errorf("bls: %d bytes of key material: need at least 32", len(ikm))
	}
	return SecretKeyFromBytes(e.NewSecret(ikm))
}

// order is the group order, most significant limb first.
var order = [4]uint64{0x73eda753299d7d48, 0x3339d80809a1d805, 0x53bda402fffe5bfe, 0xffffffff00000001}

// SecretKeyFromBytes takes a key as Bytes gives it: a big-endian number from 1 to the group order less 1.
func SecretKeyFromBytes(b [32]byte) (*SecretKey, error) {
	var borrow, any uint64
	for i := 3; i >= 0; i-- {
		var limb uint64
		for _, c := range b[8*i : 8*i+8] {
			limb = limb<<8 | uint64(c)
		}
		_, borrow = bits.Sub64(limb, order[i], borrow)
		any |= limb
	}
	if borrow == 0 || any == 0 {
		return nil, errors.New("bls: secret key is zero or not below the group order")
	}
	return &SecretKey{b}, nil
}

// Bytes is the secret itself, big-endian.
func (k *SecretKey) Bytes() [32]byte { return k.scalar }

// Public is the key that verifies, a compressed G1 point.
func (k *SecretKey) Public() [48]byte { return k.public(engine()) }

func (k *SecretKey) public(e curve.Engine) [48]byte {
	p := e.Public(&k.scalar)
	return p.Bytes()
}

// Sign signs a vote: a compressed G2 point, always the same for the same message. It takes about 0.4 ms.
func (k *SecretKey) Sign(msg []byte) [96]byte {
	p := engine().Sign(&k.scalar, msg, dstVote)
	return p.Bytes()
}

// SignShare is Sign with the point not compressed, as brokers take it: decoding it costs a twentieth.
func (k *SecretKey) SignShare(msg []byte) [192]byte {
	p := engine().Sign(&k.scalar, msg, dstVote)
	return p.RawBytes()
}

// ProvePossession signs msg, which the caller makes to contain the public key, as a proof that the secret is known.
func (k *SecretKey) ProvePossession(msg []byte) [96]byte {
	p := engine().Sign(&k.scalar, msg, dstPossession)
	return p.Bytes()
}

// String keeps the secret out of formatted output.
func (k *SecretKey) String() string { return "bls secret key" }

// GoString keeps the secret out of %#v.
func (k *SecretKey) GoString() string { return k.String() }

// VerifyPossession reports whether proof was made by ProvePossession over msg with the secret of pub. The caller
// checks that msg contains pub.
func VerifyPossession(pub [48]byte, msg []byte, proof [96]byte) bool {
	return verifyPossession(engine(), pub, msg, proof)
}

func verifyPossession(e curve.Engine, pub [48]byte, msg []byte, proof [96]byte) bool {
	key, ok := e.DecodeG1(&pub)
	if !ok {
		return false
	}
	sig, ok := parse(e, proof[:])
	return ok && equation(e, &key, e.HashToG2(msg, dstPossession), &sig)
}

// parse decodes a signature, compressed or not, and checks that it is in the group.
func parse(e curve.Engine, b []byte) (curve.G2, bool) {
	p, ok := e.DecodeG2(b)
	return p, ok && e.InG2(&p)
}

// equation reports whether e(key, hash) = e(generator, sig). All points are in their groups.
func equation(e curve.Engine, key *curve.G1, hash curve.G2, sig *curve.G2) bool {
	v := quotient(e, key, hash, sig)
	return v.IsOne()
}

// quotient is e(key, hash) / e(generator, sig), which is one if sig is the signature by key.
func quotient(e curve.Engine, key *curve.G1, hash curve.G2, sig *curve.G2) curve.GT {
	_, negative := curve.Generator()
	return e.Pairing([]curve.G1{*key, negative}, []curve.G2{hash, *sig})
}
