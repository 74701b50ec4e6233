package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	"tutti/state/receipt"
	"tutti/state/tx"
)

// twoShards is shard 0 of 2 with 20 accounts.
func twoShards(t *testing.T) (Params, *Ledger) {
	p := testParams(t, 0, 2, 20)
	p.ReceiptWindow = 3
	p.Supplies[1] = 500
	return p, mustOpen(t, testOptions(p, 20))
}

// TestReasons has one candidate for each reason.
func TestReasons(t *testing.T) {
	p := testParams(t, 0, 2, 20)
	p.ReceiptWindow, p.OpenCap, p.AccountLimit = 3, 2, 21
	p.Supplies[0] = 20 * testBalance
	l := mustOpen(t, testOptions(p, 20))
	id := p.GenesisID
	far := tx.MakeID(200, 0)
	edit := func(s tx.Signed, f func(*tx.Signed)) tx.Signed {
		f(&s)
		fakeSign(p.GenesisHash, &s, keyOf(s.From))
		return s
	}
	badSignature := transfer(&p, id(1), id(2), 1, 0)
	badSignature.Signature[0] ^= 1
	bls := edit(opening(&p, id(1), 1, 0, [32]byte{1}), func(s *tx.Signed) { s.BLS = &tx.BLSKey{Key: [48]byte{1}} })
	candidates := []struct {
		name string
		tx   tx.Signed
		want Reason
	}{
		{"good", transfer(&p, id(0), id(2), 5, 0), None},
		{"next nonce", transfer(&p, id(0), id(3), 5, 1), None},
		{"nonce again", transfer(&p, id(0), id(3), 5, 1), NonceUsed},
		{"nonce gap", transfer(&p, id(0), id(3), 5, 3), NonceGap},
		{"wrong signature", badSignature, BadSignature},
		{"no such payer", transfer(&p, tx.MakeID(0, 9), id(3), 5, 0), UnknownPayer},
		{"payer elsewhere", transfer(&p, far, id(3), 5, 0), UnknownPayer},
		{"wrong possession", bls, BadPossession},
		{"expired", edit(transfer(&p, id(1), id(2), 1, 0), func(s *tx.Signed) { s.Expiry = 0 }), Expired},
		{"fee class", edit(transfer(&p, id(1), id(2), 1, 0), func(s *tx.Signed) { s.FeeClass = 2 }), UnknownFee},
		{"amount and fee above balance", transfer(&p, id(1), id(2), testBalance-1, 0), Insufficient},
		{"overflow", transfer(&p, id(1), id(2), 1<<64-1, 0), Insufficient},
		{"deposit above balance", opening(&p, id(1), testBalance-11, 0, [32]byte{2}), Insufficient},
		{"no such receiver", transfer(&p, id(1), tx.MakeID(0, 9), 5, 0), UnknownReceiver},
		{"receiver nowhere", transfer(&p, id(1), tx.MakeID(256, 0), 5, 0), UnknownReceiver},
		{"to oneself", transfer(&p, id(1), id(1), 5, 0), SelfTransfer},
		{"whole balance", transfer(&p, id(1), id(2), testBalance-2, 0), None},
		{"spending what came in this block", transfer(&p, id(2), id(3), testBalance+1, 0), Insufficient},
		{"first opening", opening(&p, id(4), 1, 0, [32]byte{3}), None},
		{"account limit", opening(&p, id(4), 1, 1, [32]byte{4}), OpenLimit},
		{"window 1", transfer(&p, id(5), far, 1, 0), None},
		{"window 2", transfer(&p, id(5), far, 1, 1), None},
		{"window 3", transfer(&p, id(5), far, 1, 2), None},
		{"window full", transfer(&p, id(5), far, 1, 3), WindowFull},
		{"and on", transfer(&p, id(8), id(7), 1, 0), None},
		{"no room", transfer(&p, id(6), id(7), 1, 0), NoRoom},
	}
	var txs []tx.Signed
	good := 0
	for _, c := range candidates {
		txs = append(txs, c.tx)
		if c.want == None {
			good++
		}
	}
	built, err := l.Build(context.Background(), BuildInput{Parent: p.GenesisBlock, Height: 1, Candidates: txs, MaxBytes: 1 << 20, MaxTxs: good})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range candidates {
		if built.Left[i] != c.want {
			t.Errorf("%s: %v, want %v", c.name, built.Left[i], c.want)
		}
	}
	if got, want := len(built.Body), 1+5+good*tx.TransferWire+(tx.OpenBytes-tx.TransferBytes)+5+(good+7)/8; got != want {
		t.Errorf("body of %d bytes, want %d", got, want)
	}
	for _, size := range []int{0, 20, 500, len(built.Body)} {
		small, err := l.Build(context.Background(), BuildInput{Parent: p.GenesisBlock, Height: 1, Candidates: txs, MaxBytes: size, MaxTxs: good})
		if err != nil || len(small.Body) > max(size, 1) {
			t.Errorf("a body of at most %d bytes: %d, %v", size, len(small.Body), err)
		}
	}
}

