package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/state/tx"
)

var errCount = errors.New("broker: a node told of another number of accounts")

// round is a batch while its senders are asked.
type round struct {
	id  uint32
	all chan struct{} // closed when all have answered

	mu   sync.Mutex
	r    *distill.Round // nil once it is over
	left int
}

// answer takes a share; false: it is no share at all.
func (rd *round) answer(place int, share [distill.ShareBytes]byte) bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if rd.r == nil {
		return true
	}
	err := rd.r.Answer(place, share)
	if err == nil {
		if rd.left--; rd.left == 0 {
			close(rd.all)
		}
	}
	return !errors.Is(err, distill.ErrShare)
}

// over ends the time for answers.
func (rd *round) over() *distill.Round {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	r := rd.r
	rd.r = nil
	return r
}

// distil makes a batch of a window's entries and gives it to a node.
func (l *lane) distil(ctx context.Context, some []*entry) {
	// Should one that is trusted not answer, its signature is checked with the stragglers'.
	some = l.s.check(some, func(e *entry) bool { return e.trusted })
	for range maxOffers {
		if len(some) < l.s.opt.Least {
			break
		}
		slices.SortFunc(some, func(a, b *entry) int {
			if a.t.From < b.t.From {
				return -1
			}
			return 1 // a sender has one transfer in work
		})
		b, err := l.s.ask(ctx, some)
		switch {
		case err == nil:
			l.submit(ctx, b, some)
			return
		case errors.Is(err, distill.ErrStraggler):
			l.s.count.again.Add(1)
			some = l.s.check(some, func(e *entry) bool { return e.checked })
			continue
		case !errors.Is(err, distill.ErrNoSigners):
			l.s.opt.Log.Error("a batch could not be made", "shard", l.shard, "err", err)
		}
		break
	}
	l.single(ctx, some)
}

// ask offers a batch of entries, ascending by sender, to their senders, and finishes it with those who answer.
func (s *Server) ask(ctx context.Context, some []*entry) (*distill.Batch, error) {
	subs := make([]Submission, len(some))
	for i, e := range some {
		subs[i] = e.sub
	}
	r, err := s.opt.Chain.NewRound(subs)
	if err != nil {
		return nil, err
	}
	rd := &round{id: s.rounds.Add(1), all: make(chan struct{}), r: r, left: len(some)}
	for i, e := range some {
		o := offer{e.number, rd.id, *r.Offer(i)}
		e.conn.mu.Lock()
		e.round, e.place = rd, i
		e.conn.sendLocked(o.append)
		e.conn.mu.Unlock()
	}
	timer := time.NewTimer(s.opt.Patience)
	defer timer.Stop()
	select {
	case <-rd.all:
	case <-timer.C:
	case <-ctx.Done():
	}
	rd.over()
	directory := bls.NewDirectory(len(some))
	for i, e := range some {
		if err := directory.AddTrustedKey(uint32(i), *e.signer.BLS); err != nil {
			return nil, err
		}
	}
	b, wrong, err := r.Finish(directory, keysBySender(some))
	for _, i := range wrong {
		s.strike(some[i])
	}
	if err != nil {
		return nil, err
	}
	s.count.batches.Add(1)
	s.count.stragglers.Add(uint64(b.Stragglers()))
	for i, e := range some {
		if b.Straggler(i) {
			s.standing.drop(e.sender())
		} else {
			s.standing.put(e.sender(), e.conn.from)
		}
	}
	return b, nil
}

// submit gives a batch to a node.
func (l *lane) submit(ctx context.Context, b *distill.Batch, some []*entry) {
	submitting, cancel := context.WithTimeout(ctx, submitFor)
	err := l.s.opt.Nodes.SubmitBatch(submitting, b)
	cancel()
	if err != nil {
		l.s.opt.Log.Warn("no node took a batch", "shard", l.shard, "transfers", len(some), "err", err)
		for _, e := range some {
			l.s.end(e, Verdict{CodeUnavailable, l.s.opt.Window}, true)
		}
		return
	}
	for _, e := range some {
		l.s.remember(e)
		l.s.end(e, Verdict{Code: CodeBatched}, true)
	}
	select {
	case l.s.settling <- struct{}{}:
		l.s.group.Go(func() {
			defer func() { <-l.s.settling }()
			if pause(ctx, l.s.settleAfter) {
				l.settle(ctx, some)
			}
		})
	default: // so many wait for that already that this one goes unseen
	}
}

