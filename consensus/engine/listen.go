package engine

import (
	"context"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// A validator must not vote while another process votes with its key, nor with an old copy of its log. The machine says so as
// soon as it hears a vote by its own key that its log does not hold (simplex, R18), but votes are not relayed, and by then it may
// have sent some. So an engine whose log may be an old copy, as the time of its last final block says, listens before its machine
// does anything: it asks the others again and again for the last vote that they have heard from it.
//
// A process that runs votes in each view, at the latest when its timer runs out, and repeats that until the view is over. So when
// more than two thirds of the power, itself included, have answered over listenLeast and none has heard of a vote that is not in
// the log, nobody else votes with the key where it would be heard: each answer but a third's is honest. If fewer answer, it
// listens for the longest view timer and a bit, and then begins: who can't be reached by two thirds is no danger to them.
//
// A log without anything final or voted is not listened with: who begins one that is not copied says that this validator has
// never voted.
const (
	listenAfter = time.Minute     // the age of the last final block
	listenLeast = 2 * time.Second // the time that answers have to span
	listenMore  = 2 * time.Second // beyond the longest view timer
	listenEvery = 500 * time.Millisecond
	listenAsked = 32 // members asked in a round, in turn
)

// listens reports whether the log may be an old copy.
func (e *Engine) listens() bool {
	if e.c.Index < 0 || len(e.c.Committee.Validators) == 1 || e.machine == nil || e.final.Height == 0 && len(e.c.Log.Records()) == 0 {
		return false
	}
	return time.Since(time.UnixMilli(e.final.TimeMs)) > listenAfter
}

// heardOf is a member's answer to the question which vote it heard from this validator last.
type heardOf struct {
	member int
	own    ownAnswer
	err    error
}

// listen returns when this engine may vote; the error says that it must not. Owner only, before run.
func (e *Engine) listen() error {
	if !e.listens() {
		return nil
	}
	known, bar := map[consensus.Statement]bool{}, consensus.View(0) // up to bar a vote is no sign: it is decided, or was lost (R17)
	if e.final.Epoch == e.c.Committee.Epoch {
		bar = e.final.View
	}
	for _, r := range e.c.Log.Records() {
		if f := r.Floor; f != nil && f.Epoch == e.c.Committee.Epoch {
			bar = max(bar, f.View)
		}
		if r.Vote != nil {
			known[r.Vote.Statement] = true
		}
	}
	n := len(e.c.Committee.Validators)
	first, last := make([]time.Time, n), make([]time.Time, n) // answers of each member
	over := consensus.NewSigners(n)
	longest := e.c.Timing.Cap
	if longest == 0 {
		longest = simplex.DefaultTiming().Cap
	}
	end, beat := time.NewTimer(longest+listenMore), time.NewTicker(listenEvery)
	defer end.Stop()
	defer beat.Stop()
	answers := make(chan heardOf)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	next := e.c.Index
	for {
		for range min(listenAsked, n-1) {
			if next = (next + 1) % n; next == e.c.Index {
				next = (next + 1) % n
			}
			to := next
			e.spawn(func() {
				a := heardOf{member: to}
				a.own, a.err = e.askOwn(ctx, to)
				select {
				case answers <- a:
				case <-ctx.Done():
				}
			})
		}
	round:
		for {
			select {
			case a := <-answers:
				if a.err != nil {
					continue
				}
				if v := a.own.vote; v != nil && v.View > bar && !known[v.Statement] {
					return elsewhere(v.Statement)
				}
				if first[a.member].IsZero() {
					first[a.member] = time.Now()
				}
				if last[a.member] = time.Now(); a.own.over {
					over.Add(a.member)
				}
				clear := consensus.NewSigners(n)
				clear.Add(e.c.Index)
				for i := range n {
					if last[i].Sub(first[i]) >= listenLeast {
						clear.Add(i)
					}
				}
				if c := e.c.Committee; c.IsQuorum(c.PowerOf(clear)) || c.IsQuorum(c.PowerOf(over)) {
					return nil // nobody else is there, or nobody votes in this epoch any more
				}
			case <-beat.C:
				break round
			case <-end.C:
				return nil
			case <-e.ctx.Done():
				return nil
			}
		}
	}
}

// askOwn asks a member for the last vote that it heard from this validator. A vote that this validator did not sign is an error.
func (e *Engine) askOwn(ctx context.Context, to int) (ownAnswer, error) {
	b, err := e.ask(ctx, to, request{typ: typeGetOwn, epoch: e.c.Committee.Epoch}, fetchTimeout)
	if err == nil && b == nil {
		err = malformed("nothing, where there is always an answer")
	}
	if err != nil {
		return ownAnswer{}, err
	}
	a, err := decodeOwn(b)
	if err != nil || a.vote == nil {
		return a, err
	}
	v := a.vote
	if v.Shard != e.c.Committee.Shard || v.Epoch != e.c.Committee.Epoch || int(v.Validator) != e.c.Index ||
		!e.c.Keys.Verify(e.c.Index, consensus.VoteMessage(e.c.Chain, v.Statement), v.Signature) {
		return a, malformed("a vote that is not this validator's")
	}
	return a, nil
}

// serveOwn answers with the last vote of the asker's.
func (e *Engine) serveOwn(from int, epoch consensus.Epoch) []byte {
	if epoch != e.c.Committee.Epoch {
		return ownAnswer{over: epoch < e.c.Committee.Epoch}.encode()
	}
	return ownAnswer{vote: e.status.lastOf(from)}.encode()
}

// keepLast remembers a validator's vote of the highest view, for when it asks. Nothing is verified: it is its own.
func (b *statusBoard) keepLast(v *consensus.Vote) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := int(v.Validator); i < len(b.last) && (b.last[i] == nil || v.View >= b.last[i].View) {
		b.last[i] = v
	}
}

// lastOf is what keepLast remembers, nil if there is nothing.
func (b *statusBoard) lastOf(i int) *consensus.Vote {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i < 0 || i >= len(b.last) {
		return nil
	}
	return b.last[i]
}
