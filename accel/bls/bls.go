// Package bls signs and verifies BLS signatures over BLS12-381 for votes: 48-byte public keys in G1, 96-byte
// signatures in G2 (min-pk), both compressed, message hashed to G2, proof-of-possession scheme.
//
// A KeySet is a committee's keys, decoded and checked once. Rogue keys are kept out by proofs of possession, which
// the caller checks (VerifyPossession) before a key enters a committee; with them, one aggregate under one message is
// checked as one pairing equation against the sum of the signers' keys, taken as the committee's total minus the
// missing keys where that is shorter.
//
// What is refused: encodings that are not canonical or not on the curve, points outside the prime-order group (keys
// when parsed, signatures on every verification and on Aggregate), the point at infinity as key, as sum of keys and
// as signature, and secret keys that are zero or not below the group order.
//
// The arithmetic is blst's (cgo, so this package needs CGO_ENABLED=1). SelfTest gives it embedded known answers. The
// default build of blst uses the ADX instructions without asking; on an x86 CPU without them the process dies at
// start, whose remedy is a build with CGO_CFLAGS="-O2 -D__BLST_PORTABLE__" (accel.Detect says which one this is).
// Verification is not constant-time; key generation and signing are. Nothing here starts goroutines, keeps its inputs
// or is fatal.
//
// Source: draft-irtf-cfrg-bls-signature-05, sections 2 and 3.3; RFC 9380; EIP-2333 for key generation. Deviation:
// the possession proof covers a message that the caller composes, which contains the key, so that it can be bound to
// a chain and an account.
package bls

import (
	"errors"
	"fmt"

	blst "github.com/supranational/blst/bindings/go"
)

// Domain separation tags: what is hashed to the curve for a vote never collides with a possession proof.
var (
	dstVote       = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")
	dstPossession = []byte("BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")
)

// SecretKey signs. It must not be copied into logs or errors; its String tells nothing.
type SecretKey struct{ scalar *blst.SecretKey }

// NewSecretKey derives a key from at least 32 bytes of secret randomness (EIP-2333's master key of the seed ikm).
func NewSecretKey(ikm []byte) (*SecretKey, error) {
	if len(ikm) < 32 {
		return nil, fmt.Errorf("bls: %d bytes of key material: need at least 32", len(ikm))
	}
	return &SecretKey{blst.KeyGen(ikm)}, nil
}

// SecretKeyFromBytes takes a key as Bytes gives it: a big-endian number from 1 to the group order less 1.
func SecretKeyFromBytes(b [32]byte) (*SecretKey, error) {
	scalar := new(blst.SecretKey).Deserialize(b[:])
	if scalar == nil {
		return nil, errors.New("bls: secret key is zero or not below the group order")
	}
	return &SecretKey{scalar}, nil
}

// Bytes is the secret itself, big-endian.
func (k *SecretKey) Bytes() [32]byte { return [32]byte(k.scalar.Serialize()) }

// Public is the key that verifies, a compressed G1 point.
func (k *SecretKey) Public() [48]byte {
	return [48]byte(new(blst.P1Affine).From(k.scalar).Compress())
}

// Sign signs a vote: a compressed G2 point, always the same for the same message. It takes about 0.4 ms.
func (k *SecretKey) Sign(msg []byte) [96]byte { return k.sign(msg, dstVote) }

// ProvePossession signs msg, which the caller makes to contain the public key, as a proof that the secret is known.
func (k *SecretKey) ProvePossession(msg []byte) [96]byte { return k.sign(msg, dstPossession) }

func (k *SecretKey) sign(msg, dst []byte) [96]byte {
	return [96]byte(new(blst.P2Affine).Sign(k.scalar, msg, dst).Compress())
}

// String keeps the secret out of formatted output.
func (k *SecretKey) String() string { return "bls secret key" }

// GoString keeps the secret out of %#v.
func (k *SecretKey) GoString() string { return k.String() }

// VerifyPossession reports whether proof was made by ProvePossession over msg with the secret of pub. The caller
// checks that msg contains pub.
func VerifyPossession(pub [48]byte, msg []byte, proof [96]byte) bool {
	key, sig := parseKey(&pub), parseSignature(&proof)
	return key != nil && sig != nil && pairingsEqual(key, hashToG2(msg, dstPossession), sig)
}

// parseKey decodes a key and checks that it is in the group and not infinity; nil if not.
func parseKey(b *[48]byte) *blst.P1Affine {
	p := new(blst.P1Affine).Uncompress(b[:])
	if p == nil || !p.KeyValidate() {
		return nil
	}
	return p
}

// parseSignature decodes a signature and checks that it is in the group and not infinity; nil if not.
func parseSignature(b *[96]byte) *blst.P2Affine {
	p := new(blst.P2Affine).Uncompress(b[:])
	if p == nil || !p.SigValidate(true) {
		return nil
	}
	return p
}

func hashToG2(msg, dst []byte) *blst.P2Affine { return blst.HashToG2(msg, dst).ToAffine() }

// pairingsEqual reports whether e(key, hash) = e(generator, sig), as e(key, hash) * e(-generator, sig) = 1 with the
// two Miller loops run together. All points are in their groups and not infinity.
func pairingsEqual(key *blst.P1Affine, hash, sig *blst.P2Affine) bool {
	negative := new(blst.P1).SubAssign(blst.P1Generator()).ToAffine()
	ctx := blst.PairingCtx(true, nil)
	blst.PairingRawAggregate(ctx, hash, key)
	blst.PairingRawAggregate(ctx, sig, negative)
	blst.PairingCommit(ctx)
	return blst.PairingFinalVerify(ctx)
}
