package bls

import (
	"flag"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	measure = flag.String("measure", "", "measure the rows that match, instead of running the short ones once")
	trials  = flag.Int("trials", 15, "how often to measure a row")
)

// TestRows runs every row once that needs no large directory, so that the benchmark can't rot.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rows() {
		if strings.Count(r.Name, "/") != 3 || seen[r.Name] || r.Items < 1 {
			t.Errorf("row %q of %d items", r.Name, r.Items)
		}
		seen[r.Name] = true
		if *measure != "" || strings.HasPrefix(r.Name, "bls-key-sum") || testing.Short() {
			continue
		}
		if strings.Contains(r.Name, "shares/") || strings.Contains(r.Name, "each") {
			continue // seconds
		}
		run, err := r.Setup()
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		run()
	}
}

// TestMeasure prints CPU time per item, minimum and median.
func TestMeasure(t *testing.T) {
	if *measure == "" {
		t.Skip("give -measure a pattern")
	}
	pattern := regexp.MustCompile(*measure)
	for _, r := range Rows() {
		if !pattern.MatchString(r.Name) {
			continue
		}
		run, err := r.Setup()
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		run()
		runtime.GC()
		var costs []int64
		for range *trials {
			start := cpuNs()
			run()
			costs = append(costs, (cpuNs()-start)/int64(r.Items))
		}
		slices.Sort(costs)
		t.Logf("%-55s %10d %10d ns/item", r.Name, costs[0], costs[len(costs)/2])
	}
}

// cpuNs is the CPU time of all threads: raw blst spreads its work over some.
func cpuNs() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}
