package curve

import (
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
)

var tag = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")

// samples are points of both groups with structure: multiples, equal ones, opposite ones, infinity.
func samples(r *rand.Rand, n int) ([]G1, []G2) {
	g, _ := Generator()
	h := Portable{}.HashToG2([]byte("a point"), tag)
	ps, qs := make([]G1, n), make([]G2, n)
	for i := range ps {
		k := big.NewInt(r.Int64N(1 << 40))
		switch j := r.IntN(i + 1); r.IntN(8) {
		case 0:
			ps[i], qs[i] = ps[j], qs[j]
		case 1:
			ps[i].Neg(&ps[j])
			qs[i].Neg(&qs[j])
		case 2:
			ps[i], qs[i] = G1{}, G2{}
		default:
			ps[i].ScalarMultiplication(&g, k)
			qs[i].ScalarMultiplication(&h, k)
		}
	}
	return ps, qs
}

func affineG1(p G1Jac) (a G1) { a.FromJacobian(&p); return a }
func affineG2(p G2Jac) (a G2) { a.FromJacobian(&p); return a }

// TestSums compares sums with sums of multiples, by every engine.
func TestSums(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 16, 33, 100, 400, 1000} { // every window among them
		ps, qs := samples(r, n)
		var wantP G1Jac
		var wantQ G2Jac
		var mulP G1Jac
		var mulQ G2Jac
		factors := make([]int16, n)
		for i := range ps {
			if factors[i] = []int16{0, 1, -1, -1 << 15, 1<<15 - 1}[r.IntN(5)]; r.IntN(10) > 0 {
				factors[i] = int16(r.Int32() >> r.IntN(16))
			}
			wantP.AddMixed(&ps[i])
			wantQ.AddMixed(&qs[i])
			var p G1
			var q G2
			k := new(big.Int).Mod(big.NewInt(int64(factors[i])), fr.Modulus())
			mulP.AddMixed(p.ScalarMultiplication(&ps[i], k))
			mulQ.AddMixed(q.ScalarMultiplication(&qs[i], k))
		}
		if affineG1(MulSumG1(ps, factors)) != affineG1(mulP) {
			t.Errorf("wrong sum of %d multiples in G1", n)
		}
		if affineG2(MulSumG2(qs, factors)) != affineG2(mulQ) {
			t.Errorf("wrong sum of %d multiples in G2", n)
		}
		for _, e := range Engines() {
			if affineG1(e.SumG1(ps)) != affineG1(wantP) || affineG2(e.SumG2(qs)) != affineG2(wantQ) {
				t.Errorf("%s: wrong sum of %d", e.Name(), n)
			}
		}
	}
}

// TestPairing checks bilinearity, infinity, and lengths around those at which blst's loops are split.
func TestPairing(t *testing.T) {
	g, negative := Generator()
	h := Portable{}.HashToG2(nil, tag)
	for _, e := range Engines() {
		for _, n := range []int{1, 2, 7, 8, 9, 20} {
			var ps []G1
			var qs []G2
			total := new(big.Int)
			for i := range n {
				a, b := big.NewInt(int64(i+2)), big.NewInt(int64(3*i+5))
				total.Add(total, new(big.Int).Mul(a, b))
				var p G1
				var q G2
				ps, qs = append(ps, *p.ScalarMultiplication(&g, a)), append(qs, *q.ScalarMultiplication(&h, b))
			}
			var sum G1
			one := e.Pairing(append(ps, *sum.ScalarMultiplication(&negative, total)), append(qs, h))
			if !one.IsOne() {
				t.Errorf("%s: a product of %d pairings is not bilinear", e.Name(), n)
			}
			if v := e.Pairing(ps, qs); v.IsOne() {
				t.Errorf("%s: a product of %d pairings is one", e.Name(), n)
			}
			if e.Pairing(append(ps, G1{}, g), append(qs, h, G2{})) != e.Pairing(ps, qs) {
				t.Errorf("%s: infinity changes a product of %d", e.Name(), n)
			}
		}
		if v := e.Pairing([]G1{{}}, []G2{h}); !v.IsOne() {
			t.Errorf("%s: a pairing with infinity is not one", e.Name())
		}
		if v := e.Pairing([]G1{g}, nil); v.IsOne() {
			t.Errorf("%s: unequal lengths pair to one", e.Name())
		}
		var inverse GT
		v := e.Pairing([]G1{g}, []G2{h})
		if w := e.Pairing([]G1{negative}, []G2{h}); *inverse.Conjugate(&v) != w {
			t.Errorf("%s: the conjugate is not the inverse", e.Name())
		}
	}
}

