package erasure

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawPowers makes powers of one of the shapes that stake takes, and some that it should not.
func drawPowers(rng *rand.Rand, members int) []uint64 {
	powers := make([]uint64, members)
	shape := rng.IntN(7)
	for i := range powers {
		switch shape {
		case 0:
			powers[i] = 7
		case 1:
			powers[i] = 1 + rng.Uint64N(1000)
		case 2: // heavy tail
			powers[i] = 1 + uint64(100*math.Pow(1-rng.Float64(), -1.2))%(1<<40)
		case 3: // falls off quickly
			powers[i] = 1 + 1<<40>>min(i, 40)
		case 4: // one whale
			powers[i] = 1 + rng.Uint64N(2)
			if i == members/2 {
				powers[i] = uint64(members) * (1 + rng.Uint64N(5)) / 2
			}
		case 5: // as much as there may be
			powers[i] = MaxPower / uint64(members)
		case 6: // nearly equal
			powers[i] = 1_000_000 + rng.Uint64N(1000)
		}
		powers[i] = max(powers[i], 1)
	}
	return powers
}

// weakest looks for members with more than a third of the power and few shards: by greed, from a random start.
func weakest(rng *rand.Rand, c *Committee, powers []uint64) (shards int) {
	var total, power uint64
	for _, p := range powers {
		total += p
	}
	order := rng.Perm(len(powers))
	if rng.IntN(2) == 0 { // those with most power for a shard first
		slices.SortStableFunc(order, func(a, b int) int {
			af, ae := c.Shards(a)
			bf, be := c.Shards(b)
			ra, rb := float64(ae-af)/float64(powers[a]), float64(be-bf)/float64(powers[b])
			switch {
			case ra < rb:
				return -1
			case ra > rb:
				return 1
			}
			return 0
		})
	}
	var in []int
	for _, i := range order {
		if 3*power > total {
			break
		}
		in = append(in, i)
		power += powers[i]
	}
	for _, i := range in { // and who is not needed goes
		if 3*(power-powers[i]) > total {
			power -= powers[i]
			continue
		}
		first, end := c.Shards(i)
		shards += end - first
	}
	return shards
}

// TestAboveAThirdHoldsK: for many powers, members with more than a third hold at least k shards, and every shard has
// its owner.
func TestAboveAThirdHoldsK(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		powers := drawPowers(rng, rapid.OneOf(rapid.IntRange(1, 12), rapid.IntRange(1, 120)).Draw(t, "members"))
		c, err := ForCommittee(powers)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for i := range powers {
			first, end := c.Shards(i)
			if first != at || end < first {
				t.Fatalf("member %d has shards %d to %d, want from %d", i, first, end, at)
			}
			for ; at < end; at++ {
				if c.Owner(at) != i {
					t.Fatalf("shard %d is %d's, not %d's", at, c.Owner(at), i)
				}
			}
			for j := range i {
				jf, je := c.Shards(j)
				if (powers[i] <= powers[j] && end-first > je-jf) || (powers[i] == powers[j] && end-first != je-jf) {
					t.Fatalf("powers %d and %d have %d and %d shards", powers[i], powers[j], end-first, je-jf)
				}
			}
		}
		if at != c.N() || c.Members() != len(powers) {
			t.Fatalf("%d shards of %d have an owner", at, c.N())
		}
		for range 50 {
			if got := weakest(rng, c, powers); got < c.K() {
				t.Fatalf("%d shards above a third of the power, k is %d", got, c.K())
			}
		}
		if c.N() > 4*c.K() {
			t.Fatalf("expansion of %d / %d", c.N(), c.K())
		}
	})
}

// TestThresholdIsExact compares the knapsack with all subsets of small committees.
func TestThresholdIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		powers := drawPowers(rng, rapid.IntRange(1, 10).Draw(t, "members"))
		total, err := sum(powers)
		if err != nil {
			t.Fatal(err)
		}
		shares, n := apportion(powers, total, rapid.Uint64Range(1, 200).Draw(t, "shards"))
		least := n
		for set := range 1 << len(powers) {
			var power uint64
			held := 0
			for i, p := range powers {
				if set>>i&1 == 1 {
					power += p
					held += shares[i]
				}
			}
			if 3*power > total {
				least = min(least, held)
			}
		}
		if got := threshold(powers, total, shares, n); got != least {
			t.Fatalf("threshold %d, the weakest set holds %d", got, least)
		}
	})
}

