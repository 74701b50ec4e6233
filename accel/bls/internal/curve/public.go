package curve

import (
	"sync"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"github.com/consensys/gnark-crypto/ecc/bls12-381/fp"
)

// digitsOf are the d times 256^w times the generator, for w from 0 to 31 and d from 1 to 255: 780 KB.
var digitsOf = sync.OnceValue(func() *[32][255]G1 {
	var out [32][255]G1
	base, _ := Generator()
	for w := range out {
		var sums [256]G1Jac
		sums[0].FromAffine(&base)
		for d := 1; d < len(sums); d++ {
			sums[d].Set(&sums[d-1]).AddMixed(&base)
		}
		affine := bls12381.BatchJacobianToAffineG1(sums[:])
		copy(out[w][:], affine)
		base = affine[255]
	}
	return &out
})

// publicBatch is how many keys share one inversion of a field element.
const publicBatch = 1024

// Public sets points[i] to secrets[i] times the generator: an addition for each byte of a secret, and no doubling, all at one
// time for many keys, so that they share the inversions. It takes a tenth of Engine.Public's time, and tells by it what the
// secrets are. Secrets are big-endian, above zero and below the group order.
func Public(secrets [][32]byte, points []G1) {
	table := digitsOf()
	slopes := make([]fp.Element, 0, publicBatch)
	at := make([]int32, 0, publicBatch)
	for len(secrets) > 0 {
		n := min(len(secrets), publicBatch)
		for i := range n {
			points[i] = G1{}
		}
		for w := range table {
			slopes, at = slopes[:0], at[:0]
			for i := range n {
				d := secrets[i][31-w]
				if d == 0 {
					continue
				}
				p, q := &points[i], &table[w][d-1]
				if p.IsInfinity() {
					*p = *q
					continue
				}
				// The sum so far is below 256^w, and with this digit below the group order: neither equal nor opposite.
				slopes, at = append(slopes, *new(fp.Element).Sub(&q.X, &p.X)), append(at, int32(i))
			}
			for k, inverse := range fp.BatchInvert(slopes) {
				i := at[k]
				addChord(&points[i], &table[w][secrets[i][31-w]-1], &inverse)
			}
		}
		secrets, points = secrets[n:], points[n:]
	}
}

// addChord adds q to p; inverse is 1/(q.X - p.X).
func addChord(p, q *G1, inverse *fp.Element) {
	var slope, x, y fp.Element
	slope.Sub(&q.Y, &p.Y).Mul(&slope, inverse)
	x.Square(&slope).Sub(&x, &p.X).Sub(&x, &q.X)
	y.Sub(&p.X, &x).Mul(&y, &slope).Sub(&y, &p.Y)
	p.X, p.Y = x, y
}
