//go:build amd64 && !purego

package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/klauspost/cpuid/v2"
)

//go:generate sh -c "go run ./internal/gen > sha_amd64.s"

// sha2x hashes 2*pairs messages. Message j is first the given number of 64-byte blocks at src + j*stride, then
// tailBlocks blocks at tail + j*tailStride, then, if padding is not nil, one block that is the same for all messages
// and is given as its expanded schedule with the round constants added. Its digest goes to dst + 32*j. pairs is at
// least 1; nothing is checked.
//
//go:noescape
func sha2x(dst, src *byte, pairs, stride, blocks int, tail *byte, tailStride, tailBlocks int, padding *[64]uint32)

// sha24x does the same for 24*groups messages.
//
//go:noescape
func sha24x(dst, src *byte, groups, stride, blocks int, tail *byte, tailStride, tailBlocks int, padding *[64]uint32)

// shaNI is the SHA-NI instructions on two messages in turns.
type shaNI struct{}

func (shaNI) Name() string { return "sha-ni x2" }

func (shaNI) Needs() []cpuid.FeatureID { return []cpuid.FeatureID{cpuid.SHA, cpuid.AVX} }

// mixed is AVX-512 on sixteen messages in lanes and, at the same time, SHA-NI on eight more, two in turns.
type mixed struct{}

func (mixed) Name() string { return "sha-ni and avx-512" }

func (mixed) Needs() []cpuid.FeatureID {
	return []cpuid.FeatureID{cpuid.SHA, cpuid.AVX, cpuid.AVX512F, cpuid.AVX512BW}
}

// Messages in one turn of each kernel.
const (
	narrow = 2
	wide   = 24
)

// pairPadding is the padding of every pair of digests.
var pairPadding = sync.OnceValue(func() *[64]uint32 { p := paddingOf(64); return &p })

func (shaNI) HashPairs(dst, src [][32]byte) {
	if even := len(dst) / narrow * narrow; even > 0 {
		sha2x(&dst[0][0], &src[0][0], even/narrow, 64, 1, nil, 0, 0, pairPadding())
	}
	if i := len(dst) - 1; i%narrow == 0 {
		dst[i] = node(src[2*i], src[2*i+1])
	}
}

func (mixed) HashPairs(dst, src [][32]byte) {
	n := len(dst) / wide * wide
	if n > 0 {
		sha24x(&dst[0][0], &src[0][0], n/wide, 64, 1, nil, 0, 0, pairPadding())
	}
	if n < len(dst) {
		shaNI{}.HashPairs(dst[n:], src[2*n:])
	}
}

func (shaNI) HashMany(dst [][32]byte, src []byte, size int) {
	n := len(dst) / narrow * narrow
	hashTurns(narrow, dst[:n], src[:n*size], size)
	if n < len(dst) {
		dst[n] = sha256.Sum256(src[n*size:])
	}
}

func (mixed) HashMany(dst [][32]byte, src []byte, size int) {
	n := len(dst) / wide * wide
	hashTurns(wide, dst[:n], src[:n*size], size)
	if n < len(dst) {
		shaNI{}.HashMany(dst[n:], src[n*size:], size)
	}
}

// hashTurns hashes a multiple of turn messages with the kernel for as many. Whole blocks of messages are taken from
// where they are; what is left of each, and its padding, is put together on the stack for some messages at a time.
func hashTurns(turn int, dst [][32]byte, src []byte, size int) {
	if len(dst) == 0 {
		return
	}
	blocks, rest := size/64, size%64
	if rest == 0 && size > 0 {
		padding := pairPadding()
		if size != 64 {
			other := paddingOf(size)
			padding = &other
		}
		run(turn, dst, &src[0], size, blocks, nil, 0, padding)
		return
	}
	const atOnce = 24 // a multiple of every turn
	var tails [atOnce * 128]byte
	length := 64 // of one tail
	if rest >= 56 {
		length = 128
	}
	for j := range min(atOnce, len(dst)) {
		tail := tails[j*length:][:length]
		tail[rest] = 0x80
		binary.BigEndian.PutUint64(tail[length-8:], uint64(size)*8)
	}
	data := &tails[0] // where there are no blocks before the tail, no data is read
	for len(dst) > 0 {
		n := min(atOnce, len(dst))
		for j := range n {
			copy(tails[j*length:][:rest], src[j*size+blocks*64:])
		}
		if blocks > 0 {
			data = &src[0]
		}
		run(turn, dst[:n], data, size, blocks, &tails[0], length, nil)
		dst, src = dst[n:], src[n*size:]
	}
}

// run calls the kernel for a turn.
func run(turn int, dst [][32]byte, src *byte, stride, blocks int, tail *byte, tailBytes int, padding *[64]uint32) {
	if turn == wide {
		sha24x(&dst[0][0], src, len(dst)/wide, stride, blocks, tail, tailBytes, tailBytes/64, padding)
	} else {
		sha2x(&dst[0][0], src, len(dst)/narrow, stride, blocks, tail, tailBytes, tailBytes/64, padding)
	}
}

// paddingOf is the schedule, with the round constants added, of the block that follows a message of size bytes, a
// multiple of 64: FIPS 180-4, sections 5.1.1 and 6.2.2, step 1.
func paddingOf(size int) (w [64]uint32) {
	w[0] = 1 << 31
	w[14], w[15] = uint32(uint64(size)*8>>32), uint32(size*8)
	for t := 16; t < 64; t++ {
		a, b := w[t-2], w[t-15]
		w[t] = (bits.RotateLeft32(a, -17) ^ bits.RotateLeft32(a, -19) ^ a>>10) + w[t-7] +
			(bits.RotateLeft32(b, -7) ^ bits.RotateLeft32(b, -18) ^ b>>3) + w[t-16]
	}
	for t := range w {
		w[t] += k256[t]
	}
	return w
}

// k256 are SHA-256's round constants. Nothing writes to it; the kernel reads it.
var k256 = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// candidates are the backends for pairs, the preferred one first.
func candidates() []Backend { return []Backend{mixed{}, shaNI{}, hashtree{}, simd{}, stdlib{}} }

// manyCandidates are the backends for messages.
func manyCandidates() []ManyBackend { return []ManyBackend{mixed{}, shaNI{}, simd{}, stdlib{}} }
