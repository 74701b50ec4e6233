// Package summary makes what README shows first, a table and a picture, from the reports that are kept in bench/results, so
// that neither says anything that no report does.
//
// Reports named NAME-1.json, NAME-2.json and so on are runs of one command. A line of the table has the worst of them: the lowest
// throughput and the highest of everything else. The picture has the first one's distribution of latencies, and, where the table
// of `make bench-peers` is there, its throughputs.
package summary

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"tutti/bench/peers"
	"tutti/bench/plot"
	"tutti/bench/report"
)

// Load is the runs of one command.
type Load struct {
	Name string // of its files, without number and suffix
	Runs []*report.Report
}

// Summary is what a folder of results holds.
type Summary struct {
	Loads []Load       // the highest throughput first
	Peers *peers.Table // nil: there is none
}

// PeersFile is the name of the peers' table in the folder.
const PeersFile = "peers.json"

var runName = regexp.MustCompile(`^(.+)-[0-9]+\.json$`)

// Read reads a folder of results. Every report has to hold its own checks, and runs of one name have to be of one scenario.
func Read(dir string) (*Summary, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json")) // in order
	if err != nil {
		return nil, fmt.Errorf("summary: %w", err)
	}
	out := &Summary{}
	for _, path := range paths {
		name := runName.FindStringSubmatch(filepath.Base(path))
		if name == nil {
			continue
		}
		r, err := readReport(path)
		if err != nil {
			return nil, fmt.Errorf("summary: %s: %w", path, err)
		}
		if n := len(out.Loads); n == 0 || out.Loads[n-1].Name != name[1] {
			out.Loads = append(out.Loads, Load{Name: name[1]})
		}
		l := &out.Loads[len(out.Loads)-1]
		if len(l.Runs) > 0 && l.Runs[0].Scenario != r.Scenario {
			return nil, fmt.Errorf("summary: %s: another scenario than that of %s-1.json: give its files another name", path, name[1])
		}
		l.Runs = append(l.Runs, r)
	}
	if len(out.Loads) == 0 {
		return nil, fmt.Errorf("summary: %s holds no report: write one with tutti bench --json NAME-1.json", dir)
	}
	slices.SortStableFunc(out.Loads, func(a, b Load) int { return cmp.Compare(b.tps(), a.tps()) })
	b, err := os.ReadFile(filepath.Join(dir, PeersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &out.Peers)
	}
	if err != nil {
		return nil, fmt.Errorf("summary: %w", err)
	}
	return out, nil
}

func readReport(path string) (r *report.Report, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if r, err = report.Read(f); err != nil {
		return nil, err
	}
	if failed := r.Failed(); len(failed) > 0 {
		return nil, fmt.Errorf("its checks %s failed: it does not count", strings.Join(failed, ", "))
	}
	return r, nil
}

// stretch is the one of a run's stretches that the run is about: that with wrong signatures, or the overload. nil: there are none.
func stretch(r *report.Report) *report.Stretch {
	var out *report.Stretch
	for i := range r.Stretches {
		s := &r.Stretches[i]
		if (s.InvalidShare > r.Scenario.InvalidShare || s.Rate > r.Scenario.Rate) && (out == nil || s.TPS < out.TPS) {
			out = s
		}
	}
	return out
}

func throughput(r *report.Report) float64 {
	if s := stretch(r); s != nil {
		return s.TPS
	}
	return r.Result.TPS
}

// offered is how many were due a second.
func offered(r *report.Report) float64 {
	if s := stretch(r); s != nil {
		return s.Rate
	}
	return r.Scenario.Rate
}

// finality is the latency that the line is about: between shards that of the credit.
func finality(r *report.Report) report.Quantiles {
	switch s := stretch(r); {
	case s != nil:
		return s.FinalityMs
	case r.Result.CrossShardMs != nil:
		return *r.Result.CrossShardMs
	}
	return r.Result.FinalityMs
}

func (l *Load) tps() float64 {
	least := math.Inf(1)
	for _, r := range l.Runs {
		least = min(least, throughput(r))
	}
	return least
}

// most is the highest of a figure; NaN if a run has none.
func (l *Load) most(of func(*report.Report) *float64) float64 {
	out := math.Inf(-1)
	for _, r := range l.Runs {
		v := of(r)
		if v == nil {
			return math.NaN()
		}
		out = max(out, *v)
	}
	return out
}

func quantile(of func(report.Quantiles) float64) func(*report.Report) *float64 {
	return func(r *report.Report) *float64 { v := of(finality(r)); return &v }
}

// says is what the load is, in words.
func (l *Load) says() string {
	r := l.Runs[0]
	s, text := r.Scenario, "each with its own signature"
	switch {
	case s.DistilledShare > 0 && r.ClientSigning == report.Online:
		text = "distilled in the run, by a broker"
	case s.DistilledShare == 1:
		text = "distilled, signed before the run"
	case s.DistilledShare > 0:
		text = fmt.Sprintf("distilled but for %.0f %%, signed before the run", 100*(1-s.DistilledShare))
	}
	if s.CrossShardShare > 0 {
		text += fmt.Sprintf("; %d shards, %.0f %% to another, until the credit", s.Shards, 100*s.CrossShardShare)
	}
	if x := stretch(r); x != nil && x.InvalidShare > s.InvalidShare {
		text += fmt.Sprintf("; %.0f %% wrong ones beside them", 100*x.InvalidShare)
	} else if x != nil {
		text += fmt.Sprintf("; %g times as many offered", x.Rate/s.Rate)
	}
	return text
}

