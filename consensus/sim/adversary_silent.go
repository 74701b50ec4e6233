package sim

import "tutti/consensus/simplex"

// Silent follows everything and says nothing: its views must be nullified by the others.
func Silent(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		t.after = func(r *simplex.Ready) { r.Send = nil }
	})
}
