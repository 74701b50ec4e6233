package ledger

import (
	"context"

	"tutti/state/tx"
)

// Encoded sizes of a body's parts, in bytes (tx.Body.Append).
const (
	sectionOverhead = 1 + 4
	bodyOverhead    = 1 + 3*sectionOverhead
)

// Build makes a body on an executed parent: the good bundles first, then as many candidates as take effect and fit, in
// order. It keeps nothing; the body is executed like any other. Errors are those of Execute, but for ErrInvalidBody.
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
	limit := min(in.MaxTxs, tx.MaxBodyTx)
	if body.Txs, err = l.accept(parent, received, at, txs, out.Left, limit, room); err != nil {
		return nil, err
	}
	for i := range body.Txs {
		room -= body.Txs[i].WireBytes() + 1
	}
	body.Outcomes = make([]bool, len(body.Txs))
	for i := range body.Outcomes {
		body.Outcomes[i] = true
	}
	e, err := l.effectsOf(parent, received, body.Txs, body.Outcomes)
	if err != nil {
		return nil, l.fail(err) // accept let pass what effectsOf refuses
	}
	out.Body, out.Commitments, out.Txs = body.Append(make([]byte, 0, in.MaxBytes-room)), e.done.Commitments, len(body.Txs)
	return out, nil
}

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

// accept tries the debits of txs in order and returns those that take effect, up to a number and size; the others get
// their reason in left, whose places are at. It leaves the table as it was.
func (l *Ledger) accept(parent *block, in *received, at []int, txs []tx.Signed, left []Reason, limit, room int) ([]tx.Signed, error) {
	if err := l.enter(parent); err != nil {
		return nil, err
	}
	defer l.exec.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.newDebit(parent, in)
	good := 0
	for j := range txs {
		t := &txs[j]
		size := t.WireBytes() + 1 // and an outcome bit: a byte is enough and simple
		r := NoRoom
		if good < limit && size <= room {
			r = d.apply(t)
		}
		if left[at[j]] = r; r == None {
			room -= size
			txs[good] = *t
			good++
		}
	}
	l.rollback()
	return txs[:good], nil
}
