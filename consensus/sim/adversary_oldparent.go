package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// OldParent proposes on blocks that are certified and too old: on an ancestor of the one that it should extend, under a
// header that is right in all else. Who voted for that would leave views out that were not nullified.
func OldParent(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		const most = 10_000
		known := map[consensus.Hash]*consensus.Header{e.Config.Root.Hash(): e.Config.Root}
		learn := func(b consensus.Block) {
			if len(known) < most {
				known[b.Header.Hash()] = b.Header
			}
		}
		t.before = func(e simplex.Event) simplex.Event {
			switch e := e.(type) {
			case simplex.ProposalReceived:
				learn(e.Proposal.Block)
			case simplex.BlockFetched:
				learn(e.Block)
			case simplex.Built:
				if e.Block != nil {
					learn(*e.Block)
				}
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for i, o := range r.Send {
				if o.Proposal == nil {
					continue
				}
				h := *o.Proposal.Block.Header
				parent := known[h.Parent]
				for range 1 + t.Rand.IntN(3) {
					if parent != nil && known[parent.Parent] != nil {
						parent = known[parent.Parent]
					}
				}
				if parent == nil {
					continue
				}
				h.Parent, h.Height = parent.Hash(), parent.Height+1
				r.Send[i].Proposal = &consensus.Proposal{
					Block: consensus.Block{Header: &h, Body: o.Proposal.Block.Body}, Vote: t.vote(consensus.Notarize, h.View, h.Hash()),
				}
			}
		}
	})
}
