package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Equivocator proposes two blocks in each of its views, one to each half of the committee, and votes for every block
// it hears of: to notarize it, and to make it final.
func Equivocator(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		var extra []simplex.Outbound
		support := func(view consensus.View, block consensus.Hash) {
			for _, k := range []consensus.Kind{consensus.Notarize, consensus.Finalize} {
				v := t.vote(k, view, block)
				extra = append(extra, simplex.Outbound{To: simplex.ToAll, Vote: &v})
			}
		}
		t.before = func(e simplex.Event) simplex.Event {
			if p, ok := e.(simplex.ProposalReceived); ok {
				support(p.Proposal.Vote.View, p.Proposal.Vote.Block)
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for _, o := range r.Send {
				if o.Proposal == nil {
					extra = append(extra, o)
					continue
				}
				twin := t.twin(o.Proposal)
				for to := range t.Config.Committee.Validators {
					p := o.Proposal
					if to%2 == 1 {
						p = twin
					}
					extra = append(extra, simplex.Outbound{To: to, Proposal: p})
				}
				support(twin.Vote.View, twin.Vote.Block)
			}
			r.Send, extra = extra, nil
		}
	})
}

// twin is another proposal for the same view and parent.
func (t *twisted) twin(p *consensus.Proposal) *consensus.Proposal {
	h := *p.Block.Header
	body := []byte("twin of " + string(p.Block.Body))
	h.Body = consensus.NewBodyRef(body)
	return &consensus.Proposal{Block: consensus.Block{Header: &h, Body: body}, Vote: t.vote(consensus.Notarize, h.View, h.Hash())}
}
