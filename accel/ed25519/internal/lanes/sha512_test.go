//go:build amd64 && !purego

package lanes

import (
	"crypto/sha512"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestSHA512 hashes messages of every length up to a few blocks, and some long ones, lane by lane against crypto/sha512,
// with other lengths in the other lanes.
func TestSHA512(t *testing.T) {
	needLanes(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	item := func(n int) *Item {
		it := &Item{Message: make([]byte, n)}
		for i := range it.Message {
			it.Message[i] = byte(rnd.Uint32())
		}
		for i := range it.Signature {
			it.Signature[i], it.Key[i/2] = byte(rnd.Uint32()), byte(rnd.Uint32())
		}
		return it
	}
	var h hasher
	var state [8]vector
	for length := range 700 {
		items := make([]*Item, 1+rnd.IntN(lanes))
		for l := range items {
			items[l] = item(length)
			switch rnd.IntN(8) {
			case 0:
				items[l] = item(rnd.IntN(3000))
			case 1, 2:
				items[l] = item(rnd.IntN(300))
			}
		}
		h.sum(&state, items)
		for l, it := range items {
			want := sha512.Sum512(append(append(append([]byte{}, it.Signature[:32]...), it.Key[:]...), it.Message...))
			for w := range state {
				if got := state[w][l]; got != binary.BigEndian.Uint64(want[8*w:]) {
					t.Fatalf("lane %d of %d, %d bytes: word %d is %x, want %x", l, len(items), len(it.Message), w, got, want[8*w:8*w+8])
				}
			}
		}
	}
}

// FuzzSHA512 hashes any message in any lane.
func FuzzSHA512(f *testing.F) {
	needLanes(f)
	f.Add([]byte("abc"), uint8(0))
	f.Add(make([]byte, 47), uint8(3))
	f.Add(make([]byte, 48), uint8(7))
	f.Add(make([]byte, 500), uint8(5))
	var h hasher
	var state [8]vector
	f.Fuzz(func(t *testing.T, message []byte, at uint8) {
		items := make([]*Item, lanes)
		for l := range items {
			items[l] = &Item{Message: message[:len(message)*l/lanes]}
		}
		lane := int(at % lanes)
		items[lane].Message = message
		copy(items[lane].Key[:], message)
		h.sum(&state, items)
		it := items[lane]
		want := sha512.Sum512(append(append(append([]byte{}, it.Signature[:32]...), it.Key[:]...), message...))
		for w := range state {
			if state[w][lane] != binary.BigEndian.Uint64(want[8*w:]) {
				t.Fatalf("lane %d: word %d is %x, want %x", lane, w, state[w][lane], want)
			}
		}
	})
}

// needLanes skips a test that this machine cannot run.
func needLanes(t testing.TB) {
	t.Helper()
	if !Supported() {
		t.Skip("no AVX-512 IFMA")
	}
}
