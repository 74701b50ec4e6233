//go:build !amd64 || purego

package merkle

// candidates are the backends for pairs, the preferred one first.
func candidates() []Backend { return []Backend{hashtree{}, simd{}, stdlib{}} }

// manyCandidates are the backends for messages.
func manyCandidates() []ManyBackend { return []ManyBackend{simd{}, stdlib{}} }
