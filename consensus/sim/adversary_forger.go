package sim

import (
	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Forger spoils the signatures and shards of what it sends, votes in others' names and makes certificates up.
func Forger(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.after = func(r *simplex.Ready) {
			var forged []simplex.Outbound
			for _, o := range r.Send {
				if o.Part != nil && len(o.Part.Shards) > 0 && t.Rand.IntN(4) == 0 {
					o.Part = o.Part.Clone()
					o.Part.Shards[t.Rand.IntN(len(o.Part.Shards))][0]++
				}
				if o.Vote == nil {
					forged = append(forged, o)
					continue
				}
				v := *o.Vote
				switch t.Rand.IntN(4) {
				case 0:
					v.Signature[5]++
				case 1:
					v.Signature[95]++ // not even a point
				case 2:
					v.Validator = uint16(t.Rand.IntN(len(t.Config.Committee.Validators)))
				default:
					all := consensus.NewSigners(len(t.Config.Committee.Validators))
					for i := range t.Config.Committee.Validators {
						all.Add(i)
					}
					c := consensus.Certificate{Statement: v.Statement, Signers: all, Signature: v.Signature}
					forged = append(forged, simplex.Outbound{To: o.To, Cert: &c})
				}
				o.Vote = &v
				forged = append(forged, o)
			}
			r.Send = forged
		}
	})
}
