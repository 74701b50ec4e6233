//go:build !amd64

package ledger

// prefetch does nothing where there is no instruction for it here.
func prefetch(*cell) {}
