package node

import (
	"math"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// keptBlocks is the block log's retention for storage.retention_blocks.
func keptBlocks(retentionBlocks int) consensus.Height {
	if retentionBlocks == 0 {
		return blocklog.Forever
	}
	return consensus.Height(retentionBlocks)
}

// keptEffects is for how many blocks the ledger keeps what the API tells about a block besides its body: for all that the
// block log may hold, which is less than twice its retention and a segment.
func keptEffects(retentionBlocks int) uint64 {
	if retentionBlocks == 0 {
		return math.MaxUint64
	}
	return 2*uint64(retentionBlocks) + 4096
}
