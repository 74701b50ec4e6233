package scaling

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tutti/appliance/host"
	"tutti/bench/child"
	"tutti/bench/report"
)

// campaign is one on a made-up machine, whose runs say what they are told.
func campaign(t *testing.T, bench func(args string, cores int) (*report.Report, error)) *Campaign {
	p := Standard(2)
	p.Accounts = []uint64{1000, 100_000}
	return &Campaign{
		Plan: p, Results: Results{filepath.Join(t.TempDir(), "scaling.tsv")}, Commit: "c0ffee", Machine: host.Machine{CPU: "toy", Cores: 2, Memory: 8 << 30},
		Rate: 2000, Distilled: 10_000, WarmUp: time.Second, Duration: 2 * time.Second, Limit: time.Minute, Quiet: 0.25, Out: io.Discard,
		Bench: func(_ context.Context, args []string, cores int, _ time.Duration) (*report.Report, error) {
			return bench(strings.Join(args, " "), cores)
		},
		FreeMemory: func() (uint64, error) { return 8 << 30, nil },
	}
}

// good is a run without fault.
func good() *report.Report {
	us, sent, mib := 12.5, 60.0, 300.0
	return &report.Report{Scenario: report.Scenario{Rate: 2000}, BlocksPerS: 4, Result: report.Result{
		TPS: 1999, FinalityMs: report.Quantiles{P50: 200, P99: 400}, CPUUsPerTxPerValidator: &us, BytesPerTxPerValidator: &sent, RSSMiBPerValidator: &mib,
	}}
}

// TestPoints: the base is there once for each kind, and every axis is complete.
func TestPoints(t *testing.T) {
	p := Standard(16)
	all := p.Points()
	// Shards 3, validators 4, accounts 4, cores 5, the base in all four: 13 points. Transfers between shards: 2 shards and 4.
	if want := 3*13 + 2; len(all) != want {
		t.Errorf("%d points, want %d", len(all), want)
	}
	seen := map[Point]bool{}
	for _, at := range all {
		if seen[at] {
			t.Errorf("%s is there twice", at)
		}
		seen[at] = true
		if at.Kind == Cross && at.Shards == 1 {
			t.Errorf("%s: there is no other shard", at)
		}
	}
	if !slices.Equal(p.Cores, []int{1, 2, 4, 8, 16}) || !slices.Equal(Standard(6).Cores, []int{1, 2, 4, 6}) || !slices.Equal(Standard(1).Cores, []int{1}) {
		t.Errorf("cores %v, %v", p.Cores, Standard(6).Cores)
	}
	for _, want := range []Point{{Signed, 1, 4, 100_000, 16}, {Distilled, 1, 16, 100_000, 16}, {Highest, 1, 4, 10_000_000, 16}, {Signed, 1, 4, 100_000, 1}, {Cross, 4, 4, 100_000, 16}} {
		if !seen[want] {
			t.Errorf("no %s", want)
		}
	}
}

// TestCampaign: every point is run once and has its line; a second go has nothing to do, until other work had spoiled a run.
func TestCampaign(t *testing.T) {
	var ran []string
	foreign := 0.5
	c := campaign(t, func(args string, cores int) (*report.Report, error) {
		ran = append(ran, args)
		r := good()
		if strings.Contains(args, "--validators 16") {
			r.Machine.ForeignCores = foreign
		}
		if strings.Contains(args, "--shards 4") {
			r.Result.FinalityMs.P99 = 1500
		}
		return r, nil
	})
	c.Kinds = []Kind{Signed, Cross, Distilled}
	points := c.Points()
	for _, want := range []int{len(points), 2, 0} { // the second time, what other work had spoiled, signed and distilled
		ran = nil
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(ran) != want {
			t.Fatalf("%d runs, want %d: %v", len(ran), want, ran)
		}
		foreign = 0.1
	}
	had, err := c.Results.Read()
	if err != nil || len(had) != len(points)+2 {
		t.Fatalf("%d lines, %v", len(had), err)
	}
	first := had[0]
	if first.Point != points[0] || first.Rate != 2000 || first.TPS != 1999 || first.CPUUs != 12.5 || first.Outcome != held || first.MemoryGiB != 8 {
		t.Errorf("line %+v", first)
	}
	for _, l := range had {
		if l.Shards == 4 && l.Outcome != "not held: p99 1500 ms" {
			t.Errorf("%s: %s", l.Point, l.Outcome)
		}
	}
	if l := c.best(had, Point{Signed, 1, 16, 100_000, 2}); l == nil || l.ForeignCores != 0.1 {
		t.Errorf("the line that counts is %+v", l)
	}
	var b bytes.Buffer
	if err := c.Print(&b, had); err != nil || strings.Count(b.String(), "\n") != len(points)+1 {
		t.Errorf("%v\n%s", err, &b)
	}
	b.Reset()
	if err := c.Plot(&b, had); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "NaN") || !strings.Contains(b.String(), "validators of a shard (make bench-scaling, commit c0ffee; toy, 2 cores, 8 GiB)") {
		t.Errorf("drawn\n%s", &b)
	}
	for x := xml.NewDecoder(&b); ; {
		if _, err := x.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	c.Commit, ran = "decaf", nil
	if err := c.Run(t.Context()); err != nil || len(ran) != len(points) {
		t.Errorf("%d runs at another commit, %v", len(ran), err)
	}
}

