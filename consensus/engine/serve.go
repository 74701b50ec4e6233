package engine

import (
	"context"
	"errors"
	"time"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// Refusals of a request, for the peer that asked.
var (
	errPenalty = errors.New("engine: no answer to a peer that broke the rules")
	errBusy    = errors.New("engine: busy, ask another peer")
	errClosed  = errors.New("engine: closed")
	errEpoch   = errors.New("engine: in another epoch, ask a validator that is in yours")
	errSilent  = errors.New("engine: not above its own vote floor yet, ask another validator")
)

// serve answers a peer's request. It runs on the network's goroutines.
func (e *Engine) serve(ctx context.Context, from int, req []byte) ([]byte, error) {
	if e.penalties.serves(from, time.Now()) {
		e.status.count(func(c *Counters) { c.RefusedPenalty++ })
		return nil, errPenalty
	}
	if !e.limits.request(from) {
		e.status.count(func(c *Counters) { c.RefusedRate++ })
		return nil, errBusy
	}
	r, err := decodeRequest(req)
	if err != nil {
		if from >= 0 {
			e.blame(from, err.Error())
		}
		return nil, err
	}
	select {
	case e.serving <- struct{}{}:
		defer func() { <-e.serving }()
	default:
		e.status.count(func(c *Counters) { c.RefusedBusy++ })
		return nil, errBusy
	}
	e.status.count(func(c *Counters) { c.Served++ })
	answer, err := e.answer(ctx, from, r)
	if err == nil && answer == nil {
		answer = []byte{typeNothing}
	}
	return answer, err
}

// answer is nil when this node does not hold what is asked for.
func (e *Engine) answer(ctx context.Context, from int, r request) ([]byte, error) {
	switch r.typ {
	case typeGetBlock:
		return e.serveBlock(ctx, r.hash)
	case typeGetRun:
		return e.serveRun(r.from)
	case typeGetHeaders:
		return e.serveHeaders(ctx, r.hash, r.most)
	case typeGetLeading:
		if r.epoch != e.c.Committee.Epoch {
			return nil, errEpoch
		}
		return e.serveLeading(ctx)
	case typeGetOwn:
		return e.serveOwn(from, r.epoch), nil
	}
	return e.serveLatest(r.epoch)
}

// serveLatest answers with the last finalization in an epoch: of one that is over with what ended it.
func (e *Engine) serveLatest(epoch consensus.Epoch) ([]byte, error) {
	f := e.latest.Load()
	if epoch != e.c.Committee.Epoch {
		var err error
		if f, err = e.endOf(epoch); err != nil {
			return nil, err
		}
	}
	if f == nil {
		return nil, nil
	}
	return encodeLatest(f), nil
}

// look has the owner evaluate f, which looks at the machine, and waits for it.
func look[T any](ctx context.Context, e *Engine, f func() T) (found T, err error) {
	reply := make(chan T, 1)
	e.post(func() error { reply <- f(); return nil })
	select {
	case found = <-reply:
		return found, nil
	case <-ctx.Done():
		return found, ctx.Err()
	case <-e.ctx.Done():
		return found, errClosed
	}
}

// serveBlock answers with what the machine holds, or else the log.
func (e *Engine) serveBlock(ctx context.Context, hash consensus.Hash) ([]byte, error) {
	a, err := look(ctx, e, func() *blockAnswer {
		if bl, notarization, ok := e.machine.Block(hash); ok {
			return &blockAnswer{bl, notarization}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if a != nil {
		return a.encode(), nil
	}
	bl, err := e.c.Log.Block(hash)
	if errors.Is(err, blocklog.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return blockAnswer{block: bl}.encode(), nil
}

// serveHeaders answers with a header and its ancestors, out of the log, or, if the log does not hold the first, out of
// the machine as far as it goes and then the log.
func (e *Engine) serveHeaders(ctx context.Context, hash consensus.Hash, most int) ([]byte, error) {
	hs, err := e.c.Log.Headers(hash, most, headersBytes)
	if errors.Is(err, blocklog.ErrNotFound) {
		hs, err = e.machineHeaders(ctx, hash, most)
	}
	if err != nil || len(hs) == 0 {
		return nil, err
	}
	return encodeHeaders(hs), nil
}

// machineHeaders is serveHeaders for a block that is not in the log; nothing if it is not in the machine either.
func (e *Engine) machineHeaders(ctx context.Context, hash consensus.Hash, most int) ([]*consensus.Header, error) {
	hs, err := look(ctx, e, func() (hs []*consensus.Header) {
		for len(hs) < most {
			h := e.machine.Header(hash)
			if h == nil {
				break
			}
			hs, hash = append(hs, h), h.Parent
		}
		return hs
	})
	if err != nil || len(hs) == 0 {
		return nil, err
	}
	size := 0
	for i, h := range hs {
		if size += len(h.Append(nil)); size > headersBytes && i > 0 {
			return hs[:i], nil
		}
	}
	if len(hs) == most || size >= headersBytes {
		return hs, nil
	}
	rest, err := e.c.Log.Headers(hash, most-len(hs), headersBytes-size)
	return append(hs, rest...), notHeld(err)
}

// serveLeading answers with the machine's leading certificate, unless the machine must not tell.
func (e *Engine) serveLeading(ctx context.Context) ([]byte, error) {
	type leading struct {
		cert consensus.Certificate
		ok   bool
	}
	l, err := look(ctx, e, func() leading {
		cert, ok := e.machine.Leading()
		return leading{cert, ok}
	})
	switch {
	case err != nil:
		return nil, err
	case !l.ok:
		return nil, errSilent
	case l.cert.Kind == 0:
		return nil, nil
	}
	return encodeLeading(&l.cert), nil
}

// serveRun answers with the run from a height: whole groups of blocks up to a finalization while they fit, or as much of
// the first group as fits and the headers that link it to its finalization. It ends where the epoch of the first block does.
func (e *Engine) serveRun(from consensus.Height) ([]byte, error) {
	var r run
	size := 0
	end, epoch, ends := e.c.Log.NextEnd(from)
	for h := from; !ends || h <= end; {
		at, cert, err := e.c.Log.Finalization(h)
		if err != nil {
			break // nothing final from h on
		}
		whole := len(r.blocks)
		next, err := e.readBlocks(&r, h, at, &size)
		if err != nil {
			return nil, err
		}
		if next <= at && whole > 0 {
			r.blocks = r.blocks[:whole] // up to the finalization before
			break
		}
		r.cert = *cert
		if ends && at == end {
			if err := e.addEchoes(&r, epoch); err != nil || len(r.echoes) > maxRunEchoes {
				return nil, notHeld(err)
			}
		}
		if next <= at {
			if r.links, err = e.readLinks(next, at); err != nil || r.links == nil {
				return nil, err
			}
			break
		}
		h = next
	}
	if len(r.blocks) == 0 {
		return nil, nil
	}
	return r.encode(), nil
}

// addEchoes adds what links the last block of an epoch to the finalization that ended it.
func (e *Engine) addEchoes(r *run, epoch consensus.Epoch) error {
	end, err := e.c.Log.EpochEnd(epoch)
	if err == nil {
		r.echoes = end.Echoes
	}
	return err
}

// readBlocks adds the final blocks at heights h to at while they fit; the very first always does. It returns the height
// after the last one added.
func (e *Engine) readBlocks(r *run, h, at consensus.Height, size *int) (consensus.Height, error) {
	for ; h <= at && len(r.blocks) < maxRunBlocks; h++ {
		header, err := e.finalHeader(h)
		if header == nil {
			return h, err
		}
		length := len(header.Append(nil)) + int(header.Body.Length)
		if len(r.blocks) > 0 && *size+length > runBlockBytes {
			break
		}
		bl, err := e.c.Log.Block(header.Hash())
		if err != nil {
			return h, notHeld(err)
		}
		r.blocks, *size = append(r.blocks, bl), *size+length
	}
	return h, nil
}

// readLinks reads the final headers at heights h to at; nil if they are more than an answer may carry.
func (e *Engine) readLinks(h, at consensus.Height) (links []*consensus.Header, err error) {
	for size := 0; h <= at; h++ {
		header, err := e.finalHeader(h)
		if header == nil {
			return nil, err
		}
		if size += len(header.Append(nil)); len(links) == maxRunLinks || size > runLinkBytes {
			return nil, nil
		}
		links = append(links, header)
	}
	return links, nil
}

// finalHeader reads the final header at a height; nil without error if it is not held.
func (e *Engine) finalHeader(h consensus.Height) (*consensus.Header, error) {
	hash, ok := e.c.Log.FinalAt(h)
	if !ok {
		return nil, nil
	}
	header, err := e.c.Log.Header(hash)
	return header, notHeld(err)
}

// notHeld makes a block that was pruned while it was looked for a case of nothing to say.
func notHeld(err error) error {
	if errors.Is(err, blocklog.ErrNotFound) {
		return nil
	}
	return err
}
