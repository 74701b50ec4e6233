package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// BadBody proposes bodies that are invalid under headers that are not, and goes on as if they were valid. They are
// notarized, and then must be nullified without stopping the shard.
func BadBody(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.before = func(e simplex.Event) simplex.Event {
			switch b := e.(type) {
			case simplex.Built:
				if b.Block == nil {
					return e
				}
				h := *b.Block.Header
				body := append([]byte("bad "), b.Block.Body...)
				if h.Body = consensus.NewBodyRef(body); b.Block.Header.Body.Codec == consensus.CodecShards {
					h.Body = t.Config.Committee.ShardsRef(body)
				}
				return simplex.Built{View: b.View, Block: &consensus.Block{Header: &h, Body: body}}
			case simplex.Judged:
				return simplex.Judged{Block: b.Block, Valid: true}
			}
			return e
		}
	})
}
