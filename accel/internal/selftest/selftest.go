// Package selftest judges the backends of one cryptographic operation and says which one to use for how many items.
//
// A backend must give the known answers that its package embeds before it is eligible. One that does not, or that
// panics, is disabled with a line that says why; the rest of the process goes on with the others. Those that pass are
// timed at a few batch sizes, and a Table says which is the fastest at which size on this machine. The choice may
// differ from machine to machine; results do not, because every eligible backend gives the same ones.
//
// The operator's setting (cpu.Setting) may switch a backend off or pin it. Timings, never verdicts, may come from a
// file (Timings) that an earlier process on the same CPU wrote with the same program.
//
// An illegal instruction cannot be caught in Go: a backend that needs CPU features either says so (Needs) or asks
// cpu.Has before its package lists it.
package selftest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/internal/cpu"
)

// Named is what Choose must know of a backend.
type Named interface{ Name() string }

// Needs may be implemented by a backend that executes instructions not every CPU has. It is not run where one of the
// features is missing or switched off.
type Needs interface{ Needs() []cpuid.FeatureID }

// Detects may be implemented by a backend that is a library with a mind of its own: it returns the features that the
// library found by itself and will use in this process. If one of them is switched off by the setting, which can't
// reach the library, the backend is used only where no other one is left, and its verdict says so.
type Detects interface{ Detects() []cpuid.FeatureID }

// Operation describes what the backends of type B compute.
type Operation[B Named] struct {
	Name   string           // as "ed25519 verify"; its words joined by hyphens are its name in the operator's setting
	Item   string           // what one unit of work is called, as "signature"
	Check  func(B) error    // gives the known answers to a backend; nil means all were right
	Work   func(b B, n int) // a typical load of n items, for the measurement; n is one of Sizes, and 1 always works
	Sizes  []int            // batch sizes to measure at, ascending; nil is DefaultSizes
	Budget time.Duration    // of CPU time for measuring; 0 is DefaultBudget
	None   B                // what Table.For returns when no backend is eligible
	// First takes the first candidate that passes, or the pinned one, at all sizes: for backends that differ in more
	// than speed. Later ones are not tried.
	First bool
}

// DefaultSizes are the batch sizes of most operations.
func DefaultSizes() []int { return []int{1, 8, 64, 512, 4096} }

// DefaultBudget is the CPU time that measuring one operation may take. The budgets of all operations add up to at most
// 300 ms; a test of package accel adds them.
const DefaultBudget = 30 * time.Millisecond

// Cost is what one item costs in a batch of Size.
type Cost struct {
	Size    int     `json:"size"`
	Ns      float64 `json:"ns"`                // CPU time per item in nanoseconds
	Guessed bool    `json:"guessed,omitempty"` // not measured, for lack of time or of any prospect: the cost at the size below
}

// Span is a range of batch sizes.
type Span struct {
	From int `json:"from"`
	To   int `json:"to,omitempty"` // the last one; 0 means no end
}

// String is the span in words, as "1-7" or "8 and more".
func (s Span) String() string {
	switch {
	case s.To == 0 && s.From <= 1:
		return "all sizes"
	case s.To == 0:
		return fmt.Sprintf("%d and more", s.From)
	case s.To == s.From:
		return fmt.Sprint(s.From)
	}
	return fmt.Sprintf("%d-%d", s.From, s.To)
}

// Verdict is what is known about one backend of one operation in this process.
type Verdict struct {
	Operation string        `json:"operation"`        // what it computes, as "ed25519 verify"
	Backend   string        `json:"backend"`          // who computes it, as "voi batch"
	Item      string        `json:"item"`             // what the costs are per, as "signature"
	Passed    bool          `json:"passed"`           // it gave every known answer
	Failed    bool          `json:"failed,omitempty"` // it gave a wrong one, or panicked; one that did not run has neither passed nor failed
	Chosen    bool          `json:"chosen"`           // it is in use, at some sizes at least
	Uses      []Span        `json:"uses"`             // the sizes at which it is in use
	Reason    string        `json:"reason"`           // one line: why in use, why not, or what went wrong
	Costs     []Cost        `json:"costs"`            // by size; empty if it was not measured
	Cached    bool          `json:"cached,omitempty"` // the costs come from the file, not from this process
	Budget    time.Duration `json:"-"`                // of the operation
}

// Table says which backend to use at which batch size. It is immutable and safe for concurrent use.
type Table[B Named] struct {
	none     B
	uses     []use[B] // ascending, the first from 1; empty if no backend is eligible
	verdicts []Verdict
}

// use is a backend and the smallest batch size that it is the fastest for.
type use[B Named] struct {
	from    int
	backend B
}

// For is the backend to use for a batch of n, or the operation's None if none is eligible.
func (t *Table[B]) For(n int) B {
	for i := len(t.uses) - 1; i >= 0; i-- {
		if n >= t.uses[i].from || i == 0 {
			return t.uses[i].backend
		}
	}
	return t.none
}

// OK reports whether a backend is eligible.
func (t *Table[B]) OK() bool { return len(t.uses) > 0 }

// Verdicts are what became of the candidates, in their order. The caller may keep and change them.
func (t *Table[B]) Verdicts() []Verdict {
	out := slices.Clone(t.verdicts)
	for i := range out {
		out[i].Uses, out[i].Costs = slices.Clone(out[i].Uses), slices.Clone(out[i].Costs)
	}
	return out
}

