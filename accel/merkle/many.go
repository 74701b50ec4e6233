package merkle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"tutti/accel/internal/selftest"
)

// ManyBackend hashes messages of one size. Implementations are safe for concurrent use.
type ManyBackend interface {
	Name() string
	// HashMany sets dst[i] = SHA-256(src[i*size:(i+1)*size]); len(src) is size*len(dst), len(dst) is at least 1, size
	// at least 0, and the two do not overlap.
	HashMany(dst [][32]byte, src []byte, size int)
}

// HashMany sets dst[i] = SHA-256(src[i*size:(i+1)*size]) for every i below len(dst), which may be 0: many messages of
// size bytes that lie end to end. src is exactly size*len(dst) bytes and does not overlap dst; HashMany panics on any
// other length, as an index out of range would, because the kernels do not check.
func HashMany(dst [][32]byte, src []byte, size int) {
	if size < 0 || size > len(src) && len(dst) > 0 || len(src) != size*len(dst) {
		panic(fmt.Sprintf("merkle: HashMany of %d bytes as %d messages of %d", len(src), len(dst), size))
	}
	if len(dst) == 0 {
		return
	}
	if size == 64 { // a message is a pair, and for pairs there are more backends
		HashPairs(dst, unsafe.Slice((*[32]byte)(unsafe.Pointer(&src[0])), 2*len(dst)))
		return
	}
	chooseMany().For(len(dst)).HashMany(dst, src, size)
}

// measuredSize is the size of the messages that backends are measured with: a tagged transfer, two blocks.
const measuredSize = 96

// chooseMany runs the self-test of the backends for messages once. As for pairs, crypto/sha256 stays if none passes.
var chooseMany = sync.OnceValue(func() *selftest.Table[ManyBackend] {
	most := slices.Max(selftest.DefaultSizes())
	src, dst := make([]byte, most*measuredSize), make([][32]byte, most)
	op := selftest.Operation[ManyBackend]{
		Name: "merkle messages", Item: "message", Budget: 15 * time.Millisecond,
		Check: checkMany,
		Work:  func(b ManyBackend, n int) { b.HashMany(dst[:n], src[:n*measuredSize], measuredSize) },
		None:  stdlib{},
	}
	return selftest.Choose(op, manyCandidates()...)
})

// chainedMany is the known answer of checkMany: SHA-256 over the digests of the messages of all its sizes, of which
// message i of size s is the bytes of text from i*s on, and text[j] is (j*j*j + 7*j) mod 251. It was computed with
// Python's hashlib.
var chainedMany = [32]byte{
	0xe4, 0xdd, 0xd8, 0x7d, 0x17, 0x39, 0x6a, 0x3a, 0x7b, 0xc4, 0x3e, 0x57, 0x36, 0xf8, 0x99, 0x3c,
	0x85, 0xc0, 0xf6, 0x3f, 0xc6, 0x8b, 0x8c, 0xd1, 0xe7, 0xba, 0x28, 0x6b, 0x40, 0xda, 0x6c, 0xec,
}

// checkMany gives a backend messages of every size around the edges of blocks, in batches of every short length.
func checkMany(b ManyBackend) error {
	const most = 51 // two turns of the widest kernel and a rest
	sizes := []int{0, 1, 31, 55, 56, 63, 64, 65, 81, 96, 119, 120, 127, 128, 129, 183, 184, 1200}
	text := make([]byte, most*slices.Max(sizes))
	for j := range text {
		text[j] = byte((j*j*j + 7*j) % 251)
	}
	sum := sha256.New()
	for _, size := range sizes {
		var want, got [most + 1][32]byte
		stdlib{}.HashMany(want[:most], text[:most*size], size)
		for i := range most {
			sum.Write(want[i][:])
		}
		for _, n := range []int{1, 2, 3, 4, 23, 24, 25, 26, 48, 51} {
			got = [most + 1][32]byte{}
			b.HashMany(got[:n], text[:n*size], size)
			for i := range n {
				if got[i] != want[i] {
					return fmt.Errorf("known answer %d of %d messages of %d bytes is %x, want %x", i, n, size, got[i], want[i])
				}
			}
			if got[n] != ([32]byte{}) {
				return fmt.Errorf("wrote past the end of %d messages", n)
			}
		}
	}
	if [32]byte(sum.Sum(nil)) != chainedMany {
		return errors.New("crypto/sha256 itself does not give the known answer")
	}
	return nil
}
