package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// role makes a process of this test one that a test needs.
const role = "TUTTI_TEST_ROLE"

// self is a command that runs one test of this program in a role.
func self(t *testing.T, test, as string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), role+"="+as)
	return cmd
}

// TestEndsWithParent: when a process is killed, so is the child that it started.
func TestEndsWithParent(t *testing.T) {
	switch os.Getenv(role) {
	case "child":
		select {}
	case "parent":
		p, err := Start(self(t, "TestEndsWithParent", "child"), 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(p.PID())
		select {}
	}
	parent := self(t, "TestEndsWithParent", "parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(parent, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(0)
	var child int
	if _, err := fmt.Fscan(bufio.NewReader(out), &child); err != nil {
		t.Fatal(err)
	}
	runtime.GC() // threads without work may end now
	if err := unix.Kill(child, 0); err != nil {
		t.Fatalf("the child does not run: %v", err)
	}
	p.Stop(0)
	for deadline := time.Now().Add(10 * time.Second); running(child); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the child has outlived its parent")
		}
	}
}

// running reports whether a process runs: neither gone nor waiting for its parent to notice its end.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// TestCores: a child has as many cores as it was given, and this process keeps its own.
func TestCores(t *testing.T) {
	if os.Getenv(role) == "count" {
		fmt.Println("cores:", runtime.NumCPU())
		return
	}
	before := runtime.NumCPU()
	var out strings.Builder
	cmd := self(t, "TestCores", "count")
	cmd.Stdout = &out
	p, err := Start(cmd, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(t.Context(), time.Second); err != nil || !strings.Contains(out.String(), "cores: 1\n") {
		t.Errorf("%v: %s", err, &out)
	}
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil || now.Count() != before {
		t.Errorf("this process has %d cores now, %d before: %v", now.Count(), before, err)
	}
	if _, err := Start(exec.Command("true"), before+1); err == nil {
		t.Error("a child was given more cores than there are")
	}
	if _, err := Start(exec.Command("/does/not/exist"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestStop: a child that is asked to end may do so; one that does not is killed.
func TestStop(t *testing.T) {
	for _, tc := range []struct{ name, script, ended string }{
		{"ends", "trap 'exit 3' INT; echo up; while :; do sleep 0.01; done", "exit status 3"},
		{"is killed", "trap '' INT; echo up; while :; do sleep 0.01; done", "signal: killed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", tc.script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			p, err := Start(cmd, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if mib, err := ResidentMiB(p.PID()); err != nil || mib <= 0 {
				t.Errorf("%v MiB, %v", mib, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := p.Wait(ctx, 500*time.Millisecond); !errors.Is(err, context.Canceled) {
				t.Errorf("waiting ended with %v", err)
			}
			if p.Err() == nil || p.Err().Error() != tc.ended {
				t.Errorf("it ended with %v, want %s", p.Err(), tc.ended)
			}
		})
	}
	if _, err := ResidentMiB(0); err == nil {
		t.Error("process 0 has memory")
	}
}

// script is a program for Bench that does as the text says, with $file where the report is wanted.
func script(t *testing.T, text string) string {
	t.Helper()
	path := t.TempDir() + "/tutti"
	text = "#!/bin/sh\nfor file; do :; done\n" + text + "\n" // the last argument
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBench: the report comes back, also one of a run that does not count; without one there is an error that quotes the program.
func TestBench(t *testing.T) {
	const good = `echo '{"schema":"tutti-bench/1","result":{"tps":12.5},"checks":[{"name":"none_lost","ok":false}]}' > $file; exit 1`
	r, err := Bench(t.Context(), Run{Binary: script(t, `[ "$1$2$3" = bench--rate5 ] || exit 9; `+good), Args: []string{"--rate", "5"}})
	if err != nil || r.Result.TPS != 12.5 || len(r.Failed()) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, tc := range []struct {
		text  string
		limit time.Duration
		want  string
	}{
		{"echo no room >&2; exit 1", 0, "no room"},
		{`echo '{"schema":"other"}' > $file`, 0, `schema "other"`},
		{`echo '{' > $file`, 0, "report: "},
		{"head -c 17000000 /dev/zero > $file", 0, "over 16777216 bytes"},
		{"exec sleep 60", 100 * time.Millisecond, "took longer than its limit of 100ms"},
	} {
		if _, err := Bench(t.Context(), Run{Binary: script(t, tc.text), Limit: tc.limit}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.text, err, tc.want)
		}
	}
}
