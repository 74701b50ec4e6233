// Package endless runs one validator's ledger and logs through very many small blocks on a simulated clock, and looks at
// what grows. Blocks carry a few transfers, receipts to and from a made-up second shard that acknowledges them, and at
// first some openings; each is built, executed, appended to the block log with votes and a finalization, and finalised.
// Signatures and foreign headers are trusted, and nothing waits for the disk: sizes are measured, not times.
//
// All of a block follows from its height and the ledger, so a run goes on in a folder where another one ended.
package endless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
	"tutti/state/ledger"
	"tutti/state/receipt"
	"tutti/state/tx"
)

// Config says what to run.
type Config struct {
	Dir       string // made if it is missing
	Blocks    uint64 // the height to reach
	Accounts  uint64
	Every     uint64           // blocks between samples
	Retention consensus.Height // blocks that the block log keeps
	PageCycle time.Duration    // of the simulated clock, on which a block takes a second
}

const (
	balance  = 1 << 40
	openings = 500 // in all
	shards   = 2
)

// Chain is a running one. One goroutine uses it.
type Chain struct {
	c      Config
	params ledger.Params
	now    time.Time
	ledger *ledger.Ledger
	log    *blocklog.Log
	parent *consensus.Header // nil: genesis
}

// Open makes the chain in the folder, or goes on with the one there.
func Open(c Config) (_ *Chain, err error) {
	n := &Chain{c: c}
	if n.params, err = params(c.Accounts); err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(c.Dir, "ledger"))
	create := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	fs := hasty()
	n.ledger, err = ledger.Open(ledger.Options{
		FS: fs, Dir: filepath.Join(c.Dir, "ledger"), Create: create, Genesis: n.genesis, Params: n.params,
		Verifier: trusting{}, Headers: headers{}, Possession: func([48]byte, []byte, [96]byte) bool { return true },
		Workers: 1, PageCycle: c.PageCycle, Now: func() time.Time { return n.now },
		History: 2*uint64(c.Retention) + 4096, // as the node has it
	})
	if err != nil {
		return nil, err
	}
	n.log, err = blocklog.Open(blocklog.Options{
		FS: fs, Dir: filepath.Join(c.Dir, "log"), Chain: consensus.Hash(n.params.GenesisHash), Create: create, Retention: c.Retention,
	})
	if err == nil && n.Height() > 0 {
		_, name := n.ledger.Final()
		n.parent, err = n.log.Header(consensus.Hash(name))
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.tick()
	return n, nil
}

