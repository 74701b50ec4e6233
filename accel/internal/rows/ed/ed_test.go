package ed

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var rounds = flag.Int("rounds", 0, "measure rows this often and print the minimum and median CPU time per item")

// TestRows sets every row up and runs the small ones once, so that none rots. With -rounds=15 it prints all.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rows() {
		if seen[r.Name] || strings.Count(r.Name, "/") != 3 {
			t.Errorf("row %q twice, or without operation, variant, size and backend", r.Name)
		}
		seen[r.Name] = true
		if *rounds == 0 && r.Items > 600 {
			continue
		}
		run, err := r.Setup()
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		run()
		if *rounds == 0 {
			continue
		}
		var took []float64
		for range *rounds {
			start := cpuTime(t)
			times := max(1, 512/r.Items)
			for range times {
				run()
			}
			took = append(took, float64(cpuTime(t)-start)/float64(times*r.Items))
		}
		slices.Sort(took)
		t.Logf("%-48s min %8.0f median %8.0f ns", r.Name, took[0], took[len(took)/2])
	}
}

// cpuTime is that of the process, so that garbage collection counts.
func cpuTime(t *testing.T) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
