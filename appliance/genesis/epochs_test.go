package genesis

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/state/ledger"
)

// pooled is a genesis of one shard with n validators of powers 1 to n, of epochs of 20 blocks.
func pooled(t testing.TB, n int, seats uint64) *Genesis {
	g := sample(t)
	table, err := ledger.GenesisTable(1)
	g.Table = must(t, table, err)
	g.Shards = make([]Shard, 1)
	for i := range n {
		v := Validator{Name: fmt.Sprintf("v%d", i), Key: consensus.PublicKey{byte(i), 1}, Possession: consensus.Signature{1}, Power: consensus.Power(1 + i)}
		v.Node[0] = byte(i + 1)
		g.Shards[0].Validators = append(g.Shards[0].Validators, v)
	}
	g.Parameters.EpochBlocks, g.Parameters.CommitteeSize = 20, seats
	g.Accounts = Accounts{Count: 1, SHA256: consensus.Hash{1}}
	return g
}

func TestSchedule(t *testing.T) {
	g := pooled(t, 4, 0)
	for start, ends := range map[consensus.Height]consensus.Height{0: 20, 20: 40, 7: 27} {
		for h := start; h < start+60; h++ {
			if got := g.EpochEnds(start, h); got != (h == ends) {
				t.Errorf("the epoch after block %d ends with block %d: %t", start, h, got)
			}
		}
		if at, ok := g.EpochMiddle(start); !ok || at != start+10 {
			t.Errorf("the middle after block %d: %d, %t", start, at, ok)
		}
	}
	g.Parameters.EpochBlocks = 0
	if _, ok := g.EpochMiddle(0); ok || g.EpochEnds(0, 0) || g.EpochEnds(3, 3) {
		t.Error("an epoch without a length ends")
	}
}

// TestDraw: seats change hands as the rule says, by nothing but seed and block, and everybody has their turn.
func TestDraw(t *testing.T) {
	for _, tc := range []struct {
		pool        int
		seats       uint64
		size, moves int
	}{{4, 0, 4, 0}, {4, 9, 4, 0}, {5, 4, 4, 1}, {30, 24, 24, 3}, {25, 24, 24, 1}, {9, 1, 1, 1}} {
		t.Run(fmt.Sprintf("%d of %d", tc.seats, tc.pool), func(t *testing.T) {
			g := pooled(t, tc.pool, tc.seats)
			c, err := g.Committee(0)
			must(t, c, err)
			seats := map[consensus.PublicKey]int{}
			for e := range 400 {
				if len(c.Validators) != tc.size || c.Epoch != consensus.Epoch(e) || c.Shard != 0 {
					t.Fatalf("epoch %d: %d members of epoch %d", e, len(c.Validators), c.Epoch)
				}
				next, err := g.NextCommittee(c, consensus.Hash{byte(e), byte(e >> 8)})
				must(t, next, err)
				again, err := g.NextCommittee(c, consensus.Hash{byte(e), byte(e >> 8)})
				if must(t, again, err).Hash() != next.Hash() {
					t.Fatal("drawn twice, there are two committees")
				}
				if other, err := g.NextCommittee(c, consensus.Hash{1, 2, 3}); must(t, other, err).Seed == next.Seed {
					t.Fatal("another block gives the same seed")
				}
				moved := 0
				for _, v := range next.Validators {
					seats[v.Key]++
					if !slices.Contains(c.Validators, v) {
						moved++
					}
					if i := slices.IndexFunc(g.Shards[0].Validators, func(p Validator) bool { return p.Key == v.Key }); i < 0 || g.Shards[0].Validators[i].Power != v.Power {
						t.Fatalf("a member that is not of the pool, or with another power: %v", v)
					}
				}
				if moved != tc.moves {
					t.Fatalf("epoch %d: %d came in, want %d", e+1, moved, tc.moves)
				}
				c = next
			}
			if len(seats) != tc.pool {
				t.Errorf("in 400 epochs %d of %d had a seat", len(seats), tc.pool)
			}
		})
	}
}

