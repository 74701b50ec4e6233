//go:build amd64 && !purego

package lanes

import "unsafe"

// Signed digits without carries: a scalar plus all these, taken apart, less 8 or 128 in each digit.
const (
	signed4 = 0x8888888888888888
	signed8 = 0x8080808080808080
)

var (
	one     = element{0: {1, 1, 1, 1, 1, 1, 1, 1}}
	neutral = point{one, one, one, element{}} // as an addition takes it
)

// terms are multiples of points of the lanes and one of B, to be added with the same doublings: the words of the
// scalars with signed digits, lane by lane, and where the points' tables are. There are two points with scalars of two
// words, or four with scalars of one; S falls into as many parts.
type terms struct {
	points int
	tables [4][lanes]unsafe.Pointer
	digits [4]vector // of four bits: the words of the first point's scalars, then the next point's
	s      [4]vector // of eight bits
}

func (t *terms) setS(lane int, s *scalar) {
	for w, word := range s.plus(signed8) {
		t.s[w][lane] = word
	}
}

// sum leaves the sum in g as an addition takes it.
func (t *terms) sum(g *group) {
	g.sum = neutral
	words := 4 / t.points
	for d := 16*words - 1; ; d-- {
		w, shift := d/16, uint64(d%16)*4
		if d%2 == 0 {
			for at := w; at < 4; at += words {
				addBaseNext(g, unsafe.Pointer(&base()[at-w]), &t.s[at], shift)
				g.check()
			}
		}
		for p := range t.points - 1 {
			t.addNext(g, p, p*words+w, shift)
		}
		p := t.points - 1
		if d == 0 {
			t.addNext(g, p, p*words, 0)
			return
		}
		t.addLast(g, p, p*words+w, shift)
		double(g, 4)
		g.check()
	}
}

// addNext adds the multiple of a point that a digit of a word says. Four points are known ones.
func (t *terms) addNext(g *group, p, word int, shift uint64) {
	if t.points == 4 {
		addCachedNext(g, &t.tables[p], &t.digits[word], shift)
	} else {
		addKeyNext(g, &t.tables[p], &t.digits[word], shift)
	}
	g.check()
}

// addLast is addNext before a doubling.
func (t *terms) addLast(g *group, p, word int, shift uint64) {
	if t.points == 4 {
		addCachedLast(g, &t.tables[p], &t.digits[word], shift)
	} else {
		addKeyLast(g, &t.tables[p], &t.digits[word], shift)
	}
	g.check()
}

// sumUnknown tells in which lanes 8(SB - kA - R) is neutral, from the decoded points of batch b. With u = v k modulo L,
// both of half the size (halve), it is so exactly if 8(v S B - u A - v R) is: multiples of L of a point vanish under the
// 8, and v, which is not 0 modulo L, takes nothing but the neutral point there in a group of order L.
func (v *Verifier) sumUnknown(b int, items []int) uint64 {
	v.own(0, &v.a[b])
	if !v.halved(items) {
		return v.sumWhole(b, items)
	}
	v.own(1, &v.r[b])
	v.terms.points = 2
	v.terms.sum(v.g)
	return v.eightfold()
}

// own makes the tables of decoded points the terms' tables.
func (v *Verifier) own(which int, p *coded) {
	v.g.expand(v.tables[which], p)
	for l := range lanes {
		v.terms.tables[which][l] = unsafe.Pointer(&v.tables[which][l])
	}
}

// halved sets the terms' digits from u, v and v S, if halve finds them for all lanes.
func (v *Verifier) halved(items []int) bool {
	h, t := v.h, v.terms
	*h = halvingStart
	for l, i := range items {
		h.set(&h.r1, l, &v.k[i])
	}
	found := halve(h)
	for l, i := range items {
		small, fits := h.half(h.r1[:], l)
		factor, fitsToo := h.half(h.t1[:], l)
		if !fits || !fitsToo || found>>l&1 == 0 {
			return false
		}
		// The sign of v goes to u.
		if negative := found>>(lanes+l)&1 == 1; negative {
			small = signed4Half.minus(small)
		} else {
			small = signed4Half.plus(small)
		}
		biased := signed4Half.plus(factor)
		for w := range 2 {
			t.digits[w][l], t.digits[2+w][l] = small[w], biased[w]
		}
		s := factor.times(&v.s[i])
		t.setS(l, &s)
	}
	return true
}

// sumWhole is sumUnknown with k as it is, for the batch of a lane that halve did not find: with 256 doublings.
func (v *Verifier) sumWhole(b int, items []int) uint64 {
	g, tables := v.g, &v.terms.tables[0]
	var digits, s [4]vector
	for l, i := range items {
		k, own := v.k[i].plus(signed4), v.s[i].plus(signed8)
		for w := range digits {
			digits[w][l], s[w][l] = k[w], own[w]
		}
	}
	table := unsafe.Pointer(&base()[0])
	g.sum = neutral
	for w := 63; ; w-- {
		shift := uint64(w%16) * 4
		if w%2 == 0 {
			addBaseNext(g, table, &s[w/16], shift)
			g.check()
		}
		if w == 0 {
			break
		}
		addKeyLast(g, tables, &digits[w/16], shift)
		double(g, 4)
		g.check()
	}
	addKeyNext(g, tables, &digits[0], 0)
	v.minusR(b)
	return v.eightfold()
}

// sumKnown is sumUnknown with expanded keys: the four words of k and those of S share the doublings.
func (v *Verifier) sumKnown(b int, items []int, keys []*Key) uint64 {
	t := v.terms
	for l := range lanes {
		i := items[min(l, len(items)-1)]
		for w, word := range v.k[i].plus(signed4) {
			t.tables[w][l], t.digits[w][l] = unsafe.Pointer(&keys[i].tables[w]), word
		}
		t.setS(l, &v.s[i])
	}
	t.points = 4
	t.sum(v.g)
	v.minusR(b)
	clear(t.tables[:]) // the keys are the caller's
	return v.eightfold()
}

// minusR adds -R to the sum.
func (v *Verifier) minusR(b int) {
	g, r := v.g, &v.r[b]
	carried(&r.x, &r.y, &r.t)
	setRow(&g.row, r)
	carried(&g.row.plus, &g.row.minus, &g.row.t)
	addRow(g)
	g.check()
}

// eightfold tells in which lanes eight times the sum is neutral.
func (v *Verifier) eightfold() uint64 {
	unsum(v.g)
	double(v.g, 3)
	v.g.check()
	return isNeutral(v.g)
}
