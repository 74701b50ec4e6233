package sim

import "tutti/consensus/simplex"

// Replayer keeps messages of all ages, its own and others', and sends them again at random.
func Replayer(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		const most = 500
		var kept []simplex.Outbound
		keep := func(o simplex.Outbound) {
			o.To = simplex.ToAll
			if len(kept) < most {
				kept = append(kept, o)
			} else {
				kept[t.Rand.IntN(most)] = o
			}
		}
		ticked := false
		t.before = func(e simplex.Event) simplex.Event {
			switch e := e.(type) {
			case simplex.ProposalReceived:
				keep(simplex.Outbound{Proposal: e.Proposal})
			case simplex.PartReceived:
				keep(simplex.Outbound{Part: e.Part})
			case simplex.CertificateReceived:
				keep(simplex.Outbound{Cert: &e.Cert})
			case simplex.VoteReceived:
				keep(simplex.Outbound{Vote: &e.Vote})
			case simplex.Tick:
				ticked = true
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for _, o := range r.Send {
				keep(o)
			}
			for range 10 {
				if ticked && len(kept) > 0 {
					r.Send = append(r.Send, kept[t.Rand.IntN(len(kept))])
				}
			}
			ticked = false
		}
	})
}
