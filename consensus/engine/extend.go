package engine

import (
	"context"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// Extend brings a log that this validator has voted with up to a final block at height at or above, without executing
// anything: for a node that lost its state but not its log, and has copied the state from others. The votes stay in the log,
// so there is no need of a floor. Blocks are verified and synced; it may be killed at any point and called again. A log that
// holds the block already is left as it is.
//
// Errors: ErrForeignEpoch, ErrNoAnswer, also where the others do not keep the blocks any more that the log lacks; ErrNotEmpty where the log
// begins above the height; ErrContradiction, ErrHalted, those of blocklog, the context's.
func (f *Follower) Extend(ctx context.Context, log *blocklog.Log, at consensus.Height) error {
	final, _ := log.Final()
	switch {
	case final > 0 && at < log.Base():
		return fatal(fmt.Sprintf("extending a log that begins at %d to height %d", log.Base(), at), ErrNotEmpty)
	case at <= final:
		return nil
	}
	return f.adoptBlocks(ctx, log, final+1, at)
}
