package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/tx"
)

// TestWorkers runs the same blocks with several numbers of workers, over partitions of more than one chunk.
func TestWorkers(t *testing.T) {
	const accounts = 12_000
	p := testParams(t, 0, 1, accounts)
	p.Table = PartitionTable{{First: 2, Log2: 1, Shard: 0}, {First: 9, Log2: 0, Shard: 0}}
	p.OpenCap = 500
	// The first run's bodies and results; the others must have the same.
	var bodies [][]byte
	var results []*Executed
	var stored []string
	for _, workers := range []int{1, 2, 3, 5, 8} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			o := testOptions(p, accounts)
			o.Workers = workers
			l := mustOpen(t, o)
			first := workers == 1
			m := newModel(&p, o.Genesis)
			g := &load{&p, rand.New(rand.NewPCG(3, 4)), make([]uint32, accounts)}
			parent := p.GenesisBlock
			for h := uint64(1); h <= 5; h++ {
				txs := g.txs(2000)
				for i := range txs {
					if i%20 == 0 {
						txs[i].Tx = tx.Tx{Kind: tx.Open, From: txs[i].From, Amount: 5, Nonce: txs[i].Nonce, Expiry: 1 << 30, Key: keyOf(tx.ID(h<<20 + uint64(i)))}
					}
					fakeSign(p.GenesisHash, &txs[i], keyOf(txs[i].From))
				}
				built, err := l.Build(context.Background(), BuildInput{Parent: parent, Height: h, Candidates: txs, MaxBytes: 1 << 20, MaxTxs: 3000})
				if err != nil || built.Txs != len(txs) {
					t.Fatal(err, built.Txs)
				}
				done, err := l.Execute(context.Background(), ExecuteInput{Parent: parent, Block: blockName(h), Height: h, Body: built.Body, Want: built.Commitments})
				if err != nil {
					t.Fatal(err)
				}
				finalise(t, l, blockName(h))
				parent = blockName(h)
				value := string(l.last.appendStored(nil))
				if first {
					bodies, results, stored = append(bodies, built.Body), append(results, done), append(stored, value)
					m, _ = m.block(txs, nil)
					if m.root() != done.Root {
						t.Fatalf("height %d: root %v, the model's %v", h, done.Root, m.root())
					}
					continue
				}
				if !reflect.DeepEqual(built.Body, bodies[h-1]) || !reflect.DeepEqual(done, results[h-1]) || value != stored[h-1] {
					t.Fatalf("height %d: another result than with one worker", h)
				}
			}
			if first {
				if err := m.agrees(l); err != nil {
					t.Fatal(err)
				}
				o.Create = false
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if err := m.agrees(mustOpen(t, o)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestChunkBorder opens accounts across the border of a chunk and a page.
func TestChunkBorder(t *testing.T) {
	const accounts = chunkAccounts - 2
	p := testParams(t, 0, 1, accounts)
	p.Table = PartitionTable{{First: 4, Log2: 0, Shard: 0}}
	o := testOptions(p, accounts)
	o.FS = vfs.NewMem()
	l := mustOpen(t, o)
	m := newModel(&p, o.Genesis)
	parent := p.GenesisBlock
	for h := uint64(1); h <= 3; h++ {
		var txs []tx.Signed
		for i := range uint64(4) {
			txs = append(txs, opening(&p, p.GenesisID(i), 7, uint32(h-1), keyOf(tx.ID(h<<20+i))))
		}
		done := step(t, l, parent, h, blockName(h), txs)
		m, _ = m.block(txs, nil)
		if done.Root != m.root() {
			t.Fatalf("height %d: root %v, the model's %v", h, done.Root, m.root())
		}
		if id := done.Opened[3].ID; id != tx.MakeID(4, accounts+uint32(h)*4-1) {
			t.Fatalf("the last opening has id %x", uint64(id))
		}
		parent = blockName(h)
	}
	for h := uint64(1); h <= 3; h++ {
		finalise(t, l, blockName(h))
	}
	if err := m.agrees(l); err != nil {
		t.Fatal(err)
	}
	// Below the border's chunk, proofs of a chunk that the base does not know yet.
	for _, index := range []uint32{0, chunkAccounts - 1, chunkAccounts, chunkAccounts + 9, AccountsPerPartition - 1} {
		proof, err := l.AccountProof(tx.MakeID(4, index))
		if err != nil {
			t.Fatal(err)
		}
		_, exists, err := VerifyAccountProof(l.base.root, tx.MakeID(4, index), proof)
		if err != nil || exists != (index < accounts+4) {
			t.Errorf("account %d: %v, %v", index, exists, err)
		}
	}
}
