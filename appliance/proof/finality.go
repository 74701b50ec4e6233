package proof

import (
	"tutti/accel/merkle"
	"tutti/consensus"
	"tutti/state/tx"
)

// Inclusion is a place in an outcomes root: leaf Index of Count, with the sibling hashes from the leaf upwards.
type Inclusion struct {
	Index uint64
	Count uint64
	Path  [][32]byte
}

func (n *Inclusion) holds(root consensus.Hash, leaf tx.Hash) bool {
	return merkle.VerifyList(root, n.Count, n.Index, leaf, n.Path)
}

// Finality proves that a transaction is final, with its outcome; for a transfer to another shard also what became of
// the money there.
type Finality struct {
	Tx        tx.Signed // its signature is 64 zeros where it was a distilled batch that was signed
	Success   bool      // the outcome bit: false means that nothing was moved and nothing was paid
	Final     Final
	Inclusion Inclusion
	Credit    *Credit // nil inside a shard, and while the destination's part is not known
}

// Credit proves that a destination shard consumed a receipt.
type Credit struct {
	Consumed
	Final     Final // of the destination's block
	Inclusion Inclusion
}

// Where is a final block.
type Where struct {
	Shard  consensus.ShardID `json:"shard"`
	Height consensus.Height  `json:"height"`
	Block  Digest            `json:"block"`   // hash of its header
	TimeMs int64             `json:"time_ms"` // Unix milliseconds, by the clock of the leader that made it
}

func where(h *consensus.Header) Where { return Where{h.Shard, h.Height, Digest(h.Hash()), h.TimeMs} }

// Statement is what a Finality says, in plain fields.
type Statement struct {
	ID      Digest           `json:"id"`
	Chain   Digest           `json:"chain"` // genesis hash
	Kind    string           `json:"kind"`  // "transfer" or "open"
	From    tx.ID            `json:"from"`
	To      *tx.ID           `json:"to,omitempty"` // transfers only
	Amount  uint64           `json:"amount,string"`
	Nonce   uint32           `json:"nonce"`
	Success bool             `json:"success"`
	Where   Where            `json:"where"`
	Credit  *CreditStatement `json:"credit,omitempty"`
}

// CreditStatement is what a Credit says.
type CreditStatement struct {
	Outcome string `json:"outcome"` // credited, returned (the receiver does not exist: the money goes back) or treasury
	Where   Where  `json:"where"`
}

// Statement is what f says, proven or not.
func (f *Finality) Statement() Statement {
	h := f.Final.Header()
	s := Statement{
		ID: Digest(f.Tx.TxID(tx.Hash(h.Chain))), Chain: Digest(h.Chain), Kind: f.Tx.Kind.String(),
		From: f.Tx.From, Amount: f.Tx.Amount, Nonce: f.Tx.Nonce, Success: f.Success, Where: where(h),
	}
	if f.Tx.Kind == tx.Transfer {
		to := f.Tx.To
		s.To = &to
	}
	if f.Credit != nil {
		s.Credit = &CreditStatement{Outcome: f.Credit.Outcome.String(), Where: where(f.Credit.Final.Header())}
	}
	return s
}

// Proven is a Statement that was verified.
type Proven struct {
	Statement
	CrossShard bool   `json:"cross_shard"` // the receiver is kept by another shard than the payer
	Settled    bool   `json:"settled"`     // nothing further can happen: failed, done inside a shard, or the credit is shown
	Quorum     Quorum `json:"quorum"`      // behind the payer's block
}

// Verify checks everything in f against t. Each way to fail has its own error (Err... of this package).
func (f *Finality) Verify(t *Trust) (*Proven, error) {
	quorum, err := f.Final.Verify(t)
	if err != nil {
		return nil, err
	}
	h := f.Final.Header()
	if keeper := t.ShardOf(f.Tx.From); keeper != h.Shard {
		return nil, fail(ErrShard, "account %s is kept by shard %d, the block is of shard %d", f.Tx.From, keeper, h.Shard)
	}
	id := f.Tx.TxID(tx.Hash(h.Chain))
	if !f.Inclusion.holds(h.Outcomes, tx.TxLeaf(id, f.Success)) {
		return nil, fail(ErrOutcome, "transaction %s with success %t in block %d of shard %d", id, f.Success, h.Height, h.Shard)
	}
	p := &Proven{Statement: f.Statement(), Quorum: quorum}
	p.CrossShard = f.Tx.Kind == tx.Transfer && t.ShardOf(f.Tx.To) != h.Shard
	if f.Credit != nil {
		if !p.CrossShard || !f.Success {
			return nil, fail(ErrReceipt, "the transaction made no receipt, so there is no credit to prove")
		}
		if err := f.Credit.verifyFor(t, f, id); err != nil {
			return nil, err
		}
	}
	p.Settled = !f.Success || !p.CrossShard || f.Credit != nil
	return p, nil
}

// verifyFor checks c as the credit of the transfer that f proves.
func (c *Credit) verifyFor(t *Trust, f *Finality, id tx.Hash) error {
	want := tx.Receipt{From: f.Tx.From, To: f.Tx.To, Amount: f.Tx.Amount, Tx: id}
	if c.Receipt != want {
		return fail(ErrReceipt, "it moves %d from %s to %s", c.Receipt.Amount, c.Receipt.From, c.Receipt.To)
	}
	if c.Source != f.Final.Header().Shard {
		return fail(ErrReceipt, "it is from shard %d, the transaction from shard %d", c.Source, f.Final.Header().Shard)
	}
	return c.Verify(t)
}

// Verify checks that the receipt in c was consumed by the shard that keeps its receiver. That the receipt belongs to
// a certain transaction is for Finality.Verify.
func (c *Credit) Verify(t *Trust) error {
	if _, err := c.Final.Verify(t); err != nil {
		return err
	}
	h := c.Final.Header()
	if keeper := t.ShardOf(c.Receipt.To); keeper != h.Shard {
		return fail(ErrShard, "account %s is kept by shard %d, the credit is of shard %d", c.Receipt.To, keeper, h.Shard)
	}
	if !c.Inclusion.holds(h.Outcomes, c.leaf(h.Shard)) {
		return fail(ErrOutcome, "receipt %d of shard %d, %s, in block %d of shard %d", c.Sequence, c.Source, c.Outcome, h.Height, h.Shard)
	}
	return nil
}
