package api

import (
	"context"
	"fmt"
	"math"

	"tutti/accel/distill"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// Backend is the node behind the API. All methods are safe for concurrent use and return promptly; those with a
// context stop when it ends. An error that is an *Error is the client's answer; any other is answered as Internal
// and logged. What a method returns is not modified afterwards by either side.
type Backend interface {
	// Submit offers transactions, at most MaxTransactions, to the pool and returns when each has its verdict,
	// signature included. source stands for the client's address, for quotas. The answer has one entry for each
	// transaction: nil accepted, or why not: a *pool.Reject (whose Duplicate counts as accepted) or an *Error.
	Submit(ctx context.Context, source uint64, txs []tx.Signed) []error

	// SubmitBatch offers a distilled batch, likewise. The transfers' balances and nonces are not judged: what can't be paid is
	// skipped in a block.
	SubmitBatch(ctx context.Context, source uint64, b *distill.Batch) error

	// Transaction says where a transaction is. One that the node does not know has State Unknown; that is no error.
	Transaction(ctx context.Context, id tx.Hash) (Transaction, error)

	// Proof is the finality proof of a transaction of this node's shard. Its Credit is set where the node has it.
	// Errors: NotFinal, NotFound, Pruned.
	Proof(ctx context.Context, id tx.Hash) (*proof.Finality, error)

	// Credit is the proof that this node's shard consumed the receipt of a transfer from another shard.
	// Errors: NotFinal (not consumed yet, or not known), Pruned.
	Credit(ctx context.Context, id tx.Hash) (*proof.Credit, error)

	// Account is the record as of the final tip. Errors: NotFound, WrongShard.
	Account(ctx context.Context, id tx.ID) (Account, error)

	// Signers is what a broker needs of accounts of this node's shard, as of the final tip, in the order of ids, at most
	// MaxSigners. Errors: WrongShard.
	Signers(ids []tx.ID) (*Signers, error)

	// AccountProof proves the record, or that there is none, under the state root that a recent final header carries.
	// Errors: NotFinal (no such header yet), WrongShard.
	AccountProof(ctx context.Context, id tx.ID) (*proof.Account, error)

	// AccountsProof proves the records of several accounts, or that there are none, likewise. The ids are ascending, each
	// once, at most MaxProofAccounts in at most MaxProofChunks chunks. Errors: NotFinal, WrongShard, NotFound, Busy.
	AccountsProof(ctx context.Context, ids []tx.ID) (*proof.Accounts, error)

	// Block is the final block at a height. Errors: NotFinal (above the final tip), NotFound (genesis), Pruned.
	Block(ctx context.Context, height consensus.Height) (*proof.Block, error)

	// FinalHeight is the height of the final tip.
	FinalHeight() consensus.Height

	// Evidence is at most limit proofs that validators signed contradictions, in the order in which this node kept them,
	// from number from on, and how many there are.
	Evidence(from, limit int) Evidence

	// Handovers are those of a shard's committees out of epoch from and the following ones, in order, at most limit, and
	// the newest epoch that this node knows; none where that is not above from. Errors: WrongShard, Pruned.
	Handovers(ctx context.Context, shard consensus.ShardID, from consensus.Epoch, limit int) (newest consensus.Epoch, list []*proof.Handover, err error)

	// Status is this node as it sees itself now.
	Status() Status

	// Network is all shards as this node knows them.
	Network(ctx context.Context) (Network, error)

	// Ready is nil while the node can serve and follows the chain; otherwise why not (syncing, stalled, ...).
	Ready() error
}

// State is how far a transaction is.
type State string

// The states. A cross-shard transfer goes from Final to Credited or Returned; for every other transaction Final is the
// last.
const (
	Unknown  State = "unknown"  // not seen, or seen so long ago that this node forgot
	Pooled   State = "pooled"   // waits in the pool
	Included State = "included" // in a block that is not final yet
	Final    State = "final"    // final, with an outcome that can no longer change
	Credited State = "credited" // final, and the other shard's credit is final too
	Returned State = "returned" // final, but the receiver did not exist: the money came back
)

// Transaction is the answer of GET /v1/transactions/{id}.
type Transaction struct {
	ID      proof.Digest      `json:"id"`
	State   State             `json:"state"`
	Shard   consensus.ShardID `json:"shard"`
	Height  consensus.Height  `json:"height,omitempty"`  // of its block, from Included on
	Success *bool             `json:"success,omitempty"` // from Final on: false means that nothing was moved or paid
	// CrossShard says that another shard keeps the receiver, so that Final is not the last state unless it failed.
	CrossShard bool         `json:"cross_shard,omitempty"`
	Credit     *CreditPlace `json:"credit,omitempty"` // Credited and Returned
	Opened     *tx.ID       `json:"opened,omitempty"` // from Final on, of an opening that succeeded: the new account
}

// CreditPlace is where the other shard consumed a transfer's receipt.
type CreditPlace struct {
	Shard  consensus.ShardID `json:"shard"`
	Height consensus.Height  `json:"height"`
}

// Account is the answer of GET /v1/accounts/{id}: not proven, as of the final tip.
type Account struct {
	ID      tx.ID             `json:"id"`
	Shard   consensus.ShardID `json:"shard"`
	Height  consensus.Height  `json:"height"` // the final tip that this is as of
	Balance uint64            `json:"balance,string"`
	Nonce   uint32            `json:"nonce"` // the next transaction's
	Key     proof.Digest      `json:"key"`   // Ed25519 public key
	HasBLS  bool              `json:"has_bls_key"`
}

// Status is the answer of GET /v1/status. Amounts of money are in units and exact 64-bit integers.
type Status struct {
	Version           string            `json:"version"`
	Commit            string            `json:"commit"`
	Chain             string            `json:"chain"`   // the network's name
	Genesis           proof.Digest      `json:"genesis"` // its genesis hash
	Node              proof.Digest      `json:"node"`    // this node's network key
	Shard             consensus.ShardID `json:"shard"`
	Shards            int               `json:"shards"`
	ValidatorIndex    int               `json:"validator_index"` // seat in the shard's committee of this epoch, -1 for none
	Role              string            `json:"role"`            // "validator" or "follower"
	Height            consensus.Height  `json:"height"`          // highest block judged valid
	FinalHeight       consensus.Height  `json:"final_height"`
	View              consensus.View    `json:"view"`
	StateRoot         proof.Digest      `json:"state_root"` // in the final header; the genesis root before there is one
	StateHeight       consensus.Height  `json:"state_height"`
	TimeMs            int64             `json:"time_ms"`     // this node's clock, Unix milliseconds
	TPS               float64           `json:"tps"`         // transactions finalised with success, mean over 10 s
	FinalityMs        Quantiles         `json:"finality_ms"` // from admission at this node to finality
	FinalityHistogram []Bucket          `json:"finality_histogram"`
	Pool              PoolStatus        `json:"pool"`
	Supply            Supply            `json:"supply"`
	Accounts          uint64            `json:"accounts"`
	Memory            Memory            `json:"memory"`
	PeersConnected    int               `json:"peers_connected"`
	Syncing           bool              `json:"syncing"`
	Sync              *SyncStatus       `json:"sync,omitempty"` // while the node gets its state from other nodes; most of the rest is empty then
	Stalled           bool              `json:"stalled"`        // no final block for so long that something must be wrong
	Epoch             EpochStatus       `json:"epoch"`
	Validators        []ValidatorStatus `json:"validators"`
	Links             []LinkStatus      `json:"links"`
	UptimeS           float64           `json:"uptime_s"`
	DiskMiB           float64           `json:"disk_mib"`
	Writes            Writes            `json:"writes"`
	CPUS              float64           `json:"cpu_s"` // CPU time used by the process
}

// EpochStatus is the epoch of the node's shard.
type EpochStatus struct {
	Number    consensus.Epoch  `json:"number"`
	After     consensus.Height `json:"after"` // height of the last block of the epoch before, 0 in the first
	Seats     int              `json:"seats"`
	Committee proof.Digest     `json:"committee"`      // hash of the committee that has them
	Last      consensus.Height `json:"last,omitempty"` // height of the epoch's last block; absent if it never ends
	Left      *uint64          `json:"left,omitempty"` // blocks up to that
	Next      *proof.Digest    `json:"next,omitempty"` // hash of the next committee, once it is drawn
}

// SyncStatus is how far a node is that gets its state from other nodes.
type SyncStatus struct {
	Step           string           `json:"step"`             // what it does now, in words
	Share          float64          `json:"share"`            // done, 0 to 1
	LeftS          *float64         `json:"left_s,omitempty"` // seconds that the rest takes at this rate; absent while nobody can tell
	Bytes          uint64           `json:"bytes"`            // verified and on disk
	TotalBytes     uint64           `json:"total_bytes"`      // 0 while it is unknown
	BytesPerSecond float64          `json:"bytes_per_second"` // over the last seconds
	Accounts       uint64           `json:"accounts"`
	TotalAccounts  uint64           `json:"total_accounts"`
	Height         consensus.Height `json:"height"` // up to which blocks' changes are here
	Tip            consensus.Height `json:"tip"`    // of the chain
	Peers          []SyncPeer       `json:"peers"`
}

// SyncPeer is how another node has served a sync.
type SyncPeer struct {
	Name    string `json:"name"`
	Answers int    `json:"answers"`
	Bytes   uint64 `json:"bytes"`
	Trouble string `json:"trouble,omitempty"` // the last thing that went wrong
	Dropped bool   `json:"dropped"`           // it sent something wrong, which Trouble names, and is not asked any more
}

// String is one line for people: "43 %, 18 s left".
func (s *SyncStatus) String() string {
	text := fmt.Sprintf("%.0f %%", math.Floor(100*s.Share))
	if s.TotalBytes == 0 {
		text = s.Step
	}
	if s.LeftS != nil {
		if left := math.Ceil(*s.LeftS); left < 120 {
			text += fmt.Sprintf(", %.0f s left", left)
		} else {
			text += fmt.Sprintf(", %.0f min left", math.Ceil(left/60))
		}
	}
	return text
}

// Quantiles are in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Bucket counts the transactions that took longer than the bucket before, and at most UpToMs.
type Bucket struct {
	UpToMs int64  `json:"up_to_ms"`
	Count  uint64 `json:"count"`
}

// PoolStatus is how full the pool is.
type PoolStatus struct {
	Txs   int   `json:"txs"`
	Bytes int64 `json:"bytes"`
	Limit int   `json:"limit"` // of txs

	Batches      int `json:"batches"`       // distilled ones that wait, beside txs
	Batched      int `json:"batched"`       // transfers in them
	BatchedLimit int `json:"batched_limit"` // of batched
}

// Supply is where the shard's money is: balances + fees + deposits + treasury = genesis + inflow - outflow.
type Supply struct {
	Balances uint64 `json:"balances"`
	Fees     uint64 `json:"fees"`
	Deposits uint64 `json:"deposits"`
	Treasury uint64 `json:"treasury"`
	Inflow   uint64 `json:"inflow"`
	Outflow  uint64 `json:"outflow"`
	Genesis  uint64 `json:"genesis"`
}

// Conserved reports whether the identity holds. Sums of amounts stay below 2^64 on every chain.
func (s Supply) Conserved() bool {
	return s.Balances+s.Fees+s.Deposits+s.Treasury == s.Genesis+s.Inflow-s.Outflow
}

// Memory is what the process holds.
type Memory struct {
	RSSMiB   float64      `json:"rss_mib"`
	TableMiB float64      `json:"table_mib"` // address space of the account table; what is in use of it is part of RSS
	Kinds    []MemoryKind `json:"kinds"`
}

// MemoryKind is memory of one kind. The first ones are the account table's; those on the heap are part of it.
type MemoryKind struct {
	Kind       string  `json:"kind"`
	Bytes      uint64  `json:"bytes"`
	PerAccount float64 `json:"bytes_per_account"`
}

// Writes is what the node has written since it was started, and how much that makes in a day.
type Writes struct {
	EngineBytes  uint64    `json:"engine_bytes"`  // by the storage engine: its log, tables, compactions
	LogBytes     uint64    `json:"log_bytes"`     // to the block log and the vote log
	ProcessBytes uint64    `json:"process_bytes"` // by the process, as the kernel counts what goes to a disk: whole pages
	Idle         WriteRate `json:"idle"`          // without transactions
	Loaded       WriteRate `json:"loaded"`
}

// WriteRate is the mean over Seconds; zeros where that is 0.
type WriteRate struct {
	Seconds            float64 `json:"seconds"`
	EngineBytesPerDay  float64 `json:"engine_bytes_per_day"`
	LogBytesPerDay     float64 `json:"log_bytes_per_day"`
	ProcessBytesPerDay float64 `json:"process_bytes_per_day"`
}

// ValidatorStatus is one seat of a committee as this node sees it.
type ValidatorStatus struct {
	Index      int              `json:"index"`
	Name       string           `json:"name"`
	Power      consensus.Power  `json:"power"`
	Node       proof.Digest     `json:"node"`
	Connected  bool             `json:"connected"`
	LastHeight consensus.Height `json:"last_height"`  // highest block it voted for
	Lag        uint64           `json:"lag"`          // blocks behind this node's final tip
	LastVoteMs int64            `json:"last_vote_ms"` // milliseconds since its last vote, -1 if none was seen
	Self       bool             `json:"self"`
}

// LinkStatus is the receipt channel to one other shard, as of the final tip.
type LinkStatus struct {
	Shard    consensus.ShardID `json:"shard"`
	Sent     uint64            `json:"sent"`
	Received uint64            `json:"received"`
	Acked    uint64            `json:"acked"`
	Epoch    consensus.Epoch   `json:"epoch"` // newest one of the other shard that our blocks have shown
}

// Network is the answer of GET /v1/network.
type Network struct {
	Shards []ShardStatus `json:"shards"`
	APIs   []NodeAPI     `json:"apis"`
}

// ShardStatus is one shard as this node knows it.
type ShardStatus struct {
	Shard      consensus.ShardID `json:"shard"`
	Height     consensus.Height  `json:"height"` // final
	TPS        float64           `json:"tps"`
	FinalityMs Quantiles         `json:"finality_ms"`
	Validators []ValidatorStatus `json:"validators"`
	StaleMs    int64             `json:"stale_ms"` // age of this information
}

// Evidence is the answer of GET /v1/evidence.
type Evidence struct {
	Total  int             `json:"total"` // proofs that this node has
	From   int             `json:"from"`  // number of the first one here, from 0
	Proofs []EvidenceProof `json:"proofs"`
}

// EvidenceProof is one proof of slashable votes. All but Proof repeats what is in it, for people.
type EvidenceProof struct {
	ID         proof.Digest       `json:"id"`
	Shard      consensus.ShardID  `json:"shard"`
	Epoch      consensus.Epoch    `json:"epoch"`
	View       consensus.View     `json:"view"`
	Validators []AccusedValidator `json:"validators"`
	First      string             `json:"first"`
	Second     string             `json:"second"`
	Proof      proof.Hex          `json:"proof"` // consensus/evidence
}

// AccusedValidator is a seat that a proof names.
type AccusedValidator struct {
	Index int             `json:"index"`
	Name  string          `json:"name"`
	Power consensus.Power `json:"power"`
}

// Handovers is the answer of GET /v1/handovers.
type Handovers struct {
	Shard     consensus.ShardID `json:"shard"`
	From      consensus.Epoch   `json:"from"`
	Newest    consensus.Epoch   `json:"newest"` // epoch that this node knows
	Handovers []Handover        `json:"handovers"`
}

// Handover leads from one epoch to the next. All but Handover repeats what is in it, for people.
type Handover struct {
	Epoch      consensus.Epoch  `json:"epoch"`      // that it leads out of
	Height     consensus.Height `json:"height"`     // of that epoch's last block
	Block      proof.Digest     `json:"block"`      // its hash
	Committee  proof.Digest     `json:"committee"`  // hash of the next epoch's
	Validators int              `json:"validators"` // in it
	Handover   proof.Hex        `json:"handover"`   // appliance/proof.Handover
}

// NodeAPI is where a node's API is.
type NodeAPI struct {
	Shard consensus.ShardID `json:"shard"`
	Name  string            `json:"name"`
	URL   string            `json:"url"`
}

// Params is the answer of GET /v1/params: what a wallet must know. It never changes while a node runs.
type Params struct {
	Chain           string            `json:"chain"`   // the network's name
	Genesis         proof.Digest      `json:"genesis"` // genesis hash, part of everything signed
	Shard           consensus.ShardID `json:"shard"`   // of this node
	Shards          int               `json:"shards"`
	Fees            []uint64          `json:"fees"` // price of each fee class, in units
	OpenDeposit     uint64            `json:"open_deposit"`
	ReceiptWindow   uint64            `json:"receipt_window"`    // receipts on their way from a shard to another
	MaxExpiry       uint32            `json:"max_expiry"`        // heights that an expiry may be ahead of the final tip
	BlockIntervalMs int64             `json:"block_interval_ms"` // between blocks under load
	MaxTransactions int               `json:"max_transactions"`  // in one call

	MaxBatchTransfers int `json:"max_batch_transfers"` // in a distilled batch
	MaxBatchBytes     int `json:"max_batch_bytes"`     // of its encoding
	MaxBodyBytes      int `json:"max_body_bytes"`      // of a block

	Brokers []string `json:"brokers"` // of distilled batches that this node's operator names: HOST:PORT or KEY@HOST:PORT
}
