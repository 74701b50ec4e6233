package shred_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/accel/erasure"
	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/shred/shredtest"
	"tutti/consensus/sim/simtest"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

// proposal is a body cut up for a committee, with header and leader's vote.
type proposal struct {
	c    *consensus.Committee
	h    *consensus.Header
	vote consensus.Vote
	set  *shred.Set
}

func propose(tb testing.TB, c *consensus.Committee, body []byte) proposal {
	tb.Helper()
	set, err := shred.Cut(c, body)
	if err != nil {
		tb.Fatal(err)
	}
	h := simtest.Child(c, simtest.Genesis(c), 5, nil).Header
	h.Body = set.Ref()
	return proposal{c, h, leaderVote(c, h), set}
}

func leaderVote(c *consensus.Committee, h *consensus.Header) consensus.Vote {
	st := consensus.Statement{Kind: consensus.Notarize, Shard: h.Shard, Epoch: h.Epoch, View: h.View, Block: h.Hash()}
	i := c.Leader(h.View)
	return consensus.Vote{
		Statement: st, Validator: uint16(i),
		Signature: simtest.NewKeys(len(c.Validators)).Signer(i).Sign(consensus.VoteMessage(simtest.Chain, st)),
	}
}

func (p proposal) part(i int) *shred.Part { return p.set.Part(i, p.h, p.vote) }

func random(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

var (
	four    = simtest.Committee(1, 1, 1, 1, 1)
	unequal = simtest.Committee(1, 9, 3, 5, 1, 4, 2, 7)
	tiny    = simtest.Committee(1, 1_000_000, 1_000_000, 1_000_000, 1_000_000, 1) // the last one has no shards
)

// samples are parts of all kinds.
func samples(tb testing.TB) map[string]*shred.Part {
	links := propose(tb, four, random(100, 1))
	for i := range 3 {
		links.h.Links = append(links.h.Links, consensus.Link{Shard: consensus.ShardID(i), Sent: 7})
	}
	links.vote = leaderVote(four, links.h)
	return map[string]*shred.Part{
		"four":      propose(tb, four, random(5000, 1)).part(2),
		"unequal":   propose(tb, unequal, random(5000, 2)).part(3),
		"no shards": propose(tb, tiny, random(100, 3)).part(4),
		"links":     links.part(0),
		"one byte":  propose(tb, four, []byte{7}).part(1),
	}
}

// TestGolden pins the encoding of a part.
func TestGolden(t *testing.T) {
	all := samples(t)
	var got strings.Builder
	for _, name := range []string{"no shards", "one byte"} {
		fmt.Fprintf(&got, "%s = %s\n", name, hex.EncodeToString(all[name].Append(nil)))
	}
	const path = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("encodings changed (rewrite with -update only on purpose):\n%s", d)
	}
}

