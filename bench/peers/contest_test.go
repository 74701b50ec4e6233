package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tutti/bench/report"
)

// scripted is a contender that holds rates up to its limit, which may differ from trial to trial.
type scripted struct {
	name   string
	limits []float64 // of the first trials; the last goes on
	trials int
}

func (s *scripted) Name() string       { return s.name }
func (s *scripted) Conditions() string { return "scripted" }
func (s *scripted) TxBytes() int       { return 97 }

func (s *scripted) Trial(_ context.Context, rate float64) (Figures, error) {
	limit := s.limits[min(s.trials, len(s.limits)-1)]
	s.trials++
	f := Figures{Rate: rate, TPS: rate, P99: 100, CPUUs: 10}
	if rate > limit {
		f.Why = "p99 2000 ms"
	}
	return f, nil
}

// TestContest: contenders take turns; each climbs to its limit and starts there in the next round, or comes down to it.
func TestContest(t *testing.T) {
	var tried []string
	c := Contest{
		Rounds: 2, Step: 1.1,
		Entries: []Entry{
			{Contender: &scripted{name: "up", limits: []float64{1250}}, Start: 1000, Climb: true, Peer: true},
			{Contender: &scripted{name: "down", limits: []float64{850}}, Start: 1000, Climb: true, Peer: true},
			{Contender: &scripted{name: "fixed", limits: []float64{1e9}}, Start: 12100, Goal: 8},
			{Contender: &scripted{name: "never", limits: []float64{0}}, Start: 10, Goal: 8},
		},
		Each: func(t Trial) error {
			if t.Name != "never" {
				tried = append(tried, fmt.Sprintf("%d %s %.0f", t.Round, t.Name, t.Rate))
			}
			return nil
		},
	}
	all, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1 up 1000", "1 up 1100", "1 up 1210", "1 up 1331", "1 down 1000", "1 down 909", "1 down 826", "1 fixed 12100",
		"2 up 1210", "2 up 1331", "2 down 826", "2 down 909", "2 fixed 12100",
	}
	if !slices.Equal(tried, want) {
		t.Errorf("tried\n%s\nwant\n%s", strings.Join(tried, "\n"), strings.Join(want, "\n"))
	}
	table := Tabulate("c0ffee", report.Machine{}, all)
	rows := map[string]Row{}
	for _, r := range table.Rows {
		rows[r.Name] = r
	}
	if r := rows["fixed/ratio"]; r.Value != 10 || r.References["goal"] != 8 {
		t.Errorf("ratio %+v, want 12100/1210", r)
	}
	if r := rows["fixed/throughput"]; r.Value != 12100 || r.References["up"] != 1210 || r.References["down"] != 826 || len(r.References) != 2 {
		t.Errorf("throughput %+v", r)
	}
	if r := rows["never/ratio"]; r.Value != 0 {
		t.Errorf("a contender that held nothing has %+v", r)
	}
	var b bytes.Buffer
	if err := table.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back struct{ Rows []Row }
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Rows) != len(table.Rows) {
		t.Errorf("%d rows, %v", len(back.Rows), err)
	}
	b.Reset()
	if err := Print(&b, table, all); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); !strings.Contains(text, "fixed: 10.0 times the best peer, goal 8\n") || !strings.Contains(text, "1,210 to 1,210") {
		t.Errorf("printed\n%s", text)
	}
}

func TestContestEnds(t *testing.T) {
	stop := errors.New("stop")
	c := Contest{Rounds: 1, Step: 1.1, Entries: []Entry{{Contender: &scripted{name: "a", limits: []float64{1}}, Start: 1}}, Each: func(Trial) error { return stop }}
	if _, err := c.Run(t.Context()); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	for _, step := range []float64{1, 100, math.NaN()} {
		c.Step = step
		if _, err := c.Run(t.Context()); err == nil || errors.Is(err, stop) {
			t.Errorf("a ladder with steps of %v was climbed: %v", step, err)
		}
	}
	c.Step, c.Entries[0].Start = 1.1, 0
	if _, err := c.Run(t.Context()); err == nil || errors.Is(err, stop) {
		t.Errorf("a ladder from 0 was climbed: %v", err)
	}
}

// TestLadderBottom: no rate is below one transaction a second, which could never end.
func TestLadderBottom(t *testing.T) {
	c := Contest{Rounds: 1, Step: 2, Entries: []Entry{{Contender: &scripted{name: "a", limits: []float64{0}}, Start: 8}}, Each: func(t Trial) error {
		if t.Rate < 1 {
			return fmt.Errorf("rate %v", t.Rate)
		}
		return nil
	}}
	if _, err := c.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		v    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{4, 1}, 2.5}} {
		if got := median(tc.v); got != tc.want {
			t.Errorf("%v: %v, want %v", tc.v, got, tc.want)
		}
	}
}

// TestAppend: a file has its head once, and every line its columns.
func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.tsv")
	for _, why := range []string{"", "1 refused:\nfull\tof it"} {
		if err := (&Trial{1, "a", 97, Figures{Why: why}}).Append(path, "c0ffee", Trials{}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 3 || lines[0] != Head {
		t.Errorf("file is\n%s", b)
	}
	for _, l := range lines {
		if strings.Count(l, "\t") != strings.Count(Head, "\t") {
			t.Errorf("columns of %q", l)
		}
	}
}

// TestFiguresOf reads a report as tutti bench writes it, and sees what spoils it.
func TestFiguresOf(t *testing.T) {
	us, mib := 12.5, 300.0
	r := &report.Report{Scenario: report.Scenario{Validators: 4, Rate: 1000, DurationS: 10}, GeneratorCPUS: 5, Result: report.Result{
		TPS: 990, FinalityMs: report.Quantiles{P99: 400}, CPUUsPerTxPerValidator: &us, RSSMiBPerValidator: &mib,
	}}
	f := figuresOf(r)
	if !f.Held() || f.CPUUs != 50 || f.RSSMiB != 300 || f.Generator != 0.5 {
		t.Errorf("figures %+v", f)
	}
	for _, spoil := range []func(*report.Report){
		func(r *report.Report) { r.Checks = []report.Check{{Name: "supply_conserved"}} },
		func(r *report.Report) { r.Result.Lost = 1 },
		func(r *report.Report) { r.Details.Unsent = 1 },
		func(r *report.Report) { r.Result.FinalityMs.P99 = 1001 },
	} {
		bad := *r
		spoil(&bad)
		if f := figuresOf(&bad); f.Held() {
			t.Errorf("%+v counts as held", bad)
		}
	}
}
