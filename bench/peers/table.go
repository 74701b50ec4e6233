package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"tutti/bench/report"
)

// Table is what a contest says, as `make bench-NAME JSON=FILE` writes it.
type Table struct {
	Commit     string            `json:"commit"`
	Machine    report.Machine    `json:"machine"`    // foreign_cores is the largest of the trials that count
	Conditions map[string]string `json:"conditions"` // by contender
	Rows       []Row             `json:"rows"`
}

// Row is one figure; references are the same figure of others, or what it is to reach.
type Row struct {
	Name       string             `json:"name"`
	Value      float64            `json:"value"`
	Unit       string             `json:"unit"`
	References map[string]float64 `json:"references"`
}

// figure is one of a standing's figures.
type figure struct {
	name, unit string
	decimals   int
	of         func(*Figures) float64
}

var figures = []figure{
	{"throughput", "tx/s", 0, func(f *Figures) float64 { return f.TPS }},
	{"p50", "ms", 1, func(f *Figures) float64 { return f.P50 }},
	{"p90", "ms", 1, func(f *Figures) float64 { return f.P90 }},
	{"p99", "ms", 1, func(f *Figures) float64 { return f.P99 }},
	{"CPU of all validators", "us/tx", 1, func(f *Figures) float64 { return f.CPUUs }},
	{"memory of a validator", "MiB", 0, func(f *Figures) float64 { return f.RSSMiB }},
	{"client", "cores", 2, func(f *Figures) float64 { return f.Generator }},
	{"other work", "cores", 2, func(f *Figures) float64 { return f.Foreign }},
}

// median is a figure's over the rounds. A round in which no rate held counts with zeros.
func (s *Standing) median(of func(*Figures) float64) float64 {
	var all []float64
	for i := range s.Rounds {
		all = append(all, of(&s.Rounds[i]))
	}
	return median(all)
}

func throughput(f *Figures) float64 { return f.TPS }

// Tabulate makes the table of a contest: each figure of ours beside the peers', and its ratio to the best of them.
func Tabulate(commit string, machine report.Machine, all []Standing) *Table {
	t := &Table{Commit: commit, Machine: machine, Conditions: map[string]string{}}
	best := 0.0
	for i := range all {
		t.Conditions[all[i].Name()] = all[i].Conditions()
		t.Machine.ForeignCores = max(t.Machine.ForeignCores, report.Round(all[i].worstForeign(), 2))
		if all[i].Peer {
			best = max(best, all[i].median(throughput))
		}
	}
	for i := range all {
		s := &all[i]
		if s.Peer {
			continue
		}
		for _, f := range figures {
			row := Row{Name: s.Name() + "/" + f.name, Value: report.Round(s.median(f.of), f.decimals), Unit: f.unit, References: map[string]float64{}}
			for k := range all {
				if all[k].Peer {
					row.References[all[k].Name()] = report.Round(all[k].median(f.of), f.decimals)
				}
			}
			t.Rows = append(t.Rows, row)
		}
		size := Row{Name: s.Name() + "/transaction", Value: float64(s.TxBytes()), Unit: "bytes", References: map[string]float64{}}
		for k := range all {
			if all[k].Peer {
				size.References[all[k].Name()] = float64(all[k].TxBytes())
			}
		}
		t.Rows = append(t.Rows, size)
		if best == 0 {
			continue
		}
		ratio := Row{Name: s.Name() + "/ratio", Value: report.Round(s.median(throughput)/best, 2), Unit: "times the best peer", References: map[string]float64{}}
		if s.Goal > 0 {
			ratio.References["goal"] = s.Goal
		}
		t.Rows = append(t.Rows, ratio)
	}
	return t
}

// References is a figure of every peer, by name in order.
func (t *Table) References(figure string) iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		at := slices.IndexFunc(t.Rows, func(r Row) bool { return strings.HasSuffix(r.Name, "/"+figure) })
		if at < 0 {
			return
		}
		all := t.Rows[at].References
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(name, all[name]) {
				return
			}
		}
	}
}

func (s *Standing) worstForeign() (worst float64) {
	for i := range s.Rounds {
		worst = max(worst, s.Rounds[i].Foreign)
	}
	return worst
}

// WriteJSON writes the table as one indented JSON value.
func (t *Table) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// busy is the cores of other work from which figures do not count for much.
const busy = 0.15

// Print writes the standings for people: a line for each contender, medians with the span of the rounds, then the ratios.
func Print(w io.Writer, t *Table, all []Standing) error {
	b := new(strings.Builder)
	tab := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "held at p99 <= 1 s\ttx/s\tof rounds\tbytes\tp50 ms\tp90 ms\tp99 ms\tCPU us/tx\tMiB\tclient cores\tother work\t")
	for i := range all {
		s := &all[i]
		low, high := math.Inf(1), 0.0
		for k := range s.Rounds {
			low, high = min(low, s.Rounds[k].TPS), max(high, s.Rounds[k].TPS)
		}
		m := func(of func(*Figures) float64) float64 { return s.median(of) }
		fmt.Fprintf(tab, "%s\t%s\t%s to %s\t%d\t%.0f\t%.0f\t%.0f\t%.1f\t%.0f\t%.2f\t%.2f\t\n", s.Name(), report.Number(m(throughput)), report.Number(low), report.Number(high), s.TxBytes(),
			m(func(f *Figures) float64 { return f.P50 }), m(func(f *Figures) float64 { return f.P90 }), m(func(f *Figures) float64 { return f.P99 }),
			m(func(f *Figures) float64 { return f.CPUUs }), m(func(f *Figures) float64 { return f.RSSMiB }), m(func(f *Figures) float64 { return f.Generator }), s.worstForeign())
	}
	if err := tab.Flush(); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	for i := range all {
		fmt.Fprintf(b, "%s: %s\n", all[i].Name(), all[i].Conditions())
	}
	for _, r := range t.Rows {
		if r.Unit != "times the best peer" {
			continue
		}
		fmt.Fprintf(b, "%s: %.1f times the best peer", strings.TrimSuffix(r.Name, "/ratio"), r.Value)
		if goal, ok := r.References["goal"]; ok {
			fmt.Fprintf(b, ", goal %g", goal)
		}
		fmt.Fprintln(b)
	}
	if t.Machine.ForeignCores > busy {
		fmt.Fprintf(b, "other work took up to %.2f cores: these figures do not count for much; run it again on a quiet machine\n", t.Machine.ForeignCores)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Head names the columns of the file of trials.
const Head = "commit\tround\tcontender\tvalidators\ttx_bytes\tper_call\twarm_up_s\tduration_s\trate\ttps\tp50_ms\tp90_ms\tp99_ms\tmax_ms\tcpu_us_per_tx\trss_mib\tblocks_s\tclient_cores\tforeign_cores\tsteal_cores\toutcome"

// Append appends a trial to a file of tab-separated values.
func (t *Trial) Append(path, commit string, of Trials) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	outcome := "held"
	if !t.Held() {
		outcome = strings.Join(strings.Fields(t.Why), " ")
	}
	line := fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%d\t%g\t%g\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", commit, t.Round, t.Name, of.Validators, t.TxBytes, of.PerCall,
		of.WarmUp.Seconds(), of.Duration.Seconds(), t.Rate, t.TPS, t.P50, t.P90, t.P99, t.Max, t.CPUUs, t.RSSMiB, t.BlocksPerS, t.Generator, t.Foreign, t.Steal, outcome)
	if info.Size() == 0 {
		line = Head + "\n" + line
	}
	_, err = f.WriteString(line)
	return err
}
