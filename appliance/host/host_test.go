package host

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestDescribe(t *testing.T) {
	m := Describe()
	if m.Cores < 1 || m.Memory < 1<<20 || !strings.HasPrefix(m.Kernel, "Linux ") {
		t.Errorf("Describe() = %+v", m)
	}
	if soft, hard, err := OpenFiles(); err != nil || soft == 0 || hard < soft {
		t.Errorf("OpenFiles() = %d, %d, %v", soft, hard, err)
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meminfo")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("MemTotal:        8056152 kB\nMemFree:  1 kB\nMemAvailable:    7000000 kB\nHugePages_Total:       0\n")
	total, available, err := readMemory(path)
	if err != nil || total != 8056152<<10 || available != 7000000<<10 {
		t.Errorf("got %d, %d, %v", total, available, err)
	}
	write("nothing here\n")
	if _, _, err := readMemory(path); err == nil {
		t.Error("a file without MemTotal was accepted")
	}
}

func TestLoad(t *testing.T) {
	stat := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	ps := func(pid, name, parent, times string) *fstest.MapFile {
		return stat(pid + " (" + name + ") S " + parent + " 0 0 0 0 0 0 0 0 0 " + times + " 20 0 1\n")
	}
	// 20 is this process, 21 and 22 its descendants, 30 named as extra, 40 foreign.
	before := fstest.MapFS{
		"stat":      stat("cpu  1000 100 500 9000 70 20 30 40 5 0\ncpu0 1 2 3\n"),
		"20/stat":   ps("20", "tutti", "1", "100 10 0 0"),
		"21/stat":   ps("21", "a ) odd (name", "20", "50 0 0 0"),
		"30/stat":   ps("30", "peer", "1", "10 0 0 0"),
		"40/stat":   ps("40", "other", "1", "700 0 0 0"),
		"self/stat": stat("not a number, not read"),
	}
	after := fstest.MapFS{
		"stat":    stat("cpu  1500 100 600 9100 70 20 130 60 5 0\n"),
		"20/stat": ps("20", "tutti", "1", "200 10 120 0"), // 21 ended and was waited for, after 70 more ticks
		"22/stat": ps("22", "child", "20", "30 0 0 0"),
		"30/stat": ps("30", "peer", "1", "60 0 0 0"),
		"40/stat": ps("40", "other", "1", "900 0 0 0"),
	}
	a, err := readSample(before, []int{20, 30, 21})
	if err != nil {
		t.Fatal(err)
	}
	b, err := readSample(after, []int{20, 30, 21})
	if err != nil {
		t.Fatal(err)
	}
	near := func(got, want float64) bool { return got > want-1e-9 && got < want+1e-9 }
	if !near(a.Own, 1.7) || !near(a.Busy, 16.5) || !near(a.Steal, 0.4) {
		t.Errorf("before: %+v", a)
	}
	b.Time = a.Time.Add(2 * time.Second)
	got := Between(a, b)
	// Busy +7.0 s, own +1.0+1.2-0.5+0.3+0.5 = 2.5 s, over 2 s.
	if !near(got.Own, 1.25) || !near(got.Foreign, 2.25) || !near(got.Steal, 0.1) {
		t.Errorf("Between = %+v", got)
	}
	if Between(b, a) != (Load{}) {
		t.Error("samples in the wrong order gave a load")
	}
	for name, text := range map[string]string{"empty": "", "short": "cpu 1 2 3\n", "words": "cpu a b c d e f g h i\n"} {
		if _, err := readSample(fstest.MapFS{"stat": stat(text)}, nil); err == nil {
			t.Errorf("%s /proc/stat was accepted", name)
		}
	}
	if _, err := readSample(fstest.MapFS{"stat": before["stat"], "9/stat": stat("9 (x) S 1\n")}, nil); err == nil {
		t.Error("a short process line was accepted")
	}
}

// TestRealLoad sees this process at work: the measurement must be able to fail.
func TestRealLoad(t *testing.T) {
	a, err := ReadSample()
	if err != nil {
		t.Fatal(err)
	}
	x := uint64(1)
	for end := a.Time.Add(100 * time.Millisecond); time.Now().Before(end); {
		for range 1000 {
			x = x*6364136223846793005 + 1
		}
	}
	b, err := ReadSample()
	if err != nil || x == 0 {
		t.Fatal(err)
	}
	if l := Between(a, b); l.Own <= 0 || l.Own > float64(Describe().Cores)+1 {
		t.Errorf("a busy loop shows as %+v", l)
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	free, total, err := DiskSpace(filepath.Join(dir, "not", "there"))
	if err != nil || free == 0 || total < free {
		t.Errorf("DiskSpace = %d, %d, %v", free, total, err)
	}
	l, err := ProbeSync(dir, 5)
	if err != nil || l.P50 <= 0 || l.P99 < l.P50 || l.Max < l.P99 {
		t.Errorf("ProbeSync = %+v, %v", l, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("the probe left %v", left)
	}
	if _, err := ProbeSync(dir, 0); err == nil {
		t.Error("a probe of no writes was accepted")
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile(path)
		info, _ := os.Stat(path)
		if err != nil || string(b) != want || info.Mode().Perm() != 0o640 {
			t.Errorf("file holds %q, mode %v, %v; want %q", b, info.Mode(), err, want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("folder holds %v", left)
		}
	}
	if err := CreateFile(path, []byte("one"), 0o640); err != nil {
		t.Fatal(err)
	}
	holds("one")
	if err := CreateFile(path, []byte("two"), 0o640); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
	holds("one")
	if err := ReplaceFile(path, []byte("three"), 0o640); err != nil {
		t.Fatal(err)
	}
	holds("three")
	if err := CreateFile(filepath.Join(dir, "no", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("create in no folder: %v", err)
	}
	broken := errors.New("broken")
	if err := CreateFrom(filepath.Join(dir, "part"), 0o600, func(w io.Writer) error {
		_, err := io.WriteString(w, "half")
		return errors.Join(err, broken)
	}); !errors.Is(err, broken) {
		t.Errorf("create from a writer that fails: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*part*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
