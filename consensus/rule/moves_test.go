package rule

import (
	"bytes"
	"fmt"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// move makes one event or several, likely ones more often.
func (w *world) move() error {
	st := w.machine.Status()
	switch n := w.rng.IntN(200); {
	case n < 6:
		v := st.View
		if n < 2 && v > 1 {
			v-- // one that was replaced
		} else {
			w.gaveUp[v] = true
		}
		return w.step(simplex.TimerFired{View: v})
	case n < 10:
		return w.step(simplex.Tick{})
	case n < 60:
		return w.propose()
	case n < 115:
		return w.decide()
	case n < 155:
		return w.judgeOne()
	case n < 180:
		return w.buildOne()
	case n < 195:
		return w.fetchOne()
	case n < 198:
		return w.life()
	case n < 199:
		return w.lose()
	}
	if w.sync == nil {
		return nil
	}
	cert := *w.sync
	w.sync = nil
	return w.step(simplex.Synced{Header: w.root(), Cert: cert}) // block sync has found nothing
}

func (w *world) step(e simplex.Event) error {
	switch e := e.(type) {
	case simplex.ProposalReceived:
		w.unheard[e.From] = 0
	case simplex.VoteReceived:
		w.unheard[e.From] = 0
	case simplex.BlockFetched:
		w.unheard[e.From] = 0
	case simplex.CertificateReceived:
		w.unheard[e.From] = 0
	}
	return w.obey(w.machine.Step(e))
}

// other is a validator but the machine's.
func (w *world) other() int {
	return (w.index + 1 + w.rng.IntN(len(w.c.Validators)-1)) % len(w.c.Validators)
}

// recent is a block of the pool, likely one of the last.
func (w *world) recent() consensus.Block {
	n := len(w.pool)
	return w.pool[n-1-w.rng.IntN(min(n, 5))]
}

func (w *world) receive(b consensus.Block) {
	w.received[b.Header.Hash()] = b
	w.connect()
}

// propose makes a block by the leader of a view near the current one, often on a parent that it must not extend.
func (w *world) propose() error {
	st := w.machine.Status()
	view := st.View
	if w.rng.IntN(4) == 0 {
		view += consensus.View(w.rng.IntN(3))
	}
	if w.c.Leader(view) == w.index {
		return nil // its key is not theirs
	}
	if w.pool[len(w.pool)-1].Header.View == view && w.rng.IntN(8) > 0 {
		return nil // there is one already
	}
	parent := st.Highest
	if w.rng.IntN(3) == 0 {
		parent = w.recent().Header
	}
	b := w.child(parent, view)
	switch w.rng.IntN(20) {
	case 0:
		b.Header.Height++
	case 1:
		b.Header.TimeMs--
	case 2:
		b.Header.Committee[0]++
	}
	w.pool = append(w.pool, b)
	w.receive(b)
	leader := w.c.Leader(view)
	vote := w.sign(w.statement(consensus.Notarize, view, b.Header.Hash()), leader)
	w.count(vote.Statement, leader)
	return w.step(simplex.ProposalReceived{From: leader, Proposal: &consensus.Proposal{Block: b, Vote: vote}})
}

// child is a new block; one in ten has a body that is not valid.
func (w *world) child(parent *consensus.Header, view consensus.View) consensus.Block {
	body := fmt.Appendf(nil, "%d", len(w.pool))
	if w.rng.IntN(10) == 0 {
		body = append([]byte("x"), body...)
	}
	if parent.Ends() && w.rng.IntN(8) > 0 {
		return consensus.Block{Header: consensus.Echo(parent, view)}
	}
	b := simtest.Child(w.c, parent, view, body)
	if w.rng.IntN(16) == 0 {
		b.Header.NextCommittee[0]++
	}
	return b
}

func (w *world) sign(st consensus.Statement, i int) consensus.Vote {
	v := consensus.Vote{Statement: st, Validator: uint16(i)}
	v.Signature = simtest.NewKeys(len(w.c.Validators)).Signer(i).Sign(consensus.VoteMessage(simtest.Chain, st))
	return v
}

// decide has the others sign a statement: as a certificate or vote by vote, with a quorum or with less.
func (w *world) decide() error {
	b := w.recent()
	if highest, ok := w.received[w.machine.Status().Highest.Hash()]; ok && w.rng.IntN(4) == 0 {
		b = highest
	}
	h, view := b.Header.Hash(), b.Header.View
	st := w.statement(consensus.Notarize, view, h)
	switch n := w.rng.IntN(8); {
	case n < 3:
		st = w.statement(consensus.Finalize, view, h)
	case n == 3, n < 6 && w.bad(b):
		view = w.machine.Status().View
		switch w.rng.IntN(4) {
		case 0:
			view = max(view, 2) - 1
		case 1:
			view++
		}
		st = w.statement(consensus.Nullify, view, consensus.Hash{})
	}
	if st.View == 0 || st.Kind != consensus.Nullify && !w.ascends(b) {
		return nil // a quorum has an honest member, and it would not
	}
	signers := consensus.NewSigners(len(w.c.Validators))
	var ids []int
	var power consensus.Power
	for _, i := range w.rng.Perm(len(w.c.Validators)) {
		if enough := 2*power > w.c.Total() && w.rng.IntN(4) == 0; i == w.index || enough {
			continue
		}
		signers.Add(i)
		ids, power = append(ids, i), power+w.c.Validators[i].Power
	}
	if !w.allowed(st) {
		return nil
	}
	if w.rng.IntN(2) == 0 {
		return w.voteByVote(st, ids)
	}
	var sigs []consensus.Signature
	for _, i := range ids {
		sigs = append(sigs, w.sign(st, i).Signature)
	}
	sum, err := simtest.NewKeys(len(w.c.Validators)).Aggregate(sigs)
	if err != nil {
		return err
	}
	if w.quorum(power) {
		w.certify(st)
	}
	// From nobody of the committee: one that is too small would cost its sender its place.
	return w.step(simplex.CertificateReceived{From: -1, Cert: consensus.Certificate{Statement: st, Signers: signers, Signature: sum}})
}

// ascends reports whether the views of a block and its ancestors do.
func (w *world) ascends(b consensus.Block) bool {
	for ; b.Header.View > 0; b = w.received[b.Header.Parent] {
		if w.received[b.Header.Parent].Header.View >= b.Header.View {
			return false
		}
	}
	return true
}

func (w *world) voteByVote(st consensus.Statement, ids []int) error {
	for _, i := range ids {
		w.count(st, i)
		if err := w.step(simplex.VoteReceived{From: i, Vote: w.sign(st, i)}); err != nil {
			return err
		}
	}
	return nil
}

// allowed reports whether a statement of the others contradicts none before, and notes it.
func (w *world) allowed(st consensus.Statement) bool {
	n := w.named[st.View]
	if n == nil {
		n = &[4]consensus.Hash{}
		w.named[st.View] = n
	}
	what := st.Block
	switch st.Kind {
	case consensus.Nullify:
		if what = (consensus.Hash{1}); !n[consensus.Finalize].IsZero() {
			return false
		}
	case consensus.Finalize:
		if !n[consensus.Nullify].IsZero() || n[consensus.Notarize] != what || w.bad(w.received[what]) {
			return false
		}
	case consensus.Notarize:
		if old := n[consensus.Notarize]; !old.IsZero() && old != what {
			return false
		}
	}
	n[st.Kind] = what
	return true
}

func (w *world) judgeOne() error {
	if len(w.asked) == 0 {
		return nil
	}
	k := w.rng.IntN(len(w.asked))
	b := w.asked[k]
	w.asked = append(w.asked[:k], w.asked[k+1:]...)
	good := !bytes.HasPrefix(b.Body, []byte("x"))
	if good {
		w.judged[b.Header.Hash()] = true
	}
	return w.step(simplex.Judged{Block: b.Header.Hash(), Valid: good})
}

func (w *world) buildOne() error {
	if len(w.built) == 0 {
		return nil
	}
	a := w.built[0]
	w.built = w.built[1:]
	if w.rng.IntN(8) == 0 {
		w.gaveUp[a.View] = true
		return w.step(simplex.Built{View: a.View})
	}
	b := w.child(a.Parent, a.View)
	w.pool = append(w.pool, b)
	w.receive(b)
	return w.step(simplex.Built{View: a.View, Block: &b})
}

func (w *world) fetchOne() error {
	if len(w.fetch) == 0 {
		return nil
	}
	h := w.fetch[0]
	w.fetch = w.fetch[1:]
	for _, b := range w.pool {
		if b.Header.Hash() == h {
			w.receive(b)
			return w.step(simplex.BlockFetched{From: w.other(), Block: b})
		}
	}
	return nil
}
