package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/accel/distill"
	"tutti/state/tx"
)

// Verifier checks transactions' signatures (state/verify, bound to chain and source by the node's wiring).
type Verifier interface {
	// Check sets ok[i] to whether txs[i].Signature is a ZIP-215 signature of txs[i] under keys[i]; generations[i] is
	// the generation of that key, for caches. All four slices have one length. It blocks until all verdicts are in,
	// may be called from several goroutines, and fails only when it could not judge (context, full queue).
	Check(ctx context.Context, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) error
}

// Known is the newest committee of another shard that a used bundle has proven: its epoch, below MaxEpoch, and its hash, zero
// for the genesis'.
type Known struct {
	Epoch     uint64
	Committee tx.Hash
}

// MaxEpoch is above every epoch that a channel can know.
const MaxEpoch = 1 << 63

// leads reports whether a channel that knows k may know n next, whose epoch is not lower.
func (k Known) leads(n Known) bool {
	if n.Committee == (tx.Hash{}) {
		return k.Committee == n.Committee
	}
	return n == k || n.Epoch > k.Epoch && n.Committee != k.Committee
}

// ForeignHeader is what a final header of another shard says about receipts, and what its proof shows beside.
type ForeignHeader struct {
	Shard  uint16
	Known         // the newest committee that the proof shows: the header's, or the next one where the header ends its epoch
	Height uint64 // of the header
	Links  []Link // ascending by Shard
}

// Headers verifies final headers of other shards (by the node's wiring).
type Headers interface {
	// Verify decodes and verifies the proof that a header of the source shard is final, from the committee that is known
	// of it on. Whether it succeeds must depend on its arguments alone, so that all validators agree. It may be called
	// from several goroutines.
	Verify(source uint16, known Known, proof []byte) (ForeignHeader, error)
}

// Link is the receipt channel between this shard and another, after a block.
type Link struct {
	Shard    uint16
	Sent     uint64  // receipts ever sent to it
	Received uint64  // receipts ever received from it and consumed
	Root     tx.Hash // cumulative root over all Sent receipts
}

// Commitments are what a header says about its block, and about the block StateLag below it.
type Commitments struct {
	Outcomes tx.Hash // merkle.ListRoot over tx.TxLeaf in body order, then tx.CreditLeaf in bundle order
	Links    []Link  // one for each other shard, ascending
	State    tx.Hash // state root after the block StateLag below (the genesis root for heights 1 and 2)
	Diff     tx.Hash // diff hash of that same block (zero for the genesis block)
}

// StateLag is how many blocks the state root in a header trails (consensus.StateLag).
const StateLag = 2

// Options configure a ledger. Dir, Params, Verifier, Headers and Possession are required.
type Options struct {
	FS         vfs.FS // nil: the operating system's
	Dir        string
	Create     bool            // start a new chain: Dir must be missing or empty. Without it Dir must hold a ledger
	Genesis    GenesisAccounts // read only with Create
	Params     Params
	Verifier   Verifier
	Headers    Headers
	Possession func(key [48]byte, message []byte, proof [96]byte) bool // proof of possession of a BLS key (accel/bls)
	Workers    int                                                     // goroutines in parallel phases; 0: one per CPU. Results do not depend on it
	CacheBytes int64                                                   // the storage engine's cache; 0: 8 MiB
	PageCycle  time.Duration                                           // every page that changed is rewritten once in so long, or a little more; 0: ten minutes, longer above ten million accounts (pages.go)
	Now        func() time.Time                                        // paces pages, nothing else; nil: time.Now
	History    uint64                                                  // blocks for which Credits and Opened can be read; 0: 2^20; math.MaxUint64: all
	// Progress is told how far Open is, from any goroutine: done of total, in accounts or blocks. nil: nobody is.
	Progress func(stage string, done, total uint64)
}

// ExecuteInput is a block to judge.
type ExecuteInput struct {
	Parent tx.Hash // executed before, or the final block
	Block  tx.Hash // the name under which the result is kept
	Height uint64  // the parent's plus one
	Body   []byte  // kept until the block is far below the final one; do not change it
	Want   Commitments
}

// Executed is what a valid block did. It is shared: do not modify.
type Executed struct {
	Commitments Commitments
	Root        tx.Hash            // state root after this block; the header StateLag above carries it
	Diff        tx.Hash            // diff hash of this block; the same header carries it
	Body        *tx.Body           // aliases ExecuteInput.Body
	IDs         []tx.Hash          // transaction ids, body order
	Outcomes    []bool             // body order
	Credits     []tx.CreditOutcome // one for each receipt, bundle order
	Leaves      [][32]byte         // of Commitments.Outcomes: transactions, then receipts
	Opened      []Opened           // body order
}

// Opened is an account that a block opened.
type Opened struct {
	Tx int // index in the body
	ID tx.ID
}

// BuildInput asks for a body.
type BuildInput struct {
	Parent     tx.Hash
	Height     uint64
	Candidates []tx.Signed      // in the order of the body; those that would fail are left out
	Batches    []*distill.Batch // after the candidates in the body; one that is wrong, does not fit or fails in many places is left out
	Bundles    []tx.Bundle      // ascending by source; bad ones are left out
	MaxBytes   int              // of the encoded body
	MaxTxs     int
}

// Built is a body in which every signed transaction takes effect, and most of each batch.
type Built struct {
	Body        []byte
	Commitments Commitments
	Txs         int      // transactions in the body, batches included
	Left        []Reason // for each candidate, why it was left out; None: it is in the body
	LeftBatches []error  // for each batch, why it was left out; nil: it is in the body
	LeftBundles []error  // for each bundle, why it was left out; nil: it is in the body
}

// Why Build leaves a good batch out.
var (
	ErrNoRoom  = errors.New("there is no room for the batch in this block")
	ErrSkipped = errors.New("more than a quarter of the batch's transfers would not take effect")
)

// Reason says why a transaction does not take effect.
type Reason uint8

const (
	None            Reason = iota // it takes effect
	UnknownPayer                  // From is no account of this shard in the parent state; in a body: invalid
	BadSignature                  // in a body: invalid
	BadPossession                 // the proof of possession of an opening's BLS key is wrong; in a body: invalid
	NonceUsed                     // the nonce is below the payer's
	NonceGap                      // the nonce is above the payer's, or the last one there is
	Expired                       // the expiry is below the block's height
	UnknownFee                    // no such fee class
	Insufficient                  // the balance is below amount, fee and deposit
	UnknownReceiver               // no such account in the parent state, or a partition of no shard
	SelfTransfer                  // From and To are the same
	WindowFull                    // too many receipts to that shard are not acknowledged
	NetLimit                      // that shard would hold more of this shard's units than this shard was given at genesis
	OpenLimit                     // the block's openings or the shard's live accounts are at their limit
	NoRoom                        // the body is full
)

var reasonNames = [...]string{
	"none", "unknown_payer", "bad_signature", "bad_possession", "nonce_used", "nonce_gap", "expired", "unknown_fee",
	"insufficient", "unknown_receiver", "self_transfer", "window_full", "net_limit", "open_limit", "no_room",
}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}
