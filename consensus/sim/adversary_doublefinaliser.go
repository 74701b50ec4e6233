package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// DoubleFinaliser finalizes and nullifies every view it hears of.
func DoubleFinaliser(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.after = func(r *simplex.Ready) {
			var extra []simplex.Outbound
			add := func(v consensus.Vote) { extra = append(extra, simplex.Outbound{To: simplex.ToAll, Vote: &v}) }
			for _, o := range r.Send {
				switch {
				case o.Vote != nil && o.Vote.Kind == consensus.Notarize:
					add(t.vote(consensus.Finalize, o.Vote.View, o.Vote.Block))
					add(t.vote(consensus.Nullify, o.Vote.View, consensus.Hash{}))
				case o.Vote != nil && o.Vote.Kind == consensus.Finalize:
					add(t.vote(consensus.Nullify, o.Vote.View, consensus.Hash{}))
					add(t.vote(consensus.Finalize, o.Vote.View, consensus.Hash{1}))
				}
			}
			r.Send = append(r.Send, extra...)
		}
	})
}
