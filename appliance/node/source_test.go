package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tutti/appliance/config"
)

// TestSource: what each word of the operator makes of each state of a data folder.
func TestSource(t *testing.T) {
	write := func(home config.Home, names ...string) {
		for _, name := range names {
			path := filepath.Join(home.Data(), name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			text := "x"
			if name == "FORMAT" {
				text = config.DataFormat + "\n"
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name  string
		there string // files in data, with spaces between; "" for no folder
		begin Source
		after string // the same, or what the error says
		fails bool
	}{
		{"nothing, as it is", "", AsItIs, "", false},
		{"nothing, sync", "", Sync, "SYNC", false},
		{"nothing, resync", "", Resync, "--sync", true},
		{"whole, as it is", "FORMAT state/a", AsItIs, "FORMAT state/a", false},
		{"whole, sync", "FORMAT state/a blocks/b", Sync, "FORMAT blocks/b state/a", false},
		{"whole, resync", "FORMAT state/a blocks/b", Resync, "FORMAT SYNC blocks/b state.damaged-1/a", false},
		{"damaged before, resync", "FORMAT state/a state.damaged-1/c", Resync, "FORMAT SYNC state.damaged-1/c state.damaged-2/a", false},
		{"resync cut short before its mark", "FORMAT blocks/b state.damaged-1/a", Resync, "FORMAT SYNC blocks/b state.damaged-1/a", false},
		{"copying, as it is", "SYNC state/a", AsItIs, "SYNC state/a", false},
		{"copying, sync", "SYNC state/a", Sync, "SYNC state/a", false},
		{"copying, resync", "FORMAT SYNC state/a", Resync, "FORMAT SYNC state/a", false},
		{"sync cut short before its mark", ".new-123", Sync, ".new-123 SYNC", false},
		{"a first start that was cut short, sync", "blocks/b", Sync, "interrupted", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := config.Home(t.TempDir())
			write(home, strings.Fields(tc.there)...)
			err := tc.begin.prepare(home)
			if (err != nil) != tc.fails || tc.fails && !strings.Contains(err.Error(), tc.after) {
				t.Fatal(err)
			}
			if tc.fails {
				return
			}
			var got []string
			if err := filepath.WalkDir(home.Data(), func(path string, e os.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					name, _ := filepath.Rel(home.Data(), path)
					got = append(got, name)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(got, " "); text != tc.after {
				t.Errorf("data holds %q, want %q", text, tc.after)
			}
			if strings.Contains(tc.after, "SYNC") {
				if err := unmark(home); err != nil || marked(home) || config.CheckFormat(home.Data(), config.DataFormat) != nil {
					t.Errorf("made whole: %v, marked %t", err, marked(home))
				}
			}
		})
	}
}
