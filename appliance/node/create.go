package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Create makes the data folder of a validator that has never run: state at genesis and empty logs. shard is the
// validator's. See Beginning.Create.
func Create(home config.Home, v *genesis.Verified, shard consensus.ShardID, retentionBlocks int) error {
	if err := absent(home); err != nil { // before the work
		return err
	}
	b, err := Begin(v, shard, nil)
	if err != nil {
		return err
	}
	return errors.Join(b.Create(home, retentionBlocks), b.Close())
}

// Beginning is a shard's state at genesis in memory, of which the data folders of its validators are made. It belongs to
// one goroutine.
type Beginning struct {
	chain  consensus.Hash
	shard  consensus.ShardID
	params ledger.Params
	header *consensus.Header
	state  *ledger.Genesis
}

// Begin makes the state at genesis of a shard: about half a microsecond and 84 bytes for each account. done, if not nil,
// is called now and then with the number of accounts that it has. The caller closes it.
func Begin(v *genesis.Verified, shard consensus.ShardID, done func(accounts uint64)) (*Beginning, error) {
	b := &Beginning{chain: v.Hash(), shard: shard, params: shardParams(v, shard)}
	var unread error
	var err error
	b.state, err = ledger.NewGenesis(b.params, func(yield func(ledger.GenesisAccount) bool) {
		n := uint64(0)
		unread = v.AccountsOf(shard, func(a genesis.Account) bool {
			account := ledger.GenesisAccount{ID: a.ID, Key: a.Key, Balance: a.Balance}
			if a.BLS != nil {
				account.BLS = &a.BLS.Key
				if a.BLS.Made && !v.Opened { // then it was derived, so it is in the group
					account.Ordinate = &a.BLS.Ordinate
				}
			}
			if n++; done != nil && n%reportEvery == 0 {
				done(n)
			}
			return yield(account)
		})
	}, 0)
	if unread != nil {
		if err == nil {
			err = b.state.Close()
		}
		return nil, errors.Join(unread, err)
	}
	if err != nil {
		return nil, err
	}
	if b.header, err = v.Header(shard, consensus.Hash(b.state.Root())); err != nil {
		return nil, errors.Join(err, b.state.Close())
	}
	b.params.GenesisBlock = tx.Hash(b.header.Hash())
	return b, nil
}

// reportEvery is how many accounts go by between two calls of done.
const reportEvery = 1 << 16

// Header is that of the shard's genesis block.
func (b *Beginning) Header() *consensus.Header { return b.header }

// Close releases the memory.
func (b *Beginning) Close() error { return b.state.Close() }

// Create makes the data folder of a validator of the shard that has never run. It refuses where there is one, whole or
// in part, because a validator that forgets its votes can be slashed. The data folder's format file is written last, so
// that an interrupted Create is not taken for a whole one.
func (b *Beginning) Create(home config.Home, retentionBlocks int) error {
	if err := absent(home); err != nil {
		return err
	}
	if err := os.Mkdir(home.Data(), 0o755); err != nil {
		return err
	}
	log, err := blocklog.Open(blocklog.Options{
		FS: disk(), Dir: home.Blocks(), Chain: b.chain, Shard: b.shard, Create: true, Retention: keptBlocks(retentionBlocks),
	})
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	if err := b.state.Create(disk(), home.State(), b.params); err != nil {
		return err
	}
	if err := keepHeader(home.Data(), b.header); err != nil {
		return err
	}
	return config.MarkFormat(home.Data(), config.DataFormat)
}

// absent refuses where there is a data folder.
func absent(home config.Home) error {
	_, err := os.Lstat(home.Data())
	if err == nil {
		return fmt.Errorf("%s exists: a validator begins only once; if making it was interrupted and this validator has never run, remove that folder and try again", home.Data())
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// shardParams is what a genesis fixes for a shard's ledger, but for the genesis block.
func shardParams(v *genesis.Verified, shard consensus.ShardID) ledger.Params {
	p := &v.Parameters
	return ledger.Params{
		GenesisHash: tx.Hash(v.Hash()), Shard: uint16(shard), Shards: uint16(len(v.Shards)), Table: v.Table,
		Fees: p.Fees, OpenDeposit: p.OpenDeposit, OpenCap: p.OpenCap,
		AccountLimit: p.AccountLimit, ReceiptWindow: p.ReceiptWindow, Supplies: v.Supplies,
	}
}

// headerFile is in the data folder: the header of the shard's genesis block and its SHA-256, so that a start need not make
// the state at genesis again to know its root. It can't deceive: all of it but the root follows from the genesis, and
// the ledger's folder is bound to its hash.
const headerFile = "genesis.header"

// maxHeaderBytes bounds that file.
const maxHeaderBytes = 1 << 20

func keepHeader(data string, h *consensus.Header) error {
	b := h.Append(nil)
	sum := sha256.Sum256(b)
	return host.ReplaceFile(filepath.Join(data, headerFile), append(b, sum[:]...), 0o644)
}

// genesisHeader is the header of the shard's genesis block: from the data folder, or made again where that does not have
// it as it should be (those made by the first releases do not).
func genesisHeader(home config.Home, v *genesis.Verified, shard consensus.ShardID, log *slog.Logger) (*consensus.Header, error) {
	if h, err := keptHeader(home, v, shard); err == nil {
		return h, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("making the genesis block's header again", "reason", err)
	}
	b, err := Begin(v, shard, nil)
	if err != nil {
		return nil, err
	}
	return b.header, errors.Join(b.Close(), keepHeader(home.Data(), b.header))
}

func keptHeader(home config.Home, v *genesis.Verified, shard consensus.ShardID) (*consensus.Header, error) {
	f, err := os.Open(filepath.Join(home.Data(), headerFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHeaderBytes+1))
	if err != nil {
		return nil, err
	}
	end := len(b) - sha256.Size
	if end < 0 || sha256.Sum256(b[:end]) != [32]byte(b[end:]) {
		return nil, fmt.Errorf("%s is damaged", f.Name())
	}
	h, err := consensus.DecodeHeader(b[:end])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	want, err := v.Header(shard, h.State)
	if err != nil {
		return nil, err
	}
	if want.Hash() != h.Hash() {
		return nil, fmt.Errorf("%s is of another chain or shard", f.Name())
	}
	return h, nil
}