// TestNetLimit: what another shard may hold of this shard's units is what this shard had at genesis.
func TestNetLimit(t *testing.T) {
	p := testParams(t, 0, 2, 4)
	p.Table = PartitionTable{{First: 0, Log2: 0, Shard: 0}, {First: 1, Log2: 0, Shard: 1}}
	l := mustOpen(t, testOptions(p, 4))
	far, rich := tx.MakeID(1, 0), tx.MakeID(0, 0)
	// 1,500,000 come in from shard 1, more than it takes to send out all that shard 0 had at genesis, and more.
	in := receiptBundle(&p, 1, 1, 0, 0, []tx.Receipt{{From: far, To: rich, Amount: 3_500_000}})
	step(t, l, p.GenesisBlock, 1, blockName(1), nil, in)
	var txs []tx.Signed
	txs = append(txs, transfer(&p, rich, far, 4_499_990, 0)) // nearly all of it: net outflow 999,990
	for i := range uint64(3) {
		txs = append(txs, transfer(&p, tx.MakeID(0, uint32(i+1)), far, 999_990, 0))
	}
	step(t, l, blockName(1), 2, blockName(2), txs)
	// Net outflow is 3,999,960 of 4,000,000. Units for one more came from nowhere but this shard.
	in = receiptBundle(&p, 1, 2, 1, 0, []tx.Receipt{{From: far, To: rich, Amount: 0}}, in.Receipts...)
	step(t, l, blockName(2), 3, blockName(3), nil, in)
	built, err := l.Build(context.Background(), BuildInput{
		Parent: blockName(3), Height: 4, MaxBytes: 1 << 20, MaxTxs: 10,
		Candidates: []tx.Signed{transfer(&p, tx.MakeID(0, 1), far, 5, 1), transfer(&p, rich, far, 1, 1)},
	})
	if err != nil || built.Left[0] != None || built.Left[1] != None {
		t.Fatal(err, built.Left)
	}
	d := l.newDebit(l.blocks[blockName(3)], &received{meta: l.blocks[blockName(3)].meta.clone()})
	d.net[0] = -int64(p.Supplies[0]) + 4
	x := transfer(&p, rich, far, 5, 1)
	if r := d.receiver(&x.Tx); r != NetLimit {
		t.Fatalf("one unit above the limit: %v", r)
	}
	x.Amount = 4
	if r := d.receiver(&x.Tx); r != None {
		t.Fatalf("at the limit: %v", r)
	}
}

// receiptBundle is a bundle to p's shard that brings receipts after those received before.
func receiptBundle(p *Params, source uint16, height, first, acked uint64, receipts []tx.Receipt, before ...tx.Receipt) tx.Bundle {
	var leaves [][32]byte
	for i, r := range append(append([]tx.Receipt{}, before...), receipts...) {
		leaves = append(leaves, r.Leaf(source, p.Shard, uint64(i)))
	}
	return tx.Bundle{Source: source, First: first, Receipts: receipts, Proof: fakeProof(ForeignHeader{
		Shard: source, Known: Known{Epoch: 1}, Height: height,
		Links: []Link{{Shard: p.Shard, Sent: first + uint64(len(receipts)), Received: acked, Root: receipt.Range{}.Append(leaves).Root()}},
	})}
}

