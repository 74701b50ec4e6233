package load

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/bench/openloop"
	"tutti/bench/replay"
	"tutti/consensus"
	"tutti/state/tx"
)

// follow verifies a shard's blocks until the session ends.
func (s *Session) follow(shard consensus.ShardID) {
	next := consensus.Height(0)
	for {
		opt := client.FollowOptions{Shard: shard, From: next, Body: true, Patience: max(s.opt.Patience, 0)}
		err := s.client.Follow(s.ctx, opt, func(e client.Event) error {
			next = e.Header.Height + 1
			return s.block(e)
		})
		if s.ctx.Err() != nil {
			return
		}
		if s.opt.Patience > 0 || errors.Is(err, client.ErrFork) || errors.Is(err, errContradiction) {
			s.cancel(fmt.Errorf("follow shard %d: %w", shard, err))
			return
		}
		if errors.Is(err, &api.Error{Code: api.Pruned}) {
			next = 0 // from the tip; what settled in between expires for us
		}
		if !openloop.Wait(s.ctx, time.Second) {
			return
		}
	}
}

var errContradiction = errors.New("load: a verified block contradicts what was sent")

// block enters a verified block.
func (s *Session) block(e client.Event) error {
	return s.enter(e, func(now time.Duration) error { return s.own(e, now) })
}

// own enters what a verified block says of the session's transactions. mu is held.
func (s *Session) own(e client.Event, now time.Duration) error {
	h, c := e.Header, e.Contents
	for i, id := range c.IDs {
		success := c.Body.Outcomes[i]
		f := s.flights[id]
		switch {
		case f == nil || f.debited || f.shard != h.Shard:
		case !success:
			f.tally.Skipped++
		default:
			s.debit(f, h, now)
		}
	}
	for k := range c.Consumed {
		x := &c.Consumed[k]
		f := s.flights[x.Receipt.Tx]
		if f == nil || x.Receipt.Return || f.credited {
			continue
		}
		if x.Source != f.shard || h.Shard != f.dest || x.Receipt.From != f.signed.From || x.Receipt.To != f.signed.To || x.Receipt.Amount != f.signed.Amount {
			return fmt.Errorf("%w: %s in block %d of shard %d", errContradiction, x.Receipt.Tx, h.Height, h.Shard)
		}
		f.credited = true
		if x.Outcome != tx.Credited {
			f.tally.Returned++
			s.rec.Missed(replay.Returned, f.due)
			s.finish(f, true)
		} else {
			s.settle(f, h.Shard, true, now)
		}
	}
	return nil
}

// debit enters that a transfer's own block is final. mu is held.
func (s *Session) debit(f *flight, h *consensus.Header, now time.Duration) {
	if !f.t.Invalid && s.gen.Done(f.t.From, true) {
		s.unread = append(s.unread, f.t.From)
	}
	f.debited = true
	s.delta[f.t.From] -= int64(f.t.Amount + s.opt.Fee)
	if f.shard == f.dest {
		f.credited = true
	}
	if f.tally.measured {
		s.probe(probe{s.opt.Crowd.ID(f.t.From), h.Height, f.due}, now)
	}
	s.settle(f, h.Shard, false, now)
}

// settle ends a transfer of which debit and credit are both final, with a block of a shard that has the debit or the credit.
// mu is held.
func (s *Session) settle(f *flight, shard consensus.ShardID, credit bool, now time.Duration) {
	if !f.debited || !f.credited {
		return
	}
	s.delta[f.t.To] += int64(f.t.Amount)
	s.settled(f.tally, shard, f.due, now, credit, f.shard != f.dest)
	s.finish(f, true)
}

// readNonces reads the nonces of accounts that have none, at a pace that leaves the nodes' limits to others, until the
// session ends.
func (s *Session) readNonces(nodes int) {
	pace := rate.NewLimiter(rate.Limit(s.opt.ReadRate*float64(nodes)), nodes)
	group, ctx := errgroup.WithContext(s.ctx)
	group.SetLimit(2 * nodes)
	for ctx.Err() == nil {
		account, ok := s.nextUnread()
		if !ok {
			if !openloop.Wait(ctx, sweepEvery) {
				break
			}
			continue
		}
		if pace.Wait(ctx) != nil {
			break
		}
		group.Go(func() error {
			a, err := s.client.Account(ctx, s.opt.Crowd.ID(account))
			s.mu.Lock()
			defer s.mu.Unlock()
			switch s.reading--; {
			case err != nil:
				s.unread = append(s.unread, account)
			case [32]byte(a.Key) != s.opt.Crowd.PublicKey(account):
				s.totals.Foreign++ // never Ready, so never drawn
			default:
				s.gen.Ready(account, a.Nonce)
			}
			if len(s.unread) == 0 && s.reading == 0 {
				poke(s.caughtUp)
			}
			return nil
		})
	}
	_ = group.Wait() // it returns no errors
}

func (s *Session) nextUnread() (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unread) == 0 {
		return 0, false
	}
	account := s.unread[0]
	s.unread = s.unread[1:]
	s.reading++
	return account, true
}