// Table writes the figures as Markdown.
func (s *Summary) Table(w io.Writer) error {
	b := new(strings.Builder)
	fmt.Fprintf(b, "| transfers | due/s | final/s | p50 | p99 | CPU | sent | runs |\n|---|--:|--:|--:|--:|--:|--:|---|\n")
	for i := range s.Loads {
		l := &s.Loads[i]
		runs := fmt.Sprintf("%d × %g s", len(l.Runs), l.Runs[0].Scenario.DurationS)
		fmt.Fprintf(b, "| [%s](bench/results/%s-1.json) | %s | %s | %.0f ms | %.0f ms | %s | %s | %s |\n", l.says(), l.Name, report.Number(offered(l.Runs[0])), report.Number(l.tps()),
			l.most(quantile(func(q report.Quantiles) float64 { return q.P50 })), l.most(quantile(func(q report.Quantiles) float64 { return q.P99 })),
			unit(l.most(func(r *report.Report) *float64 { return r.Result.CPUUsPerTxPerValidator }), "%.1f µs"),
			unit(l.most(func(r *report.Report) *float64 { return r.Result.WireSentBytesPerTxPerValidator }), "%.0f B"), runs)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func unit(v float64, format string) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// short names the load in a few letters.
func (l *Load) short() string {
	r := l.Runs[0]
	switch share := r.Scenario.DistilledShare; {
	case share > 0 && r.ClientSigning == report.Online:
		return "by a broker"
	case share > 0:
		return fmt.Sprintf("%.0f %% distilled", 100*share)
	}
	return "own signatures"
}

// within is the share of transfers that were final within so many milliseconds, in percent.
func within(d *report.Distribution, ms []float64) (out []float64) {
	var total, below uint64
	if d == nil {
		d = &report.Distribution{}
	}
	for _, n := range d.Count {
		total += n
	}
	next, from := 0, 0.0
	for _, at := range ms {
		for ; next < len(d.UpToMs) && float64(d.UpToMs[next]) <= at; next++ {
			below, from = below+d.Count[next], float64(d.UpToMs[next])
		}
		part := 0.0 // of the bin that the point is in; the first begins nobody knows where
		if 0 < next && next < len(d.UpToMs) {
			part = float64(d.Count[next]) * (at - from) / (float64(d.UpToMs[next]) - from)
		}
		out = append(out, 100*(float64(below)+part)/float64(total))
	}
	return out
}

// Points of the picture's axis of time, milliseconds.
const (
	pictureTo   = 1000
	pictureStep = 10
)

// Plot draws throughputs and, below them, how many transfers were final within how long.
func (s *Summary) Plot(w io.Writer) error {
	first := s.Loads[0].Runs[0]
	m := first.Machine
	speeds := plot.Panel{Name: fmt.Sprintf("final transactions a second, p99 at most 1 s, all validators and the load on %d cores (%s)", m.Cores, m.CPU)}
	shares := plot.Panel{Name: "% final within so many ms"}
	d := plot.Drawing{Title: "Tutti, from the reports in bench/results", Axis: "ms", Number: func(v float64) string { return report.Number(v) }}
	for at := 0; at <= pictureTo; at += pictureStep {
		d.X = append(d.X, float64(at))
	}
	for i := range s.Loads {
		l := &s.Loads[i]
		if stretch(l.Runs[0]) != nil || l.Runs[0].Scenario.Shards > 1 {
			continue
		}
		speeds.Bars = append(speeds.Bars, plot.Bar{Name: l.says(), Value: l.tps(), Group: len(shares.Lines)})
		shares.Lines = append(shares.Lines, plot.Line{Name: l.short(), Values: within(l.Runs[0].Details.Latency, d.X)})
	}
	if s.Peers != nil {
		for peer, tps := range s.Peers.References("throughput") {
			speeds.Bars = append(speeds.Bars, plot.Bar{Name: peer + ", unsigned, state in memory", Value: tps, Group: len(shares.Lines)})
		}
	}
	d.Panels = []plot.Panel{speeds, shares}
	return d.Draw(w)
}

// Marks around the table in a Markdown file.
const (
	tableBegins = "<!-- bench-summary: made by make figures -->\n"
	tableEnds   = "<!-- bench-summary ends -->\n"
)

// Insert puts the table between its marks in a Markdown file.
func (s *Summary) Insert(text []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(tableBegins))
	_, after, closed := bytes.Cut(rest, []byte(tableEnds))
	if !ok || !closed {
		return nil, fmt.Errorf("summary: there is no place for the table: it needs the lines %q and %q", strings.TrimSpace(tableBegins), strings.TrimSpace(tableEnds))
	}
	var table bytes.Buffer
	if err := s.Table(&table); err != nil {
		return nil, err
	}
	return slices.Concat(before, []byte(tableBegins), table.Bytes(), []byte(tableEnds), after), nil
}
