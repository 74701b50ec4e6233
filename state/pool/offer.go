package pool

import (
	"container/list"
	"math/bits"
	"time"

	"tutti/accel/distill"
	"tutti/state/tx"
)

// Candidates offers transactions for a block, at most maxTxs and maxBytes of wire form. Those in the unfinalised
// blocks named by ancestors, the chain from the final block to the new block's parent, are passed over; blocks that
// Included has not reported count as empty. Within an account nonces ascend without a gap. Each account gives one
// transaction before any gives its second, and so on; accounts that were offered queue up behind all others, so that
// neither a busy account nor one whose transactions a block cannot take holds up the rest. The work is in proportion
// to the result and to what is passed over.
func (p *Pool) Candidates(maxTxs, maxBytes int, ancestors []tx.Hash) []tx.Signed {
	p.mu.Lock()
	defer p.mu.Unlock()
	var in uint64
	for _, h := range ancestors {
		if b := p.blocks[h]; b != nil {
			in |= b.slot
		}
	}
	out := make([]tx.Signed, 0, max(0, min(maxTxs, len(p.entries))))
	bytes := 0
	type cursor struct {
		a  *account
		at int // next entry to look at
	}
	// next appends the cursor's next candidate. more: the account may have another; full: the block has no room.
	next := func(c *cursor) (more, full bool) {
		a := c.a
		for ; c.at < len(a.entries) && a.entries[c.at].tx.Nonce == a.nonce+uint32(c.at); c.at++ {
			e := a.entries[c.at]
			if e.in&in != 0 {
				continue
			}
			if len(out) >= maxTxs || bytes+e.bytes > maxBytes {
				return false, true
			}
			out = append(out, e.tx)
			bytes += e.bytes
			c.at++
			return c.at < len(a.entries), false
		}
		return false, false
	}

	var again []cursor
	front := p.ready.Front()
	for range p.ready.Len() {
		el := front
		front = front.Next()
		c := cursor{a: el.Value.(*account)}
		before := len(out)
		more, full := next(&c)
		if full {
			return out
		}
		if len(out) > before {
			p.ready.MoveToBack(el)
		}
		if more {
			again = append(again, c)
		}
	}
	for len(again) > 0 {
		keep := again[:0]
		for _, c := range again {
			more, full := next(&c)
			if full {
				return out
			}
			if more {
				keep = append(keep, c)
			}
		}
		again = keep
	}
	return out
}

// Included says that an unfinalised block contains these transactions. Report every block that is built or found
// valid, and later exactly one of Finalised and Abandoned for it. A second report of a block changes nothing.
func (p *Pool) Included(block tx.Hash, ids []tx.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocks[block] != nil {
		return
	}
	free := bits.TrailingZeros64(^p.slots)
	if free == maxBlocks {
		p.counters.Untracked++
		return
	}
	b := &inFlight{slot: 1 << free}
	p.slots |= b.slot
	p.blocks[block] = b
	for _, id := range ids {
		if e := p.entries[id]; e != nil {
			e.in |= b.slot
			b.entries = append(b.entries, e)
		}
	}
}

// Abandoned says that the block will never be final; its transactions are candidates for all blocks again.
func (p *Pool) Abandoned(block tx.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(block)
}

func (p *Pool) forget(block tx.Hash) {
	b := p.blocks[block]
	if b == nil {
		return
	}
	for _, e := range b.entries {
		e.in &^= b.slot
	}
	p.slots &^= b.slot
	delete(p.blocks, block)
}

// Finalised says that the block at the given height, with these transactions and batches, is final, and that State shows it.
// Entries whose nonces are used leave, with them those that the payer can no longer afford, and all that have expired.
func (p *Pool) Finalised(block tx.Hash, height uint64, txs []tx.Signed, batches ...*distill.Batch) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(block)
	p.height = max(p.height, height)
	p.asked = p.asked[:0]
	refresh := func() {
		for i, payer := range p.readAsked() { // a state that is closed meanwhile has no accounts
			if a := p.accounts[p.asked[i]]; a != nil {
				p.refresh(now, a, payer)
			}
		}
		p.asked = p.asked[:0]
	}
	used := func(id tx.ID) {
		if p.accounts[id] == nil {
			return
		}
		if p.asked = append(p.asked, id); len(p.asked) == stretch {
			refresh()
		}
	}
	for i := range txs {
		used(txs[i].From)
	}
	for _, b := range batches {
		for i := 0; i < b.Count() && len(p.accounts) > 0; i++ {
			used(tx.ID(distill.Sender(b.Body(i))))
		}
	}
	refresh()
	for class := range p.classes {
		for len(p.classes[class]) > 0 {
			e := p.classes[class][0]
			if uint64(e.tx.Expiry) > p.height {
				break
			}
			p.counters.Expired++
			p.remove(e)
		}
	}
	p.gate.block(now, p.waitingFrom(0))
}

// Resend gives out at most limit transactions that this node accepted from its clients and that are due to be
// forwarded again: neither final, nor expired, nor in an unfinalised block, and ResendAfter times 1, 2, 4, 8, then 16
// after the last time. Their receiver forwards them the first time. Call it regularly.
func (p *Pool) Resend(now time.Time, limit int) (out []tx.Signed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for level := range resendLevels {
		queue := &p.resend[level]
		var next *list.Element
		for el := queue.Front(); el != nil && len(out) < limit; el = next {
			next = el.Next()
			e := el.Value.(*entry)
			if now.Sub(e.sentAt) < p.opts.ResendAfter<<level {
				break
			}
			e.sentAt = now
			if e.in != 0 {
				queue.MoveToBack(el)
				continue
			}
			queue.Remove(el)
			e.level = min(level+1, resendLevels-1)
			e.own = p.resend[e.level].PushBack(e)
			p.counters.Resent++
			out = append(out, e.tx)
		}
	}
	return out
}
