//go:build !linux

package selftest

import "time"

func cpuTime() time.Duration { return wallTime() }
