//go:build !amd64

package prefetch

import "unsafe"

func line(unsafe.Pointer) {} // no instruction for it here
