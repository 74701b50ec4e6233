package scaling

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"tutti/bench/plot"
	"tutti/bench/report"
)

// Line is one line of the results. Fields are columns in their order, under the names of their tags; a figure below zero was not
// measured.
type Line struct {
	Commit       string `column:"commit"`
	CPU          string `column:"cpu"`
	MachineCores int    `column:"machine_cores"`
	MemoryGiB    int    `column:"memory_gib"`
	Point
	Rate         float64 `column:"rate"` // due a second, all shards together; of the highest rate the one that was found
	DurationS    float64 `column:"duration_s"`
	TPS          float64 `column:"tps"`
	P50Ms        float64 `column:"p50_ms"`
	P99Ms        float64 `column:"p99_ms"`
	CPUUs        float64 `column:"cpu_us_per_tx_per_validator"`
	Bytes        float64 `column:"bytes_per_tx_per_validator"`
	RSSMiB       float64 `column:"rss_mib_per_validator"`
	BlocksPerS   float64 `column:"blocks_s"`
	GeneratorUs  float64 `column:"generator_us_per_tx"`
	OwnCores     float64 `column:"own_cores"`
	ForeignCores float64 `column:"foreign_cores"`
	StealCores   float64 `column:"steal_cores"`
	Outcome      string  `column:"outcome"`
}

// columns are the fields of a line.
var columns = slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[Line]()), func(f reflect.StructField) bool { return f.Anonymous })

// head names the columns.
func head() string {
	var names []string
	for _, c := range columns {
		names = append(names, c.Tag.Get("column"))
	}
	return strings.Join(names, "\t")
}

// fields are the values to read or write, in the order of the columns.
func (l *Line) fields() (all []reflect.Value) {
	for _, c := range columns {
		all = append(all, reflect.ValueOf(l).Elem().FieldByIndex(c.Index))
	}
	return all
}

func (l Line) String() string {
	var texts []string
	for _, f := range l.fields() {
		if f.Kind() == reflect.Float64 {
			texts = append(texts, strconv.FormatFloat(f.Float(), 'f', -1, 64))
			continue
		}
		texts = append(texts, strings.Join(strings.Fields(fmt.Sprint(f.Interface())), " "))
	}
	return strings.Join(texts, "\t")
}

func parseLine(text string) (l Line, err error) {
	texts := strings.Split(text, "\t")
	fields := l.fields()
	if len(texts) != len(fields) {
		return l, fmt.Errorf("%d columns, want %d", len(texts), len(fields))
	}
	for i, f := range fields {
		var bad error
		switch f.Kind() {
		case reflect.String:
			f.SetString(texts[i])
		case reflect.Float64:
			var v float64
			v, bad = strconv.ParseFloat(texts[i], 64)
			f.SetFloat(v)
		case reflect.Uint64:
			var v uint64
			v, bad = strconv.ParseUint(texts[i], 10, 64)
			f.SetUint(v)
		default:
			var v int64
			v, bad = strconv.ParseInt(texts[i], 10, 32)
			f.SetInt(v)
		}
		err = errors.Join(err, bad)
	}
	return l, err
}

// ran reports whether there are figures.
func (l *Line) ran() bool { return !strings.HasPrefix(l.Outcome, notRun) }

// take takes the figures of a report. Those of a load that did not hold stay, but its cost is of what was in blocks.
func (l *Line) take(r *report.Report) {
	x := &r.Result
	figure := func(v *float64) float64 {
		if v == nil {
			return -1
		}
		return *v
	}
	if l.Kind == Highest {
		l.Rate = r.Scenario.Rate
	}
	l.TPS, l.P50Ms, l.P99Ms = x.TPS, x.FinalityMs.P50, x.FinalityMs.P99
	l.CPUUs, l.Bytes, l.RSSMiB = figure(x.CPUUsPerTxPerValidator), figure(x.BytesPerTxPerValidator), figure(x.RSSMiBPerValidator)
	l.BlocksPerS, l.GeneratorUs = r.BlocksPerS, r.Details.GeneratorUsPerTx
	l.OwnCores, l.ForeignCores, l.StealCores = r.Details.OwnCores, r.Machine.ForeignCores, r.Details.StealCores
	l.Outcome = held
	switch failed := r.Failed(); {
	case len(failed) > 0:
		l.Outcome = ranBadly + strings.Join(failed, ", ")
	case x.Rejected+x.Lost+r.Details.Expired+r.Details.Unsent > 0:
		l.Outcome = fmt.Sprintf("%s%d rejected, %d lost, %d expired, %d not sent", ranBadly, x.Rejected, x.Lost, r.Details.Expired, r.Details.Unsent)
	case x.FinalityMs.P99 > 1000:
		l.Outcome = fmt.Sprintf("%sp99 %.0f ms", ranBadly, x.FinalityMs.P99)
	}
}

// Results is the file of lines. It need not be there.
type Results struct{ Path string }

