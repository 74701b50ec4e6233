package selftest

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the CPU time that the calling thread has used; the caller has locked itself to its thread.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return wallTime()
	}
	return time.Duration(t.Nano())
}
