package distill

import "testing"

// TestRowsWork runs every row once at toy size.
func TestRowsWork(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range RowsFor(300, 100) {
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
	if len(seen) < 15 {
		t.Errorf("%d rows", len(seen))
	}
}
