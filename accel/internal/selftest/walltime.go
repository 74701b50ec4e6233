package selftest

import "time"

// epoch is when the process began, or soon after.
var epoch = time.Now()

// wallTime stands in for CPU time where the system does not tell it.
func wallTime() time.Duration { return time.Since(epoch) }