// Choose runs Check on every candidate that the CPU and the operator's setting allow, times those that pass, or takes
// their timings from the loaded file, and decides who is used at which size. The order of the candidates is one of
// preference: it decides where costs hardly differ.
func Choose[B Named](op Operation[B], candidates ...B) *Table[B] {
	return choose(op, surroundings{setting: cpu.Current(), known: loaded(), clock: cpuTime}, candidates)
}

// surroundings are what a choice depends on besides the candidates.
type surroundings struct {
	setting *cpu.Setting
	known   *Timings // nil for none
	clock   func() time.Duration
}

func choose[B Named](op Operation[B], in surroundings, candidates []B) *Table[B] {
	if op.Sizes == nil {
		op.Sizes = DefaultSizes()
	}
	if op.Budget == 0 {
		op.Budget = DefaultBudget
	}
	t := &Table[B]{none: op.None, verdicts: make([]Verdict, len(candidates))}
	for i, c := range candidates {
		t.verdicts[i] = Verdict{
			Operation: op.Name, Backend: c.Name(), Item: op.Item, Budget: op.Budget,
			Uses: []Span{}, Costs: []Cost{},
		}
	}
	eligible := t.judge(op, in.setting, candidates)
	if !in.known.fill(op.Name, op.Sizes, t.verdicts, eligible) {
		eligible = t.measure(op, in.clock, candidates, eligible)
	}
	t.settle(op, in.setting, candidates, eligible)
	return t
}

// judge gives the known answers to all candidates that may run and returns the indices of those that passed.
func (t *Table[B]) judge(op Operation[B], setting *cpu.Setting, candidates []B) (eligible []int) {
	var stubborn []int // would use what is switched off
	for _, i := range order(op, setting, candidates) {
		c, v := candidates[i], &t.verdicts[i]
		if op.First && eligible != nil {
			v.Reason = "not tried: " + candidates[eligible[0]].Name() + " passed"
			continue
		}
		if n, ok := any(c).(Needs); ok {
			if why := setting.Lacks(n.Needs()...); why != "" {
				v.Reason = "not used: " + why
				continue
			}
		}
		if why := setting.Excludes(op.Name, c.Name()); why != "" {
			v.Reason = "not used: " + why
			continue
		}
		if d, ok := any(c).(Detects); ok {
			if off := setting.SwitchedOff(d.Detects()...); off != "" {
				v.Reason = "not used: the library uses " + off + " by itself, which the setting switches off"
				stubborn = append(stubborn, i)
				continue
			}
		}
		if t.answers(op, i, c) {
			eligible = append(eligible, i)
		}
	}
	if eligible != nil {
		return eligible
	}
	for _, i := range stubborn {
		if op.First && eligible != nil {
			break
		}
		why := strings.TrimPrefix(t.verdicts[i].Reason, "not used: ")
		if t.answers(op, i, candidates[i]) {
			t.verdicts[i].Reason = "for want of another, although " + why
			eligible = append(eligible, i)
		}
	}
	return eligible
}

// order is the indices of the candidates in the order in which they are judged: as listed, but a pinned one first
// where the first one that passes is taken.
func order[B Named](op Operation[B], setting *cpu.Setting, candidates []B) (indices []int) {
	for i, c := range candidates {
		if op.First && setting.Pins(op.Name, c.Name()) {
			indices = slices.Insert(indices, 0, i)
		} else {
			indices = append(indices, i)
		}
	}
	return indices
}

// answers checks one candidate.
func (t *Table[B]) answers(op Operation[B], i int, c B) bool {
	v := &t.verdicts[i]
	if err := guard(func() error { return op.Check(c) }); err != nil {
		v.Failed, v.Reason = true, "disabled: "+err.Error()
		return false
	}
	v.Passed, v.Reason = true, ""
	return true
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

// settle decides from the costs who is used where, and writes down the reasons.
func (t *Table[B]) settle(op Operation[B], setting *cpu.Setting, candidates []B, eligible []int) {
	if len(eligible) == 0 {
		return
	}
	pinned := ""
	contest := eligible
	for _, i := range eligible {
		if setting.Pins(op.Name, candidates[i].Name()) {
			contest, pinned = []int{i}, candidates[i].Name()
		}
	}
	steps := crossovers(op.Sizes, t.verdicts, contest)
	for k, s := range steps {
		span := Span{From: s.from}
		if k+1 < len(steps) {
			span.To = steps[k+1].from - 1
		}
		v := &t.verdicts[s.index]
		v.Chosen, v.Uses = true, append(v.Uses, span)
		t.uses = append(t.uses, use[B]{s.from, candidates[s.index]})
	}
	for _, i := range eligible {
		v := &t.verdicts[i]
		because := "passed"
		switch {
		case v.Chosen && pinned != "":
			because = "pinned by the setting"
		case v.Chosen && op.First:
			because = "the first that passed"
		case v.Chosen && len(eligible) == 1:
			because = "the only one left"
		case v.Chosen:
			because = "the fastest there"
		case pinned != "":
			because = "passed; the setting pins " + pinned
		default:
			because = "passed; never the fastest"
		}
		if v.Reason != "" { // judge said why it is a last resort
			because = v.Reason
		}
		v.Reason = because
	}
}