// TestSecrets compares what is made of secrets.
func TestSecrets(t *testing.T) {
	engines := Engines()
	for i := range 20 {
		ikm := []byte(fmt.Sprintf("32 bytes of key material or more %d", i))
		secret := engines[0].NewSecret(ikm)
		public, sig := engines[0].Public(&secret), engines[0].Sign(&secret, ikm, tag)
		for _, e := range engines[1:] {
			if e.NewSecret(ikm) != secret || e.Public(&secret) != public || e.Sign(&secret, ikm, tag) != sig {
				t.Errorf("%s: differs on %q", e.Name(), ikm)
			}
		}
	}
}

// encodings are valid encodings of points in and outside of the groups, compressed and not.
func encodings() (all [][]byte) {
	ps, qs := samples(rand.New(rand.NewPCG(3, 4)), 4)
	for x := uint64(0); len(ps) < 8; x++ { // on the curve, hardly in the group
		p := G1{X: fp.NewElement(x)}
		y2 := *new(fp.Element).Square(&p.X)
		y2.Mul(&y2, &p.X)
		four := fp.NewElement(4)
		if p.Y.Sqrt(y2.Add(&y2, &four)) != nil {
			ps = append(ps, p)
		}
	}
	for x := uint64(0); len(qs) < 8; x++ {
		q := G2{}
		q.X.A0 = fp.NewElement(x)
		if solveG2(&q) {
			qs = append(qs, q)
		}
	}
	for i := range ps {
		b, c := ps[i].Bytes(), ps[i].RawBytes()
		all = append(all, b[:], c[:])
	}
	for i := range qs {
		b, c := qs[i].Bytes(), qs[i].RawBytes()
		all = append(all, b[:], c[:])
	}
	return all
}

// agree compares the engines on one input.
func agree(t *testing.T, b []byte) {
	t.Helper()
	engines := Engines()
	e := engines[0]
	p2, ok2 := e.DecodeG2(b)
	in := ok2 && e.InG2(&p2)
	for _, f := range engines[1:] {
		if len(b) == 48 {
			p, ok := e.DecodeG1((*[48]byte)(b))
			if q, also := f.DecodeG1((*[48]byte)(b)); ok != also || p != q {
				t.Errorf("G1 %x: %s %v, %s %v", b, e.Name(), ok, f.Name(), also)
			}
		}
		q2, also := f.DecodeG2(b)
		if ok2 != also || p2 != q2 || in != (also && f.InG2(&q2)) {
			t.Errorf("G2 %x: %s %v, %s %v", b, e.Name(), ok2, f.Name(), also)
		}
	}
}