// TestDrawFollowsPower: where one seat changes hands each time, the new one is the heavier validator's more often.
func TestDrawFollowsPower(t *testing.T) {
	g := pooled(t, 3, 1)
	g.Shards[0].Validators[1].Power, g.Shards[0].Validators[2].Power = 10, 30
	members := []bool{true, false, false}
	c, err := g.committee(0, 0, consensus.Hash{}, members)
	must(t, c, err)
	heavy := 0
	for i := range 4000 {
		next, err := g.NextCommittee(c, consensus.Hash{byte(i), byte(i >> 8)})
		if must(t, next, err).Validators[0].Power == 30 {
			heavy++
		}
	}
	if heavy < 2880 || heavy > 3120 {
		t.Errorf("of 4000 the one with three times the power came in %d times, want about 3000", heavy)
	}
	if _, err := g.NextCommittee(&consensus.Committee{Shard: 7}, consensus.Hash{}); err == nil {
		t.Error("a shard that is not there")
	}
	if _, err := g.NextCommittee(&consensus.Committee{Validators: []consensus.Validator{{Key: consensus.PublicKey{9, 9}}}}, consensus.Hash{}); err == nil {
		t.Error("a member that is not of the pool")
	}
}

// TestEpochParameters: what a genesis says of epochs is in its hash, and nothing of it changes where they never end.
func TestEpochParameters(t *testing.T) {
	g := pooled(t, 5, 4)
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(g.Append(nil))
	if diff := cmp.Diff(g, must(t, decoded, err)); diff != "" {
		t.Errorf("binary: %s", diff)
	}
	parsed, err := Parse(g.JSON())
	if must(t, parsed, err).Hash() != g.Hash() {
		t.Error("JSON: another hash")
	}
	for cut := range 16 {
		if _, err := Decode(g.Append(nil)[:len(g.Append(nil))-16+cut]); (err == nil) != (cut == 0) && !strings.Contains(fmt.Sprint(err), "malformed") {
			t.Errorf("cut %d: %v", cut, err)
		}
	}
	if _, err := Decode(append(without(g).Append(nil), make([]byte, 16)...)); err == nil {
		t.Error("a second encoding of a genesis without epochs")
	}
	seen := map[consensus.Hash]bool{g.Hash(): true, without(g).Hash(): true}
	for _, change := range []func(*Parameters){func(p *Parameters) { p.EpochBlocks++ }, func(p *Parameters) { p.CommitteeSize++ }} {
		other := *g
		change(&other.Parameters)
		if seen[other.Hash()] {
			t.Error("a parameter of epochs is not in the hash")
		}
		seen[other.Hash()] = true
	}
	for name, change := range map[string]func(*Genesis){
		"parameters.epoch_blocks: is 9":               func(g *Genesis) { g.Parameters.EpochBlocks = 9 },
		"and no epoch ends":                           func(g *Genesis) { g.Parameters.EpochBlocks = 0 },
		"committee_size: is 1025":                     func(g *Genesis) { g.Parameters.CommitteeSize = 1025 },
		"parameters.epoch_blocks: is 308962767405056": func(g *Genesis) { g.Parameters.EpochBlocks = 281 << 40 },
	} {
		other := *g
		other.Shards = slices.Clone(g.Shards)
		if change(&other); other.Validate() == nil || !strings.Contains(other.Validate().Error(), name) {
			t.Errorf("%s: %v", name, other.Validate())
		}
	}
	var out bytes.Buffer
	c, err := g.Committee(0)
	for range 4 {
		fmt.Fprintf(&out, "committee %s\n", hex.EncodeToString(must(t, c, err).Append(nil)))
		c, err = g.NextCommittee(c, consensus.Hash{7})
	}
	fmt.Fprintf(&out, "hash %s\n", g.Hash())
	if *update {
		if err := os.WriteFile("testdata/epochs.txt", out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/epochs.txt")
	if diff := cmp.Diff(string(must(t, want, err)), out.String()); diff != "" {
		t.Errorf("epochs.txt changed (-golden +now): %s", diff)
	}
}

// without is a genesis whose first epoch never ends.
func without(g *Genesis) *Genesis {
	other := *g
	other.Parameters.EpochBlocks, other.Parameters.CommitteeSize = 0, 0
	return &other
}
