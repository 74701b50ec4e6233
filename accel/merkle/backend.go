package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	sha256simd "github.com/minio/sha256-simd"
	"github.com/prysmaticlabs/gohashtree"

	"tutti/accel/internal/selftest"
)

// Backend hashes pairs of digests. Implementations are safe for concurrent use.
type Backend interface {
	Name() string
	// HashPairs sets dst[i] = SHA-256(src[2i] || src[2i+1]); len(src) is 2*len(dst), len(dst) is at least 1 and the
	// two do not overlap.
	HashPairs(dst, src [][32]byte)
}

// SelfTest tells which backends gave the known answers in this process and which one is in use for how many pairs or
// messages. The first call, or the first use, does the work (some milliseconds).
func SelfTest() []selftest.Verdict {
	return slices.Concat(choose().Verdicts(), chooseMany().Verdicts())
}

// Backends are all backends for pairs in this build, whether they can be used here or not; for benchmarks.
func Backends() []Backend { return candidates() }

// ManyBackends are all backends for messages in this build, likewise.
func ManyBackends() []ManyBackend { return manyCandidates() }

// choose runs the self-test once. Should no backend pass, crypto/sha256 stays in use, being the definition here;
// SelfTest then shows a machine that cannot hash and the node refuses to start.
var choose = sync.OnceValue(func() *selftest.Table[Backend] {
	most := slices.Max(selftest.DefaultSizes())
	src, dst := make([][32]byte, 2*most), make([][32]byte, most)
	op := selftest.Operation[Backend]{
		Name: "merkle pairs", Item: "pair", Budget: 20 * time.Millisecond,
		Check: check,
		Work:  func(b Backend, n int) { b.HashPairs(dst[:n], src[:2*n]) },
		None:  stdlib{},
	}
	return selftest.Choose(op, candidates()...)
})

// stdlib is crypto/sha256, one pair at a time.
type stdlib struct{}

func (stdlib) Name() string { return "crypto/sha256" }

func (stdlib) HashPairs(dst, src [][32]byte) {
	for i := range dst {
		dst[i] = node(src[2*i], src[2*i+1])
	}
}

func (stdlib) HashMany(dst [][32]byte, src []byte, size int) {
	for i := range dst {
		dst[i] = sha256.Sum256(src[i*size : (i+1)*size])
	}
}

// simd is minio's sha256-simd, one message at a time. Its server for sixteen lanes is left out: below a mebibyte it
// takes ten times as long as crypto/sha256 (rows hash/messages-... of the benchmarks).
type simd struct{}

func (simd) Name() string { return "sha256-simd" }

func (simd) HashPairs(dst, src [][32]byte) {
	var pair [64]byte
	for i := range dst {
		copy(pair[:32], src[2*i][:])
		copy(pair[32:], src[2*i+1][:])
		dst[i] = sha256simd.Sum256(pair[:])
	}
}

func (simd) HashMany(dst [][32]byte, src []byte, size int) {
	for i := range dst {
		dst[i] = sha256simd.Sum256(src[i*size : (i+1)*size])
	}
}

// hashtree is Prysmatic's gohashtree, which picks its kernel by CPU and has a portable one.
type hashtree struct{}

func (hashtree) Name() string { return "gohashtree" }

func (hashtree) HashPairs(dst, src [][32]byte) {
	const most = 1 << 20 // the kernels count in 32 bits
	for len(dst) > most {
		gohashtree.HashChunks(dst[:most], src[:2*most])
		dst, src = dst[most:], src[2*most:]
	}
	gohashtree.HashChunks(dst, src)
}

// chained is the known answer of check's last step: SHA-256 over the digests of pairs 0 to 66, where digest j of the
// input is SHA-256(u64be(j)). It was computed with Python's hashlib.
var chained = [32]byte{
	0x71, 0x05, 0xed, 0x11, 0x90, 0x51, 0x16, 0x45, 0x19, 0xbb, 0x29, 0xe9, 0xf7, 0x25, 0xf2, 0x58,
	0x51, 0x2b, 0x90, 0xf7, 0x4f, 0x95, 0x49, 0x20, 0x6c, 0x62, 0xb2, 0x92, 0xd6, 0xff, 0xd5, 0x45,
}

// check gives a backend every batch length from 1 to 67 pairs, so that each kernel width and remainder is met.
func check(b Backend) error {
	const most = 67
	var src [2 * most][32]byte
	for j := range src {
		src[j] = sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(j)))
	}
	var want, got [most + 1][32]byte
	stdlib{}.HashPairs(want[:most], src[:])
	sum := sha256.New()
	for i := range most {
		sum.Write(want[i][:])
	}
	if [32]byte(sum.Sum(nil)) != chained {
		return errors.New("crypto/sha256 itself does not give the known answer")
	}
	for n := 1; n <= most; n++ {
		got = [most + 1][32]byte{}
		b.HashPairs(got[:n], src[:2*n])
		for i := range n {
			if got[i] != want[i] {
				return fmt.Errorf("known answer %d of %d pairs is %x, want %x", i, n, got[i], want[i])
			}
		}
		if got[n] != ([32]byte{}) {
			return fmt.Errorf("wrote past the end of %d pairs", n)
		}
	}
	return nil
}
