//go:build !amd64 || purego

package ed25519

func laneBackends() []Backend { return nil }

func laneKeyBackends() []KeyBackend { return nil }
