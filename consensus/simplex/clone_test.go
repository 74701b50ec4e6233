package simplex_test

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"tutti/consensus/sim"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// twice steps a clone of a machine before the machine itself.
type twice struct {
	*simplex.Machine
	failed *error
}

func (t twice) Step(e simplex.Event) simplex.Ready {
	before := t.AppendState(nil, true)
	clone := t.Clone()
	fresh := clone.AppendState(nil, true)
	want := clone.Step(e)
	if !bytes.Equal(before, fresh) || !bytes.Equal(before, t.AppendState(nil, true)) {
		*t.failed = fmt.Errorf("a clone of another state, or its step was seen: %T", e)
	}
	got := t.Machine.Step(e)
	if !reflect.DeepEqual(got, want) || !bytes.Equal(clone.AppendState(nil, true), t.AppendState(nil, true)) {
		*t.failed = fmt.Errorf("%T: the clone says %+v, the machine %+v", e, want, got)
	}
	return got
}

// TestClone: in whole simulated lives, a clone of the machine does at each step what the machine does, unnoticed by it.
func TestClone(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		c := simtest.Committee(seed, 1, 1, 1, 1)
		var failed error
		o := sim.Options{
			Seed: seed, Chain: simtest.Chain, Committee: c, Genesis: simtest.Genesis(c), Keys: simtest.NewKeys(4),
			Adversaries: map[int]sim.Maker{1: sim.Adversaries()["equivocator"]},
			Faults:      sim.Faults{For: 10 * time.Second, Drop: 0.2, Delay: 50 * time.Millisecond, Crash: 4 * time.Second, Down: time.Second},
			Honest: func(e sim.Env) (sim.Participant, simplex.Ready, error) {
				m, r, err := simplex.New(e.Config)
				return twice{m, &failed}, r, err
			},
		}
		for i := range 4 {
			o.Signers = append(o.Signers, simtest.NewKeys(4).Signer(i))
		}
		if seed == 2 { // block sync comes into play
			o.Limits = simplex.Limits{Window: 3, Depth: 2, TailDepth: 200, TailBody: 100, Reach: 2}
		}
		if _, err := sim.Run(o); err != nil || failed != nil {
			t.Fatalf("seed %d: %v, %v", seed, failed, err)
		}
	}
}
