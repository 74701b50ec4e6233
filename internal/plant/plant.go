// Package plant builds programs and tests that have bugs in them on purpose, to show that a check notices them. Tests
// use it; nothing else may.
//
// The tree is not touched: the compiler is given other content for some files (go build -overlay). All bugs are in one
// build, each asleep until the environment variable TUTTI_PLANTED names it, so that one build serves many.
package plant

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Bug is one change to a source file. New has one %q, inside planted(%q), which reports whether this bug is awake; beside
// it New may use every(n), which is true in each n-th call, and count(b), which is 1 or 0.
type Bug struct {
	Name     string
	File     string // relative to the working folder, which for a test is its package's
	Old, New string // Old is in the file exactly once
}

// helpers goes into the packages that are edited.
const helpers = `package %s

import (
	"os"
	"sync/atomic"
)

var plantedBug = os.Getenv("TUTTI_PLANTED")

func planted(bug string) bool { return plantedBug == bug }

var plantedCalls atomic.Int64

func every(n int64) bool { return plantedCalls.Add(1)%%n == 0 }

func count(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
`

// Tests builds the tests of the package in the working folder with bugs in it, in dir. The binary is run in the package's
// folder, and with Awake's environment.
func Tests(dir string, bugs []Bug, flags ...string) (binary string, err error) {
	return build(dir, bugs, append([]string{"test", "-c"}, flags...), ".")
}

// Program builds the program in a package with bugs in it, in dir. flags are go build's.
func Program(dir, pkg string, bugs []Bug, flags ...string) (binary string, err error) {
	return build(dir, bugs, append([]string{"build"}, flags...), pkg)
}

// Noticed builds the tests of the package in the working folder with bugs in it, and runs those that args, flags of a test
// binary, name: without a bug they pass, and each bug makes them fail.
func Noticed(t *testing.T, bugs []Bug, args ...string) {
	t.Helper()
	binary, err := Tests(t.TempDir(), bugs)
	if err != nil {
		t.Fatal(err)
	}
	run := func(bug string) (string, error) {
		c := exec.Command(binary, args...)
		c.Env = Awake(bug)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := run(""); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			out, err := run(b.Name)
			if err == nil {
				t.Fatal("not noticed")
			}
			t.Log(complaint.FindString(out))
		})
	}
}

// complaint is the first line that a failing test or a panic wrote.
var complaint = regexp.MustCompile(`(?m)^.*(_test\.go:\d+:|panic:|testdata/\S+:\d+:).*$`)

// Awake is the environment in which a bug is awake; with "" none is.
func Awake(bug string) []string { return append(os.Environ(), "TUTTI_PLANTED="+bug) }

func build(dir string, bugs []Bug, command []string, pkg string) (string, error) {
	content := map[string]string{}
	for _, b := range bugs {
		if err := plant(content, b); err != nil {
			return "", fmt.Errorf("plant: %q: %w", b.Name, err)
		}
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, source := range content {
		at := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "_"))
		if err := os.WriteFile(at, []byte(source), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[path] = at
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	listed, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "planted")
	if err := os.WriteFile(listed, list, 0o600); err != nil {
		return "", err
	}
	cmd := exec.Command("go", append(command, "-overlay", listed, "-o", binary, pkg)...)
	if os.Getenv("CGO_CFLAGS") == "" { // as the Makefile has it
		cmd.Env = append(os.Environ(), "CGO_CFLAGS=-O2 -D__BLST_PORTABLE__")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("plant: go %s: %w\n%s", command[0], err, out)
	}
	return binary, nil
}

// plant puts a bug into the content of its file.
func plant(content map[string]string, b Bug) error {
	if strings.Count(b.New, "planted(%q)") != 1 || strings.Count(b.New, "%") != 1 {
		return errors.New("what is planted needs planted(%q) once, and no other %")
	}
	path, err := filepath.Abs(b.File)
	if err != nil {
		return err
	}
	if _, ok := content[path]; !ok {
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[path] = string(source)
	}
	if n := strings.Count(content[path], b.Old); n != 1 {
		return fmt.Errorf("%q is %d times in %s, not once: say again how to plant it", b.Old, n, b.File)
	}
	content[path] = strings.Replace(content[path], b.Old, fmt.Sprintf(b.New, b.Name), 1)
	folder := filepath.Dir(path)
	file, err := parser.ParseFile(token.NewFileSet(), path, content[path], parser.PackageClauseOnly)
	if err != nil {
		return err
	}
	content[filepath.Join(folder, "planted_bugs.go")] = fmt.Sprintf(helpers, file.Name.Name)
	return nil
}
