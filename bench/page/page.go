// Package page writes benchmark reports as one HTML file: figures, checks, plots, the machine, and how to make it again.
//
// The file is whole: no script, no font, no picture and no style comes from elsewhere, and its policy forbids that any does. It
// follows the reader's choice of a light or a dark page, fits a telephone, and says in text and tables what it draws. Its look is
// that of the dashboard (appliance/dashboard). The first report is shown in full, others beside it in a table, and over what
// they differ in: shards, validators, accounts or rate.
//
// Nothing here is fatal.
package page

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"tutti/bench/report"
)

//go:embed page.html
var source string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"number":  report.Number,
	"percent": func(share float64) string { return number(report.Round(100*share, 2)) + " %" },
	"counts":  report.Counts,
	"ms":      func(v float64) string { return report.Number(v) },
	"gib":     func(bytes uint64) string { return number(report.Round(float64(bytes)/(1<<30), 1)) },
	"join":    strings.Join,
	"float":   func(v uint64) float64 { return float64(v) },
}).Parse(source))

// view is what the template shows.
type view struct {
	*report.Report
	Failed  []string
	Figures []figure
	Charts  []*chart
	Runs    []*report.Report // more than one, ascending by what they differ in
	Scaling *chart
}

// figure is a number that stands out.
type figure struct{ Name, Value, Unit string }

// Write writes the page of a report, beside others.
func Write(w io.Writer, r *report.Report, others ...*report.Report) error {
	v := &view{Report: r, Failed: r.Failed(), Figures: figures(r), Charts: charts(r)}
	if len(others) > 0 {
		v.Runs, v.Scaling = scaling(append([]*report.Report{r}, others...))
	}
	var b strings.Builder
	if err := pageTemplate.Execute(&b, v); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return errors.Join(errors.New("page: it can not be written"), err)
	}
	return nil
}

func figures(r *report.Report) []figure {
	x := &r.Result
	out := []figure{
		{"Transfers finalised", report.Number(x.TPS), "per second"},
		{"Finality, half within", report.Number(x.FinalityMs.P50), "ms"},
		{"99 of 100 within", report.Number(x.FinalityMs.P99), "ms"},
	}
	add := func(name string, v *float64, unit string) {
		if v != nil {
			out = append(out, figure{name, number(report.Round(*v, 1)), unit})
		}
	}
	if x.CrossShardMs != nil {
		add("Between shards, 99 of 100 within", &x.CrossShardMs.P99, "ms")
	}
	add("CPU", x.CPUUsPerTxPerValidator, "µs per transfer and validator")
	add("Sent, headers included", x.WireSentBytesPerTxPerValidator, "bytes per transfer and validator")
	add("Received, headers included", x.WireReceivedBytesPerTxPerValidator, "bytes per transfer and validator")
	add("Memory", x.RSSMiBPerValidator, "MiB per validator")
	return out
}

// floats are the numbers of a column.
func floats(column []report.Value) []float64 {
	out := make([]float64, len(column))
	for i, v := range column {
		out[i] = float64(v)
	}
	return out
}

