//go:build !cgo

package bls

import "tutti/accel/internal/rows"

// blstRows are none: blst needs cgo.
func blstRows() []rows.Row { return nil }