// TestDecodeAgrees has every first byte, coordinates at and around p, and infinity in all forms.
func TestDecodeAgrees(t *testing.T) {
	p := fp.Modulus()
	for _, valid := range encodings() {
		agree(t, valid)
		for first := range 256 {
			b := append([]byte(nil), valid...)
			b[0] = byte(first)
			agree(t, b)
		}
		for at := 0; at < len(valid); at += 48 {
			for _, d := range []int64{-2, -1, 0, 1, 2} {
				b := append([]byte(nil), valid...)
				high := b[at] & flags
				new(big.Int).Add(p, big.NewInt(d)).FillBytes(b[at : at+48])
				b[at] |= high
				agree(t, b)
				// The same number in another way: the coordinate plus p, where it fits.
				copy(b, valid)
				b[at] &^= flags
				sum := new(big.Int).Add(new(big.Int).SetBytes(b[at:at+48]), p)
				if sum.BitLen() <= 384 {
					sum.FillBytes(b[at : at+48])
					agree(t, b)
					b[at] |= high
					agree(t, b)
				}
			}
		}
	}
	for _, size := range []int{0, 1, 47, 48, 95, 96, 97, 191, 192, 193} {
		for _, first := range []byte{0, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0} {
			for _, last := range []byte{0, 1} {
				b := make([]byte, size)
				if size > 0 {
					b[0], b[size-1] = first, b[size-1]|last
				}
				agree(t, b)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range encodings() {
		f.Add(b)
	}
	f.Fuzz(agree)
}

// TestNoBadPoint is what decoding promises, on what the tests above feed it.
func TestNoBadPoint(t *testing.T) {
	for _, b := range encodings() {
		for _, e := range Engines() {
			if len(b) == 48 {
				if p, ok := e.DecodeG1((*[48]byte)(b)); ok && (p.IsInfinity() || !p.IsOnCurve() || !p.IsInSubGroup()) {
					t.Errorf("%s accepts %x", e.Name(), b)
				}
			}
			if p, ok := e.DecodeG2(b); ok && (p.IsInfinity() || !p.IsOnCurve() || e.InG2(&p) != p.IsInSubGroup()) {
				t.Errorf("%s accepts %x", e.Name(), b)
			}
		}
	}
}

// FuzzMultiples compares sums of multiples, of a structure that the fuzzer seeds, with multiplications one by one.
func FuzzMultiples(f *testing.F) {
	f.Add(uint64(1), uint8(5))
	f.Add(uint64(2), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		ps, qs := samples(r, int(n))
		factors := make([]int16, n)
		var wantP G1Jac
		var wantQ G2Jac
		for i := range factors {
			factors[i] = int16(r.Int32() >> r.IntN(32))
			k := new(big.Int).Mod(big.NewInt(int64(factors[i])), fr.Modulus())
			var p G1
			var q G2
			wantP.AddMixed(p.ScalarMultiplication(&ps[i], k))
			wantQ.AddMixed(q.ScalarMultiplication(&qs[i], k))
		}
		if affineG1(MulSumG1(ps, factors)) != affineG1(wantP) || affineG2(MulSumG2(qs, factors)) != affineG2(wantQ) {
			t.Errorf("wrong sum of %d multiples", n)
		}
	})
}

var (
	cases = flag.Int("cases", 4_000, "encodings in TestDecodeMany")
	seed  = flag.Uint64("seed", 1, "seed of TestDecodeMany")
)

// TestDecodeMany compares the engines on -cases encodings: random points of the curves, in the groups or not, with
// flags and bits changed in most.
func TestDecodeMany(t *testing.T) {
	r := rand.New(rand.NewPCG(*seed, 4))
	bases := encodings()
	for range *cases {
		b := append([]byte(nil), bases[r.IntN(len(bases))]...)
		switch r.IntN(8) {
		case 0: // another x, random but for the flags
			for i := 1; i < len(b); i++ {
				b[i] = byte(r.Uint32())
			}
			b[0] = b[0]&flags | byte(r.IntN(27))
		case 1:
			b[0] ^= byte(1+r.IntN(7)) << 5
		case 2:
			b[0] = byte(r.Uint32())
		case 3: // a small x
			at := 48 * r.IntN(len(b)/48)
			clear(b[at+1 : at+46])
			b[at] &= flags
		case 4: // a coordinate at the edge of the field
			at := 48 * r.IntN(len(b)/48)
			high := b[at] & flags
			new(big.Int).Add(fp.Modulus(), big.NewInt(int64(r.IntN(9)-4))).FillBytes(b[at : at+48])
			b[at] |= high
		default:
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
		}
		agree(t, b)
	}
}
