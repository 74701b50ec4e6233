//go:build amd64 && !purego

package lanes

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"filippo.io/edwards25519"
)

var prime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

// value is what a lane of an element stands for, modulo p.
func (e *element) value(lane int) *big.Int {
	v := new(big.Int)
	for i := len(e) - 1; i >= 0; i-- {
		v.Lsh(v, 51)
		v.Add(v, new(big.Int).SetUint64(e[i][lane]))
	}
	return v.Mod(v, prime)
}

// randomElement has random limbs in every lane, and the least and largest that the kernels may meet in some.
func randomElement(rnd *rand.Rand) (e element) {
	for lane := range lanes {
		style := rnd.IntN(6)
		for i := range e {
			switch style {
			case 0:
				e[i][lane] = limbMost(i)
			case 1:
				e[i][lane] = 0
			case 2:
				e[i][lane] = []uint64{0, 1, 1<<51 - 20, 1<<51 - 19, 1<<51 - 18, 1<<51 - 1, limbMost(i)}[rnd.IntN(7)]
			default:
				e[i][lane] = rnd.Uint64N(limbMost(i) + 1)
			}
		}
	}
	return e
}

func within(t *testing.T, what string, elements ...*element) {
	t.Helper()
	for _, e := range elements {
		for i, limb := range e {
			for lane, word := range limb {
				if word > limbMost(i) {
					t.Fatalf("%s: limb %d of lane %d is %#x", what, i, lane, word)
				}
			}
		}
	}
}

// TestField compares products and squares with math/big, lane by lane, at the bounds of the limbs as well.
func TestField(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		a, b := randomElement(rnd), randomElement(rnd)
		var product, squared element
		n := 1 + rnd.Uint64N(4)
		multiply(&product, &a, &b)
		square(&squared, &a, n)
		within(t, "product", &product)
		within(t, "square", &squared)
		for lane := range lanes {
			x, y := a.value(lane), b.value(lane)
			want := new(big.Int).Mul(x, y)
			if product.value(lane).Cmp(want.Mod(want, prime)) != 0 {
				t.Fatalf("%x * %x is %x in lane %d", x, y, product.value(lane), lane)
			}
			want = new(big.Int).Exp(x, new(big.Int).Lsh(big.NewInt(1), uint(n)), prime)
			if squared.value(lane).Cmp(want) != 0 {
				t.Fatalf("%x squared %d times is %x in lane %d", x, n, squared.value(lane), lane)
			}
		}
	}
}

func TestInvert(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		a := randomElement(rnd)
		inverse := invert(&a)
		for lane := range lanes {
			want := new(big.Int).ModInverse(a.value(lane), prime)
			if want == nil {
				want = new(big.Int)
			}
			if inverse.value(lane).Cmp(want) != 0 {
				t.Fatalf("1 / %x is %x in lane %d", a.value(lane), inverse.value(lane), lane)
			}
		}
	}
}

// TestDecode compares decoding with filippo.io/edwards25519: encodings around 0 and p, of small order, off the curve.
func TestDecode(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(7, 8))
	v := New()
	encoding := func() (b [32]byte) {
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		switch rnd.IntN(8) {
		case 0: // y from p - 25 on
			for i := range b {
				b[i] = 0xff
			}
			b[0] = byte(0xff - rnd.IntN(44))
			b[31] = byte(0x7f + rnd.IntN(2)<<7)
		case 1: // small y
			clear(b[:])
			b[0], b[31] = byte(rnd.IntN(6)), byte(rnd.IntN(2)<<7)
		}
		return b
	}
	for range 400 {
		var encoded [2][lanes][32]byte
		for l := range lanes {
			encoded[0][l], encoded[1][l] = encoding(), encoding()
		}
		decodes(t, v, &encoded)
	}
}

// decodes compares what the lanes make of encodings with the reference.
func decodes(t *testing.T, v *Verifier, encoded *[2][lanes][32]byte) {
	t.Helper()
	for l := range lanes {
		v.a[0].set(l, encoded[0][l][:])
		v.r[0].set(l, encoded[1][l][:])
	}
	bits := decode(v.temp, &v.a[0], &v.r[0])
	for i, c := range []*coded{&v.a[0], &v.r[0]} {
		within(t, "decoded", &c.x, &c.y, &c.t)
		for l := range lanes {
			enc := encoded[i][l]
			p, err := new(edwards25519.Point).SetBytes(enc[:])
			if onCurve := bits>>(lanes*i+l)&1 == 1; onCurve != (err == nil) {
				t.Fatalf("%x: on the curve %v, the reference says %v", enc, onCurve, err)
			}
			if err == nil {
				samePoint(t, "decoded", p.Negate(p), c.x.value(l), c.y.value(l), big.NewInt(1), c.t.value(l))
			}
		}
	}
}

// FuzzDecode decodes any two encodings, one in all lanes but one, the other in that lane and its mirror image.
func FuzzDecode(f *testing.F) {
	needLanes(f)
	f.Add(make([]byte, 64), uint8(0))
	f.Add(append(slices.Repeat([]byte{0xff}, 32), smallOrder...), uint8(3))
	f.Add(append([]byte{2}, make([]byte, 63)...), uint8(7))
	v := New()
	f.Fuzz(func(t *testing.T, both []byte, at uint8) {
		var b [64]byte
		copy(b[:], both)
		var encoded [2][lanes][32]byte
		for l := range lanes {
			encoded[0][l], encoded[1][l] = [32]byte(b[:32]), [32]byte(b[:32])
		}
		encoded[0][at%lanes], encoded[1][lanes-1-at%lanes] = [32]byte(b[32:]), [32]byte(b[32:])
		decodes(t, v, &encoded)
	})
}

// samePoint compares extended coordinates with a point.
func samePoint(t *testing.T, what string, want *edwards25519.Point, x, y, z, xy *big.Int) {
	t.Helper()
	X, Y, Z, _ := want.ExtendedCoordinates()
	number := func(b []byte) *big.Int {
		for i := range 16 {
			b[i], b[31-i] = b[31-i], b[i]
		}
		return new(big.Int).SetBytes(b)
	}
	wx, wy, wz := number(X.Bytes()), number(Y.Bytes()), number(Z.Bytes())
	cross := func(a, b, c, d *big.Int) bool { // a/b = c/d
		l, r := new(big.Int).Mul(a, d), new(big.Int).Mul(c, b)
		return l.Sub(l, r).Mod(l, prime).Sign() == 0
	}
	if z.Sign() == 0 || !cross(x, z, wx, wz) || !cross(y, z, wy, wz) || xy != nil && !cross(xy, z, new(big.Int).Mul(x, y), new(big.Int).Mul(z, z)) {
		t.Fatalf("%s: x %x y %x z %x t %x, want x %x y %x z %x", what, x, y, z, xy, wx, wy, wz)
	}
}
