//go:build cgo

package accel

import "tutti/accel/bls"

// blstBuilt says that this build contains accel/bls.
const blstBuilt = true

func blsSelfTest() []Verdict { return bls.SelfTest() }
