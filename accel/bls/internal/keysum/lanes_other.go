//go:build !amd64 || purego

package keysum

import "tutti/accel/bls/internal/curve"

// Candidates are the adders of this build, given an engine.
func Candidates(e curve.Engine) []Adder { return []Adder{Plain{e}} }

// Adders are those that this CPU can run.
func Adders(e curve.Engine) []Adder { return Candidates(e) }
