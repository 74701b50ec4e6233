package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/state/store"
	"tutti/state/tx"
)

// signer is an account with real keys.
type signer struct {
	id  tx.ID
	bls *bls.SecretKey // nil: none
	ed  ed25519.PrivateKey
}

// newSigner makes the secrets of an account; every third has no BLS key.
func newSigner(t testing.TB, id tx.ID, n uint64) signer {
	t.Helper()
	seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("signer"), n))
	s := signer{id: id, ed: ed25519.NewPrivateKey(seed)}
	if n%3 != 2 {
		k, err := bls.NewSecretKey(seed[:])
		if err != nil {
			t.Fatal(err)
		}
		s.bls = k
	}
	return s
}

// crowd is a ledger whose accounts sign for themselves.
type crowd struct {
	t       *testing.T
	p       Params
	o       Options
	l       *Ledger
	signers []signer
}

// signed checks Ed25519 signatures as the product does.
type signed struct{ genesis tx.Hash }

func (v signed) Check(_ context.Context, txs []tx.Signed, keys [][32]byte, _ []uint16, ok []bool) error {
	items := make([]ed25519.Item, len(txs))
	for i := range txs {
		items[i] = ed25519.Item{Key: keys[i], Message: txs[i].Message(v.genesis), Signature: txs[i].Signature}
	}
	ed25519.VerifyMany(items, ok)
	return nil
}

func newCrowd(t *testing.T, n uint64) *crowd {
	t.Helper()
	c := &crowd{t: t, p: testParams(t, 0, 1, n)}
	for i := range n {
		c.signers = append(c.signers, newSigner(t, c.p.GenesisID(i), i))
	}
	c.o = testOptions(c.p, n)
	c.o.Verifier = signed{c.p.GenesisHash}
	c.o.Possession = bls.VerifyPossession
	c.o.Genesis = func(yield func(GenesisAccount) bool) {
		for _, s := range c.signers {
			a := GenesisAccount{ID: s.id, Key: s.ed.Public(), Balance: testBalance}
			if s.bls != nil {
				k := s.bls.Public()
				a.BLS = &k
			}
			if !yield(a) {
				return
			}
		}
	}
	c.l = mustOpen(t, c.o)
	return c
}

func (c *crowd) transfer(from, to int, amount uint64, nonce uint32) tx.Signed {
	s := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: c.signers[from].id, To: c.signers[to].id, Amount: amount, Nonce: nonce, Expiry: 1 << 30}}
	s.Signature = c.signers[from].ed.Sign(s.Message(c.p.GenesisHash))
	return s
}

