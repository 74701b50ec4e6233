//go:build amd64 && !purego

package lanes

import (
	"math/rand/v2"
	"testing"

	"filippo.io/edwards25519"
)

// TestSums checks 8(SB - kA - R) for k that a hash would hardly give: such as halve does not find, in one lane of a batch
// or in none, with points of small order added, and with S spoilt in some lanes.
func TestSums(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(21, 22))
	v := New()
	indices := []int{0, 1, 2, 3, 4, 5, 6, 7}
	torsion, _ := new(edwards25519.Point).SetBytes(smallOrder)
	var whole int
	for range 300 {
		items := indices[:1+rnd.IntN(lanes)]
		odd := rnd.IntN(2 * lanes)
		var want uint64
		for l := range items {
			k := randomScalar(rnd)
			if l == odd {
				var small [32]byte
				small[rnd.IntN(31)] = byte(rnd.Uint32())
				k, _ = new(edwards25519.Scalar).SetCanonicalBytes(small[:])
			}
			a, r := randomScalar(rnd), randomScalar(rnd)
			s := new(edwards25519.Scalar).MultiplyAdd(k, a, r)
			if rnd.IntN(3) == 0 {
				s.Add(s, randomScalar(rnd))
			} else {
				want |= 1 << l
			}
			key, nonce := new(edwards25519.Point).ScalarBaseMult(a), new(edwards25519.Point).ScalarBaseMult(r)
			for range rnd.IntN(8) {
				key.Add(key, torsion)
			}
			for range rnd.IntN(8) {
				nonce.Add(nonce, torsion)
			}
			v.k[l], v.s[l] = scalarOf(k.Bytes()), scalarOf(s.Bytes())
			v.a[0].set(l, key.Bytes())
			v.r[0].set(l, nonce.Bytes())
		}
		decode(v.temp, &v.a[0], &v.r[0])
		mask := uint64(1)<<len(items) - 1
		if got := v.sumUnknown(0, items) & mask; got != want {
			t.Fatalf("%08b neutral of %d, want %08b; k is odd in lane %d", got, len(items), want, odd)
		}
		if !v.halved(items) {
			whole++
		}
		v.own(0, &v.a[0])
		if got := v.sumWhole(0, items) & mask; got != want {
			t.Fatalf("with whole k: %08b neutral of %d, want %08b", got, len(items), want)
		}
	}
	if whole == 0 {
		t.Error("no k was too odd to halve")
	}
	t.Logf("%d batches of 300 with whole k", whole)
}
