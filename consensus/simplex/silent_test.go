package simplex_test

import (
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// TestPassOver: a leader that says nothing through eight finalities loses its views at once (R7), until a message of any
// kind comes from it.
func TestPassOver(t *testing.T) {
	const silent = 3
	c, config := bench4()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	var passed, timed, finalities int
	nullified := map[consensus.View]bool{}
	step := func(e simplex.Event) { // and answer what is asked
		for todo := []simplex.Event{e}; len(todo) > 0; todo = todo[1:] {
			ready := m.Step(todo[0])
			for _, a := range ready.Apply {
				switch a := a.(type) {
				case simplex.Build:
					b := simtest.Child(c, a.Parent, a.View, []byte("own"))
					todo = append(todo, simplex.Built{View: a.View, Block: &b})
				case simplex.Certify:
					todo = append(todo, simplex.Judged{Block: a.Block.Header.Hash(), Valid: true})
				case simplex.Finalised:
					finalities++
				}
			}
			for _, o := range ready.Send {
				if o.Vote != nil && o.Vote.Kind == consensus.Nullify {
					nullified[o.Vote.View] = true
					if _, fired := todo[0].(simplex.TimerFired); fired {
						timed++
					} else {
						passed++
					}
				}
			}
		}
	}
	vote := func(k consensus.Kind, v consensus.View, h consensus.Hash) {
		for _, i := range []int{1, 2} {
			step(simplex.VoteReceived{From: i, Vote: sign(c, statement(c, k, v, h), i, false)})
		}
	}
	rounds := func(until func() bool) {
		for !until() {
			v := m.Status().View
			switch c.Leader(v) {
			case silent:
				if !nullified[v] {
					step(simplex.TimerFired{View: v})
				}
				vote(consensus.Nullify, v, consensus.Hash{})
			case 0:
				b := simtest.Child(c, m.Status().Highest, v, []byte("own"))
				vote(consensus.Notarize, v, b.Header.Hash())
				vote(consensus.Finalize, v, b.Header.Hash())
			default:
				b := simtest.Child(c, m.Status().Highest, v, []byte("theirs"))
				step(simplex.ProposalReceived{From: c.Leader(v), Proposal: proposal(c, b)})
				vote(consensus.Notarize, v, b.Header.Hash())
				vote(consensus.Finalize, v, b.Header.Hash())
			}
			if m.Status().View != v+1 {
				t.Fatalf("view %d after view %d", m.Status().View, v)
			}
		}
	}
	rounds(func() bool { return passed == 1 })
	if finalities < 8 || finalities > 11 || timed == 0 {
		t.Errorf("passed over for the first time after %d finalities and %d timers", finalities, timed)
	}
	step(simplex.VoteReceived{From: silent, Vote: sign(c, statement(c, consensus.Nullify, m.Status().View, consensus.Hash{}), silent, false)})
	before, waited := finalities, timed
	rounds(func() bool { return timed > waited })
	if passed != 1 {
		t.Errorf("passed over %d finalities after a message", finalities-before)
	}
	rounds(func() bool { return passed == 2 })
	if got := finalities - before; got < 8 || got > 11 {
		t.Errorf("passed over again after %d finalities", got)
	}
}
