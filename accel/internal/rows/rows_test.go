package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakes are rows on a fake clock, and the clock.
func fakes() ([]Row, func() time.Duration) {
	now := new(time.Duration)
	row := func(name string, items int, cost time.Duration) Row {
		calls := 0
		return Row{name, items, func() (func(), error) {
			return func() {
				calls++
				*now += cost
				if calls%3 == 0 { // some noise, above the true cost
					*now += cost
				}
			}, nil
		}}
	}
	absent := Row{"add/each/8/lanes", 8, func() (func(), error) { return nil, ErrAbsent }}
	broken := Row{"sub/each/8/other", 8, func() (func(), error) { return nil, errors.New("no numbers") }}
	return []Row{row("add/each/8/slow", 8, 80), row("sub/each/8/only", 8, 8), absent, row("add/each/8/fast", 8, 40), broken},
		func() time.Duration { return *now }
}

func TestMeasure(t *testing.T) {
	all, clock := fakes()
	if err := Check(all); err != nil {
		t.Fatal(err)
	}
	groups := 0
	got := Measure(all, Options{Rounds: 15, Clock: clock, Each: func(done, of int) { groups = of }})
	if groups != 2 {
		t.Errorf("%d groups told", groups)
	}
	var table bytes.Buffer
	if err := Print(&table, got); err != nil {
		t.Fatal(err)
	}
	const want = `row                     min ns     median ns     times
add/each/8/fast            5.0           5.0      1.00
add/each/8/slow           10.0          10.0      2.00
add/each/8/lanes  not on this machine or in this build
sub/each/8/only            1.0           1.0      1.00
sub/each/8/other  no numbers
`
	if diff := cmp.Diff(want, table.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b, err := json.Marshal(NewReport(got))
	if err != nil {
		t.Fatal(err)
	}
	const report = `{"rows":[` +
		`{"name":"add/each/8/slow","value":10,"median":10,"unit":"ns CPU per item","references":{"fast":5}},` +
		`{"name":"sub/each/8/only","value":1,"median":1,"unit":"ns CPU per item","references":{}},` +
		`{"name":"add/each/8/fast","value":5,"median":5,"unit":"ns CPU per item","references":{"slow":10}}]}`
	if diff := cmp.Diff(report, string(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLeast: a quick row is run often enough to fill the shortest measurement.
func TestLeast(t *testing.T) {
	var now time.Duration
	runs := 0
	r := Row{"a/b/1/c", 1, func() (func(), error) { return func() { runs++; now += 70 }, nil }}
	Measure([]Row{r}, Options{Rounds: 2, Least: 10_000, Clock: func() time.Duration { return now }})
	calibration, each := 255, 129+(10_000-128*70)*128/(128*70) // powers of two up to 128, then scaled
	if runs != calibration+2*each {
		t.Errorf("%d runs, want %d + 2 of %d", runs, calibration, each)
	}
	if p := processTime(); p <= 0 {
		t.Errorf("the process has used %v", p)
	}
}

func TestCheck(t *testing.T) {
	setup := func() (func(), error) { return func() {}, nil }
	for _, bad := range [][]Row{
		{{"a/b/c", 1, setup}},
		{{"a//c/d", 1, setup}},
		{{"a/b/1/d", 0, setup}},
		{{"a/b/1/d", 1, nil}},
		{{"a/b/1/d", 1, setup}, {"a/b/1/d", 1, setup}},
	} {
		if Check(bad) == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}
