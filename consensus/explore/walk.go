package explore

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Walk is for worlds that are too large to be visited whole: it goes from the beginning to where nothing more can happen,
// many times, each step drawn from all that may come next. A walk ends with a fair run. This shows bugs and proves
// nothing; Report.States says how many different states were met. One seed is one set of walks.
func Walk(o Options, seed uint64, walks int) (Report, error) {
	x, first, err := begin(&o)
	if err != nil {
		return Report{}, err
	}
	rng := rand.New(rand.NewPCG(seed, 0x77616c6b))
	x.states.add(first, -1)
	for range walks {
		if err = x.walk(rng, slices.Clone(first)); err != nil || x.enough(0) {
			break
		}
	}
	x.report.States, x.report.Took = x.states.n, time.Since(x.began)
	x.measure()
	return x.report, err
}

func (x *explorer) walk(rng *rand.Rand, world []uint32) error {
	type choice struct{ j, e int }
	var way []string
	for depth := 1; ; depth++ {
		var choices []choice
		x.moves(world, func(j, e int) bool {
			choices = append(choices, choice{j, e})
			return true
		})
		if len(choices) == 0 {
			break
		}
		c := choices[rng.IntN(len(choices))]
		way = append(way, x.moveName(c.j, c.e))
		if err := x.move(world, c.j, c.e, &way); err != nil {
			return &Failure{Err: err, States: x.states.n, Schedule: way}
		}
		x.states.add(world, -1)
		x.report.Transitions++
		x.report.Depth = max(x.report.Depth, depth)
	}
	if x.o.Fair == 0 {
		return nil
	}
	if err := x.fair(world); err != nil {
		return &Failure{Err: err, States: x.states.n, Schedule: way}
	}
	return nil
}
