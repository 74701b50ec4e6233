package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/accel/internal/rows"
)

// TestToy runs every row once at a small size, so that none of them rots, and reads back what is written.
func TestToy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rows.json")
	var out bytes.Buffer
	if err := run([]string{"-toy", "-json", file}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", &out)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report rows.Report
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	measured := map[string]bool{}
	for _, r := range report.Rows {
		measured[r.Name] = true
		if r.Value < 0 || r.Median < r.Value || r.Unit == "" {
			t.Errorf("%+v", r)
		}
	}
	for _, r := range parts(true) {
		if !measured[r.Name] {
			if _, err := r.Setup(); err != rows.ErrAbsent {
				t.Errorf("%s is not in the report: %v", r.Name, err)
			}
		}
		if !strings.Contains(out.String(), r.Name+" ") {
			t.Errorf("%s is not in the table", r.Name)
		}
	}
}

func TestArguments(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-toy", "-rows", "^hash/pairs/8/"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "merkle") || !strings.Contains(out.String(), "hash/pairs/8/tutti") {
		t.Errorf("%s", &out)
	}
	for _, bad := range [][]string{{"-rows", "("}, {"-colour"}, {"-toy", "-rows", "none", "-json", "/none/none"}} {
		if run(bad, io.Discard, io.Discard) == nil {
			t.Errorf("%v passes", bad)
		}
	}
}
