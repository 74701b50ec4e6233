// Package cpu tells the kernels below accel what they may use of this CPU.
//
// A feature counts only if the CPU has it, the operating system saves its registers and the operator has not excluded
// it. Kernels ask here and nowhere else, so that an exclusion reaches all of them.
package cpu

import "github.com/klauspost/cpuid/v2"

// Has reports whether all the features may be used.
func Has(features ...cpuid.FeatureID) bool { return cpuid.CPU.Supports(features...) }
