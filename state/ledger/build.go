package ledger

import (
	"context"
	"errors"
	"slices"

	"tutti/accel/distill"
	"tutti/state/tx"
)

// Encoded sizes of a body's parts, in bytes (tx.Body.Append).
const (
	sectionOverhead = 1 + 4
	bodyOverhead    = 1 + 4*sectionOverhead
)

// Build makes a body on an executed parent. Room goes to the good bundles first, then to the good batches, then to as many
// candidates as take effect and fit, each in order. It keeps nothing; the body is executed like any other. Errors are those
// of Execute, but for ErrInvalidBody.
func (l *Ledger) Build(ctx context.Context, in BuildInput) (*Built, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	parent, err := l.find(in.Parent, in.Height)
	if err != nil {
		return nil, err
	}
	out := &Built{Left: make([]Reason, len(in.Candidates))}
	room := in.MaxBytes - bodyOverhead
	bundles := in.Bundles[:min(len(in.Bundles), tx.MaxBundles)]
	received, errs := l.receive(parent, bundles, room)
	body := &tx.Body{}
	for i := range bundles {
		if errs[i] == nil {
			body.Bundles = append(body.Bundles, bundles[i])
			room -= bundleBytes(&bundles[i])
		}
	}
	for range in.Bundles[len(bundles):] {
		errs = append(errs, errTooMany)
	}
	out.LeftBundles = errs

	at, txs, err := l.signed(ctx, parent, in.Candidates, out.Left)
	if err != nil {
		return nil, err
	}
	ids, errs := l.checkBatches(parent, in.Batches)
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrInvalidBody) {
			return nil, err
		}
	}
	out.LeftBatches = errs
	limit, free := min(in.MaxTxs, tx.MaxBodyTx), room
	var kept [][]tx.Hash
	var places []int
	for i, b := range in.Batches {
		switch {
		case out.LeftBatches[i] != nil:
		case len(body.Batches) == tx.MaxBatches || b.Count() > limit || batchBytes(b) > free:
			out.LeftBatches[i] = ErrNoRoom
		default:
			body.Batches, kept, places = append(body.Batches, b), append(kept, ids[i]), append(places, i)
			limit, free = limit-b.Count(), free-batchBytes(b)
		}
	}
	skipped, err := l.accept(parent, received, at, txs, out.Left, limit, free, body)
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Backward(skipped) {
		out.LeftBatches[places[k]] = ErrSkipped
		kept = slices.Delete(kept, k, k+1)
	}
	e, err := l.effectsOf(parent, received, body, kept)
	if err != nil {
		return nil, l.fail(err) // accept let pass what effectsOf refuses
	}
	out.Body, out.Commitments, out.Txs = body.Append(nil), e.done.Commitments, body.Len()
	return out, nil
}

// batchBytes is what a batch takes of a body, its outcome bits included.
func batchBytes(b *distill.Batch) int { return b.Bytes() + b.Count()/8 + 1 }

// signed returns the candidates whose payer exists and whose signature is right, and their places; the others get
// their reason.
func (l *Ledger) signed(ctx context.Context, parent *block, candidates []tx.Signed, left []Reason) (at []int, txs []tx.Signed, err error) {
	keys, generations, known, err := l.payers(parent, candidates)
	if err != nil {
		return nil, nil, err
	}
	at, txs = make([]int, 0, len(candidates)), make([]tx.Signed, 0, len(candidates))
	for i := range candidates {
		if !known[i] {
			left[i] = UnknownPayer
			continue
		}
		keys[len(at)], generations[len(at)] = keys[i], generations[i]
		at, txs = append(at, i), append(txs, candidates[i])
	}
	verdicts := make([]Reason, len(at))
	if err := l.check(ctx, txs, keys[:len(at)], generations[:len(at)], verdicts); err != nil {
		return nil, nil, err
	}
	good := 0
	for j, i := range at {
		if left[i] = verdicts[j]; verdicts[j] == None {
			at[good], txs[good] = i, txs[j]
			good++
		}
	}
	return at[:good], txs[:good], nil
}

// accept tries the debits of txs in order, and then those of the body's batches. It sets the body's transactions to those
// that take effect, up to a number and size; the others get their reason in left, whose places are at. It takes the batches
// out of which too much would be skipped, and returns which ones; the room that was theirs stays free. It sets the outcomes
// of the others, and leaves the table as it was.
func (l *Ledger) accept(parent *block, in *received, at []int, txs []tx.Signed, left []Reason, limit, room int, body *tx.Body) (skipped []int, err error) {
	if err := l.enter(parent); err != nil {
		return nil, err
	}
	defer l.exec.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.rollback()
	d := l.newDebit(parent, in)
	good := make([]tx.Signed, 0, min(len(txs), limit))
	for j := range txs {
		t := &txs[j]
		size := t.WireBytes() + 1 // and an outcome bit: a byte is enough and simple
		r := NoRoom
		if len(good) < limit && size <= room {
			r = d.apply(&t.Tx)
		}
		if left[at[j]] = r; r == None {
			room -= size
			good = append(good, *t)
		}
	}
	y, err := tx.NewBody(good, body.Batches)
	if err != nil {
		return nil, err // checkBatches let pass what is malformed
	}
	outcomes := make([]bool, len(good), y.Len())
	for i := range outcomes {
		outcomes[i] = true
	}
	var kept []*distill.Batch
	next := len(good)
	for k, b := range y.Batches {
		from, to := next, next+b.Count()
		next = to
		if d.skips(y, from, to) > b.Count()/maxSkipShare {
			skipped = append(skipped, k)
			continue
		}
		kept = append(kept, b)
		for i := from; i < to; i++ {
			outcomes = append(outcomes, d.apply(y.Tx(i)) == None)
		}
	}
	if len(skipped) > 0 {
		if y, err = tx.NewBody(good, kept); err != nil {
			return nil, err
		}
	}
	y.Bundles, y.Outcomes = body.Bundles, outcomes
	*body = *y
	return skipped, nil
}
