package simplex_test

import (
	"fmt"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// BenchmarkView is the machine's own work for one view, without cryptography: a proposal whose body is in one piece, everybody's
// votes, finality. The result hash stands for the chain.
func BenchmarkView(b *testing.B) {
	for _, n := range []int{4, 400} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			powers := make([]consensus.Power, n)
			for i := range powers {
				powers[i] = 1
			}
			c := simtest.Committee(1, powers...)
			m, _, err := simplex.New(simplex.Config{
				Chain: simtest.Chain, Root: simtest.Genesis(c), Committee: c, Keys: simtest.NewKeys(n), Index: -1,
			})
			if err != nil {
				b.Fatal(err)
			}
			body, parent := make([]byte, 1<<10), simtest.Genesis(c)
			var view consensus.View
			for b.Loop() {
				view++
				b.StopTimer()
				bl := simtest.Child(c, parent, view, body)
				p, name := proposal(c, bl), bl.Header.Hash()
				var all []simplex.Event
				for _, k := range []consensus.Kind{consensus.Notarize, consensus.Finalize} {
					for i := range n {
						all = append(all, simplex.VoteReceived{From: i, Vote: sign(c, statement(c, k, view, name), i, false)})
					}
				}
				b.StartTimer()
				m.Step(simplex.ProposalReceived{From: c.Leader(view), Proposal: p})
				for _, e := range all[:n] {
					m.Step(e)
				}
				m.Step(simplex.Judged{Block: name, Valid: true})
				for _, e := range all[n:] {
					m.Step(e)
				}
				if parent = m.Status().Final; parent.View != view {
					b.Fatalf("view %d is not final", view)
				}
			}
			b.Logf("final %s", parent.Hash().Short())
		})
	}
}
