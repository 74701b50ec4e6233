// Package erasure cuts a block's body into shards, any k of which rebuild it, under one commitment.
//
// # The code
//
// A Code has n shards of which the first k are the body itself, padded with zeros to k shards of the same size, the
// least multiple of 64 bytes that holds it; n is at most 4,096. ForCommittee chooses k, n and how many shards each
// member of a committee gets, so that any members with strictly more than a third of the voting power hold k.
//
// The other n-k shards are Reed-Solomon parity. Which of the possible codes it is is part of the protocol, since every
// validator must come to the same bytes: Leopard (Lin, Al-Naffouri, Han, Chung, "Novel Polynomial Basis with Fast
// Fourier Transform and Its Application to Reed-Solomon Erasure Codes", 2016), over GF(2^8) where it fits, that is
// where k plus n-k rounded up to a power of two is at most 256, and over GF(2^16) elsewhere. With p = n-k rounded up
// to a power of two, data shard j is the value at point p+j and parity shard i the value at point i of a sum of
// polynomials of degree below p, one for each p data shards (those beyond k are zero), each of which is zero at the
// other points of its own p. Points and symbols are written in Cantor's basis; reference_test.go has it all in 60
// lines. Golden vectors are in testdata/.
//
// Why Leopard: what counts is rebuilding from any k shards plus encoding again, which every validator does for every
// body. Measured with klauspost/reedsolomon v1.14.2 on one Zen 4 core, in microseconds:
//
//	k of n x bytes        Vandermonde GF8   Leopard GF8   Leopard GF16
//	                      encode rebuild    enc.  reb.    enc.   reb.
//	32 of  64 x 16,384      239    163       28   130       32    846
//	22 of  64 x  1,024       14     20      3.5    21        4    522
//	43 of 128 x  1,024       54    115        9    43        9    543
//	43 of 128 x 16,384      880    390      142   673      145  1,057
//	64 of 192 x  1,024      168    350       11    44       11    536
//	134 of 400 x   832        -      -        -     -       32    663
//	1,366 of 4,096 x 832      -      -        -     -      415  3,025
//
// Vandermonde decodes faster when few data shards are missing, but never encodes as fast, and ends at 256 shards.
// GF(2^16) costs half a millisecond for every rebuilding, however small the shards are, and the first such code in a
// process builds tables of 75 MiB that stay; so it is only used where GF(2^8) ends. There, few large sets are cheaper
// than many small ones: shards of 4 KiB are rebuilt at twice the rate of shards of 832 bytes.
//
// # The commitment
//
// It is merkle.ListRoot over the n leaves
//
//	SHA-256("tutti/shard/1" padded with zeros to 16 bytes || k u16 || n u16 || length u32 || SHA-256(shard))
//
// with integers big-endian and length that of the body in bytes. So each shard is checked by its path, before it is
// kept, and no shard of another code or length passes. Such a path does not show that the shards belong together:
// only who has rebuilt the body, encoded it again and found the same commitment knows that (Assembly.Rebuild). Whoever
// does so, from whichever k shards, comes to the same verdict: if one set of k leads to a body with this commitment,
// then all shards under it are that body's, and so every other set of k leads there too.
//
// Bodies of 1 byte to MaxLength are taken in one set, if its shards take no more than MaxBytes together. A body for which single shards would be larger than a datagram
// is cut by the caller into parts of Capacity bytes, each a set with its own commitment.
//
// Codes, Committees and Sets are immutable and safe for concurrent use; an Assembly belongs to one goroutine. Work is
// done on the calling goroutine. Inputs are not kept. Nothing here is fatal; errors wrap one of those below.
package erasure

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/klauspost/reedsolomon"

	"tutti/accel/merkle"
)

// Limits.
const (
	MaxShards  = 4096     // of one set
	MaxMembers = 1024     // of one committee
	MaxPower   = 1 << 60  // of one committee together
	MaxLength  = 16 << 20 // bytes of a body in one set
	MaxBytes   = 64 << 20 // of all shards of one set: four times the longest body
	blockBytes = 64       // what shard sizes are multiples of, as Leopard requires
)

