package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tutti/state/tx"
)

// treeBlock is a block of the test's own fork tree.
type treeBlock struct {
	name   tx.Hash
	parent *treeBlock
	model  *model
	want   Commitments
	body   []byte
}

// forkTest drives a ledger with random forks and compares everything with the model.
type forkTest struct {
	p      Params
	o      Options
	clock  *clock
	l      *Ledger
	blocks []*treeBlock // known and not abandoned; the first is the final one
	below  []*treeBlock // final ones before it
	names  uint64
	opened int
}

const forkAccounts = 40

func newForkTest(t *rapid.T, tb testing.TB) *forkTest {
	f := &forkTest{p: testParams(tb, 1, 3, forkAccounts), clock: &clock{time.Unix(1e9, 0)}}
	f.p.AccountLimit = forkAccounts + 60
	f.p.ReceiptWindow = 12
	f.p.OpenCap = 3
	f.p.Supplies = []uint64{1_000_000, forkAccounts * testBalance, 1_000_000}
	f.o = testOptions(f.p, forkAccounts)
	f.o.Genesis = withBLS(f.o.Genesis)
	f.o.Now, f.o.PageCycle = f.clock.now, 10*time.Second
	f.o.Workers = rapid.SampledFrom([]int{1, 2, 3, 5, 8}).Draw(t, "workers")
	l, err := Open(f.o)
	if err != nil {
		t.Fatal(err)
	}
	f.l = l
	m := newModel(&f.p, f.o.Genesis)
	f.blocks = []*treeBlock{{name: f.p.GenesisBlock, model: m}}
	return f
}

func (f *forkTest) id(t *rapid.T, m *model, label string) tx.ID {
	parts := f.p.Table.Partitions(f.p.Shard)
	switch rapid.IntRange(0, 9).Draw(t, label+" kind") {
	case 0: // another shard or nowhere
		return tx.MakeID(rapid.SampledFrom([]uint16{0, 255, 256, 65535}).Draw(t, label), rapid.Uint32Range(0, 3).Draw(t, label+" index"))
	case 1: // perhaps not opened
		return tx.MakeID(rapid.SampledFrom(parts).Draw(t, label), rapid.Uint32Range(0, 2).Draw(t, label+" index"))
	default:
		return f.p.GenesisID(rapid.Uint64Range(0, forkAccounts-1).Draw(t, label))
	}
}

func (f *forkTest) transaction(t *rapid.T, m *model, nonces map[tx.ID]uint32) tx.Signed {
	from := f.p.GenesisID(rapid.Uint64Range(0, 7).Draw(t, "from"))
	if _, ok := nonces[from]; !ok {
		nonces[from] = m.accounts[from].Nonce
	}
	x := tx.Tx{
		Kind: tx.Transfer, From: from, Nonce: nonces[from], Expiry: 1 << 30,
		Amount: rapid.SampledFrom([]uint64{0, 1, 77, 100_000, 999_990, 1 << 63, 1<<64 - 1}).Draw(t, "amount"),
	}
	if x.Amount < 100_000 {
		nonces[from]++
	}
	switch rapid.IntRange(0, 19).Draw(t, "fault") {
	case 0:
		x.Nonce++
	case 1:
		x.Expiry = uint32(m.height)
	case 2:
		x.FeeClass = 7
	case 3:
		x.FeeClass = 1
	}
	if rapid.IntRange(0, 4).Draw(t, "open") == 0 {
		x.Kind = tx.Open
		f.opened++
		x.Key = keyOf(tx.ID(1<<40 + f.opened))
		if rapid.Bool().Draw(t, "bls") {
			x.BLS = &tx.BLSKey{Key: [48]byte(append(x.Key[:], x.Key[:16]...))}
			d := sha256.Sum256(append(x.BLS.Key[:], tx.PossessionMessage(f.p.GenesisHash, x.Key, x.BLS.Key)...))
			copy(x.BLS.Possession[:], d[:])
		}
	} else {
		x.To = f.id(t, m, "to")
	}
	s := tx.Signed{Tx: x}
	fakeSign(f.p.GenesisHash, &s, m.accounts[from].Key)
	return s
}

