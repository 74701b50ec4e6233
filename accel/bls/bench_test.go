package bls

import (
	"fmt"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// cpuNs is the CPU time of this thread; wall time on a busy machine measures the neighbours.
func cpuNs() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}

// perItem runs f in a benchmark and reports CPU time per item.
func perItem(b *testing.B, items int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	start := cpuNs()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(cpuNs()-start)/float64(b.N)/float64(items), "cpu-ns/item")
}

func BenchmarkVotes(b *testing.B) {
	for _, n := range []int{16, 128, 400} {
		secrets, set := committee(b, n)
		msg := []byte("a vote")
		sigs := parsed(b, secrets, msg)
		signers, ok := make([]int, n), make([]bool, n)
		for i := range signers {
			signers[i] = i
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			perItem(b, n, func() {
				if set.VerifySameMessage(signers, msg, sigs, ok); !ok[0] {
					b.Fatal("refused")
				}
			})
		})
	}
}
