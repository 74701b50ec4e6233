package faults

import (
	"fmt"
	"slices"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// books are the accounts as blocks say they must be: debit in body order, credit at the end of the block. They are kept
// by plain reading, and share no code with the ledger. Everybody is assumed to pay existing accounts only, so every
// receipt has to be credited. Witness.mu guards them.
type books struct {
	fees     []uint64
	shardOf  func(tx.ID) consensus.ShardID
	accounts map[tx.ID][]entry
	executed map[tx.Hash]struct{}   // transactions that took effect
	next     map[channel]uint64     // sequence number of the next receipt
	transit  map[tx.Hash]tx.Receipt // debited, not consumed as far as it is known
	early    map[tx.Hash]tx.Receipt // consumed by a block that was told before the debit's
	from     map[tx.Hash]channel    // of early
}

type channel struct{ source, dest consensus.ShardID }

// entry is an account from a height on.
type entry struct {
	height  consensus.Height
	balance uint64
	nonce   uint32
}

func newBooks(fees []uint64, genesis map[tx.ID]uint64, shardOf func(tx.ID) consensus.ShardID) *books {
	b := &books{
		fees: fees, shardOf: shardOf, accounts: make(map[tx.ID][]entry, len(genesis)), executed: map[tx.Hash]struct{}{},
		next: map[channel]uint64{}, transit: map[tx.Hash]tx.Receipt{}, early: map[tx.Hash]tx.Receipt{}, from: map[tx.Hash]channel{},
	}
	for id, balance := range genesis {
		b.accounts[id] = []entry{{balance: balance}}
	}
	return b
}

// change writes an account's state after a block.
func (b *books) change(id tx.ID, height consensus.Height, balance uint64, nonce uint32) {
	all := b.accounts[id]
	if last := &all[len(all)-1]; last.height == height {
		last.balance, last.nonce = balance, nonce
		return
	}
	b.accounts[id] = append(all, entry{height, balance, nonce})
}

func (b *books) newest(id tx.ID) (entry, bool) {
	all := b.accounts[id]
	if len(all) == 0 {
		return entry{}, false
	}
	return all[len(all)-1], true
}

// enter takes the next block of a shard and says what is wrong with it.
func (b *books) enter(c *proof.Contents) (wrongs []string) {
	complain := func(id tx.Hash, format string, args ...any) {
		wrongs = append(wrongs, fmt.Sprintf("transaction %s ", id)+fmt.Sprintf(format, args...))
	}
	h := c.Header
	for i, id := range c.IDs {
		t := c.Body.Tx(i)
		if !c.Body.Outcomes[i] {
			continue
		}
		if _, twice := b.executed[id]; twice {
			complain(id, "takes effect a second time")
		}
		b.executed[id] = struct{}{}
		if t.Kind != tx.Transfer || int(t.FeeClass) >= len(b.fees) || b.shardOf(t.From) != h.Shard {
			complain(id, "of kind %s, fee class %d, from account %s has no place here", t.Kind, t.FeeClass, t.From)
			continue
		}
		a, known := b.newest(t.From)
		cost := t.Amount + b.fees[t.FeeClass]
		switch {
		case !known:
			complain(id, "is paid by account %s, which does not exist", t.From)
			continue
		case t.Nonce != a.nonce:
			complain(id, "of account %s has nonce %d, the account was at %d", t.From, t.Nonce, a.nonce)
		case t.Expiry < uint32(h.Height):
			complain(id, "was good up to height %d", t.Expiry)
		case a.balance < cost:
			complain(id, "costs %d, account %s has %d", cost, t.From, a.balance)
		}
		b.change(t.From, h.Height, a.balance-cost, t.Nonce+1)
	}
	for i, id := range c.IDs { // what is received in a block can be spent in the next
		if t := c.Body.Tx(i); c.Body.Outcomes[i] && t.Kind == tx.Transfer {
			if wrong := b.pay(h, id, t); wrong != "" {
				complain(id, "%s", wrong)
			}
		}
	}
	for i := range c.Consumed {
		if wrong := b.consume(h, &c.Consumed[i]); wrong != "" {
			complain(c.Consumed[i].Receipt.Tx, "%s", wrong)
		}
	}
	return wrongs
}

// pay enters where a transfer's money goes.
func (b *books) pay(h *consensus.Header, id tx.Hash, t *tx.Tx) (wrong string) {
	if dest := b.shardOf(t.To); dest != h.Shard {
		r := tx.Receipt{From: t.From, To: t.To, Amount: t.Amount, Tx: id}
		if got, ok := b.early[id]; ok {
			on := b.from[id]
			delete(b.early, id)
			delete(b.from, id)
			if got != r || on != (channel{h.Shard, dest}) {
				return fmt.Sprintf("was debited as %+v and credited as %+v", r, got)
			}
			return ""
		}
		b.transit[id] = r
		return ""
	}
	return b.credit(h, t.To, t.Amount)
}

func (b *books) credit(h *consensus.Header, to tx.ID, amount uint64) (wrong string) {
	a, known := b.newest(to)
	if !known {
		return fmt.Sprintf("pays account %s, which does not exist", to)
	}
	b.change(to, h.Height, a.balance+amount, a.nonce)
	return ""
}

// consume enters a receipt.
func (b *books) consume(h *consensus.Header, x *proof.Consumed) (wrong string) {
	on := channel{x.Source, h.Shard}
	want := b.next[on]
	b.next[on] = x.Sequence + 1
	r := x.Receipt
	sent, debited := b.transit[r.Tx]
	delete(b.transit, r.Tx)
	_, twice := b.early[r.Tx]
	_, told := b.executed[r.Tx]
	switch {
	case x.Sequence != want:
		return fmt.Sprintf("comes as receipt %d of shard %d, expected %d", x.Sequence, x.Source, want)
	case x.Outcome != tx.Credited || r.Return:
		return fmt.Sprintf("to existing account %s was %s, return %t", r.To, x.Outcome, r.Return)
	case b.shardOf(r.To) != h.Shard:
		return fmt.Sprintf("pays account %s of another shard", r.To)
	case debited && (sent != r || b.shardOf(r.From) != x.Source):
		return fmt.Sprintf("was debited as %+v and credited as %+v", sent, r)
	case !debited && (told || twice):
		return "is credited a second time"
	case !debited:
		b.early[r.Tx], b.from[r.Tx] = r, on
	}
	return b.credit(h, r.To, r.Amount)
}

// orphans are credits without a debit.
func (b *books) orphans() (wrongs []string) {
	for id, r := range b.early {
		wrongs = append(wrongs, fmt.Sprintf("transaction %s: %d units were credited to %s, no shard debited them", id, r.Amount, r.To))
	}
	slices.Sort(wrongs)
	return wrongs
}

// compare says how a proven account differs from the books at the height of the proof.
func (b *books) compare(s *proof.AccountStatement) string {
	all := b.accounts[s.ID]
	if len(all) == 0 || !s.Exists {
		if s.Exists || len(all) > 0 {
			return fmt.Sprintf("account %s: proven to exist %t, must %t", s.ID, s.Exists, len(all) > 0)
		}
		return ""
	}
	at, _ := slices.BinarySearchFunc(all, s.StateHeight, func(e entry, h consensus.Height) int { // the first above h
		if e.height <= h {
			return -1
		}
		return 1
	})
	if e := all[at-1]; e.balance != s.Balance || e.nonce != s.Nonce {
		return fmt.Sprintf("account %s is proven to have %d units and nonce %d at height %d, the blocks give %d and %d",
			s.ID, s.Balance, s.Nonce, s.StateHeight, e.balance, e.nonce)
	}
	return ""
}
