package proof

import (
	"encoding/json"
	"errors"
	"fmt"

	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Accounts proves the records of several accounts of one shard, or that there are none, under the state root that a
// final header carries. It is much smaller than an Account for each.
type Accounts struct {
	IDs   []tx.ID // ascending, each once, at most ledger.MaxProofAccounts
	Final Final
	Path  *ledger.AccountsProof
}

// accountsFile is the JSON form. Where repeats the evidence for people and must agree with it.
type accountsFile struct {
	Format      string           `json:"format"`
	IDs         []tx.ID          `json:"ids"`
	StateHeight consensus.Height `json:"state_height"`
	Where       Where            `json:"where"`
	Path        Hex              `json:"path"`
	Final       finalFile        `json:"final"`
}

// Verify checks everything in a against t, and says what it proves of each account, in their order.
func (a *Accounts) Verify(t *Trust) ([]*AccountStatement, error) {
	if _, err := a.Final.Verify(t); err != nil {
		return nil, err
	}
	h := a.Final.Header()
	for _, id := range a.IDs {
		if keeper := t.ShardOf(id); keeper != h.Shard {
			return nil, fail(ErrShard, "account %s is kept by shard %d, the header is of shard %d", id, keeper, h.Shard)
		}
	}
	records, err := ledger.VerifyAccountsProof(tx.Hash(h.State), a.IDs, a.Path)
	switch {
	case errors.Is(err, ledger.ErrIDs):
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	case err != nil:
		return nil, fmt.Errorf("proof: %w: %w", ErrAccount, err)
	}
	out := make([]*AccountStatement, len(records))
	for i := range records {
		out[i] = accountStatement(a.IDs[i], &records[i], h)
	}
	return out, nil
}

// MarshalJSON writes the file form.
func (a *Accounts) MarshalJSON() ([]byte, error) {
	h := a.Final.Header()
	return json.Marshal(accountsFile{AccountsFormat, a.IDs, StateHeight(h), where(h), a.Path.Append(nil), a.Final.file()})
}

// DecodeAccounts decodes exactly one proof of several accounts in its file form, at most MaxFileBytes. Nothing is
// verified beyond the form.
func DecodeAccounts(b []byte) (*Accounts, error) {
	var in accountsFile
	if err := strict(b, MaxFileBytes, AccountsFormat, &in); err != nil {
		return nil, err
	}
	a := &Accounts{IDs: in.IDs}
	var err error
	if a.Final, err = in.Final.decode(); err != nil {
		return nil, err
	}
	if a.Path, err = ledger.DecodeAccountsProof(in.Path, a.IDs); err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	if h := a.Final.Header(); in.StateHeight != StateHeight(h) || in.Where != where(h) {
		return nil, fail(ErrMalformed, "height or place are not those of the header")
	}
	return a, nil
}
