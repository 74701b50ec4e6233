//go:build amd64 && !purego

package lanes

import (
	_ "embed"
	"sync"
	"unsafe"
)

const (
	tableRows = 9   // multiples 0 to 8
	baseRows  = 129 // multiples 0 to 128
)

// affineRow is one lane's Y+X, Y-X, 2dT, five limbs each, with Z = 1; the last word is padding.
type affineRow [16]uint64

// projectiveRow is one lane's Y+X, Y-X, 2dT, Z, five limbs each.
type projectiveRow [20]uint64

// projectiveTable has the multiples 0 to 8 of one lane's point.
type projectiveTable [tableRows]projectiveRow

func newProjectiveTables() *[lanes]projectiveTable {
	t := aligned[[lanes]projectiveTable]()
	for l := range t {
		t[l][0][0], t[l][0][5], t[l][0][15] = 1, 1, 1
	}
	return t
}

//go:embed base.bin
var baseBytes []byte

// base has the multiples 0 to 128 of 2^(64 i) B for i = 0 to 3.
var base = sync.OnceValue(func() *[4][baseRows]affineRow {
	t := aligned[[4][baseRows]affineRow]()
	b := baseBytes
	for i := range t {
		t[i][0].neutral()
		for j := 1; j < baseRows; j++ {
			for k := range 3 {
				s := scalarOf(b[:32])
				limbs := s.limbs()
				copy(t[i][j][5*k:], limbs[:])
				b = b[32:]
			}
		}
	}
	return t
})

func (r *affineRow) neutral() { r[0], r[5] = 1, 1 }

// expand makes the tables of decoded points.
func (g *group) expand(tables *[lanes]projectiveTable, p *coded) {
	store := func(j int) {
		storeRow(g, unsafe.Pointer(&tables[0][j]), uint64(unsafe.Sizeof(tables[0])))
	}
	setRow(&g.row, p)
	g.sum = point{g.row.plus, g.row.minus, one, p.t}
	store(1)
	g.sum.a, g.sum.b = p.x, p.y
	double(g, 1)
	g.check()
	store(2)
	for j := 3; j < tableRows; j++ {
		addRow(g)
		g.check()
		store(j)
	}
}

// Key is an expanded key: the multiples 0 to 8 of -2^(64 i) A for i = 0 to 3. It is read-only and takes 4.5 KiB.
type Key struct{ tables *[4][tableRows]affineRow }

// Expand expands up to eight keys. Those that are not encodings of points give nil. It takes about as long as verifying
// a signature under each.
func (v *Verifier) Expand(encoded []*[32]byte) (keys [lanes]*Key) {
	g, p := v.g, &v.a[0]
	for l := range lanes {
		p.set(l, encoded[min(l, len(encoded)-1)][:])
	}
	onCurve := decode(v.temp, p, &v.a[1])
	rows := aligned[[4 * (tableRows - 1)]row]()
	setRow(&g.row, p)
	g.sum = point{g.row.plus, g.row.minus, one, p.t}
	for w := range 4 {
		own := rows[w*(tableRows-1):][:tableRows-1]
		if w > 0 { // the sum is 8 times the point
			unsum(g)
			g.check()
			double(g, 61)
			g.check()
		}
		own[0].set(&g.sum)
		g.row = own[0]
		unsum(g)
		g.check()
		double(g, 1)
		g.check()
		own[1].set(&g.sum)
		for j := 2; j < len(own); j++ {
			addRowZ(g)
			g.check()
			own[j].set(&g.sum)
		}
	}
	normalise(rows[:])

	tables := aligned[[lanes][4][tableRows]affineRow]()
	for i := range rows {
		first := unsafe.Pointer(&tables[0][i/(tableRows-1)][1+i%(tableRows-1)])
		storeAffine(&rows[i], first, uint64(unsafe.Sizeof(tables[0])))
	}
	for l := range encoded {
		if onCurve>>l&1 == 0 {
			continue
		}
		own := aligned[[4][tableRows]affineRow]()
		*own = tables[l]
		for w := range own {
			own[w][0].neutral()
		}
		keys[l] = &Key{own}
	}
	return keys
}

var twoD = func() (e element) {
	for i, limb := range limbsTwoD {
		for l := range lanes {
			e[i][l] = limb
		}
	}
	return e
}()

// limbsTwoD is 2d.
var limbsTwoD = [5]uint64{0x69b9426b2f159, 0x35050762add7a, 0x3cf44c0038052, 0x6738cc7407977, 0x2406d9dc56dff}

// set makes the row of a point as an addition takes it.
func (r *row) set(p *point) {
	r.plus, r.minus, r.z = p.a, p.b, p.z
	multiply(&r.t, &p.t, &twoD)
	carried(&r.t)
}

// normalise divides the rows by their z, with one inversion for all (Montgomery's trick).
func normalise(rows []row) {
	products := make([]element, len(rows)) // of all z before
	product := one
	for i := range rows {
		products[i] = product
		multiply(&product, &product, &rows[i].z)
	}
	inverse := invert(&product)
	for i := len(rows) - 1; i >= 0; i-- {
		r := &rows[i]
		var own element
		multiply(&own, &inverse, &products[i])
		multiply(&inverse, &inverse, &r.z)
		multiply(&r.plus, &r.plus, &own)
		multiply(&r.minus, &r.minus, &own)
		multiply(&r.t, &r.t, &own)
		carried(&own, &inverse, &r.plus, &r.minus, &r.t)
	}
}

// invert is z^(p - 2), where p - 2 = 2^255 - 21.
func invert(z *element) element {
	power := func(a *element, n uint64, b *element) (r element) { // a^(2^n) b
		square(&r, a, n)
		multiply(&r, &r, b)
		return r
	}
	var z2 element
	square(&z2, z, 1)
	z9 := power(&z2, 2, z)
	var z11 element
	multiply(&z11, &z9, &z2)
	z5 := power(&z11, 1, &z9) // 2^5 - 1
	z10 := power(&z5, 5, &z5)
	z20 := power(&z10, 10, &z10)
	z40 := power(&z20, 20, &z20)
	z50 := power(&z40, 10, &z10)
	z100 := power(&z50, 50, &z50)
	z200 := power(&z100, 100, &z100)
	z250 := power(&z200, 50, &z50)
	return power(&z250, 5, &z11)
}
