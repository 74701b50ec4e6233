package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Withholder proposes bodies in shards, gives their parts to a few others, another few each time, and passes none on: it
// tries to have a body notarized that nobody can rebuild, or only some.
func Withholder(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.before = t.inShards
		t.after = func(r *simplex.Ready) {
			var few []simplex.Outbound
			most := t.Rand.IntN(len(t.Config.Committee.Validators))
			for _, o := range r.Send {
				own := t.ownPart(o) != nil
				if o.Part == nil || own && most > 0 {
					few = append(few, o)
				}
				if own && most > 0 {
					most--
				}
			}
			r.Send = few
		}
	})
}

// inShards makes the bodies of own proposals travel in shards, however short they are.
func (t *twisted) inShards(e simplex.Event) simplex.Event {
	b, ok := e.(simplex.Built)
	if !ok || b.Block == nil || b.Block.Header.Body.Codec == consensus.CodecShards {
		return e
	}
	h := *b.Block.Header
	h.Body = t.Config.Committee.ShardsRef(b.Block.Body)
	return simplex.Built{View: b.View, Block: &consensus.Block{Header: &h, Body: b.Block.Body}}
}
