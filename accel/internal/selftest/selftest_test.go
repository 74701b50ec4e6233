package selftest

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/internal/cpu"
)

// fake is a backend that takes start and then each per item of a fake clock, and answers err.
type fake struct {
	name        string
	start, each time.Duration
	err         error
	boomAt      int // size at which it panics; the known answers are at 0
	boom        bool
}

func (f fake) Name() string { return f.name }

// picky is a fake that needs features.
type picky struct {
	fake
	needs []cpuid.FeatureID
}

func (p picky) Needs() []cpuid.FeatureID { return p.needs }

// own is a fake that finds features by itself.
type own struct {
	fake
	finds []cpuid.FeatureID
}

func (o own) Detects() []cpuid.FeatureID { return o.finds }

// bench is a fake clock, and counts what is spent on it.
type bench struct {
	now  time.Duration
	runs map[string]int // "backend size"
}

func (b *bench) clock() time.Duration { return b.now }

func (b *bench) operation() Operation[Named] {
	b.runs = map[string]int{}
	get := func(c Named) fake {
		switch c := c.(type) {
		case picky:
			return c.fake
		case own:
			return c.fake
		}
		return c.(fake)
	}
	return Operation[Named]{
		Name: "add numbers (fast)", Item: "number",
		Check: func(c Named) error {
			if f := get(c); f.boom && f.boomAt == 0 {
				panic("index out of range")
			}
			return get(c).err
		},
		Work: func(c Named, n int) {
			f := get(c)
			if f.boom && f.boomAt == n {
				panic(fmt.Sprintf("at %d", n))
			}
			b.runs[fmt.Sprintf("%s %d", f.name, n)]++
			b.now += f.start + time.Duration(n)*f.each
		},
	}
}

