package accel

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// configured is what a process of TestConfigure prints.
type configured struct {
	Notes    []string
	Err      string
	Again    string // error of a second Configure
	Verdicts []Verdict
}

// TestMain lets the test binary be the process that TestConfigure starts: settings count once per process.
func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv("ACCEL_TEST_DIR"); ok {
		var out configured
		var err error
		out.Notes, err = Configure(Settings{Use: os.Getenv("ACCEL_TEST_USE"), Dir: dir})
		if err != nil {
			out.Err = err.Error()
		}
		if _, err := Configure(Settings{}); err != nil {
			out.Again = err.Error()
		}
		out.Verdicts = SelfTest()
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func configure(t *testing.T, dir, use, env string) (out configured) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "ACCEL_TEST_DIR="+dir, "ACCEL_TEST_USE="+use, Variable+"="+env)
	b, err := c.Output()
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

// cached counts the verdicts whose costs come from a file, and all that have costs.
func (c configured) cached() (fromFile, all int) {
	for _, v := range c.Verdicts {
		if len(v.Costs) > 0 {
			all++
		}
		if v.Cached {
			fromFile++
		}
	}
	return fromFile, all
}

func (c configured) verdict(operation, backend string) Verdict {
	i := slices.IndexFunc(c.Verdicts, func(v Verdict) bool { return v.Operation == operation && v.Backend == backend })
	if i < 0 {
		return Verdict{}
	}
	return c.Verdicts[i]
}

func TestConfigure(t *testing.T) {
	dir := t.TempDir()
	first := configure(t, dir, "", "")
	if n, _ := first.cached(); first.Err != "" || len(first.Notes) > 0 || n != 0 || !strings.Contains(first.Again, "too late") {
		t.Errorf("first process: %+v", first)
	}
	second := configure(t, dir, "", "")
	if n, all := second.cached(); second.Err != "" || len(second.Notes) > 0 || n != all || n == 0 {
		t.Errorf("second process: %d of %d cached, %+v", n, all, second)
	}
	file := filepath.Join(dir, "accel-timings.json")
	if err := os.WriteFile(file, []byte(`{"format": "tutti-accel-tim`), 0o644); err != nil {
		t.Fatal(err)
	}
	third := configure(t, dir, "", "")
	if n, _ := third.cached(); third.Err != "" || n != 0 || len(third.Notes) != 1 || !strings.Contains(third.Notes[0], "timings are measured anew: "+file+" is damaged: ") {
		t.Errorf("after damage: %+v", third)
	}
	pinned := configure(t, dir, "merkle-pairs=-gohashtree", "")
	if v := pinned.verdict("merkle pairs", "gohashtree"); pinned.Err != "" || v.Chosen || !strings.Contains(v.Reason, "merkle-pairs=-gohashtree") {
		t.Errorf("without gohashtree: %+v", v)
	}
	if n, all := pinned.cached(); n != all {
		t.Errorf("after the damaged file was replaced: %d of %d cached", n, all)
	}
	env := configure(t, dir, "merkle-pairs=-gohashtree", "merkle-pairs=crypto/sha256")
	if v := env.verdict("merkle pairs", "crypto/sha256"); !v.Chosen || v.Reason != "pinned by the setting" {
		t.Errorf("with crypto/sha256 pinned: %+v", v)
	}
	for use, want := range map[string]string{
		"merkle=gohash":  `names no backend: known for merkle are`,
		"hashing=gohash": `names no operation: known are ed25519-verify, `,
		"-avx1024":       `accel: setting: "-avx1024" switches off a feature that nothing here uses: known are`,
	} {
		if got := configure(t, dir, use, ""); !strings.Contains(got.Err, want) {
			t.Errorf("%q: error %q, want %q", use, got.Err, want)
		}
	}
	if got := configure(t, dir, "", "nonsense"); !strings.Contains(got.Err, `accel: TUTTI_ACCEL: "nonsense": write -FEATURE`) {
		t.Errorf("nonsense in the environment: %q", got.Err)
	}
	blocked := configure(t, filepath.Join(file, "x"), "", "")
	if blocked.Err != "" || len(blocked.Notes) == 0 || !strings.Contains(blocked.Notes[len(blocked.Notes)-1], "timings are not kept") {
		t.Errorf("folder that can't be made: %+v", blocked.Notes)
	}
}

// TestBudgets: measuring takes at most 300 ms over all operations.
func TestBudgets(t *testing.T) {
	var sum time.Duration
	seen := map[string]bool{}
	for _, v := range SelfTest() {
		if !seen[v.Operation] {
			seen[v.Operation], sum = true, sum+v.Budget
		}
	}
	t.Logf("%v over %d operations", sum, len(seen))
	if sum > 300*time.Millisecond {
		t.Errorf("the budgets of all operations are %v", sum)
	}
}

func TestCheckUse(t *testing.T) {
	if err := CheckUse("merkle=anything"); err != nil {
		t.Error(err)
	}
	if err := CheckUse("-avx1024"); err == nil {
		t.Error("an unknown feature passes")
	}
	features, backends := Names()
	if len(features) == 0 || !slices.Contains(backends, "merkle-pairs=gohashtree") {
		t.Errorf("names are %v, %v", features, backends)
	}
}
