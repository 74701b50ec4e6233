package sim

import "tutti/consensus/simplex"

// Selective sends each message to some of the committee only, another part each time, and proposals of its own to
// few: it tries to leave validators in different views.
func Selective(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.after = func(r *simplex.Ready) {
			var some []simplex.Outbound
			for _, o := range r.Send {
				for to := range t.Config.Committee.Validators {
					if (o.To == simplex.ToAll || o.To == to) && t.Rand.IntN(2) == 0 {
						one := o
						one.To = to
						some = append(some, one)
					}
				}
			}
			r.Send = some
		}
	})
}
