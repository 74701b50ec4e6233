//go:build !linux

package rows

import "time"

func processTime() time.Duration { return time.Since(epoch) }
