package genesis

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// votingKey is the n-th voting key of the tests.
func votingKey(t testing.TB, n int) *bls.SecretKey {
	k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(n + 1)}, 32))
	return must(t, k, err)
}

func seat(t testing.TB, network string, n int) Validator {
	k := votingKey(t, n)
	v := Validator{Name: fmt.Sprintf("v%d", n), Key: k.Public(), Power: consensus.Power(10 + n)}
	v.Node[0], v.Node[31] = 0xed, byte(n+1)
	v.Possession = k.ProvePossession(ValidatorMessage(network, v.Node, v.Key))
	return v
}

// sample is a genesis of two shards, without accounts yet.
func sample(t testing.TB) *Genesis {
	table, err := ledger.GenesisTable(2)
	if err != nil {
		t.Fatal(err)
	}
	const name = "test-net"
	return &Genesis{
		Name: name, TimeMs: 1_795_348_800_123, Seed: consensus.Hash{0x5e, 0xed}, Table: table,
		Parameters: Parameters{
			Fees: []uint64{1, 20}, OpenDeposit: 500, OpenCap: 1000, AccountLimit: 1 << 20, ReceiptWindow: 4096,
			MaxBodyBytes: 4 << 20, MaxBlockTxs: 30_000, BlockIntervalMs: 200, HeartbeatMs: 1000,
		},
		Shards: []Shard{{[]Validator{seat(t, name, 0)}}, {[]Validator{seat(t, name, 1), seat(t, name, 2), seat(t, name, 3)}}},
	}
}

// people is a small population: a crowd of 300, and one named account on each shard, the second with a BLS key.
func people(t testing.TB, g *Genesis) *Population {
	k := votingKey(t, 77)
	named := Account{Key: [32]byte{0xb0}, Balance: 8000, BLS: &BLSKey{Key: k.Public()}}
	named.BLS.Possession = k.ProvePossession(AccountMessage(g.Name, named.Key, named.BLS.Key))
	return &Population{
		Table: g.Table, Crowd: Crowd{Seed: [32]byte{0xc0}, Count: 301, Balance: 1000},
		Named: [][]Account{{{Key: [32]byte{0xa1}, Balance: 9000}}, {named}},
	}
}

func created(t testing.TB) (*Verified, string) {
	g := sample(t)
	dir := t.TempDir()
	v, err := Create(dir, g, people(t, g).All())
	return must(t, v, err), dir
}

