package receipt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
)

// ErrPosition says that the position asked for is not among the leaves given.
var ErrPosition = errors.New("position outside the leaves given")

// Proof shows that a leaf is at a position of a range: the digests beside the leaf's path within its tree, from the
// leaf up, then the other peaks, largest tree first. Its length is fixed by count and position (Verify demands it);
// on the wire it is the concatenation.
type Proof [][32]byte

// Prove proves the leaf at position i of base.Append(leaves), base.Count() <= i < base.Count()+len(leaves). It costs
// as much as Append. Leaves below base need not be kept: where they stand beside the path they are a peak of base.
func Prove(base Range, leaves [][32]byte, i uint64) (Proof, error) {
	if i < base.count || i-base.count >= uint64(len(leaves)) {
		return nil, fmt.Errorf("receipt: %w: %d, have [%d, %d)", ErrPosition, i, base.count, base.count+uint64(len(leaves)))
	}
	count := base.count + uint64(len(leaves))
	tree, height := locate(count, i)
	proof := make(Proof, 0, height+bits.OnesCount64(count)-1)
	grown := base.appended(leaves, func(h int, trees [][32]byte) {
		if h >= height {
			return
		}
		// The trees seen at height h end where count's trees of that height end.
		first := count>>h - uint64(len(trees))
		proof = append(proof, trees[i>>h^1-first])
	})
	for k, peak := range grown.peaks {
		if k != tree {
			proof = append(proof, peak)
		}
	}
	return proof, nil
}

// Verify reports whether proof shows that leaf is at position i of the range of count leaves under root.
func Verify(root [32]byte, count, i uint64, leaf [32]byte, proof Proof) bool {
	if count > MaxLeaves || i >= count {
		return false
	}
	tree, height := locate(count, i)
	n := bits.OnesCount64(count)
	if len(proof) != height+n-1 {
		return false
	}
	top := leaf
	for h := range height {
		var pair [64]byte
		if i>>h&1 == 0 {
			copy(pair[:32], top[:])
			copy(pair[32:], proof[h][:])
		} else {
			copy(pair[:32], proof[h][:])
			copy(pair[32:], top[:])
		}
		top = sha256.Sum256(pair[:])
	}
	peaks := make([][32]byte, 0, n)
	peaks = append(peaks, proof[height:height+tree]...)
	peaks = append(peaks, top)
	peaks = append(peaks, proof[height+tree:]...)
	return seal(count, peaks) == root
}

// locate tells in which tree of a range of count leaves position i < count is (0 is the largest), and its height.
func locate(count, i uint64) (tree, height int) {
	// The highest bit in which i and count differ is set in count: there the tree of that height holds i.
	height = bits.Len64(i^count) - 1
	return bits.OnesCount64(count >> (height + 1)), height
}
