package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// ImportOptions say how a data folder is made of a state file.
type ImportOptions struct {
	Shard           consensus.ShardID // of this home's validator
	RetentionBlocks int
	Workers         int // that check signatures and chunks
	// NeverVoted says that no validator with this home's voting key has ever voted. Then the consensus log begins with the
	// blocks of the file and the node votes at once. Otherwise the log is empty, and the node, before it takes part, asks
	// the others how far it may have voted (the vote floor, consensus/simplex R17) and takes the blocks from them.
	NeverVoted bool
	Progress   Progress
}

// importSuffix is added to the name of the data folder while it is made. Such a folder is of no use if that is interrupted,
// and the next import removes it.
const importSuffix = ".import"

// ImportState makes the data folder of home, which has none, of the state file r, and checks everything in it like
// VerifyState. The folder gets its name last, in one step, so that after a crash there is a whole one or none.
func ImportState(ctx context.Context, home config.Home, v *genesis.Verified, r io.Reader, o ImportOptions) (info *StateInfo, err error) {
	release, err := home.Lock()
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := os.Lstat(home.Data()); err == nil {
		return nil, fmt.Errorf("%s exists: a state is imported only where there is none, because a validator that forgets its votes can be slashed; to give up what is there, move that folder away", home.Data())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := openStateFile(r, v, o.Workers, o.Progress)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.info.Shard != o.Shard {
		return nil, fmt.Errorf("the file is of shard %d, this home's validator is of shard %d: export the state of a node of that shard", s.info.Shard, o.Shard)
	}
	making := home.Data() + importSuffix
	if err := os.RemoveAll(making); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(making))
		}
	}()
	if err := os.Mkdir(making, 0o755); err != nil {
		return nil, err
	}
	if err := s.fill(ctx, home, making, o); err != nil {
		return nil, err
	}
	if err := config.MarkFormat(making, config.DataFormat); err != nil {
		return nil, err
	}
	if err := os.Rename(making, home.Data()); err != nil {
		return nil, err
	}
	return s.info, host.SyncDir(string(home))
}

// fill makes state and consensus log in a folder that will be the data folder.
func (s *stateReader) fill(ctx context.Context, home config.Home, making string, o ImportOptions) (err error) {
	in := func(path string) string { return filepath.Join(making, filepath.Base(path)) }
	log, err := blocklog.Open(blocklog.Options{
		FS: disk(), Dir: in(home.Blocks()), Chain: s.genesis.Hash(), Shard: o.Shard, Create: true, Retention: keptBlocks(o.RetentionBlocks),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := s.load(ctx, in(home.State())); err != nil {
		return err
	}
	if err := keepHeader(making, s.root); err != nil {
		return err
	}
	keep := func(consensus.Block) error { return nil } // the others have them
	if o.NeverVoted {
		keep = log.AppendBlock
	}
	if err := errors.Join(s.execute(ctx, keep), s.ledger.Close()); err != nil {
		return err
	}
	if !o.NeverVoted {
		// The state is whole, the log is not: the start goes on where a copy from the others would have come to.
		return host.CreateFile(in(home.SyncMark()), []byte(markText), 0o644)
	}
	if err := log.AppendFinal(&s.final.Cert); err != nil {
		return err
	}
	return log.Sync()
}
