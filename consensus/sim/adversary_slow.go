package sim

import (
	"time"

	"tutti/consensus/simplex"
)

// Slow does everything at the last moment: what it sends leaves when the timer of a first attempt at a view, from when it
// made it, is about to run out elsewhere. Its views look as if they just did not make it, and its votes come for what the
// others have half given up.
func Slow(e Env) (Participant, simplex.Ready, error) {
	return twist(e, func(t *twisted) {
		timing := e.Config.Timing
		if timing == (simplex.Timing{}) {
			timing = simplex.DefaultTiming()
		}
		wait := int(timing.View/(250*time.Millisecond)) - 1 // Ticks
		type late struct {
			at int
			o  simplex.Outbound
		}
		var held []late
		now := 0
		t.before = func(e simplex.Event) simplex.Event {
			if _, ok := e.(simplex.Tick); ok {
				now++
			}
			return e
		}
		t.after = func(r *simplex.Ready) {
			for _, o := range r.Send {
				held = append(held, late{now + wait, o})
			}
			r.Send = nil
			for len(held) > 0 && held[0].at <= now {
				r.Send = append(r.Send, held[0].o)
				held = held[1:]
			}
		}
	})
}
