package selftest

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// fake is a backend that takes cost per item of a fake clock and answers err.
type fake struct {
	name string
	cost time.Duration
	err  error
	boom bool
}

func (f fake) Name() string { return f.name }

func operation(now *time.Duration) Operation[fake] {
	return Operation[fake]{
		Name: "add", Item: "number", Items: 10,
		Check: func(f fake) error {
			if f.boom {
				panic("index out of range")
			}
			return f.err
		},
		Work: func(f fake) { *now += 10 * f.cost },
	}
}

func TestChoose(t *testing.T) {
	slow := fake{name: "slow", cost: 40}
	fast := fake{name: "fast", cost: 30}
	wrong := fake{name: "wrong", cost: 1, err: errors.New("known answer 3: 2+2=5")}
	panics := fake{name: "panics", cost: 1, boom: true}
	for _, tc := range []struct {
		name       string
		candidates []fake
		want       string // backend chosen, empty for none
		reasons    []string
	}{
		{"the fastest", []fake{slow, fast}, "fast", []string{"passed, 40 ns per number", "chosen, 30 ns per number"}},
		{"the first on a tie", []fake{{name: "a", cost: 5}, {name: "b", cost: 5}}, "a", []string{"chosen", "passed"}},
		{"never a wrong one", []fake{wrong, slow}, "slow", []string{"disabled: known answer 3: 2+2=5", "chosen"}},
		{"never one that panics", []fake{slow, panics}, "slow", []string{"chosen", "disabled: panic: index out of range"}},
		{"none", []fake{wrong, panics}, "", []string{"disabled", "disabled"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var now time.Duration
			got, verdicts, ok := choose(operation(&now), func() time.Duration { return now }, tc.candidates...)
			if got.name != tc.want || ok != (tc.want != "") {
				t.Fatalf("chose %q, %v; want %q", got.name, ok, tc.want)
			}
			for i, v := range verdicts {
				if v.Operation != "add" || v.Backend != tc.candidates[i].name || !strings.HasPrefix(v.Reason, tc.reasons[i]) {
					t.Errorf("verdict %d: %+v, want reason %q", i, v, tc.reasons[i])
				}
				if v.Chosen != (v.Backend == tc.want) || v.Passed == strings.HasPrefix(v.Reason, "disabled") {
					t.Errorf("verdict %d contradicts itself: %+v", i, v)
				}
			}
		})
	}
}
