package faults

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var awayBlocks = flag.Uint64("away", 0, "blocks of the longest absence, after a minute's; 0: the short version")

// TestAway has a validator come back from each kind of absence without help; with -away it prints the times and appends them to
// -results.
func TestAway(t *testing.T) {
	a := Away{Binary: buildKills(t), Dir: dir(t), Rate: 200, Long: time.Second, Blocks: 1000, At: 30, Keep: 100, Accounts: 2000, Logf: t.Logf}
	if *awayBlocks > 0 {
		a.Rate, a.Long, a.Blocks, a.At, a.Keep, a.Accounts = 300, time.Minute, *awayBlocks, 1000, 10_000, 10_000
	}
	s := freshSeed()
	t.Logf("seed %d", s)
	returns, wrongs, err := a.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range wrongs {
		t.Error(wrong)
	}
	t.Setenv(killsFolder, "")
	absences := []func(context.Context, uint64) (Return, error){a.Million}
	if *awayBlocks > 0 {
		absences = append(absences, a.Epochs)
	}
	for _, play := range absences {
		r, err := play(t.Context(), s)
		if err != nil {
			t.Error(err)
			continue
		}
		returns = append(returns, r)
	}
	table := ""
	for _, r := range returns {
		table += fmt.Sprintf("%-45s %9d blocks behind %8.2f s\n", r.From, r.Lacked, r.Voted.Seconds())
	}
	t.Logf("from the start of the process to its signature in a certificate, %.0f tx/s:\n%s", a.Rate, table)
	if *awayBlocks > 0 && *results != "" && !t.Failed() {
		if err := appendReturns(*results, commit(t), s, a.Rate, returns); err != nil {
			t.Error(err)
		}
	}
}

func appendReturns(path, commit string, seed uint64, rate float64, all []Return) error {
	var text strings.Builder
	if _, err := os.Stat(path); os.IsNotExist(err) {
		text.WriteString("commit\tseed\trate\tfrom\tblocks_behind\tvoted_s\n")
	}
	for _, r := range all {
		fmt.Fprintf(&text, "%s\t%d\t%.0f\t%s\t%d\t%.2f\n", commit, seed, rate, r.From, r.Lacked, r.Voted.Seconds())
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text.String()); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
