package hash

import (
	"bytes"
	"fmt"

	"github.com/klauspost/cpuid/v2"
	simd "github.com/minio/sha256-simd"

	"tutti/accel/internal/cpu"
	"tutti/accel/internal/rows"
)

// server is sha256-simd's server, to which sixteen goroutines write at a time.
func server(size, n int) []rows.Row {
	return []rows.Row{{Name: fmt.Sprintf("hash/messages-%d/%d/sha256-simd-server", size, n), Items: n, Setup: func() (func(), error) {
		if !cpu.Has(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512BW, cpuid.AVX512VL) {
			return nil, rows.ErrAbsent
		}
		s := simd.NewAvx512Server() // it can't be stopped
		src := bytes.Repeat([]byte{'m'}, n*size)
		return func() {
			done := make(chan struct{})
			lanes := min(16, n)
			for lane := range lanes {
				go func() {
					for i := lane; i < n; i += lanes {
						h := simd.NewAvx512(s)
						h.Write(src[i*size : (i+1)*size])
						h.Sum(nil)
					}
					done <- struct{}{}
				}()
			}
			for range lanes {
				<-done
			}
		}, nil
	}}}
}
