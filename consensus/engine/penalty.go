package engine

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tutti/consensus/simplex"
)

// A peer that sends what no correct one sends loses its place for penaltyFirst, doubled each time, at most penaltyMost.
const (
	penaltyFirst = time.Minute
	penaltyMost  = time.Hour
)

// Rates that a correct peer does not reach even while it repeats itself; messages beyond are dropped and counted.
const (
	votesPerSecond, votesBurst         = 400, 1200
	proposalsPerSecond, proposalsBurst = 40, 80 // one part of each view, and the own ones with their repetitions
	requestsPerSecond, requestsBurst   = 40, 80
	endsPerSecond, endsBurst           = 2, 2 // times that a peer in an epoch that is over is told so
)

// penalties says which validators have lost their place. Safe for concurrent use.
type penalties struct {
	mu      sync.Mutex
	until   []time.Time
	strikes []int
}

func newPenalties(n int) *penalties {
	return &penalties{until: make([]time.Time, n), strikes: make([]int, n)}
}

// add gives a strike and returns when the place is regained.
func (p *penalties) add(i int, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	span := penaltyMost
	if p.strikes[i] < 6 { // 2^6 minutes is more than the most
		span = min(penaltyFirst<<p.strikes[i], penaltyMost)
	}
	p.strikes[i]++
	if t := now.Add(span); t.After(p.until[i]) {
		p.until[i] = t
	}
	return p.until[i]
}

// serves reports whether validator i has no place now.
func (p *penalties) serves(i int, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return i >= 0 && i < len(p.until) && now.Before(p.until[i])
}

func (p *penalties) untils(out []ValidatorStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range out {
		out[i].PenaltyUntil, out[i].Strikes = p.until[i], p.strikes[i]
	}
}

// penalise takes a validator's place away. The machine may name this validator itself: then its application made a block
// that it must not make, which is told and nothing more. Owner only.
func (e *Engine) penalise(i int, reason string) {
	if i < 0 || i >= len(e.c.Committee.Validators) {
		return
	}
	var until time.Time
	if i != e.c.Index {
		until = e.penalties.add(i, time.Now())
	}
	e.status.count(func(c *Counters) { c.Penalties++ })
	e.c.Observer.Penalised(i, reason, until)
}

// limits are the rates of each peer; the last place is shared by all who are no members.
type limits struct{ votes, proposals, requests, ends []*rate.Limiter }

func newLimits(n int) *limits {
	l := &limits{}
	for range n + 1 {
		l.votes = append(l.votes, rate.NewLimiter(votesPerSecond, votesBurst))
		l.proposals = append(l.proposals, rate.NewLimiter(proposalsPerSecond, proposalsBurst))
		l.requests = append(l.requests, rate.NewLimiter(requestsPerSecond, requestsBurst))
		l.ends = append(l.ends, rate.NewLimiter(endsPerSecond, endsBurst))
	}
	return l
}

func (l *limits) request(from int) bool {
	if from < 0 || from >= len(l.requests)-1 {
		from = len(l.requests) - 1
	}
	return l.requests[from].Allow()
}

// receive is a receiver: it turns a class's payloads into events for the owner, within bounds for each peer.
func (e *Engine) receive(class Class, out chan<- simplex.Event) {
	in := e.c.Network.Receive(class)
	for {
		select {
		case <-e.ctx.Done():
			return
		case m, open := <-in:
			if !open {
				return
			}
			if ev := e.admit(class, m); ev != nil {
				select {
				case out <- ev:
				case <-e.ctx.Done():
					return
				}
			}
		}
	}
}

// admit decodes a payload; nil if it is dropped.
func (e *Engine) admit(class Class, m Message) simplex.Event {
	rates := e.limits.votes
	if class == ClassProposal {
		rates = e.limits.proposals
	}
	now := time.Now()
	switch {
	case m.From < 0 || m.From >= len(rates)-1:
		e.status.count(func(c *Counters) { c.DroppedStranger++ })
		return nil
	case e.penalties.serves(m.From, now):
		e.status.count(func(c *Counters) { c.DroppedPenalty++ })
		return nil
	case !rates[m.From].AllowN(now, 1):
		e.status.count(func(c *Counters) { c.DroppedRate++ })
		return nil
	}
	in, err := decodeInbound(class, m.Payload)
	switch {
	case err != nil:
		e.status.count(func(c *Counters) { c.DroppedMalformed++ })
		e.post(func() error { e.penalise(m.From, err.Error()); return nil })
		return nil
	case in.epoch() != e.c.Committee.Epoch:
		e.status.count(func(c *Counters) { c.DroppedEpoch++ })
		e.otherEpoch(m.From, &in, now)
		return nil
	case in.vote != nil:
		return simplex.VoteReceived{From: m.From, Vote: *in.vote}
	case in.cert != nil:
		return simplex.CertificateReceived{From: m.From, Cert: *in.cert}
	}
	if ahead := in.header().TimeMs - now.UnixMilli(); ahead > e.c.MaxClockAhead.Milliseconds() {
		e.status.count(func(c *Counters) { c.DroppedClock++ })
		return nil
	}
	if in.part != nil {
		return simplex.PartReceived{From: m.From, Part: in.part}
	}
	return simplex.ProposalReceived{From: m.From, Proposal: in.proposal}
}
