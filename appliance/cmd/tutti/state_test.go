package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestState runs 'tutti state' on the file that appliance/node keeps: testdata/state/*.txtar.
func TestState(t *testing.T) {
	golden, err := filepath.Abs("../../node/testdata/state")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, "testdata/state", map[string]string{"STATE": golden}, nil)
}

func TestProgress(t *testing.T) {
	var out strings.Builder
	now := time.Unix(0, 0)
	tell := progressTo(&out, "chunks", func() time.Time { return now })
	for i := range uint64(10) {
		tell(i, 2000)
		now = now.Add(time.Second)
	}
	if want := "chunks: 2 of 2,000 (0 %)\n"; !strings.HasPrefix(out.String(), want) || strings.Count(out.String(), "\n") != 4 {
		t.Errorf("%q", out.String())
	}
}
