package endless

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestRun runs a toy in two parts, the second of which goes on where the first ended.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	c := Config{Dir: filepath.Join(dir, "chain"), Blocks: 120, Accounts: 300, Every: 20, Retention: 64, PageCycle: 20 * time.Second}
	file := filepath.Join(dir, "results.tsv")
	for _, blocks := range []uint64{120, 240} {
		c.Blocks = blocks
		if err := Run(t.Context(), c, func(s Sample) error { return s.Append(file) }); err != nil {
			t.Fatal(err)
		}
	}
	tsv, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	samples, err := Read(bytes.NewReader(tsv))
	if err != nil || len(samples) != 12 {
		t.Fatalf("%d samples, %v", len(samples), err)
	}
	for i, s := range samples {
		if s.Height != uint64(20*(i+1)) || s.Heap == 0 || s.Resident < s.Heap || s.Blocks == 0 || s.WAL == 0 || s.Votes == 0 || s.Held == 0 ||
			s.Disk != s.Tables+s.WAL+s.Manifest+s.Blocks+s.Votes || s.Unacked > 40 {
			t.Errorf("sample %d: %+v", i, s)
		}
	}
	n, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if ch := &n.ledger.Meta().Channels[0]; ch.Received.Count() != 360 || ch.Acked < 200 || ch.Returns+uint32(n.ledger.Meta().Accounts) < 300 {
		t.Errorf("%+v", ch)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	var svg bytes.Buffer
	if err := Plot(&svg, "a <toy>", samples); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFlat is the canary of the judgement: what grows by a tenth between the thirds is noticed, each size by itself.
func TestFlat(t *testing.T) {
	series := func(edit func(*Sample, int)) []Sample {
		s := make([]Sample, 90)
		for i := range s {
			s[i] = Sample{Height: uint64(i), Heap: 100 << 20, Resident: 100 << 20, Disk: 100 << 20, Tables: 100 << 20, WAL: 100 << 20, Blocks: 100 << 20}
			edit(&s[i], i)
		}
		return s
	}
	if err := Flat(series(func(*Sample, int) {})); err != nil {
		t.Error(err)
	}
	if err := Flat(series(func(s *Sample, i int) { s.Disk += int64(i%10) << 24 })); err != nil {
		t.Errorf("a saw's teeth: %v", err)
	}
	if err := Flat(series(func(s *Sample, i int) { s.Disk += int64(i/75) * int64(i%5/4) << 23 })); err != nil {
		t.Errorf("a tooth: %v", err)
	}
	if err := Flat(series(func(s *Sample, i int) { s.Heap = min(100, 5*int64(i)) << 20 })); err != nil {
		t.Errorf("filling up at first: %v", err)
	}
	for name, grow := range map[string]func(*Sample, int){
		"disk":                 func(s *Sample, i int) { s.Disk += int64(i) << 19 },
		"live Go heap":         func(s *Sample, i int) { s.Heap += int64(i) << 19 },
		"resident memory":      func(s *Sample, i int) { s.Resident += int64(i) << 19 },
		"block log":            func(s *Sample, i int) { s.Blocks += int64(i) << 19 },
		"tables of the ledger": func(s *Sample, i int) { s.Tables += int64(i) << 19 },
	} {
		if err := Flat(series(grow)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if Flat(nil) == nil {
		t.Error("nothing is flat")
	}
}

func TestRead(t *testing.T) {
	for _, text := range []string{"1\t2\n", "a b c\n"} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func BenchmarkBlock(b *testing.B) {
	n, err := Open(Config{Dir: b.TempDir(), Accounts: 10_000, Retention: 10_000, PageCycle: 10 * time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := n.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := n.Close(); err != nil {
		b.Fatal(err)
	}
}
