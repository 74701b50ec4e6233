package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"tutti/accel/bls"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Create makes the data folder of a validator that has never run: state at genesis and empty logs. It refuses where
// there is one, whole or in part, because a validator that forgets its votes can be slashed. shard is the validator's.
// The data folder's format file is written last, so that an interrupted Create is not taken for a whole one.
func Create(home config.Home, v *genesis.Verified, shard consensus.ShardID, retentionBlocks int) (err error) {
	if _, err := os.Lstat(home.Data()); err == nil {
		return fmt.Errorf("%s exists: a validator begins only once; if making it was interrupted and this validator has never run, remove that folder and try again", home.Data())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	params, _, accounts, err := shardGenesis(v, shard)
	if err != nil {
		return err
	}
	if err := os.Mkdir(home.Data(), 0o755); err != nil {
		return err
	}
	log, err := blocklog.Open(blocklog.Options{
		FS: disk(), Dir: home.Blocks(), Chain: v.Hash(), Shard: shard, Create: true, Retention: consensus.Height(retentionBlocks),
	})
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	l, err := ledger.Open(ledger.Options{
		FS: disk(), Dir: home.State(), Create: true, Genesis: accounts, Params: params,
		Verifier: noBlocks{}, Headers: noBlocks{}, Possession: bls.VerifyPossession,
	})
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return config.MarkFormat(home.Data(), config.DataFormat)
}

// noBlocks stands where a ledger that is only created would check blocks: it judges nothing good.
type noBlocks struct{}

var errNoBlocks = errors.New("this ledger is only being created")

func (noBlocks) Check(context.Context, []tx.Signed, [][32]byte, []uint16, []bool) error {
	return errNoBlocks
}

func (noBlocks) Verify(uint16, []byte) (ledger.ForeignHeader, error) {
	return ledger.ForeignHeader{}, errNoBlocks
}

// shardGenesis is what a genesis fixes for a shard: the ledger's parameters, the genesis header, the accounts.
func shardGenesis(v *genesis.Verified, shard consensus.ShardID) (ledger.Params, *consensus.Header, ledger.GenesisAccounts, error) {
	g := v.Genesis
	p := ledger.Params{
		GenesisHash: tx.Hash(v.Hash()), Shard: uint16(shard), Shards: uint16(len(g.Shards)), Table: g.Table,
		Fees: g.Parameters.Fees, OpenDeposit: g.Parameters.OpenDeposit, OpenCap: g.Parameters.OpenCap,
		AccountLimit: g.Parameters.AccountLimit, ReceiptWindow: g.Parameters.ReceiptWindow, Supplies: v.Supplies,
	}
	all := make([]ledger.GenesisAccount, 0, v.Counts[shard])
	if err := v.AccountsOf(shard, func(a genesis.Account) bool {
		account := ledger.GenesisAccount{ID: a.ID, Key: a.Key, Balance: a.Balance}
		if a.BLS != nil {
			account.BLS = &a.BLS.Key
		}
		all = append(all, account)
		return true
	}); err != nil {
		return p, nil, nil, err
	}
	accounts := iter.Seq[ledger.GenesisAccount](func(yield func(ledger.GenesisAccount) bool) {
		for _, a := range all {
			if !yield(a) {
				return
			}
		}
	})
	root, err := ledger.GenesisRoot(p, accounts)
	if err != nil {
		return p, nil, nil, err
	}
	h, err := g.Header(shard, consensus.Hash(root))
	if err != nil {
		return p, nil, nil, err
	}
	p.GenesisBlock = tx.Hash(h.Hash())
	return p, h, accounts, nil
}
