package engine

import (
	"errors"
	"slices"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// A quorum makes a block final, and its votes are the certificate. lateTicks later the votes that it lacks and that have come
// by then are checked as one sum, and added: so the certificate in the log, from which proofs are served, says who took part
// and not only who was first, and stands on as much power as there was. Nothing waits for it.
const (
	lateTicks  = 2
	maxLate    = 16 // finalizations that wait for that
	keptFinals = 8  // finalize votes of each validator
)

// improving is a finalization that votes will be added to.
type improving struct {
	cert  consensus.Certificate
	ticks int
}

// expectLate has a finalization that was logged improved later. Owner only.
func (e *Engine) expectLate(cert consensus.Certificate) {
	if cert.Signers.Count() == len(e.c.Committee.Validators) {
		return
	}
	cert.Signers = slices.Clone(cert.Signers)
	e.late = append(e.late, improving{cert: cert})
	if len(e.late) > maxLate {
		e.late = slices.Delete(e.late, 0, 1)
	}
}

// keepFinal keeps a finalize vote of a validator, unchecked. A validator can push out none but its own.
func (e *Engine) keepFinal(v *consensus.Vote) {
	if v.Kind != consensus.Finalize || int(v.Validator) >= len(e.finalVotes) {
		return
	}
	own := &e.finalVotes[v.Validator]
	if slices.ContainsFunc(*own, func(o consensus.Vote) bool { return o.Statement == v.Statement }) {
		return
	}
	if len(*own) == keptFinals {
		*own = slices.Delete(*own, 0, 1)
	}
	*own = append(*own, *v)
}

// improveLate improves the finalizations that are due.
func (e *Engine) improveLate() error {
	for i := range e.late {
		e.late[i].ticks++
	}
	for len(e.late) > 0 && e.late[0].ticks >= lateTicks {
		cert := e.late[0].cert
		e.late = slices.Delete(e.late, 0, 1)
		var votes []consensus.Vote
		for i, own := range e.finalVotes {
			if k := slices.IndexFunc(own, func(v consensus.Vote) bool { return v.Statement == cert.Statement }); k >= 0 && !cert.Signers.Has(i) {
				votes = append(votes, own[k])
			}
		}
		if err := e.improve(cert, votes); err != nil {
			return err
		}
	}
	return nil
}

// improve adds late votes to a finalization in the log.
func (e *Engine) improve(cert consensus.Certificate, votes []consensus.Vote) error {
	if len(votes) == 0 {
		return nil
	}
	better, ok := e.with(cert, votes)
	if !ok { // who sent a bad one?
		good := votes[:0]
		for _, v := range votes {
			if _, ok := e.with(cert, []consensus.Vote{v}); ok {
				good = append(good, v)
			} else {
				e.penalise(int(v.Validator), "bad signature of a late vote")
			}
		}
		if better, ok = e.with(cert, good); !ok || len(good) == 0 {
			return nil
		}
	}
	if err := e.c.Log.ImproveFinal(&better); errors.Is(err, blocklog.ErrNotFound) {
		return nil // pruned
	} else if err != nil {
		return fatal("block log", err)
	}
	e.status.count(func(c *Counters) { c.LateVotes += uint64(better.Signers.Count() - cert.Signers.Count()) })
	if f := e.latest.Load(); f != nil && f.Cert.Statement == better.Statement {
		e.latest.Store(&consensus.FinalHeader{Header: f.Header, Cert: better})
	}
	return nil
}

// with is a finalization with votes added, if all of them are good.
func (e *Engine) with(cert consensus.Certificate, votes []consensus.Vote) (consensus.Certificate, bool) {
	signatures := []consensus.Signature{cert.Signature}
	cert.Signers = slices.Clone(cert.Signers)
	for _, v := range votes {
		signatures = append(signatures, v.Signature)
		cert.Signers.Add(int(v.Validator))
	}
	var err error
	cert.Signature, err = e.c.Keys.Aggregate(signatures)
	return cert, err == nil && e.c.Keys.VerifyAggregate(cert.Signers, consensus.VoteMessage(e.c.Chain, cert.Statement), cert.Signature)
}
