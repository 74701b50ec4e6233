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
			if p, ok := e.(simplex.ProposalReceived); ok && len(heard) < 10_000 {
				heard = append(heard, p.Proposal.Block.Header)
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for i, o := range r.Send {
				if o.Proposal == nil || o.To != simplex.ToAll {
					continue
				}
				parent := heard[len(heard)-1-t.Rand.IntN(min(len(heard), 5))]
				h := *o.Proposal.Block.Header
				h.Parent, h.Height, h.TimeMs = parent.Hash(), parent.Height+1, max(h.TimeMs, parent.TimeMs+1)
				switch t.Rand.IntN(8) {
				case 0:
					h.Height++
				case 1:
					h.TimeMs = parent.TimeMs
				}
				fork := &consensus.Proposal{Block: consensus.Block{Header: &h, Body: o.Proposal.Block.Body}, Vote: t.vote(consensus.Notarize, h.View, h.Hash())}
				r.Send[i].Proposal = fork
				f := t.vote(consensus.Finalize, h.View, h.Hash())
				r.Send = append(r.Send, simplex.Outbound{To: simplex.ToAll, Vote: &f})
			}
		}
	})
}
