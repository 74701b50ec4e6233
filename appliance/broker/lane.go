package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/state/tx"
)

// entry is one submission in work. What has no other word belongs to the goroutine that has the entry: its connection's until it
// enters a lane, then one of the lane's.
type entry struct {
	conn    *conn
	number  uint32
	t       tx.Signed
	sub     Submission
	lane    *lane
	came    time.Time
	signer  api.Signer
	trusted bool   // its sender answered rightly lately, from the same source
	checked bool   // its Ed25519 signature is right
	round   *round // newest that it was offered in; conn.mu guards it, and place
	place   int
}

func (e *entry) sender() uint64 { return uint64(e.t.From) }

// sentOne is a transfer that a node holds, as far as is known not final yet.
type sentOne struct {
	next  uint32 // nonce of the sender's next
	spent uint64 // units, by it and those before that are not final either
	until time.Time
}

// lane is one shard's: from submissions to windows.
type lane struct {
	s     *Server
	shard consensus.ShardID
	look  chan struct{} // holds one token while fresh is news
	cut   chan struct{} // holds one token while window is news
	slots chan struct{} // of batches in the making

	mu     sync.Mutex // guards what follows
	fresh  []*entry   // to be asked about; the sum of all is bounded by Quota.InWork
	window []*entry   // judged, in the order in which they came
	busy   map[uint64][]*entry
}

// lookers is how many questions to nodes are under way for a shard.
const lookers = 2

func newLane(s *Server, shard consensus.ShardID) *lane {
	return &lane{
		s: s, shard: shard, look: make(chan struct{}, 1), cut: make(chan struct{}, 1), slots: make(chan struct{}, maxRounds), busy: map[uint64][]*entry{},
	}
}

