package plant

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProgram builds a program with a bug, which shows when it is awake and only then.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	for name, text := range map[string]string{
		"go.mod":  "module example\n\ngo 1.24\n",
		"main.go": "package main\n\nfunc main() {\n\tprintln(\"right\")\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	bugs := []Bug{{"wrong", "main.go", `println("right")`, `if planted(%q) { println("wrong") } else { println("right") }`}}
	binary, err := Program(t.TempDir(), ".", bugs)
	if err != nil {
		t.Fatal(err)
	}
	for _, bug := range []string{"", "wrong", "another"} {
		cmd := exec.Command(binary)
		cmd.Env = Awake(bug)
		out, err := cmd.CombinedOutput()
		if want := map[string]string{"": "right\n", "wrong": "wrong\n", "another": "right\n"}[bug]; err != nil || string(out) != want {
			t.Errorf("with %q: %q, %v", bug, out, err)
		}
	}
	for _, tc := range []struct {
		bug  Bug
		says string
	}{
		{Bug{"gone", "main.go", "left", "planted(%q)"}, "0 times"},
		{Bug{"twice", "main.go", "main", "planted(%q)"}, "2 times"},
		{Bug{"asleep", "main.go", "right", "wrong"}, "needs planted"},
		{Bug{"missing", "other.go", "right", "planted(%q)"}, "no such file"},
		{Bug{"broken", "main.go", "println", "planted(%q) + 1"}, "go build"},
	} {
		if _, err := Program(t.TempDir(), ".", []Bug{tc.bug}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", tc.bug.Name, err)
		}
	}
	if text, err := os.ReadFile(main); err != nil || strings.Contains(string(text), "planted") {
		t.Errorf("the tree was touched: %v", err)
	}
}
