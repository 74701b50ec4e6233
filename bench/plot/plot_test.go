package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// TestDraw draws well-formed XML, text escaped, also with nothing to draw.
func TestDraw(t *testing.T) {
	for _, d := range []Drawing{
		{Title: "a <toy>", Axis: "block"},
		{Title: "thirds", Axis: "block", X: []float64{1, 2, 3}, Panels: []Panel{{Name: "bytes", Lines: []Line{{"", []float64{0, 5, 3}}}}}},
		{Title: "log", Axis: "n", Log: true, X: []float64{4, 40, 400}, Panels: []Panel{{Name: "s", Lines: []Line{{"p50", []float64{0, 0, 0}}, {"p99", []float64{1, 2, 3}}}}}},
		{Title: "gap", Axis: "n", Log: true, X: []float64{4, 40}, Panels: []Panel{{Name: "s", Lines: []Line{{"p50", []float64{math.NaN(), 1}}, {"p99", []float64{math.NaN(), math.NaN()}}}}}},
		{Title: "bars", Panels: []Panel{{Name: "tx/s", Bars: []Bar{{"a <toy>", 3, 0}, {"b", 0, 1}}}, {"nothing", nil, []Bar{{"c", 0, 0}}}}},
		{Title: "one", Axis: "n", Log: true, X: []float64{4}, Panels: []Panel{{Name: "s", Lines: []Line{{"p50", []float64{1}}}}}},
	} {
		var b bytes.Buffer
		if err := d.Draw(&b); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "<toy>") || strings.Contains(b.String(), "NaN") {
			t.Errorf("%s: %s", d.Title, &b)
		}
		for x := xml.NewDecoder(&b); ; {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", d.Title, err)
			}
		}
	}
}

// TestStack: each drawing is below the last, and all are in the picture.
func TestStack(t *testing.T) {
	var b bytes.Buffer
	d := Drawing{Axis: "n", X: []float64{1, 2}, Panels: []Panel{{Name: "s", Lines: []Line{{"", []float64{1, 2}}}}}}
	first, second := d, d
	first.Title, second.Title = "first", "second"
	if err := Stack(&b, []Drawing{first, second}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`height="432"`, `y="22" font-size="14">first<`, `y="238" font-size="14">second<`, `<rect x="90" y="266"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, &b)
		}
	}
}