func (l *lane) start(ctx context.Context) {
	for range lookers {
		l.s.group.Go(func() { l.lookAll(ctx) })
	}
	l.s.group.Go(func() { l.cutAll(ctx) })
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enter takes an entry in; false: too many of its sender wait.
func (l *lane) enter(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind, busy := l.busy[e.sender()]
	if busy {
		if len(behind) >= maxBehind {
			return false
		}
		l.busy[e.sender()] = append(behind, e)
		return true
	}
	l.busy[e.sender()] = nil
	l.fresh = append(l.fresh, e)
	poke(l.look)
	return true
}

// release lets the next transfer of a sender in.
func (l *lane) release(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	behind := l.busy[e.sender()]
	if len(behind) == 0 {
		delete(l.busy, e.sender())
		return
	}
	next := behind[0]
	l.busy[e.sender()] = behind[1:]
	next.came = time.Now()
	l.fresh = append(l.fresh, next)
	poke(l.look)
}

func (l *lane) lookAll(ctx context.Context) {
	for {
		select {
		case <-l.look:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		n := min(len(l.fresh), api.MaxSigners/2)
		some := slices.Clone(l.fresh[:n])
		if l.fresh = l.fresh[n:]; len(l.fresh) > 0 {
			poke(l.look)
		} else {
			l.fresh = nil // or the array would grow for ever
		}
		l.mu.Unlock()
		if n > 0 {
			l.judge(ctx, some)
		}
	}
}

// judge asks a node about some, refuses those that by its word would spoil a batch, and puts the others into the window.
func (l *lane) judge(ctx context.Context, some []*entry) {
	ids := make([]tx.ID, len(some), 2*len(some))
	for i, e := range some {
		ids[i] = e.t.From
	}
	for _, e := range some {
		if l.s.opt.ShardOf(e.t.To) == l.shard { // elsewhere the money would come back
			ids = append(ids, e.t.To)
		}
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	said, err := l.s.opt.Nodes.Signers(asking, l.shard, ids)
	cancel()
	if err == nil && len(said.Accounts) != len(ids) {
		err = errCount
	}
	if err != nil {
		l.s.opt.Log.Warn("no node told of accounts", "shard", l.shard, "err", err)
		for _, e := range some {
			l.s.end(e, Verdict{CodeUnavailable, time.Second}, true)
		}
		return
	}
	now, receivers := time.Now(), said.Accounts[len(some):]
	fit := make([]*entry, 0, len(some))
	for i, e := range some {
		e.signer = said.Accounts[i]
		code := l.s.fits(e, said.Height, now)
		if l.s.opt.ShardOf(e.t.To) == l.shard {
			if !receivers[0].Known {
				code = CodeTransfer
			}
			receivers = receivers[1:]
		}
		if code != CodeBatched {
			l.s.end(e, Verdict{Code: code}, true)
			continue
		}
		from, answered := l.s.standing.get(e.sender())
		e.trusted = answered && from == e.conn.from // or anybody could spoil batches in the name of those who answer
		fit = append(fit, e)
	}
	if len(fit) == 0 {
		return
	}
	l.mu.Lock()
	l.window = append(l.window, fit...)
	l.mu.Unlock()
	poke(l.cut)
}

// fits says whether an entry is fit for a batch by what a node said: CodeBatched, or why not.
func (s *Server) fits(e *entry, height consensus.Height, now time.Time) Code {
	a := &e.signer
	if !a.Known {
		return CodeNoAccount
	}
	if a.BLS == nil {
		return CodeNoKey
	}
	nonce, balance := a.Nonce, a.Balance
	if was, ok := s.sent.get(e.sender()); ok && was.next > nonce && now.Before(was.until) {
		nonce, balance = was.next, balance-min(balance, was.spent)
	}
	if e.t.Nonce != nonce {
		return CodeNonce
	}
	if int(e.t.FeeClass) >= len(s.opt.Fees) || e.t.Amount == 0 || e.t.To == e.t.From || int(s.opt.ShardOf(e.t.To)) >= len(s.lanes) {
		return CodeTransfer
	}
	if fee := s.opt.Fees[e.t.FeeClass]; balance < fee || balance-fee < e.t.Amount {
		return CodeBalance
	}
	least, most := uint64(height)+leastAhead, uint64(height)+uint64(s.opt.MaxExpiry)-min(uint64(s.opt.MaxExpiry), slackAhead)
	if x := uint64(e.t.Expiry); x < least || x > most {
		return CodeExpiry
	}
	return CodeBatched
}

// check checks the Ed25519 signatures of those that skip does not leave out, all at once, and ends those that are wrong.
func (s *Server) check(all []*entry, skip func(*entry) bool) (right []*entry) {
	var at []*entry
	var subs []Submission
	for _, e := range all {
		if !skip(e) {
			at, subs = append(at, e), append(subs, e.sub)
		}
	}
	ok := make([]bool, len(subs))
	s.opt.Chain.Check(&keysInOrder{of: at}, subs, ok)
	for i, e := range at {
		e.checked = ok[i]
	}
	right = make([]*entry, 0, len(all))
	for _, e := range all {
		if skip(e) || e.checked {
			right = append(right, e)
			continue
		}
		s.strike(e)
		s.end(e, Verdict{Code: CodeSignature}, true)
	}
	return right
}

// cutAll makes batches of windows until ctx ends.
func (l *lane) cutAll(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.mu.Lock()
		n, left := len(l.window), time.Hour
		if n > 0 {
			left = time.Until(l.window[0].came.Add(l.s.opt.Window))
		}
		l.mu.Unlock()
		if n < l.s.opt.MaxCount && left > 0 {
			timer.Reset(left)
			select {
			case <-timer.C:
			case <-l.cut:
			case <-ctx.Done():
				return
			}
			continue
		}
		select {
		case l.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		n = min(len(l.window), l.s.opt.MaxCount)
		some := slices.Clone(l.window[:n])
		if l.window = l.window[n:]; len(l.window) == 0 {
			l.window = nil
		}
		l.mu.Unlock()
		l.s.group.Go(func() {
			defer func() { <-l.slots }()
			l.distil(ctx, some)
		})
	}
}

// keysInOrder are the keys of entries, for who asks for those of each in order.
type keysInOrder struct {
	of []*entry
}

// Slots implements distill.Keys: it is not asked.
func (k *keysInOrder) Slots([]uint64, []uint32) int { return 0 }

// Ed25519 implements distill.Keys.
func (k *keysInOrder) Ed25519(senders []uint64, keys [][32]byte) int {
	for i := range senders {
		keys[i] = k.of[i].signer.Key
	}
	k.of = k.of[len(senders):]
	return len(senders)
}

var _ distill.Keys = (*keysInOrder)(nil)
