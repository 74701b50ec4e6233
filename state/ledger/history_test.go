package ledger

import (
	"fmt"
	"math"
	"testing"

	"tutti/state/tx"
)

// TestHistory: what became of receipts is kept for as long as it was asked for, and swept now and then.
func TestHistory(t *testing.T) {
	const edge = effectsSweep - 100
	for history, kept := range map[uint64]int{100: 0, math.MaxUint64: 1} {
		t.Run(fmt.Sprint(history), func(t *testing.T) {
			p := testParams(t, 0, 2, 2)
			p.Table = PartitionTable{{First: 0, Log2: 0, Shard: 0}, {First: 1, Log2: 0, Shard: 1}}
			o := testOptions(p, 2)
			o.History = history
			l := mustOpen(t, o)
			r := []tx.Receipt{{From: tx.MakeID(1, 1), To: p.GenesisID(1), Amount: 4}}
			parent := p.GenesisBlock
			for h := uint64(1); h <= effectsSweep; h++ {
				var in []tx.Bundle
				switch h {
				case edge - 1:
					in = append(in, receiptBundle(&p, 1, h, 0, 0, r))
				case edge:
					in = append(in, receiptBundle(&p, 1, h, 1, 0, r, r...))
				}
				step(t, l, parent, h, blockName(h), nil, in...)
				finalise(t, l, blockName(h))
				parent = blockName(h)
			}
			for h, want := range map[uint64]int{edge - 1: kept, edge: 1} {
				if got, err := l.Credits(h); err != nil || len(got) != want {
					t.Errorf("credits of block %d: %v, %v", h, got, err)
				}
			}
		})
	}
}