// bundle makes up what a foreign shard might send next.
func (f *forkTest) bundle(t *rapid.T, m *model, source uint16) (tx.Bundle, bool) {
	ch := m.channels[source]
	u := tx.Bundle{Source: source, First: uint64(len(ch.received))}
	next := m.clone()
	room := int64(f.p.Supplies[source]) - int64(ch.inflow-ch.outflow)
	for range rapid.IntRange(0, 4).Draw(t, "receipts") {
		r := tx.Receipt{
			From: tx.MakeID(0, 5), To: f.id(t, m, "receipt to"), Amount: rapid.Uint64Range(0, 3000).Draw(t, "receipt amount"),
			Tx: blockName(f.names + 1e6), Return: rapid.IntRange(0, 3).Draw(t, "return") == 0,
		}
		if room -= int64(r.Amount); room < 0 {
			break
		}
		u.Receipts = append(u.Receipts, r)
	}
	next.channels[source].received = append(slices.Clip(ch.received), u.Receipts...)
	known := Known{max(1, ch.known.Epoch), ch.known.Committee}
	if rapid.IntRange(0, 3).Draw(t, "next epoch?") == 0 {
		known = nextKnown(known)
	}
	h := ForeignHeader{Shard: source, Known: known, Height: ch.height + uint64(rapid.IntRange(0, 3).Draw(t, "newer")), Links: []Link{
		{Shard: 9}, {
			Shard: f.p.Shard, Sent: u.First + uint64(len(u.Receipts)), Root: next.receivedRange(source).Root(),
			Received: rapid.Uint64Range(ch.acked, uint64(len(ch.sent))).Draw(t, "acked"),
		},
	}}
	u.Proof = fakeProofFrom(h, &ch.known)
	return u, true
}

func (f *forkTest) pick(t *rapid.T) *treeBlock {
	// The newest ones most often, so that chains grow.
	i := rapid.IntRange(0, min(len(f.blocks)-1, 5)).Draw(t, "parent")
	return f.blocks[len(f.blocks)-1-i]
}

func (f *forkTest) input(t *rapid.T, parent *treeBlock) ([]tx.Signed, []tx.Bundle) {
	nonces := map[tx.ID]uint32{}
	txs := make([]tx.Signed, rapid.IntRange(0, 12).Draw(t, "txs"))
	for i := range txs {
		txs[i] = f.transaction(t, parent.model, nonces)
	}
	var bundles []tx.Bundle
	for _, source := range []uint16{0, 2} {
		if rapid.IntRange(0, 2).Draw(t, "bundle?") == 0 {
			u, _ := f.bundle(t, parent.model, source)
			bundles = append(bundles, u)
		}
	}
	return txs, bundles
}

func (f *forkTest) commitments(parent *treeBlock, m *model) Commitments {
	c := Commitments{Outcomes: modelListRoot(m.outcomes), Links: m.links(), State: parent.model.root()}
	if parent.parent != nil {
		c.State = parent.parent.model.root()
		if parent.parent.parent != nil {
			c.Diff = parent.parent.model.diff(parent.parent.parent.model)
		}
	}
	return c
}

// execute executes a random body with the model's outcome bits, sometimes falsified.
func (f *forkTest) execute(t *rapid.T) {
	parent := f.pick(t)
	txs, bundles := f.input(t, parent)
	m, outcomes := parent.model.block(txs, bundles)
	body := tx.Body{Txs: txs, Bundles: bundles, Outcomes: slices.Clone(outcomes)}
	want := f.commitments(parent, m)
	f.names++
	b := &treeBlock{name: blockName(f.names), parent: parent, model: m, want: want, body: body.Append(nil)}
	good := true
	switch rapid.IntRange(0, 9).Draw(t, "lie") {
	case 0:
		if len(txs) > 0 {
			i := rapid.IntRange(0, len(txs)-1).Draw(t, "bit")
			body.Outcomes[i] = !body.Outcomes[i]
			lie := slices.Clone(m.outcomes)
			lie[i] = tx.TxLeaf(txs[i].TxID(f.p.GenesisHash), body.Outcomes[i])
			want.Outcomes, good = modelListRoot(lie), false
		}
	case 1:
		want.State[3] ^= 1
		good = false
	}
	done, err := f.l.Execute(context.Background(), ExecuteInput{Parent: parent.name, Block: b.name, Height: m.height, Body: body.Append(nil), Want: want})
	if !good {
		if !errors.Is(err, ErrInvalidBody) {
			t.Fatalf("a false body: %v", err)
		}
		return
	}
	f.executed(t, b, done, err)
}

