package rule

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

var pairs = flag.Bool("pairs", false, "TestVerifyBrokenRules: also that each broken rule breaks nothing but what it is said to")

// needZ3 ends the test where there is no z3: it fails in CI and is skipped elsewhere.
func needZ3(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("z3"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("z3 is not installed, so nothing can be proved: make deps")
		}
		t.Skip("SKIPPED: z3 is not installed, so nothing is proved: make deps")
	}
}

// limit is how long z3 may take for one question, far above what it takes.
const limit = 60 * time.Second

// ask gives a script to z3, and in a second part what to tell of a counterexample. The answer is sat or unsat; all else
// is an error.
func ask(text, more string) (answer, rest string, took time.Duration, err error) {
	cmd := exec.Command("z3", "-in", "-smt2", fmt.Sprintf("-T:%d", int(limit.Seconds())))
	cmd.Stdin = strings.NewReader("(set-option :smt.random_seed 1)\n" + text + more)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	_ = cmd.Run() // its exit code says no more than its output
	answer, rest, _ = strings.Cut(out.String(), "\n")
	if answer != "sat" && answer != "unsat" {
		err = fmt.Errorf("z3 says %q", out.String())
	}
	return answer, rest, time.Since(begun), err
}

// TestVerifyObligations proves the rule: no obligation has a counterexample, of any size. Each allows something at all.
func TestVerifyObligations(t *testing.T) {
	needZ3(t)
	r := Simplex()
	var all time.Duration
	for _, o := range Obligations(r) {
		answer, _, took, err := ask(o.script(r, r, nil, false, false), "")
		all += took
		if err != nil || answer != "unsat" {
			t.Errorf("%s: %s, %v", o.Name, answer, err)
			continue
		}
		t.Logf("%-28s unsat in %.2f s: %s", o.Name, took.Seconds(), o.Says)
		if answer, _, _, err := ask(o.script(r, r, nil, true, true), ""); err != nil || answer != "sat" {
			t.Errorf("%s: its premises allow nothing: %s, %v", o.Name, answer, err)
		}
	}
	t.Logf("proved in %.2f s", all.Seconds())
}

// TestVerifyBrokenRules is the canary: a broken rule is found out at each obligation that it breaks, and each obligation
// is broken by one. With -pairs it breaks no other, as far as z3 sees within scope.
func TestVerifyBrokenRules(t *testing.T) {
	needZ3(t)
	whole := Simplex()
	broken := map[string]bool{}
	for _, tw := range Twins() {
		r := Simplex()
		tw.change(&r)
		all := Obligations(r)
		for _, name := range tw.Breaks {
			k := slices.IndexFunc(all, func(o Obligation) bool { return o.Name == name })
			if k < 0 {
				t.Fatalf("%s breaks %s, and there is no such obligation", tw.Name, name)
			}
			o := &all[k]
			broken[name] = true
			answer, rest, took, err := ask(o.script(r, whole, tw.Breaks, true, false), o.questions())
			if err != nil || answer != "sat" {
				t.Errorf("%s: %s: %s, %v", tw.Name, name, answer, err)
				continue
			}
			t.Logf("%-32s %-28s sat in %.2f s\n%s", tw.Name, name, took.Seconds(), o.sketch(rest))
		}
		for _, o := range all {
			if !*pairs || slices.Contains(tw.Breaks, o.Name) {
				continue
			}
			if answer, _, _, err := ask(o.script(r, whole, tw.Breaks, true, false), ""); err != nil || answer != "unsat" {
				t.Errorf("%s: %s: %s, %v: it breaks more than it is said to", tw.Name, o.Name, answer, err)
			}
		}
	}
	for _, o := range Obligations(whole) {
		if !broken[o.Name] {
			t.Errorf("%s: no broken rule breaks it", o.Name)
		}
	}
}
