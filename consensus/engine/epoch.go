package engine

import (
	"errors"
	"fmt"
	"time"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// errOver ends the owner when its epoch is over.
var errOver = errors.New("engine: the epoch is over")

// EpochOf says which epoch a node has to start with, whose application has its last durable block at that height and hash: the
// epoch of that block, or the next if it ends its own. The application knows the committee of that epoch, for it has the state
// after the block. A log that is further than the application is replayed by the engines of its epochs, one after another.
// Errors: ErrStateAhead, ErrPruned, ErrContradiction, those of blocklog.
func EpochOf(log *blocklog.Log, genesis *consensus.Header, height consensus.Height, hash consensus.Hash) (last *consensus.Header, epoch consensus.Epoch, err error) {
	top, _ := log.Final()
	if err := agrees(log, genesis, top, height, hash); err != nil {
		return nil, 0, err
	}
	last = genesis
	if height > 0 {
		if last, err = log.Header(hash); err != nil {
			return nil, 0, fatal("reading the block log", err)
		}
	}
	if last.Ends() {
		return last, last.Epoch + 1, nil
	}
	return last, last.Epoch, nil
}

// Ended is what ended the epoch, once Done is closed because the epoch is over; else nil. All of it is durable, and so is the
// last block in the application: the next epoch's engine can be started.
func (e *Engine) Ended() *consensus.EpochEnd {
	select {
	case <-e.done:
		return e.ended
	default:
		return nil
	}
}

// endAt ends the engine if a block that the application has made durable is the last of the epoch. Owner only.
func (e *Engine) endAt(h *consensus.Header) (err error) {
	if !h.Ends() {
		return nil
	}
	if e.ended, err = e.c.Log.EpochEnd(h.Epoch); err != nil {
		return fatal(fmt.Sprintf("reading what ended epoch %d", h.Epoch), err)
	}
	return errOver
}

// endOf is the finalization that ended an epoch, of its last block or of an echo; nil if this node does not hold it.
func (e *Engine) endOf(epoch consensus.Epoch) (*consensus.FinalHeader, error) {
	end, err := e.c.Log.EpochEnd(epoch)
	if errors.Is(err, blocklog.ErrNotFound) && e.c.Ends != nil {
		end, err = e.c.Ends(epoch)
	}
	if err != nil || end == nil {
		return nil, notHeld(err)
	}
	f := &consensus.FinalHeader{Header: end.Last, Cert: end.Cert}
	if n := len(end.Echoes); n > 0 {
		f.Header = end.Echoes[n-1]
	}
	return f, nil
}

// otherEpoch looks into a message of another epoch. Who is behind is told what ended that epoch, at a bounded rate, but not for a
// certificate: who is on our side of the hand-over repeats the one that ended it. If we are behind, the next tick asks. It runs
// on a receiver.
func (e *Engine) otherEpoch(from int, in *inbound, now time.Time) {
	switch {
	case in.epoch() > e.c.Committee.Epoch:
		e.ahead.Store(true)
	case in.cert == nil && e.limits.ends[from].AllowN(now, 1):
		f, err := e.endOf(in.epoch())
		if err != nil {
			e.post(func() error { return fatal("reading what ended an epoch", err) })
		} else if f != nil {
			e.c.Network.Send(from, ClassVote, encodeCertificate(&f.Cert))
		}
	}
}
