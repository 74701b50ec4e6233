// Package genesis is the beginning of a network: who validates each shard, which shard holds which accounts, what the
// rules cost, and who owns what.
//
// It lies in two files. genesis.json (format 1) is for people: the network's name, time and seed, the parameters, the
// partition table, the validators with their keys and proofs of possession, and count, total and SHA-256 of the second
// file. accounts.bin holds the accounts, ascending by id; its layout is with AppendAccount.
//
// # The genesis hash
//
// Everything in genesis.json, and through the digest every account, is under the genesis hash: SHA-256 over the tag
// "tutti/genesis/1" and the canonical binary form (Genesis.Append). It names the network and is in everything that its
// members sign. The JSON's layout, order of fields and spacing do not matter to it.
//
// # Checks
//
// Parse and Validate report all problems at once, each with its field and what to do. Only Verify makes a Verified
// genesis: it also checks the proofs of possession, the accounts file's digest, order, density, sums and limits. Create
// makes the files and never overwrites any. Open is Verify without the proofs of accounts' keys, which are under the genesis
// hash: for a network whose genesis somebody has verified. Errors are for the one call; none is fatal.
//
// Proofs of possession in genesis can't cover the genesis hash, which covers them. They cover the network's name and,
// for a validator, its node key (ValidatorMessage); for an account, its Ed25519 key (AccountMessage).
// The accounts of a test network's crowd have none: their keys follow from a seed in genesis.json (TestCrowd), and Verify makes
// them again.
package genesis

import (
	"crypto/sha256"
	"fmt"

	"tutti/accel/merkle"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/receipt"
	"tutti/state/tx"
)

// Format is the version of both files that this build reads and writes.
const Format = 1

// Names of the two files, which lie in one folder.
const (
	FileName     = "genesis.json"
	AccountsName = "accounts.bin"
)

// Epoch is the first epoch.
const Epoch consensus.Epoch = 0

// Genesis is the content of genesis.json. It is not modified after it has been parsed or made.
type Genesis struct {
	Name       string         // of the network: 1 to 64 of a-z, 0-9 and '-'
	TimeMs     int64          // Unix milliseconds of the genesis blocks
	Seed       consensus.Hash // public randomness: drives the leader schedules
	Parameters Parameters
	Table      ledger.PartitionTable
	Shards     []Shard // by shard id
	Accounts   Accounts
	TestCrowd  *Crowd // nil but in a test network: keys in the accounts file that follow from this seed, as anybody can compute
}

// Parameters are the rules that all validators of all shards share. Money is in units, the smallest amount there is.
type Parameters struct {
	Fees            []uint64 // price of each fee class
	OpenDeposit     uint64   // units that an opening pays besides fee and amount
	OpenCap         uint64   // openings in one block
	AccountLimit    uint64   // live accounts in a shard
	ReceiptWindow   uint64   // transfers to another shard wait while so many receipts are not acknowledged
	MaxBodyBytes    uint64   // of a block that a leader makes
	MaxBlockTxs     uint64   // transactions in a block that a leader makes
	BlockIntervalMs uint64   // from a block to the next while there is something to do
	HeartbeatMs     uint64   // from a block to the next on an idle chain
	EpochBlocks     uint64   // blocks of an epoch; 0: the first one never ends
	CommitteeSize   uint64   // seats of a shard in an epoch; 0: all of its validators
}

// Shard is one shard's pool: the validators that have its seats, all of them or in turn (Parameters.CommitteeSize).
type Shard struct{ Validators []Validator }

// Validator is one of a pool.
type Validator struct {
	Name       string              // for people, unique in the network; like the network's name
	Key        consensus.PublicKey // voting key
	Possession consensus.Signature // of the voting key, over ValidatorMessage
	Node       [32]byte            // Ed25519 key of the node
	Power      consensus.Power
}

// Accounts describes the accounts file.
type Accounts struct {
	Count  uint64
	Total  uint64         // units in all accounts
	SHA256 consensus.Hash // of the file
}

// Domain tags, 16 bytes each, padded with zeros.
var (
	tagGenesis   = tag("tutti/genesis/1")
	tagSeed      = tag("tutti/seed/1")
	tagDraw      = tag("tutti/draw/1")
	tagValidator = tag("tutti/valposs/1")
	tagAccount   = tag("tutti/accposs/1")
	tagCrowd     = tag("tutti/crowd/1")
	tagCrowdBLS  = tag("tutti/crowdbls/1")
)

func tag(s string) (t [16]byte) {
	if copy(t[:], s) != len(s) {
		panic("genesis: tag too long: " + s)
	}
	return t
}

// Hash is the genesis hash.
func (g *Genesis) Hash() consensus.Hash { return sha256.Sum256(g.Append(tagGenesis[:])) }

// ValidatorMessage is what a validator's voting key signs to prove possession: tag 16, SHA-256 of the network's name,
// node key 32, voting key 48.
func ValidatorMessage(network string, node [32]byte, key consensus.PublicKey) []byte {
	return possessionMessage(tagValidator, network, node, key)
}

// AccountMessage is what the BLS key of a genesis account signs to prove possession: tag 16, SHA-256 of the network's
// name, Ed25519 key 32, BLS key 48.
func AccountMessage(network string, key [32]byte, bls [48]byte) []byte {
	return possessionMessage(tagAccount, network, key, bls)
}

func possessionMessage(tag [16]byte, network string, owner [32]byte, key [48]byte) []byte {
	name := sha256.Sum256([]byte(network))
	b := append([]byte{}, tag[:]...)
	b = append(b, name[:]...)
	b = append(b, owner[:]...)
	return append(b, key[:]...)
}

// Committee is a shard's committee of the first epoch. Its seed is the shard's own, drawn from the network's; its members are the
// pool, or as many of that as there are seats, drawn like those that come in later (epochs.go).
func (g *Genesis) Committee(shard consensus.ShardID) (*consensus.Committee, error) {
	if int(shard) >= len(g.Shards) {
		return nil, fmt.Errorf("genesis: shard %d: this network has %d", shard, len(g.Shards))
	}
	b := append(tagSeed[:], g.Seed[:]...)
	seed := sha256.Sum256(append(b, byte(shard>>8), byte(shard)))
	members := make([]bool, len(g.Shards[shard].Validators))
	if size := g.seats(shard); size < len(members) {
		g.fill(shard, members, lots{seed: seed}, size)
	} else {
		for i := range members {
			members[i] = true
		}
	}
	return g.committee(shard, Epoch, seed, members)
}

// Header is the header of a shard's genesis block, whose body is empty. State is the shard's root at height 0
// (ledger.GenesisRoot).
func (g *Genesis) Header(shard consensus.ShardID, state consensus.Hash) (*consensus.Header, error) {
	c, err := g.Committee(shard)
	if err != nil {
		return nil, err
	}
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: g.Hash(), Shard: shard, Epoch: Epoch, TimeMs: g.TimeMs,
		Body: consensus.NewBodyRef((&tx.Body{}).Append(nil)), Outcomes: merkle.ListRoot(nil),
		State: state, Committee: c.Hash(), NextCommittee: c.Hash(),
	}
	for other := range consensus.ShardID(len(g.Shards)) {
		if other != shard {
			h.Links = append(h.Links, consensus.Link{Shard: other, Root: receipt.Range{}.Root()})
		}
	}
	return h, nil
}