func TestGolden(t *testing.T) {
	v, dir := created(t)
	accounts, err := os.ReadFile(filepath.Join(dir, AccountsName))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	put := func(name string, b []byte) { fmt.Fprintf(&out, "%s %s\n", name, hex.EncodeToString(b)) }
	put("binary", v.Append(nil))
	hash := v.Hash()
	put("hash", hash[:])
	for shard := range consensus.ShardID(2) {
		c, err := v.Committee(shard)
		h := must(t, c, err).Hash()
		put(fmt.Sprintf("committee-%d", shard), h[:])
		header, err := v.Header(shard, consensus.Hash{byte(shard), 0x57})
		put(fmt.Sprintf("header-%d", shard), must(t, header, err).Append(nil))
	}
	put("validator-message", ValidatorMessage("test-net", [32]byte{1}, consensus.PublicKey{2}))
	put("account-message", AccountMessage("test-net", [32]byte{1}, [48]byte{2}))
	put("account", AppendAccount(nil, Account{ID: tx.MakeID(1, 2), Key: [32]byte{3}, Balance: 4}))
	put("account-bls", AppendAccount(nil, Account{ID: 1, Key: [32]byte{3}, Balance: 4, BLS: &BLSKey{Key: [48]byte{5}, Possession: [96]byte{6}}}))
	put("account-made", AppendAccount(nil, Account{ID: 1, Key: [32]byte{3}, Balance: 4, BLS: &BLSKey{Key: [48]byte{5}, Made: true, Ordinate: [48]byte{6}}}))
	key := Crowd{Seed: [32]byte{0xc0}}.Key(7).Public()
	put("crowd-key-7", key[:])
	blsKey := Crowd{Seed: [32]byte{0xc0}}.BLSKey(7).Public()
	put("crowd-bls-key-7", blsKey[:])
	g := sample(t)
	g.TestCrowd = &Crowd{Seed: [32]byte{0xc0}, Count: 301, Balance: 1000}
	hash = g.Hash()
	put("hash-test-crowd", hash[:])
	put("accounts-head", accounts[:16+3*accountBytes])

	for name, got := range map[string][]byte{"golden.txt": out.Bytes(), "genesis.json": v.JSON} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s changed (-golden +now); if that is meant, run with -update and review:\n%s", name, diff)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	v, dir := created(t)
	parsed, err := Parse(v.JSON)
	if diff := cmp.Diff(v.Genesis, must(t, parsed, err)); diff != "" {
		t.Errorf("JSON (-in +out):\n%s", diff)
	}
	decoded, err := Decode(v.Append(nil))
	if diff := cmp.Diff(v.Genesis, must(t, decoded, err)); diff != "" {
		t.Errorf("binary (-in +out):\n%s", diff)
	}
	for i := range v.Shards {
		for _, seat := range v.Shards[i].Validators {
			back, err := seat.Entry().Validator()
			if diff := cmp.Diff(seat, must(t, back, err)); diff != "" {
				t.Errorf("entry (-in +out):\n%s", diff)
			}
		}
	}
	again, err := Verify(filepath.Join(dir, FileName))
	if diff := cmp.Diff(v, must(t, again, err), cmp.AllowUnexported(Verified{})); diff != "" {
		t.Errorf("files (-created +verified):\n%s", diff)
	}
	home := t.TempDir()
	if err := again.CopyTo(home); err != nil {
		t.Fatal(err)
	}
	if copied, err := Verify(filepath.Join(home, FileName)); must(t, copied, err).Hash() != v.Hash() {
		t.Error("the copy has another genesis hash")
	}
	if err := again.CopyTo(home); !errors.Is(err, fs.ErrExist) {
		t.Errorf("copied over a genesis: %v", err)
	}
	linked := t.TempDir()
	if err := again.LinkTo(linked); err != nil {
		t.Fatal(err)
	}
	if v2, err := Verify(filepath.Join(linked, FileName)); must(t, v2, err).Hash() != v.Hash() {
		t.Error("the link has another genesis hash")
	}
	if err := again.LinkTo(linked); !errors.Is(err, fs.ErrExist) {
		t.Errorf("linked over a genesis: %v", err)
	}
}

