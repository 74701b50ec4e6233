//go:build amd64 && !purego && checked

package keysum

import (
	"fmt"
	"math/big"
)

// check asserts what the package comment says of the kernel's values: after a round of n groups, with running groups
// in use whose bound is now b.
func (s *scratch) check(n, running int, b uint64) {
	for g := range running {
		s.ax[g].assertBelow(b, "x of a running sum")
		s.ay[g].assertBelow(b, "y of a running sum")
	}
	for g := range n {
		s.diff[g].assertBelow(b, "difference")
		s.prefix[g].assertBelow(2, "product")
	}
	s.inverse.assertBelow(2, "inverse")
	s.slope.assertBelow(2, "slope")
}

// assertBelow panics unless all limbs have 52 bits and the lanes' numbers are below k p.
func (e *elem) assertBelow(k uint64, what string) {
	limit := new(big.Int)
	for i := 7; i >= 0; i-- {
		limit.Lsh(limit, 52).Add(limit, new(big.Int).SetUint64(modulus[i]))
	}
	limit.Mul(limit, new(big.Int).SetUint64(k))
	for lane := range 8 {
		v := new(big.Int)
		for i := 7; i >= 0; i-- {
			if e[i][lane] > mask52 {
				panic(fmt.Sprintf("keysum: %s, lane %d: limb %d is %#x", what, lane, i, e[i][lane]))
			}
			v.Lsh(v, 52).Add(v, new(big.Int).SetUint64(e[i][lane]))
		}
		if v.Cmp(limit) >= 0 {
			panic(fmt.Sprintf("keysum: %s, lane %d: %x is not below %d p", what, lane, v, k))
		}
	}
}
