package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// Errors of Adopt. Each says what to do.
var (
	// ErrNotEmpty: the log that was to be adopted holds votes or blocks of its own.
	ErrNotEmpty = errors.New("the consensus log has votes or blocks of its own: start the node with it, or move it aside and join with an empty one")
	// ErrIndispensable: the others are no quorum.
	ErrIndispensable = errors.New("the other validators are no quorum without this one, so nobody can say how far it had voted: there is no safe way but to restore its own consensus log")
)

// Adopt makes an empty log one that begins with the final block at height at, for a node whose state is final there:
// first, for a validator, the vote floor (simplex, rule R17), then the block and its descendants up to one with a
// finalization, verified and synced. With at 0 only the floor is set. It may be killed at any point and called again, on
// the same log or after another Open: what is there is kept, and a log that holds the final block already is left as it is.
// Afterwards Start runs on the log as on any. The earlier process with the same key must have ended before Adopt begins,
// and must never run again on its old log.
//
// Errors: ErrNotEmpty, ErrIndispensable, ErrNoAnswer, also where the members that answer are in another epoch or at the end of this
// one; ErrForeignEpoch where the block is of another epoch; ErrHalted, those of blocklog, the context's.
func (f *Follower) Adopt(ctx context.Context, log *blocklog.Log, at consensus.Height) error {
	from, err := f.adoptable(log, at)
	if err != nil {
		return err
	}
	if f.votes() && !f.hasFloor(log) {
		// Before any block, so that a log with blocks has the floor, whenever this is cut short.
		floor, leading, err := f.floor(ctx)
		if err != nil {
			return err
		}
		if err := log.SetFloor(floor, leading); err != nil {
			return fatal("setting the vote floor", err)
		}
	}
	if from == 0 {
		return nil
	}
	return f.adoptBlocks(ctx, log, from, at)
}

// votes reports whether the node is a validator, of this epoch or a later one.
func (f *Follower) votes() bool { return f.c.Index >= 0 || f.c.Later }

func (f *Follower) hasFloor(log *blocklog.Log) bool {
	c := f.c.Committee
	return slices.ContainsFunc(log.Records(), func(r simplex.Record) bool {
		return r.Floor != nil && r.Floor.Shard == c.Shard && r.Floor.Epoch == c.Epoch
	})
}

// adoptable says from which height on blocks are missing, 0 if none are, or why the log can't be adopted.
func (f *Follower) adoptable(log *blocklog.Log, at consensus.Height) (from consensus.Height, err error) {
	own := slices.ContainsFunc(log.Records(), func(r simplex.Record) bool { return r.Vote != nil })
	begun := !f.votes() || slices.ContainsFunc(log.Records(), func(r simplex.Record) bool { return r.Floor != nil })
	if own || !begun && (log.Stats().Blocks > 0 || len(log.Records()) > 0) {
		return 0, fatal("adopting height "+fmt.Sprint(at), ErrNotEmpty)
	}
	final, _ := log.Final()
	if final == 0 || at == 0 {
		return at, nil
	}
	if at < log.Base() {
		return 0, fatal(fmt.Sprintf("adopting height %d by a log that begins at %d", at, log.Base()), ErrNotEmpty)
	}
	if at <= final {
		return 0, nil
	}
	return final + 1, nil // begun at a lower height: what lies between comes too
}

