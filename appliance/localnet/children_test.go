package localnet

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// until waits for something that other processes do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit, beat := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer beat.Stop()
	for !ok() {
		select {
		case <-beat.C:
		case <-limit:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// isHeld reports whether a process runs that holds the lock on a file.
func isHeld(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

func startChild(t *testing.T, kind string) (c *children, lock string) {
	t.Helper()
	lock = filepath.Join(t.TempDir(), "lock")
	c, err := newChildren(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.start("node", lock+".stderr", nil, os.Args[0], kind, lock); err != nil {
		t.Fatal(err)
	}
	until(t, "the child runs", func() bool { return isHeld(t, lock) })
	return c, lock
}

func TestChildStops(t *testing.T) {
	c, lock := startChild(t, "well-behaved")
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if isHeld(t, lock) {
		t.Error("it still runs")
	}
	if err := c.stop(); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestStubbornChildIsKilled(t *testing.T) {
	c, lock := startChild(t, "stubborn")
	c.grace = 50 * time.Millisecond
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "node did not stop within 50ms") {
		t.Errorf("stop: %v", err)
	}
	if isHeld(t, lock) {
		t.Error("it still runs")
	}
	if why := c.all[0].why(); why != "signal: killed" {
		t.Errorf("ended: %s", why)
	}
}

// TestChildrenEndWithTheirParent: whatever ends the parent, even kill -9, no child outlives it.
func TestChildrenEndWithTheirParent(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	parent := exec.Command(os.Args[0], "parent", lock)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		t.Fatalf("the parent says %q: %v", line, err)
	}
	until(t, "the child runs", func() bool { return isHeld(t, lock) })
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	until(t, "the child ends", func() bool { return !isHeld(t, lock) })
}

func TestChildSaysWhy(t *testing.T) {
	c, err := newChildren(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.start("node", filepath.Join(t.TempDir(), "stderr"), nil, os.Args[0], "run"); err != nil {
		t.Fatal(err)
	}
	ch := <-c.ended
	if why := ch.why(); ch.name != "node" || why != "exit status 1: tutti: the disk is full: free some space" {
		t.Errorf("%s ended: %s", ch.name, why)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
	if err := c.start("other", filepath.Join(t.TempDir(), "stderr"), nil, filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a program that there is not was started")
	}
}

func TestLastWords(t *testing.T) {
	long := strings.Repeat("x", maxLastWords+1)
	for name, c := range map[string]struct {
		writes []string
		want   string
	}{
		"nothing":            {nil, ""},
		"half a line":        {[]string{"half"}, ""},
		"a line in parts":    {[]string{"one ", "line", "\n"}, "one line"},
		"the last whole one": {[]string{"first\nsecond\nthi"}, "second"},
		"a long one":         {[]string{"x", long, long + "\nnext"}, long[1:]},
		"after a long one":   {[]string{long + "\nnext\n"}, "next"},
	} {
		t.Run(name, func(t *testing.T) {
			var w lastWords
			for _, b := range c.writes {
				if n, err := w.Write([]byte(b)); n != len(b) || err != nil {
					t.Errorf("wrote %d of %d bytes: %v", n, len(b), err)
				}
			}
			if got := w.String(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestLastLine(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":         {"", ""},
		"blank lines":     {"\n \n\n", ""},
		"one line":        {"tutti: no space\n", "tutti: no space"},
		"the last":        {"first\nsecond\n\n  third  \n \n", "third"},
		"no newline":      {"first\nsecond", "second"},
		"a panic":         {"hello\npanic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:3\nexit status 2\n", "panic: boom"},
		"a runtime error": {"fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1\n", "fatal error: all goroutines are asleep - deadlock!"},
		"a mention":       {"no panic: here\nlast\n", "last"},
		"a huge line":     {"before\n" + strings.Repeat("x", 1<<17) + "\nafter\n", "before"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "stderr")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := lastLine(path); got != c.want {
				t.Errorf("%.80q, want %q", got, c.want)
			}
		})
	}
	if got := lastLine(filepath.Join(t.TempDir(), "missing")); got != "" {
		t.Errorf("of no file: %q", got)
	}
}
