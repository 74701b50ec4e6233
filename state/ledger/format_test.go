package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/tx"
)

var update = flag.Bool("update", false, "rewrite golden files in testdata")

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s; run with -update and review:\n%s", name, got)
	}
}

// TestGoldenBlocks pins every byte that a chain of four blocks commits to or stores.
func TestGoldenBlocks(t *testing.T) {
	s := newStory(t, 4)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	var b strings.Builder
	fmt.Fprintf(&b, "params hash %v\n", s.p.hash())
	fmt.Fprintf(&b, "empty: leaf %x, chunk %x, partition %x, all %x\n", zeros().inner[0], zeros().sums[0].hash,
		zeros().sums[partitionLevels].hash, zeros().sums[sumLevels].hash)
	for h := range uint64(5) {
		if h > 0 {
			if err := s.extend(l); err != nil {
				t.Fatal(err)
			}
		}
		k := l.last
		fmt.Fprintf(&b, "block %d: root %v, diff %v, meta %v, balances %d\n", h, k.root, k.diff, k.metaHash, k.balances)
		if k.done != nil {
			c := k.done.Commitments
			fmt.Fprintf(&b, "  outcomes %v, links %+v, state %v, diff %v\n", c.Outcomes, c.Links, c.State, c.Diff)
		}
		stored := k.appendStored(nil)
		fmt.Fprintf(&b, "  stored %d bytes %x\n", len(stored), sha256.Sum256(stored))
	}
	fmt.Fprintf(&b, "head of block 2: %x\n", l.base.head)
	fmt.Fprintf(&b, "section of block 4: %x\n", l.last.sections[0].bytes)
	for _, index := range []uint32{3, 900} {
		p, err := l.AccountProof(tx.MakeID(0, index))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "proof of account %d: %x\n", index, p.Append(nil))
	}
	golden(t, "blocks.golden", b.String())
}

func TestGoldenTables(t *testing.T) {
	var b strings.Builder
	for _, n := range []uint16{1, 2, 3, 4, 5, 16, 255, 256} {
		table, err := GenesisTable(n)
		if err != nil || table.Validate(n) != nil {
			t.Fatal(n, err, table.Validate(n))
		}
		least, most := 1<<16, 0
		for s := range n {
			c := len(table.Partitions(s))
			least, most = min(least, c), max(most, c)
		}
		fmt.Fprintf(&b, "%d shards: %d ranges, %d to %d partitions each, encoding %x\n", n, len(table), least, most, sha256.Sum256(table.Append(nil)))
		if n <= 5 {
			fmt.Fprintf(&b, "  %v\n", table)
		}
	}
	golden(t, "tables.golden", b.String())
}

func TestTable(t *testing.T) {
	for _, n := range []uint16{0, 257} {
		if _, err := GenesisTable(n); !errors.Is(err, ErrTable) {
			t.Errorf("%d shards: %v", n, err)
		}
	}
	for name, c := range map[string]struct {
		table  PartitionTable
		shards uint16
	}{
		"no shards":           {PartitionTable{{0, 0, 0}}, 0},
		"too many shards":     {PartitionTable{{0, 0, 0}}, MaxShards + 1},
		"empty":               {nil, 1},
		"not aligned":         {PartitionTable{{1, 1, 0}}, 1},
		"too large":           {PartitionTable{{0, 17, 0}}, 1},
		"overlap":             {PartitionTable{{0, 2, 0}, {2, 1, 1}}, 2},
		"out of order":        {PartitionTable{{4, 0, 0}, {2, 0, 1}}, 2},
		"could be one":        {PartitionTable{{4, 1, 0}, {6, 1, 0}}, 1},
		"unknown shard":       {PartitionTable{{0, 0, 0}, {1, 0, 2}}, 2},
		"shard without range": {PartitionTable{{0, 0, 0}}, 2},
	} {
		if err := c.table.Validate(c.shards); !errors.Is(err, ErrTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	table := PartitionTable{{4, 1, 0}, {8, 3, 1}, {65535, 0, 0}}
	if err := table.Validate(2); err != nil {
		t.Fatal(err)
	}
	for partition, want := range map[uint16]int{0: -1, 3: -1, 4: 0, 5: 0, 6: -1, 8: 1, 15: 1, 16: -1, 65534: -1, 65535: 0} {
		shard, ok := table.ShardOf(partition)
		if ok != (want >= 0) || ok && int(shard) != want {
			t.Errorf("partition %d: %d, %v", partition, shard, ok)
		}
	}
	p := Params{Table: table, Shard: 0}
	for n, want := range []tx.ID{tx.MakeID(4, 0), tx.MakeID(5, 0), tx.MakeID(65535, 0), tx.MakeID(4, 1)} {
		if got := p.GenesisID(uint64(n)); got != want {
			t.Errorf("genesis account %d is at %x, want %x", n, uint64(got), uint64(want))
		}
	}
}

func FuzzTable(f *testing.F) {
	for _, n := range []uint16{1, 3, 256} {
		table, _ := GenesisTable(n)
		f.Add(table.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := DecodePartitionTable(b)
		if err == nil && !bytes.Equal(table.Append(nil), b) {
			t.Fatalf("%x decodes to %v", b, table)
		}
	})
}

func FuzzRecord(f *testing.F) {
	r := Record{Balance: 1, Nonce: 2, Kind: KindSingle, Generation: 3, LastTouch: 4, Key: [32]byte{5}, Extension: 6}
	f.Add(r.Append(nil))
	f.Add(make([]byte, RecordBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Fatalf("%x decodes to %+v", b, r)
		}
	})
}

func FuzzAccountProof(f *testing.F) {
	s := newStory(f, 0)
	l := mustOpen(f, s.options(vfs.NewMem(), true))
	root := l.base.root
	for _, index := range []uint32{0, 5000} {
		p, err := l.AccountProof(tx.MakeID(0, index))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodeAccountProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		// Whatever verifies is true.
		r, exists, err := VerifyAccountProof(root, tx.MakeID(0, 0), p)
		if want := s.models[0].accounts[tx.MakeID(0, 0)]; err == nil && (!exists || r != want) {
			t.Fatalf("%x proves %+v, %v", b, r, exists)
		}
	})
}