func (f *forkTest) executed(t *rapid.T, b *treeBlock, done *Executed, err error) {
	if err != nil {
		t.Fatal(err)
	}
	if done.Root != b.model.root() {
		t.Fatalf("block at height %d: root %v, the model's %v", b.model.height, done.Root, b.model.root())
	}
	f.blocks = append(f.blocks, b)
}

// build builds a random body and executes it.
func (f *forkTest) build(t *rapid.T) {
	parent := f.pick(t)
	txs, bundles := f.input(t, parent)
	height := parent.model.height + 1
	built, err := f.l.Build(context.Background(), BuildInput{Parent: parent.name, Height: height, Candidates: txs, Bundles: bundles, MaxBytes: 1 << 20, MaxTxs: 100})
	if err != nil {
		t.Fatal(err)
	}
	var kept []tx.Signed
	for i, r := range built.Left {
		if r == None {
			kept = append(kept, txs[i])
		}
	}
	m, outcomes := parent.model.block(kept, bundles)
	if len(kept) != built.Txs || slices.Contains(outcomes, false) {
		t.Fatalf("built a body of %d with outcomes %v", built.Txs, outcomes)
	}
	want := f.commitments(parent, m)
	if err := match(built.Commitments, want); err != nil {
		t.Fatal(err)
	}
	// What was left out would fail at its place.
	all, _ := parent.model.block(txs, bundles)
	if len(kept) == len(txs) && all.root() != m.root() {
		t.Fatal("the model contradicts itself")
	}
	f.names++
	b := &treeBlock{name: blockName(f.names), parent: parent, model: m, want: want, body: built.Body}
	done, err := f.l.Execute(context.Background(), ExecuteInput{Parent: parent.name, Block: b.name, Height: height, Body: b.body, Want: want})
	f.executed(t, b, done, err)
}

func (f *forkTest) keep(which func(*treeBlock) bool) {
	f.blocks = slices.DeleteFunc(f.blocks, func(b *treeBlock) bool { return !which(b) })
}

func (b *treeBlock) above(a *treeBlock) bool {
	for ; b != nil; b = b.parent {
		if b == a {
			return true
		}
	}
	return false
}

// finalise finalises a random child of the final block, if there is one.
func (f *forkTest) finalise(t *rapid.T) {
	final := f.blocks[0]
	var children []*treeBlock
	for _, b := range f.blocks {
		if b.parent == final {
			children = append(children, b)
		}
	}
	if len(children) == 0 {
		return
	}
	b := rapid.SampledFrom(children).Draw(t, "child")
	f.clock.at = f.clock.at.Add(time.Duration(rapid.IntRange(0, 8).Draw(t, "seconds")) * time.Second)
	if err := f.l.Finalise(context.Background(), b.name); err != nil {
		t.Fatal(err)
	}
	f.below = append(f.below, final)
	f.keep(func(x *treeBlock) bool { return x.above(b) })
	if len(f.blocks) == 0 || f.blocks[0] != b {
		t.Fatalf("the final block is not the first of %d", len(f.blocks))
	}
}

func (f *forkTest) abandon(t *rapid.T) {
	if len(f.blocks) == 1 {
		return
	}
	b := f.blocks[rapid.IntRange(1, len(f.blocks)-1).Draw(t, "abandoned")]
	f.l.Abandon(b.name)
	f.keep(func(x *treeBlock) bool { return !x.above(b) })
	_, err := f.l.Execute(context.Background(), ExecuteInput{Parent: b.name, Block: blockName(1e9), Height: b.model.height + 1, Body: b.body, Want: b.want})
	if !errors.Is(err, ErrUnknownParent) {
		t.Fatalf("executing on an abandoned block: %v", err)
	}
}

