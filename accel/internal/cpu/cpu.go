// Package cpu tells the kernels below accel what they may use of this CPU.
//
// A feature counts only if the CPU has it, the operating system saves its registers and the operator has not switched
// it off (Setting). Kernels ask here and nowhere else, so that an exclusion reaches all of them. They ask when they are
// first used, not in init or in a package variable: the first question fixes the setting for the process.
package cpu

import "github.com/klauspost/cpuid/v2"

// Has reports whether all the features may be used.
func Has(features ...cpuid.FeatureID) bool {
	s := Current()
	for _, f := range features {
		if !s.has(f) {
			return false
		}
	}
	return true
}
