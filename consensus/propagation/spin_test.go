package propagation

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
)

var full = flag.Bool("full", false, "TestVerifyModels: three receipts, not two, and the bodies of a committee more; takes three times as long")

// needSpin ends the test where spin or gcc is missing: it fails in CI and is skipped elsewhere.
func needSpin(t *testing.T) {
	if race {
		t.Skip("spin knows nothing of the race detector: make verify runs it without")
	}
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed, so no model can be checked: make deps", tool)
			}
			t.Skipf("NOT RUN: %s is not installed, so no model is checked: make deps", tool)
		}
	}
}

// Bounds of one search, far above what it takes.
const (
	depth   = 400_000
	memory  = 512 // MiB
	minutes = 5
)

// How the checker is compiled: for runs of seconds, or of next to nothing.
const (
	long  = "-O1"
	short = "-O0"
)

// searches are what the checker is asked: for assertions that fail, and for fair runs that break the model's formula.
var searches = map[string][]string{
	"assertions": {"-noclaim", "-E"},
	"liveness":   {"-a", "-f"},
}

// check searches a model in the given ways, until one finds something, and says what that is, or "". Every search must
// be complete, or end with what it found.
func check(t *testing.T, model, optimise string, defines []string, ways ...string) (found string) {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(model + ".pml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.pml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	var cpu time.Duration
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = time.Second
		timer := time.AfterFunc(minutes*time.Minute, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		err := cmd.Run()
		if cmd.ProcessState != nil {
			cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		return out.String(), err
	}
	if out, err := run("spin", append(slices.Clone(defines), "-a", "model.pml")...); err != nil || strings.Contains(out, "Error") {
		t.Fatalf("spin: %v\n%s", err, out)
	}
	if out, err := run("gcc", optimise, "-w", "-DNOREDUCE", "-DNFAIR=3", fmt.Sprintf("-DMEMLIM=%d", memory), "-o", "pan", "pan.c"); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, way := range ways {
		out, err := run("./pan", append([]string{fmt.Sprintf("-m%d", depth), "-w20"}, searches[way]...)...)
		o, wrong := outcomeOf(out)
		if err != nil && !o.failed || wrong != "" {
			t.Fatalf("%s: %s, %v\n%s", way, wrong, err, out)
		}
		t.Logf("%-10s %7s states, depth %s, %.1f s of CPU so far, spin and gcc included: %s", way, o.states, o.depth, cpu.Seconds(), cmp.Or(o.what, "nothing found"))
		if o.what != "" {
			return o.what
		}
	}
	return ""
}

// outcome is what the checker prints.
type outcome struct {
	states, depth string
	what          string // it found; "" for nothing
	failed        bool   // its exit code may say so
}

var (
	storedLine = regexp.MustCompile(`(?m)^\s*(\S+) states, stored`)
	depthLine  = regexp.MustCompile(`depth reached (\d+), errors: (\d+)`)
	foundLine  = regexp.MustCompile(`(?m)^pan:1: (assertion violated .*|acceptance cycle) \(at depth \d+\)$`)
)

// outcomeOf reads what the checker prints. It is wrong if neither all states were visited nor anything was found.
func outcomeOf(out string) (o outcome, wrong string) {
	stored, reached, found := storedLine.FindStringSubmatch(out), depthLine.FindStringSubmatch(out), foundLine.FindStringSubmatch(out)
	if stored == nil || reached == nil || !strings.Contains(out, "\nFull statespace search for:") {
		return o, "no exhaustive search"
	}
	o.states, o.depth = stored[1], reached[1]
	switch {
	case found != nil && reached[2] == "1":
		o.what, o.failed = found[1], true
	case found != nil || reached[2] != "0":
		return o, "errors of another kind"
	}
	for _, cut := range []string{"max search depth too small", "reached -DMEMLIM", "out of memory", "Hash-Compact", "Partial Order"} {
		if strings.Contains(out, cut) {
			return o, "not all states were visited: " + cut
		}
	}
	if o.what == "" && strings.Contains(out, "Search not completed") {
		return o, "not all states were visited"
	}
	return o, ""
}

// shard is a committee, who leads and who is faulty.
type shard struct {
	powers         []consensus.Power
	leader, faulty int
	full           bool // only with -full
}

func (s shard) committee() *consensus.Committee { return simtest.Committee(1, s.powers...) }

// shards is how many shards of its code a validator's part has (consensus/shred).
func shards(c *consensus.Committee, i int) int {
	first, end := c.Code().Shards(i)
	return min(end-first, c.Code().K())
}

// defines is a shard as bodies.pml wants it told.
func (s shard) defines() []string {
	c := s.committee()
	quorum := consensus.Power(0)
	for !c.IsQuorum(quorum) {
		quorum++
	}
	heavy := 0
	if 3*c.Validators[s.leader].Power >= c.Total() {
		heavy = 1
	}
	out := []string{
		fmt.Sprintf("-DLEADER=%d", s.leader), fmt.Sprintf("-DFAULTY=%d", s.faulty), fmt.Sprintf("-DHEAVY=%d", heavy),
		fmt.Sprintf("-DQUORUM=%d", quorum), fmt.Sprintf("-DK=%d", c.Code().K()),
	}
	for i, v := range c.Validators {
		out = append(out, fmt.Sprintf("-DP%d=%d", i, v.Power), fmt.Sprintf("-DS%d=%d", i, shards(c, i)))
	}
	return out
}

var (
	equal = shard{[]consensus.Power{1, 1, 1, 1}, 3, 3, false}
	cases = map[string]shard{
		"faulty leader": equal,
		"honest leader": {[]consensus.Power{1, 1, 1, 1}, 0, 3, false},
		"honest leader, without whom a third lacks": {[]consensus.Power{3, 2, 1, 1}, 0, 1, false},
		"faulty leader, one has a body by himself":  {[]consensus.Power{5, 1, 1, 1}, 3, 3, true},
	}
)

// TestVerifyModels visits all states of the models: no assertion fails, and every fair run keeps the promise.
func TestVerifyModels(t *testing.T) {
	needSpin(t)
	for name, s := range cases {
		if s.full && !*full {
			continue
		}
		t.Run("bodies, "+name, func(t *testing.T) {
			optimise := long
			if s.leader != s.faulty {
				optimise = short
			}
			clean(t, "bodies", optimise, s.defines())
		})
	}
	receipts := 2
	if *full {
		receipts = 3
	}
	t.Run("receipts", func(t *testing.T) { clean(t, "receipts", long, []string{fmt.Sprintf("-DR=%d", receipts)}) })
	t.Run("epochs", func(t *testing.T) { clean(t, "epochs", short, nil) })
}

func clean(t *testing.T, model, optimise string, defines []string) {
	if found := check(t, model, optimise, defines, "assertions", "liveness"); found != "" {
		t.Errorf("spin finds %s", found)
	}
}

// Faults, as the checker names them.
const (
	anotherVerdict = "assertion violated (verdict[i]==( (codeword) ? (2) : (1) ))"
	disagreement   = "(verdict[0]==verdict["
	twice          = "assertion violated (low_first==credited)"
	notSent        = "assertion violated ((low_end<=sent)&& !(low_bad))"
	lost           = "assertion violated (dropped<=received)"
	notEnded       = "assertion violated ended[epoch[i]]"
	never          = "acceptance cycle"
)

// twin is a model that is broken in one way, and the fault that it must show.
type twin struct {
	model, name string
	shows       string
}

var twins = []twin{
	{"bodies", "TRUST_THE_DECODER", anotherVerdict},
	{"bodies", "TOO_FEW_PARTS", anotherVerdict},
	{"bodies", "UNCHECKED_PART", disagreement},
	{"bodies", "UNCHECKED_FETCH", disagreement},
	{"bodies", "TOO_MANY_PARTS", never},
	{"bodies", "VOTE_WITHOUT_PART", never},
	{"bodies", "NO_REPEAT", never},
	{"bodies", "NO_FETCH", never},
	{"receipts", "NO_CURSOR_CHECK", twice},
	{"receipts", "CURSOR_OF_FINAL_BLOCK", twice},
	{"receipts", "CURSOR_FIRST", twice},
	{"receipts", "NO_ROOT_CHECK", notSent},
	{"receipts", "PROOF_NOT_FINAL", notSent},
	{"receipts", "ACK_NOT_FINAL", lost},
	{"receipts", "DROP_WHEN_SERVED", lost},
	{"receipts", "NO_POLL", never},
	{"receipts", "ASK_ONE_PEER", never},
	{"receipts", "STAY_WITHOUT_NEWS", never},
	{"receipts", "ROTATE_TWICE", never},
	{"receipts", "KEEP_REFUSED", never},
	{"epochs", "ENTER_ON_NOTARIZATION", notEnded},
	{"epochs", "OWN_EPOCH_ONLY", never},
	{"epochs", "FORGET_ENDS", never},
	{"epochs", "DROP_ECHOES", never},
}

// TestVerifyBrokenModels is the canary: spin finds the fault of each twin.
func TestVerifyBrokenModels(t *testing.T) {
	needSpin(t)
	for _, tw := range twins {
		t.Run(tw.model+"/"+tw.name, func(t *testing.T) {
			defines := []string{"-DTWIN_" + tw.name}
			if tw.model == "bodies" {
				defines = append(defines, equal.defines()...)
			}
			way := "assertions"
			if tw.shows == never {
				way = "liveness"
			}
			if found := check(t, tw.model, short, defines, way); !strings.Contains(found, tw.shows) {
				t.Errorf("spin finds %q, not %s", found, tw.shows)
			}
		})
	}
}

// TestVerifyOutcomes: a search that was cut short, or was none, is taken for nothing else.
func TestVerifyOutcomes(t *testing.T) {
	const whole = "\nFull statespace search for:\n\tassertion violations\t+\n\nState-vector 68 byte, depth reached 75, errors: 0\n   298173 states, stored\n"
	found := "pan:1: acceptance cycle (at depth 3)\nWarning: Search not completed\n" + strings.Replace(whole, "errors: 0", "errors: 1", 1)
	for _, tc := range []struct{ name, out, what, wrong string }{
		{"whole", whole, "", ""},
		{"found", found, "acceptance cycle", ""},
		{"nothing", "", "", "no exhaustive search"},
		{"bit states", strings.Replace(whole, "Full", "Bit", 1), "", "no exhaustive search"},
		{"too deep", "error: max search depth too small\n" + whole, "", "not all states were visited: max search depth too small"},
		{"too large", "pan: reached -DMEMLIM bound\n" + whole, "", "not all states were visited: reached -DMEMLIM"},
		{"hashes", whole + "\t+ Hash-Compact 4\n", "", "not all states were visited: Hash-Compact"},
		{"reduced", "\t+ Partial Order Reduction\n" + whole, "", "not all states were visited: Partial Order"},
		{"stopped", "Warning: Search not completed\n" + whole, "", "not all states were visited"},
		{"another error", strings.Replace(whole, "errors: 0", "errors: 1", 1), "", "errors of another kind"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if o, wrong := outcomeOf(tc.out); o.what != tc.what || wrong != tc.wrong {
				t.Errorf("found %q, %q; want %q, %q", o.what, wrong, tc.what, tc.wrong)
			}
		})
	}
}
