package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"

	"tutti/state/tx"
)

// Limits of parameters.
const (
	MaxFeeClasses    = 256
	MaxSupply        = math.MaxInt64         // sum of all shards' supplies
	MaxReceiptWindow = tx.MaxBundleCount / 2 // so that one block never sends more than one bundle can bring
)

// ErrParams wraps every error about parameters or genesis accounts.
var ErrParams = errors.New("bad ledger parameters")

// Params are what all validators of a shard agree on from genesis. A folder is bound to them.
type Params struct {
	GenesisHash   tx.Hash        // names the chain: domain of transaction ids and signatures
	GenesisBlock  tx.Hash        // id of the genesis block, the parent of height 1
	Shard, Shards uint16         // this shard, and how many there are
	Table         PartitionTable // which shard holds which partitions
	Fees          []uint64       // price of each fee class, in units
	OpenDeposit   uint64         // units that an opening pays into the deposits counter
	OpenCap       uint64         // openings in one block, at most
	AccountLimit  uint64         // live accounts in the shard, at most
	ReceiptWindow uint64         // transfers to another shard wait while so many receipts are not acknowledged
	Supplies      []uint64       // units in each shard at genesis; their sum is at most MaxSupply
}

// Validate checks the parameters by themselves.
func (p *Params) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("ledger: %w: %s", ErrParams, fmt.Sprintf(format, args...))
	}
	if err := p.Table.Validate(p.Shards); err != nil {
		return err
	}
	if p.Shard >= p.Shards {
		return bad("shard %d of %d", p.Shard, p.Shards)
	}
	if len(p.Fees) == 0 || len(p.Fees) > MaxFeeClasses {
		return bad("%d fee classes, need 1 to %d", len(p.Fees), MaxFeeClasses)
	}
	if n := uint64(len(p.Table.Partitions(p.Shard))) * AccountsPerPartition; p.AccountLimit == 0 || p.AccountLimit > n {
		return bad("account limit %d, need 1 to %d", p.AccountLimit, n)
	}
	if p.OpenCap > tx.MaxBodyTx {
		return bad("opening cap %d, at most %d", p.OpenCap, tx.MaxBodyTx)
	}
	if p.ReceiptWindow == 0 || p.ReceiptWindow > MaxReceiptWindow {
		return bad("receipt window %d, need 1 to %d", p.ReceiptWindow, MaxReceiptWindow)
	}
	if len(p.Supplies) != int(p.Shards) {
		return bad("%d supplies for %d shards", len(p.Supplies), p.Shards)
	}
	var sum, carry uint64
	for _, s := range p.Supplies {
		if sum, carry = bits.Add64(sum, s, 0); carry != 0 || sum > MaxSupply {
			return bad("the supplies add up to more than %d", uint64(MaxSupply))
		}
	}
	return nil
}

// GenesisID is the id of the n-th genesis account of the shard when accounts are laid out as openings would be:
// one to each partition in turn. Genesis accounts may be placed otherwise, but each partition is filled from index 0.
// The parameters are valid.
func (p *Params) GenesisID(n uint64) tx.ID {
	parts := uint64(0)
	for _, r := range p.Table {
		if r.Shard == p.Shard {
			parts += 1 << r.Log2
		}
	}
	index, left := uint32(n/parts), n%parts
	for _, r := range p.Table {
		if r.Shard != p.Shard {
			continue
		}
		if left < 1<<r.Log2 {
			return tx.MakeID(r.First+uint16(left), index)
		}
		left -= 1 << r.Log2
	}
	panic("ledger: a shard has fewer partitions than its ranges")
}

// hash binds a folder to its parameters.
func (p *Params) hash() tx.Hash {
	be := binary.BigEndian
	b := append([]byte("tutti/params/1\x00\x00"), p.GenesisHash[:]...)
	b = append(b, p.GenesisBlock[:]...)
	b = be.AppendUint16(be.AppendUint16(b, p.Shard), p.Shards)
	b = p.Table.Append(b)
	b = be.AppendUint16(b, uint16(len(p.Fees)))
	for _, v := range p.Fees {
		b = be.AppendUint64(b, v)
	}
	for _, v := range [...]uint64{p.OpenDeposit, p.OpenCap, p.AccountLimit, p.ReceiptWindow} {
		b = be.AppendUint64(b, v)
	}
	for _, v := range p.Supplies {
		b = be.AppendUint64(b, v)
	}
	return sha256.Sum256(b)
}

// GenesisAccount is an account that exists at height 0.
type GenesisAccount struct {
	ID      tx.ID // a partition of the shard; indices of a partition come in ascending order from 0
	Key     [32]byte
	Balance uint64
	BLS     *[48]byte // nil: none. Its possession was proven to the maker of the genesis; it is covered by the root
	// Ordinate of the BLS key (bls.PublicKey) if the caller knows that it is in the group; nil: the first start finds out.
	Ordinate *[48]byte
}

// GenesisAccounts yields the accounts of a shard in a fixed order. It is run once.
type GenesisAccounts = iter.Seq[GenesisAccount]