// What can be wrong. ErrMalformed alone is a verdict on the commitment; the others are about one call.
var (
	ErrCode      = errors.New("no such code")
	ErrPowers    = errors.New("bad voting powers")
	ErrLength    = errors.New("bad body length")
	ErrIndex     = errors.New("no such shard")
	ErrSize      = errors.New("wrong size or number of shards")
	ErrPath      = errors.New("shard is not under the commitment")
	ErrDuplicate = errors.New("shard is already there")
	ErrTooFew    = errors.New("too few shards")
	ErrMalformed = errors.New("commitment is not to the shards of one body")
)

// Code is a way to cut bodies into n shards, any k of which are enough.
type Code struct {
	k, n   int
	field  int // bits of a symbol: 8 or 16
	parity reedsolomon.Encoder
}

// New is the code of n shards, any k of which are enough: 1 <= k < n <= MaxShards.
func New(k, n int) (*Code, error) {
	if k < 1 || n <= k || n > MaxShards {
		return nil, fmt.Errorf("erasure: %w: %d of %d shards, need 1 <= k < n <= %d", ErrCode, k, n, MaxShards)
	}
	c := &Code{k: k, n: n, field: 8}
	leopard := reedsolomon.WithLeopardGF(true)
	if k+1<<bits.Len(uint(n-k-1)) > 256 {
		c.field = 16
		leopard = reedsolomon.WithLeopardGF16(true)
	}
	// The library's cache of erasure patterns stays off: it grows with every pattern that peers care to cause, and in
	// v1.14.2 it takes patterns that differ in parity shards alone for the same and then rebuilds wrong data.
	parity, err := reedsolomon.New(k, n-k, leopard,
		reedsolomon.WithInversionCache(false), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		return nil, fmt.Errorf("erasure: %w: %d of %d shards: %w", ErrCode, k, n, err)
	}
	c.parity = parity
	return c, nil
}

// K is how many shards are enough.
func (c *Code) K() int { return c.k }

// N is how many shards there are.
func (c *Code) N() int { return c.n }

// Field names the code of the parity shards, for reports.
func (c *Code) Field() string { return fmt.Sprintf("leopard-gf%d", c.field) }

// PathBytes is the length of a shard's path.
func (c *Code) PathBytes() int { return 32 * merkle.Depth(c.n) }

// Capacity is the length of the longest body whose shards fit, each with its path, in shardAndPath bytes; 0 if none.
func (c *Code) Capacity(shardAndPath int) int {
	size := min(shardAndPath-c.PathBytes(), MaxBytes/c.n) / blockBytes * blockBytes
	return min(max(size, 0)*c.k, MaxLength)
}

// ShardBytes is the size of every shard of a body of the given length.
func (c *Code) ShardBytes(length int) (int, error) {
	if length < 1 || length > MaxLength {
		return 0, fmt.Errorf("erasure: %w: %d bytes, need 1 to %d", ErrLength, length, MaxLength)
	}
	perShard := (length + c.k - 1) / c.k
	size := (perShard + blockBytes - 1) / blockBytes * blockBytes
	if size > MaxBytes/c.n {
		return 0, fmt.Errorf("erasure: %w: %d bytes make %d shards of %d, more than %d bytes together", ErrLength, length, c.n, size, MaxBytes)
	}
	return size, nil
}

// Parity fills in shards k to n-1 from shards 0 to k-1: n slices of one size, a multiple of 64 bytes, that do not
// overlap. It is the code alone, without commitment.
func (c *Code) Parity(shards [][]byte) error {
	if err := c.parity.Encode(shards); err != nil {
		return fmt.Errorf("erasure: %w: parity: %w", ErrSize, err)
	}
	return nil
}

// Recover fills in those of shards 0 to k-1 that have no length, within their capacity where it is enough. At least k
// of the n shards are there, of one size, a multiple of 64 bytes. If there are more than k and they are not all of one
// body, what comes out is undefined; Assembly never lets that happen. It is the code alone, without commitment.
func (c *Code) Recover(shards [][]byte) error {
	if err := c.parity.ReconstructData(shards); err != nil {
		return fmt.Errorf("erasure: %w: recover: %w", ErrSize, err)
	}
	return nil
}

// cut is a buffer of n shards as n slices of it.
func (c *Code) cut(buf []byte, size int) [][]byte {
	shards := make([][]byte, c.n)
	for i := range shards {
		shards[i] = buf[i*size : (i+1)*size : (i+1)*size]
	}
	return shards
}