// TestInvalidBodies breaks a good body in one way at a time.
func TestInvalidBodies(t *testing.T) {
	p, l := twoShards(t)
	id := p.GenesisID
	far := tx.MakeID(200, 0)
	step(t, l, p.GenesisBlock, 1, blockName(1), []tx.Signed{transfer(&p, id(0), far, 10, 0)}, receiptBundle(&p, 1, 5, 0, 0, nil))
	parent := blockName(1)
	var txs []tx.Signed
	for i := range uint64(18) {
		txs = append(txs, transfer(&p, id(i+1), id(0), 10, 0))
	}
	bundle := receiptBundle(&p, 1, 6, 0, 1, []tx.Receipt{{From: far, To: id(3), Amount: 300}})
	built, err := l.Build(context.Background(), BuildInput{Parent: parent, Height: 2, Candidates: txs, Bundles: []tx.Bundle{bundle}, MaxBytes: 1 << 20, MaxTxs: 100})
	if err != nil || built.Txs != len(txs) || built.LeftBundles[0] != nil {
		t.Fatal(err, built)
	}
	header := func(f func(*ForeignHeader)) func(*tx.Body, *Commitments) {
		return func(y *tx.Body, c *Commitments) {
			h, err := fakeHeaders{}.Verify(1, Known{}, y.Bundles[0].Proof)
			if err != nil {
				t.Fatal(err)
			}
			f(&h)
			y.Bundles[0].Proof = fakeProof(h)
		}
	}
	cases := []struct {
		name  string
		want  string
		spoil func(*tx.Body, *Commitments)
	}{
		{"state root", "state root", func(y *tx.Body, c *Commitments) { c.State[0] ^= 1 }},
		{"diff hash", "diff hash", func(y *tx.Body, c *Commitments) { c.Diff[0] ^= 1 }},
		{"outcomes root", "outcomes root", func(y *tx.Body, c *Commitments) { c.Outcomes[0] ^= 1 }},
		{"link", "links", func(y *tx.Body, c *Commitments) { c.Links = []Link{{Shard: 1}} }},
		{"links missing", "links", func(y *tx.Body, c *Commitments) { c.Links = nil }},
		{"outcome bit", "the reason here is none", func(y *tx.Body, c *Commitments) {
			y.Outcomes[3] = false
			leaves := make([][32]byte, 0)
			for i := range y.Txs {
				leaves = append(leaves, tx.TxLeaf(y.Txs[i].TxID(p.GenesisHash), y.Outcomes[i]))
			}
			leaves = append(leaves, tx.CreditLeaf(bundle.Receipts[0].Leaf(1, 0, 0), tx.Credited))
			c.Outcomes = modelListRoot(leaves)
		}},
		{"too many skips", "are skipped", func(y *tx.Body, c *Commitments) { clear(y.Outcomes) }},
		{"signature", "bad_signature", func(y *tx.Body, c *Commitments) { y.Txs[7].Signature[3] ^= 1 }},
		{"payer", "unknown_payer", func(y *tx.Body, c *Commitments) {
			y.Txs[0].From = tx.MakeID(0, 9)
			c.Outcomes = modelListRoot(append(leavesOf(&p, y), tx.CreditLeaf(bundle.Receipts[0].Leaf(1, 0, 0), tx.Credited)))
		}},
		{"not a body", "malformed", func(y *tx.Body, c *Commitments) { y.Txs[0].Kind = 9 }},
		{"bundle from oneself", "no such other shard", func(y *tx.Body, c *Commitments) { y.Bundles[0].Source = 0 }},
		{"bundle from nowhere", "no such other shard", func(y *tx.Body, c *Commitments) { y.Bundles[0].Source = 2 }},
		{"proof", "proof", func(y *tx.Body, c *Commitments) { y.Bundles[0].Proof = []byte("?") }},
		{"header of another shard", "is of shard 0", header(func(h *ForeignHeader) { h.Shard = 0 })},
		{"older header", "older", header(func(h *ForeignHeader) { h.Height = 4 })},
		{"older epoch", "older", header(func(h *ForeignHeader) { h.Epoch, h.Height = 0, 100 })},
		{"no link", "no link", header(func(h *ForeignHeader) { h.Links[0].Shard = 1 })},
		{"acknowledges the future", "acknowledges", header(func(h *ForeignHeader) { h.Links[0].Received = 2 })},
		{"more was sent", "has sent 2", header(func(h *ForeignHeader) { h.Links[0].Sent = 2 })},
		{"root", "root", header(func(h *ForeignHeader) { h.Links[0].Root[0] ^= 1 })},
		{"receipt changed", "root", func(y *tx.Body, c *Commitments) { y.Bundles[0].Receipts[0].Amount-- }},
		{"gap in receipts", "were received before", func(y *tx.Body, c *Commitments) { y.Bundles[0].First = 1 }},
		{"net inflow", "more units", func(y *tx.Body, c *Commitments) { y.Bundles[0].Receipts[0].Amount = 511 }},
		{"overflow", "more units", func(y *tx.Body, c *Commitments) {
			y.Bundles[0].Receipts[0].Amount = 1<<64 - 1
			y.Bundles[0].Receipts = append(y.Bundles[0].Receipts, tx.Receipt{Amount: 2})
			header(func(h *ForeignHeader) { h.Links[0].Sent = 2 })(y, c)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			body, err := tx.DecodeBody(built.Body)
			if err != nil {
				t.Fatal(err)
			}
			want := built.Commitments
			c.spoil(body, &want)
			_, err = l.Execute(context.Background(), ExecuteInput{Parent: parent, Block: blockName(50), Height: 2, Body: body.Append(nil), Want: want})
			if !errors.Is(err, ErrInvalidBody) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want %q", err, c.want)
			}
		})
	}
	// None of them left a trace.
	done, err := l.Execute(context.Background(), ExecuteInput{Parent: parent, Block: blockName(2), Height: 2, Body: built.Body, Want: built.Commitments})
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(&p, testAccounts(&p, 20))
	m, _ = m.block([]tx.Signed{transfer(&p, id(0), far, 10, 0)}, []tx.Bundle{receiptBundle(&p, 1, 5, 0, 0, nil)})
	m, _ = m.block(txs, []tx.Bundle{bundle})
	if done.Root != m.root() {
		t.Fatal("another root than without the invalid bodies")
	}
	// Build leaves a bad bundle out and says why.
	bad := bundle
	bad.First = 7
	left, err := l.Build(context.Background(), BuildInput{Parent: parent, Height: 2, Bundles: []tx.Bundle{bad, bundle, bundle}, MaxBytes: 1 << 20})
	if err != nil || left.LeftBundles[0] == nil || left.LeftBundles[1] != nil || left.LeftBundles[2] == nil {
		t.Fatal(err, left)
	}
}

