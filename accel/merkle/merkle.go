// Package merkle hashes pairs of digests in bulk and commits to lists of digests with binary SHA-256 trees.
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
// The pairs go through a Backend: gohashtree (SHA-NI two at a time, AVX-512 sixteen, AVX2 eight, Arm SHA2) or
// crypto/sha256. Both must give embedded known answers; the faster one on this machine is used.
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
		choose().backend.HashPairs(dst, src)
	}
}

// depth is the number of levels above the leaves of a list of n.
func depth(n uint64) int {
	if n < 2 {
		return 0
	}
	return bits.Len64(n - 1)
}

// ListRoot is the root of a list. It allocates three quarters of the size of leaves.
func ListRoot(leaves [][32]byte) [32]byte {
	var top [32]byte
	if len(leaves) > 0 {
		top = reduce(leaves, nil)
	}
	return seal(uint64(len(leaves)), top)
}

// ListProof is the path of leaf i, 0 <= i < len(leaves), from the leaf's sibling up: ceil(log2 len(leaves)) digests.
// It costs as much as ListRoot and panics on an index out of range.
func ListProof(leaves [][32]byte, i int) [][32]byte {
	_ = leaves[i]
	proof := make([][32]byte, 0, depth(uint64(len(leaves))))
	reduce(leaves, func(level [][32]byte, padding [32]byte) {
		if sibling := i ^ 1; sibling < len(level) {
			proof = append(proof, level[sibling])
		} else {
			proof = append(proof, padding)
		}
		i >>= 1
	})
	return proof
}

// VerifyList reports whether proof shows that leaf is at index i of the list of n leaves under root. A proof of any
// length but the exact one is refused.
func VerifyList(root [32]byte, n, i uint64, leaf [32]byte, proof [][32]byte) bool {
	if i >= n || len(proof) != depth(n) {
		return false
	}
	top := leaf
	for _, sibling := range proof {
		if i&1 == 0 {
			top = node(top, sibling)
		} else {
			top = node(sibling, top)
		}
		i >>= 1
	}
	return seal(n, top) == root
}

// reduce hashes one or more leaves up to the top node. Before each level is hashed, visit (if not nil) sees its
// digests without padding, and the digest that stands for padding at that level; it must not keep the slice.
func reduce(leaves [][32]byte, visit func(level [][32]byte, padding [32]byte)) [32]byte {
	half := (len(leaves) + 1) / 2
	scratch := make([][32]byte, half+(half+1)/2) // one level and the level above it, in turns
	spaces := [2][][32]byte{scratch[:half], scratch[half:]}
	level := leaves
	var padding [32]byte
	for range depth(uint64(len(leaves))) {
		if visit != nil {
			visit(level, padding)
		}
		next := spaces[0][:(len(level)+1)/2]
		HashPairs(next[:len(level)/2], level[:len(level)/2*2])
		if len(level)%2 == 1 {
			next[len(next)-1] = node(level[len(level)-1], padding)
		}
		padding = node(padding, padding)
		level = next
		spaces[0], spaces[1] = spaces[1], spaces[0]
	}
	return level[0]
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
