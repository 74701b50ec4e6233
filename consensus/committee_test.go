package consensus_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"tutti/consensus"
)

func TestNewCommitteeRefuses(t *testing.T) {
	v := func(key byte, p consensus.Power) consensus.Validator {
		return consensus.Validator{Key: consensus.PublicKey{key}, Power: p}
	}
	tooMany := make([]consensus.Validator, consensus.MaxCommittee+1)
	for i := range tooMany {
		tooMany[i] = consensus.Validator{Key: consensus.PublicKey{byte(i), byte(i >> 8)}, Power: 1}
	}
	for _, tc := range []struct {
		name string
		vs   []consensus.Validator
	}{
		{"nobody", nil},
		{"too many", tooMany},
		{"zero power", []consensus.Validator{v(1, 1), v(2, 0)}},
		{"one power over the limit", []consensus.Validator{v(1, consensus.MaxTotalPower+1)}},
		{"total over the limit", []consensus.Validator{v(1, consensus.MaxTotalPower), v(2, 1)}},
		{"power that would wrap the total", []consensus.Validator{v(1, consensus.MaxTotalPower), v(2, math.MaxUint64)}},
		{"key twice", []consensus.Validator{v(1, 1), v(1, 2)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := consensus.NewCommittee(0, 0, consensus.Hash{}, tc.vs); err == nil {
				t.Error("accepted")
			}
		})
	}
	if _, err := consensus.NewCommittee(0, 0, consensus.Hash{}, tooMany[:consensus.MaxCommittee]); err != nil {
		t.Errorf("the largest committee: %v", err)
	}
}

// TestCommitteeHash: everything in a committee is under its hash.
func TestCommitteeHash(t *testing.T) {
	build := func(change func(*consensus.ShardID, *consensus.Epoch, *consensus.Hash, []consensus.Validator)) consensus.Hash {
		shard, epoch, seed := consensus.ShardID(1), consensus.Epoch(2), consensus.Hash{3}
		vs := []consensus.Validator{{Key: consensus.PublicKey{1}, Power: 1}, {Key: consensus.PublicKey{2}, Power: 2}}
		change(&shard, &epoch, &seed, vs)
		c, err := consensus.NewCommittee(shard, epoch, seed, vs)
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash()
	}
	type (
		s  = consensus.ShardID
		e  = consensus.Epoch
		h  = consensus.Hash
		vs = []consensus.Validator
	)
	seen := map[consensus.Hash]string{}
	for name, change := range map[string]func(*s, *e, *h, vs){
		"plain":     func(*s, *e, *h, vs) {},
		"shard":     func(x *s, _ *e, _ *h, _ vs) { *x++ },
		"epoch":     func(_ *s, x *e, _ *h, _ vs) { *x++ },
		"seed":      func(_ *s, _ *e, x *h, _ vs) { x[31]++ },
		"key":       func(_ *s, _ *e, _ *h, x vs) { x[0].Key[47]++ },
		"node":      func(_ *s, _ *e, _ *h, x vs) { x[1].Node[31]++ },
		"power":     func(_ *s, _ *e, _ *h, x vs) { x[1].Power++ },
		"order":     func(_ *s, _ *e, _ *h, x vs) { x[0], x[1] = x[1], x[0] },
		"two equal": func(_ *s, _ *e, _ *h, x vs) { x[0].Power, x[1].Power = 2, 1 },
	} {
		got := build(change)
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s share a hash", name, other)
		}
		seen[got] = name
	}
}

// TestQuorum compares IsQuorum with exact arithmetic, and checks what quorums are for: any two share more than a
// third of the power.
func TestQuorum(t *testing.T) {
	for _, tc := range []struct {
		total, power consensus.Power
		want         bool
	}{
		{1, 0, false},
		{1, 1, true},
		{3, 2, false},
		{3, 3, true},
		{4, 2, false},
		{4, 3, true},
		{7, 4, false},
		{7, 5, true},
		{6, 4, false},
		{6, 5, true},
		{100, 66, false},
		{100, 67, true},
		{consensus.MaxTotalPower, consensus.MaxTotalPower, true},
		{consensus.MaxTotalPower, consensus.MaxTotalPower / 3 * 2, false},
	} {
		if got := sampleCommittee(t, tc.total).IsQuorum(tc.power); got != tc.want {
			t.Errorf("%d of %d: %v", tc.power, tc.total, got)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		total := consensus.Power(rapid.Uint64Range(1, uint64(consensus.MaxTotalPower)).Draw(rt, "total"))
		p := consensus.Power(rapid.Uint64Range(0, uint64(total)).Draw(rt, "power"))
		exact := new(big.Int).Mul(big.NewInt(int64(p)), big.NewInt(3)).Cmp(new(big.Int).Mul(big.NewInt(int64(total)), big.NewInt(2))) > 0
		if got := sampleCommittee(t, total).IsQuorum(p); got != exact {
			rt.Fatalf("IsQuorum(%d of %d) = %v", p, total, got)
		}
		if exact && 3*(2*p-total) <= total {
			rt.Fatalf("two quorums of %d in %d may share only %d", p, total, 2*p-total)
		}
	})
}

