package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Forker proposes on any block it has ever heard of, certified or not, whatever was decided since; or with a height or
// time that cannot be. It votes for its forks as if they were certified.
func Forker(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		heard := []*consensus.Header{e.Config.Root}
		t.before = func(e simplex.Event) simplex.Event {
			if len(heard) < 10_000 {
				switch p := e.(type) {
				case simplex.ProposalReceived:
					heard = append(heard, p.Proposal.Block.Header)
				case simplex.PartReceived:
					heard = append(heard, p.Part.Header)
				}
			}
			return e
		}
		fork := func(h consensus.Header) (*consensus.Header, consensus.Vote) {
			parent := heard[len(heard)-1-t.Rand.IntN(min(len(heard), 5))]
			h.Parent, h.Height, h.TimeMs = parent.Hash(), parent.Height+1, max(h.TimeMs, parent.TimeMs+1)
			switch t.Rand.IntN(8) {
			case 0:
				h.Height++
			case 1:
				h.TimeMs = parent.TimeMs
			}
			return &h, t.vote(consensus.Notarize, h.View, h.Hash())
		}
		t.after = func(r *simplex.Ready) {
			var parts *consensus.Header // the fork whose parts go out
			var vote consensus.Vote
			for i, o := range r.Send {
				var h *consensus.Header
				switch p := t.ownPart(o); {
				case o.Proposal != nil && o.To == simplex.ToAll:
					var v consensus.Vote
					h, v = fork(*o.Proposal.Block.Header)
					r.Send[i].Proposal = &consensus.Proposal{Block: consensus.Block{Header: h, Body: o.Proposal.Block.Body}, Vote: v}
				case p != nil:
					if parts == nil {
						parts, vote = fork(*p.Header)
						h = parts
					}
					forked := *p
					forked.Header, forked.Vote = parts, vote
					r.Send[i].Part = &forked
				}
				if h != nil {
					f := t.vote(consensus.Finalize, h.View, h.Hash())
					r.Send = append(r.Send, simplex.Outbound{To: simplex.ToAll, Vote: &f})
				}
			}
		}
	})
}
