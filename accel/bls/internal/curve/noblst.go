//go:build !cgo

package curve

// Engines are those of this build: blst needs cgo.
func Engines() []Engine { return []Engine{Portable{}} }
