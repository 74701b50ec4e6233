package ledger

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapMemory takes zeroed memory outside the Go heap. Pages of it that are never written cost nothing.
func mapMemory(bytes int, huge bool) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("ledger: no memory for accounts (%d bytes): %w", bytes, err)
	}
	if huge {
		// Advice only: where the kernel has no huge pages, small ones do.
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return b, nil
}

func unmapMemory(b []byte) error { return unix.Munmap(b) }
