//go:build !cgo

package distill

// references need blst, so cgo.
var references []reference
