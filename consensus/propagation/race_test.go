//go:build race

package propagation

const race = true
