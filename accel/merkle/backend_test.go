package merkle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/internal/cpu"
	"tutti/accel/internal/selftest"
)

// TestDetects: the features that gohashtree is said to use are there.
func TestDetects(t *testing.T) {
	features := hashtree{}.Detects()
	t.Logf("gohashtree uses %v", features)
	if !cpuid.CPU.Supports(features...) {
		t.Errorf("this machine lacks some of %v", features)
	}
}

// usable reports whether this machine has what a backend needs.
func usable(b any) bool {
	n, ok := b.(selftest.Needs)
	return !ok || cpu.Has(n.Needs()...)
}

func skipUnusable(t *testing.T, b any) {
	if !usable(b) {
		t.Skip("this machine can't run it")
	}
}

// TestBackendsAgree runs every backend on more lengths than the self-test does, with guards around the output.
func TestBackendsAgree(t *testing.T) {
	for _, b := range Backends() {
		t.Run(b.Name(), func(t *testing.T) {
			skipUnusable(t, b)
			if err := check(b); err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{1, 2, 15, 16, 17, 33, 255, 1000} {
				src := numbered(2 * n)
				got := make([][32]byte, n+2)
				b.HashPairs(got[1:n+1], src)
				for i := range n {
					if got[i+1] != node(src[2*i], src[2*i+1]) {
						t.Fatalf("pair %d of %d is wrong", i, n)
					}
				}
				if got[0] != ([32]byte{}) || got[n+1] != ([32]byte{}) {
					t.Fatalf("%d pairs: wrote outside dst", n)
				}
			}
		})
	}
}

func TestHashPairsLengths(t *testing.T) {
	HashPairs(nil, nil)
	src := numbered(2)
	var one [1][32]byte
	HashPairs(one[:], src)
	if one[0] != node(src[0], src[1]) {
		t.Error("one pair is wrong")
	}
	for _, tc := range []struct{ dst, src int }{{0, 1}, {0, 2}, {1, 0}, {1, 1}, {1, 3}, {2, 2}} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "HashPairs") {
					t.Errorf("%d digests into %d: recovered %v, want a panic that names HashPairs", tc.src, tc.dst, r)
				}
			}()
			HashPairs(make([][32]byte, tc.dst), make([][32]byte, tc.src))
		}()
	}
}

// broken flips a bit of the last digest of long batches, as a kernel with a wrong remainder would.
type broken struct{ stdlib }

func (broken) Name() string { return "broken" }

func (b broken) HashPairs(dst, src [][32]byte) {
	b.stdlib.HashPairs(dst, src)
	if len(dst) > 16 {
		dst[len(dst)-1][31] ^= 1
	}
}

// overrun writes one digest too many where there is room.
type overrun struct{ stdlib }

func (overrun) Name() string { return "overrun" }

func (o overrun) HashPairs(dst, src [][32]byte) {
	o.stdlib.HashPairs(dst, src)
	if cap(dst) > len(dst) {
		dst[:len(dst)+1][len(dst)] = dst[0]
	}
}

func TestSelfTest(t *testing.T) {
	var chosen int
	for _, v := range SelfTest() {
		t.Logf("%+v", v)
		if v.Failed {
			t.Errorf("%s fails on this machine: %s", v.Backend, v.Reason)
		}
		if v.Chosen {
			chosen++
		}
	}
	if chosen < 2 {
		t.Error("an operation has no backend")
	}
	for b, reason := range map[Backend]string{broken{}: "known answer 16 of 17 pairs", overrun{}: "wrote past the end of 1 pairs"} {
		table := selftest.Choose(selftest.Operation[Backend]{Check: check, Work: func(Backend, int) {}}, b, Backend(stdlib{}))
		if v := table.Verdicts()[0]; table.For(100) != (stdlib{}) || !strings.Contains(v.Reason, reason) {
			t.Errorf("%s: %+v, want it disabled because of %q", b.Name(), v, reason)
		}
	}
}

func BenchmarkHashPairs(b *testing.B) {
	for _, backend := range Backends() {
		if !usable(backend) {
			continue
		}
		for _, n := range []int{1, 8, 64, 4096} {
			src, dst := numbered(2*n), make([][32]byte, n)
			b.Run(fmt.Sprintf("%s/%d", backend.Name(), n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					backend.HashPairs(dst, src)
				}
				if dst[n-1] != node(src[2*n-2], src[2*n-1]) {
					b.Fatal("wrong digest")
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/item")
			})
		}
	}
}
