//go:build amd64 && !purego

package lanes

// halving is Euclid's algorithm on L and a scalar of each lane, stopped half-way: numbers in limbs of 52 bits.
type halving struct {
	r0, r1 [5]vector
	_      [3]vector // t0, which starts at 0 and is nobody's business but halve's
	t1     [3]vector // its absolute value, as t0's
}

// halve finds r1 and t1 of about 126 bits with r1 = t1 k modulo L. Bit i of the result tells that it found lane i's,
// bit 8 + i that lane i's t1 is negative. Before, r0 is L, r1 is k, t0 is 0 and t1 is 1.
//
//go:noescape
func halve(h *halving) uint64

const mask52 = 1<<52 - 1

// halvingStart is what halve wants, but for r1.
var halvingStart = func() (h halving) {
	l := scalar{orderC0, orderC1, 0, orderL3}
	for lane := range lanes {
		h.set(&h.r0, lane, &l)
		h.t1[0][lane] = 1
	}
	return h
}()

// set splits a scalar into limbs.
func (*halving) set(r *[5]vector, lane int, s *scalar) {
	r[0][lane] = s[0] & mask52
	r[1][lane] = (s[0]>>52 | s[1]<<12) & mask52
	r[2][lane] = (s[1]>>40 | s[2]<<24) & mask52
	r[3][lane] = (s[2]>>28 | s[3]<<36) & mask52
	r[4][lane] = s[3] >> 16
}

// half joins the limbs of a number that is small enough for digits of four bits from -8 to 7, which ok tells: those
// make up to 7/15 of 2^128.
func (*halving) half(r []vector, lane int) (n half, ok bool) {
	n = half{r[0][lane] | r[1][lane]<<52, r[1][lane]>>12 | r[2][lane]<<40}
	for _, above := range r[3:] {
		if above[lane] != 0 {
			return n, false
		}
	}
	return n, r[2][lane]>>24 == 0 && n[1] < 0x7700000000000000
}
