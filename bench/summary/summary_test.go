package summary

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/bench/peers"
	"tutti/bench/report"
)

// TestReadme: README's table and picture are what the reports in the tree say.
func TestReadme(t *testing.T) {
	s, err := Read("../results")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Insert(text); err != nil || !bytes.Equal(again, text) {
		t.Errorf("README's table is not that of bench/results (%v): run make figures", err)
	}
	var drawn bytes.Buffer
	if err := s.Plot(&drawn); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile("../../docs/figures.svg"); err != nil || !bytes.Equal(kept, drawn.Bytes()) {
		t.Errorf("docs/figures.svg is not that of bench/results (%v): run make figures", err)
	}
}

// small is a report with the given throughput and p99.
func small(tps, p99 float64) *report.Report {
	cpu := 2.5
	return &report.Report{
		Schema: report.Schema, ClientSigning: report.Online,
		Scenario: report.Scenario{Shards: 1, Validators: 4, Rate: 100, DurationS: 60},
		Result:   report.Result{TPS: tps, FinalityMs: report.Quantiles{P50: 200, P99: p99}, CPUUsPerTxPerValidator: &cpu},
		Details:  report.Details{Latency: &report.Distribution{UpToMs: []report.Value{100, 200}, Count: []uint64{1, 3}}},
	}
}

func write(t *testing.T, dir, name string, r *report.Report) {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestWorst: a line has the worst of its runs, and a stretch that the run is about speaks for it.
func TestWorst(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "signed-1.json", small(100, 300))
	write(t, dir, "signed-2.json", small(99.9, 200))
	across := small(50, 300)
	across.Scenario.Shards, across.Scenario.CrossShardShare = 2, 0.2
	across.Result.CrossShardMs = &report.Quantiles{P50: 400, P99: 500}
	write(t, dir, "cross-1.json", across)
	mixed := small(80, 300)
	mixed.Stretches = []report.Stretch{
		{Name: "valid", Rate: 100, TPS: 80}, {Name: "mixed", Rate: 111, InvalidShare: 0.1, TPS: 79, FinalityMs: report.Quantiles{P50: 210, P99: 320}},
	}
	write(t, dir, "invalid-1.json", mixed)
	over := small(70, 300)
	over.Stretches = []report.Stretch{{Name: "limit", Rate: 100, TPS: 70}, {Name: "overload", Rate: 300, TPS: 69, FinalityMs: report.Quantiles{P50: 900, P99: 1100}}, {Name: "after", Rate: 100, TPS: 71}}
	write(t, dir, "overload-1.json", over)
	table, err := json.Marshal(peers.Table{Rows: []peers.Row{{Name: "Tutti, signed/throughput", References: map[string]float64{"Old": 7, "New": 9}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, PeersFile), table, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Table(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| [each with its own signature](bench/results/signed-1.json) | 100 | 100 | 200 ms | 300 ms | 2.5 µs |  | 2 × 60 s |",
		"| [each with its own signature; 2 shards, 20 % to another, until the credit](bench/results/cross-1.json) | 100 | 50 | 400 ms | 500 ms |",
		"| [each with its own signature; 10 % wrong ones beside them](bench/results/invalid-1.json) | 111 | 79 | 210 ms | 320 ms |",
		"| [each with its own signature; 3 times as many offered](bench/results/overload-1.json) | 300 | 69 | 900 ms | 1100 ms |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q in\n%s", want, &b)
		}
	}
	b.Reset()
	if err := s.Plot(&b); err != nil {
		t.Fatal(err)
	}
	picture := b.String()
	if strings.Count(picture, "<rect x=\"440\"") != 3 || !strings.Contains(picture, "New, unsigned, state in memory") || strings.Contains(picture, "NaN") {
		t.Errorf("not the bars of one load and two peers:\n%s", picture)
	}
	if _, err := s.Insert([]byte("nothing")); err == nil {
		t.Error("a file without marks")
	}
}

// TestRefused: no figure comes of a report that failed, of runs that differ, or of nothing.
func TestRefused(t *testing.T) {
	failed, other := small(1, 1), small(1, 1)
	failed.Checks = []report.Check{{Name: "none_lost"}}
	other.Scenario.Rate = 200
	for name, files := range map[string][]*report.Report{"none_lost failed": {failed}, "another scenario": {small(1, 1), other}, "holds no report": {}} {
		dir := t.TempDir()
		for i, r := range files {
			write(t, dir, fmt.Sprintf("x-%d.json", i+1), r)
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
