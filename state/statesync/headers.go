package statesync

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"tutti/state/ledger"
	"tutti/state/tx"
)

// Headers are the verified final headers of the shard. Safe for concurrent use; calls end soon after their context.
type Headers interface {
	// Advance asks for the newest final header, verifies it, and returns the height of the highest one known. An error
	// says that nobody could be asked just now.
	Advance(ctx context.Context) (uint64, error)
	// Headers are what the verified final headers at heights from to to say, both included, at most MaxHeaders of them
	// and none above the height that Advance returned. An error says that they could not be had just now.
	Headers(ctx context.Context, from, to uint64) ([]ledger.Trusted, error)
}

// MaxHeaders is the longest range that Headers are asked for.
const MaxHeaders = 4096

// maxAhead is how far above the tip that others tell of a peer's part may be before it is not believed at once.
const maxAhead = 64

// errAbove says that nobody else tells of a final header so high.
var errAbove = errors.New("above every final header that the shard's validators tell of")

// noHeaders says that headers could not be had for a while. It is no lie of the peer whose part was to be checked.
type noHeaders struct{ err error }

func (e *noHeaders) Error() string {
	return "headers to check it by could not be had: " + e.err.Error()
}
func (e *noHeaders) Unwrap() error { return e.err }

// trust remembers verified headers: some 130 bytes for each block during the sync. One goroutine at a time works on it;
// nobody waits with the turn in hand but for one question.
type trust struct {
	source Headers
	grace  time.Duration // how long a height may be above the tip, or the source silent
	beat   time.Duration // between two questions

	tip atomic.Uint64 // height of the highest one; written in turn

	turn chan struct{} // capacity 1: holds a token while nobody works on what follows
	have map[uint64]ledger.Trusted
}

func newTrust(source Headers, grace time.Duration) *trust {
	t := &trust{source: source, grace: grace, beat: max(grace/50, time.Millisecond), turn: make(chan struct{}, 1), have: map[uint64]ledger.Trusted{}}
	t.turn <- struct{}{}
	return t
}

// with calls f in turn.
func (t *trust) with(ctx context.Context, f func() error) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { t.turn <- struct{}{} }()
	return f()
}

// advance asks for the tip. In turn only.
func (t *trust) advance(ctx context.Context) error {
	got, err := t.source.Advance(ctx)
	if err != nil {
		return &noHeaders{err}
	}
	t.tip.Store(max(t.tip.Load(), got))
	return nil
}

// watch keeps the tip up to date until ctx ends.
func (t *trust) watch(ctx context.Context) {
	beat := time.NewTicker(t.beat)
	defer beat.Stop()
	for ctx.Err() == nil {
		_ = t.with(ctx, func() error { return t.advance(ctx) }) // the next one may do better
		select {
		case <-beat.C:
		case <-ctx.Done():
		}
	}
}

// again calls try until it says done, at most for grace; the last error is returned then.
func (t *trust) again(ctx context.Context, try func() (done bool, err error)) error {
	late := time.NewTimer(t.grace)
	defer late.Stop()
	beat := time.NewTicker(t.beat)
	defer beat.Stop()
	for {
		done, err := try()
		if done {
			return err
		}
		select {
		case <-beat.C:
		case <-late.C:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// header is the one at a height. One that is a little above the tip is waited for: who told of it may have heard of it
// before those who are asked here. Errors: errAbove, *noHeaders, the context's.
func (t *trust) header(ctx context.Context, height uint64) (h ledger.Trusted, err error) {
	err = t.again(ctx, func() (done bool, err error) {
		err = t.with(ctx, func() error {
			if height > t.tip.Load() {
				if err := t.advance(ctx); err != nil {
					return err
				}
			}
			tip := t.tip.Load()
			if height > tip {
				done = height > tip+maxAhead
				return fmt.Errorf("height %d is %w: %d", height, errAbove, tip)
			}
			err := t.load(ctx, height, min(tip, height+MaxHeaders-1))
			h, done = t.have[height], err == nil
			return err
		})
		return done || ctx.Err() != nil, err
	})
	return h, err
}

// between reads the headers at heights from to to, none above the tip.
func (t *trust) between(ctx context.Context, from, to uint64) (map[uint64]ledger.Trusted, error) {
	out := make(map[uint64]ledger.Trusted, to-from+1)
	for at := from; at <= to; at += MaxHeaders {
		end := min(to, at+MaxHeaders-1)
		if err := t.again(ctx, func() (bool, error) {
			err := t.with(ctx, func() error {
				if err := t.load(ctx, at, end); err != nil {
					return err
				}
				for h := at; h <= end; h++ {
					out[h] = t.have[h]
				}
				return nil
			})
			return err == nil || ctx.Err() != nil, err
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// load asks for the headers at heights from to to, but for those at either end that are known. In turn only.
func (t *trust) load(ctx context.Context, from, to uint64) error {
	known := func(h uint64) bool { _, ok := t.have[h]; return ok }
	for from <= to && known(from) {
		from++
	}
	for from < to && known(to) {
		to--
	}
	if from > to {
		return nil
	}
	hs, err := t.source.Headers(ctx, from, to)
	if err == nil && uint64(len(hs)) != to-from+1 {
		err = fmt.Errorf("%d headers for heights %d to %d", len(hs), from, to)
	}
	if err != nil {
		return &noHeaders{err}
	}
	for i := range hs {
		t.have[from+uint64(i)] = hs[i]
	}
	return nil
}

// root is the state root after the block at a height: the header StateLag above carries it.
func (t *trust) root(ctx context.Context, height uint64) (tx.Hash, error) {
	if height > math.MaxUint64-ledger.StateLag {
		return tx.Hash{}, fmt.Errorf("height %d is %w", height, errAbove)
	}
	h, err := t.header(ctx, height+ledger.StateLag)
	return h.State, err
}
