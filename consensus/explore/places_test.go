package explore

import (
	"testing"

	"tutti/consensus/sim/simtest"
)

// TestMerged: machines that came to one place on different ways go on alike. Each way of one more event into a place is
// made anew, and from there each event is tried again.
func TestMerged(t *testing.T) {
	for _, restarts := range []int{0, 1} {
		c := simtest.Committee(1, 1, 1, 1, 1)
		o := Options{
			Chain: simtest.Chain, Committee: c, Genesis: simtest.Genesis(c), Keys: simtest.NewKeys(4), Byzantine: []int{1}, Views: 1,
			Restarts: restarts,
		}
		for i := range 4 {
			o.Signers = append(o.Signers, simtest.NewKeys(4).Signer(i))
		}
		x, _, err := begin(&o)
		if err != nil {
			t.Fatal(err)
		}
		x.compile()
		merged, tried := 0, 0
		for _, k := range x.kins {
			for at, l := range k.places {
				if restarts > 0 && at%7 != 0 {
					continue
				}
				again, err := x.replay(k, k.validators[0], at)
				if err != nil {
					t.Fatal(err)
				}
				for e, to := range l.next {
					if to < 0 || int(to) == at || (k.places[to].from == at && k.places[to].by == e) {
						continue
					}
					merged++
					n, err := x.step(again, k.validators[0], x.events[e])
					if err != nil {
						t.Fatal(err)
					}
					for e, want := range k.places[to].next {
						if want == unknown {
							continue
						}
						tried++
						m, err := x.step(n, k.validators[0], x.events[e])
						if (err != nil) != (want == broken) {
							t.Fatalf("%s: %v on one way and not on the other", x.eventName(x.events[e]), err)
						}
						if err == nil && k.byKey[x.key(m)] != int(want) {
							t.Fatalf("%s leads elsewhere on another way", x.eventName(x.events[e]))
						}
					}
				}
			}
		}
		t.Logf("%d ways, %d events", merged, tried)
		if merged == 0 || tried == 0 {
			t.Error("nothing was tried")
		}
	}
}
