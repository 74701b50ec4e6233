package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Limits of partitions.
const (
	GenesisPartitions    = 256     // partitions 0 to 255 hold accounts at genesis; the others belong to no shard
	AccountsPerPartition = 1 << 24 // 4,096 chunks of 4,096 accounts
	MaxShards            = 1024
	maxRanges            = 4096
	rangeBytes           = 2 + 1 + 2
)

// ErrTable wraps every error about a partition table.
var ErrTable = errors.New("bad partition table")

// PartitionRange says that partitions First to First+2^Log2-1 belong to a shard. First is a multiple of 2^Log2.
type PartitionRange struct {
	First uint16
	Log2  uint8 // at most 16
	Shard uint16
}

func (r PartitionRange) end() uint32 { return uint32(r.First) + 1<<r.Log2 }

// PartitionTable maps partitions to shards for one epoch: ranges ascending by First, apart or touching, and no two
// that could be written as one. A partition in no range belongs to no shard: nothing can be paid there.
type PartitionTable []PartitionRange

// GenesisTable splits partitions 0 to 255 over 1 to 256 shards, in order and as evenly as can be.
func GenesisTable(shards uint16) (PartitionTable, error) {
	if shards == 0 || shards > GenesisPartitions {
		return nil, fmt.Errorf("ledger: %w: %d shards; 1 to %d can share the genesis partitions", ErrTable, shards, GenesisPartitions)
	}
	var t PartitionTable
	for s := range uint32(shards) {
		at, end := s*GenesisPartitions/uint32(shards), (s+1)*GenesisPartitions/uint32(shards)
		for at < end {
			log2 := uint8(0)
			for at&(2<<log2-1) == 0 && at+2<<log2 <= end {
				log2++
			}
			t = append(t, PartitionRange{uint16(at), log2, uint16(s)})
			at += 1 << log2
		}
	}
	return t, nil
}

// ShardOf tells which shard holds a partition; false: none.
func (t PartitionTable) ShardOf(partition uint16) (uint16, bool) {
	i := sort.Search(len(t), func(i int) bool { return t[i].end() > uint32(partition) })
	if i == len(t) || t[i].First > partition {
		return 0, false
	}
	return t[i].Shard, true
}

// Partitions lists the partitions of a shard, ascending.
func (t PartitionTable) Partitions(shard uint16) []uint16 {
	var out []uint16
	for _, r := range t {
		if r.Shard == shard {
			for p := uint32(r.First); p < r.end(); p++ {
				out = append(out, uint16(p))
			}
		}
	}
	return out
}

// Validate checks that t is in its only form, names shards below shards only, and gives each of them a partition.
func (t PartitionTable) Validate(shards uint16) error {
	if shards == 0 || shards > MaxShards {
		return fmt.Errorf("ledger: %w: %d shards, limit %d", ErrTable, shards, MaxShards)
	}
	if err := t.canonical(); err != nil {
		return err
	}
	has := make([]bool, shards)
	for _, r := range t {
		if r.Shard >= shards {
			return fmt.Errorf("ledger: %w: shard %d of %d", ErrTable, r.Shard, shards)
		}
		has[r.Shard] = true
	}
	if i := slices.Index(has, false); i >= 0 {
		return fmt.Errorf("ledger: %w: shard %d has no partition", ErrTable, i)
	}
	return nil
}

func (t PartitionTable) canonical() error {
	if len(t) > maxRanges {
		return fmt.Errorf("ledger: %w: %d ranges, limit %d", ErrTable, len(t), maxRanges)
	}
	for i, r := range t {
		if r.Log2 > 16 || uint32(r.First)&(1<<r.Log2-1) != 0 {
			return fmt.Errorf("ledger: %w: range %d of 2^%d partitions at %d is not aligned", ErrTable, i, r.Log2, r.First)
		}
		if i == 0 {
			continue
		}
		last := t[i-1]
		if uint32(r.First) < last.end() {
			return fmt.Errorf("ledger: %w: range %d overlaps the one before or is out of order", ErrTable, i)
		}
		if r.Shard == last.Shard && r.Log2 == last.Log2 && uint32(last.First)^uint32(r.First) == 1<<r.Log2 {
			return fmt.Errorf("ledger: %w: ranges %d and %d must be one", ErrTable, i-1, i)
		}
	}
	return nil
}

// Append appends the encoding: count 2, then for each range first 2, log2 1, shard 2.
func (t PartitionTable) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(t)))
	for _, r := range t {
		b = binary.BigEndian.AppendUint16(b, r.First)
		b = append(b, r.Log2)
		b = binary.BigEndian.AppendUint16(b, r.Shard)
	}
	return b
}

// DecodePartitionTable decodes exactly one table in its only form. Validate checks it against the number of shards.
func DecodePartitionTable(b []byte) (PartitionTable, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("ledger: %w: %d bytes are too few", ErrTable, len(b))
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n > maxRanges || len(b) != n*rangeBytes {
		return nil, fmt.Errorf("ledger: %w: %d bytes for %d ranges, limit %d", ErrTable, len(b), n, maxRanges)
	}
	t := make(PartitionTable, n)
	for i := range t {
		r := b[i*rangeBytes:]
		t[i] = PartitionRange{binary.BigEndian.Uint16(r), r[2], binary.BigEndian.Uint16(r[3:])}
	}
	if err := t.canonical(); err != nil {
		return nil, err
	}
	return t, nil
}
