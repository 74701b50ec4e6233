package main

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"tutti/appliance/keys"
	"tutti/bench/lan"
)

// testCost makes the tests' keystores open at once.
const testCost keys.Cost = 1 << 6

// TestMain makes the test binary a tutti whose new keys are cheap to open.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tutti": func() { os.Exit(start(testCost)) }})
}

// TestSignal: SIGTERM ends a command that waits for a node, with one line and status 1.
func TestSignal(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	c := &exec.Cmd{Path: self, Args: []string{"tutti", "status", "--api", "http://" + silent.Addr().String()}, Stdout: &stdout, Stderr: &stderr}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := silent.Accept() // it asks, and will wait long for an answer
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if stdout.Len() > 0 || stderr.String() != "tutti: interrupted\n" {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
}

// TestScripts runs the command line as a user does, without any network: testdata/script/*.txtar.
func TestScripts(t *testing.T) { runScripts(t, "testdata/script", nil, nil) }

// runScripts runs scripts with variables and commands of their own.
func runScripts(t *testing.T, dir string, env map[string]string, own map[string]func(*testscript.TestScript, bool, []string)) {
	cmds := map[string]func(*testscript.TestScript, bool, []string){
		"mode": func(ts *testscript.TestScript, neg bool, args []string) { // mode OCTAL FILE: the file has these permissions
			info, err := os.Stat(ts.MkAbs(args[1]))
			ts.Check(err)
			if got := info.Mode().Perm(); (got.String() == permText(ts, args[0])) == neg {
				ts.Fatalf("%s has mode %04o", args[1], got)
			}
		},
	}
	maps.Copy(cmds, own)
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			for name, value := range env {
				e.Setenv(name, value)
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "namespaces" { // this machine lets us make some
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return lan.Supported() == nil, nil
		},
		Cmds: cmds,
	})
}

func permText(ts *testscript.TestScript, octal string) string {
	var mode os.FileMode
	for _, c := range octal {
		mode = mode<<3 | os.FileMode(c-'0')
	}
	return mode.String()
}

// TestHelp: every command has one line of help, and every one that does something has an example that calls it.
func TestHelp(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.HasParent() && c.Parent().Name() == "completion" {
			return
		}
		if c.Short == "" || strings.Contains(c.Short, "\n") || len(c.Short) > 100 {
			t.Errorf("%s: help line %q", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example in --help", c.CommandPath())
		}
		if c.Args == nil && !c.HasSubCommands() {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot(&app{stdout: os.Stdout}))
}
