package committee

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tutti/bench/plot"
)

var (
	full     = flag.Bool("full", false, "measure committees of 4 to 400, not a small one")
	rate     = flag.Float64("rate", 4000, "transactions a second")
	tsvFile  = flag.String("tsv", "", "write the table to this file")
	plotFile = flag.String("plot", "", "draw the table in this file")
	title    = flag.String("title", "", "of the drawing")
)

// limits are what issue readers hold the product to: p50 and p99 in seconds, 0 for none.
type limits struct{ p50, p99 float64 }

// kind is one line of the plot: a network, and how many validators are silent.
type kind struct {
	name    string
	profile Profile
	silent  func(n int) int
	at100   limits
}

func nobody(int) int { return 0 }

// mostSilent is a third less one.
func mostSilent(n int) int { return max(0, (n-1)/3-1) }

var kinds = []kind{
	{"50-100 ms", WAN, nobody, limits{0.6, 1}},
	{"150 ms", Far, nobody, limits{}},
	{"50-100 ms, a third less one silent", WAN, mostSilent, limits{0, 2.5}},
}

const head = "validators\tsilent\tnetwork\tblocks\tviews\tp50_s\tp99_s\tmax_s\tcpu_cores\tup_Mbit_s\tup_max_Mbit_s\tmessages_s\ttx_s"

func (r *Result) line() string {
	return fmt.Sprintf("%d\t%d\t%s\t%d\t%d\t%.3f\t%.3f\t%.3f\t%.2f\t%.1f\t%.1f\t%.0f\t%.0f", r.Validators, r.Silent, r.Profile.Name, r.Blocks, r.Views,
		r.Quantile(0.5), r.Quantile(0.99), r.Quantile(1), r.MeanCPU, r.UpBytes*8/1e6, r.MaxUp*8/1e6, r.Messages, r.Committed)
}

// TestBenchCommittee measures; see the package comment. With 100 validators the figures have to be within limits.
func TestBenchCommittee(t *testing.T) {
	sizes, warmUp, span := []int{4, 13}, 60*time.Second, 10*time.Second
	if *full {
		sizes, warmUp, span = []int{4, 10, 25, 50, 100, 200, 400}, 120*time.Second, 30*time.Second
	}
	var table strings.Builder
	fmt.Fprintln(&table, head)
	fmt.Println(head)
	d := plot.Drawing{Title: *title, Axis: "validators", Log: true, Panels: []plot.Panel{
		{Name: "finality p50, s"}, {Name: "finality p99, s"}, {Name: "CPU of a validator, cores"}, {Name: "sent by a validator, Mbit/s"},
	}}
	for _, n := range sizes {
		d.X = append(d.X, float64(n))
	}
	for _, k := range kinds {
		var lines [4][]float64
		for _, n := range sizes {
			costs, err := Measure(n)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Validators: n, Silent: k.silent(n), Profile: k.profile, Costs: costs, Rate: *rate, WarmUp: warmUp, Span: span, Seed: 1}
			if o.Silent == 0 {
				o.WarmUp = 5 * time.Second // nothing has to be found out
			}
			r, err := Run(o)
			if err != nil {
				t.Fatalf("%d validators, %s: %v", n, k.name, err)
			}
			fmt.Fprintln(&table, r.line())
			fmt.Printf("%s\t(%.0f s CPU; sign %v, verify %v, add %v, aggregate %v)\n", r.line(), r.Took.Seconds(), costs.Sign, costs.Verify, costs.Add, costs.Aggregate)
			if got := r.Committed / *rate; got < 0.99 || got > 1.01 {
				t.Errorf("%d validators, %s: %.0f of %.0f transactions a second became final", n, k.name, r.Committed, *rate)
			}
			p50, p99 := r.Quantile(0.5), r.Quantile(0.99)
			if n == 100 && (k.at100.p50 > 0 && p50 > k.at100.p50 || k.at100.p99 > 0 && p99 > k.at100.p99) {
				t.Errorf("%d validators, %s: p50 %.3f s, p99 %.3f s, wanted %.1f and %.1f", n, k.name, p50, p99, k.at100.p50, k.at100.p99)
			}
			for i, v := range []float64{p50, p99, r.MeanCPU, r.UpBytes * 8 / 1e6} {
				lines[i] = append(lines[i], v)
			}
		}
		for i := range lines {
			d.Panels[i].Lines = append(d.Panels[i].Lines, plot.Line{Name: k.name, Values: lines[i]})
		}
	}
	if *tsvFile != "" {
		if err := os.WriteFile(*tsvFile, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if *plotFile != "" {
		var b bytes.Buffer
		if err := d.Draw(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*plotFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRepeats: a seed is one run.
func TestRepeats(t *testing.T) {
	costs := Costs{Sign: 300 * time.Microsecond, Verify: 700 * time.Microsecond, Add: 70 * time.Microsecond, Aggregate: 700 * time.Microsecond, Receive: receive, Send: send, Tx: execute, Byte: perByte}
	run := func(seed uint64) string {
		r, err := Run(Options{Validators: 10, Silent: 2, Profile: WAN, Costs: costs, Rate: 1000, WarmUp: 30 * time.Second, Span: 5 * time.Second, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return r.line()
	}
	if a, b := run(3), run(3); a != b {
		t.Errorf("two runs of one seed:\n%s\n%s", a, b)
	}
	if a, b := run(3), run(4); a == b {
		t.Errorf("two seeds, one run:\n%s", a)
	}
}

// TestTooManySilent: with a third of the committee silent nothing becomes final, and Run says so.
func TestTooManySilent(t *testing.T) {
	if _, err := Run(Options{Validators: 4, Silent: 2, Profile: WAN, Rate: 100, WarmUp: time.Second, Span: 5 * time.Second, Seed: 1}); err == nil {
		t.Error("two of four are enough")
	}
}
