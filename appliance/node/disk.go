//go:build !tutti_unsynced

package node

import "github.com/cockroachdb/pebble/v2/vfs"

// disk is where everything that must survive a crash is written.
func disk() vfs.FS { return vfs.Default }
