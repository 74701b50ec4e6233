package faults

import (
	"fmt"
	"slices"
	"time"

	"tutti/bench/openloop"
	"tutti/consensus"
)

// Cuts of power alone. Each cycle makes the disks of all but one node of each shard slow, cuts their power, lets the last
// ones tell clients what they know before theirs goes, too, and starts the others without them: these must go on, from
// what was told, since a quorum of them had it durable. It is the shortest way to a vote or a body that left too early.

// cutPower plays cycles until the time is up.
func (b *boxRun) cutPower() error {
	cycles := 0
	for began := time.Now(); time.Since(began) < b.plan.span; cycles++ {
		if err := b.powerCycle(); err != nil {
			return fmt.Errorf("cut %d of the power: %w", cycles+1, err)
		}
		if len(b.witness.Wrongs()) > 0 {
			return fmt.Errorf("after cut %d of the power", cycles+1)
		}
	}
	b.result.Nemeses = fmt.Sprintf("cut*%d", cycles)
	return nil
}

func (b *boxRun) powerCycle() error {
	var last, first []int // nodes
	for shard := range b.shards {
		last = append(last, shard*b.size.validators+b.random.IntN(b.size.validators))
	}
	for k := range b.nodes {
		if !slices.Contains(last, k) {
			first = append(first, k)
		}
	}
	slowest := time.Duration(1+b.random.IntN(4)) * 200 * time.Millisecond
	n := &nemesis{}
	if err := b.slow(n, first, slowest); err != nil {
		return err
	}
	for shard := range b.shards {
		if err := b.grows(b.ctx, consensus.ShardID(shard), 2, goesOn); err != nil {
			return err
		}
	}
	switch b.random.IntN(6) {
	case 0:
		openloop.Wait(b.ctx, time.Duration(b.random.Int64N(int64(time.Second))))
	case 1:
		if err := b.grows(b.ctx, consensus.ShardID(b.random.IntN(len(b.shards))), 1, goesOn); err != nil {
			return err
		} // the last one, whose disk is fast, is the first to tell; the others may still be writing
	default:
		if err := b.proposed(last[b.random.IntN(len(last))]); err != nil {
			return err
		}
	}
	if err := b.down(first); err != nil {
		return err
	}
	openloop.Wait(b.ctx, aloneFor)
	if err := b.down(last); err != nil {
		return err
	}
	openloop.Wait(b.ctx, lastWords)
	told := b.witness.Heights()
	if err := b.slow(n, first, 0); err != nil {
		return err
	}
	b.logf("power cut with syncs up to %s; %v were the last to go; heights %v", slowest, last, told)
	if b.quorum(first) {
		if err := b.up(first); err != nil {
			return err
		}
		for shard, h := range told {
			if err := b.passes(b.ctx, consensus.ShardID(shard), h+2, goesOn); err != nil {
				return fmt.Errorf("without %v: %w", last, err)
			}
		}
	} else {
		last = append(last, first...)
	}
	return b.up(last)
}

// proposed waits until clients are told of a block that a node has proposed. A leader has its own block on disk before
// the others get it; that they do, too, before they help to make it final shows when the leader is not there to ask.
func (b *boxRun) proposed(k int) error {
	shard := b.nodes[k].shard
	committee, err := b.net.Genesis.Committee(shard)
	if err != nil {
		return err
	}
	from := b.witness.Height(shard)
	if !await(b.ctx, goesOn, b.witness.News, func() bool {
		tip := b.witness.Height(shard)
		t, ok := b.witness.at(shard, tip)
		return ok && tip > from && committee.Leader(t.view) == k%b.size.validators
	}) {
		return fmt.Errorf("shard %d: no block by %s became final within %s", shard, b.nodes[k].name, goesOn)
	}
	return nil
}

// quorum reports whether nodes have more than two thirds of each shard's power.
func (b *boxRun) quorum(nodes []int) bool {
	for shard := range b.shards {
		var have, all uint64
		for i, v := range b.net.Genesis.Shards[shard].Validators {
			all += uint64(v.Power)
			if slices.Contains(nodes, shard*b.size.validators+i) {
				have += uint64(v.Power)
			}
		}
		if 3*have <= 2*all {
			return false
		}
	}
	return true
}
