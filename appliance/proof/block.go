package proof

import (
	"fmt"
	"iter"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/merkle"
	"tutti/consensus"
	"tutti/state/tx"
)

// Block is a final block in full: what a node keeps to answer for it and what a reader needs to check all of it.
type Block struct {
	Final   Final
	Body    []byte             // encoded tx.Body; shared, never modified
	Credits []tx.CreditOutcome // what became of each receipt consumed, in bundle order
}

// blockVersion is the first byte of an encoded Block.
const blockVersion = 1

// Append appends the encoding: version 1, final, body length 4, body, credit count 4, one byte for each credit.
func (b *Block) Append(out []byte) []byte {
	out = b.Final.Append(append(out, blockVersion))
	s := cryptobyte.NewBuilder(out)
	s.AddUint32(uint32(len(b.Body)))
	s.AddBytes(b.Body)
	s.AddUint32(uint32(len(b.Credits)))
	for _, c := range b.Credits {
		s.AddUint8(uint8(c))
	}
	return s.BytesOrPanic()
}

// DecodeBlock decodes exactly one Block. Body aliases b. Nothing is verified.
func DecodeBlock(b []byte) (*Block, error) {
	s := cryptobyte.String(b)
	var version uint8
	if !s.ReadUint8(&version) || version != blockVersion {
		return nil, fail(ErrMalformed, "block format %d, this build knows %d: update tutti", version, blockVersion)
	}
	final, err := readFinal(&s)
	if err != nil {
		return nil, err
	}
	out := &Block{Final: final}
	var n uint32
	if !s.ReadUint32(&n) || n > consensus.MaxBodyBytes || !s.ReadBytes(&out.Body, int(n)) {
		return nil, fail(ErrMalformed, "the body is cut short or over %d bytes", consensus.MaxBodyBytes)
	}
	if !s.ReadUint32(&n) || n > maxCredits || int(n) != len(s) {
		return nil, fail(ErrMalformed, "credits are cut short, too many or followed by other bytes")
	}
	out.Credits = make([]tx.CreditOutcome, n)
	for i, c := range s {
		if out.Credits[i] = tx.CreditOutcome(c); !known(out.Credits[i]) {
			return nil, fail(ErrMalformed, "credit %d has the unknown outcome %d", i, c)
		}
	}
	return out, nil
}

func known(c tx.CreditOutcome) bool { return c >= tx.Credited && c <= tx.Treasury }

// Consumed is one receipt that a block took from another shard.
type Consumed struct {
	Source   consensus.ShardID
	Sequence uint64 // among the receipts of Source for this shard
	Receipt  tx.Receipt
	Outcome  tx.CreditOutcome
}

// Contents is an opened Block: everything in it is under its header's commitments. Immutable after Open.
type Contents struct {
	Block    *Block
	Header   *consensus.Header
	Body     *tx.Body
	IDs      []tx.Hash  // in body order; Body.Outcomes says which took effect
	Consumed []Consumed // in bundle order

	leaves [][32]byte // of the outcomes root: transactions, then receipts consumed
}

// Open decodes the body and checks it, ids and outcomes against the header. The certificate is not checked: that is
// enough for a node that asks about its own final blocks.
func (b *Block) Open() (*Contents, error) {
	h := b.Final.Header()
	if !h.Body.Matches(b.Body) {
		return nil, fail(ErrBody, "it has %d bytes and another digest", len(b.Body))
	}
	body, err := tx.DecodeBody(b.Body)
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrBody, err)
	}
	c := &Contents{Block: b, Header: h, Body: body, IDs: body.IDs(tx.Hash(h.Chain))}
	c.leaves = make([][32]byte, len(c.IDs), len(c.IDs)+len(b.Credits))
	tx.TxLeaves(c.leaves, c.IDs, body.Outcomes)
	for source, r := range receipts(body) {
		k := len(c.Consumed)
		if k == len(b.Credits) {
			return nil, fail(ErrOutcome, "the body consumes more than the %d receipts with an outcome", k)
		}
		x := Consumed{Source: source.shard, Sequence: source.sequence, Receipt: *r, Outcome: b.Credits[k]}
		c.Consumed = append(c.Consumed, x)
		c.leaves = append(c.leaves, x.leaf(h.Shard))
	}
	if len(c.Consumed) != len(b.Credits) {
		return nil, fail(ErrOutcome, "%d credit outcomes for %d receipts", len(b.Credits), len(c.Consumed))
	}
	if merkle.ListRoot(c.leaves) != h.Outcomes {
		return nil, fail(ErrOutcome, "the root over all %d outcomes is not the header's", len(c.leaves))
	}
	return c, nil
}

// Verify is Open and the certificate, against t.
func (b *Block) Verify(t *Trust) (*Contents, error) {
	if _, err := b.Final.Verify(t); err != nil {
		return nil, err
	}
	return b.Open()
}

type place struct {
	shard    consensus.ShardID
	sequence uint64
}

// receipts goes through the receipts of a body in bundle order.
func receipts(body *tx.Body) iter.Seq2[place, *tx.Receipt] {
	return func(yield func(place, *tx.Receipt) bool) {
		for i := range body.Bundles {
			u := &body.Bundles[i]
			for k := range u.Receipts {
				if !yield(place{consensus.ShardID(u.Source), u.First + uint64(k)}, &u.Receipts[k]) {
					return
				}
			}
		}
	}
}

func (x *Consumed) leaf(dest consensus.ShardID) tx.Hash {
	return tx.CreditLeaf(x.Receipt.Leaf(uint16(x.Source), uint16(dest), x.Sequence), x.Outcome)
}

// Finality makes the proof of transaction i of the block, without a credit. The headers are shared with the block.
func (c *Contents) Finality(i int) *Finality {
	return &Finality{Tx: c.Body.Signed(i), Success: c.Body.Outcomes[i], Final: c.Block.Final, Inclusion: c.inclusion(i)}
}

// Credit makes the proof that receipt k of Consumed was consumed. The headers are shared with the block.
func (c *Contents) Credit(k int) *Credit {
	return &Credit{Consumed: c.Consumed[k], Final: c.Block.Final, Inclusion: c.inclusion(len(c.IDs) + k)}
}

// Leaves is how many leaves are under the outcomes root, transactions and receipts consumed, and the top of their tree, zero if
// there are none (accel/merkle). It costs as much as the root.
func (c *Contents) Leaves() (n uint64, top [32]byte) {
	if len(c.leaves) > 0 {
		top = merkle.Top(c.leaves, merkle.Depth(len(c.leaves)))
	}
	return uint64(len(c.leaves)), top
}

func (c *Contents) inclusion(i int) Inclusion {
	return Inclusion{Index: uint64(i), Count: uint64(len(c.leaves)), Path: merkle.ListProof(c.leaves, i)}
}
