package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// LateNullifier finalizes views, tells a part of the committee only, and nullifies them a while later to everybody, in the
// hope that the views fall to the one side here and to the other there.
func LateNullifier(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		type late struct {
			at   int
			view consensus.View
		}
		var due []late
		now, ticked := 0, false
		t.before = func(e simplex.Event) simplex.Event {
			if _, ticked = e.(simplex.Tick); ticked {
				now++
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			var out []simplex.Outbound
			for _, o := range r.Send {
				if o.Vote == nil || o.Vote.Kind != consensus.Finalize {
					out = append(out, o)
					continue
				}
				due = append(due, late{now + t.Rand.IntN(8), o.Vote.View})
				for to := range t.Config.Committee.Validators {
					if t.Rand.IntN(2) == 0 {
						o.To = to
						out = append(out, o)
					}
				}
			}
			for len(due) > 0 && due[0].at <= now {
				v := t.vote(consensus.Nullify, due[0].view, consensus.Hash{})
				out = append(out, simplex.Outbound{To: simplex.ToAll, Vote: &v})
				due = due[1:]
			}
			r.Send = out
		}
	})
}