// TestHashCoversEverything changes one field after the other; spacing of the JSON is not one.
func TestHashCoversEverything(t *testing.T) {
	v, _ := created(t)
	seen := map[consensus.Hash]string{v.Hash(): "as it is"}
	for name, edit := range map[string]func(*Genesis){
		"name": func(g *Genesis) { g.Name += "x" }, "time": func(g *Genesis) { g.TimeMs++ }, "seed": func(g *Genesis) { g.Seed[31]++ },
		"fees": func(g *Genesis) { g.Parameters.Fees[1]++ }, "a fee more": func(g *Genesis) { g.Parameters.Fees = append(g.Parameters.Fees, 0) },
		"open deposit": func(g *Genesis) { g.Parameters.OpenDeposit++ }, "open cap": func(g *Genesis) { g.Parameters.OpenCap++ },
		"account limit": func(g *Genesis) { g.Parameters.AccountLimit++ }, "window": func(g *Genesis) { g.Parameters.ReceiptWindow++ },
		"body": func(g *Genesis) { g.Parameters.MaxBodyBytes++ }, "txs": func(g *Genesis) { g.Parameters.MaxBlockTxs++ },
		"interval": func(g *Genesis) { g.Parameters.BlockIntervalMs++ }, "heartbeat": func(g *Genesis) { g.Parameters.HeartbeatMs++ },
		"table": func(g *Genesis) { g.Table[0].Shard, g.Table[1].Shard = 1, 0 },
		"shard": func(g *Genesis) { g.Shards = g.Shards[:1] }, "validator": func(g *Genesis) { g.Shards[1].Validators = g.Shards[1].Validators[:2] },
		"order": func(g *Genesis) { slices.Reverse(g.Shards[1].Validators) }, "seat name": func(g *Genesis) { g.Shards[0].Validators[0].Name = "w" },
		"key": func(g *Genesis) { g.Shards[0].Validators[0].Key[9]++ }, "possession": func(g *Genesis) { g.Shards[0].Validators[0].Possession[9]++ },
		"node": func(g *Genesis) { g.Shards[0].Validators[0].Node[9]++ }, "power": func(g *Genesis) { g.Shards[0].Validators[0].Power++ },
		"count": func(g *Genesis) { g.Accounts.Count++ }, "total": func(g *Genesis) { g.Accounts.Total++ }, "sha": func(g *Genesis) { g.Accounts.SHA256[0]++ },
		"test crowd": func(g *Genesis) { g.TestCrowd = &Crowd{Seed: [32]byte{1}, Count: 1} }, "crowd's seed": func(g *Genesis) { g.TestCrowd = &Crowd{Seed: [32]byte{2}, Count: 1} },
		"crowd's count": func(g *Genesis) { g.TestCrowd = &Crowd{Seed: [32]byte{1}, Count: 2} }, "crowd's balance": func(g *Genesis) { g.TestCrowd = &Crowd{Seed: [32]byte{1}, Count: 1, Balance: 1} },
	} {
		g := sample(t)
		g.Accounts = v.Accounts
		if g.Hash() != v.Hash() {
			t.Fatal("two equal ones differ")
		}
		edit(g)
		if other, ok := seen[g.Hash()]; ok {
			t.Errorf("%s: same hash as %s", name, other)
		}
		seen[g.Hash()] = name
	}
	compact, err := Parse([]byte(strings.ReplaceAll(string(v.JSON), "  ", "")))
	if must(t, compact, err).Hash() != v.Hash() {
		t.Error("spacing changes the hash")
	}
}

