package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tutti/bench/report"
)

// Run is one `tutti bench`.
type Run struct {
	Binary string        // tutti
	Args   []string      // without --json
	Cores  int           // that it and its network run on; 0: all
	Limit  time.Duration // on its length; 0: none
	Out    io.Writer     // what it says; nil: nowhere
}

const (
	benchGrace = 30 * time.Second // from the interrupt to the kill: it has a network to stop
	maxReport  = 16 << 20
	tailBytes  = 400 // of what it said, for the error
)

// ErrTooLong says that a run took longer than its limit.
var ErrTooLong = errors.New("took longer than its limit")

// Bench runs it and returns its report, also one whose checks failed: see report.Failed. A run without a report is an
// error, with the end of what it said.
func Bench(ctx context.Context, r Run) (_ *report.Report, err error) {
	dir, err := os.MkdirTemp("", "tutti-bench-report-")
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if r.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Limit, fmt.Errorf("%w of %s", ErrTooLong, r.Limit))
		defer cancel()
	}
	file := filepath.Join(dir, "report.json")
	cmd := exec.Command(r.Binary, append(append([]string{"bench"}, r.Args...), "--json", file)...)
	said := &tail{out: r.Out}
	cmd.Stdout, cmd.Stderr = said, said
	p, err := Start(cmd, r.Cores)
	if err != nil {
		return nil, err
	}
	ended := p.Wait(ctx, benchGrace)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b, err := readBounded(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("child: tutti bench %s ended without a report (%v); it said at last: %s", strings.Join(r.Args, " "), ended, said)
	}
	if err != nil {
		return nil, err
	}
	return parse(b)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReport+1))
	if err == nil && len(b) > maxReport {
		err = fmt.Errorf("child: the report is over %d bytes", maxReport)
	}
	return b, err
}

func parse(b []byte) (*report.Report, error) {
	r := new(report.Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("child: report: %w", err)
	}
	if r.Schema != report.Schema {
		return nil, fmt.Errorf("child: the report has schema %q, this program knows %q: build both from one commit", r.Schema, report.Schema)
	}
	return r, nil
}

// tail passes on what is written, and keeps the end of it.
type tail struct {
	out  io.Writer
	last []byte
}

func (t *tail) Write(b []byte) (int, error) {
	if t.last = append(t.last, b...); len(t.last) > tailBytes {
		t.last = append([]byte(nil), t.last[len(t.last)-tailBytes:]...)
	}
	if t.out != nil {
		return t.out.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string { return string(bytes.Join(bytes.Fields(t.last), []byte(" "))) }