func setting(t *testing.T, text string) *cpu.Setting {
	t.Helper()
	s, err := cpu.Parse(text, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// describe writes a table as "1:a 8:b".
func describe(tb *Table[Named]) string {
	var parts []string
	for _, u := range tb.uses {
		parts = append(parts, fmt.Sprintf("%d:%s", u.from, u.backend.Name()))
	}
	return strings.Join(parts, " ")
}

func TestChoose(t *testing.T) {
	slow := fake{name: "slow", each: 40}
	fast := fake{name: "fast", each: 30}
	lanes := fake{name: "lanes", start: 400, each: 10} // as long as fast at 20
	wide := fake{name: "wide", start: 6400, each: 2}   // as long as lanes at 750
	wrong := fake{name: "wrong", each: 1, err: errors.New("known answer 3: 2+2=5")}
	panics := fake{name: "panics", each: 1, boom: true}
	late := fake{name: "late", each: 1, boom: true, boomAt: 64}
	missing := picky{fake{name: "missing", each: 1}, []cpuid.FeatureID{cpuid.AMXTILE}}
	for _, tc := range []struct {
		name       string
		setting    string
		candidates []Named
		want       string // the table
		reasons    []string
	}{
		{"the fastest", "", []Named{slow, fast}, "1:fast", []string{"passed; never the fastest", "the fastest there"}},
		{"the only one", "", []Named{slow}, "1:slow", []string{"the only one left"}},
		{"the first on a tie", "", []Named{fake{name: "a", each: 5}, fake{name: "b", each: 5}}, "1:a", []string{"the fastest", "passed"}},
		{"crossovers", "", []Named{lanes, fast, wide}, "1:fast 21:lanes 751:wide", []string{"the fastest", "the fastest", "the fastest"}},
		{"never a wrong one", "", []Named{wrong, slow}, "1:slow", []string{"disabled: known answer 3: 2+2=5", "the only"}},
		{"never one that panics", "", []Named{slow, panics}, "1:slow", []string{"the only", "disabled: panic: index out of range"}},
		{"never one that panics later", "", []Named{late, slow}, "1:slow", []string{"disabled: panic: at 64", "the only"}},
		{"none", "", []Named{wrong, panics}, "", []string{"disabled", "disabled"}},
		{"none without measuring", "", nil, "", nil},
		{"missing feature", "", []Named{missing, slow}, "1:slow", []string{"not used: this machine lacks AMXTILE", "the only"}},
		{"pinned", "add=slow", []Named{fast, slow}, "1:slow", []string{"passed; the setting pins slow", "pinned by the setting"}},
		{"pinned by the whole name", "add-numbers=slow", []Named{fast, slow}, "1:slow", []string{"passed", "pinned"}},
		{"pinned elsewhere", "ad=slow,add-number=slow,numbers=slow", []Named{fast, slow}, "1:fast", []string{"the fastest", "passed"}},
		{"pinned and wrong", "add=wrong", []Named{fast, wrong}, "1:fast", []string{"the only", "disabled: known"}},
		{"switched off", "add=-fast", []Named{fast, slow}, "1:slow", []string{"not used: switched off by add=-fast", "the only"}},
		{"all switched off", "add=-fast add=-slow", []Named{fast, slow}, "", []string{"not used", "not used"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b bench
			got := choose(b.operation(), surroundings{setting: setting(t, tc.setting), clock: b.clock}, tc.candidates)
			if describe(got) != tc.want || got.OK() != (tc.want != "") {
				t.Fatalf("table %q, want %q\n%+v", describe(got), tc.want, got.Verdicts())
			}
			for i, v := range got.Verdicts() {
				if v.Operation != "add numbers (fast)" || v.Backend != tc.candidates[i].Name() || !strings.HasPrefix(v.Reason, tc.reasons[i]) {
					t.Errorf("verdict %d: %+v, want reason %q", i, v, tc.reasons[i])
				}
				used := slices.ContainsFunc(got.uses, func(u use[Named]) bool { return u.backend.Name() == v.Backend })
				if v.Chosen != used || v.Chosen != (len(v.Uses) > 0) || v.Chosen && !v.Passed || v.Passed != (len(v.Costs) > 0) || v.Failed != strings.HasPrefix(v.Reason, "disabled") {
					t.Errorf("verdict %d contradicts itself: %+v", i, v)
				}
			}
		})
	}
}

// TestFirst: where speed does not decide, the first that passes is taken, and the others are not even tried.
func TestFirst(t *testing.T) {
	slow, fast := fake{name: "slow", each: 40}, fake{name: "fast", each: 30}
	wrong := fake{name: "wrong", err: errors.New("2+2=5")}
	for _, tc := range []struct {
		setting    string
		candidates []Named
		want       string
		reasons    []string
	}{
		{"", []Named{slow, fast}, "1:slow", []string{"the first that passed", "not tried: slow passed"}},
		{"", []Named{wrong, slow, fast}, "1:slow", []string{"disabled", "the first that passed", "not tried: slow passed"}},
		{"add=fast", []Named{slow, fast}, "1:fast", []string{"not tried: fast passed", "pinned by the setting"}},
		{"add=wrong", []Named{slow, wrong}, "1:slow", []string{"the first that passed", "disabled"}},
		{"add=-slow", []Named{slow, fast}, "1:fast", []string{"not used: switched off", "the first that passed"}},
	} {
		var b bench
		op := b.operation()
		op.First = true
		got := choose(op, surroundings{setting: setting(t, tc.setting), clock: b.clock}, tc.candidates)
		if describe(got) != tc.want {
			t.Errorf("%q: table %q, want %q", tc.setting, describe(got), tc.want)
		}
		for i, v := range got.Verdicts() {
			if !strings.HasPrefix(v.Reason, tc.reasons[i]) {
				t.Errorf("%q: verdict %d: %+v, want reason %q", tc.setting, i, v, tc.reasons[i])
			}
		}
	}
}

// TestMasked: what the setting switches off is not used, except by a library that nothing can replace.
func TestMasked(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the features are those of amd64")
	}
	library := own{fake{name: "library", each: 9}, []cpuid.FeatureID{cpuid.AVX2}}
	plain := fake{name: "plain", each: 20}
	for _, tc := range []struct {
		setting    string
		candidates []Named
		want       string
		reason     string // of the library
	}{
		{"", []Named{library, plain}, "1:library", "the fastest there"},
		{"-avx512", []Named{library, plain}, "1:library", "the fastest there"},
		{"-avx2", []Named{library, plain}, "1:plain", "not used: the library uses AVX2 by itself"},
		{"-avx2", []Named{library}, "1:library", "for want of another, although the library uses AVX2 by itself"},
		{"-avx2 add=-library", []Named{library}, "", "not used: switched off by"},
	} {
		var b bench
		got := choose(b.operation(), surroundings{setting: setting(t, tc.setting), clock: b.clock}, tc.candidates)
		if v := got.Verdicts()[0]; describe(got) != tc.want || !strings.HasPrefix(v.Reason, tc.reason) {
			t.Errorf("%q: table %q, want %q; %+v", tc.setting, describe(got), tc.want, v)
		}
	}
}

func TestFor(t *testing.T) {
	a, b := Named(fake{name: "a"}), Named(fake{name: "b"})
	tb := &Table[Named]{none: fake{name: "none"}, uses: []use[Named]{{1, a}, {9, b}}}
	for n, want := range map[int]Named{-1: a, 0: a, 1: a, 8: a, 9: b, 1 << 40: b} {
		if got := tb.For(n); got != want {
			t.Errorf("For(%d) is %s, want %s", n, got.Name(), want.Name())
		}
	}
	tb.uses = nil
	if got := tb.For(5).Name(); got != "none" || tb.OK() {
		t.Errorf("without an eligible backend For gives %s", got)
	}
}

// TestBudget: whatever the backends cost, measuring them stays within the budget, but for one item each.
func TestBudget(t *testing.T) {
	candidates := []Named{
		fake{name: "a", each: 10 * time.Microsecond},
		fake{name: "b", start: 100 * time.Microsecond, each: 7 * time.Microsecond},
		fake{name: "c", each: 31 * time.Microsecond},
		fake{name: "d", each: 130 * time.Microsecond},
		fake{name: "e", start: 2 * time.Millisecond, each: time.Microsecond},
	}
	for _, scale := range []time.Duration{1, 10, 1000} {
		var scaled []Named
		var single time.Duration
		for _, c := range candidates {
			f := c.(fake)
			f.start, f.each = f.start*scale, f.each*scale
			single += f.start + f.each
			scaled = append(scaled, f)
		}
		var b bench
		op := b.operation()
		op.Budget = 100 * time.Millisecond
		got := choose(op, surroundings{setting: setting(t, ""), clock: b.clock}, scaled)
		t.Logf("scale %d: %v, table %s, runs %v", scale, b.now, describe(got), b.runs)
		if b.now > op.Budget+single {
			t.Errorf("scale %d: measuring took %v of %v", scale, b.now, op.Budget)
		}
		if scale == 1 && describe(got) != "1:a 34:b 317:e" {
			t.Errorf("table %s", describe(got))
		}
		if b.runs["d 4096"]+b.runs["d 512"] > 0 {
			t.Errorf("scale %d: a hopeless backend was measured on: %v", scale, b.runs)
		}
	}
}

func TestSpan(t *testing.T) {
	for want, s := range map[string]Span{"all sizes": {1, 0}, "8 and more": {8, 0}, "1-7": {1, 7}, "1": {1, 1}} {
		if s.String() != want {
			t.Errorf("%+v is %q, want %q", s, s, want)
		}
	}
}
