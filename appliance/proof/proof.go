// Package proof holds what a client keeps to convince anyone, without asking a node, that something happened on the
// chain: finality proofs of transactions, account proofs, and whole final blocks for readers that check everything.
//
//   - Finality: the signed envelope of a transaction, the final header of its block, and the path of (id, outcome)
//     in that header's outcomes root. For a transfer between shards it also holds the Credit: the receipt, the final
//     header of the destination's block and the path of the consumed receipt in its outcomes root. One file then
//     shows debit and credit.
//   - Account: an account's record under the state root that a final header carries. The record is as of
//     consensus.StateLag blocks below that header.
//   - Accounts: the same for several accounts of a shard at once.
//   - Block: a final header, its body, and the outcomes of the receipts it consumed; enough to check every
//     transaction of a block at once.
//
// All of them start from a Final: header h, the headers that link it to the block that was voted final, and the
// finalize certificate. Trust is a genesis file: the genesis hash and the committee of each shard.
//
// # What verifying proves
//
// That more than two thirds of the voting power of the shard's genesis committee signed the block to be final, that
// the block holds the transaction (by id: kind, accounts, amount, nonce) with that outcome, and for a credit that the
// destination's committee did the same for the receipt. The client's signature in the envelope is carried for
// resending and is not proven: the id covers the content only, and validators checked the signature before voting.
//
// # Encodings
//
// Finality, Account and Accounts are JSON files: a format name, a statement for people, then the evidence in hex. The decoder
// is bounded, refuses unknown fields and trailing data, and refuses a file whose statement is not the one that its
// evidence makes, so the readable part can not lie. Block is binary. Golden vectors are in testdata/.
//
// Source: system.md 3.6. Deviation: the committee's path from a checkpoint is the genesis committee itself, since
// committees do not change yet; a proof of another epoch is refused by name (ErrCommittee).
package proof

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/state/tx"
)

// Limits of the decoders.
const (
	MaxDescendants = 256     // linking headers in one Final
	MaxPath        = 32      // siblings in one inclusion path
	MaxFileBytes   = 8 << 20 // a JSON proof
	// MaxBlockBytes bounds an encoded Block.
	MaxBlockBytes = 1 + maxFinalBytes + 4 + consensus.MaxBodyBytes + 4 + maxCredits
	maxFinalBytes = 4 << 20
	maxCredits    = tx.MaxBundles * tx.MaxBundleCount
)

// Errors that say why something is not proven. Each comes wrapped with the particulars.
var (
	ErrMalformed   = errors.New("malformed proof")
	ErrGenesis     = errors.New("the proof is from another network")
	ErrShard       = errors.New("the proof is from the wrong shard")
	ErrCommittee   = errors.New("the block is of a committee that this genesis does not know")
	ErrChain       = errors.New("the headers do not form a chain")
	ErrCertificate = errors.New("the finality certificate does not verify")
	ErrOutcome     = errors.New("the outcome is not under the block's outcomes root")
	ErrReceipt     = errors.New("the receipt is not the one that the transaction made")
	ErrBody        = errors.New("the body is not the one that the header commits to")
	ErrAccount     = errors.New("the account is not under the header's state root")
)

func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("proof: %w: %s", kind, fmt.Sprintf(format, args...))
}

// Trust is what a verifier believes before it sees a proof: which chain, which committees, which shard keeps which
// accounts. Immutable and safe for concurrent use.
type Trust struct {
	genesis consensus.Hash
	members map[consensus.ShardID]member
	shardOf func(tx.ID) consensus.ShardID
}

type member struct {
	committee *consensus.Committee
	keys      consensus.Keys
}

// NewTrust takes the genesis hash, the genesis committee of each shard and the partition table. shardOf must be
// pure and safe for concurrent use. It fails if two committees are of one shard or a voting key is not valid.
func NewTrust(genesis consensus.Hash, committees []*consensus.Committee, shardOf func(tx.ID) consensus.ShardID) (*Trust, error) {
	t := &Trust{genesis: genesis, members: make(map[consensus.ShardID]member, len(committees)), shardOf: shardOf}
	for _, c := range committees {
		if _, twice := t.members[c.Shard]; twice {
			return nil, fmt.Errorf("proof: two committees for shard %d", c.Shard)
		}
		keys, err := consensus.NewKeys(c)
		if err != nil {
			return nil, fmt.Errorf("proof: committee of shard %d: %w", c.Shard, err)
		}
		t.members[c.Shard] = member{c, keys}
	}
	return t, nil
}

// Genesis is the hash of the trusted chain.
func (t *Trust) Genesis() consensus.Hash { return t.genesis }

// ShardOf is the shard that keeps an account.
func (t *Trust) ShardOf(id tx.ID) consensus.ShardID { return t.shardOf(id) }

// Shards is the number of shards.
func (t *Trust) Shards() int { return len(t.members) }