// floor asks the other members how far the shard is, until a quorum has answered (R17). One that sends nonsense, now or
// before, has answered: it is faulty, and might as well have said that it holds nothing. More than a third of such is no
// committee to join.
func (f *Follower) floor(ctx context.Context) (simplex.Floor, *consensus.Certificate, error) {
	c := f.c.Committee
	none := simplex.Floor{}
	rest := c.Total()
	if f.c.Index >= 0 {
		rest -= c.Validators[f.c.Index].Power
	}
	if !c.IsQuorum(rest) {
		return none, nil, fatal("making the vote floor", ErrIndispensable)
	}
	answered, lying := consensus.NewSigners(len(c.Validators)), consensus.NewSigners(len(c.Validators))
	for _, l := range f.Liars() {
		answered.Add(l.Member)
		lying.Add(l.Member)
	}
	var best *consensus.Certificate
	err := f.poll(ctx, request{typ: typeGetLeading, epoch: c.Epoch}, fetchTimeout, askedAtOnce, func(from int, b []byte) (bool, error) {
		answered.Add(from)
		cert, err := f.leading(b, best)
		if err != nil {
			lying.Add(from)
		} else if cert != nil {
			best = cert
		}
		return c.IsQuorum(c.PowerOf(answered)), err
	})
	switch power, bad := c.PowerOf(answered), c.PowerOf(lying); {
	case err != nil:
		return none, nil, fmt.Errorf("engine: making the vote floor: %w", err)
	case 3*bad > c.Total():
		return none, nil, fmt.Errorf("engine: making the vote floor: %d of %d power sent nonsense, as a committee of another version would: %w", bad, c.Total(), ErrNoAnswer)
	case !c.IsQuorum(power):
		return none, nil, fmt.Errorf("engine: making the vote floor: %d of %d power answered, more than two thirds have to: %w", power, c.Total(), ErrNoAnswer)
	}
	floor := simplex.Floor{Shard: c.Shard, Epoch: c.Epoch, View: simplex.FloorMargin}
	if best != nil {
		floor.View += best.View
	}
	return floor, best, nil
}

// leading is the leading certificate in an answer if it is above best. A lower one changes nothing, whether it is good or not.
func (f *Follower) leading(b []byte, best *consensus.Certificate) (*consensus.Certificate, error) {
	if b == nil {
		return nil, nil
	}
	cert, err := decodeLeading(b)
	if err != nil || best != nil && cert.View <= best.View {
		return nil, err
	}
	return cert, f.verify.certificate(cert)
}

// adoptBlocks fetches the blocks from a height on until one at or above at has a finalization, logs and syncs them.
func (f *Follower) adoptBlocks(ctx context.Context, log *blocklog.Log, from, at consensus.Height) error {
	var parent consensus.Hash
	if final, hash := log.Final(); final > 0 {
		parent = hash
	}
	for {
		r, err := f.run(ctx, from)
		if err != nil {
			return fmt.Errorf("engine: adopting block %d: %w", from, err)
		}
		if first := r.blocks[0].Header; !parent.IsZero() && first.Parent != parent {
			return contradiction(first.Height-1, first.Parent, parent)
		}
		for _, bl := range r.blocks {
			if err := log.AppendBlock(bl); err != nil {
				return fatal("block log", err)
			}
		}
		last := r.blocks[len(r.blocks)-1].Header
		parent, from = last.Hash(), last.Height+1
		if !r.complete() {
			continue
		}
		for _, h := range r.echoes {
			if err := log.AppendBlock(consensus.Block{Header: h}); err != nil {
				return fatal("block log", err)
			}
		}
		if err := log.AppendFinal(&r.cert); err != nil {
			return fatal("block log", err)
		}
		if err := log.Sync(); err != nil {
			return fatal("log sync", err)
		}
		if last.Height >= at {
			return nil
		}
	}
}

// run fetches and verifies a run, from the first member that has one.
func (f *Follower) run(ctx context.Context, from consensus.Height) (found run, err error) {
	foreign, none := false, false // somebody said so
	err = f.poll(ctx, request{typ: typeGetRun, from: from}, runTimeout, 1, func(_ int, b []byte) (bool, error) {
		if b == nil {
			none = true
			return false, nil
		}
		r, err := decodeRun(b)
		if err == nil && r.blocks[0].Header.Epoch != f.c.Committee.Epoch {
			foreign = true // which may be true, and can't be checked
			return false, nil
		}
		if err == nil {
			err = f.verify.run(r, from)
		}
		if err != nil {
			return false, err
		}
		found = r
		return true, nil
	})
	if err == nil && found.blocks == nil {
		switch {
		case foreign:
			return found, ErrForeignEpoch
		case none:
			err = ErrNotKept
		default:
			err = ErrNoAnswer
		}
		err = fmt.Errorf("no member has it: %w", err)
	}
	return found, err
}
