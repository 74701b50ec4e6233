package engine

import (
	"context"
	"errors"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
)

// restart brings the application to where the log is, as far as the log is of this epoch, and makes the machine from the log;
// none if the epoch is over.
func (e *Engine) restart(ctx context.Context) (simplex.Ready, error) {
	root, cert, err := e.root()
	if err != nil {
		return simplex.Ready{}, err
	}
	if err := e.replay(ctx, root.Height); err != nil {
		return simplex.Ready{}, err
	}
	e.final = root
	e.status.finalised(root)
	if root.Ends() && root.Epoch == e.c.Committee.Epoch {
		if e.ended, err = e.c.Log.EpochEnd(root.Epoch); err != nil {
			return simplex.Ready{}, fatal("reading what ended the epoch", err)
		}
		return simplex.Ready{}, nil
	}
	if cert.Kind != 0 && cert.Epoch == e.c.Committee.Epoch {
		e.latest.Store(&consensus.FinalHeader{Header: root, Cert: cert})
	}
	records := e.c.Log.Records()
	for _, r := range records {
		if v := r.Vote; v != nil && e.c.Index >= 0 && v.Epoch == e.c.Committee.Epoch && int(v.Validator) != e.c.Index {
			return simplex.Ready{}, fatal(fmt.Sprintf("vote of validator %d, this is %d", v.Validator, e.c.Index), ErrOtherValidator)
		}
	}
	var blocks []consensus.Block
	for _, hash := range e.c.Log.Undecided() {
		bl, err := e.c.Log.Block(hash)
		if err != nil {
			return simplex.Ready{}, fatal("reading the block log", err)
		}
		blocks = append(blocks, bl)
	}
	from := simplex.Config{
		Chain: e.c.Chain, Root: root, RootCert: cert, Committee: e.c.Committee, Keys: e.c.Keys, Signer: e.c.Signer,
		Index: e.c.Index, Timing: e.c.Timing, Limits: e.c.Limits, Blocks: blocks, Log: records,
	}
	e.c.Trace.Start(&from)
	m, ready, err := simplex.New(from)
	if err != nil {
		return simplex.Ready{}, fatal("restoring the machine", err)
	}
	e.c.Trace.Made(ready)
	e.machine = m
	return ready, nil
}

// root is the last final block of the log up to the end of this epoch, with the finalization of it or of an echo; genesis
// while nothing is final. It is of this epoch, or ends the one before and names this one's committee.
func (e *Engine) root() (*consensus.Header, consensus.Certificate, error) {
	h, cert, err := e.lastFinal()
	if err != nil {
		return nil, cert, err
	}
	c := e.c.Committee
	if begins := h.Ends() && h.Epoch+1 == c.Epoch && h.NextCommittee == c.Hash(); h.Epoch != c.Epoch && !begins {
		return nil, cert, fatal(fmt.Sprintf("epoch %d on a final block of epoch %d at height %d", c.Epoch, h.Epoch, h.Height), ErrOtherEpoch)
	}
	return h, cert, nil
}

func (e *Engine) lastFinal() (*consensus.Header, consensus.Certificate, error) {
	height, hash := e.c.Log.Final()
	if height == 0 {
		return e.c.Genesis, consensus.Certificate{}, nil
	}
	if end, ok := e.c.Log.EndOf(e.c.Committee.Epoch); ok {
		height = end
		hash, _ = e.c.Log.FinalAt(end)
	}
	h, err := e.c.Log.Header(hash)
	if err != nil {
		return nil, consensus.Certificate{}, fatal("reading the block log", err)
	}
	_, cert, err := e.c.Log.Finalization(height)
	if err != nil {
		return nil, consensus.Certificate{}, fatal("reading the block log", err)
	}
	return h, *cert, nil
}

// replay has the application certify and finalise the logged blocks above its own final one, up to height top.
func (e *Engine) replay(ctx context.Context, top consensus.Height) error {
	height, hash := e.c.App.Final()
	if logged, _ := e.c.Log.Final(); height > top && height <= logged {
		what := fmt.Sprintf("epoch %d, which ended at height %d, on a state at height %d", e.c.Committee.Epoch, top, height)
		return fatal(what, ErrOtherEpoch)
	}
	if err := agrees(e.c.Log, e.c.Genesis, top, height, hash); err != nil {
		return err
	}
	w := &e.worker
	w.height, w.hash = height, hash
	var batch []consensus.Block
	for h := height + 1; h <= top; h++ {
		bl, err := e.finalBlock(h)
		if err != nil {
			return err
		}
		valid, _, err := w.certify(ctx, bl)
		if err != nil {
			return fatal(fmt.Sprintf("certifying block %d of the log", h), err)
		}
		if !valid {
			return fatal(fmt.Sprintf("block %d of the log is final and invalid here", h), ErrContradiction)
		}
		batch = append(batch, bl)
		at, cert, err := e.c.Log.Finalization(h)
		if err != nil {
			return fatal("reading the block log", err)
		}
		if at == h {
			if err := w.finalise(ctx, batch, *cert); err != nil {
				return fatal(fmt.Sprintf("finalising block %d of the log", h), err)
			}
			batch = nil
		}
		if err := ctx.Err(); err != nil {
			return fatal("replay of the log", err)
		}
	}
	return nil
}

// agrees compares the application's final block with the log's block at that height, where the log is final up to top.
func agrees(log *blocklog.Log, genesis *consensus.Header, top, height consensus.Height, hash consensus.Hash) error {
	want, ok := genesis.Hash(), true
	if height > 0 {
		want, ok = log.FinalAt(height)
	}
	switch {
	case height > top:
		return fatal(fmt.Sprintf("state at height %d, log at %d", height, top), ErrStateAhead)
	case !ok:
		return fatal(fmt.Sprintf("state at height %d, log from %d", height, log.Base()), ErrPruned)
	case want != hash:
		return fatal(fmt.Sprintf("state on block %s at height %d, where %s is final", hash.Short(), height, want.Short()), ErrContradiction)
	}
	return nil
}

// finalBlock reads the final block at a height that is at most the log's.
func (e *Engine) finalBlock(h consensus.Height) (consensus.Block, error) {
	hash, ok := e.c.Log.FinalAt(h)
	if !ok {
		return consensus.Block{}, fatal(fmt.Sprintf("block %d", h), ErrPruned)
	}
	bl, err := e.c.Log.Block(hash)
	if errors.Is(err, blocklog.ErrNotFound) {
		return bl, fatal(fmt.Sprintf("block %d", h), ErrPruned)
	} else if err != nil {
		return bl, fatal("reading the block log", err)
	}
	return bl, nil
}
