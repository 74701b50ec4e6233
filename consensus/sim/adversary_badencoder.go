package sim

import (
	"tutti/consensus"
	"tutti/consensus/shred/shredtest"
	"tutti/consensus/simplex"
)

// BadEncoder proposes parts under roots that are no body's: each has good paths, one shard is wrong. They are notarized,
// and then must be found out by everybody, from whichever parts, and nullified.
func BadEncoder(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.before = t.inShards
		t.after = func(r *simplex.Ready) {
			var bad *shredtest.Spoilt
			var h consensus.Header
			var v consensus.Vote
			var sent []simplex.Outbound
			for _, o := range r.Send {
				if o.Vote != nil && o.Vote.Kind == consensus.Notarize && t.Config.Committee.Leader(o.Vote.View) == t.Config.Index {
					continue // for what it shows to nobody
				}
				if p := t.ownPart(o); p != nil {
					if bad == nil {
						code := t.Config.Committee.Code()
						bad = shredtest.Spoil(t.Config.Committee, []byte("body of view "+p.Vote.Block.String()), int(p.Header.View)%code.N())
						h = *p.Header
						h.Body = bad.Ref
						v = t.vote(consensus.Notarize, h.View, h.Hash())
					}
					o.Part = bad.Part(int(p.Validator), &h, v)
				}
				sent = append(sent, o)
			}
			r.Send = sent
		}
	})
}
