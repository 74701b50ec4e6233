package erasure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/reedsolomon"
)

// field is a small, slow GF(2^bits) whose elements are written in Cantor's basis, as Leopard has it.
type field struct {
	bits   int
	points []uint32          // the element of the polynomial basis that a number in Cantor's basis stands for
	names  map[uint32]uint32 // and back
	poly   uint32
}

func newField(poly uint32, basis []uint32) *field {
	f := &field{bits: len(basis), poly: poly, points: make([]uint32, 1<<len(basis)), names: map[uint32]uint32{}}
	for x := range f.points {
		for i, b := range basis {
			if x>>i&1 == 1 {
				f.points[x] ^= b
			}
		}
		f.names[f.points[x]] = uint32(x)
	}
	return f
}

var (
	gf8  = newField(0x11D, []uint32{1, 214, 152, 146, 86, 200, 88, 230})
	gf16 = newField(0x1002D, []uint32{
		0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012,
		0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E,
	})
)

func (f *field) mul(a, b uint32) (p uint32) {
	for ; b != 0; b >>= 1 {
		if b&1 == 1 {
			p ^= a
		}
		if a <<= 1; a>>f.bits == 1 {
			a ^= f.poly
		}
	}
	return p
}

func (f *field) inverse(a uint32) uint32 { // a^(2^bits - 2)
	p := uint32(1)
	for range f.bits - 1 {
		a = f.mul(a, a)
		p = f.mul(p, a)
	}
	return p
}

// symbols are what a shard is made of: bytes, or in each block of 64 bytes 32 pairs of a low byte and, 32 bytes on, a
// high byte.
func (f *field) symbols(shard []byte) []uint32 {
	var out []uint32
	for i := range shard {
		if f.bits == 8 {
			out = append(out, uint32(shard[i]))
		} else if i%64 < 32 {
			out = append(out, uint32(shard[i])|uint32(shard[i+32])<<8)
		}
	}
	return out
}

// parityOf is parity shard i by Lagrange's formula: for each group of p data shards, the polynomial through their
// points, at point i; all groups added up.
func (f *field) parityOf(i, p int, data [][]byte) []uint32 {
	sum := make([]uint32, len(f.symbols(data[0])))
	for first := 0; first < len(data); first += p {
		for j := first; j < min(first+p, len(data)); j++ {
			above, below := uint32(1), uint32(1)
			for l := first; l < first+p; l++ {
				if l != j {
					above = f.mul(above, f.points[i]^f.points[p+l])
					below = f.mul(below, f.points[p+j]^f.points[p+l])
				}
			}
			weight := f.mul(above, f.inverse(below))
			for at, s := range f.symbols(data[j]) {
				sum[at] ^= f.names[f.mul(weight, f.points[s])]
			}
		}
	}
	return sum
}

// TestParityIsTheDefinition compares the library with the definition, and its kernels with its portable code.
func TestParityIsTheDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct{ k, n, field int }{
		{1, 2, 8},
		{1, 3, 8},
		{2, 3, 8},
		{2, 4, 8},
		{3, 10, 8},
		{5, 7, 8},
		{9, 12, 8},
		{22, 64, 8},
		{32, 64, 8},
		{43, 128, 8},
		{100, 103, 8},
		{128, 256, 8},
		{252, 256, 8},
		{129, 256, 16},
		{64, 192, 8},
		{65, 194, 16},
		{86, 256, 16},
		{134, 400, 16},
		{300, 310, 16},
	} {
		c, err := New(tc.k, tc.n)
		if err != nil {
			t.Fatal(err)
		}
		f := gf8
		if c.field == 16 {
			f = gf16
		}
		if c.field != tc.field {
			t.Fatalf("%d of %d is over %d bits, want %d", tc.k, tc.n, c.field, tc.field)
		}
		size := 64 * (1 + rng.IntN(2))
		body := random(rng, tc.k*size)
		if rng.IntN(4) == 0 {
			clear(body[:len(body)/2])
		}
		set, err := c.Encode(body)
		if err != nil {
			t.Fatal(err)
		}
		p := 1
		for p < tc.n-tc.k {
			p *= 2
		}
		for i := tc.k; i < tc.n; i += 1 + rng.IntN(max(1, (tc.n-tc.k)/6)) {
			if got, want := f.symbols(set.Shard(i)), f.parityOf(i-tc.k, p, set.shards[:tc.k]); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%d of %d: shard %d is not as defined", tc.k, tc.n, i)
			}
		}
		leopard := reedsolomon.WithLeopardGF(true)
		if c.field == 16 {
			leopard = reedsolomon.WithLeopardGF16(true)
		}
		portable, err := reedsolomon.New(tc.k, tc.n-tc.k, leopard, reedsolomon.WithAVX512(false), reedsolomon.WithGFNI(false), reedsolomon.WithAVXGFNI(false), reedsolomon.WithAVX2(false), reedsolomon.WithSSSE3(false), reedsolomon.WithSSE2(false))
		if err != nil {
			t.Fatal(err)
		}
		again := c.cut(make([]byte, tc.n*size), size)
		for i := range tc.k {
			copy(again[i], set.Shard(i))
		}
		if err := portable.Encode(again); err != nil {
			t.Fatal(err)
		}
		for i := range again {
			if !bytes.Equal(again[i], set.Shard(i)) {
				t.Fatalf("%d of %d: shard %d differs without vector instructions", tc.k, tc.n, i)
			}
		}
	}
}

// FuzzCode compares parity with the definition, and what is recovered from k of n shards with what was there, for
// shards of any content, of which the edges are all zeros and all ones.
func FuzzCode(f *testing.F) {
	f.Add(uint16(4), uint16(11), uint64(1), bytes.Repeat([]byte{0xFF}, 300))
	f.Add(uint16(1), uint16(200), uint64(2), []byte{1})
	f.Add(uint16(20), uint16(21), uint64(3), bytes.Repeat([]byte{0, 0xFF}, 700))
	f.Add(uint16(90), uint16(250), uint64(4), []byte("a body"))
	f.Fuzz(func(t *testing.T, k, n uint16, seed uint64, content []byte) {
		n = 2 + n%300
		k = 1 + k%min(n-1, 100)
		c := mustCode(t, int(k), int(n))
		size := 64
		if len(content) > int(k)*size {
			size = 128
		}
		shards := c.cut(make([]byte, int(n)*size), size)
		for i := range shards[:k] {
			copy(shards[i], content[min(i*size, len(content)):])
		}
		if err := c.Parity(shards); err != nil {
			t.Fatal(err)
		}
		p := 1
		for p < int(n-k) {
			p *= 2
		}
		field := gf8
		if c.field == 16 {
			field = gf16
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		i := rng.IntN(int(n - k))
		if fmt.Sprint(field.symbols(shards[int(k)+i])) != fmt.Sprint(field.parityOf(i, p, shards[:k])) {
			t.Fatalf("%d of %d: parity shard %d is not as defined", k, n, i)
		}
		left := make([][]byte, n)
		for _, i := range rng.Perm(int(n))[:int(k)+rng.IntN(int(n-k)+1)] {
			left[i] = shards[i]
		}
		if err := c.Recover(left); err != nil {
			t.Fatal(err)
		}
		for i := range k {
			if !bytes.Equal(left[i], shards[i]) {
				t.Fatalf("%d of %d: shard %d recovered wrongly", k, n, i)
			}
		}
	})
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, (n+7)/8*8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b[:n]
}