func leavesOf(p *Params, y *tx.Body) (leaves [][32]byte) {
	for i := range y.Txs {
		leaves = append(leaves, tx.TxLeaf(y.Txs[i].TxID(p.GenesisHash), y.Outcomes[i]))
	}
	return leaves
}

// TestSkips: up to 16 skips, or a quarter, are valid.
func TestSkips(t *testing.T) {
	for _, c := range []struct {
		txs, skips int
		valid      bool
	}{{16, 16, true}, {17, 17, false}, {40, 16, true}, {40, 17, false}, {80, 20, true}, {80, 21, false}} {
		p := testParams(t, 0, 1, 100)
		l := mustOpen(t, testOptions(p, 100))
		var y tx.Body
		for i := range c.txs {
			x := transfer(&p, p.GenesisID(uint64(i)), p.GenesisID(uint64(i+1)), 1, 0)
			if i < c.skips {
				x = transfer(&p, x.From, x.To, 1, 9)
			}
			y.Txs, y.Outcomes = append(y.Txs, x), append(y.Outcomes, i >= c.skips)
		}
		g := newModel(&p, testAccounts(&p, 100))
		want := Commitments{Outcomes: modelListRoot(leavesOf(&p, &y)), State: g.root()}
		_, err := l.Execute(context.Background(), ExecuteInput{Parent: p.GenesisBlock, Block: blockName(1), Height: 1, Body: y.Append(nil), Want: want})
		if (err == nil) != c.valid || err != nil && !errors.Is(err, ErrInvalidBody) {
			t.Errorf("%d skips of %d: %v", c.skips, c.txs, err)
		}
	}
}

