package statesync

import (
	"flag"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/ledger"
)

var benchAccounts = flag.Uint64("accounts", chainAccounts, "accounts that BenchmarkSync copies")

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSync copies a ledger from three servers over a network in memory to a folder on disk, serving included, opening
// not. The chain makes a block of 1,000 transfers four times a second.
func BenchmarkSync(b *testing.B) {
	dir := b.TempDir()
	c := newChainOf(b, *benchAccounts, vfs.Default, filepath.Join(dir, "source"))
	c.blocks(10, 1000)
	n := newPeers()
	n.honest(c.ledger, 3)
	stop := c.grow(250*time.Millisecond, 1000)
	var roots string
	b.ResetTimer()
	for i := range b.N {
		r, err := ledger.OpenRestore(ledger.RestoreOptions{FS: vfs.Default, Dir: filepath.Join(dir, fmt.Sprint(i)), Params: c.params})
		if err != nil {
			b.Fatal(err)
		}
		s, err := NewClient(Options{Restore: r, Network: n, Headers: c, Partitions: c.params.Table.Partitions(0)})
		if err != nil {
			b.Fatal(err)
		}
		cpu := cpuTime(b)
		height, err := s.Run(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		used, p := cpuTime(b)-cpu, s.Progress()
		b.SetBytes(int64(p.Bytes))
		b.ReportMetric(float64(used.Nanoseconds())/float64(p.TotalAccounts), "cpu-ns/account")
		roots += fmt.Sprintf(" %d:%x", height, c.heads[height].Hash[:4])
	}
	b.StopTimer()
	stop()
	b.Log("final at", roots)
}
