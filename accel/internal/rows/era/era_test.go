package era

import "testing"

// TestRowsWork runs every row once.
func TestRowsWork(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rows() {
		if seen[r.Name] || r.Items < 1 {
			t.Errorf("%s: %d items, or a name that another row has", r.Name, r.Items)
		}
		seen[r.Name] = true
		run, err := r.Setup()
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		run()
	}
	if len(seen) < 50 {
		t.Errorf("%d rows", len(seen))
	}
}
