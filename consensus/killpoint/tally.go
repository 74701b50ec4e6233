package killpoint

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Tally is a file of what a campaign has done, a line for each network, target and point: commit, seed, where (engine: in one
// process, on a crashable file system; process: the real binary), kind, point, count of kills, duration in seconds, outcome.
// Lines are only appended.
type Tally struct {
	Path, Commit, Where string
}

const tallyHead = "commit\tseed\twhere\tkind\tpoint\tcount\tduration_s\toutcome\n"

// Passed begins the outcome of what went well; whatever else does not begin with Canary is a failure.
const (
	Passed = "pass"
	Canary = "canary"
)

// Done counts the kills of each target that went well at this commit, and the lines that did not.
func (t Tally) Done() (kills map[string]int, bad int, err error) {
	kills = map[string]int{}
	f, err := os.Open(t.Path)
	if os.IsNotExist(err) {
		return kills, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		l := strings.Split(lines.Text(), "\t")
		if len(l) != 8 || l[0] != t.Commit || l[2] != t.Where || strings.HasPrefix(l[7], Canary) {
			continue
		}
		count, err := strconv.Atoi(l[5])
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", t.Path, err)
		}
		if strings.HasPrefix(l[7], Passed) {
			kills[l[3]] += count
		} else {
			bad++
		}
	}
	return kills, bad, lines.Err()
}

// Append adds the kills of one network and target, by point.
func (t Tally) Append(seed uint64, kind string, points map[Point]int, took time.Duration, outcome string) (err error) {
	f, err := os.OpenFile(t.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	text, sum := "", 0
	if info.Size() == 0 {
		text = tallyHead
	}
	for _, n := range points {
		sum += n
	}
	for _, p := range []Point{Before, Some, All} {
		if n := points[p]; n > 0 {
			text += fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%d\t%.1f\t%s\n", t.Commit, seed, t.Where, kind, p, n,
				took.Seconds()*float64(n)/float64(sum), strings.Join(strings.Fields(outcome), " "))
		}
	}
	_, err = f.WriteString(text)
	return err
}
