package merkle

import (
	"testing"
)

// TestTreeIsTheListsTree compares every path with ListRoot, and climbs it; a deeper tree only adds padding.
func TestTreeIsTheListsTree(t *testing.T) {
	for n := 1; n <= 40; n++ {
		leaves := numbered(n)
		tree, root := NewTree(leaves, Depth(n)), ListRoot(leaves)
		deep := NewTree(leaves, 9)
		if Top(leaves, Depth(n)) != tree.Top() || Top(leaves, 9) != deep.Top() {
			t.Fatalf("top of %d leaves", n)
		}
		for i := range leaves {
			path := tree.Path(i)
			if !VerifyList(root, uint64(n), uint64(i), leaves[i], path) {
				t.Fatalf("VerifyList refuses the path of leaf %d of %d", i, n)
			}
			if Climb(leaves[i], uint64(i), path) != tree.Top() {
				t.Fatalf("path of leaf %d of %d does not lead to the top", i, n)
			}
			if up := deep.Path(i); len(up) != 9 || Climb(leaves[i], uint64(i), up) != deep.Top() {
				t.Fatalf("deep path of leaf %d of %d does not lead to the top", i, n)
			}
		}
	}
}

func TestTreePanics(t *testing.T) {
	for name, f := range map[string]func(){
		"no leaves":        func() { NewTree(nil, 0) },
		"top of no leaves": func() { Top(nil, 0) },
		"too many leaves":  func() { NewTree(numbered(5), 2) },
		"no such leaf":     func() { NewTree(numbered(5), 3).Path(5) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
