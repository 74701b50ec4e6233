//go:build amd64 && !purego

package ed25519

import (
	"github.com/klauspost/cpuid/v2"
	"golang.org/x/sys/cpu"
)

// voiDetects is what curve25519-voi uses in this process: AVX2, unless GODEBUG=cpu.avx2=off hides it.
func voiDetects() []cpuid.FeatureID {
	if cpu.Initialized && cpu.X86.HasAVX2 {
		return []cpuid.FeatureID{cpuid.AVX2}
	}
	return nil
}

func (voiBatch) Detects() []cpuid.FeatureID { return voiDetects() }

func (voiSingle) Detects() []cpuid.FeatureID { return voiDetects() }
