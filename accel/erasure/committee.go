package erasure

import (
	"fmt"
	"math/bits"
)

// Committee is the code of a committee: which shards are whose. Members are numbered as their powers were given.
type Committee struct {
	*Code
	first []int // member i has shards first[i] to first[i+1]-1
}

// Expansion that ForCommittee is content with, as a fraction: n at most 17/5 of k.
const enoughN, enoughK = 17, 5

// ForCommittee chooses the code of a committee with the given powers (each at least 1, together at most MaxPower): the
// one with the fewest shards whose expansion n/k is at most 3.4, or else, among all it looks at, the one with the
// least expansion. Equal powers get equal numbers of shards; a member with next to no power may get none.
//
// A choice is made for each of a fixed series of totals t from 64 up, six per cent apart: member i gets
// power[i]*t/total shards, rounded to the nearest (a half up), and k is the least number of shards that any members
// with strictly more than a third of the power hold together. That least number is found exactly (a knapsack over all
// members), so rounding can cost expansion but never the guarantee. The same powers give the same code everywhere. It
// takes up to a tenth of a second, for a thousand members of unlike power.
//
// Some total always gives a code: at t of about 3,500, n is at most t and half a shard for each of MaxMembers, so below
// MaxShards, and whoever gets no shard has less than 1/7,000 of the power, all of them less than a sixth.
func ForCommittee(powers []uint64) (*Committee, error) {
	total, err := sum(powers)
	if err != nil {
		return nil, err
	}
	var best []int
	bestK, bestN := 0, 1
	for t := uint64(64); t <= MaxShards; t += t / 16 {
		shares, n := apportion(powers, total, t)
		if n < 2 || n > MaxShards {
			continue
		}
		k := min(threshold(powers, total, shares, n), n-1)
		if k*bestN > bestK*n { // a smaller expansion than the best so far
			best, bestK, bestN = shares, k, n
		}
		if enoughK*bestN <= enoughN*bestK {
			break
		}
	}
	code, err := New(bestK, bestN)
	if err != nil {
		return nil, err
	}
	c := &Committee{Code: code, first: make([]int, len(powers)+1)}
	for i, s := range best {
		c.first[i+1] = c.first[i] + s
	}
	return c, nil
}

// Members is the size of the committee.
func (c *Committee) Members() int { return len(c.first) - 1 }

// Shards are member i's: first to end-1, possibly none. It panics if there is no member i.
func (c *Committee) Shards(i int) (first, end int) { return c.first[i], c.first[i+1] }

// Owner is whose shard i is. It panics if there is no shard i.
func (c *Committee) Owner(i int) int {
	if i < 0 || i >= c.n {
		panic(fmt.Sprintf("erasure: shard %d of %d", i, c.n))
	}
	lo, hi := 0, c.Members() // the owner is in [lo, hi)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; c.first[mid] <= i {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

func sum(powers []uint64) (total uint64, err error) {
	if len(powers) < 1 || len(powers) > MaxMembers {
		return 0, fmt.Errorf("erasure: %w: %d members, need 1 to %d", ErrPowers, len(powers), MaxMembers)
	}
	for i, p := range powers {
		if p < 1 || p > MaxPower {
			return 0, fmt.Errorf("erasure: %w: member %d has %d, need 1 to %d", ErrPowers, i, p, uint64(MaxPower))
		}
		if total += p; total > MaxPower {
			return 0, fmt.Errorf("erasure: %w: more than %d together", ErrPowers, uint64(MaxPower))
		}
	}
	return total, nil
}

// apportion gives each member its part of t shards, to the nearest, and says how many that makes together.
func apportion(powers []uint64, total, t uint64) (shares []int, n int) {
	shares = make([]int, len(powers))
	for i, p := range powers {
		hi, lo := bits.Mul64(2*p, t) // floor((2*p*t + total) / (2*total))
		lo, carry := bits.Add64(lo, total, 0)
		q, _ := bits.Div64(hi+carry, lo, 2*total)
		shares[i] = int(q)
		n += shares[i]
	}
	return shares, n
}

// threshold is the least number of shards that members with strictly more than a third of the power can hold.
func threshold(powers []uint64, total uint64, shares []int, n int) int {
	most := make([]uint64, n+1) // most[j] is the greatest power that members with j shards or fewer can have
	for i, s := range shares {
		for j := n; j >= s; j-- {
			most[j] = max(most[j], most[j-s]+powers[i])
		}
	}
	for j, p := range most {
		if 3*p > total {
			return j
		}
	}
	return n // not reached: all members together have all the power
}
