package killpoint

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"tutti/consensus"
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

// Heard is a payload that a member was sent: a line of text in the file of what it heard.
type Heard struct {
	From  int
	Sum   Sum
	Votes []Cast
}

// Line is the text, without a line's end: from, sum, and for each vote validator:kind:shard:epoch:view:block.
func (h Heard) Line() string {
	text := fmt.Sprintf("%d %x", h.From, h.Sum[:])
	for _, c := range h.Votes {
		st := c.Statement
		text += fmt.Sprintf(" %d:%d:%d:%d:%d:%x", c.Validator, st.Kind, st.Shard, st.Epoch, st.View, st.Block[:])
	}
	return text
}

// ParseHeard reads a line.
func ParseHeard(line string) (h Heard, err error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return h, fmt.Errorf("killpoint: %q is nothing that was heard", line)
	}
	if h.From, err = strconv.Atoi(fields[0]); err != nil {
		return h, fmt.Errorf("killpoint: %q: %w", line, err)
	}
	if err := h.Sum.UnmarshalText([]byte(fields[1])); err != nil {
		return h, err
	}
	for _, f := range fields[2:] {
		var c Cast
		var block Sum
		head, tail := f[:strings.LastIndexByte(f, ':')+1], f[strings.LastIndexByte(f, ':')+1:]
		st := &c.Statement
		if _, err := fmt.Sscanf(head, "%d:%d:%d:%d:%d:", &c.Validator, &st.Kind, &st.Shard, &st.Epoch, &st.View); err != nil {
			return h, fmt.Errorf("killpoint: %q: %w", f, err)
		}
		if err := block.UnmarshalText([]byte(tail)); err != nil {
			return h, err
		}
		st.Block = consensus.Hash(block)
		h.Votes = append(h.Votes, c)
	}
	return h, nil
}
