package faults

import (
	"bufio"
	"errors"
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

// Outcomes begin with one of these words. Canaries are not counted as runs.
const (
	passed = "pass"
	failed = "FAIL"
	canary = "canary"
)

// Done counts the runs at this commit, and those of them that failed.
func (r Results) Done() (runs, bad int, err error) {
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
		if len(fields) != 5 || fields[0] != r.Commit || strings.HasPrefix(fields[4], canary) {
			continue
		}
		runs++
		if !strings.HasPrefix(fields[4], passed) {
			bad++
		}
	}
	return runs, bad, lines.Err()
}

// Append adds a run. detail says more about it.
func (r Results) Append(run Result, detail string) error {
	outcome := passed
	if len(run.Wrongs) > 0 {
		outcome = failed
	}
	if detail != "" {
		outcome += " (" + detail + ")"
	}
	if len(run.Wrongs) > 0 {
		outcome += ": " + run.Wrongs[0]
	}
	return r.line(run, outcome)
}

// AppendCanary adds what became of a canary.
func (r Results) AppendCanary(run Result, outcome string) error {
	return r.line(run, canary+" "+outcome)
}

func (r Results) line(run Result, outcome string) (err error) {
	f, err := os.OpenFile(r.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s\t%d\t%d\t%.1f\t%s\n", r.Commit, run.Seed, run.Proofs, run.Took.Seconds(), strings.Join(strings.Fields(outcome), " "))
	if info.Size() == 0 {
		text = resultsHead + "\n" + text
	}
	_, err = f.WriteString(text)
	return err
}
