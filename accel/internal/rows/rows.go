// Package rows measures the kernels of accel and prints them beside what others offer.
//
// A Row is one measurement, named operation/variant/size/backend, as "ed25519/verdict-each/512/ifma". Rows that differ
// in the backend only are each other's references. The parts of accel have their rows in folders here; bench-accel
// runs them all, and the tests run each once so that none rots. Nothing is fatal: a row that cannot be set up says why
// and the others go on.
package rows

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Row is one measurement: run does the work on Items items once. Setup is called once, before the first run; it
// prepares what must not be measured, and returns ErrAbsent where this machine or build lacks the backend.
type Row struct {
	Name  string
	Items int
	Setup func() (run func(), err error)
}

// ErrAbsent says that this machine or build does not have the row's backend.
var ErrAbsent = errors.New("not on this machine or in this build")

// parts are what comes before the backend in a name of at least four parts, and the backend.
func (r Row) parts() (group, backend string, ok bool) {
	at := strings.LastIndexByte(r.Name, '/')
	if at < 0 || strings.Count(r.Name, "/") < 3 || slices.Contains(strings.Split(r.Name, "/"), "") {
		return "", "", false
	}
	return r.Name[:at], r.Name[at+1:], true
}

// Result is what a row took: CPU nanoseconds per item, of the whole process, garbage collection included.
type Result struct {
	Name   string
	Items  int
	Min    float64
	Median float64
	Err    error // it was not measured
}

// Options say how to measure.
type Options struct {
	Rounds int                  // measurements of each row
	Least  time.Duration        // of CPU time in one measurement: quick rows are run as often as that takes
	Clock  func() time.Duration // CPU time of the process
	Each   func(done, all int)  // called after each group of rows, if not nil
}

// Standard is how bench-accel measures: 15 rounds of at least 3 ms: long enough for the clock, short enough that some
// rounds are free of neighbours.
func Standard() Options { return Options{Rounds: 15, Least: 3 * time.Millisecond, Clock: processTime} }

// Toy is once each, for tests.
func Toy() Options { return Options{Rounds: 1, Clock: processTime} }

// Check is an error if a row has a name of fewer than four parts, or one that another row has, or nothing to do.
func Check(all []Row) error {
	seen := map[string]bool{}
	for _, r := range all {
		if _, _, ok := r.parts(); !ok || seen[r.Name] || r.Items < 1 || r.Setup == nil {
			return fmt.Errorf("rows: %q: want a name of its own of at least four parts, items and a setup", r.Name)
		}
		seen[r.Name] = true
	}
	return nil
}

// Measure measures the rows group by group, and the rows of a group in turns, so that a noisy minute hits a row and its
// references alike. What a group's rows were set up with is garbage when the next group's turn comes.
func Measure(all []Row, o Options) []Result {
	out := make([]Result, len(all))
	var order []string
	members := map[string][]int{}
	for i, r := range all {
		group, _, _ := r.parts()
		if members[group] == nil {
			order = append(order, group)
		}
		members[group] = append(members[group], i)
	}
	var heap heap
	for done, group := range order {
		var own []Row
		for _, i := range members[group] {
			own = append(own, all[i])
		}
		for k, r := range measureGroup(own, o, &heap) {
			out[members[group][k]] = r
		}
		if o.Each != nil {
			o.Each(done+1, len(order))
		}
	}
	return out
}

// measureGroup sets up the rows of a group and measures them, one after the other in each round.
func measureGroup(all []Row, o Options, h *heap) []Result {
	out := make([]Result, len(all))
	runs := make([]func(), len(all))
	times := make([]int, len(all)) // runs in one measurement
	samples := make([][]float64, len(all))
	for i, r := range all {
		out[i] = Result{Name: r.Name, Items: r.Items}
		if runs[i], out[i].Err = r.Setup(); out[i].Err == nil {
			times[i] = calibrate(o, runs[i])
		}
	}
	for range o.Rounds {
		for i, run := range runs {
			if out[i].Err != nil {
				continue
			}
			if o.Least > 0 {
				h.clear()
			}
			start := o.Clock()
			for range times[i] {
				run()
			}
			spent := o.Clock() - start
			samples[i] = append(samples[i], float64(spent)/float64(times[i])/float64(all[i].Items))
		}
	}
	for i := range out {
		if s := samples[i]; len(s) > 0 {
			slices.Sort(s)
			out[i].Min, out[i].Median = s[0], s[len(s)/2]
		}
	}
	return out
}

