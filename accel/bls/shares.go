package bls

import (
	"errors"
	"fmt"

	"tutti/accel/bls/internal/curve"
)

// ErrNoShares is returned by CheckShares when no share is good, or the good ones add up to nothing.
var ErrNoShares = errors.New("bls: no valid share")

// CheckShares adds shares[i], by keys[i], on one message up to one signature and checks it: sum is the compressed sum
// of the shares that are not in bad, and verifies under the sum of their keys. bad are indices of shares, increasing,
// whose exclusion makes the sum valid; each of them fails on its own. So an honest client's share is never in bad; bad
// shares that cancel each other out may be left in the sum, which is valid nevertheless. That is enough where nothing
// but the sum is used; to credit each signer, use KeySet.VerifySameMessage.
//
// One group check and one pairing check serve all shares if none is bad (about 1 microsecond per share and 1.4 ms);
// each bad one costs at most log2(n) more of them, all together at most n. The error is ErrNoShares, or says that the
// slices differ in length.
func CheckShares(keys []PublicKey, msg []byte, shares []Share) (sum [96]byte, bad []int, err error) {
	e := engine()
	sumKeys := func(lo, hi int) curve.G1 {
		points := make([]curve.G1, hi-lo)
		for i := range points {
			points[i] = keys[lo+i].point
		}
		return affineG1(e.SumG1(points))
	}
	if len(keys) != len(shares) {
		return sum, nil, fmt.Errorf("bls: %d keys for %d shares", len(keys), len(shares))
	}
	return checkShares(e, sumKeys, msg, shares)
}

// checkShares is CheckShares with the keys given as sums over ranges.
func checkShares(e curve.Engine, sumKeys func(lo, hi int) curve.G1, msg []byte, shares []Share) (sum [96]byte, bad []int, err error) {
	if len(shares) == 0 {
		return sum, nil, ErrNoShares
	}
	points := make([]curve.G2, len(shares))
	for i := range shares {
		points[i] = shares[i].point
	}
	hash := e.HashToG2(msg, dstVote)
	total := e.SumG2(points)
	evaluate := func(lo, hi int) verdict {
		point := total
		if hi-lo < len(points) {
			point = e.SumG2(points[lo:hi])
		}
		share := affineG2(point)
		if !share.IsInfinity() && !e.InG2(&share) {
			return verdict{}
		}
		key := sumKeys(lo, hi)
		return verdict{quotient(e, &key, hash, &share), true}
	}
	search(0, len(points), evaluate(0, len(points)), evaluate, func(i int) {
		bad = append(bad, i)
		var p curve.G2Jac
		total.SubAssign(p.FromAffine(&points[i]))
	})
	good := affineG2(total)
	if good.IsInfinity() {
		return sum, bad, ErrNoShares
	}
	return good.Bytes(), bad, nil
}

func affineG1(p curve.G1Jac) (a curve.G1) { a.FromJacobian(&p); return a }
func affineG2(p curve.G2Jac) (a curve.G2) { a.FromJacobian(&p); return a }
