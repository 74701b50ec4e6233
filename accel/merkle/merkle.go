// Package merkle hashes pairs of digests and messages of one size in bulk, and commits to lists of digests with binary
// SHA-256 trees. Tree and Top are the bare trees, for commitments with a seal of their own.
//
// A digest is 32 bytes. A list of n leaves (n at least 0) is padded with zero digests to 2^d leaves, d = ceil(log2 n)
// and 0 for n of 0 and 1; an inner node is SHA-256(left || right); the root is
//
//	SHA-256("tutti/list/1" padded with zeros to 16 bytes || n as big-endian u64 || top)
//
// where top is the tree's top node, or the zero digest for n = 0. Because n is under the root and fixes the depth,
// a proof shows one leaf at one index of one length, and padding can't be passed off as leaves. The leaves
// themselves must be domain-separated digests made by the caller (a tag other than the list's own and inner nodes of
// exactly 64 bytes keep the three kinds of input apart). Golden vectors are in testdata/list.golden.
//
// Nothing here keeps or modifies its inputs; everything is safe for concurrent use. Nothing is fatal.
//
// The pairs go through a Backend: our own kernels (SHA-NI on two pairs in turns, and the same beside AVX-512 on
// sixteen), gohashtree (SHA-NI, AVX-512, AVX2, Arm SHA2), sha256-simd or crypto/sha256. Messages of one size, which
// HashMany hashes, have all but gohashtree. Each must give embedded known answers; the fastest on this machine at a given size is used.
package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// tagList is the domain of list roots.
var tagList = [16]byte{'t', 'u', 't', 't', 'i', '/', 'l', 'i', 's', 't', '/', '1'}

// HashPairs sets dst[i] = SHA-256(src[2i] || src[2i+1]) for every i below len(dst), which may be 0.
// src holds exactly 2*len(dst) digests and does not overlap dst; HashPairs panics on any other length, as an index
// out of range would, because the kernels do not check.
func HashPairs(dst, src [][32]byte) {
	if len(src) != 2*len(dst) {
		panic(fmt.Sprintf("merkle: HashPairs of %d digests into %d", len(src), len(dst)))
	}
	if len(dst) > 0 {
		choose().For(len(dst)).HashPairs(dst, src)
	}
}

// ListRoot is the root of a list. It allocates three quarters of the size of leaves.
func ListRoot(leaves [][32]byte) [32]byte {
	var top [32]byte
	if len(leaves) > 0 {
		top = Top(leaves, Depth(len(leaves)))
	}
	return seal(uint64(len(leaves)), top)
}

// ListProof is the path of leaf i, 0 <= i < len(leaves), from the leaf's sibling up: ceil(log2 len(leaves)) digests.
// It costs as much as ListRoot and panics on an index out of range. For many paths make a Tree of that depth.
func ListProof(leaves [][32]byte, i int) [][32]byte {
	_ = leaves[i]
	return NewTree(leaves, Depth(len(leaves))).Path(i)
}

// VerifyList reports whether proof shows that leaf is at index i of the list of n leaves under root. A proof of any
// length but the exact one is refused.
func VerifyList(root [32]byte, n, i uint64, leaf [32]byte, proof [][32]byte) bool {
	return i < n && len(proof) == depth(n) && seal(n, Climb(leaf, i, proof)) == root
}

// Depth is the least number of levels over n leaves: ceil(log2 n), and 0 for n of 0 and 1.
func Depth(n int) int { return depth(uint64(n)) }

func depth(n uint64) int {
	if n < 2 {
		return 0
	}
	return bits.Len64(n - 1)
}

// node is one inner node, for where there is only one to hash.
func node(left, right [32]byte) [32]byte {
	var pair [64]byte
	copy(pair[:32], left[:])
	copy(pair[32:], right[:])
	return sha256.Sum256(pair[:])
}

// seal puts the length over the top node.
func seal(n uint64, top [32]byte) [32]byte {
	var b [16 + 8 + 32]byte
	copy(b[:16], tagList[:])
	binary.BigEndian.PutUint64(b[16:24], n)
	copy(b[24:], top[:])
	return sha256.Sum256(b[:])
}