// again executes a known block again, which changes nothing.
func (f *forkTest) again(t *rapid.T) {
	b := f.blocks[rapid.IntRange(0, len(f.blocks)-1).Draw(t, "again")]
	if b.parent == nil || b == f.blocks[0] {
		return
	}
	done, err := f.l.Execute(context.Background(), ExecuteInput{Parent: b.parent.name, Block: b.name, Height: b.model.height, Body: b.body, Want: b.want})
	if err != nil || done.Root != b.model.root() {
		t.Fatalf("executing a block again: %v", err)
	}
}

// reopen closes the ledger and opens it again: what is unfinalised is gone.
func (f *forkTest) reopen(t *rapid.T) {
	if err := f.l.Close(); err != nil {
		t.Fatal(err)
	}
	o := f.o
	o.Create = false
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f.l = l
	f.keep(func(b *treeBlock) bool { return b == f.blocks[0] })
}

func (f *forkTest) check(t *rapid.T) {
	final := f.blocks[0]
	if h, name := f.l.Final(); h != final.model.height || name != final.name {
		t.Fatalf("final block %v at height %d", name, h)
	}
	if err := final.model.agrees(f.l); err != nil {
		t.Fatal(err)
	}
	base := final
	for range min(StateLag, len(f.below)) {
		base = base.parent
	}
	root := base.model.root()
	for range 2 {
		id := tx.MakeID(rapid.SampledFrom(f.p.Table.Partitions(f.p.Shard)).Draw(t, "proven partition"), rapid.Uint32Range(0, 2).Draw(t, "proven index"))
		proof, err := f.l.AccountProof(id)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := DecodeAccountProof(proof.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		r, exists, err := VerifyAccountProof(root, id, decoded)
		want, ok := base.model.accounts[id]
		if err != nil || exists != ok || r != want || proof.Height != base.model.height {
			t.Fatalf("proof of %x at height %d: %+v, %v, %v; want %+v, %v", uint64(id), proof.Height, r, exists, err, want, ok)
		}
		if _, _, err := VerifyAccountProof(root, id^1, decoded); exists && err == nil {
			t.Fatal("a proof verifies for another account")
		}
	}
}

func modelListRoot(leaves [][32]byte) tx.Hash {
	// The definition in accel/merkle, in full.
	depth := 0
	for 1<<depth < len(leaves) {
		depth++
	}
	level := append(slices.Clone(leaves), make([][32]byte, 1<<depth-len(leaves))...)
	for len(level) > 1 {
		var next [][32]byte
		for i := 0; i < len(level); i += 2 {
			next = append(next, sha256.Sum256(append(level[i][:], level[i+1][:]...)))
		}
		level = next
	}
	if len(leaves) == 0 {
		level = [][32]byte{{}}
	}
	b := binary.BigEndian.AppendUint64([]byte("tutti/list/1\x00\x00\x00\x00"), uint64(len(leaves)))
	return sha256.Sum256(append(b, level[0][:]...))
}

func TestForksAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := newForkTest(r, t)
		defer func() {
			if err := f.l.Close(); err != nil {
				r.Fatal(err)
			}
		}()
		for i := range rapid.IntRange(1, 25).Draw(r, "steps") {
			switch rapid.SampledFrom([]string{"execute", "execute", "execute", "build", "build", "finalise", "finalise", "finalise", "abandon", "again", "reopen"}).Draw(r, fmt.Sprint("step ", i)) {
			case "execute":
				f.execute(r)
			case "build":
				f.build(r)
			case "finalise":
				f.finalise(r)
			case "abandon":
				f.abandon(r)
			case "again":
				f.again(r)
			case "reopen":
				f.reopen(r)
			}
		}
		f.check(r)
	})
}
