package bls

import "tutti/accel/bls/internal/curve"

// verdict is what is known about a range of items taken together: whether their sums are in the group and, if so, the
// quotient of their combined equation, which is one if the range passes.
type verdict struct {
	quotient curve.GT
	inGroup  bool
}

func (v verdict) good() bool { return v.inGroup && v.quotient.IsOne() }

// search finds the bad items of a range whose combined verdict is known, by halving. A range's quotient is the product
// of its halves', so that only the left half costs an evaluation; the right half's is what remains. That makes one
// evaluation a level for one bad item, and never more than n-1 in all, which is less than to check each on its own
// (the "simple binary quick search" of Law and Matt, Finding invalid signatures in pairing-based batches, 2007).
//
// evaluate gives the verdict on items lo to hi, hi not included; bad is told the index of each bad item, in order.
// Where a range's sum is outside the group nothing follows for its right half, which is then evaluated.
func search(lo, hi int, all verdict, evaluate func(lo, hi int) verdict, bad func(i int)) {
	if all.good() {
		return
	}
	if hi-lo == 1 {
		bad(lo)
		return
	}
	mid := (lo + hi) / 2
	left := evaluate(lo, mid)
	var right verdict
	switch {
	case all.inGroup && left.inGroup:
		right.inGroup = true
		right.quotient.Conjugate(&left.quotient) // the inverse, in the target group
		right.quotient.Mul(&right.quotient, &all.quotient)
	case all.inGroup != left.inGroup:
		// The right half's sum is the difference of a point in the group and one outside: outside.
	default:
		right = evaluate(mid, hi)
	}
	search(lo, mid, left, evaluate, bad)
	search(mid, hi, right, evaluate, bad)
}
