package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/store"
	"tutti/state/tx"
)

// fakeVerifier takes SHA-256(key || message) for a signature.
type fakeVerifier struct{ genesis tx.Hash }

func fakeSign(genesis tx.Hash, t *tx.Signed, key [32]byte) {
	t.Signature = [64]byte{}
	d := sha256.Sum256(append(key[:], t.Message(genesis)...))
	copy(t.Signature[:], d[:])
}

func (v fakeVerifier) Check(_ context.Context, txs []tx.Signed, keys [][32]byte, _ []uint16, ok []bool) error {
	for i := range txs {
		t := txs[i]
		fakeSign(v.genesis, &t, keys[i])
		ok[i] = t.Signature == txs[i].Signature
	}
	return nil
}

// trusting accepts every signature, for benchmarks of the rest.
type trusting struct{}

func (trusting) Check(_ context.Context, _ []tx.Signed, _ [][32]byte, _ []uint16, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

// fakeHeaders takes the header itself for a proof.
type fakeHeaders struct{}

// fakeProven is a proof: a header, and the committee that the channel has to know, if that matters.
type fakeProven struct {
	ForeignHeader
	From *Known
}

func (fakeHeaders) Verify(_ uint16, known Known, proof []byte) (ForeignHeader, error) {
	var f fakeProven
	if err := json.Unmarshal(proof, &f); err != nil {
		return ForeignHeader{}, err
	}
	if f.From != nil && *f.From != known {
		return ForeignHeader{}, fmt.Errorf("the proof begins with %+v, known is %+v", *f.From, known)
	}
	return f.ForeignHeader, nil
}

func fakeProof(h ForeignHeader) []byte { return fakeProofFrom(h, nil) }

func fakeProofFrom(h ForeignHeader, from *Known) []byte {
	b, err := json.Marshal(fakeProven{h, from})
	if err != nil {
		panic(err)
	}
	return b
}

// nextKnown is what a channel knows an epoch later.
func nextKnown(k Known) Known { return Known{k.Epoch + 1, blockName(1e9 + k.Epoch)} }

func fakePossession(key [48]byte, message []byte, proof [96]byte) bool {
	d := sha256.Sum256(append(key[:], message...))
	return [32]byte(proof[:32]) == d
}

func keyOf(id tx.ID) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("key"), uint64(id)))
}

func blockName(n uint64) tx.Hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("block"), n))
}

var testGenesis = tx.Hash(sha256.Sum256([]byte("test chain")))

// testParams are those of one shard with accounts of 1,000,000 units each.
func testParams(t testing.TB, shard, shards uint16, accounts uint64) Params {
	t.Helper()
	table, err := GenesisTable(shards)
	if err != nil {
		t.Fatal(err)
	}
	p := Params{
		GenesisHash: testGenesis, GenesisBlock: blockName(0), Shard: shard, Shards: shards, Table: table,
		Fees: []uint64{2, 5}, OpenDeposit: 10, OpenCap: 8, AccountLimit: accounts + 1000, ReceiptWindow: 100,
	}
	for range shards {
		p.Supplies = append(p.Supplies, accounts*testBalance)
	}
	return p
}

const testBalance = 1_000_000

func testAccounts(p *Params, n uint64) GenesisAccounts {
	return func(yield func(GenesisAccount) bool) {
		for i := range n {
			id := p.GenesisID(i)
			if !yield(GenesisAccount{ID: id, Key: keyOf(id), Balance: testBalance}) {
				return
			}
		}
	}
}

// withBLS gives every seventh account a BLS key.
func withBLS(accounts GenesisAccounts) GenesisAccounts {
	return func(yield func(GenesisAccount) bool) {
		n := 0
		for a := range accounts {
			if n%7 == 0 {
				a.BLS = &[48]byte{byte(n), byte(n >> 8), 1}
			}
			n++
			if !yield(a) {
				return
			}
		}
	}
}

func testOptions(p Params, accounts uint64) Options {
	return Options{
		FS: vfs.NewMem(), Dir: "ledger", Create: true, Params: p, Genesis: testAccounts(&p, accounts),
		Verifier: fakeVerifier{p.GenesisHash}, Headers: fakeHeaders{}, Possession: fakePossession, Workers: 2,
	}
}

func mustOpen(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func transfer(p *Params, from, to tx.ID, amount uint64, nonce uint32) tx.Signed {
	t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: from, To: to, Amount: amount, Nonce: nonce, Expiry: 1 << 30}}
	fakeSign(p.GenesisHash, &t, keyOf(from))
	return t
}

func opening(p *Params, from tx.ID, amount uint64, nonce uint32, key [32]byte) tx.Signed {
	t := tx.Signed{Tx: tx.Tx{Kind: tx.Open, From: from, Amount: amount, Nonce: nonce, Expiry: 1 << 30, Key: key}}
	fakeSign(p.GenesisHash, &t, keyOf(from))
	return t
}

// step builds a block from candidates and bundles, all of which must be good, executes and returns it.
func step(t testing.TB, l *Ledger, parent tx.Hash, height uint64, name tx.Hash, candidates []tx.Signed, bundles ...tx.Bundle) *Executed {
	t.Helper()
	built, err := l.Build(context.Background(), BuildInput{Parent: parent, Height: height, Candidates: candidates, Bundles: bundles, MaxBytes: 8 << 20, MaxTxs: tx.MaxBodyTx})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range built.Left {
		if r != None {
			t.Fatalf("candidate %d left out: %v", i, r)
		}
	}
	if err := errors.Join(built.LeftBundles...); err != nil {
		t.Fatal(err)
	}
	done, err := l.Execute(context.Background(), ExecuteInput{Parent: parent, Block: name, Height: height, Body: built.Body, Want: built.Commitments})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func finalise(t testing.TB, l *Ledger, name tx.Hash) {
	t.Helper()
	if err := l.Finalise(context.Background(), name); err != nil {
		t.Fatal(err)
	}
}

// clock is a clock that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// allPages visits all pages that are stored.
func allPages(s *store.Store, visit func(partition uint16, page uint32, v []byte) error) error {
	return s.PagedPartitions(func(number uint16) error {
		return s.Pages(number, func(page uint32, v []byte) error { return visit(number, page, v) })
	})
}