// distil makes a batch of transfers. late are the senders who do not sign it, beside those who can't.
func (c *crowd) distil(chain tx.Hash, late []int, txs ...tx.Signed) *distill.Batch {
	c.t.Helper()
	var subs []distill.Submission
	for i := range txs {
		subs = append(subs, distill.Submission{Body: [distill.BodyBytes]byte(txs[i].AppendBody(nil)[1:]), Signature: txs[i].Signature})
	}
	r, err := distill.Chain(chain).NewRound(subs)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range r.Count() {
		k := slices.IndexFunc(c.signers, func(s signer) bool { return uint64(s.id) == distill.Sender(r.Body(i)) })
		if c.signers[k].bls == nil || slices.Contains(late, k) {
			continue
		}
		share, err := distill.Chain(chain).Answer(c.signers[k].bls, r.Body(i), r.Offer(i))
		if err != nil {
			c.t.Fatal(err)
		}
		if err := r.Answer(i, share); err != nil {
			c.t.Fatal(err)
		}
	}
	directory := bls.NewDirectory(len(c.signers))
	for i, s := range c.signers {
		if s.bls != nil {
			if err := directory.AddTrusted(uint32(i), s.bls.Public()); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	b, wrong, err := r.Finish(directory, brokersKeys{c})
	if err != nil || len(wrong) > 0 {
		c.t.Fatal(wrong, err)
	}
	return b
}

// brokersKeys tells a broker where keys are in its own directory.
type brokersKeys struct{ c *crowd }

func (k brokersKeys) find(sender uint64) int {
	return slices.IndexFunc(k.c.signers, func(s signer) bool { return uint64(s.id) == sender })
}

func (k brokersKeys) Slots(senders []uint64, slots []uint32) int {
	for i, s := range senders {
		at := k.find(s)
		if at < 0 || k.c.signers[at].bls == nil {
			return i
		}
		slots[i] = uint32(at)
	}
	return len(senders)
}

func (k brokersKeys) Ed25519(senders []uint64, keys [][32]byte) int {
	for i, s := range senders {
		keys[i] = k.c.signers[k.find(s)].ed.Public()
	}
	return len(senders)
}

func (c *crowd) build(parent tx.Hash, height uint64, candidates []tx.Signed, batches ...*distill.Batch) *Built {
	c.t.Helper()
	built, err := c.l.Build(context.Background(), BuildInput{
		Parent: parent, Height: height, Candidates: candidates, Batches: batches, MaxBytes: 8 << 20, MaxTxs: tx.MaxBodyTx,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return built
}

func (c *crowd) execute(parent tx.Hash, height uint64, name tx.Hash, b *Built) (*Executed, error) {
	return c.l.Execute(context.Background(), ExecuteInput{Parent: parent, Block: name, Height: height, Body: b.Body, Want: b.Commitments})
}

func (c *crowd) balance(i int) uint64 {
	c.t.Helper()
	r, ok := c.l.Account(c.signers[i].id)
	if !ok {
		c.t.Fatalf("no account %d", i)
	}
	return r.Balance
}

// TestDistilled: a body of signed transactions and batches, with stragglers and a transfer that can't be paid, does what its
// transactions do one by one, before and after the folder is opened again.
func TestDistilled(t *testing.T) {
	c := newCrowd(t, 12)
	txs := []tx.Signed{c.transfer(0, 1, 10, 0), c.transfer(1, 2, 20, 0), c.transfer(2, 3, 30, 0), c.transfer(3, 4, 40, 0), c.transfer(4, 5, 2*testBalance, 0)}
	batch := c.distil(c.p.GenesisHash, []int{1}, txs...) // 2 has no BLS key, 1 is late
	if batch.Stragglers() != 2 {
		t.Fatal(batch.Stragglers())
	}
	single := c.transfer(6, 7, 60, 0)
	built := c.build(blockName(0), 1, []tx.Signed{single}, batch)
	if err := errors.Join(built.LeftBatches...); err != nil || built.Left[0] != None || built.Txs != 6 {
		t.Fatal(built.LeftBatches, built.Left, built.Txs)
	}
	done, err := c.execute(blockName(0), 1, blockName(1), built)
	if err != nil {
		t.Fatal(err)
	}
	if want := []bool{true, true, true, true, true, false}; !slices.Equal(done.Outcomes, want) {
		t.Errorf("outcomes %v", done.Outcomes)
	}
	for i, s := range append([]tx.Signed{single}, txs...) {
		if done.IDs[i] != s.TxID(c.p.GenesisHash) {
			t.Errorf("transaction %d has id %v", i, done.IDs[i])
		}
	}
	finalise(t, c.l, blockName(1))
	for i, want := range []uint64{testBalance - 10 - 2, testBalance + 10 - 20 - 2, testBalance + 20 - 30 - 2, testBalance + 30 - 40 - 2, testBalance + 40, testBalance} {
		if got := c.balance(i); got != want {
			t.Errorf("account %d has %d, want %d", i, got, want)
		}
	}
	if err := c.l.Close(); err != nil {
		t.Fatal(err)
	}
	c.o.Create = false
	c.l = mustOpen(t, c.o)
	again := c.distil(c.p.GenesisHash, nil, c.transfer(0, 1, 1, 1), c.transfer(3, 1, 1, 1))
	if ids, err := c.l.CheckBatch(again); err != nil || len(ids) != 2 || c.l.signers.cached != 2 {
		t.Fatal(ids, err, c.l.signers.cached)
	}
	built = c.build(blockName(1), 2, nil, again)
	if _, err := c.execute(blockName(1), 2, blockName(2), built); err != nil || built.LeftBatches[0] != nil {
		t.Fatal(built.LeftBatches, err)
	}
}

// TestDistilledRefused: each way in which a batch can be wrong is refused by Build, by CheckBatch and in a body.
func TestDistilledRefused(t *testing.T) {
	c := newCrowd(t, 12)
	good := c.distil(c.p.GenesisHash, []int{1}, c.transfer(0, 1, 10, 0), c.transfer(1, 2, 20, 0), c.transfer(3, 4, 40, 0))
	const head = 1 + 4 + 32 + 96
	edit := func(at int, to byte) *distill.Batch {
		t.Helper()
		b := good.Append(nil)
		b[at] ^= to
		batch, err := distill.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		return batch
	}
	stranger := edit(head+2*distill.BodyBytes+3, 0x40) // the last sender's index is far beyond those there are
	keyless := c.distil(c.p.GenesisHash, nil, c.transfer(0, 1, 10, 0), c.transfer(2, 1, 10, 0)).Append(nil)
	keyless[head+2*distill.BodyBytes] = 0 // says that 2, who has no BLS key, signed the batch
	noKey, err := distill.Decode(keyless[:len(keyless)-64])
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		batch *distill.Batch
		err   error
		text  string
	}{
		"root":      {edit(5, 1), distill.ErrRoot, ""},
		"amount":    {edit(head+19, 1), distill.ErrRoot, ""},
		"aggregate": {edit(37+95, 1), distill.ErrAggregate, ""},
		"straggler": {edit(head+3*distill.BodyBytes+1, 1), distill.ErrStraggler, ""},
		"chain":     {c.distil(tx.Hash{9}, nil, c.transfer(0, 1, 10, 0)), distill.ErrRoot, ""},
		"no key":    {noKey, distill.ErrNoKey, ""},
		"stranger":  {stranger, ErrInvalidBody, "payer"},
		"flags":     {edit(head+31, 1), tx.ErrMalformed, "flags"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.l.CheckBatch(want.batch); !errors.Is(err, ErrInvalidBody) || !errors.Is(err, want.err) || !strings.Contains(err.Error(), want.text) {
				t.Errorf("CheckBatch: %v", err)
			}
			built := c.build(blockName(0), 1, nil, want.batch, good)
			if err := built.LeftBatches[0]; !errors.Is(err, want.err) || built.LeftBatches[1] != nil || built.Txs != 3 {
				t.Errorf("Build: %v, %v, %d transactions", err, built.LeftBatches[1], built.Txs)
			}
			y, err := tx.DecodeBody(built.Body)
			if err != nil {
				t.Fatal(err)
			}
			y.Batches[0] = want.batch
			if want.batch.Count() < 3 {
				y.Outcomes = y.Outcomes[:want.batch.Count()]
			}
			built.Body = y.Append(nil)
			if _, err := c.execute(blockName(0), 1, blockName(77), built); !errors.Is(err, ErrInvalidBody) {
				t.Errorf("Execute: %v", err)
			}
		})
	}
}

// TestDistilledLeftOut: a good batch that would be skipped for the most part, or that does not fit, stays out, and the others
// go in.
func TestDistilledLeftOut(t *testing.T) {
	c := newCrowd(t, 12)
	poor := c.distil(c.p.GenesisHash, nil, c.transfer(0, 1, 2*testBalance, 0), c.transfer(1, 2, 1, 0))
	good := c.distil(c.p.GenesisHash, nil, c.transfer(3, 1, 1, 0), c.transfer(4, 2, 1, 0))
	built := c.build(blockName(0), 1, []tx.Signed{c.transfer(6, 7, 1, 0)}, poor, good)
	if !errors.Is(built.LeftBatches[0], ErrSkipped) || built.LeftBatches[1] != nil || built.Txs != 3 || built.Left[0] != None {
		t.Fatal(built.LeftBatches, built.Txs, built.Left)
	}
	if _, err := c.execute(blockName(0), 1, blockName(1), built); err != nil {
		t.Fatal(err)
	}
	small, err := c.l.Build(context.Background(), BuildInput{
		Parent: blockName(0), Height: 1, Batches: []*distill.Batch{good, poor}, MaxBytes: bodyOverhead + batchBytes(good), MaxTxs: tx.MaxBodyTx,
	})
	if err != nil || small.LeftBatches[0] != nil || !errors.Is(small.LeftBatches[1], ErrNoRoom) || len(small.Body) > bodyOverhead+batchBytes(good) {
		t.Fatal(err, small.LeftBatches)
	}
	one, err := c.l.Build(context.Background(), BuildInput{Parent: blockName(0), Height: 1, Batches: []*distill.Batch{good}, MaxBytes: 1 << 20, MaxTxs: 1})
	if err != nil || !errors.Is(one.LeftBatches[0], ErrNoRoom) || one.Txs != 0 {
		t.Fatal(err, one.LeftBatches)
	}
	// In a body, skips beyond the share make it invalid.
	y, err := tx.NewBody(nil, []*distill.Batch{poor})
	if err != nil {
		t.Fatal(err)
	}
	y.Outcomes = make([]bool, 2)
	if _, err := c.execute(blockName(0), 1, blockName(2), &Built{Body: y.Append(nil)}); !errors.Is(err, ErrInvalidBody) {
		t.Fatal(err)
	}
}

// TestDistilledForks: two branches open accounts at one place of the directory with different keys. On each, and only there,
// the batch of its own account is good, whichever was judged before, and in the end the final one's.
func TestDistilledForks(t *testing.T) {
	c := newCrowd(t, 6)
	place := tx.MakeID(c.l.table.parts[0].number, c.l.last.meta.Next[0])
	for slot, n := range c.l.last.meta.Next { // as openEffect chooses
		if n < c.l.last.meta.Next[0] {
			place = tx.MakeID(c.l.table.parts[slot].number, n)
			break
		}
	}
	branch := func(name, n uint64) (newcomer signer) {
		s := newSigner(t, place, 3*n)
		open := tx.Signed{Tx: tx.Tx{Kind: tx.Open, From: c.signers[0].id, Amount: 1000, Expiry: 1 << 30, Key: s.ed.Public()}}
		k := s.bls.Public()
		open.BLS = &tx.BLSKey{Key: k, Possession: s.bls.ProvePossession(tx.PossessionMessage(c.p.GenesisHash, open.Key, k))}
		open.Signature = c.signers[0].ed.Sign(open.Message(c.p.GenesisHash))
		built := c.build(blockName(0), 1, []tx.Signed{open})
		done, err := c.execute(blockName(0), 1, blockName(name), built)
		if err != nil || len(done.Opened) != 1 || done.Opened[0].ID != place {
			t.Fatal(err, done)
		}
		return s
	}
	left, right := branch(1, 101), branch(2, 102)
	batchOf := func(s signer) *distill.Batch {
		c.signers = append(c.signers, s)
		defer func() { c.signers = c.signers[:len(c.signers)-1] }()
		return c.distil(c.p.GenesisHash, nil, c.transfer(len(c.signers)-1, 1, 5, 0), c.transfer(1, 3, 5, 0))
	}
	ofLeft, ofRight := batchOf(left), batchOf(right)
	good := func(parent uint64, b *distill.Batch) bool {
		built := c.build(blockName(parent), 2, nil, b)
		if built.LeftBatches[0] == nil {
			if _, err := c.execute(blockName(parent), 2, blockName(100*parent), built); err != nil {
				t.Fatal(err)
			}
		}
		return built.LeftBatches[0] == nil
	}
	for range 3 {
		if !good(1, ofLeft) || good(1, ofRight) || !good(2, ofRight) || good(2, ofLeft) {
			t.Fatal("a branch judged by the other's key")
		}
	}
	if c.l.signers.cached != 0 {
		t.Error("a verdict under a key that is not final was remembered")
	}
	finalise(t, c.l, blockName(1))
	if _, err := c.l.CheckBatch(ofLeft); err != nil {
		t.Error(err)
	}
	if _, err := c.l.CheckBatch(ofRight); !errors.Is(err, distill.ErrAggregate) {
		t.Error(err)
	}
	if c.l.signers.cached != 2 || len(c.l.signers.recent) != 0 || c.l.signers.final != 5 {
		t.Errorf("%d ids, %d recent keys, %d final", c.l.signers.cached, len(c.l.signers.recent), c.l.signers.final)
	}
}

// TestGoodBatchesBounded: what is remembered is bounded by ids, oldest first.
func TestGoodBatchesBounded(t *testing.T) {
	var s signers
	s.init(1)
	ids := make([]tx.Hash, maxGoodIDs/4)
	for i := range byte(9) {
		s.remember([32]byte{i}, ids)
		s.remember([32]byte{i}, ids)
	}
	if _, ok := s.recall([32]byte{4}); ok || s.cached != maxGoodIDs || len(s.good) != 4 || len(s.order) != 4 {
		t.Error(s.cached, len(s.good), len(s.order))
	}
	if _, ok := s.recall([32]byte{5}); !ok {
		t.Error("one of the last four is forgotten")
	}
}

// TestOrdinates: what decodes a key is kept from the first start on, also where the maker of the genesis knew it, and what does
// not belong to its key is damage.
func TestOrdinates(t *testing.T) {
	const n = 40
	for _, known := range []bool{false, true} {
		c := newCrowd(t, n)
		accounts := c.o.Genesis
		made := c.o
		made.FS, made.Create = vfs.NewMem(), true
		made.Genesis = func(yield func(GenesisAccount) bool) {
			for a := range accounts {
				if a.BLS != nil && known {
					k, err := bls.ParsePublicKey(*a.BLS)
					if err != nil {
						t.Fatal(err)
					}
					y := k.Ordinate()
					a.Ordinate = &y
				}
				if !yield(a) {
					return
				}
			}
		}
		g, err := NewGenesis(made.Params, made.Genesis, 1)
		noError(t, err)
		noError(t, g.Create(made.FS, made.Dir, made.Params))
		noError(t, g.Close())
		made.Create = false
		points := func(l *Ledger) (n int) {
			noError(t, l.store.Points(0, func(uint64, []byte) (bool, error) { n++; return true, nil }))
			return n
		}
		l, err := Open(made)
		noError(t, err)
		keys := int(l.last.meta.Directory.Count())
		if got := points(l); keys == 0 || got != keys || l.signers.keys.Len() != keys {
			t.Errorf("known %t: %d ordinates, %d keys in memory, of %d", known, got, l.signers.keys.Len(), keys)
		}
		for i := range keys {
			entries, err := l.DirectoryKeys(uint64(i), 1)
			noError(t, err)
			if k, err := l.signers.keys.Key(uint32(i)); err != nil || k.Bytes() != entries[0].Key {
				t.Errorf("known %t: key %d is another, %v", known, i, err)
			}
		}
		b := l.store.NewBatch()
		b.Point(3, bytes.Repeat([]byte{1}, 48))
		noError(t, l.store.Commit(b))
		noError(t, l.Close())
		if l, err := Open(made); err == nil || !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("known %t: a wrong ordinate: %v", known, err)
			noError(t, l.Close())
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkLoadSigners(b *testing.B) {
	const n = 4096
	p := testParams(b, 0, 1, n)
	o := testOptions(p, n)
	o.Genesis = func(yield func(GenesisAccount) bool) {
		for i := range uint64(n) {
			seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
			k, err := bls.NewSecretKey(seed[:])
			if err != nil {
				b.Fatal(err)
			}
			public := k.Public()
			if !yield(GenesisAccount{ID: p.GenesisID(i), Key: seed, Balance: testBalance, BLS: &public}) {
				return
			}
		}
	}
	l, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for b.Loop() {
		l.signers.init(n)
		if err := l.loadSigners(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
}