func TestRoundTrip(t *testing.T) {
	for name, want := range samples(t) {
		t.Run(name, func(t *testing.T) {
			enc := want.Append([]byte("prefix"))[6:]
			if want.Size() < len(enc) {
				t.Errorf("%d bytes, Size says %d", len(enc), want.Size())
			}
			got, err := shred.DecodePart(enc)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("decoded differs:\n%s", d)
			}
			if d := cmp.Diff(want, got.Clone()); d != "" {
				t.Errorf("the clone differs:\n%s", d)
			}
			for cut := range len(enc) {
				if _, err := shred.DecodePart(enc[:cut]); !errors.Is(err, shred.ErrEncoding) {
					t.Fatalf("cut to %d of %d bytes: %v", cut, len(enc), err)
				}
			}
			if _, err := shred.DecodePart(append(bytes.Clone(enc), 0)); !errors.Is(err, shred.ErrEncoding) {
				t.Errorf("trailing byte: %v", err)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := propose(t, four, random(100, 1))
	whole.h.Body = consensus.NewBodyRef(random(100, 1))
	whole.vote = leaderVote(four, whole.h)
	other, finalize := propose(t, four, random(100, 1)), propose(t, four, random(100, 1))
	other.vote.View++
	finalize.vote.Kind = consensus.Finalize
	more := propose(t, four, random(100, 1)).part(1)
	for range 17 { // 33 shards, and 32 are enough
		more.Shards, more.Paths = append(more.Shards, more.Shards[0]), append(more.Paths, more.Paths[0])
	}
	nobody := propose(t, four, random(100, 1)).part(1)
	nobody.Validator = consensus.MaxCommittee
	for name, b := range map[string][]byte{
		"a whole body":              whole.part(1).Append(nil),
		"the vote of another view":  other.part(1).Append(nil),
		"a finalize":                finalize.part(1).Append(nil),
		"more than enough":          more.Append(nil),
		"validator above the limit": nobody.Append(nil),
		"too long":                  make([]byte, shred.MaxPartBytes+1),
	} {
		if _, err := shred.DecodePart(b); !errors.Is(err, shred.ErrEncoding) || !errors.Is(err, consensus.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPart: an error, or a part that encodes to exactly the input and that Check judges without a crash.
func FuzzPart(f *testing.F) {
	for _, p := range samples(f) {
		f.Add(p.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := shred.DecodePart(b)
		if err != nil {
			if !errors.Is(err, shred.ErrEncoding) || p != nil {
				t.Fatalf("error is not ErrEncoding, or comes with a value: %v", err)
			}
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatal("decodes but encodes differently")
		}
		for _, c := range []*consensus.Committee{four, unequal} {
			if err := shred.Check(c, p); err != nil && !errors.Is(err, shred.ErrPart) {
				t.Fatal(err)
			}
		}
	})
}

// TestCheck: a part is its validator's, whole, and under the root.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name  string
		good  bool
		spoil func(p *shred.Part)
	}{
		{"nothing wrong", true, func(*shred.Part) {}},
		{"another byte", false, func(p *shred.Part) { p.Shards[3][5]++ }},
		{"another path", false, func(p *shred.Part) { p.Paths[3] = p.Paths[4] }},
		{"another's", false, func(p *shred.Part) { p.Validator++ }},
		{"a shard less", false, func(p *shred.Part) { p.Shards, p.Paths = p.Shards[1:], p.Paths[1:] }},
		{"a shard more", false, func(p *shred.Part) { p.Shards, p.Paths = append(p.Shards, p.Shards[0]), append(p.Paths, p.Paths[0]) }},
		{"no shards", false, func(p *shred.Part) { p.Shards, p.Paths = nil, nil }},
		{"paths less", false, func(p *shred.Part) { p.Paths = p.Paths[1:] }},
		{"shards swapped", false, func(p *shred.Part) { p.Shards[0], p.Shards[1] = p.Shards[1], p.Shards[0] }},
		{"no such validator", false, func(p *shred.Part) { p.Validator = 7 }},
		{"another root", false, func(p *shred.Part) { h := *p.Header; h.Body.Root[0]++; p.Header = &h }},
		{"another length", false, func(p *shred.Part) { h := *p.Header; h.Body.Length++; p.Header = &h }},
		{"another code", false, func(p *shred.Part) { h := *p.Header; h.Body.N++; p.Header = &h }},
		{"whole", false, func(p *shred.Part) { h := *p.Header; h.Body = consensus.NewBodyRef(nil); p.Header = &h }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			whole := propose(t, unequal, random(5000, 2))
			p := whole.part(0).Clone()
			p.Paths = append([][][32]byte(nil), p.Paths...)
			tc.spoil(p)
			if err := shred.Check(unequal, p); (err == nil) != tc.good || (err != nil && !errors.Is(err, shred.ErrPart)) {
				t.Errorf("Check: %v", err)
			}
			a, err := shred.NewAssembly(unequal, whole.h.Body)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Add(p); (err == nil) != tc.good || (a.Count() > 0) != tc.good {
				t.Errorf("Add: %v, %d shards kept", err, a.Count())
			}
		})
	}
}

// weights are committees of all sizes, some with validators that have next to no power.
func weights(t *rapid.T) *consensus.Committee {
	powers := rapid.SliceOfN(rapid.Uint64Range(1, 1000), 1, 12).Draw(t, "powers")
	if rapid.Bool().Draw(t, "equal") {
		for i := range powers {
			powers[i] = 1
		}
	}
	var p []consensus.Power
	for _, x := range powers {
		p = append(p, consensus.Power(x))
	}
	return simtest.Committee(1, p...)
}

// TestAnyThird: the parts of any validators with more than a third of the power rebuild the body, in any order.
func TestAnyThird(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := weights(t)
		body := random(rapid.IntRange(1, 20_000).Draw(t, "length"), 1)
		set, err := shred.Cut(c, body)
		if err != nil {
			t.Fatal(err)
		}
		h := simtest.Child(c, simtest.Genesis(c), 5, nil).Header
		h.Body = set.Ref()
		a, err := shred.NewAssembly(c, h.Body)
		if err != nil {
			t.Fatal(err)
		}
		var power consensus.Power
		for _, i := range rapid.Permutation(indexes(len(c.Validators))).Draw(t, "order") {
			if 3*power > c.Total() {
				break
			}
			p := set.Part(i, h, consensus.Vote{})
			if err := shred.Check(c, p); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second is of no use, and no harm
				if err := a.Add(p); err != nil {
					t.Fatal(err)
				}
			}
			power += c.Validators[i].Power
		}
		if !a.Ready() {
			t.Fatalf("%d shards of %d with %d of the power of %d", a.Count(), c.Code().K(), power, c.Total())
		}
		for i := range c.Validators {
			if a.Wants(i) {
				t.Fatalf("wants %d's, with enough", i)
			}
		}
		got, err := a.Rebuild()
		if err != nil || !bytes.Equal(got.Body(), body) || got.Ref() != set.Ref() {
			t.Fatalf("rebuilt something else: %v", err)
		}
		if !h.Body.Matches(got.Body()) {
			t.Fatal("the body does not match")
		}
	})
}

