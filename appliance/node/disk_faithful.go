//go:build tutti_unsynced && !tutti_skipsync

package node

// skipSync says of which files a sync is skipped: of none.
func skipSync(string) bool { return false }