func TestValidateListsAllProblems(t *testing.T) {
	g := sample(t)
	g.Name, g.TimeMs, g.Seed = "Test Net", 0, consensus.Hash{}
	g.Parameters = Parameters{Fees: []uint64{math.MaxUint64}, OpenCap: 1 << 20, ReceiptWindow: 0, MaxBodyBytes: 9 << 20, BlockIntervalMs: 2000, AccountLimit: 0}
	v := g.Shards[1].Validators
	v[0].Name, v[0].Key, v[0].Possession, v[0].Node, v[0].Power = "", consensus.PublicKey{}, consensus.Signature{}, [32]byte{}, 0
	v[1].Power, v[2].Power = consensus.MaxTotalPower, 1
	v[2].Name, v[2].Key, v[2].Node = v[1].Name, v[1].Key, g.Shards[0].Validators[0].Node
	g.Accounts.Total = math.MaxUint64
	var p Problems
	if err := g.Validate(); !errors.As(err, &p) {
		t.Fatal(err)
	}
	var fields []string
	for _, one := range p {
		fields = append(fields, one.Field)
		if one.Detail == "" || one.Remedy == "" || !strings.Contains(p.Error(), one.String()) {
			t.Errorf("problem %+v", one)
		}
	}
	want := []string{
		"name", "time", "seed", "parameters.fees[0]", "parameters.open_cap", "parameters.receipt_window", "parameters.max_body_bytes",
		"parameters.max_block_txs", "parameters.block_interval_ms", "parameters.heartbeat_ms", "parameters.account_limit",
		"shards[1].validators[0].name", "shards[1].validators[0].voting_key", "shards[1].validators[0].possession",
		"shards[1].validators[0].node_key", "shards[1].validators[0].power", "shards[1].validators[2].name",
		"shards[1].validators[2].voting_key", "shards[1].validators[2].node_key", "shards[1].validators",
		"accounts.count", "accounts.total", "accounts.sha256",
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	for _, shards := range []int{1, 2, 256} {
		g := sample(t)
		g.Parameters.AccountLimit = ledger.AccountsPerPartition
		g.Accounts = Accounts{1, 1, consensus.Hash{1}}
		for s := len(g.Shards); s < shards; s++ {
			v := Validator{Name: fmt.Sprintf("x%d", s), Power: 1}
			v.Key[0], v.Key[1], v.Possession[0], v.Node[0], v.Node[1] = 1, byte(s), 1, 1, byte(s)
			g.Shards = append(g.Shards, Shard{[]Validator{v}})
		}
		table, err := ledger.GenesisTable(uint16(shards))
		if g.Shards, g.Table = g.Shards[:shards], must(t, table, err); g.Validate() != nil {
			t.Errorf("%d shards %v", shards, g.Validate())
		}
	}
	for name, c := range map[string]struct {
		edit func(*Genesis)
		want string
	}{
		"no shards":     {func(g *Genesis) { g.Shards = nil }, "shards"},
		"no validators": {func(g *Genesis) { g.Shards[0].Validators = nil }, "shards[0].validators"},
		"no fees":       {func(g *Genesis) { g.Parameters.Fees = nil }, "parameters.fees"},
		"table":         {func(g *Genesis) { g.Table = g.Table[:1] }, "partitions"},
		"far future":    {func(g *Genesis) { g.TimeMs = math.MaxInt64 }, "time"},
		"long name":     {func(g *Genesis) { g.Name = strings.Repeat("a", 65) }, "name"},
	} {
		g := sample(t)
		g.Accounts = Accounts{1, 1, consensus.Hash{1}}
		if err := g.Validate(); err != nil {
			t.Fatal(err)
		}
		c.edit(g)
		var p Problems
		if err := g.Validate(); !errors.As(err, &p) || len(p) != 1 || p[0].Field != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	v, _ := created(t)
	text := string(v.JSON)
	for _, c := range []struct {
		name, old, new string
		want           []string
	}{
		{"syntax", `"seed":`, `"seed"`, []string{"line 5:"}},
		{"unknown field", `"open_cap"`, `"opening_cap"`, []string{`unknown field "opening_cap"`}},
		{"type", `"power": 12`, `"power": "12"`, []string{"power", "string", "line "}},
		{"negative", `"count": 303`, `"count": -1`, []string{"accounts.count"}},
		{"format", `"format": 1`, `"format": 2`, []string{"format: is 2", "newer"}},
		{"time", `123Z`, `123+01:00`, []string{"time:"}},
		{"seed and digest", `"seed": "5e`, `"seed": "5`, []string{"seed:", "64 lower-case hex digits"}},
		{"upper case", `"seed": "5e`, `"seed": "5E`, []string{"seed:"}},
		{"key", `"voting_key": "`, `"voting_key": "zz`, []string{"shards[0].validators[0].voting_key", "shards[1].validators[2].voting_key", "96 lower-case"}},
		{"count", `"count": 128`, `"count": 100`, []string{"partitions[0].count"}},
		{"trailing", "\n}\n", "\n}\n{}", []string{"after the end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := strings.ReplaceAll(text, c.old, c.new)
			if broken == text {
				t.Fatalf("nothing replaced in:\n%s", text)
			}
			_, err := Parse([]byte(broken))
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want %q", err, w)
				}
			}
		})
	}
	if _, err := Parse(make([]byte, maxJSON+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	g := sample(t)
	one := func(edit func(*Account)) []Account {
		a := []Account{{ID: 0, Key: [32]byte{1}, Balance: 5}, {ID: 1, Key: [32]byte{1}, Balance: 5}}
		edit(&a[1])
		return a
	}
	small := *g
	small.Parameters.AccountLimit = 1
	possession := *g
	possession.Shards = []Shard{g.Shards[0], {slices.Clone(g.Shards[1].Validators)}}
	possession.Shards[1].Validators[2].Node[5]++
	name := *g
	name.Name = "other-net"
	for _, c := range []struct {
		name     string
		g        *Genesis
		accounts []Account
		want     string
	}{
		{"order", g, []Account{{ID: tx.MakeID(1, 0), Key: [32]byte{1}}, {ID: 0, Key: [32]byte{1}}}, "out of order"},
		{"twice", g, one(func(a *Account) { a.ID = 0 }), "out of order"},
		{"gap", g, one(func(a *Account) { a.ID = 2 }), "gap"},
		{"over 48 bits", g, one(func(a *Account) { a.ID = 1 << 48 }), "gap"},
		{"no shard", g, one(func(a *Account) { a.ID = tx.MakeID(300, 0) }), "no shard"},
		{"no key", g, one(func(a *Account) { a.Key = [32]byte{} }), "no Ed25519 key"},
		{"too much", g, one(func(a *Account) { a.Balance = ledger.MaxSupply }), "over 9223372036854775807"},
		{"limit", &small, one(func(*Account) {}), "account_limit"},
		{"account possession", g, one(func(a *Account) { a.BLS = &BLSKey{Key: votingKey(t, 1).Public()} }), "does not verify"},
		{"none", g, nil, "accounts.count"},
		{"validator possession", &possession, one(func(*Account) {}), "shards[1].validators[2].possession"},
		{"another network's possession", &name, one(func(*Account) {}), "4 problems"},
		{"invalid", &Genesis{}, one(func(*Account) {}), "shards: has 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := Create(dir, c.g, slices.Values(c.accounts))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	for _, file := range []string{FileName, AccountsName} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(dir, g, people(t, g).All()); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s exists: %v", file, err)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, file)); string(b) != "mine" {
			t.Errorf("%s was overwritten", file)
		}
	}
	if _, err := Create(filepath.Join(t.TempDir(), "missing"), g, people(t, g).All()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file string
		edit       func([]byte) []byte
		want       []string
	}{
		{"balance", AccountsName, func(b []byte) []byte { b[16+13]++; return b }, []string{"accounts.sha256", "accounts.total", "copy both files"}},
		{"cut", AccountsName, func(b []byte) []byte { return b[:len(b)-1] }, []string{"unexpected EOF"}},
		{"one less", AccountsName, func(b []byte) []byte { return b[:len(b)-accountBytes] }, []string{"accounts.sha256", "accounts.count"}},
		{"flag", AccountsName, func(b []byte) []byte { b[16+14] = 3; return b }, []string{"BLS flag 3"}},
		{"magic", AccountsName, func(b []byte) []byte { b[15] = '2'; return b }, []string{"no accounts file"}},
		{"empty", AccountsName, func([]byte) []byte { return nil }, []string{"no accounts file"}},
		{"order", AccountsName, func(b []byte) []byte { b[16+5] = 9; return b }, []string{"gap"}},
		{"name", FileName, func(b []byte) []byte { return bytes.Replace(b, []byte("test-net"), []byte("best-net"), 1) }, []string{"possession"}},
		{"json", FileName, func(b []byte) []byte { return b[:100] }, []string{"line", FileName}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, dir := created(t)
			path := filepath.Join(dir, c.file)
			b, err := os.ReadFile(path)
			if err := os.WriteFile(path, c.edit(must(t, b, err)), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = Verify(filepath.Join(dir, FileName))
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("got %v, want %q", err, w)
				}
			}
			if c.file == AccountsName {
				if err := v.CopyTo(t.TempDir()); err == nil || !strings.Contains(err.Error(), "has changed") {
					t.Errorf("copied: %v", err)
				}
			}
		})
	}
	if _, err := Verify(filepath.Join(t.TempDir(), FileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	v, dir := created(t)
	if err := os.Remove(filepath.Join(dir, AccountsName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(filepath.Join(dir, FileName)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "beside") {
		t.Errorf("accounts missing: %v", err)
	}
	if err := v.CopyTo(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copied without accounts: %v", err)
	}
}

func TestCommitteesAndHeaders(t *testing.T) {
	v, _ := created(t)
	for shard := range consensus.ShardID(2) {
		c, err := v.Committee(shard)
		if must(t, c, err); len(c.Validators) != len(v.Shards[shard].Validators) || c.Shard != shard || c.Seed == v.Seed {
			t.Errorf("committee %+v", c)
		}
		keys, err := consensus.NewKeys(c)
		if _ = must(t, keys, err); keys == nil {
			t.Fatal("no keys")
		}
		h, err := v.Header(shard, consensus.Hash{9})
		back, err2 := consensus.DecodeHeader(must(t, h, err).Append(nil))
		if diff := cmp.Diff(h, must(t, back, err2)); diff != "" {
			t.Errorf("header (-in +out):\n%s", diff)
		}
		if h.Chain != v.Hash() || h.Height != 0 || h.Committee != c.Hash() || len(h.Links) != 1 || h.Links[0].Shard != 1-shard || !h.Body.Matches([]byte{tx.BodyVersion}) {
			t.Errorf("header %+v", h)
		}
	}
	if _, err := v.Committee(2); err == nil {
		t.Error("committee of a shard that is not there")
	}
	if _, err := v.Header(2, consensus.Hash{}); err == nil {
		t.Error("header of a shard that is not there")
	}
}

func FuzzParse(f *testing.F) {
	v, _ := created(f)
	f.Add(v.JSON)
	f.Add([]byte(`{"format":1,"shards":[{"validators":[{}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Parse(b)
		if err != nil {
			if p := (Problems)(nil); !errors.As(err, &p) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		back, err := Parse(g.JSON())
		if err != nil || back.Hash() != g.Hash() {
			t.Fatalf("parsed, printed and parsed again: %v", err)
		}
		if d, err := Decode(g.Append(nil)); err != nil || d.Hash() != g.Hash() {
			t.Fatalf("binary form: %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	v, _ := created(f)
	f.Add(v.Append(nil))
	g := *v.Genesis
	g.TestCrowd = &Crowd{Seed: [32]byte{1}, Count: 2}
	f.Add(g.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Decode(b)
		if err != nil {
			if p := (Problems)(nil); !errors.As(err, &p) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if !bytes.Equal(g.Append(nil), b) {
			t.Fatal("decoded, but encodes to something else")
		}
		if back, err := Parse(g.JSON()); err != nil || back.Hash() != g.Hash() {
			t.Fatalf("JSON form: %v", err)
		}
	})
}

func FuzzAccounts(f *testing.F) {
	f.Add([]byte(accountsMagic))
	f.Add(AppendAccount([]byte(accountsMagic), Account{ID: 1, Key: [32]byte{2}, Balance: 3}))
	f.Add(AppendAccount([]byte(accountsMagic), Account{ID: 1, Key: [32]byte{2}, BLS: &BLSKey{}}))
	f.Add(AppendAccount([]byte(accountsMagic), Account{ID: 1, Key: [32]byte{2}, BLS: &BLSKey{Made: true}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := []byte(accountsMagic)
		err := readAccounts(bytes.NewReader(b), func(a Account) bool {
			out = AppendAccount(out, a)
			return true
		})
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("error %v", err)
		}
		if err == nil && !bytes.Equal(out, b) {
			t.Fatal("read, but encodes to something else")
		}
	})
}
