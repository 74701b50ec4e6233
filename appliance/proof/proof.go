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
//   - Handover: what ended an epoch (consensus.EpochEnd), and the committee of the next one.
//
// All of them start from a Final: header h, the headers that link it to the block that was voted final, and the
// finalize certificate. Trust begins with a genesis file, the genesis hash and the committee of each shard, or with a
// Checkpoint, and goes on from there by hand-overs.
//
// # What verifying proves
//
// That more than two thirds of the voting power of the shard's committee of the block's epoch signed the block to be final,
// that the block holds the transaction (by id: kind, accounts, amount, nonce) with that outcome, and for a credit that the
// destination's committee did the same for the receipt. The client's signature in the envelope is carried for
// resending and is not proven: the id covers the content only, and validators checked the signature before voting.
//
// # Encodings
//
// Finality, Account and Accounts are JSON files: a format name, a statement for people, then the evidence in hex. The decoder
// is bounded, refuses unknown fields and trailing data, and refuses a file whose statement is not the one that its
// evidence makes, so the readable part can not lie. Checkpoint and State are JSON too; Block and Handover are binary. Golden vectors are in testdata/.
//
// # Epochs
//
// A block whose NextCommittee is not its Committee ends its epoch, and names the committee of the next one by its hash, which
// covers shard, epoch, seed, keys and powers. Until it is final its committee extends it with echoes: headers without a body,
// which are no blocks. A Final may lead through echoes to its certificate, and never proves one.
//
// A Handover costs one signature check, whatever the epoch held. Possession of the new keys is not proved in it: a key gets
// power only in genesis or by a transaction that proves possession, each validator checks that before it votes for the block
// that names the committee, and so does it stand behind the certificate. That, like everything that a Final proves, holds as
// long as at most a third of the power that signed was faulty. What a forged committee would need is two thirds.
//
// # What a chain of hand-overs is worth, and a checkpoint
//
// It says whom each committee made its successor, and nothing about when. A committee's keys do not forget: whoever gets hold
// of the keys of more than two thirds of an old committee, bought, stolen or leaked long after their validators left and have
// no stake to lose, can sign another last block of its epoch, and another chain from there. Nobody can tell by signatures
// alone which was first. So do not follow hand-overs out of an epoch whose validators may have taken their stake out and gone;
// until the chain fixes that time, take two weeks for its measure. Who begins anew, or was away for longer, takes a
// Checkpoint from somebody they trust today (a friend's light client, an exchange, several explorers that agree) and begins
// there. Trust.Check compares a chain that was followed with one. A client that comes back within that time needs none.
//
// The same goes for proofs of old epochs. They verify for ever, since the hash of each epoch's committee is kept, and the
// committee is fetched again when it is needed. What was kept shuts out forged last blocks and forged blocks above them, but
// no forged block below: a proof that is first shown long after its epoch is worth what its committee's old keys are.
//
// Source: system.md 3.6.
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
	ErrCommittee   = errors.New("the block is of another committee than its epoch's")
	ErrEpoch       = errors.New("the epoch's committee is not known")
	ErrEcho        = errors.New("the header is an echo of an epoch's last block, and no block of the chain")
	ErrChain       = errors.New("the headers do not form a chain")
	ErrCertificate = errors.New("the finality certificate does not verify")
	ErrOutcome     = errors.New("the outcome is not under the block's outcomes root")
	ErrReceipt     = errors.New("the receipt is not the one that the transaction made")
	ErrBody        = errors.New("the body is not the one that the header commits to")
	ErrAccount     = errors.New("the account is not under the header's state root")
	ErrNotLast     = errors.New("the block does not end its epoch")
	ErrNext        = errors.New("the next committee is not the one that the epoch's last block names")
	ErrFollowed    = errors.New("it contradicts the hand-overs that were followed")
)

func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("proof: %w: %s", kind, fmt.Sprintf(format, args...))
}

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

// Verify checks chain, links and certificate against t. The cost is one pairing check. If t does not know the committee of
// the header's epoch, the error is an *EpochError, which says what would show it.
func (f *Final) Verify(t *Trust) (Quorum, error) {
	h := f.Headers[0]
	if h.Chain != t.genesis {
		return Quorum{}, fail(ErrGenesis, "its genesis hash is %s, the trusted one %s", h.Chain.Short(), t.genesis.Short())
	}
	k, err := t.span(h.Shard, h.Epoch)
	if err != nil {
		return Quorum{}, err
	}
	return f.verify(t.genesis, k)
}

// verify checks everything but the chain's name against what is known of the epoch.
func (f *Final) verify(genesis consensus.Hash, k span) (Quorum, error) {
	if err := f.links(k); err != nil {
		return Quorum{}, err
	}
	h, last := f.Headers[0], f.Headers[len(f.Headers)-1]
	want := consensus.Statement{Kind: consensus.Finalize, Shard: h.Shard, Epoch: h.Epoch, View: last.View, Block: last.Hash()}
	if f.Cert.Statement != want {
		return Quorum{}, fail(ErrCertificate, "it is a %s for block %s, not a finalize for %s", f.Cert.Kind, f.Cert.Block.Short(), want.Block.Short())
	}
	if err := k.committee.VerifyCertificate(genesis, k.keys, &f.Cert); err != nil {
		return Quorum{}, fmt.Errorf("proof: %w: %w", ErrCertificate, err)
	}
	return Quorum{
		Signers: f.Cert.Signers.Count(), Of: len(k.committee.Validators),
		Power: k.committee.PowerOf(f.Cert.Signers), Total: k.committee.Total(),
	}, nil
}

// links checks that the headers are one chain of blocks of the epoch, and after its last block of echoes. The first one is a
// block. View and time are the committee's business: it signed them.
func (f *Final) links(k span) error {
	h := f.Headers[0]
	for i, x := range f.Headers {
		if x.Chain != h.Chain || x.Shard != h.Shard {
			return fail(ErrChain, "header %d is of another chain or shard", i)
		}
		if x.Epoch != k.committee.Epoch || x.Committee != k.committee.Hash() {
			return fail(ErrCommittee, "header %d is of epoch %d and committee %s, the known one of epoch %d is %s",
				i, x.Epoch, x.Committee.Short(), k.committee.Epoch, k.committee.Hash().Short())
		}
		if i > 0 && (x.Parent != f.Headers[i-1].Hash() || x.Height != f.Headers[i-1].Height+1) {
			return fail(ErrChain, "header %d, of height %d, does not follow the one before", i, x.Height)
		}
		switch {
		case x.IsEcho() && i == 0:
			return fail(ErrEcho, "header %s has no body", x.Hash().Short())
		case x.IsEcho():
			return fail(ErrChain, "header %d is an echo of a block that does not end its epoch", i)
		}
		if err := k.place(x); err != nil {
			return err
		}
		if !x.Ends() {
			continue
		}
		if _, err := consensus.CheckEchoes(x, f.Headers[i+1:]); err != nil {
			return fmt.Errorf("proof: %w: %w", ErrChain, err)
		}
		return nil
	}
	return nil
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