// charts are those for which the report has data.
func charts(r *report.Report) (out []*chart) {
	if s := r.Details.Series; s != nil && len(s.AtS) > 1 {
		at := floats(s.AtS)
		var marks []mark
		for i, name := range s.Stretches {
			marks = append(marks, mark{float64(s.StretchAt[i]), name})
		}
		if marks == nil && at[0] < 0 {
			marks = []mark{{0, "measured"}}
		}
		overTime := func(id, title, note string, limit *limit, lines ...line) {
			out = append(out, &chart{ID: id, Title: title, Note: note, XName: "seconds", X: at, Lines: lines, Marks: marks, Limit: limit})
		}
		overTime("throughput", "Throughput", "Transfers a second; what is before 0 is the warm-up. Refused counts every refusal, also of one that was sent again.", nil,
			line{"finalised", floats(s.Finalised)}, line{"submitted", floats(s.Submitted)}, line{"refused", floats(s.Refused)})
		overTime("latency", "Latency over time", "Milliseconds from when a transfer was due to its verified finality, of those that became final in the second.", &limit{1000, "1 s"},
			line{"p50", floats(s.P50Ms)}, line{"p99", floats(s.P99Ms)})
	}
	if c := percentiles(r.Details.Latency); c != nil {
		out = append(out, c)
	}
	if s := r.Details.Series; s != nil && len(s.AtS) > 1 {
		at := floats(s.AtS)
		out = append(out,
			&chart{ID: "cpu", Title: "CPU of the validators", Note: "Cores, all together.", XName: "seconds", X: at, Lines: []line{{"cores", floats(s.CPUCores)}}},
			&chart{ID: "memory", Title: "Memory", Note: "MiB of the validator that has most.", XName: "seconds", X: at, Lines: []line{{"MiB", floats(s.RSSMiB)}}})
	}
	return out
}

// percentiles is the curve of latencies, stretched towards the slowest.
func percentiles(d *report.Distribution) *chart {
	if d == nil || len(d.Count) < 2 {
		return nil
	}
	c := &chart{
		ID: "percentiles", Title: "Latency by percentile", Note: "Milliseconds within which so many of the transfers were final, to 5 %.", XName: "percent of transfers",
		Lines: []line{{Name: "ms"}}, Limit: &limit{1000, "1 s"},
	}
	total, below := uint64(0), uint64(0)
	for _, n := range d.Count {
		total += n
	}
	place := func(q float64) float64 { return -math.Log10(1 - q) }
	for i, n := range d.Count {
		below += n
		q := min(float64(below)/float64(total), 1-0.5/float64(total)) // the slowest have a place as well
		c.X, c.Lines[0].Values = append(c.X, place(q)), append(c.Lines[0].Values, float64(d.UpToMs[i]))
	}
	for _, q := range []float64{0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999} {
		c.XTicks = append(c.XTicks, mark{place(q), fmt.Sprintf("%g", 100*q)})
	}
	return c
}

// Rows of the curve are at the percentiles that it is marked with.
func (c *chart) quantiles() [][]string {
	var out [][]string
	for _, t := range c.XTicks {
		if i := slices.IndexFunc(c.X, func(x float64) bool { return x >= t.At }); i >= 0 {
			out = append(out, []string{t.Text, number(c.Lines[0].Values[i])})
		}
	}
	return out
}

// Table is the numbers of the chart.
func (c *chart) Table() [][]string {
	if c.ID == "percentiles" {
		return c.quantiles()
	}
	return c.Rows()
}

// scaling puts runs in order and draws them over the first thing that they differ in.
func scaling(runs []*report.Report) ([]*report.Report, *chart) {
	axes := []struct {
		name string
		of   func(*report.Report) float64
	}{
		{"shards", func(r *report.Report) float64 { return float64(r.Scenario.Shards) }},
		{"validators of a shard", func(r *report.Report) float64 { return float64(r.Scenario.Validators) }},
		{"accounts", func(r *report.Report) float64 { return float64(r.Scenario.Accounts) }},
		{"transfers a second offered", func(r *report.Report) float64 { return r.Scenario.Rate }},
	}
	for _, a := range axes {
		sorted := slices.Clone(runs)
		slices.SortStableFunc(sorted, func(x, y *report.Report) int { return cmp.Compare(a.of(x), a.of(y)) })
		if a.of(sorted[0]) == a.of(sorted[len(sorted)-1]) {
			continue
		}
		tps := &chart{ID: "scaling", Title: "Throughput by " + a.name, Note: "Transfers finalised a second; runs with the same number are joined.", XName: a.name, Points: true, Zero: true, Lines: []line{{Name: "finalised a second"}}}
		for _, r := range sorted {
			tps.X, tps.Lines[0].Values = append(tps.X, a.of(r)), append(tps.Lines[0].Values, r.Result.TPS)
		}
		return sorted, tps
	}
	return runs, nil
}
