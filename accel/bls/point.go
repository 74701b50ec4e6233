package bls

import (
	"errors"

	"tutti/accel/bls/internal/curve"
)

// What parsing returns for bytes that are no such thing.
var (
	ErrKey       = errors.New("bls: not a valid public key")
	ErrSignature = errors.New("bls: not a valid signature")
)

// PublicKey is a decoded key that is in the group and not infinity, or a sum of such keys that is not infinity. The
// zero value is no key and verifies nothing. It has no pointers.
type PublicKey struct{ point curve.G1 }

// ParsePublicKey decodes a key and checks that it is in the group (about 65 microseconds). It does not check
// possession. The error is ErrKey.
func ParsePublicKey(b [48]byte) (PublicKey, error) {
	p, ok := engine().DecodeG1(&b)
	if !ok {
		return PublicKey{}, ErrKey
	}
	return PublicKey{p}, nil
}

// Bytes is the compressed form.
func (k PublicKey) Bytes() [48]byte { return k.point.Bytes() }

// Ordinate is the coordinate that the compressed form leaves out but for a bit, big-endian. With it a key is decoded in a
// microsecond (ParseChecked).
func (k PublicKey) Ordinate() [48]byte { return k.point.Y.Bytes() }

// ParseChecked decodes a key that was found to be in the group before, by its Ordinate. The result is the one that ParsePublicKey
// gave then, for no other point has these coordinates; whether it was is not checked again. The error is ErrKey.
func ParseChecked(key, ordinate [48]byte) (PublicKey, error) {
	p, ok := curve.Join(&key, &ordinate)
	if !ok {
		return PublicKey{}, ErrKey
	}
	return PublicKey{p}, nil
}

// Add is the sum of two keys, or of two sums. The error is ErrNoSum if it is infinity.
func (k PublicKey) Add(other PublicKey) (PublicKey, error) {
	var sum curve.G1
	if sum.Add(&k.point, &other.point); sum.IsInfinity() {
		return PublicKey{}, ErrNoSum
	}
	return PublicKey{sum}, nil
}

// Verify reports whether sig is the signature on msg by this key or, for a sum of keys, the sum of their signatures.
// The signature is decoded and checked to be in the group. It takes about 1.2 ms.
func (k PublicKey) Verify(msg []byte, sig [96]byte) bool {
	e := engine()
	p, ok := parse(e, sig[:])
	return ok && !k.point.IsInfinity() && equation(e, &k.point, e.HashToG2(msg, dstVote), &p)
}

// Signature is a decoded signature that is in the group and not infinity. The zero value is no signature and is
// refused everywhere. It has no pointers.
type Signature struct{ point curve.G2 }

// ParseSignature decodes a signature and checks that it is in the group (about 85 microseconds). The error is
// ErrSignature.
func ParseSignature(b [96]byte) (Signature, error) {
	p, ok := parse(engine(), b[:])
	if !ok {
		return Signature{}, ErrSignature
	}
	return Signature{p}, nil
}

// ParseSignatureUncompressed is ParseSignature for SignShare's form (about 55 microseconds).
func ParseSignatureUncompressed(b [192]byte) (Signature, error) {
	p, ok := parse(engine(), b[:])
	if !ok {
		return Signature{}, ErrSignature
	}
	return Signature{p}, nil
}

// Bytes is the compressed form.
func (s Signature) Bytes() [96]byte { return s.point.Bytes() }

// Share is a decoded signature of which it is not yet known whether it is in the group: it may be added to others, and
// the sum checked. Share is a type of its own so that nothing takes it for a Signature. The zero value is no share and
// is found bad. It has no pointers.
type Share struct{ point curve.G2 }

// ParseShare decodes a compressed signature without the group check (about 32 microseconds). The error is ErrSignature.
func ParseShare(b [96]byte) (Share, error) {
	p, ok := engine().DecodeG2(b[:])
	if !ok {
		return Share{}, ErrSignature
	}
	return Share{p}, nil
}

// ParseShareUncompressed is ParseShare for SignShare's form (about 1 microsecond).
func ParseShareUncompressed(b [192]byte) (Share, error) {
	p, ok := engine().DecodeG2(b[:])
	if !ok {
		return Share{}, ErrSignature
	}
	return Share{p}, nil
}