// TestLeaderProportional: in any window of views each validator leads in proportion to its power, within the
// discrepancy of the golden-ratio sequence.
func TestLeaderProportional(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		powers := rapid.SliceOfN(rapid.Uint64Range(1, 1000), 1, 40).Draw(rt, "powers")
		from := consensus.View(rapid.Uint64().Draw(rt, "from"))
		var ps []consensus.Power
		for _, p := range powers {
			ps = append(ps, consensus.Power(p))
		}
		c := sampleCommittee(t, ps...)
		const views = 2000
		led := make([]int, len(ps))
		for v := range consensus.View(views) {
			led[c.Leader(from+v)]++
		}
		for i, n := range led {
			want := float64(ps[i]) / float64(c.Total()) * views
			if math.Abs(float64(n)-want) > 6 {
				rt.Fatalf("validator %d with %d of %d led %d of %d views, want %.1f", i, ps[i], c.Total(), n, views, want)
			}
		}
	})
}

// TestLeaderNotTwice: a validator with less than 38 % of the power is never asked twice in a row, so a silent one
// costs a single view.
func TestLeaderNotTwice(t *testing.T) {
	c := sampleCommittee(t, 1, 1, 1, 1, 1, 1, 1)
	for v := range consensus.View(10_000) {
		if c.Leader(v) == c.Leader(v+1) {
			t.Fatalf("validator %d leads views %d and %d", c.Leader(v), v, v+1)
		}
	}
}

// stubKeys accepts the aggregate whose first byte says so; the aggregate check itself is tested in keys_test.go.
type stubKeys struct{}

func (stubKeys) Verify(int, []byte, consensus.Signature) bool { return false }
func (stubKeys) VerifyAggregate(_ consensus.Signers, _ []byte, sig consensus.Signature) bool {
	return sig[0] == 1
}

func (stubKeys) Aggregate([]consensus.Signature) (consensus.Signature, error) {
	return consensus.Signature{}, nil
}

func TestVerifyCertificate(t *testing.T) {
	c := sampleCommittee(t, 5, 1, 1, 2, 3, 8, 1, 1, 1) // total 23: a quorum is 16
	set := func(is ...int) consensus.Signers {
		s := consensus.NewSigners(9)
		for _, i := range is {
			s.Add(i)
		}
		return s
	}
	good := func() *consensus.Certificate {
		cert := sampleCertificate(consensus.Notarize)
		cert.Signers, cert.Signature[0] = set(0, 4, 5), 1
		return cert
	}
	for _, tc := range []struct {
		name   string
		change func(*consensus.Certificate)
		want   error
	}{
		{"good", func(*consensus.Certificate) {}, nil},
		{"other shard", func(c *consensus.Certificate) { c.Shard++ }, consensus.ErrWrongCommittee},
		{"other epoch", func(c *consensus.Certificate) { c.Epoch++ }, consensus.ErrWrongCommittee},
		{"power of 15", func(c *consensus.Certificate) { c.Signers = set(0, 3, 5) }, consensus.ErrNoQuorum},
		{"nobody", func(c *consensus.Certificate) { c.Signers = set() }, consensus.ErrNoQuorum},
		{"short bitmap", func(c *consensus.Certificate) { c.Signers = c.Signers[:1] }, consensus.ErrMalformed},
		{"long bitmap", func(c *consensus.Certificate) { c.Signers = append(c.Signers, 0) }, consensus.ErrMalformed},
		{"padding bit set", func(c *consensus.Certificate) { c.Signers[1] |= 2 }, consensus.ErrMalformed},
		{"bad signature", func(c *consensus.Certificate) { c.Signature[0] = 2 }, consensus.ErrBadSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert := good()
			tc.change(cert)
			if err := c.VerifyCertificate(consensus.Hash{}, stubKeys{}, cert); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestSigners(t *testing.T) {
	s := consensus.NewSigners(9)
	for _, i := range []int{0, 7, 8} {
		s.Add(i)
	}
	s.Add(7)
	if s.Count() != 3 || !s.Has(0) || s.Has(1) || !s.Has(7) || !s.Has(8) || s.Has(9) || s.Has(1000) {
		t.Errorf("set %08b", s)
	}
}
