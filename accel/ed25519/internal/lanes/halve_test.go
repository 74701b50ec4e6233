//go:build amd64 && !purego

package lanes

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestHalve checks u = v k modulo L and the sizes, for random k, the smallest and the largest, and those near fractions
// of L, whose quotients are large.
func TestHalve(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(17, 18))
	h := aligned[halving]()
	var found, missed, edges int
	for range 20_000 {
		var ks [lanes]*big.Int
		var edge [lanes]bool
		for l := range ks {
			var s scalar
			for i := range s {
				s[i] = rnd.Uint64()
			}
			k := s.big()
			k.Mod(k, order)
			style := rnd.IntN(40)
			edge[l] = style < 4
			switch style {
			case 0:
				k.SetUint64(rnd.Uint64() >> rnd.IntN(64))
			case 1:
				k.Sub(order, new(big.Int).SetUint64(1+rnd.Uint64()>>rnd.IntN(64)))
			case 2:
				k.Rsh(k, uint(rnd.IntN(252)))
			case 3: // L m / n
				k.SetUint64(rnd.Uint64() >> (8 + rnd.IntN(48)))
				n := new(big.Int).Add(k, new(big.Int).SetUint64(1+rnd.Uint64()>>rnd.IntN(64)))
				k.Mul(k, order).Div(k, n)
			}
			ks[l] = k
		}
		for l, ok := range halves(t, h, &ks) {
			switch {
			case ok:
				found++
			case edge[l]:
				edges++
			default:
				missed++
			}
		}
	}
	t.Logf("%d found, %d of the random and %d of the others not", found, missed, edges)
	if missed > 20 {
		t.Errorf("%d of the random ones not found", missed)
	}
}

// halves halves a scalar in each lane, tells which were found and checks those.
func halves(t *testing.T, h *halving, ks *[lanes]*big.Int) (ok [lanes]bool) {
	t.Helper()
	*h = halvingStart
	mask := new(big.Int).SetUint64(^uint64(0))
	for l, k := range ks {
		var s scalar
		for i := range s {
			s[i] = new(big.Int).And(new(big.Int).Rsh(k, uint(64*i)), mask).Uint64()
		}
		h.set(&h.r1, l, &s)
	}
	bits := halve(h)
	for l, k := range ks {
		u, fitsU := h.half(h.r1[:], l)
		v, fitsV := h.half(h.t1[:], l)
		if ok[l] = bits>>l&1 == 1 && fitsU && fitsV; !ok[l] {
			continue
		}
		signed := number(v[:])
		if signed.Sign() == 0 || signed.BitLen() > 127 {
			t.Fatalf("k %x: v is %x", k, signed)
		}
		if bits>>(lanes+l)&1 == 1 {
			signed.Neg(signed)
		}
		product := signed.Mul(signed, k)
		if product.Sub(product, number(u[:])).Mod(product, order).Sign() != 0 {
			t.Fatalf("k %x: u %x, v %x, negative %v", k, number(u[:]), number(v[:]), bits>>(lanes+l)&1)
		}
	}
	return ok
}

// FuzzHalve halves any scalar beside others, which it must not disturb.
func FuzzHalve(f *testing.F) {
	needLanes(f)
	f.Add(make([]byte, 32), uint8(0))
	f.Add(order.Bytes(), uint8(2))
	f.Add(new(big.Int).Rsh(order, 1).Bytes(), uint8(5))
	f.Add(new(big.Int).Sqrt(order).Bytes(), uint8(7))
	h := aligned[halving]()
	usual, _ := new(big.Int).SetString("7a8b3e1c5d9f0a2b4c6d8e0f1a3b5c7d9e1f2a4b6c8d0e2f4a6b8c0d2e4f6a8", 16)
	f.Fuzz(func(t *testing.T, b []byte, at uint8) {
		var ks [lanes]*big.Int
		for l := range ks {
			ks[l] = usual
		}
		k := new(big.Int).SetBytes(b)
		ks[at%lanes] = k.Mod(k, order)
		for l, ok := range halves(t, h, &ks) {
			if !ok && l != int(at%lanes) {
				t.Fatalf("lane %d is disturbed by %x in lane %d", l, k, at%lanes)
			}
		}
	})
}
