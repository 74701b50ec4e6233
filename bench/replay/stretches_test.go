package replay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tutti/bench/report"
)

// TestTamperedStretches is the attacker's for a run with bursts and several stretches.
func TestTamperedStretches(t *testing.T) {
	const over = 1 // the overload
	honest := stretched(t, "honest")
	if x := honest.Stretches[over]; x.InTime[1] > 0.9 || x.InTime[1] == 0 || x.FinalityMs.P99 < 1000 {
		t.Fatalf("the overload has no slow second: %+v", x)
	}
	tamper(t, honest, []tampering{
		{"more throughput", "stretches", "stretch 2: the report says 1", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].TPS += 100 }},
		{"a lower p99", "stretches", "stretch 2: the report says p99", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].FinalityMs.P99 -= 2 }},
		{"a lower p99 of the first, which is the result's", "stretches", "the measurement: the report says p99", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[0].FinalityMs.P99 -= 2
		}},
		{"more finalised", "stretches", "says 176 finalised, the evidence has 175", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].Finalised++ }},
		{"fewer refused", "stretches", "rejected by code", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].Rejected = nil }},
		{"fewer unsent", "stretches", "unsent", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].Unsent-- }},
		{"more due", "stretches", "due, the evidence has 60", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[2].Due++ }},
		{"a higher rate", "stretches", "181 tx/s for 2 s, the evidence is of 90.5", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].Rate *= 2 }},
		{"a higher rate in both", "schedule", "181 tx/s for 2s", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Stretches[over].Rate, e.Phase.Stretches[over].Rate = 181, 181
		}},
		{"longer", "stretches", "for 3 s, the evidence is of 90.5 for 2 s", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].DurationS = 3 }},
		{"longer in both", "schedule", "counts were taken", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Stretches[over].DurationS, e.Phase.Stretches[over].Duration = 4, 4*time.Second
		}},
		{"counted over a short time", "schedule", "stretch 3 is from 3s to 4s", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Phase.Stretches[2].End -= 500 * time.Millisecond }},
		{"one removed", "stretches", "has 2 stretches (0: the measurement alone), the evidence is of 3", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches = slices.Delete(r.Stretches, over, over+1)
		}},
		{"all removed", "stretches", "has 0 stretches", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches = nil }},
		{"one removed in both", "evidence", "the run has 2000 slots", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Stretches, e.Phase.Stretches = slices.Delete(r.Stretches, over, over+1), slices.Delete(e.Phase.Stretches, over, over+1)
		}},
		{"two swapped", "stretches", "stretch 2: the report says 60 tx/s", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[over], r.Stretches[2] = r.Stretches[2], r.Stretches[over]
		}},
		{"two of one rate swapped", "stretches", "the measurement: the report says", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[0], r.Stretches[2] = r.Stretches[2], r.Stretches[0]
		}},
		{"two swapped in both", "schedule", "counts were taken", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Stretches[over], r.Stretches[2] = r.Stretches[2], r.Stretches[over]
			s := e.Phase.Stretches
			s[over], s[2] = s[2], s[over]
		}},
		{"without its bursts", "schedule", "says bursts: false", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Burst = false }},
		{"without its bursts in both", "schedule", "accounted for", func(_ *testing.T, r *report.Report, e *Evidence) { r.Scenario.Burst, e.Phase.Burst = false, 0 }},
		{"with wider bursts", "schedule", "each second's in 200ms", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Phase.Burst *= 2 }},
		{"the slow second dropped from the overload", "schedule", "accounted for", func(_ *testing.T, _ *report.Report, e *Evidence) {
			for i := range e.Shards {
				for k := range e.Shards[i].Blocks {
					x := &e.Shards[i].Blocks[k]
					x.Settled = slices.DeleteFunc(x.Settled, func(c Count) bool { return c.Slot >= 2000 && c.Slot < 3000 })
					x.Credits = min(x.Credits, x.Settled.Sum())
				}
			}
		}},
		{"the slow second's shares left out", "stretches", "says nothing of second 2", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[over].InTime = r.Stretches[over].InTime[:1]
		}},
		{"the slow second's share not measured", "stretches", "says nothing of second 2", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[over].InTime[1] = report.None
		}},
		{"a second more", "stretches", "has 2 seconds, the evidence 1", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[2].InTime = append(r.Stretches[2].InTime, 1)
		}},
		{"more in time", "stretches", "of second 2 was final in time", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Stretches[over].InTime[1] += 0.02 }},
		{"the late ones as wrongly signed", "stretches", "of second 2 was final in time", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[over].InvalidShare, r.Stretches[over].InTime[1] = 0.5, 1
		}},
		{"wrong signatures in one place alone", "stretches", "0 of the measurement, and 0.5 of its stretch", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches[0].InvalidShare = 0.5
		}},
	})
}

