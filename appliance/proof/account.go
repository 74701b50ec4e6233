package proof

import (
	"encoding/json"
	"fmt"

	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Account proves what an account's record is, or that there is no such account, under the state root that a final
// header carries.
type Account struct {
	ID    tx.ID
	Final Final
	Path  *ledger.AccountProof
}

// AccountStatement is what an Account proves once it is verified. It can not be read off without verifying.
type AccountStatement struct {
	ID          tx.ID            `json:"id"`
	Chain       Digest           `json:"chain"` // genesis hash
	Exists      bool             `json:"exists"`
	Balance     uint64           `json:"balance,string"`
	Nonce       uint32           `json:"nonce"` // the next transaction's
	Key         Digest           `json:"key"`   // Ed25519 public key
	Generation  uint16           `json:"generation"`
	LastTouch   uint32           `json:"last_touch"`   // height of the block that last changed the record
	StateHeight consensus.Height `json:"state_height"` // the record is as of the end of this block
	Where       Where            `json:"where"`        // the final header that carries the root
}

// StateHeight is the height of the block after which h's state root is.
func StateHeight(h *consensus.Header) consensus.Height {
	return h.Height - min(h.Height, consensus.StateLag)
}

// accountFile is the JSON form. Where repeats the evidence for people and must agree with it.
type accountFile struct {
	Format      string           `json:"format"`
	ID          tx.ID            `json:"id"`
	StateHeight consensus.Height `json:"state_height"`
	Where       Where            `json:"where"`
	Path        Hex              `json:"path"`
	Final       finalFile        `json:"final"`
}

// Verify checks everything in a against t.
func (a *Account) Verify(t *Trust) (*AccountStatement, error) {
	if _, err := a.Final.Verify(t); err != nil {
		return nil, err
	}
	h := a.Final.Header()
	if keeper := t.ShardOf(a.ID); keeper != h.Shard {
		return nil, fail(ErrShard, "account %s is kept by shard %d, the header is of shard %d", a.ID, keeper, h.Shard)
	}
	r, _, err := ledger.VerifyAccountProof(tx.Hash(h.State), a.ID, a.Path)
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrAccount, err)
	}
	return accountStatement(a.ID, &r, h), nil
}

func accountStatement(id tx.ID, r *ledger.Record, h *consensus.Header) *AccountStatement {
	return &AccountStatement{
		ID: id, Chain: Digest(h.Chain), Exists: r.Kind != ledger.KindNone, Balance: r.Balance, Nonce: r.Nonce, Key: r.Key,
		Generation: r.Generation, LastTouch: r.LastTouch, StateHeight: StateHeight(h), Where: where(h),
	}
}

// MarshalJSON writes the file form.
func (a *Account) MarshalJSON() ([]byte, error) {
	h := a.Final.Header()
	return json.Marshal(accountFile{AccountFormat, a.ID, StateHeight(h), where(h), a.Path.Append(nil), a.Final.file()})
}

// DecodeAccount decodes exactly one account proof in its file form, at most MaxFileBytes. Nothing is verified beyond
// the form.
func DecodeAccount(b []byte) (*Account, error) {
	var in accountFile
	if err := strict(b, MaxFileBytes, AccountFormat, &in); err != nil {
		return nil, err
	}
	a := &Account{ID: in.ID}
	var err error
	if a.Final, err = in.Final.decode(); err != nil {
		return nil, err
	}
	if a.Path, err = ledger.DecodeAccountProof(in.Path); err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	if h := a.Final.Header(); in.StateHeight != StateHeight(h) || in.Where != where(h) {
		return nil, fail(ErrMalformed, "height or place are not those of the header")
	}
	return a, nil
}
