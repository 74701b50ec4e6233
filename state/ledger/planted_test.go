package ledger

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestSkippedSync is a canary for TestPowerCampaign: a disk that leaves out one sync of a kind in each life has to make
// it fail within the given number of runs.
func TestSkippedSync(t *testing.T) {
	for kind, within := range map[string]uint64{"log": 200, "sst": 50, "MANIFEST": 50} {
		t.Run(kind, func(t *testing.T) {
			for n := uint64(1); n <= within; n++ {
				r := newPowerRun(t, n)
				r.skipSync = kind
				if err := r.run(); err != nil {
					t.Logf("caught in run %d: %v", n, err)
					return
				}
			}
			t.Errorf("a sync was left out in each life, and %d runs did not notice", within)
		})
	}
}

// edit is a change to a source file, for a build in which something is wrong if planted says so.
type edit struct{ file, old, new string }

// bug is a fault that TestPowerCampaign has to catch.
type bug struct {
	name   string
	within uint64 // runs
	edit   edit
}

var bugs = []bug{
	{"one commit in eight is not synced", 40, edit{
		"../store/batch.go", "return s.db.Apply(b.b, pebble.Sync)",
		"if planted(%q) && every(8) { return s.db.Apply(b.b, pebble.NoSync) }; return s.db.Apply(b.b, pebble.Sync)",
	}},
	{"a page holds a block above its height", 40, edit{
		"finalise.go", "l.cellsAt(base, slot, p.Page<<pageLog, page)",
		"if planted(%q) { l.cellsAt(l.last, slot, p.Page<<pageLog, page) } else { l.cellsAt(base, slot, p.Page<<pageLog, page) }",
	}},
	{"differences are dropped one cycle too early", 40, edit{
		"finalise.go", "s.DropBlocks(p.Cycle)",
		"if planted(%q) { s.DropBlocks(base.height) } else { s.DropBlocks(p.Cycle) }",
	}},
	{"keys of the directory are stored one place too far", 40, edit{
		"finalise.go", "s.Key(last.meta.Directory.Count()+uint64(i), b.keys[i].append(nil))",
		"s.Key(last.meta.Directory.Count()+uint64(i)+count(planted(%q)), b.keys[i].append(nil))",
	}},
}

// plantedFile goes into the packages that are edited.
const plantedFile = `package %s

import (
	"os"
	"sync/atomic"
)

func planted(bug string) bool { return os.Getenv("TUTTI_PLANTED") == bug }

var calls atomic.Int64

func every(n int64) bool { return calls.Add(1)%%n == 0 }

func count(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
`

// buildPlanted builds this package's tests with all bugs in it, each asleep until it is named. The tree is not touched:
// the compiler is given other content for some files.
func buildPlanted(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	content := map[string]string{}
	for _, b := range bugs {
		path, err := filepath.Abs(b.edit.file)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := content[path]; !ok {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			content[path] = string(source)
		}
		if strings.Count(content[path], b.edit.old) != 1 {
			t.Fatalf("%q is not in %s once: say again how to plant %q", b.edit.old, b.edit.file, b.name)
		}
		content[path] = strings.Replace(content[path], b.edit.old, fmt.Sprintf(b.edit.new, b.name), 1)
		folder := filepath.Dir(path)
		content[filepath.Join(folder, "planted.go")] = fmt.Sprintf(plantedFile, filepath.Base(folder))
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, source := range content {
		at := filepath.Join(dir, strings.ReplaceAll(path[1:], "/", "_"))
		if err := os.WriteFile(at, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = at
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "planted.test")
	cmd := exec.Command("go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return binary
}

var caughtSeed = regexp.MustCompile(`seed (\d+): .*`)

// TestPlantedBugs is the other canary: TestPowerCampaign, built with a bug, has to fail within a stated number of runs.
// Without one it passes in the same build.
func TestPlantedBugs(t *testing.T) {
	binary := buildPlanted(t)
	campaign := func(bug string, runs uint64) (string, error) {
		cmd := exec.Command(binary, "-test.run", "^TestPowerCampaign$", "-seed", "1", "-runs", fmt.Sprint(runs), "-recoveries", "1000000")
		cmd.Env = append(os.Environ(), "TUTTI_PLANTED="+bug)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := campaign("", 5); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			out, err := campaign(b.name, b.within)
			found := caughtSeed.FindStringSubmatch(out)
			if err == nil || found == nil {
				t.Fatalf("%d runs did not notice: %v\n%s", b.within, err, out)
			}
			if n, err := strconv.ParseUint(found[1], 10, 64); err != nil || n > b.within {
				t.Fatalf("caught in run %s, not within %d", found[1], b.within)
			}
			t.Logf("caught in run %s", found[0][len("seed "):])
		})
	}
}
