// Package selftest judges the backends of one cryptographic operation and picks the one to use.
//
// A backend must give the known answers that its package embeds before it is eligible. One that does not, or that
// panics, is disabled with a line that says why; the rest of the process goes on with the others. Among those that
// pass, the one that is fastest on this machine is chosen. The choice may differ from machine to machine; results do
// not, because every eligible backend gives the same ones.
//
// An illegal instruction cannot be caught in Go: backends must look at the CPU before they use it.
package selftest

import (
	"fmt"
	"runtime"
	"time"
)

// Verdict is what is known about one backend of one operation in this process.
type Verdict struct {
	Operation string `json:"operation"`         // what it computes, as "ed25519 verify"
	Backend   string `json:"backend"`           // who computes it, as "voi batch"
	Passed    bool   `json:"passed"`            // it gave every known answer
	Chosen    bool   `json:"chosen"`            // it is the one in use
	Reason    string `json:"reason"`            // one line: why chosen, why not, or what went wrong
	CostNs    int64  `json:"cost_ns,omitempty"` // measured CPU time per item in nanoseconds; 0 when not measured
}

// Named is what Choose needs to know of a backend.
type Named interface{ Name() string }

// Operation describes what the backends of type B compute.
type Operation[B Named] struct {
	Name  string
	Item  string        // what one unit of work is called, as "signature"
	Check func(B) error // gives the known answers to a backend; nil means all were right
	Work  func(B)       // a typical load of Items items, for the measurement
	Items int
}

// trials is how often Work is measured per backend; the fastest trial counts, because noise only adds.
const trials = 9

// Choose runs Check on every candidate, measures those that pass and picks the fastest, the earlier one on a tie.
// The verdicts are in the order of the candidates. ok is false when none passed; chosen is then the zero B.
func Choose[B Named](op Operation[B], candidates ...B) (chosen B, verdicts []Verdict, ok bool) {
	return choose(op, cpuTime, candidates...)
}

// choose is Choose by a given clock.
func choose[B Named](op Operation[B], clock func() time.Duration, candidates ...B) (chosen B, verdicts []Verdict, ok bool) {
	best := -1
	for i, c := range candidates {
		v := Verdict{Operation: op.Name, Backend: c.Name()}
		if err := guard(func() error { return op.Check(c) }); err != nil {
			v.Reason = "disabled: " + err.Error()
		} else if err := guard(func() error { v.CostNs = measure(op, clock, c); return nil }); err != nil {
			v.Reason = "disabled: " + err.Error()
		} else {
			v.Passed = true
			v.Reason = fmt.Sprintf("passed, %d ns per %s", v.CostNs, op.Item)
			if best < 0 || v.CostNs < verdicts[best].CostNs {
				best = i
			}
		}
		verdicts = append(verdicts, v)
	}
	if best < 0 {
		return chosen, verdicts, false
	}
	verdicts[best].Chosen = true
	verdicts[best].Reason = fmt.Sprintf("chosen, %d ns per %s, the fastest that passed", verdicts[best].CostNs, op.Item)
	return candidates[best], verdicts, true
}

// guard runs f and turns a panic into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// measure is the fastest trial's time per item, by the CPU time of this thread where the system tells it: on a busy
// machine the clock on the wall measures the neighbours.
func measure[B Named](op Operation[B], clock func() time.Duration, b B) int64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var best time.Duration
	for i := range trials {
		start := clock()
		op.Work(b)
		if d := clock() - start; i == 0 || d < best {
			best = d
		}
	}
	return int64(best) / int64(op.Items)
}