// Read reads all lines.
func (r Results) Read() (all []Line, err error) {
	b, err := os.ReadFile(r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("scaling: %w", err)
	}
	number := 0
	for text := range strings.Lines(string(b)) {
		number++
		text = strings.TrimSuffix(text, "\n")
		if number == 1 {
			if text != head() {
				return nil, fmt.Errorf("scaling: %s begins with other columns: move it away, or measure at its commit", r.Path)
			}
			continue
		}
		l, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("scaling: %s:%d: %w", r.Path, number, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// Append adds a line, after a head if the file is new.
func (r Results) Append(l Line) (err error) {
	f, err := os.OpenFile(r.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("scaling: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("scaling: %w", err)
	}
	text := l.String() + "\n"
	if info.Size() == 0 {
		text = head() + "\n" + text
	}
	_, err = f.WriteString(text)
	return err
}

// best is the line of a point that counts for the table and the drawing: of one commit and machine, the one that ran beside the
// least other work; without one that ran the last that says why. nil: there is none.
func (c *Campaign) best(had []Line, p Point) *Line {
	var best *Line
	for i := range had {
		l := &had[i]
		if l.Commit != c.Commit || l.CPU != c.Machine.CPU || l.MachineCores != c.Machine.Cores || l.Point != p {
			continue
		}
		if best == nil || !best.ran() || l.ran() && l.ForeignCores < best.ForeignCores {
			best = l
		}
	}
	return best
}

// Print writes the lines of the plan as a table for people, those that could not be measured with the reason.
func (c *Campaign) Print(w io.Writer, had []Line) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "kind\tshards\tvalidators\taccounts\tcores\ttx/s\tp50 ms\tp99 ms\tCPU us\tbytes\tMiB\tblocks/s\tother work\t  outcome")
	for _, p := range c.Points() {
		l := c.best(had, p)
		at := fmt.Sprintf("%s\t%d\t%d\t%s\t%d", p.Kind, p.Shards, p.Validators, report.Number(float64(p.Accounts)), p.Cores)
		switch {
		case l == nil:
			fmt.Fprintf(tab, "%s\t\t\t\t\t\t\t\t\t  not measured yet\n", at)
		case !l.ran():
			fmt.Fprintf(tab, "%s\t\t\t\t\t\t\t\t\t  %s\n", at, l.Outcome)
		default:
			fmt.Fprintf(tab, "%s\t%s\t%.0f\t%.0f\t%.1f\t%.0f\t%.0f\t%.2f\t%.2f\t  %s\n", at, report.Number(l.TPS), l.P50Ms, l.P99Ms, l.CPUUs, l.Bytes, l.RSSMiB, l.BlocksPerS, l.ForeignCores, l.Outcome)
		}
	}
	return tab.Flush()
}

// panel is a figure that is drawn over some axes.
type panel struct {
	name  string
	kinds []Kind
	axes  string // names that it is drawn over, by their first letters
	of    func(*Line) float64
}

var panels = []panel{
	{"CPU of a validator, us for each transaction of its shard", []Kind{Signed, Cross, Distilled}, "svac", func(l *Line) float64 { return l.CPUUs }},
	{"sent by a validator, bytes for each transaction of its shard", []Kind{Signed, Cross, Distilled}, "sv", func(l *Line) float64 { return l.Bytes }},
	{"resident memory of a validator, MiB", []Kind{Signed, Distilled}, "a", func(l *Line) float64 { return l.RSSMiB }},
	{"p99, ms", []Kind{Signed, Cross, Distilled}, "svac", func(l *Line) float64 { return l.P99Ms }},
	{"highest rate of signed transfers at a p99 of 1 s, tx/s", []Kind{Highest}, "svac", func(l *Line) float64 { return l.TPS }},
}

// shown is a value with three digits, or whole.
func shown(v float64) string {
	if v >= 1000 {
		return report.Number(v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Plot draws the lines of the plan, an axis below the other. Points without a line, or that did not hold, are left out.
func (c *Campaign) Plot(w io.Writer, had []Line) error {
	var all []plot.Drawing
	for _, a := range c.axes() {
		d := plot.Drawing{
			Axis: a.Name, X: a.X, Log: true, Number: shown,
			Title: fmt.Sprintf("%s (make bench-scaling, commit %s; %s, %d cores, %d GiB)", a.Name, c.Commit, c.Machine.CPU, c.Machine.Cores, c.Machine.Memory>>30),
		}
		for _, p := range panels {
			if !strings.Contains(p.axes, a.Name[:1]) {
				continue
			}
			drawn, some := plot.Panel{Name: p.name}, false
			for _, kind := range p.kinds {
				line := plot.Line{Name: string(kind)}
				if len(p.kinds) == 1 {
					line.Name = ""
				}
				for _, x := range a.X {
					at := a.At(c.Base, x)
					at.Kind = kind
					v := math.NaN()
					if l := c.best(had, at); l != nil && l.Outcome == held && p.of(l) >= 0 {
						v, some = p.of(l), true
					}
					line.Values = append(line.Values, v)
				}
				drawn.Lines = append(drawn.Lines, line) // also without values: a kind has one colour everywhere
			}
			if some {
				d.Panels = append(d.Panels, drawn)
			}
		}
		all = append(all, d)
	}
	return plot.Stack(w, all)
}
