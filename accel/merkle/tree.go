package merkle

import "fmt"

// Tree is all levels of a tree of 2^depth leaves of which the first few are given.
type Tree struct {
	levels  [][][32]byte // levels[0] are the leaves that are given, levels[d] is the top alone
	padding [][32]byte   // padding[d] is the node at level d above nothing but padding
}

// NewTree hashes a tree over 1 to 2^depth leaves; it panics on any other number. It takes as much memory again as the
// leaves, which it keeps: they must not change afterwards.
func NewTree(leaves [][32]byte, depth int) *Tree {
	if len(leaves) < 1 || Depth(len(leaves)) > depth {
		panic(fmt.Sprintf("merkle: %d leaves in a tree of depth %d", len(leaves), depth))
	}
	t := &Tree{levels: make([][][32]byte, depth+1), padding: make([][32]byte, depth+1)}
	t.levels[0] = leaves
	for d := range depth {
		level := t.levels[d]
		up := make([][32]byte, (len(level)+1)/2)
		hashLevel(up, level, t.padding[d])
		t.levels[d+1] = up
		t.padding[d+1] = node(t.padding[d], t.padding[d])
	}
	return t
}

// Top is the tree's top node.
func (t *Tree) Top() [32]byte { return t.levels[len(t.levels)-1][0] }

// Top is the top node of the tree that NewTree would keep. It takes three quarters of the memory of the leaves.
func Top(leaves [][32]byte, depth int) [32]byte {
	if len(leaves) < 1 || Depth(len(leaves)) > depth {
		panic(fmt.Sprintf("merkle: %d leaves in a tree of depth %d", len(leaves), depth))
	}
	half := (len(leaves) + 1) / 2
	scratch := make([][32]byte, half+(half+1)/2) // one level and the level above it, in turns
	spaces := [2][][32]byte{scratch[:half], scratch[half:]}
	level := leaves
	var padding [32]byte
	for range depth {
		up := spaces[0][:(len(level)+1)/2]
		hashLevel(up, level, padding)
		level, padding = up, node(padding, padding)
		spaces[0], spaces[1] = spaces[1], spaces[0]
	}
	return level[0]
}

// hashLevel hashes a level into the one above it.
func hashLevel(up, level [][32]byte, padding [32]byte) {
	HashPairs(up[:len(level)/2], level[:len(level)/2*2])
	if len(level)%2 == 1 {
		up[len(up)-1] = node(level[len(level)-1], padding)
	}
}

// Path is the siblings of leaf i from the leaf's up, one for each level below the top. It panics if i is no leaf.
func (t *Tree) Path(i int) [][32]byte {
	_ = t.levels[0][i]
	path := make([][32]byte, len(t.levels)-1)
	for d := range path {
		if sibling := i ^ 1; sibling < len(t.levels[d]) {
			path[d] = t.levels[d][sibling]
		} else {
			path[d] = t.padding[d]
		}
		i >>= 1
	}
	return path
}

// Climb is the top of the tree in which leaf is at index i and path its siblings; i is below 2^len(path).
func Climb(leaf [32]byte, i uint64, path [][32]byte) [32]byte {
	for _, sibling := range path {
		if i&1 == 0 {
			leaf = node(leaf, sibling)
		} else {
			leaf = node(sibling, leaf)
		}
		i >>= 1
	}
	return leaf
}