// TestMembersRebuild lets members with just more than a third of the power rebuild a body from their shards alone.
func TestMembersRebuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		powers := drawPowers(rng, rapid.IntRange(1, 40).Draw(t, "members"))
		c, err := ForCommittee(powers)
		if err != nil {
			t.Fatal(err)
		}
		total, _ := sum(powers)
		s, err := c.Encode(random(rng, 1+rng.IntN(20_000)))
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.NewAssembly(s.Commitment(), s.Length())
		if err != nil {
			t.Fatal(err)
		}
		var power uint64
		for _, m := range rng.Perm(len(powers)) {
			if 3*power > total {
				break
			}
			power += powers[m]
			for i, end := c.Shards(m); i < end; i++ {
				if err := a.Add(i, s.Shard(i), s.Path(i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if again, err := a.Rebuild(); err != nil || !bytes.Equal(again.Body(), s.Body()) {
			t.Fatalf("%d of %d power do not rebuild: %v", power, total, err)
		}
	})
}

// TestLargeCommittees prints the codes of the largest committees; run with -v to read them.
func TestLargeCommittees(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	worst := 0.0
	for range 40 {
		powers := drawPowers(rng, 400)
		c, err := ForCommittee(powers)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if got := weakest(rng, c, powers); got < c.K() {
				t.Fatalf("%d shards above a third of the power, k is %d", got, c.K())
			}
		}
		worst = max(worst, float64(c.N())/float64(c.K()))
		t.Logf("%d of %d, expansion %.2f", c.K(), c.N(), float64(c.N())/float64(c.K()))
	}
	if worst > 3.4 {
		t.Errorf("expansion up to %.2f", worst)
	}
}

func TestCommitteesGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# members powers k n code SHA-256(first shard of each member, in decimal, each with a space). Rewritten by go test ./accel/erasure -update")
	ramp := func(n int) []uint64 {
		p := make([]uint64, n)
		for i := range p {
			p[i] = uint64(i + 1)
		}
		return p
	}
	equal := func(n int) []uint64 { return slices.Repeat([]uint64{5}, n) }
	for _, tc := range []struct {
		name   string
		powers []uint64
	}{
		{"equal", equal(1)},
		{"equal", equal(2)},
		{"equal", equal(3)},
		{"equal", equal(4)},
		{"equal", equal(7)},
		{"equal", equal(16)},
		{"equal", equal(48)},
		{"equal", equal(64)},
		{"equal", equal(100)},
		{"equal", equal(128)},
		{"equal", equal(400)},
		{"equal", equal(1024)},
		{"ramp", ramp(4)},
		{"ramp", ramp(7)},
		{"ramp", ramp(64)},
		{"ramp", ramp(128)},
		{"ramp", ramp(400)},
		{"1,1,1,1000", []uint64{1, 1, 1, 1000}},
		{"8,1,1,1,1", []uint64{8, 1, 1, 1, 1}},
		{"1<<59,1<<58,3", []uint64{1 << 59, 1 << 58, 3}},
	} {
		c, err := ForCommittee(tc.powers)
		if err != nil {
			t.Fatal(err)
		}
		var firsts []byte
		for i := range tc.powers {
			first, _ := c.Shards(i)
			firsts = fmt.Appendf(firsts, "%d ", first)
		}
		fmt.Fprintf(&out, "%d %s %d %d %s %x\n", len(tc.powers), tc.name, c.K(), c.N(), c.Field(), sha256.Sum256(firsts))
	}
	golden(t, "committees.golden", out.Bytes())
}

func TestBadPowers(t *testing.T) {
	for name, powers := range map[string][]uint64{
		"none": {}, "zero": {1, 0}, "too much": {MaxPower + 1}, "too much together": {MaxPower, 1},
		"overflow": {math.MaxUint64, math.MaxUint64}, "too many": make([]uint64, MaxMembers+1),
	} {
		if _, err := ForCommittee(powers); !errors.Is(err, ErrPowers) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOwnerPanics(t *testing.T) {
	c, err := ForCommittee([]uint64{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{-1, c.N()} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("owner of shard %d: no panic", i)
				}
			}()
			c.Owner(i)
		}()
	}
}
