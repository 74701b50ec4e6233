// Package receipt holds the cumulative root of a receipt channel: a Merkle mountain range over 32-byte leaves, to
// which one only appends. The same range serves every other append-only list under the state root.
//
// The leaves are domain-separated digests made by the caller (tx.Receipt.Leaf binds source, destination and sequence
// number). A range of n leaves is one perfect binary SHA-256 tree for each bit set in n, the largest first; the tops
// of these trees are the peaks. An inner node is SHA-256(left || right); the root is
//
//	SHA-256("tutti/mmr/1" padded with zeros to 16 bytes || n as big-endian u64 || peaks, largest tree first)
//
// so that the count is under the root and fixes the shape: a proof shows one leaf at one position of one count, and
// inner nodes can't be passed off as leaves. n is at most MaxLeaves.
//
// Appending needs the peaks alone (at most 63 digests), and so does proving a leaf that was appended since: Prove
// takes the range as it was and the leaves appended to it. Golden vectors are in testdata/. Nothing is fatal.
//
// Source: Todd, "Merkle Mountain Ranges" (opentimestamps, 2012). Deviations: the peaks are hashed flat, not bagged
// pairwise, and the count is under the root.
package receipt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"tutti/accel/merkle"
)

// MaxLeaves bounds the count of a range.
const MaxLeaves = 1 << 62

// ErrMalformed wraps every decoding error of this package.
var ErrMalformed = errors.New("malformed encoding")

var tagRoot = [16]byte{'t', 'u', 't', 't', 'i', '/', 'm', 'm', 'r', '/', '1'}

// Range is a Merkle mountain range, reduced to what appending needs. The zero Range is empty. It is a value: Append
// returns a new one and never changes what the old one refers to.
type Range struct {
	count uint64
	peaks [][32]byte // one for each bit set in count, largest tree first; shared between copies, never modified
}

// Count is the number of leaves.
func (r Range) Count() uint64 { return r.count }

// Root commits to all leaves and their count.
func (r Range) Root() [32]byte { return seal(r.count, r.peaks) }

func seal(count uint64, peaks [][32]byte) [32]byte {
	b := make([]byte, 0, 16+8+8*32)
	b = append(b, tagRoot[:]...)
	b = binary.BigEndian.AppendUint64(b, count)
	for i := range peaks {
		b = append(b, peaks[i][:]...)
	}
	return sha256.Sum256(b)
}

// Append returns the range with the leaves added in order. It costs about one hash a leaf, in batches, and panics
// over MaxLeaves, which no chain reaches.
func (r Range) Append(leaves [][32]byte) Range { return r.appended(leaves, nil) }

// appended adds leaves. Before the trees of height h are paired, visit (if not nil) sees them: all trees of that
// height which are new, preceded by the old peak of that height if there is one.
func (r Range) appended(leaves [][32]byte, visit func(height int, trees [][32]byte)) Range {
	if uint64(len(leaves)) > MaxLeaves-r.count {
		panic(fmt.Sprintf("receipt: a range of %d leaves and %d more is over the limit", r.count, len(leaves)))
	}
	out := Range{count: r.count + uint64(len(leaves))}
	if len(leaves) == 0 {
		out.peaks = r.peaks
		return out
	}
	old := len(r.peaks) // peaks not yet met; heights are met in ascending order, so from the end
	lone := make([][32]byte, 0, bits.OnesCount64(out.count))
	trees := leaves
	for height := 0; len(trees) > 0 || r.count>>height != 0; height++ {
		if r.count>>height&1 == 1 {
			old--
			trees = append([][32]byte{r.peaks[old]}, trees...)
		}
		if visit != nil {
			visit(height, trees)
		}
		if len(trees)&1 == 1 {
			lone = append(lone, trees[len(trees)-1])
		}
		next := make([][32]byte, len(trees)/2)
		merkle.HashPairs(next, trees[:2*len(next)])
		trees = next
	}
	for i := len(lone) - 1; i >= 0; i-- {
		out.peaks = append(out.peaks, lone[i])
	}
	return out
}

// Split divides r behind the last whole tree of 2^height leaves. high is the range over the tops of all these trees in
// order, as if they were leaves; low is the range over the leaves behind them.
func (r Range) Split(height int) (high, low Range) {
	if height >= 63 {
		return Range{}, r
	}
	high.count, low.count = r.count>>height, r.count&(1<<height-1)
	n := bits.OnesCount64(high.count)
	high.peaks, low.peaks = r.peaks[:n:n], r.peaks[n:]
	return high, low
}

// AppendBytes appends the encoding: count 8, then the peaks, 32 bytes each, largest tree first.
func (r Range) AppendBytes(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, r.count)
	for i := range r.peaks {
		b = append(b, r.peaks[i][:]...)
	}
	return b
}

// Read decodes a range from the front of b and returns what follows it.
func Read(b []byte) (Range, []byte, error) {
	if len(b) < 8 {
		return Range{}, nil, fmt.Errorf("receipt: %w: %d bytes are too few for a count", ErrMalformed, len(b))
	}
	r := Range{count: binary.BigEndian.Uint64(b)}
	b = b[8:]
	if r.count > MaxLeaves {
		return Range{}, nil, fmt.Errorf("receipt: %w: count %d is over the limit", ErrMalformed, r.count)
	}
	n := bits.OnesCount64(r.count)
	if len(b) < 32*n {
		return Range{}, nil, fmt.Errorf("receipt: %w: %d bytes are too few for %d peaks", ErrMalformed, len(b), n)
	}
	if n > 0 {
		r.peaks = make([][32]byte, n)
		for i := range r.peaks {
			copy(r.peaks[i][:], b[32*i:])
		}
	}
	return r, b[32*n:], nil
}

// Decode decodes exactly one range.
func Decode(b []byte) (Range, error) {
	r, rest, err := Read(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("receipt: %w: %d bytes too many", ErrMalformed, len(rest))
	}
	if err != nil {
		return Range{}, err
	}
	return r, nil
}