// Final shows that a header is final. Headers[0] is that header; each further one names the one before it as its
// parent; Cert is a finalize certificate for the last. Headers is never empty in a decoded Final.
type Final struct {
	Headers []*consensus.Header
	Cert    consensus.Certificate
}

// Header is the header that is shown to be final.
func (f *Final) Header() *consensus.Header { return f.Headers[0] }

// Quorum is how much voting power stands behind a Final.
type Quorum struct {
	Signers int             `json:"signers"` // validators that signed
	Of      int             `json:"of"`      // validators in the committee
	Power   consensus.Power `json:"power"`   // voting power that signed
	Total   consensus.Power `json:"total"`   // voting power of the committee
}

// Verify checks chain, links and certificate against t. The cost is one pairing check.
func (f *Final) Verify(t *Trust) (Quorum, error) {
	h, last := f.Headers[0], f.Headers[len(f.Headers)-1]
	if h.Chain != t.genesis {
		return Quorum{}, fail(ErrGenesis, "its genesis hash is %s, the trusted one %s", h.Chain.Short(), t.genesis.Short())
	}
	m, ok := t.members[h.Shard]
	if !ok {
		return Quorum{}, fail(ErrShard, "shard %d is not in the trusted genesis, which has %d", h.Shard, len(t.members))
	}
	for i, x := range f.Headers {
		if x.Chain != h.Chain || x.Shard != h.Shard {
			return Quorum{}, fail(ErrChain, "header %d is of another chain or shard", i)
		}
		if x.Epoch != m.committee.Epoch || x.Committee != m.committee.Hash() {
			return Quorum{}, fail(ErrCommittee, "header %d is of epoch %d, the trusted committee of epoch %d", i, x.Epoch, m.committee.Epoch)
		}
		if i > 0 && (x.Parent != f.Headers[i-1].Hash() || x.Height != f.Headers[i-1].Height+1) {
			return Quorum{}, fail(ErrChain, "header %d, of height %d, does not follow the one before", i, x.Height)
		}
	}
	want := consensus.Statement{Kind: consensus.Finalize, Shard: h.Shard, Epoch: h.Epoch, View: last.View, Block: last.Hash()}
	if f.Cert.Statement != want {
		return Quorum{}, fail(ErrCertificate, "it is a %s for block %s, not a finalize for %s", f.Cert.Kind, f.Cert.Block.Short(), want.Block.Short())
	}
	if err := m.committee.VerifyCertificate(t.genesis, m.keys, &f.Cert); err != nil {
		return Quorum{}, fmt.Errorf("proof: %w: %w", ErrCertificate, err)
	}
	return Quorum{
		Signers: f.Cert.Signers.Count(), Of: len(m.committee.Validators),
		Power: m.committee.PowerOf(f.Cert.Signers), Total: m.committee.Total(),
	}, nil
}

// Append appends the encoding: header count 2, then for each a length 4 and the header, certificate length 2,
// certificate.
func (f *Final) Append(b []byte) []byte {
	s := cryptobyte.NewBuilder(b)
	s.AddUint16(uint16(len(f.Headers)))
	for _, h := range f.Headers {
		enc := h.Append(nil)
		s.AddUint32(uint32(len(enc)))
		s.AddBytes(enc)
	}
	enc := f.Cert.Append(nil)
	s.AddUint16(uint16(len(enc)))
	s.AddBytes(enc)
	return s.BytesOrPanic()
}

// DecodeFinal decodes exactly one Final. Nothing is verified.
func DecodeFinal(b []byte) (*Final, error) {
	s := cryptobyte.String(b)
	f, err := readFinal(&s)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, fail(ErrMalformed, "%d bytes after the certificate", len(s))
	}
	return &f, nil
}

func readFinal(s *cryptobyte.String) (f Final, err error) {
	var count, certLen uint16
	if !s.ReadUint16(&count) || count == 0 || count > 1+MaxDescendants {
		return f, fail(ErrMalformed, "need 1 to %d headers", 1+MaxDescendants)
	}
	budget := maxFinalBytes
	for i := range int(count) {
		var n uint32
		var enc []byte
		if !s.ReadUint32(&n) || int64(n) > int64(budget) || !s.ReadBytes(&enc, int(n)) {
			return f, fail(ErrMalformed, "header %d is cut short or too long", i)
		}
		budget -= int(n)
		h, err := consensus.DecodeHeader(enc)
		if err != nil {
			return f, fmt.Errorf("proof: %w: header %d: %w", ErrMalformed, i, err)
		}
		f.Headers = append(f.Headers, h)
	}
	var enc []byte
	if !s.ReadUint16(&certLen) || !s.ReadBytes(&enc, int(certLen)) {
		return f, fail(ErrMalformed, "the certificate is cut short")
	}
	c, err := consensus.DecodeCertificate(enc)
	if err != nil {
		return f, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	f.Cert = *c
	return f, nil
}
