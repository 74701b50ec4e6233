// Package ed25519 signs and verifies Ed25519 under one acceptance rule, ZIP-215, whatever does the arithmetic.
//
// A signature (R, S) on message m under key A, 64, any number of and 32 bytes, is accepted if and only if
//
//   - S, little-endian, is below the group order L;
//   - A and R decode to points of the curve, where y may be given as y + p and a zero x with its sign bit set;
//   - [8][S]B = [8]R + [8][k]A for k = SHA-512(R || A || m) as the 64 bytes were sent.
//
// The rule is part of the protocol: a signature that one validator accepts and another refuses splits the chain, and
// libraries do differ (of the 768 CCTV vectors crypto/ed25519 accepts 198, curve25519-voi's default 212, ZIP-215 all).
// Being cofactored, the rule gives a batch equation and single checks the same verdicts, up to a chance of 2^-128.
//
// Verification goes through a Backend. Each must give embedded known answers, the edge cases of the rule among them,
// before it may be used; for each batch size the fastest that does is chosen. Queue collects signatures from many callers into batches.
// Nothing here keeps its inputs or is fatal. Verification is not constant-time; signing (crypto/ed25519) is.
//
// Source: RFC 8032, sections 5.1.6 and 5.1.7; ZIP 215. Deviation from RFC 8032: section 5.1.7 refuses
// non-canonical encodings, ZIP-215 accepts them.
package ed25519

import "crypto/ed25519"

// Item is one signature to verify: the key, the message (owned by the caller and only read) and R || S.
type Item struct {
	Key       [32]byte
	Message   []byte
	Signature [64]byte
}

// Verify reports whether ZIP-215 accepts the item. It takes about 30 microseconds; VerifyMany takes a tenth of that per
// item where there is AVX-512 IFMA, from eight items on, and half elsewhere, from 64 on.
func Verify(item Item) bool {
	var ok [1]bool
	VerifyMany([]Item{item}, ok[:])
	return ok[0]
}

// VerifyMany sets ok[i] to the verdict on items[i] with the backend chosen for so many, on the calling goroutine. ok must be at
// least as long as items.
func VerifyMany(items []Item, ok []bool) {
	backendFor(len(items)).VerifyMany(items, ok[:len(items)])
}

// PrivateKey signs. It must not be copied into logs or errors; its String tells nothing.
type PrivateKey struct{ key ed25519.PrivateKey }

// NewPrivateKey derives the key pair of a 32-byte seed (RFC 8032's private key).
func NewPrivateKey(seed [32]byte) PrivateKey {
	return PrivateKey{ed25519.NewKeyFromSeed(seed[:])}
}

// Public is the key that verifies.
func (k PrivateKey) Public() [32]byte { return [32]byte(k.key[32:]) }

// Sign signs msg. The same message always gives the same signature.
func (k PrivateKey) Sign(msg []byte) [64]byte { return [64]byte(ed25519.Sign(k.key, msg)) }

// String keeps the secret out of formatted output.
func (k PrivateKey) String() string { return "ed25519 private key" }

// GoString keeps the secret out of %#v.
func (k PrivateKey) GoString() string { return k.String() }
