//go:build amd64 && !purego

package lanes

import (
	"crypto/ed25519"
	"encoding/binary"
	"math/big"
	"math/rand/v2"
	"testing"

	"filippo.io/edwards25519"
)

// TestPublicKeys compares with crypto/ed25519, for all sizes around those of batches and chunks.
func TestPublicKeys(t *testing.T) {
	needLanes(t)
	k, random := NewKeys(), rand.NewChaCha8([32]byte{7})
	for _, n := range []int{0, 1, 7, 8, 9, keyChunk - 1, keyChunk, keyChunk + 1, 2*keyChunk + 3} {
		seeds, keys := make([][32]byte, n), make([][32]byte, n)
		for i := range seeds {
			_, _ = random.Read(seeds[i][:])
		}
		k.Public(seeds, keys)
		for i := range seeds {
			if want := [32]byte(ed25519.NewKeyFromSeed(seeds[i][:])[32:]); keys[i] != want {
				t.Fatalf("%d of %d keys: seed %x has %x, want %x", i, n, seeds[i], keys[i], want)
			}
		}
	}
}

// TestMultiples compares with filippo.io/edwards25519, also at the ends of what scalars may be.
func TestMultiples(t *testing.T) {
	needLanes(t)
	k, random := NewKeys(), rand.NewChaCha8([32]byte{8})
	for _, n := range []int{0, 1, 7, 8, 9, keyChunk, keyChunk + 1} {
		scalars, points := make([][32]byte, n), make([][32]byte, n)
		want := make([]*edwards25519.Scalar, n)
		for i := range scalars {
			var wide [64]byte
			_, _ = random.Read(wide[:])
			switch i % 8 {
			case 0: // 0, 1, 2 ...
				wide = [64]byte{byte(i / 8)}
			case 1: // L-1
				wide = [64]byte{}
				copy(wide[:], new(edwards25519.Scalar).Negate(unit()).Bytes())
			}
			s, err := new(edwards25519.Scalar).SetUniformBytes(wide[:])
			if err != nil {
				t.Fatal(err)
			}
			want[i], scalars[i] = s, [32]byte(s.Bytes())
		}
		k.Multiples(scalars, points)
		for i, s := range want {
			if p := new(edwards25519.Point).ScalarBaseMult(s).Bytes(); points[i] != [32]byte(p) {
				t.Fatalf("%d of %d: %x B is %x, want %x", i, n, scalars[i], points[i], p)
			}
		}
	}
}

func unit() *edwards25519.Scalar {
	s, err := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		panic(err)
	}
	return s
}

// TestEncoded compares the encoding of field elements with math/big, at the limits of what may come.
func TestEncoded(t *testing.T) {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	check := func(limbs [5]uint64) {
		var e element
		sum := new(big.Int)
		for i := range limbs {
			e[i][3] = limbs[i]
			sum.Add(sum, new(big.Int).Lsh(new(big.Int).SetUint64(limbs[i]), uint(51*i)))
		}
		sum.Mod(sum, p)
		got := e.encoded(3)
		var big32 [32]byte
		sum.FillBytes(big32[:])
		for i := range got {
			if got[i] != big32[31-i] {
				t.Fatalf("limbs %x: %x, want %x (big-endian)", limbs, got, big32)
			}
		}
	}
	const top = 1<<51 - 1
	for _, first := range []uint64{0, 1, 18, top - 19, top - 18, top - 17, top, top + 1, 1<<51 + 18, limbMost(0)} {
		for _, rest := range []uint64{0, 1, top - 1, top, top + 1, limbMost(1)} {
			for _, last := range []uint64{0, top - 1, top, limbMost(1)} {
				check([5]uint64{first, rest, rest, rest, last})
			}
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var limbs [5]uint64
		for i := range limbs {
			limbs[i] = random.Uint64N(limbMost(i) + 1)
		}
		check(limbs)
	}
}

func BenchmarkPublicKeys(b *testing.B) {
	needLanes(b)
	k := NewKeys()
	var seeds, keys [keyChunk][32]byte
	for i := range seeds {
		binary.LittleEndian.PutUint64(seeds[i][:], uint64(i))
	}
	for range b.N {
		k.Public(seeds[:], keys[:])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/keyChunk, "ns/key")
}