// TestCanNotHold: what the machine has no memory or time for gets a line with the reason, once.
func TestCanNotHold(t *testing.T) {
	c := campaign(t, func(args string, cores int) (*report.Report, error) {
		if strings.Contains(args, "--validators 7") {
			return nil, child.ErrTooLong
		}
		return good(), nil
	})
	c.Kinds, c.Accounts = []Kind{Distilled}, []uint64{100_000, 10_000_000}
	for range 2 {
		if err := c.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	had, err := c.Results.Read()
	if err != nil || len(had) != len(c.Points()) {
		t.Fatalf("%d lines, want %d: %v", len(had), len(c.Points()), err)
	}
	why := map[string]string{}
	for _, l := range had {
		why[l.Point.String()] = l.Outcome
	}
	for p, want := range map[Point]string{
		{Distilled, 1, 4, 10_000_000, 2}: "not run: needs about 21 GiB of memory, more than was free",
		{Distilled, 1, 7, 100_000, 2}:    "not run: took longer than 1m0s",
		{Distilled, 1, 4, 100_000, 2}:    held,
	} {
		if got := why[p.String()]; got != want {
			t.Errorf("%s: %q, want %q", p, got, want)
		}
	}
}

// TestRunEnds: an interrupted run leaves no line.
func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := campaign(t, func(string, int) (*report.Report, error) { cancel(); return nil, context.Canceled })
	if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if had, err := c.Results.Read(); err != nil || len(had) > 0 {
		t.Errorf("%d lines, %v", len(had), err)
	}
}

// TestArgs is what tutti bench is asked for.
func TestArgs(t *testing.T) {
	c := campaign(t, nil)
	const common = "--validators 4 --accounts 1000 --warm-up 1s --duration 2s"
	for _, tc := range []struct {
		p    Point
		want string
	}{
		{Point{Signed, 2, 4, 1000, 2}, "--shards 2 " + common + " --rate 4000"},
		{Point{Cross, 2, 4, 1000, 2}, "--shards 2 " + common + " --rate 4000 --cross-shard 0.2"},
		{Point{Distilled, 1, 4, 1000, 2}, "--shards 1 " + common + " --rate 10000 --distilled 1"},
		{Point{Highest, 1, 4, 1000, 1}, "--shards 1 " + common + " --rate max"},
	} {
		if got := strings.Join(c.args(tc.p, c.line(tc.p).Rate), " "); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.p, got, tc.want)
		}
	}
}

const golden = "commit\tcpu\tmachine_cores\tmemory_gib\tkind\tshards\tvalidators\taccounts\tcores\trate\tduration_s\ttps\tp50_ms\tp99_ms\t" +
	"cpu_us_per_tx_per_validator\tbytes_per_tx_per_validator\trss_mib_per_validator\tblocks_s\tgenerator_us_per_tx\town_cores\tforeign_cores\tsteal_cores\toutcome\n" +
	"c0ffee\ttoy\t2\t8\tcross-shard\t2\t4\t1000\t2\t4000\t2.5\t3999.5\t0\t0\t12.25\t-1\t0\t0\t0\t0\t0\t0\theld\n"

// TestResults: lines are in the form of the golden one, both ways, and a file of another form is refused.
func TestResults(t *testing.T) {
	r := Results{filepath.Join(t.TempDir(), "scaling.tsv")}
	l := Line{
		Commit: "c0ffee", CPU: "toy", MachineCores: 2, MemoryGiB: 8, Point: Point{Cross, 2, 4, 1000, 2}, Rate: 4000, DurationS: 2.5, TPS: 3999.5,
		CPUUs: 12.25, Bytes: -1, Outcome: held,
	}
	if err := r.Append(l); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(r.Path)
	if err != nil || string(b) != golden {
		t.Errorf("%v: wrote\n%q\nwant\n%q", err, b, golden)
	}
	if had, err := r.Read(); err != nil || len(had) != 1 || had[0] != l {
		t.Errorf("read %+v, %v", had, err)
	}
	for _, bad := range []string{"other\n", golden + "c0ffee\ttoy\n", strings.Replace(golden, "3999.5", "many", 1)} {
		if err := os.WriteFile(r.Path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// FuzzLine: what is read as a line is written as one that is read as the same.
func FuzzLine(f *testing.F) {
	_, line, _ := strings.Cut(strings.TrimSpace(golden), "\n")
	for _, s := range []string{line, "", "\t\t", strings.Replace(line, "3999.5", "1e300", 1), strings.Replace(line, "1000", "-1", 1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLine(text)
		if err != nil {
			return
		}
		once := l.String()
		again, err := parseLine(once)
		if err != nil || again.String() != once {
			t.Errorf("%q became %q, then %q: %v", text, once, again, err)
		}
	})
}
