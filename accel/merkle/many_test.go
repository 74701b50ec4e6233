package merkle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tutti/accel/internal/selftest"
)

// sameMany hashes n messages with every backend and with HashMany, between guards, and compares each digest with
// crypto/sha256's.
func sameMany(t interface{ Fatalf(string, ...any) }, src []byte, n, size int) {
	want := make([][32]byte, n)
	for i := range want {
		want[i] = sha256.Sum256(src[i*size : (i+1)*size])
	}
	kept := bytes.Clone(src)
	compare := func(name string, hash func(dst [][32]byte, src []byte, size int)) {
		got := make([][32]byte, n+2)
		hash(got[1:n+1], src, size)
		for i := range want {
			if got[i+1] != want[i] {
				t.Fatalf("%s: digest %d of %d messages of %d bytes is %x, want %x", name, i, n, size, got[i+1], want[i])
			}
		}
		if got[0] != ([32]byte{}) || got[n+1] != ([32]byte{}) || !bytes.Equal(src, kept) {
			t.Fatalf("%s: %d messages of %d bytes: wrote outside dst", name, n, size)
		}
	}
	compare("HashMany", HashMany)
	for _, b := range ManyBackends() {
		if n > 0 && usable(b) {
			compare(b.Name(), b.HashMany)
		}
	}
}

// TestHashManySizes runs every size of up to four blocks in a batch that needs the kernels' every turn.
func TestHashManySizes(t *testing.T) {
	text := make([]byte, 51*260+1)
	for i := range text {
		text[i] = byte(i * i >> 3)
	}
	for size := range 260 {
		for _, n := range []int{1, 2, 3, 24, 25, 51} {
			sameMany(t, text[1:1+n*size], n, size) // not aligned
		}
	}
	sameMany(t, nil, 0, 0)
	sameMany(t, nil, 0, 64)
	sameMany(t, make([]byte, 5*100_003), 5, 100_003)
}

func TestHashManyProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, n := rapid.IntRange(0, 300).Draw(t, "size"), rapid.IntRange(0, 70).Draw(t, "n")
		sameMany(t, rapid.SliceOfN(rapid.Byte(), size*n, size*n).Draw(t, "src"), n, size)
	})
}

func TestHashManyLengths(t *testing.T) {
	for _, tc := range []struct{ dst, src, size int }{{0, 1, 1}, {1, 0, 1}, {1, 2, 1}, {2, 2, 2}, {1, 5, -5}, {1, 1, 0}, {1 << 10, 0, 1 << 54}} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "HashMany") {
					t.Errorf("%+v: recovered %v, want a panic that names HashMany", tc, r)
				}
			}()
			HashMany(make([][32]byte, tc.dst), make([]byte, tc.src), tc.size)
		}()
	}
}

// brokenMany is wrong where a message ends in the last eight bytes of a block, as with a length field in the wrong one.
type brokenMany struct{ stdlib }

func (brokenMany) Name() string { return "broken" }

func (b brokenMany) HashMany(dst [][32]byte, src []byte, size int) {
	b.stdlib.HashMany(dst, src, size)
	if size%64 >= 56 {
		dst[len(dst)-1][0] ^= 0x80
	}
}

// TestCheckManyCatches is the canary of the self-test.
func TestCheckManyCatches(t *testing.T) {
	op := selftest.Operation[ManyBackend]{Check: checkMany, Work: func(ManyBackend, int) {}}
	table := selftest.Choose[ManyBackend](op, brokenMany{}, stdlib{})
	if v := table.Verdicts()[0]; table.For(100) != (stdlib{}) || !strings.Contains(v.Reason, "known answer 0 of 1 messages of 56 bytes") {
		t.Errorf("%+v, want it disabled", v)
	}
}

// FuzzHashMany compares all backends with crypto/sha256 on any messages; the same bytes are pairs as well.
func FuzzHashMany(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add(bytes.Repeat([]byte{7}, 64*51), uint16(64))
	f.Add(bytes.Repeat([]byte("tutti/tx/1"), 500), uint16(81))
	f.Add(bytes.Repeat([]byte{0xff}, 1200*25), uint16(1200))
	f.Add(bytes.Repeat([]byte{0x80}, 120*49), uint16(120))
	f.Fuzz(func(t *testing.T, text []byte, size uint16) {
		n := 3
		if size > 0 {
			n = len(text) / int(size)
		}
		sameMany(t, text[:n*int(size)], n, int(size))
		src := make([][32]byte, len(text)/64*2)
		for i := range src {
			src[i] = [32]byte(text[32*i:])
		}
		got := make([][32]byte, len(src)/2)
		for _, b := range Backends() {
			if len(got) == 0 || !usable(b) {
				continue
			}
			clear(got)
			b.HashPairs(got, src)
			for i := range got {
				if got[i] != sha256.Sum256(text[64*i:64*i+64]) {
					t.Fatalf("%s: pair %d of %d is wrong", b.Name(), i, len(got))
				}
			}
		}
	})
}

func BenchmarkHashMany(b *testing.B) {
	for _, backend := range ManyBackends() {
		if !usable(backend) {
			continue
		}
		for _, size := range []int{81, 128, 1200} {
			const n = 512
			src, dst := make([]byte, n*size), make([][32]byte, n)
			b.Run(fmt.Sprintf("%s/%d", backend.Name(), size), func(b *testing.B) {
				for b.Loop() {
					backend.HashMany(dst, src, size)
				}
				if dst[n-1] != sha256.Sum256(src[:size]) {
					b.Fatal("wrong digest")
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/item")
			})
		}
	}
}
