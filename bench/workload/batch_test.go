package workload

import (
	"testing"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/genesis"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// people are the keys of a crowd as a validator looks them up.
type people struct {
	crowd   *Crowd
	account map[uint64]uint32
}

func (p people) Slots(senders []uint64, slots []uint32) int {
	for i, s := range senders {
		slots[i] = p.account[s]
	}
	return len(senders)
}

func (p people) Ed25519(senders []uint64, keys [][32]byte) int {
	for i, s := range senders {
		keys[i] = p.crowd.PublicKey(p.account[s])
	}
	return len(senders)
}

// TestBatcher: batches verify, each account pays once in a round with the next nonce, and their maker knows what is in them.
func TestBatcher(t *testing.T) {
	table, err := ledger.GenesisTable(2)
	if err != nil {
		t.Fatal(err)
	}
	p := genesis.Population{Table: table, Crowd: genesis.Crowd{Seed: [32]byte{1}, Count: 101}}
	crowd, err := NewCrowd(t.Context(), p.Crowd, p.CrowdIDs(), 0, 101, [32]byte{9}, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := people{crowd, map[uint64]uint32{}}
	directory := bls.NewDirectory(101)
	for i := range uint32(101) {
		keys.account[uint64(crowd.ID(i))] = i
		if err := directory.AddTrusted(i, p.Crowd.BLSKey(uint64(i)).Public()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := NewBatcher(t.Context(), crowd, BatchOptions{Seed: 3, Shards: 2, Shard: 1, Straggling: 0.2})
	if err != nil || b.Accounts() != 50 {
		t.Fatal(b, err)
	}
	paid := map[uint32]uint32{}
	stragglers, all := 0, 0
	for range 10 {
		made, err := b.Make(20, 77)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := made.Verify(distill.Chain{9}, directory, keys); err != nil {
			t.Fatal(err)
		}
		drawn := map[uint32]bool{}
		for i := range made.Count() {
			body, err := tx.NewBody(nil, []*distill.Batch{made.Batch})
			if err != nil {
				t.Fatal(err)
			}
			x := body.Tx(i)
			from := made.From[i]
			if x.From != crowd.ID(from) || x.To != crowd.ID(made.To[i]) || x.From == x.To || x.Amount != made.Amount(i) || x.Amount < 1 || x.Amount > 16 || x.Nonce != paid[from] || x.Expiry != 77 {
				t.Fatalf("%d: %+v, from account %d with nonce %d", i, x, from, paid[from])
			}
			paid[from]++
			drawn[made.Drawn[i]] = true
		}
		if len(drawn) != 20 {
			t.Errorf("%d draws", len(drawn))
		}
		stragglers, all = stragglers+made.Stragglers(), all+made.Count()
	}
	for i, n := range paid {
		if n != 4 || i%2 != 1 {
			t.Errorf("account %d paid %d times of 4", i, n)
		}
	}
	if share := float64(stragglers) / float64(all); share < 0.1 || share > 0.3 {
		t.Errorf("%v of the senders did not sign", share)
	}
	for _, n := range []int{0, 51} {
		if _, err := b.Make(n, 1); err == nil {
			t.Errorf("a batch of %d", n)
		}
	}
}

func BenchmarkBatcher(b *testing.B) {
	const n, count = 12_500, 100_000
	table, err := ledger.GenesisTable(1)
	if err != nil {
		b.Fatal(err)
	}
	p := genesis.Population{Table: table, Crowd: genesis.Crowd{Seed: [32]byte{1}, Count: count}}
	crowd, err := NewCrowd(b.Context(), p.Crowd, p.CrowdIDs(), 0, count, [32]byte{9}, nil)
	if err != nil {
		b.Fatal(err)
	}
	m, err := NewBatcher(b.Context(), crowd, BatchOptions{Shards: 1})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := m.Make(n, 1000); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/transfer")
}
