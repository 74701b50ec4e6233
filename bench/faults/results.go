package faults

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
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
	err = rows(r.Path, r.Commit, resultsHead, func(fields []string) error {
		outcome := fields[len(fields)-1]
		if strings.HasPrefix(outcome, canary) {
			return nil
		}
		runs++
		if !strings.HasPrefix(outcome, passed) {
			bad++
		}
		return nil
	})
	return runs, bad, err
}

// rows calls f for each line of a commit's, or of all if that is empty, in a file of results, if there is one. Lines of other
// lengths than the head's are of other campaigns.
func rows(path, commit, head string, f func(fields []string) error) error {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	columns := strings.Count(head, "\t") + 1
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != columns || line == head+"\n" || commit != "" && fields[0] != commit {
			continue
		}
		if err := f(fields); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
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

func (r Results) line(run Result, outcome string) error {
	return appendLine(r.Path, resultsHead, fmt.Sprintf("%s\t%d\t%d\t%.1f\t%s", r.Commit, run.Seed, run.Proofs, run.Took.Seconds(), oneLine(outcome)))
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// appendLine appends a line to a file, after a head if it is new.
func appendLine(path, head, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if text += "\n"; info.Size() == 0 {
		text = head + "\n" + text
	}
	_, err = f.WriteString(text)
	return err
}

// BoxResults is a file of black-box runs, one a line; boxHead names the columns. duration_s is the run's wall time, of its
// own; runs at the same time each count theirs.
type BoxResults struct {
	Path   string
	Commit string
}

const boxHead = "commit\tseed\tbuild\tshards\tvalidators\tnemeses\tblocks\tproofs\tstall_s\tsettle_s\tduration_s\toutcome"

// Done adds up the time of all runs since the last one that failed, and of those the time of runs at this commit, and counts
// the failed runs at this commit.
func (r BoxResults) Done() (all, here time.Duration, bad int, err error) {
	err = rows(r.Path, "", boxHead, func(fields []string) error {
		seconds, err := strconv.ParseFloat(fields[10], 64)
		took := time.Duration(seconds * float64(time.Second))
		switch ours := fields[0] == r.Commit; {
		case strings.HasPrefix(fields[11], canary):
		case !strings.HasPrefix(fields[11], passed):
			all, here = 0, 0
			if ours {
				bad++
			}
		case ours:
			all, here = all+took, here+took
		default:
			all += took
		}
		return err
	})
	return all, here, bad, err
}

// Caught counts the planted bugs that were noticed at this commit.
func (r BoxResults) Caught() (n int, err error) {
	err = rows(r.Path, r.Commit, boxHead, func(fields []string) error {
		if strings.HasPrefix(fields[11], canary) {
			n++
		}
		return nil
	})
	return n, err
}

// Append adds a run. outcome is told if it is empty.
func (r BoxResults) Append(run BoxResult, outcome string) error {
	switch {
	case outcome != "":
	case len(run.Wrongs) > 0:
		outcome = failed + ": " + run.Wrongs[0]
	default:
		outcome = passed
	}
	return appendLine(r.Path, boxHead, fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%s", r.Commit, run.Seed, run.Build, run.Shards, run.Validators,
		run.Nemeses, run.Blocks, run.Proofs, run.Stall.Seconds(), run.Settle.Seconds(), run.Took.Seconds(), oneLine(outcome)))
}
