//go:build amd64 && !purego

package ed25519

import (
	"crypto/sha512"

	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
)

// signer makes signatures of many messages with the multiples of B that it is given (RFC 8032, section 5.1.6).
type signer struct {
	secrets, nonces []scalar.Scalar
	reduced, points [][32]byte // nonces, and their multiples of B
}

// signChunk bounds a signer's memory.
const signChunk = 256

// sign sets signatures; multiples sets points[i] to scalars[i] B.
func (s *signer) sign(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte, multiples func(scalars, points [][32]byte)) {
	for len(seeds) > 0 {
		n := min(len(seeds), signChunk)
		s.chunk(seeds[:n], keys[:n], messages[:n], signatures[:n], multiples)
		seeds, keys, messages, signatures = seeds[n:], keys[n:], messages[n:], signatures[n:]
	}
}

func (s *signer) chunk(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte, multiples func(scalars, points [][32]byte)) {
	n := len(seeds)
	if s.secrets == nil {
		s.secrets, s.nonces = make([]scalar.Scalar, signChunk), make([]scalar.Scalar, signChunk)
		s.reduced, s.points = make([][32]byte, signChunk), make([][32]byte, signChunk)
	}
	hash := sha512.New()
	var sum [sha512.Size]byte
	for i := range n {
		sum = sha512.Sum512(seeds[i][:])
		secret := sum[:32]
		secret[0] &^= 7
		secret[31] = secret[31]&0x3f | 0x40
		if _, err := s.secrets[i].SetBits(secret); err != nil {
			panic("ed25519: a scalar of another size: " + err.Error())
		}
		hash.Reset()
		hash.Write(sum[32:])
		hash.Write(messages[i])
		wide(&s.nonces[i], hash.Sum(sum[:0]))
		if err := s.nonces[i].ToBytes(s.reduced[i][:]); err != nil {
			panic("ed25519: a scalar of another size: " + err.Error())
		}
	}
	multiples(s.reduced[:n], s.points[:n])
	for i := range n {
		hash.Reset()
		hash.Write(s.points[i][:])
		hash.Write(keys[i][:])
		hash.Write(messages[i])
		var k scalar.Scalar
		wide(&k, hash.Sum(sum[:0]))
		k.Mul(&k, &s.secrets[i])
		k.Add(&k, &s.nonces[i])
		copy(signatures[i][:], s.points[i][:])
		if err := k.ToBytes(signatures[i][32:]); err != nil {
			panic("ed25519: a scalar of another size: " + err.Error())
		}
	}
}

// wide sets s to a number of 512 bits modulo L.
func wide(s *scalar.Scalar, number []byte) {
	if _, err := s.SetBytesModOrderWide(number); err != nil {
		panic("ed25519: a scalar of another size: " + err.Error())
	}
}
