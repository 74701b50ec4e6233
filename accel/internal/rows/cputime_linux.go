package rows

import (
	"time"

	"golang.org/x/sys/unix"
)

// processTime is the CPU time that all threads of this process have used. It is the wall's where the kernel does not
// tell.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return time.Since(epoch)
	}
	return time.Duration(t.Nano())
}