// heap keeps a row's garbage from being collected at another row's cost.
type heap struct{ kept uint64 } // bytes after the last collection

// clear collects if so much was allocated that the next collection may be near.
func (h *heap) clear() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc < h.kept+h.kept/4+1<<20 {
		return
	}
	runtime.GC()
	runtime.ReadMemStats(&m)
	h.kept = m.HeapAlloc
}

// calibrate finds how many runs take at least o.Least; the runs that find out warm the row up.
func calibrate(o Options, run func()) (times int) {
	if o.Least <= 0 {
		return 1
	}
	for times = 1; ; times *= 2 {
		start := o.Clock()
		for range times {
			run()
		}
		if spent := o.Clock() - start; spent >= o.Least || times >= 1<<24 {
			return times
		} else if spent > o.Least/2 {
			return times + 1 + int(int64(times)*int64(o.Least-spent)/int64(spent))
		}
	}
}

// groups orders results by group as the groups first appear, and within one by the minimum.
func groups(all []Result) (order []string, members map[string][]Result) {
	members = map[string][]Result{}
	for _, r := range all {
		group, _, _ := Row{Name: r.Name}.parts()
		if members[group] == nil {
			order = append(order, group)
		}
		members[group] = append(members[group], r)
	}
	for _, m := range members {
		slices.SortStableFunc(m, func(a, b Result) int {
			switch {
			case (a.Err == nil) != (b.Err == nil):
				if a.Err == nil {
					return -1
				}
				return 1
			case a.Min < b.Min:
				return -1
			case a.Min > b.Min:
				return 1
			}
			return 0
		})
	}
	return order, members
}

// Print writes the results as a table, the fastest of each group first and the others with how many times longer they
// take.
func Print(w io.Writer, all []Result) error {
	width := len("row")
	for _, r := range all {
		width = max(width, len(r.Name))
	}
	if _, err := fmt.Fprintf(w, "%-*s  %12s  %12s  %8s\n", width, "row", "min ns", "median ns", "times"); err != nil {
		return err
	}
	order, members := groups(all)
	for _, g := range order {
		for _, r := range members[g] {
			line := fmt.Sprintf("%-*s  %12.1f  %12.1f  %8.2f", width, r.Name, r.Min, r.Median, r.Min/members[g][0].Min)
			if r.Err != nil {
				line = fmt.Sprintf("%-*s  %v", width, r.Name, r.Err)
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// Report is the JSON of a benchmark, as every `make bench-NAME` of Tutti writes it.
type Report struct {
	Rows []ReportRow `json:"rows"`
}

// ReportRow is one row with the values of its group's other rows, by backend.
type ReportRow struct {
	Name       string             `json:"name"`
	Value      float64            `json:"value"` // the minimum
	Median     float64            `json:"median"`
	Unit       string             `json:"unit"`
	References map[string]float64 `json:"references"`
}

// NewReport leaves out rows that were not measured.
func NewReport(all []Result) Report {
	report := Report{Rows: []ReportRow{}}
	_, members := groups(all)
	for _, r := range all {
		if r.Err != nil {
			continue
		}
		group, _, _ := Row{Name: r.Name}.parts()
		row := ReportRow{Name: r.Name, Value: r.Min, Median: r.Median, Unit: "ns CPU per item", References: map[string]float64{}}
		for _, other := range members[group] {
			if _, backend, _ := (Row{Name: other.Name}).parts(); other.Name != r.Name && other.Err == nil {
				row.References[backend] = other.Min
			}
		}
		report.Rows = append(report.Rows, row)
	}
	return report
}
