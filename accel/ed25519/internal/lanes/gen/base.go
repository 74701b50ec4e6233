package main

import "math/big"

// baseFile has the multiples 1 to 128 of 2^(64 i) B for i = 0 to 3, B the base point, each as y+x, y-x and 2dxy, 32 bytes
// little-endian, reduced.
func baseFile() []byte {
	y := modP(new(big.Int).Mul(big.NewInt(4), new(big.Int).ModInverse(big.NewInt(5), p)))
	base := affine{evenRoot(y), y}
	var file []byte
	for range 4 {
		multiple := base
		for range 128 {
			file = append(file, multiple.row()...)
			multiple = multiple.add(base)
		}
		for range 64 {
			base = base.add(base)
		}
	}
	return file
}

type affine struct{ x, y *big.Int }

// evenRoot is the even x of the point with the given y.
func evenRoot(y *big.Int) *big.Int {
	yy := modP(new(big.Int).Mul(y, y))
	u := modP(new(big.Int).Sub(yy, big.NewInt(1)))
	v := modP(new(big.Int).Add(new(big.Int).Mul(d, yy), big.NewInt(1)))
	x := new(big.Int).ModSqrt(modP(u.Mul(u, v.ModInverse(v, p))), p)
	if x.Bit(0) == 1 {
		x.Sub(p, x)
	}
	return x
}

func (a affine) add(b affine) affine {
	x1y2, y1x2 := new(big.Int).Mul(a.x, b.y), new(big.Int).Mul(a.y, b.x)
	y1y2, x1x2 := new(big.Int).Mul(a.y, b.y), new(big.Int).Mul(a.x, b.x)
	product := modP(new(big.Int).Mul(d, modP(new(big.Int).Mul(x1x2, y1y2))))
	over := func(n, d *big.Int) *big.Int { return modP(n.Mul(n, d.ModInverse(modP(d), p))) }
	return affine{
		over(x1y2.Add(x1y2, y1x2), new(big.Int).Add(big.NewInt(1), product)),
		over(y1y2.Add(y1y2, x1x2), new(big.Int).Sub(big.NewInt(1), product)),
	}
}

func (a affine) row() (row []byte) {
	xy := new(big.Int).Mul(a.x, a.y)
	for _, v := range []*big.Int{new(big.Int).Add(a.y, a.x), new(big.Int).Sub(a.y, a.x), xy.Mul(xy, twoD)} {
		b := modP(v).FillBytes(make([]byte, 32))
		for i := range 16 {
			b[i], b[31-i] = b[31-i], b[i]
		}
		row = append(row, b...)
	}
	return row
}
