package node

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/accel/bls"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/consensus"
	"tutti/state/ledger"
)

// smallGenesis is a network of one validator and 300 accounts.
func smallGenesis(t *testing.T, name string) *genesis.Verified {
	t.Helper()
	table, err := ledger.GenesisTable(1)
	if err != nil {
		t.Fatal(err)
	}
	k, err := bls.NewSecretKey(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	g := &genesis.Genesis{
		Name: name, TimeMs: 1_795_348_800_000, Seed: consensus.Hash{7}, Table: table,
		Parameters: genesis.Parameters{
			Fees: []uint64{1}, OpenDeposit: 1, OpenCap: 1, AccountLimit: 1000, ReceiptWindow: 1, MaxBodyBytes: 1 << 20,
			MaxBlockTxs: 100, BlockIntervalMs: 200, HeartbeatMs: 1000,
		},
	}
	v := genesis.Validator{Name: "a", Key: k.Public(), Node: [32]byte{1}, Power: 1}
	v.Possession = k.ProvePossession(genesis.ValidatorMessage(g.Name, v.Node, v.Key))
	g.Shards = []genesis.Shard{{Validators: []genesis.Validator{v}}}
	p := genesis.Population{Table: table, Crowd: genesis.Crowd{Count: 300, Balance: 5}}
	made, err := genesis.Create(t.TempDir(), g, p.All())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestGenesisHeader finds the header that Create kept, and makes it again where it is missing or not what it should be.
func TestGenesisHeader(t *testing.T) {
	v, home := smallGenesis(t, "one"), config.Home(t.TempDir())
	if err := Create(home, v, 0, 100); err != nil {
		t.Fatal(err)
	}
	if err := Create(home, v, 0, 100); err == nil || !strings.Contains(err.Error(), "begins only once") {
		t.Errorf("created again: %v", err)
	}
	file := filepath.Join(home.Data(), headerFile)
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := config.Home(t.TempDir())
	if err := Create(other, smallGenesis(t, "two"), 0, 100); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other.Data(), headerFile))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(kept)
	flipped[len(flipped)/2] ^= 1
	var want consensus.Hash
	for _, c := range []struct {
		name, reason string
		content      []byte // nil: no file
	}{
		{"as kept", "", kept},
		{"missing", "", nil},
		{"damaged", "damaged", flipped},
		{"cut short", "damaged", kept[:9]},
		{"empty", "damaged", []byte{}},
		{"too long", "damaged", append(bytes.Clone(kept), 0)},
		{"foreign", "another chain", foreign},
	} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if c.content != nil {
			if err := os.WriteFile(file, c.content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		h, err := genesisHeader(home, v, 0, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if want == (consensus.Hash{}) {
			want = h.Hash()
		}
		if h.Hash() != want || !strings.Contains(log.String(), c.reason) || (c.reason == "") != (log.Len() == 0) {
			t.Errorf("%s: header %s, want %s; log %q", c.name, h.Hash().Short(), want.Short(), log.String())
		}
		if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, kept) {
			t.Errorf("%s: the file was not made again: %v", c.name, err)
		}
	}
}

// TestBegin tells of accounts that can no longer be read.
func TestBegin(t *testing.T) {
	v := smallGenesis(t, "one")
	b, err := Begin(v, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // several homes
		if err := b.Create(config.Home(t.TempDir()), 100); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := v.CopyTo(dir); err != nil {
		t.Fatal(err)
	}
	if v, err = genesis.Verify(filepath.Join(dir, genesis.FileName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, genesis.AccountsName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(v, 0, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("begun without accounts: %v", err)
	}
}
