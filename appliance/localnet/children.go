package localnet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	stopGrace = 10 * time.Second // from SIGTERM to SIGKILL
	maxStderr = 1 << 20          // of a child's standard error read to explain its end
)

// child is one node's process.
type child struct {
	name   string
	cmd    *exec.Cmd
	stderr string        // file with its standard error
	done   chan struct{} // closed when the process has been reaped
	err    error         // how it ended; read after done
	meant  atomic.Bool   // its end was asked for, and is no news
}

// children are the processes of a local network. They end when this process does, however it ends: each holds the read
// end of a pipe whose only write end is here, and stops when that is closed.
type children struct {
	alive *os.File // write end
	inner *os.File // read end, inherited by every child as descriptor ParentFD
	all   []*child
	ended chan *child
	grace time.Duration                          // from SIGTERM to SIGKILL
	spawn func(name string, cmd *exec.Cmd) error // nil: cmd.Start
}

// ParentFD is the descriptor on which a child waits for its parent's end.
const ParentFD = 3

func newChildren(n int) (*children, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("localnet: pipe: %w", err)
	}
	return &children{alive: w, inner: r, ended: make(chan *child, n), grace: stopGrace}, nil
}

// put takes ch in, in the place of an earlier process of the same name.
func (c *children) put(ch *child) {
	for i, old := range c.all {
		if old.name == ch.name {
			c.all[i] = ch
			return
		}
	}
	c.all = append(c.all, ch)
}

// start runs the binary with args. Its standard error goes to the file stderr, which is begun anew, its output to stdout (nil:
// nowhere).
func (c *children) start(name, stderr string, stdout io.Writer, binary string, args ...string) error {
	f, err := os.Create(stderr)
	if err != nil {
		return fmt.Errorf("localnet: %w", err)
	}
	defer f.Close() // the child has its own
	ch := &child{name: name, stderr: stderr, done: make(chan struct{})}
	ch.cmd = exec.Command(binary, args...)
	ch.cmd.Stdout, ch.cmd.Stderr = stdout, f
	ch.cmd.ExtraFiles = []*os.File{c.inner}
	ch.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches us alone; we stop them in order
	spawn := c.spawn
	if spawn == nil {
		spawn = func(_ string, cmd *exec.Cmd) error { return cmd.Start() }
	}
	if err := spawn(name, ch.cmd); err != nil {
		return fmt.Errorf("localnet: start %s: %w", name, err)
	}
	c.put(ch)
	go func() {
		ch.err = ch.cmd.Wait()
		close(ch.done)
		if ch.meant.Load() {
			return
		}
		select {
		case c.ended <- ch:
		default: // as many ends wait already as there are nodes
		}
	}()
	return nil
}

// stop ends all children: SIGTERM, then SIGKILL for those that take longer than grace, which is an error.
func (c *children) stop() error {
	_ = c.alive.Close() // the same wish as SIGTERM
	for _, ch := range c.all {
		_ = ch.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = ch.cmd.Process.Signal(syscall.SIGCONT) // or stand still
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.grace)
	defer cancel()
	var errs []error
	for _, ch := range c.all {
		select {
		case <-ch.done:
		case <-ctx.Done():
			_ = ch.cmd.Process.Kill()
			<-ch.done
			errs = append(errs, fmt.Errorf("localnet: %s did not stop within %s and was killed", ch.name, c.grace))
		}
	}
	_ = c.inner.Close()
	return errors.Join(errs...)
}

// why says how a child ended, with the last line it wrote.
func (ch *child) why() string {
	how := "exit status 0"
	if ch.err != nil {
		how = ch.err.Error()
	}
	if line := lastLine(ch.stderr); line != "" {
		return how + ": " + line
	}
	return how
}

// lastLine is what best explains the end of a process in what it wrote to standard error: the first line of a panic,
// else the last line.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	last := ""
	lines := bufio.NewScanner(io.LimitReader(f, maxStderr))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return line
		}
		if line != "" {
			last = line
		}
	}
	return last
}

// lastWords keeps the last whole line that was written to it, or so much of its beginning as is shown. Safe for concurrent use.
type lastWords struct {
	mu   sync.Mutex
	part []byte // of the line that is being written
	line string
}

const maxLastWords = 400

func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for chunk := range bytes.Lines(b) {
		text, whole := bytes.CutSuffix(chunk, []byte("\n"))
		w.part = append(w.part, text[:min(len(text), maxLastWords-len(w.part))]...)
		if whole {
			w.line, w.part = string(w.part), w.part[:0]
		}
	}
	return len(b), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}