func indexes(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// TestBadEncoding: whatever parts are there, the verdict on a root that is no body's is the same.
func TestBadEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := weights(t)
		bad := shredtest.Spoil(c, random(rapid.IntRange(1, 5000).Draw(t, "length"), 1), rapid.IntRange(0, c.Code().N()-1).Draw(t, "shard"))
		h := simtest.Child(c, simtest.Genesis(c), 5, nil).Header
		h.Body = bad.Ref
		a, err := shred.NewAssembly(c, h.Body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Rebuild(); !errors.Is(err, erasure.ErrTooFew) {
			t.Fatalf("rebuilt from nothing: %v", err)
		}
		for _, i := range rapid.Permutation(indexes(len(c.Validators))).Draw(t, "order") {
			if err := a.Add(bad.Part(i, h, consensus.Vote{})); err != nil {
				t.Fatal(err) // each shard is under the root
			}
		}
		for range 2 {
			if _, err := a.Rebuild(); !errors.Is(err, shred.ErrMalformed) {
				t.Fatalf("%v, want ErrMalformed", err)
			}
		}
	})
}

// TestLimits: the longest part fits, and what is too long is refused.
func TestLimits(t *testing.T) {
	half := simtest.Committee(1, 1, 1)
	p := propose(t, half, make([]byte, consensus.MaxBodyBytes))
	p.h.Links = make([]consensus.Link, consensus.MaxShards)
	for i := range p.h.Links {
		p.h.Links[i].Shard = consensus.ShardID(i)
	}
	p.vote = leaderVote(half, p.h)
	enc := p.part(0).Append(nil)
	if len(enc) > shred.MaxPartBytes {
		t.Errorf("%d bytes, MaxPartBytes is %d", len(enc), shred.MaxPartBytes)
	}
	if _, err := shred.DecodePart(enc); err != nil {
		t.Error(err)
	}
	for name, body := range map[string][]byte{"none": nil, "too long": make([]byte, consensus.MaxBodyBytes+1)} {
		if _, err := shred.Cut(half, body); !errors.Is(err, erasure.ErrLength) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := shred.NewAssembly(half, consensus.NewBodyRef(nil)); err == nil {
		t.Error("an assembly of a body that travels whole")
	}
}

// BenchmarkRebuild is what a validator pays for a body: all of it from parts, without the checks as they come.
func BenchmarkRebuild(b *testing.B) {
	for _, n := range []int{4, 7, 100} {
		var powers []consensus.Power
		for range n {
			powers = append(powers, 1)
		}
		c := simtest.Committee(1, powers...)
		for _, length := range []int{5 << 10, 100 << 10, 1 << 20, 8 << 20} {
			p := propose(b, c, random(length, 1))
			a, err := shred.NewAssembly(c, p.h.Body)
			if err != nil {
				b.Fatal(err)
			}
			for i := n - 1; i >= 0; i-- { // the last ones: parity
				if err := a.Add(p.part(i)); err != nil {
					b.Fatal(err)
				}
			}
			b.Run(fmt.Sprintf("n=%d/%d", n, length), func(b *testing.B) {
				b.SetBytes(int64(length))
				for b.Loop() {
					if _, err := a.Rebuild(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
