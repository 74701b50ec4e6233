package merkle

import "github.com/klauspost/cpuid/v2"

// Detects are the features that gohashtree's kernel of this process needs, in the order in which it looks for them.
func (hashtree) Detects() []cpuid.FeatureID {
	for _, kernel := range [][]cpuid.FeatureID{
		{cpuid.SHA, cpuid.AVX}, {cpuid.AVX512F, cpuid.AVX512VL}, {cpuid.AVX2, cpuid.BMI2}, {cpuid.SHA2},
	} {
		if cpuid.CPU.Supports(kernel...) {
			return kernel
		}
	}
	return nil
}
