package prefetch

import "testing"

// TestLine: no address is wrong, and nothing is written.
func TestLine(t *testing.T) {
	v := [64]byte{1, 2, 3}
	Line(&v)
	Line(&v[63])
	Line[int](nil)
	if v != [64]byte{1, 2, 3} {
		t.Error("memory changed")
	}
}

// BenchmarkScattered reads lines at random places of 256 MiB, one after the other, with and without a word ahead.
func BenchmarkScattered(b *testing.B) {
	lines := make([][64]byte, 1<<22)
	for i := range lines {
		lines[i][0] = byte(i) // so that each page is one of its own
	}
	for _, c := range []struct {
		name  string
		ahead bool
	}{{"plain", false}, {"ahead", true}} {
		b.Run(c.name, func(b *testing.B) {
			at := func(i int) *[64]byte { return &lines[uint32(i)*2654435761>>10] }
			for i := range b.N {
				if c.ahead {
					Line(at(i + Ahead))
				}
				sink += work(at(i))
			}
		})
	}
}

var sink byte

// work depends on each byte, so that no read begins before the one before has ended.
func work(l *[64]byte) (sum byte) {
	for _, c := range l {
		sum = sum*31 + c
	}
	return sum
}