// FuzzStored decodes stored blocks: what is accepted has one encoding.
func FuzzStored(f *testing.F) {
	s := newStory(f, 3)
	l := mustOpen(f, s.options(vfs.NewMem(), true))
	f.Add(l.last.appendStored(nil))
	for range 3 {
		if err := s.extend(l); err != nil {
			f.Fatal(err)
		}
		f.Add(l.last.appendStored(nil))
	}
	later := *l.last // a channel that knows another committee than the genesis'
	m := later.meta.clone()
	m.Channels[0].Known = Known{7, blockName(7)}
	later.head = appendHead(nil, m, l.table.parts, later.returns, later.keys)
	f.Add(later.appendStored(nil))
	like := genesisMeta(&s.p)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := l.table.readStored(b)
		if err != nil {
			return
		}
		again := &block{hash: k.hash, parent: &block{hash: k.parent}, root: k.root, diff: k.diff, head: k.head, sections: k.sections}
		if !bytes.Equal(again.appendStored(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		m, returns, keys, err := readHead(k.head, like, l.table.parts)
		if err == nil && !bytes.Equal(appendHead(nil, m, l.table.parts, returns, keys), k.head) {
			t.Fatalf("head %x is not the only encoding", k.head)
		}
	})
}

func TestProofRefuses(t *testing.T) {
	s := newStory(t, 0)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	id := tx.MakeID(0, 9)
	p, err := l.AccountProof(id)
	if err != nil {
		t.Fatal(err)
	}
	good := p.Append(nil)
	if len(good) > MaxProofSize {
		t.Errorf("%d bytes, at most %d", len(good), MaxProofSize)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "cut": good[:len(good)-1], "too long": append(append([]byte{}, good...), 0),
	} {
		if _, err := DecodeAccountProof(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := 8; i < len(good); i++ {
		b := append([]byte{}, good...)
		b[i] ^= 1
		q, err := DecodeAccountProof(b)
		if err == nil {
			_, _, err = VerifyAccountProof(l.base.root, id, q)
		}
		if err == nil {
			t.Errorf("byte %d changed, and it verifies", i)
		}
	}
	if r, exists, err := VerifyAccountProof(tx.Hash{}, id, p); !errors.Is(err, ErrProof) || exists || r != (Record{}) {
		t.Error("it verifies under another root")
	}
	// A sum that overflows is no proof, whatever its hashes say.
	p.upper[0].sum = 1<<64 - 1
	if _, _, err := VerifyAccountProof(l.base.root, id, p); !errors.Is(err, ErrProof) {
		t.Errorf("overflow: %v", err)
	}
}

// TestIDHead: the ledger's way to a transaction's id is tx.TxID's.
func TestIDHead(t *testing.T) {
	p := testParams(t, 0, 1, 10)
	l := mustOpen(t, testOptions(p, 10))
	txs := []tx.Signed{transfer(&p, 1, 2, 3, 4), opening(&p, 5, 6, 7, [32]byte{8})}
	txs[1].BLS = new(tx.BLSKey)
	ids, _ := l.identify(&tx.Body{Txs: txs, Outcomes: make([]bool, 2)}, nil, 0)
	for i := range txs {
		if ids[i] != txs[i].TxID(p.GenesisHash) {
			t.Errorf("transaction %d has id %v here", i, ids[i])
		}
	}
	u := tx.Bundle{Proof: []byte{1, 2}, Receipts: make([]tx.Receipt, 3)}
	if bundleBytes(&u) != len(u.Append(nil)) {
		t.Errorf("a bundle has %d bytes here", bundleBytes(&u))
	}
}
