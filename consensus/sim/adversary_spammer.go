package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Spammer votes in every view that the others take votes for, long before and after its time: for blocks that do not exist,
// and to give the views up. It tries to fill what machines hold, and to have views decided before they begin.
func Spammer(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		window := e.Config.Limits.Window
		if e.Config.Limits == (simplex.Limits{}) {
			window = simplex.DefaultLimits().Window
		}
		ticked := false
		t.before = func(e simplex.Event) simplex.Event {
			_, ticked = e.(simplex.Tick)
			return e
		}
		t.after = func(r *simplex.Ready) {
			if !ticked {
				return
			}
			now := t.Status().View
			for view := max(now, window+1) - window; view <= now+window+2; view++ {
				var block consensus.Hash
				block[0] = 1 + byte(t.Rand.IntN(255))
				for _, v := range []consensus.Vote{
					t.vote(consensus.Notarize, view, block), t.vote(consensus.Nullify, view, consensus.Hash{}), t.vote(consensus.Finalize, view, block),
				} {
					if t.Rand.IntN(8) == 0 {
						r.Send = append(r.Send, simplex.Outbound{To: simplex.ToAll, Vote: &v})
					}
				}
			}
		}
	})
}