// single sends transfers on with their own signatures.
func (l *lane) single(ctx context.Context, some []*entry) {
	if len(some) == 0 {
		return
	}
	txs := make([]tx.Signed, len(some))
	for i, e := range some {
		txs[i] = e.t
	}
	submitting, cancel := context.WithTimeout(ctx, submitFor)
	verdicts := l.s.opt.Nodes.Submit(submitting, txs)
	cancel()
	for i, e := range some {
		v := Verdict{Code: CodeSingle}
		switch err := verdicts[i]; {
		case err == nil:
			l.s.remember(e)
		case errors.Is(err, &api.Error{Code: api.WrongSignature}):
			l.s.strike(e)
			v.Code = CodeSignature
		case errors.Is(err, &api.Error{Code: api.NonceTooLow}), errors.Is(err, &api.Error{Code: api.NonceGap}), errors.Is(err, &api.Error{Code: api.NonceTaken}):
			v.Code = CodeNonce
		case errors.Is(err, &api.Error{Code: api.InsufficientFunds}):
			v.Code = CodeBalance
		default:
			v = Verdict{CodeUnavailable, time.Second}
		}
		l.s.end(e, v, true)
	}
}

// remember keeps in mind that a node holds a transfer.
func (s *Server) remember(e *entry) {
	now := time.Now()
	x := sentOne{next: e.t.Nonce + 1, spent: e.t.Amount + s.opt.Fees[e.t.FeeClass], until: now.Add(2 * s.settleAfter)}
	if was, ok := s.sent.get(e.sender()); ok && was.next == e.t.Nonce && e.signer.Nonce < was.next {
		x.spent += was.spent
	}
	s.sent.put(e.sender(), x)
}

// settle looks what became of a batch's transfers, and bars senders that spoil batches.
func (l *lane) settle(ctx context.Context, some []*entry) {
	moved := make([]bool, 0, len(some)) // whether the sender's nonce has
	n := 0
	for part := range slices.Chunk(some, api.MaxSigners) {
		ids := make([]tx.ID, len(part))
		for i, e := range part {
			ids[i] = e.t.From
		}
		asking, cancel := context.WithTimeout(ctx, askFor)
		said, err := l.s.opt.Nodes.Signers(asking, l.shard, ids)
		cancel()
		if err != nil || len(said.Accounts) != len(ids) {
			return // who can't be seen is not blamed
		}
		for i, e := range part {
			m := said.Accounts[i].Nonce > e.t.Nonce
			if moved = append(moved, m); m {
				n++
			}
		}
	}
	until := time.Now().Add(barFor)
	effective := n >= len(some)-len(some)/4 // a batch of which more is skipped stays out of blocks
	for i, e := range some {
		if moved[i] != effective {
			l.s.barred.put(e.sender(), until)
			l.s.count.excluded.Add(1)
		}
	}
}

// keysBySender are the keys of a round's entries, ascending by sender; places are those in the round.
type keysBySender []*entry

func (k keysBySender) find(sender uint64) (int, bool) {
	return slices.BinarySearchFunc(k, sender, func(e *entry, sender uint64) int {
		switch at := e.sender(); {
		case at < sender:
			return -1
		case at > sender:
			return 1
		}
		return 0
	})
}

// Slots implements distill.Keys.
func (k keysBySender) Slots(senders []uint64, slots []uint32) int {
	for i, sender := range senders {
		at, ok := k.find(sender)
		if !ok {
			return i
		}
		slots[i] = uint32(at)
	}
	return len(senders)
}

// Ed25519 implements distill.Keys.
func (k keysBySender) Ed25519(senders []uint64, keys [][32]byte) int {
	for i, sender := range senders {
		at, ok := k.find(sender)
		if !ok {
			return i
		}
		keys[i] = k[at].signer.Key
	}
	return len(senders)
}
