//go:build amd64 && !purego

package lanes

import (
	"math/big"
	"math/rand/v2"
	"testing"
	"unsafe"

	"filippo.io/edwards25519"
)

// smallOrder generates the points whose order divides 8.
var smallOrder = []byte{
	0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
	0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
}

// randomPoint is any point of the curve, quite often one of small order or the neutral one.
func randomPoint(rnd *rand.Rand) *edwards25519.Point {
	torsion, _ := new(edwards25519.Point).SetBytes(smallOrder)
	p := edwards25519.NewIdentityPoint()
	for range rnd.IntN(8) {
		p.Add(p, torsion)
	}
	if rnd.IntN(4) > 0 {
		p.Add(p, new(edwards25519.Point).ScalarBaseMult(randomScalar(rnd)))
	}
	return p
}

func randomScalar(rnd *rand.Rand) *edwards25519.Scalar {
	var wide [64]byte
	for i := range wide {
		wide[i] = byte(rnd.Uint32())
	}
	s, _ := new(edwards25519.Scalar).SetUniformBytes(wide[:])
	return s
}

// points are the eight of a group, and the same for the reference.
func points(v *Verifier, c *coded, rnd *rand.Rand) (want [lanes]*edwards25519.Point) {
	for l := range want {
		p := randomPoint(rnd)
		c.set(l, p.Bytes())
		want[l] = p.Negate(p)
	}
	decode(v.temp, c, &v.r[len(v.r)-1])
	return want
}

// sums are the coordinates of a sum as an addition takes it.
func (p *group) sums(l int) (x, y, z, t *big.Int) {
	plus, minus := p.sum.a.value(l), p.sum.b.value(l)
	half := new(big.Int).ModInverse(big.NewInt(2), prime)
	x, y = new(big.Int).Sub(plus, minus), new(big.Int).Add(plus, minus)
	x.Mul(x, half).Mod(x, prime)
	y.Mul(y, half).Mod(y, prime)
	return x, y, p.sum.z.value(l), p.sum.t.value(l)
}

// TestPoints runs every function on points through random sequences against filippo.io/edwards25519, lane by lane.
func TestPoints(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(9, 10))
	v := New()
	g := v.g
	for range 60 {
		key := points(v, &v.a[0], rnd)
		g.expand(v.tables[0], &v.a[0])
		var tables [lanes]unsafe.Pointer
		for l := range tables {
			tables[l] = unsafe.Pointer(&v.tables[0][l])
		}
		other := points(v, &v.r[0], rnd)
		var want [lanes]*edwards25519.Point
		for l := range want {
			want[l] = edwards25519.NewIdentityPoint()
		}
		setRow(&g.row, &v.r[0])
		minusR := g.row
		g.sum = neutral
		each := func(f func(l int)) {
			for l := range lanes {
				f(l)
			}
		}
		for range 24 {
			var words vector
			each(func(l int) { words[l] = rnd.Uint64() })
			shift := rnd.Uint64N(57)
			key4 := func(l int) *edwards25519.Point { return times(int(words[l]>>shift&15)-8, key[l]) }
			base8 := func(l int) *edwards25519.Point {
				return times(int(words[l]>>shift&255)-128, edwards25519.NewGeneratorPoint())
			}
			var what string
			switch rnd.IntN(6) {
			case 0:
				what = "addKeyNext"
				addKeyNext(g, &tables, &words, shift)
				each(func(l int) { want[l].Add(want[l], key4(l)) })
			case 1:
				what = "addKeyLast, double"
				addKeyLast(g, &tables, &words, shift)
				double(g, 1)
				each(func(l int) { want[l].Add(want[l], key4(l)); want[l].Add(want[l], want[l]) })
			case 2:
				what = "addBaseNext"
				addBaseNext(g, unsafe.Pointer(&base()[0]), &words, shift)
				each(func(l int) { want[l].Add(want[l], base8(l)) })
			case 3:
				what = "addBaseLast, double twice"
				addBaseLast(g, unsafe.Pointer(&base()[0]), &words, shift)
				double(g, 2)
				each(func(l int) { want[l].Add(want[l], base8(l)); want[l] = times(4, want[l]) })
			case 4:
				what = "addRow"
				g.row = minusR
				addRow(g)
				each(func(l int) { want[l].Add(want[l], other[l]) })
			case 5:
				what = "addRowZ, to itself"
				g.row.set(&g.sum)
				addRowZ(g)
				each(func(l int) { want[l].Add(want[l], want[l]) })
			}
			within(t, what, &g.sum.a, &g.sum.b, &g.sum.z, &g.sum.t)
			neutrals := isNeutral(g)
			each(func(l int) {
				x, y, z, xy := g.sums(l)
				samePoint(t, what, want[l], x, y, z, xy)
				if is := want[l].Equal(edwards25519.NewIdentityPoint()) == 1; is != (neutrals>>l&1 == 1) {
					t.Fatalf("after %s, lane %d: neutral %v, want %v", what, l, !is, is)
				}
			})
		}
	}
}

// times is n p.
func times(n int, p *edwards25519.Point) *edwards25519.Point {
	sum := edwards25519.NewIdentityPoint()
	for range max(n, -n) {
		sum.Add(sum, p)
	}
	if n < 0 {
		sum.Negate(sum)
	}
	return sum
}

// TestBase compares the table of the base point with the reference.
func TestBase(t *testing.T) {
	needLanes(t)
	for i := range base() {
		step := edwards25519.NewGeneratorPoint()
		for range 64 * i {
			step.Add(step, step)
		}
		want := edwards25519.NewIdentityPoint()
		for j := range baseRows {
			sameRow(t, want, &base()[i][j])
			want.Add(want, step)
		}
	}
}

// sameRow compares a row of a table with a point.
func sameRow(t *testing.T, want *edwards25519.Point, r *affineRow) {
	t.Helper()
	var e [3]element
	for k := range e {
		for i := range e[k] {
			e[k][i][0] = r[5*k+i]
		}
	}
	g := group{sum: point{a: e[0], b: e[1]}}
	x, y, _, _ := g.sums(0)
	xy := e[2].value(0)
	xy.Mul(xy, new(big.Int).ModInverse(twoD.value(0), prime)).Mod(xy, prime)
	samePoint(t, "row", want, x, y, big.NewInt(1), xy)
}

// TestExpand compares expanded keys with the reference, and wants none for what is no key.
func TestExpand(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(11, 12))
	v := New()
	for n := 1; n <= lanes; n++ {
		var encoded []*[32]byte
		var want []*edwards25519.Point
		for range n {
			p := randomPoint(rnd)
			encoded, want = append(encoded, (*[32]byte)(p.Bytes())), append(want, p.Negate(p))
		}
		bad := rnd.IntN(n + 1)
		if bad < n {
			encoded[bad] = &[32]byte{2}
		}
		for l, k := range v.Expand(encoded) {
			if l >= n || l == bad {
				if k != nil {
					t.Fatalf("lane %d of %d has a key", l, n)
				}
				continue
			}
			step := want[l]
			for w := range k.tables {
				for j := range tableRows {
					sameRow(t, times(j, step), &k.tables[w][j])
				}
				for range 64 {
					step.Add(step, step)
				}
			}
		}
	}
}