// TestFlatBursts: a run whose transactions were due evenly is none with bursts.
func TestFlatBursts(t *testing.T) {
	tamper(t, run(t, "flat", false), []tampering{
		{"with bursts", "schedule", "says bursts: true", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Burst = true }},
		{"with bursts in both", "evidence", "a warm-up of 100ms before bursts", func(_ *testing.T, r *report.Report, e *Evidence) { r.Scenario.Burst, e.Phase.Burst = true, Burst }},
	})
}

// TestPunctual: a share is of the transactions with a right signature, so that of those with a wrong one nothing has to be final.
func TestPunctual(t *testing.T) {
	of := &tally{seconds: []second{{due: 100, unsent: 10, settled: 60, surely: 45, maybe: 48}, {due: 5}, {}}}
	none := report.None
	for name, c := range map[string]struct {
		says  []report.Value
		wrong bool
		want  string
	}{
		"all right":                      {[]report.Value{0.46, 0, none}, false, ""},
		"and nothing at the end":         {[]report.Value{0.46, 0}, false, ""},
		"most that a slot allows":        {[]report.Value{0.48, 0}, false, ""},
		"more":                           {[]report.Value{0.4801, 0}, false, "0.4801 of second 1"},
		"less":                           {[]report.Value{0.4499, 0}, false, "0.4499 of second 1"},
		"thirty with a wrong signature":  {[]report.Value{0.6857, none}, true, ""},
		"more wrong ones than missed":    {[]report.Value{0.7, none}, true, "second 1"},
		"a second without right ones":    {[]report.Value{0.6857, none}, false, "second 1"},
		"nothing of a second with right": {[]report.Value{0.46, none}, false, "nothing of second 2"},
	} {
		err := of.punctual(c.says, c.wrong)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// TestPhase: slots belong to one stretch, and what can not be put into them leaves no evidence.
func TestPhase(t *testing.T) {
	marks := Marks{0, 1}
	p := Phase{WarmUp: 2500 * time.Microsecond, Stretches: []Stretch{{3, 4 * time.Millisecond, marks}, {5, 6 * time.Millisecond, marks}, {7, 1500 * time.Microsecond, marks}}}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	for k, want := range [][2]uint32{{3, 7}, {7, 13}, {13, 15}} {
		first, end := p.bounds(k)
		begin, _ := p.edges(first)
		_, last := p.edges(end - 1)
		if [2]uint32{first, end} != want || begin != p.from(k) || last != p.from(k+1)-1 || p.slot(begin) != first || p.slot(last) != end-1 {
			t.Errorf("stretch %d is slots %d to %d, %s to %s; want %v, from %s before %s", k, first, end, begin, last, want, p.from(k), p.from(k+1))
		}
	}
	for want, change := range map[string]func(p *Phase){
		"0 stretches":                func(p *Phase) { p.Stretches = nil },
		"17 stretches":               func(p *Phase) { p.Stretches = make([]Stretch, 17) },
		"not a multiple of 1ms":      func(p *Phase) { p.Stretches[1].Duration++ },
		"not a multiple of 1s":       func(p *Phase) { p.WarmUp, p.Burst = 0, Burst },
		"before bursts":              func(p *Phase) { p.Burst = Burst },
		"bursts of 1.000000001s":     func(p *Phase) { p.Burst = time.Second + 1 },
		"a run of 2h0m0s after 12.5": func(p *Phase) { p.Stretches[2].Duration = MaxLength },
		"rate 0":                     func(p *Phase) { p.Stretches[2].Rate = 0 },
		"counts at 0s and 0s":        func(p *Phase) { p.Stretches[2].Marks = Marks{} },
	} {
		q := p
		q.Stretches = slices.Clone(p.Stretches)
		change(&q)
		if err := q.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
