package ledger

// prefetch asks the CPU to have a record, which is one cache line, at hand soon. It changes nothing and cannot fail.
//
//go:noescape
func prefetch(p *cell)
