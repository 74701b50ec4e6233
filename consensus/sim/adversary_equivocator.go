package sim

import (
	"tutti/consensus"
	"tutti/consensus/shred"
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
			switch p := e.(type) {
			case simplex.ProposalReceived:
				support(p.Proposal.Vote.View, p.Proposal.Vote.Block)
			case simplex.PartReceived:
				support(p.Part.Vote.View, p.Part.Vote.Block)
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for _, o := range r.Send {
				if p := t.ownPart(o); p != nil && o.To%2 == 1 {
					twin, set := t.twinInShards(p)
					o.Part = set.Part(o.To, twin.Block.Header, twin.Vote)
					support(twin.Vote.View, twin.Vote.Block)
				}
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

// twinInShards is twin for a proposal that travels in parts.
func (t *twisted) twinInShards(p *shred.Part) (*consensus.Proposal, *shred.Set) {
	set, err := shred.Cut(t.Config.Committee, []byte("twin of "+p.Vote.Block.String()))
	if err != nil {
		panic(err)
	}
	h := *p.Header
	h.Body = set.Ref()
	return &consensus.Proposal{Block: consensus.Block{Header: &h}, Vote: t.vote(consensus.Notarize, h.View, h.Hash())}, set
}

// twin is another proposal for the same view and parent.
func (t *twisted) twin(p *consensus.Proposal) *consensus.Proposal {
	h := *p.Block.Header
	body := []byte("twin of " + string(p.Block.Body))
	h.Body = consensus.NewBodyRef(body)
	return &consensus.Proposal{Block: consensus.Block{Header: &h, Body: body}, Vote: t.vote(consensus.Notarize, h.View, h.Hash())}
}
