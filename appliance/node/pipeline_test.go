package node

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/appliance/config"
	"tutti/netstack"
	"tutti/netstack/p2p"
)

var update = flag.Bool("update", false, "rewrite the table in ARCHITECTURE.md, and golden files in testdata")

const (
	architecture = "../../ARCHITECTURE.md"
	tableBegins  = "<!-- pipeline -->\n"
	tableEnds    = "<!-- /pipeline -->"
)

func TestPipelineTable(t *testing.T) {
	var want strings.Builder
	want.WriteString("| stage | package | goroutines | queue | when full |\n|---|---|---|---|---|\n")
	for _, s := range Pipeline {
		fmt.Fprintf(&want, "| %s | `%s` | %s | %s | %s |\n", s.Name, s.Package, s.Goroutines, s.Queue, s.Full)
	}
	text, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	table, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table between %q and %q", architecture, tableBegins, tableEnds)
	}
	if *update {
		if err := os.WriteFile(architecture, []byte(before+tableBegins+want.String()+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), table); diff != "" {
		t.Errorf("the table in ARCHITECTURE.md is not Pipeline (-code +page); go test ./appliance/node -run TestPipelineTable -update rewrites it:\n%s", diff)
	}
}

// TestPipelineNumbers holds the numbers in Pipeline to the ones that the code uses.
func TestPipelineNumbers(t *testing.T) {
	net, cfg := p2p.DefaultLimits(), config.Default()
	want := map[string][]int{
		"take in from clients":        {apiRequests, cfg.API.MaxConnections},
		"take in from validators":     {net.Receive[netstack.ClassTransaction]},
		"verify signatures":           {verifyDepth},
		"admit":                       {cfg.Pool.MaxTransactions, 1},
		"check and hold batches":      {cfg.Pool.MaxBatched, batchBytes >> 20},
		"forward to coming leaders":   {1, forwardQueue, forwardBatches, net.Send[netstack.ClassTransaction].Messages, int(resendAfter.Seconds())},
		"build a block":               {1, 1},
		"send the proposal":           {net.Send[netstack.ClassProposal].Messages, net.Send[netstack.ClassProposal].Bytes >> 20},
		"vote: log, sync, send":       {1, net.Receive[netstack.ClassVote]},
		"rebuild the body from parts": {constant(t, "../../consensus/engine", "maxRebuilds")},
		"certify: execute, hash":      {1, constant(t, "../../consensus/engine", "maxJobs")},
		"finalise: one durable batch": {1, constant(t, "../../consensus/engine", "maxFinals")},
		"tell and prove":              {cfg.API.MaxSubscribers, apiQueue, apiQueueBytes >> 20},
	}
	status := []int{503, 429}
	number := regexp.MustCompile(`\d[\d,]*`)
	for _, s := range Pipeline {
		var got []int
		for _, text := range number.FindAllString(strings.Join([]string{s.Goroutines, s.Queue, s.Full}, " | "), -1) {
			n, err := strconv.Atoi(strings.ReplaceAll(strings.TrimRight(text, ","), ",", ""))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(status, n) {
				got = append(got, n)
			}
		}
		expected, ok := want[s.Name]
		if !ok {
			t.Errorf("stage %q: say in this test where its numbers come from", s.Name)
		} else if !slices.Equal(got, expected) {
			t.Errorf("stage %q names %v, the code has %v", s.Name, got, expected)
		}
		if info, err := os.Stat(filepath.Join("../..", s.Package)); err != nil || !info.IsDir() {
			t.Errorf("stage %q: there is no package %s", s.Name, s.Package)
		}
	}
	if len(want) != len(Pipeline) {
		t.Errorf("%d stages, numbers of %d", len(Pipeline), len(want))
	}
}

// constant reads an integer constant that a package keeps to itself.
func constant(t *testing.T, dir, name string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	definition := regexp.MustCompile(`(?m)^\s*(?:const )?` + name + `\s+=\s+(\d+)\b`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if m := definition.FindSubmatch(text); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			return n
		}
	}
	t.Fatalf("%s has no constant %s", dir, name)
	return 0
}
