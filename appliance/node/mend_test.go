package node

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"tutti/appliance/config"
	"tutti/consensus/engine"
)

// TestMend: which errors lead to a copy of the state, and what becomes of the old one. The consensus log stays in any case.
func TestMend(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		mended int
		kept   int // states that were kept before
		again  bool
		keeps  bool // the old state
	}{
		{"no error", nil, 0, 0, false, true},
		{"another error", fs.ErrPermission, 0, 0, false, true},
		{"behind", engine.ErrBehind, 0, 0, true, false},
		{"behind, and has mended itself", engine.ErrBehind, 5, 9, true, false},
		{"its own log begins above its state", engine.ErrPruned, 0, 0, true, false},
		{"contradiction", engine.ErrContradiction, 0, 2, true, true},
		{"contradiction, after a copy", engine.ErrContradiction, 1, 0, false, true},
		{"contradiction, again and again", engine.ErrContradiction, 0, maxKept, false, true},
		{"certificates that contradict each other", engine.ErrHalted, 0, 0, false, true},
		{"both", errors.Join(engine.ErrHalted, engine.ErrContradiction), 0, 0, false, true},
		{"key elsewhere", engine.ErrKeyElsewhere, 0, 0, false, true},
		{"state ahead of the log", engine.ErrStateAhead, 0, 0, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := config.Home(t.TempDir())
			folders := []string{home.State(), home.Blocks()}
			for i := range tc.kept {
				folders = append(folders, fmt.Sprintf("%s.damaged-%d", home.State(), i+1))
			}
			for _, f := range folders {
				if err := os.MkdirAll(f, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			err := tc.err
			if err != nil {
				err = fmt.Errorf("engine: %w", err)
			}
			again, worse := mend(err, home, tc.mended, slog.New(slog.DiscardHandler))
			if again != tc.again || worse != nil || marked(home) != tc.again {
				t.Errorf("again %t, %v, marked %t", again, worse, marked(home))
			}
			if _, err := os.Stat(home.State()); (err == nil) == tc.again {
				t.Errorf("the state's folder: %v", err)
			}
			all, _ := filepath.Glob(home.State() + "*")
			if want := tc.kept + 1; (len(all) == want) != tc.keeps {
				t.Errorf("%d states are there: %v", len(all), all)
			}
			if _, err := os.Stat(home.Blocks()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNameCarried: a log that was made of another one's votes takes its place when that has gone, and not before.
func TestNameCarried(t *testing.T) {
	n := &Node{home: config.Home(t.TempDir())}
	carried := n.home.Blocks() + carriedSuffix
	if err := n.nameCarried(); err != nil { // nothing is there
		t.Fatal(err)
	}
	for _, f := range []string{n.home.Blocks(), filepath.Join(carried, "whole")} {
		if err := os.MkdirAll(f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.nameCarried(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(carried); err != nil {
		t.Error("it took the place of one that was there")
	}
	if _, err := moveAside(n.home.Blocks()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := n.nameCarried(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(n.home.Blocks(), "whole")); err != nil {
			t.Error(err)
		}
	}
}
