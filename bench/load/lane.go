package load

import (
	"errors"
	"slices"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/bench/replay"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// Unreachable is the code of our own, beside those of the API, of a node that did not answer.
const Unreachable = "unreachable"

// Others of our own.
const (
	noAnswer  = "no_answer"  // no node had answered when the phase ended
	notFinal  = "not_final"  // sent, not final in time
	stuckNode = "stuck_node" // moved away from a node that answers too slowly
)

// lane sends to one node. Workers share its queue. Session.mu guards the fields below the mark.
type lane struct {
	s      *Session
	index  uint8
	client *client.Client
	wake   chan struct{} // holds one token while the queue is news
	// guarded by Session.mu:
	queue []*flight     // bounded by Options.Outstanding
	calls int           // under way
	taken time.Duration // last time that a worker took from the queue
	down  time.Duration // not to be chosen before
	gone  time.Duration // when the node last did not answer; 0: never
}

// pick chooses the next lane of a shard, one that is not down if there is any. mu is held.
func (s *Session) pick(shard consensus.ShardID) *lane {
	lanes, now := s.lanes[shard], s.now()
	for range lanes {
		s.turn[shard]++
		if l := lanes[s.turn[shard]%uint64(len(lanes))]; l.down <= now {
			return l
		}
	}
	return lanes[s.turn[shard]%uint64(len(lanes))]
}

// push queues a transaction. Session.mu is held.
func (l *lane) push(f *flight) {
	f.lane = l.index
	l.queue = append(l.queue, f)
	poke(l.wake)
}

// take takes the next batch and leaves the rest to another worker. Beyond laneCalls calls under way it takes full batches only:
// what comes in meanwhile goes out together, and is cheaper for everybody.
func (l *lane) take() []*flight {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	n := min(len(l.queue), laneBatch)
	if n == 0 || n < laneBatch && l.calls >= laneCalls {
		return nil
	}
	batch := append([]*flight(nil), l.queue[:n]...)
	if l.queue = l.queue[n:]; len(l.queue) > 0 {
		poke(l.wake)
	} else {
		l.queue = nil // or the array would grow for ever
	}
	l.taken = l.s.now()
	l.calls++
	return batch
}

// run is one worker.
func (l *lane) run() {
	var txs []tx.Signed
	for {
		select {
		case <-l.wake:
		case <-l.s.ctx.Done():
			return
		}
		for batch := l.take(); len(batch) > 0; batch = l.take() {
			batch = l.s.sign(batch)
			txs = txs[:0]
			for _, f := range batch {
				txs = append(txs, f.signed)
			}
			var verdicts []error
			if len(txs) > 0 {
				verdicts = l.client.Submit(l.s.ctx, txs)
			}
			l.s.judge(l, batch, verdicts)
		}
	}
}

// sign signs what is not signed yet and enters it in the books. It leaves out what has been given up meanwhile.
func (s *Session) sign(batch []*flight) []*flight {
	s.mu.Lock()
	batch = s.timely(batch)
	var expiry []uint32
	for _, t := range s.totals.Shards {
		expiry = append(expiry, uint32(t.Height)+s.opt.ExpiryBlocks)
	}
	s.mu.Unlock()
	s.signNew(batch, expiry)
	s.mu.Lock()
	defer s.mu.Unlock()
	keep, now := batch[:0], s.now()
	for _, f := range batch {
		if !f.gone && f.tally.closed {
			s.finish(f, false)
		}
		if f.gone {
			continue
		}
		if f.attempts == 0 {
			s.flights[f.id] = f
		}
		f.attempts++
		f.sent = now
		keep = append(keep, f)
	}
	return keep
}

// signNew signs what is not signed yet, to execute at its shard's expiry at the latest.
func (s *Session) signNew(batch []*flight, expiry []uint32) {
	var fresh []*flight
	var ts []workload.Transfer
	var all []tx.Signed
	for _, f := range batch {
		if f.id == (tx.Hash{}) {
			fresh, ts, all = append(fresh, f), append(ts, f.t), append(all, s.opt.Crowd.Unsigned(f.t, expiry[f.shard]))
		}
	}
	ids := make([]tx.Hash, len(fresh))
	s.opt.Crowd.SignMany(ts, all, ids)
	for i, f := range fresh {
		f.signed, f.id = all[i], ids[i]
	}
}

// timely leaves out what was not sent in time and is given up; see Stretch. mu is held.
func (s *Session) timely(batch []*flight) []*flight {
	keep, now := batch[:0], s.now()
	for _, f := range batch {
		if f.tally.giveUp && f.attempts == 0 && !f.gone && !f.tally.closed && now-f.due > sendWithin {
			f.tally.Unsent++
			s.totals.Submitted--
			s.rec.Missed(replay.Unsent, f.due)
			s.comeback(f, now)
			continue
		}
		keep = append(keep, f)
	}
	return keep
}

// judge enters what a node said to a batch.
func (s *Session) judge(l *lane, batch []*flight, verdicts []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.calls--
	now := s.now()
	for i, f := range batch {
		switch err := verdicts[i]; {
		case f.gone:
		case err == nil && f.t.Invalid:
			f.tally.InvalidAccepted++
			s.rec.Missed(replay.InvalidAccepted, f.due)
			s.finish(f, false)
		case err == nil:
			f.accepted = true
		default:
			s.refused(l, f, err, now)
		}
	}
}

// refused enters a refusal. mu is held.
func (s *Session) refused(l *lane, f *flight, err error, now time.Duration) {
	var e *api.Error
	code, pause := Unreachable, time.Duration(0)
	if errors.As(err, &e) {
		code, pause = string(e.Code), e.RetryAfter
	}
	f.code = code
	if e != nil {
		s.totals.Refused++
	}
	switch {
	case f.tally.giveUp && e != nil && (e.RetryAfter > 0 || passing(e.Code)):
		f.tally.Rejected[code]++
		s.totals.Rejected++
		s.rec.Missed(replay.Rejected, f.due)
		s.comeback(f, now+max(pause, firstBackoff))
	case e == nil || e.RetryAfter > 0 && e.Code != api.PoolFull && e.Code != api.AccountLimit: // the node as a whole
		l.down = now + downFor
		if e == nil {
			l.gone = now
		}
		s.retry(f, code, now, pause)
	case passing(e.Code):
		s.retry(f, code, now, pause)
	case f.attempts > 1 && (e.Code == api.NonceTooLow || e.Code == api.NonceTaken):
		f.accepted = true // an earlier attempt arrived, and may have been executed: its block will tell, or its expiry
	case e.Code == api.Expired:
		f.tally.Expired++
		s.rec.Missed(replay.Expired, f.due)
		s.finish(f, false)
	default:
		f.tally.Rejected[code]++
		s.totals.Rejected++
		s.rec.Missed(replay.Rejected, f.due)
		s.finish(f, false)
	}
}

// ForNow reports whether a refusal with a code says that the same bytes may be taken later, and when. Of a node's own failure and
// of one that does not answer nobody says when.
func ForNow(code string) bool { return passing(api.Code(code)) && code != string(api.Internal) }

// passing reports whether a transaction that was refused with a code may be taken later, or by another node.
func passing(c api.Code) bool {
	switch c {
	case api.RateLimited, api.Busy, api.NotReady, api.ShuttingDown, api.Internal, api.PoolFull, api.AccountLimit, api.NonceGap:
		return true
	}
	return false
}

// retry sends f again after a while. mu is held.
func (s *Session) retry(f *flight, why string, now, pause time.Duration) {
	f.tally.Retried[why]++
	backoff := min(firstBackoff<<min(f.attempts-1, 10), maxBackoff)
	f.again = now + min(max(backoff, pause), maxBackoff)
	s.retries = append(s.retries, f)
}

// sweep looks after what does not go by itself, until the session ends.
func (s *Session) sweep() {
	beat := time.NewTicker(sweepEvery)
	defer beat.Stop()
	for n := 1; ; n++ {
		select {
		case <-beat.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		now := s.now()
		s.resend(now)
		for shard, lanes := range s.lanes {
			for _, l := range lanes {
				s.unblock(l, consensus.ShardID(shard), now)
			}
		}
		if n%scanEvery == 0 {
			s.scan(now)
		}
		s.mu.Unlock()
	}
}

// resend queues what has waited long enough for its next attempt. mu is held.
func (s *Session) resend(now time.Duration) {
	keep := s.retries[:0]
	for _, f := range s.retries {
		switch {
		case f.gone:
		case f.again > now:
			keep = append(keep, f)
		default:
			s.pick(f.shard).push(f)
		}
	}
	clear(s.retries[len(keep):])
	s.retries = keep
}

// stuck reports whether all workers of a lane have waited for an answer for a while. mu is held.
func (l *lane) stuck(now time.Duration) bool {
	return l.calls >= laneCalls && now-l.taken >= stuckAfter
}

// unblock takes the queue away from a lane that is stuck, if another one of its shard is not. mu is held.
func (s *Session) unblock(l *lane, shard consensus.ShardID, now time.Duration) {
	usable := func(o *lane) bool { return o.down <= now && !o.stuck(now) }
	if len(l.queue) == 0 || !l.stuck(now) || !slices.ContainsFunc(s.lanes[shard], usable) {
		return
	}
	l.down = now + downFor
	queue := l.queue
	l.queue = nil
	for _, f := range queue {
		f.tally.Retried[stuckNode]++
		s.pick(f.shard).push(f)
	}
}

// resendDoublings is how often the time before a transaction is sent again doubles, lest a network that is behind gets
// everything many times over. A node keeps what it has accepted, so that time matters only where a node is gone, and
// then it is shorter.
const resendDoublings = 4

// scan finds what has expired, and what was sent so long ago that it is sent again. mu is held.
func (s *Session) scan(now time.Duration) {
	for _, f := range s.flights {
		patience := s.opt.ResendAfter << min(f.attempts-1, resendDoublings)
		if l := s.lanes[f.shard][f.lane]; l.gone > 0 && now-l.gone <= 2*downFor {
			patience = min(patience, downFor)
		}
		switch {
		case f.debited: // final; its credit is on the way whatever we do
		case s.totals.Shards[f.shard].Height > consensus.Height(f.signed.Expiry):
			f.tally.Expired++
			s.rec.Missed(replay.Expired, f.due)
			s.finish(f, false)
		case now-f.sent > patience:
			f.sent = now
			f.tally.Retried[notFinal]++
			s.pick(f.shard).push(f)
		}
	}
}
