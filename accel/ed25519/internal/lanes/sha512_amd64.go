//go:build amd64 && !purego

package lanes

import (
	"encoding/binary"
	"unsafe"
)

const blockBytes = 128

// blocksOf is how many blocks SHA-512 makes of R, the key and a message of n bytes: with the bit and the length of 16
// bytes that it appends.
func blocksOf(n int) int { return (64 + n + 17 + blockBytes - 1) / blockBytes }

// hashed is one lane's message as blocks. The first has R, the key and the start of the message; the last one or two,
// with the padding, follow it in own. What lies between stays where the caller has it.
type hashed struct {
	own     [3 * blockBytes]byte
	message []byte
	blocks  int
}

func (h *hashed) set(it *Item) {
	h.message, h.blocks = it.Message, blocksOf(len(it.Message))
	clear(h.own[:])
	copy(h.own[:32], it.Signature[:32])
	copy(h.own[32:64], it.Key[:])
	rest := h.own[64+copy(h.own[64:blockBytes], it.Message):]
	if h.blocks > 1 {
		n := copy(h.own[blockBytes:], it.Message[min(len(it.Message), h.offset(h.blocks-h.last())):])
		if len(it.Message) >= 64 {
			rest = h.own[blockBytes+n:]
		}
	}
	rest[0] = 0x80
	end := h.own[:(1+h.last())*blockBytes]
	binary.BigEndian.PutUint64(end[len(end)-8:], 8*(64+uint64(len(it.Message))))
}

// last is how many of the last blocks are in own.
func (h *hashed) last() int { return min(2, h.blocks-1) }

// offset is where in the message a block other than the first starts.
func (h *hashed) offset(block int) int { return block*blockBytes - 64 }

func (h *hashed) block(i int) unsafe.Pointer {
	switch first := h.blocks - h.last(); {
	case i == 0 || i >= h.blocks:
		return unsafe.Pointer(&h.own[0])
	case i >= first:
		return unsafe.Pointer(&h.own[(1+i-first)*blockBytes])
	default:
		return unsafe.Pointer(&h.message[h.offset(i)])
	}
}

var sha512Initial = [8]uint64{
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
}

// hasher is the memory that hashing eight messages takes.
type hasher struct {
	lane   [lanes]hashed
	blocks [lanes]unsafe.Pointer
}

// sum sets state to SHA-512(R || key || message) of each item, words in the byte order of the digest's definition. Lanes
// without an item get that of the first.
func (h *hasher) sum(state *[8]vector, items []*Item) {
	for i, word := range sha512Initial {
		for l := range lanes {
			state[i][l] = word
		}
	}
	most := 0
	for l, it := range items {
		h.lane[l].set(it)
		most = max(most, h.lane[l].blocks)
	}
	for i := range most {
		var active uint64
		for l := range lanes {
			if l >= len(items) {
				h.blocks[l] = h.blocks[0]
				continue
			}
			h.blocks[l] = h.lane[l].block(i)
			if i < h.lane[l].blocks {
				active |= 1 << l
			}
		}
		sha512Block(state, &h.blocks, active)
	}
	for l := range items {
		h.lane[l].message = nil // the caller's
	}
	clear(h.blocks[:])
}
