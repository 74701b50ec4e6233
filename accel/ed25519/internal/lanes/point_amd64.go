//go:build amd64 && !purego

package lanes

import "unsafe"

//go:generate go run ./gen

// vector is one 64-bit word of each of the eight lanes.
type vector [8]uint64

// element is a field element of each lane, as five limbs of 51 bits and a little; see gen/field.go.
type element [5]vector

// point is a point of each lane, in one of two forms: X, Y, Z, as a doubling takes it, or Y+X, Y-X, Z, T, as an
// addition takes it. Z, T are Z and XY/Z in both.
type point struct{ a, b, z, t element }

// row is what is added: Y+X, Y-X, 2dT, Z.
type row struct{ plus, minus, t, z element }

// group is what the functions on points work on: those of eight signatures. It lies on a cache line boundary.
type group struct {
	sum point
	row row
	_   element // spilled by additions
	_   vector  // addresses of chosen rows
}

// limbMost bounds the limbs of the elements that the functions below read and write, but for the words of a coded and
// what a row holds beside its elements: carriedMax in gen/field.go.
func limbMost(limb int) uint64 {
	if limb == 0 {
		return 1<<51 + 1<<17
	}
	return 1<<51 + 1<<13
}

// check looks at the bounds of the sum, in the checked build.
func (p *group) check() { carried(&p.sum.a, &p.sum.b, &p.sum.z, &p.sum.t) }

// coded is a point of each lane as its 32 bytes, little-endian words, and as what decode makes of them.
type coded struct {
	words   [4]vector
	x, y, t element
}

// double replaces the sum, X, Y, Z, by 2^n times it, for an addition. n is at least 1.
//
//go:noescape
func double(p *group, n uint64)

// addKeyNext adds a multiple of a point of each lane to the sum. Lane i's multiple is the signed digit in the low four
// bits of words[i] >> shift, less 8; tables[i] has its multiples 0 to 8 as rows of 20 words. Sum and result are as an
// addition takes them.
//
//go:noescape
func addKeyNext(p *group, tables *[8]unsafe.Pointer, words *vector, shift uint64)

// addKeyLast is addKeyNext with a result as a doubling takes it.
//
//go:noescape
func addKeyLast(p *group, tables *[8]unsafe.Pointer, words *vector, shift uint64)

// addCachedNext is addKeyNext with rows of 16 words, Z being 1.
//
//go:noescape
func addCachedNext(p *group, tables *[8]unsafe.Pointer, words *vector, shift uint64)

// addCachedLast is addCachedNext with a result as a doubling takes it.
//
//go:noescape
func addCachedLast(p *group, tables *[8]unsafe.Pointer, words *vector, shift uint64)

// addBaseNext is addCachedNext with one table of the multiples 0 to 128 for all lanes and digits of eight bits, less 128.
//
//go:noescape
func addBaseNext(p *group, table unsafe.Pointer, words *vector, shift uint64)

// addBaseLast is addBaseNext with a result as a doubling takes it.
//
//go:noescape
func addBaseLast(p *group, table unsafe.Pointer, words *vector, shift uint64)

// addRow adds the row, with Z = 1, to the sum. Sum and result are as an addition takes them.
//
//go:noescape
func addRow(p *group)

// setRow makes a row, but for its z, of a decoded point.
//
//go:noescape
func setRow(r *row, p *coded)

// storeRow writes the sum, as an addition takes it, as a row of 20 words for each lane: lane i's to rows + i stride.
//
//go:noescape
func storeRow(p *group, rows unsafe.Pointer, stride uint64)

// storeAffine writes a row without its z, as 15 words and one of padding for each lane: lane i's to rows + i stride.
//
//go:noescape
func storeAffine(r *row, rows unsafe.Pointer, stride uint64)

// addRowZ adds the row to the sum. Sum and result are as an addition takes them.
//
//go:noescape
func addRowZ(p *group)

// unsum turns a sum as an addition takes it into one as a doubling takes it.
//
//go:noescape
func unsum(p *group)

// multiply is to = a b.
//
//go:noescape
func multiply(to, a, b *element)

// square is to = a^(2^n). n is at least 1.
//
//go:noescape
func square(to, a *element, n uint64)

// prefetch brings cache lines from p on into the second-level cache.
//
//go:noescape
func prefetch(p unsafe.Pointer, lines uint64)

// decode finds x, y and t of the negatives of two encoded points. Bit i of the result tells that lane i's first
// encoding is that of a point, bit 8 + i that its second is. Other lanes' points are meaningless.
//
//go:noescape
func decode(temp *[12]element, first, second *coded) uint64

// isNeutral sets bit i if the sum of lane i, as an addition takes it, is the neutral point.
//
//go:noescape
func isNeutral(p *group) uint64

// sha512Block advances the SHA-512 states of the active lanes, bit i for lane i, by a block of 128 bytes each. All
// eight addresses must be readable.
//
//go:noescape
func sha512Block(state *[8]vector, blocks *[8]unsafe.Pointer, active uint64)
