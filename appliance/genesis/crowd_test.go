package genesis

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// TestPopulation checks for many shapes that ids ascend, leave no gap, are as even as openings would make them, and
// are where CrowdIDs and NamedID say.
func TestPopulation(t *testing.T) {
	for _, c := range []struct {
		shards uint16
		crowd  uint64
		named  int
	}{{1, 0, 1}, {1, 1, 0}, {1, 256, 3}, {1, 1000, 2}, {2, 999, 5}, {3, 2000, 300}, {7, 5, 1}, {256, 700, 1}} {
		table, err := ledger.GenesisTable(c.shards)
		if err != nil {
			t.Fatal(err)
		}
		p := &Population{Table: table, Crowd: Crowd{Count: c.crowd, Balance: 1}, Named: make([][]Account, c.shards)}
		for s := range p.Named {
			for k := range c.named {
				p.Named[s] = append(p.Named[s], Account{ID: 99, Key: [32]byte{byte(s), byte(k), 1}, Balance: 2})
			}
		}
		all := slices.Collect(p.All())
		byID := map[tx.ID]Account{}
		for i, a := range all {
			byID[a.ID] = a
			if i > 0 && a.ID <= all[i-1].ID {
				t.Fatalf("%+v: %s after %s", c, a.ID, all[i-1].ID)
			}
		}
		if want := c.crowd + uint64(c.shards)*uint64(c.named); uint64(len(all)) != want || uint64(len(byID)) != want {
			t.Fatalf("%+v: %d accounts, want %d", c, len(all), want)
		}
		for i, id := range p.CrowdIDs() {
			if a := byID[id]; a.Key != p.Crowd.Key(uint64(i)).Public() || a.Balance != 1 {
				t.Fatalf("%+v: member %d is not at %s", c, i, id)
			}
			if shard, _ := table.ShardOf(id.Partition()); uint64(shard) != uint64(i)%uint64(c.shards) {
				t.Fatalf("%+v: member %d is on shard %d", c, i, shard)
			}
		}
		for s := range p.Named {
			for k, want := range p.Named[s] {
				if a := byID[p.NamedID(consensus.ShardID(s), k)]; a.Key != want.Key || a.Balance != 2 {
					t.Fatalf("%+v: account %d of shard %d is elsewhere", c, k, s)
				}
			}
			params := ledger.Params{Table: table, Shard: uint16(s)}
			on := p.crowdOn(consensus.ShardID(s)) + uint64(c.named)
			for n := range on {
				if _, ok := byID[params.GenesisID(n)]; !ok {
					t.Fatalf("%+v: nothing at the ledger's %d-th id of shard %d", c, n, s)
				}
			}
		}
		for range p.All() { // stops early
			break
		}
	}
}

func TestAccountsOf(t *testing.T) {
	v, _ := created(t)
	want := slices.Collect(people(t, sample(t)).All())
	var got []Account
	for shard := range consensus.ShardID(2) {
		before := len(got)
		var units uint64
		for range 2 { // it may be read more than once
			got, units = got[:before], 0
			if err := v.AccountsOf(shard, func(a Account) bool {
				got = append(got, a)
				units += a.Balance
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		if n := uint64(len(got) - before); n != v.Counts[shard] || units != v.Supplies[shard] {
			t.Errorf("shard %d: %d accounts with %d, Verify says %d with %d", shard, n, units, v.Counts[shard], v.Supplies[shard])
		}
	}
	if !slices.EqualFunc(want, got, func(a, b Account) bool {
		return a.ID == b.ID && a.Key == b.Key && a.Balance == b.Balance && (a.BLS == nil) == (b.BLS == nil) && (a.BLS == nil || *a.BLS == *b.BLS)
	}) {
		t.Error("the accounts read are not the accounts written")
	}
	n := 0
	if err := v.AccountsOf(1, func(Account) bool { n++; return n < 5 }); err != nil || n != 5 {
		t.Errorf("stopped after %d: %v", n, err)
	}
}

func BenchmarkCrowd(b *testing.B) {
	const count = 10_000
	g := sample(b)
	p := &Population{Table: g.Table, Crowd: Crowd{Count: count, Balance: 1000}}
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			if _, err := Create(b.TempDir(), g, p.All()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/account")
	})
	b.Run("verify", func(b *testing.B) {
		dir := b.TempDir()
		if _, err := Create(dir, g, p.All()); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := Verify(dir + "/" + FileName); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/account")
	})
}

// crowded is sample with a test crowd, whose members have BLS keys.
func crowded(t testing.TB) (*Genesis, *Population) {
	g := sample(t)
	p := people(t, g)
	p.BLS = true
	g.TestCrowd = &p.Crowd
	return g, p
}

// TestTestCrowd: members' keys are those of the seed, with their other coordinates; Verify derives them again, Open does not.
func TestTestCrowd(t *testing.T) {
	g, p := crowded(t)
	dir := t.TempDir()
	v, err := Create(dir, g, p.All())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, FileName)
	for _, read := range []func(string) (*Verified, error){Verify, Open} {
		got, err := read(path)
		if err != nil || got.Hash() != v.Hash() || *got.TestCrowd != p.Crowd {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	ids := p.CrowdIDs()
	member := make(map[tx.ID]uint64, len(ids))
	for i, id := range ids {
		member[id] = uint64(i)
		if m, ok := memberOf(g.Table, 2, id); !ok || m != uint64(i) {
			t.Fatalf("%s is member %d, not %d", id, m, i)
		}
	}
	seen := 0
	for shard := range consensus.ShardID(2) {
		if err := v.AccountsOf(shard, func(a Account) bool {
			i, ok := member[a.ID]
			if !ok {
				return true
			}
			seen++
			k, err := bls.ParseChecked(a.BLS.Key, a.BLS.Ordinate)
			if err != nil || !a.BLS.Made || i%50 == 0 && k.Bytes() != p.Crowd.BLSKey(i).Public() {
				t.Errorf("member %d: %+v, %v", i, a.BLS, err)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if seen != len(ids) {
		t.Errorf("%d members of %d", seen, len(ids))
	}
}

// TestTestCrowdRefuses: a key that is not the seed's, in a place of the crowd or beyond, or in a network without a crowd.
func TestTestCrowdRefuses(t *testing.T) {
	for name, change := range map[string]func(*Genesis, *Account){
		"another key":      func(_ *Genesis, a *Account) { a.BLS.Key[47] ^= 1 },
		"another ordinate": func(_ *Genesis, a *Account) { a.BLS.Ordinate[47] ^= 1 },
		"another seed":     func(g *Genesis, _ *Account) { g.TestCrowd.Seed[1]++ },
		"a smaller crowd":  func(g *Genesis, _ *Account) { g.TestCrowd.Count = 7 },
		"no crowd":         func(g *Genesis, _ *Account) { g.TestCrowd = nil },
	} {
		g, p := crowded(t)
		crowd := p.Crowd
		g.TestCrowd = &crowd
		var accounts []Account
		for a := range p.All() {
			if a.BLS != nil {
				k := *a.BLS
				a.BLS = &k
			}
			accounts = append(accounts, a)
		}
		change(g, &accounts[20])
		dir := t.TempDir()
		if _, err := Create(dir, g, slices.Values(accounts)); err == nil || !strings.Contains(err.Error(), "proof of possession") {
			t.Errorf("%s: created, %v", name, err)
		}
	}
}
