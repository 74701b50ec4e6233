package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Trespasser proposes blocks with content where the epoch only waits for its end, in place of echoes: as if the epoch went on, or
// ended once more. In a run without epochs it follows the protocol.
func Trespasser(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.after = func(r *simplex.Ready) {
			for i, o := range r.Send {
				if o.Proposal == nil || !o.Proposal.Block.Header.IsEcho() {
					continue
				}
				h := *o.Proposal.Block.Header
				body := []byte("more")
				if h.Body = consensus.NewBodyRef(body); t.Rand.IntN(2) == 0 {
					h.NextCommittee = h.Committee
				}
				r.Send[i].Proposal = &consensus.Proposal{Block: consensus.Block{Header: &h, Body: body}, Vote: t.vote(consensus.Notarize, h.View, h.Hash())}
			}
		}
	})
}
