//go:build !cgo

package accel

// blstBuilt says that this build lacks accel/bls.
const blstBuilt = false

// blsSelfTest tells that this build can't vote: accel/bls needs cgo and is not part of it.
func blsSelfTest() []Verdict {
	return []Verdict{{
		Operation: "bls12-381 vote", Backend: "blst",
		Reason: "not in this build: build with CGO_ENABLED=1 and a C compiler",
	}}
}