func TestLastNonceIsNeverUsed(t *testing.T) {
	p := testParams(t, 0, 1, 4)
	l := mustOpen(t, testOptions(p, 4))
	id := p.GenesisID(0)
	l.table.parts[0].cell(0).setNonce(1<<32 - 1)
	x := transfer(&p, id, p.GenesisID(1), 1, 1<<32-1)
	in, _ := l.receive(l.base, nil, 0)
	if r := l.newDebit(l.base, in).apply(&x.Tx); r != NonceGap {
		t.Fatalf("the last nonce: %v", r)
	}
	l.table.parts[0].cell(0).setNonce(0)
}

// TestCalls has the errors that are not about bodies.
func TestCalls(t *testing.T) {
	p, l := twoShards(t)
	ctx := context.Background()
	execute := func(parent, name tx.Hash, height uint64) error {
		_, err := l.Execute(ctx, ExecuteInput{Parent: parent, Block: name, Height: height})
		return err
	}
	if err := execute(blockName(7), blockName(8), 1); !errors.Is(err, ErrUnknownParent) {
		t.Errorf("unknown parent: %v", err)
	}
	if err := execute(p.GenesisBlock, blockName(8), 2); !errors.Is(err, ErrHeight) {
		t.Errorf("wrong height: %v", err)
	}
	step(t, l, p.GenesisBlock, 1, blockName(1), nil)
	step(t, l, blockName(1), 2, blockName(2), nil)
	for _, c := range []struct {
		name tx.Hash
		want error
	}{{blockName(2), ErrOrder}, {blockName(9), ErrUnknownParent}, {p.GenesisBlock, nil}, {blockName(1), nil}, {blockName(1), nil}, {p.GenesisBlock, ErrOrder}} {
		if err := l.Finalise(ctx, c.name); !errors.Is(err, c.want) {
			t.Errorf("finalising %v: %v, want %v", c.name, err, c.want)
		}
	}
	l.Abandon(blockName(1)) // final: nothing happens
	l.Abandon(blockName(77))
	if err := execute(p.GenesisBlock, blockName(8), 1); !errors.Is(err, ErrUnknownParent) {
		t.Errorf("parent below the final block: %v", err)
	}
	finalise(t, l, blockName(2))
	parent := blockName(2)
	for h := uint64(3); h < 3+maxDepth; h++ {
		step(t, l, parent, h, blockName(h), nil)
		parent = blockName(h)
	}
	if err := execute(parent, blockName(8e9), 3+maxDepth); !errors.Is(err, ErrTooDeep) {
		t.Errorf("too deep: %v", err)
	}
	for n := uint64(0); ; n++ {
		if _, err := l.Build(ctx, BuildInput{Parent: blockName(2), Height: 3}); errors.Is(err, ErrTooDeep) {
			break
		} else if n > maxBlocks {
			t.Fatalf("no bound on the number of blocks: %v", err)
		}
		step(t, l, blockName(2), 3, blockName(1e6+n), nil)
	}
	if _, err := l.AccountProof(tx.MakeID(200, 0)); !errors.Is(err, ErrNotHere) {
		t.Errorf("proof of an account elsewhere: %v", err)
	}
	for _, r := range [][2]uint64{{0, 1}, {2, 1}, {0, 1 << 40}} {
		if _, err := l.Receipts(1, r[0], r[1]); !errors.Is(err, ErrNotStored) {
			t.Errorf("receipts %v: %v", r, err)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Finalise(cancelled, blockName(3)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	if err := execute(parent, blockName(8), 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := l.Finalise(ctx, blockName(3)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := l.Receipts(1, 0, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := l.AccountProof(p.GenesisID(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, ok := l.Account(p.GenesisID(0)); ok {
		t.Error("after Close: an account")
	}
}

// TestBLSKeys: the directory is readable and in the records.
// TestBLSKeys has keys from genesis and from an opening, before and after the folder is opened again.
func TestBLSKeys(t *testing.T) {
	p := testParams(t, 0, 2, 20)
	o := testOptions(p, 20)
	o.Genesis = withBLS(o.Genesis)
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	x := opening(&p, p.GenesisID(0), 50, 0, [32]byte{7})
	x.BLS = &tx.BLSKey{Key: [48]byte{1, 2, 3}}
	d := sha256.Sum256(append(x.BLS.Key[:], tx.PossessionMessage(p.GenesisHash, x.Key, x.BLS.Key)...))
	copy(x.BLS.Possession[:], d[:])
	fakeSign(p.GenesisHash, &x, keyOf(x.From))
	done := step(t, l, p.GenesisBlock, 1, blockName(1), []tx.Signed{opening(&p, p.GenesisID(1), 50, 0, [32]byte{6}), x})
	if _, ok := l.Account(done.Opened[1].ID); ok {
		t.Fatal("an account before it is final")
	}
	finalise(t, l, blockName(1))
	check := func(when string) {
		t.Helper()
		for id, want := range map[tx.ID][48]byte{
			p.GenesisID(0): {0, 0, 1}, p.GenesisID(1): {}, p.GenesisID(7): {7, 0, 1}, p.GenesisID(19): {},
			done.Opened[0].ID: {}, done.Opened[1].ID: {1, 2, 3},
		} {
			if key, ok, err := l.BLSKey(id); err != nil || ok != (want != [48]byte{}) || key != want {
				t.Errorf("%s: account %v: key %x, %v, %v", when, id, key, ok, err)
			}
		}
		if _, _, known, signs := l.Signer(tx.MakeID(200, 0)); known || signs {
			t.Error("a signer that is no account")
		}
		if _, ok, err := l.BLSKey(tx.MakeID(200, 0)); ok || err != nil {
			t.Errorf("%s: a key of an account elsewhere", when)
		}
		if n := l.Meta().Directory.Count(); n != 3+1 {
			t.Errorf("%s: %d keys in the directory", when, n)
		}
		if opened, err := l.Opened(1); err != nil || !slices.Equal(opened, done.Opened) {
			t.Errorf("%s: block 1 opened %v, %v, want %v", when, opened, err, done.Opened)
		}
		if opened, err := l.Opened(2); err != nil || len(opened) != 0 {
			t.Errorf("%s: block 2 opened %v, %v", when, opened, err)
		}
	}
	check("made")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.Create = false
	l = mustOpen(t, o)
	check("opened again")
}

func TestReadOpened(t *testing.T) {
	good := appendOpened(nil, []Opened{{Tx: 0, ID: tx.MakeID(1, 2)}, {Tx: 3, ID: tx.MakeID(4, 5)}})
	if got, err := readOpened(good); err != nil || len(got) != 2 || got[1] != (Opened{3, tx.MakeID(4, 5)}) {
		t.Errorf("%v, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"cut":          good[:15],
		"twice":        append(slices.Clip(good[10:]), good[10:]...),
		"out of order": append(slices.Clip(good[10:]), good[:10]...),
		"beyond":       {255, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, err := readOpened(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
