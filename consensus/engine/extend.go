package engine

import (
	"context"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// Extend brings a log that this validator has voted with up to a final block at height at or above, without executing
// anything: for a node that lost its state but not its log, and has copied the state from others. The votes stay in the log,
// so there is no need of a floor. Blocks are verified and synced; it may be killed at any point and called again. A log that
// holds the block already is left as it is.
//
// Errors: ErrForeignEpoch, ErrNoAnswer; ErrNotKept where the others do not keep the blocks any more that the log lacks; ErrNotEmpty where the log
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

// Carry makes an empty log one that begins with the final block at height at and has all that binds this validator in
// another one, old, whose blocks end too far below for Extend: its votes, its floor, its certificates and, of its blocks that
// are not final, those of later views, for which it may have promised to have them. So there is no need of a floor: every vote that
// the validator ever cast is in the new log or of a view that is decided there. There is one nevertheless (simplex, R17) where
// the others say at once how far they are: it costs a few views, and old is perhaps an old copy. It is synced votes first. Cut
// short, it is to be begun again with another empty log.
//
// Errors: ErrNotEmpty if log is not empty, ErrNoAnswer, ErrHalted, those of blocklog, the context's.
func (f *Follower) Carry(ctx context.Context, old, log *blocklog.Log, at consensus.Height) error {
	if log.Stats().Blocks > 0 || len(log.Records()) > 0 {
		return fatal(fmt.Sprintf("carrying votes to a log that begins at %d", at), ErrNotEmpty)
	}
	c := f.c.Committee
	var floor *simplex.Floor
	var votes []consensus.Vote
	for _, r := range old.Records() {
		if r.Floor != nil && r.Floor.Shard == c.Shard && r.Floor.Epoch == c.Epoch {
			floor = r.Floor
		}
		if r.Vote != nil {
			votes = append(votes, *r.Vote)
		}
	}
	switch above, leading, err := f.floor(ctx); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && (floor == nil || floor.View < above.View):
		floor = &above
		if leading != nil {
			if err := log.AppendRecord(simplex.Record{Cert: leading}); err != nil {
				return fatal("carrying votes", err)
			}
		}
	}
	if err := log.Protect(floor, votes); err != nil {
		return fatal("carrying votes", err)
	}
	for _, r := range old.Records() {
		if r.Cert == nil {
			continue
		}
		if err := log.AppendRecord(simplex.Record{Cert: r.Cert}); err != nil {
			return fatal("carrying certificates", err)
		}
	}
	if err := f.adoptBlocks(ctx, log, at, at); err != nil {
		return err
	}
	_, hash := log.Final()
	root, err := log.Header(hash)
	if err != nil {
		return fatal("reading the block log", err)
	}
	for _, hash := range old.Undecided() {
		bl, err := old.Block(hash)
		if err == nil && bl.Header.View > root.View {
			err = log.AppendBlock(bl)
		}
		if err != nil {
			return fatal("carrying blocks", err)
		}
	}
	if err := log.Sync(); err != nil {
		return fatal("log sync", err)
	}
	return nil
}