// Run makes blocks until the height is reached, and samples on the way.
func Run(ctx context.Context, c Config, sample func(Sample) error) (err error) {
	n, err := Open(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	for n.Height() < c.Blocks {
		if err := n.Next(ctx); err != nil {
			return fmt.Errorf("block %d: %w", n.Height()+1, err)
		}
		if n.Height()%c.Every > 0 {
			continue
		}
		s, err := n.Sample()
		if err == nil {
			err = sample(s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func params(accounts uint64) (ledger.Params, error) {
	table, err := ledger.GenesisTable(shards)
	return ledger.Params{
		GenesisHash: tx.Hash{1}, GenesisBlock: tx.Hash{2}, Shards: shards, Table: table, Fees: []uint64{1}, OpenDeposit: 1, OpenCap: 8,
		AccountLimit: accounts + openings, ReceiptWindow: 1000, Supplies: []uint64{accounts * balance, accounts * balance},
	}, err
}

func (n *Chain) genesis(yield func(ledger.GenesisAccount) bool) {
	for i := range n.c.Accounts {
		id := n.params.GenesisID(i)
		if !yield(ledger.GenesisAccount{ID: id, Key: [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}, Balance: balance}) {
			return
		}
	}
}

// Close ends the run; the folder can be opened again.
func (n *Chain) Close() error {
	var err error
	if n.log != nil {
		err = n.log.Close()
	}
	return errors.Join(err, n.ledger.Close())
}

// Height is that of the last block.
func (n *Chain) Height() uint64 {
	h, _ := n.ledger.Final()
	return h
}

func (n *Chain) tick() { n.now = time.Unix(1e9+int64(n.Height()), 0) }

// Next makes the next block and makes it final.
func (n *Chain) Next(ctx context.Context) error {
	height, parent := n.ledger.Final()
	height++
	rng := rand.New(rand.NewPCG(height, 1))
	built, err := n.ledger.Build(ctx, ledger.BuildInput{
		Parent: parent, Height: height, Candidates: n.transactions(height, rng), Bundles: n.bundles(height, rng), MaxBytes: 1 << 20, MaxTxs: 1000,
	})
	if err != nil {
		return err
	}
	if err := errors.Join(built.LeftBundles...); err != nil {
		return err
	}
	b := consensus.Block{Header: n.header(height, built), Body: built.Body}
	name := b.Header.Hash()
	in := ledger.ExecuteInput{Parent: parent, Block: tx.Hash(name), Height: height, Body: built.Body, Want: built.Commitments}
	if _, err := n.ledger.Execute(ctx, in); err != nil {
		return err
	}
	if err := n.certify(b, name); err != nil {
		return err
	}
	n.tick()
	if err := n.ledger.Finalise(ctx, tx.Hash(name)); err != nil {
		return err
	}
	n.parent = b.Header
	return nil
}

func (n *Chain) header(height uint64, built *ledger.Built) *consensus.Header {
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: consensus.Hash(n.params.GenesisHash), View: consensus.View(height), Height: consensus.Height(height),
		TimeMs: int64(height) * 1000, Body: consensus.NewBodyRef(built.Body), Outcomes: consensus.Hash(built.Commitments.Outcomes),
		State: consensus.Hash(built.Commitments.State), Diff: consensus.Hash(built.Commitments.Diff), Parent: consensus.Hash(n.params.GenesisBlock),
	}
	if n.parent != nil {
		h.Parent = n.parent.Hash()
	}
	for _, k := range built.Commitments.Links {
		h.Links = append(h.Links, consensus.Link{Shard: consensus.ShardID(k.Shard), Sent: k.Sent, Received: k.Received, Root: consensus.Hash(k.Root)})
	}
	return h
}

// certify logs what a validator logs about a block that becomes final.
func (n *Chain) certify(b consensus.Block, name consensus.Hash) error {
	st := consensus.Statement{Kind: consensus.Notarize, View: b.Header.View, Block: name}
	signers := consensus.Signers{0x0f}
	notarize := &consensus.Vote{Statement: st}
	notarization := &consensus.Certificate{Statement: st, Signers: signers}
	st.Kind = consensus.Finalize
	finalization := &consensus.Certificate{Statement: st, Signers: signers}
	return errors.Join(
		n.log.AppendRecord(simplex.Record{Vote: notarize}), n.log.AppendBlock(b), n.log.Sync(),
		n.log.AppendRecord(simplex.Record{Cert: notarization}), n.log.AppendRecord(simplex.Record{Vote: &consensus.Vote{Statement: st}}), n.log.Sync(),
		n.log.AppendFinal(finalization), n.log.AppendRecord(simplex.Record{Cert: finalization}), n.log.Sync())
}

// transactions are five transfers, one of them to the other shard, and in early blocks an opening.
func (n *Chain) transactions(height uint64, rng *rand.Rand) []tx.Signed {
	var out []tx.Signed
	used := map[tx.ID]bool{}
	for i := range 6 {
		from, to := n.account(rng), n.account(rng)
		if used[from] || from == to {
			continue
		}
		used[from] = true
		r, _ := n.ledger.Account(from)
		t := tx.Tx{Kind: tx.Transfer, From: from, To: to, Amount: rng.Uint64N(1000), Nonce: r.Nonce, Expiry: uint32(height) + 100}
		switch {
		case i == 0:
			t.To = tx.MakeID(n.params.Table[1].First, 0)
		case i == 5 && height%10 == 0:
			t.Kind, t.To, t.Key = tx.Open, 0, [32]byte{byte(height), byte(height >> 8), byte(height >> 16), 2}
		case i == 5:
			continue
		}
		out = append(out, tx.Signed{Tx: t})
	}
	return out
}

func (n *Chain) account(rng *rand.Rand) tx.ID { return n.params.GenesisID(rng.Uint64N(n.c.Accounts)) }

// bundles are what the other shard sends in every other block: three receipts, one of them for nobody, and an
// acknowledgement of what it was sent but for the last few.
func (n *Chain) bundles(height uint64, rng *rand.Rand) []tx.Bundle {
	if height%2 == 0 {
		return nil
	}
	ch := &n.ledger.Meta().Channels[0]
	u := tx.Bundle{Source: 1, First: ch.Received.Count()}
	var leaves [][32]byte
	for i := range 3 {
		r := tx.Receipt{From: tx.MakeID(n.params.Table[1].First, 1), To: n.account(rng), Amount: rng.Uint64N(1000), Tx: tx.Hash{byte(i)}}
		if i == 2 {
			r.To = tx.MakeID(0, ledger.AccountsPerPartition-1)
		}
		u.Receipts = append(u.Receipts, r)
		leaves = append(leaves, r.Leaf(1, 0, u.First+uint64(i)))
	}
	sent := ch.Received.Append(leaves)
	acked := max(ch.Acked, ch.Sent.Count()-min(ch.Sent.Count(), rng.Uint64N(20)))
	u.Proof = proof(height, &sent, acked)
	return []tx.Bundle{u}
}

// trusting accepts every signature.
type trusting struct{}

func (trusting) Check(_ context.Context, _ []tx.Signed, _ [][32]byte, _ []uint16, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

// headers takes what a header of the other shard says for a proof of it: height 8, sent 8, root 32, received 8.
type headers struct{}

const proofBytes = 8 + 8 + 32 + 8

func proof(height uint64, sent *receipt.Range, received uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, height)
	b = binary.BigEndian.AppendUint64(b, sent.Count())
	root := sent.Root()
	b = append(b, root[:]...)
	return binary.BigEndian.AppendUint64(b, received)
}

func (headers) Verify(source uint16, _ ledger.Known, b []byte) (ledger.ForeignHeader, error) {
	if len(b) != proofBytes {
		return ledger.ForeignHeader{}, fmt.Errorf("a proof of %d bytes", len(b))
	}
	be := binary.BigEndian
	return ledger.ForeignHeader{Shard: source, Known: ledger.Known{Epoch: 1}, Height: be.Uint64(b), Links: []ledger.Link{
		{Shard: 0, Sent: be.Uint64(b[8:]), Root: tx.Hash(b[16:48]), Received: be.Uint64(b[48:])},
	}}, nil
}
