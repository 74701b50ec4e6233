package faults

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Results is a file of runs, one a line: commit, seed, count of proofs that nodes were asked for again, duration in
// seconds, outcome. Lines are only appended.
type Results struct {
	Path   string
	Commit string
}

const resultsHead = "commit\tseed\tproofs\tduration_s\toutcome"

// Done counts the runs at this commit, and those of them that failed.
func (r Results) Done() (runs, failed int, err error) {
	f, err := os.Open(r.Path)
	if os.IsNotExist(err) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 5 || fields[0] != r.Commit {
			continue
		}
		runs++
		if !strings.HasPrefix(fields[4], "pass") {
			failed++
		}
	}
	return runs, failed, lines.Err()
}

// Append adds a run. detail says more about a run that passed.
func (r Results) Append(run Result, detail string) error {
	f, err := os.OpenFile(r.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() == 0 {
		if _, err := fmt.Fprintln(f, resultsHead); err != nil {
			return err
		}
	}
	outcome := "pass"
	if detail != "" {
		outcome += " (" + detail + ")"
	}
	if len(run.Wrongs) > 0 {
		outcome = "FAIL (" + detail + "): " + strings.Join(strings.Fields(run.Wrongs[0]), " ")
	}
	if _, err := fmt.Fprintf(f, "%s\t%d\t%d\t%.1f\t%s\n", r.Commit, run.Seed, run.Proofs, run.Took.Seconds(), outcome); err != nil {
		return err
	}
	return f.Sync()
}
