//go:build !amd64 || purego

package keysum

import "tutti/accel/bls/internal/curve"

// Adders are those of this build, given an engine.
func Adders(e curve.Engine) []Adder { return []Adder{Plain{e}} }
