// Package keys keeps secret keys in encrypted files: the validator's BLS voting key, the node's Ed25519 network key and
// people's Ed25519 wallet keys, each in an EIP-2335 keystore (version 4). A folder of named wallets is a Store.
//
// # The format
//
// https://eips.ethereum.org/EIPS/eip-2335, so that voting keys travel to and from other tools: scrypt or PBKDF2,
// AES-128-CTR, SHA-256 checksum, password in NFKD without control codes. Deviations, all readable by other tools:
//
//   - Secrets are always 32 bytes: a BLS scalar (big-endian) or an Ed25519 seed.
//   - The field "tutti" says the type of key, which the standard has no word for. A file without it is a voting key.
//   - "path" is empty: keys are drawn at random, none is derived from another.
//   - scrypt's n may be CostDemo for the keys of a throw-away local network; the file records it, as the standard has
//     it do, and Keystore.Weak reports it.
//
// # Rules
//
// Key and password files have mode 0600 in folders of mode 0700; files that others may read are refused. A key file is
// written whole and durable, or not at all, and is never overwritten. Secrets and passwords print as a placeholder.
// Decoding is bounded before any work is done: file size, n, r, p, c. Errors are for the one call; none is fatal.
package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
)

// Type says what a key is for. A key of one type is never used as another.
type Type string

const (
	Voting Type = "bls-voting"     // signs votes; BLS12-381 min-pk, public key 48 bytes
	Node   Type = "ed25519-node"   // the node's identity on the network; public key 32 bytes
	Wallet Type = "ed25519-wallet" // signs transactions; public key 32 bytes
)

// Title is the type in words, for people.
func (t Type) Title() string {
	switch t {
	case Voting:
		return "BLS voting key"
	case Node:
		return "Ed25519 node key"
	case Wallet:
		return "Ed25519 wallet key"
	}
	return fmt.Sprintf("key of unknown type %q", string(t))
}

// publicBytes is the length of a public key, 0 for an unknown type.
func (t Type) publicBytes() int {
	switch t {
	case Voting:
		return 48
	case Node, Wallet:
		return 32
	}
	return 0
}

// Secret is a secret key with its type and public key. It prints as a placeholder. Immutable.
type Secret struct {
	kind   Type
	bytes  *[32]byte // a pointer for the reason that Password has one
	public []byte
}

// New draws a key from the operating system's random source.
func New(t Type) (*Secret, error) {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if t == Voting {
		k, err := bls.NewSecretKey(seed[:])
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		seed = k.Bytes()
	}
	return FromBytes(t, seed)
}

// FromBytes takes an existing key: a BLS scalar or an Ed25519 seed.
func FromBytes(t Type, secret [32]byte) (*Secret, error) {
	s := &Secret{kind: t, bytes: &secret}
	switch t {
	case Voting:
		k, err := bls.SecretKeyFromBytes(secret)
		if err != nil {
			return nil, fmt.Errorf("keys: not a BLS secret key: %w", err)
		}
		public := k.Public()
		s.public = public[:]
	case Node, Wallet:
		public := ed25519.NewPrivateKey(secret).Public()
		s.public = public[:]
	default:
		return nil, fmt.Errorf("keys: %s: update tutti", t.Title())
	}
	return s, nil
}

// Type is what the key is for.
func (s *Secret) Type() Type { return s.kind }

// Public is the public key: 48 bytes for Voting, else 32. The caller must not modify it.
func (s *Secret) Public() []byte { return s.public }

// BLS is the voting key for signing. It fails for a key of another type.
func (s *Secret) BLS() (*bls.SecretKey, error) {
	if s.kind != Voting {
		return nil, fmt.Errorf("keys: %s cannot vote", s.kind.Title())
	}
	return bls.SecretKeyFromBytes(*s.bytes)
}

// Ed25519 is the node or wallet key for signing. It fails for a voting key.
func (s *Secret) Ed25519() (ed25519.PrivateKey, error) {
	if s.kind == Voting {
		return ed25519.PrivateKey{}, fmt.Errorf("keys: %s is not an Ed25519 key", s.kind.Title())
	}
	return ed25519.NewPrivateKey(*s.bytes), nil
}

// tagBatches is the domain tag of a wallet's BLS key, 16 bytes, padded with zeros.
var tagBatches = [16]byte{'t', 'u', 't', 't', 'i', '/', 'w', 'a', 'l', 'b', 'l', 's', '/', '1'}

// Batches is the key with which a wallet's account has a part in distilled batches, if it was opened with it: the BLS key of the
// seed SHA-256(tag 16, Ed25519 seed 32), so that one keystore keeps both. It fails for a key that is no wallet's.
func (s *Secret) Batches() (*bls.SecretKey, error) {
	if s.kind != Wallet {
		return nil, fmt.Errorf("keys: %s has no part in batches", s.kind.Title())
	}
	seed := sha256.Sum256(append(tagBatches[:], s.bytes[:]...))
	return bls.NewSecretKey(seed[:])
}

// Seed is the raw 32-byte secret, for libraries that bring their own signing (the network transport). Handle with care.
func (s *Secret) Seed() [32]byte { return *s.bytes }

func (s *Secret) String() string { return fmt.Sprintf("[%s %x…]", s.kind.Title(), s.public[:4]) }

// GoString keeps the secret out of %#v.
func (s *Secret) GoString() string { return s.String() }

// LogValue keeps the secret out of logs.
func (s *Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
