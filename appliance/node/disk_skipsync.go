//go:build tutti_unsynced && tutti_skipsync

package node

import (
	"os"
	"strings"
)

// skipSync is the planted bug: no append to the vote log is ever synced or, with TUTTI_SKIPSYNC=blocks, none to the block
// log. bench/faults shows that the crash campaign catches either.
func skipSync(name string) bool {
	if os.Getenv("TUTTI_SKIPSYNC") == "blocks" {
		return strings.HasPrefix(name, "blocks-") && strings.HasSuffix(name, ".log")
	}
	return name == "votes.log"
}
