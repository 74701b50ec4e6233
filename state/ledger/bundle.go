package ledger

import (
	"fmt"
	"math/bits"
	"slices"

	"tutti/state/tx"
)

var errTooMany = fmt.Errorf("more bundles than the %d that a body can hold", tx.MaxBundles)

// received is what a block gets from other shards, before its transactions. It is not modified once made.
type received struct {
	meta     *Meta // the parent's at the block's height, after the receipts
	credits  []credit
	outcomes []tx.CreditOutcome
	leaves   [][32]byte     // in the outcomes root
	returns  [][]tx.Receipt // by channel: decided here, sent by the next block
}

// receive takes in bundles in order, as far as they fit into room bytes, and says of each why it can't be taken in,
// nil: it was. It is a function of the parent's Meta and its arguments, and takes no lock.
func (l *Ledger) receive(parent *block, bundles []tx.Bundle, room int) (*received, []error) {
	in := &received{meta: parent.meta.clone(), returns: make([][]tx.Receipt, len(parent.meta.Channels))}
	in.meta.Height = parent.height + 1
	errs := make([]error, len(bundles))
	last := -1
	for i := range bundles {
		u := &bundles[i]
		if int(u.Source) <= last {
			errs[i] = fmt.Errorf("bundle from shard %d after one from shard %d", u.Source, last)
		} else if bundleBytes(u) > room {
			errs[i] = fmt.Errorf("bundle from shard %d: no room for %d bytes, %d are left", u.Source, bundleBytes(u), room)
		} else if err := l.receiveBundle(in, parent, u); err != nil {
			errs[i] = fmt.Errorf("bundle from shard %d: %w", u.Source, err)
		} else {
			last = int(u.Source)
			room -= bundleBytes(u)
		}
	}
	return in, errs
}

// bundleBytes is the size of an encoded bundle.
func bundleBytes(u *tx.Bundle) int {
	return 2 + 4 + len(u.Proof) + 8 + 4 + len(u.Receipts)*receiptBytes
}

func (l *Ledger) receiveBundle(in *received, parent *block, u *tx.Bundle) error {
	self := l.o.Params.Shard
	c := in.meta.channel(u.Source)
	if c < 0 {
		return fmt.Errorf("no such other shard")
	}
	ch := &in.meta.Channels[c]
	header, err := l.o.Headers.Verify(u.Source, ch.Known, u.Proof)
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	if header.Shard != u.Source {
		return fmt.Errorf("the proven header is of shard %d", header.Shard)
	}
	if header.Epoch >= MaxEpoch || !ch.leads(header.Known) {
		return fmt.Errorf("it shows committee %v in epoch %d, known is %v in epoch %d", header.Committee, header.Epoch, ch.Committee, ch.Epoch)
	}
	if header.Epoch < ch.Epoch || header.Epoch == ch.Epoch && header.Height < ch.HeaderHeight {
		return fmt.Errorf("its header at epoch %d height %d is older than the one used before, at epoch %d height %d",
			header.Epoch, header.Height, ch.Epoch, ch.HeaderHeight)
	}
	at := slices.IndexFunc(header.Links, func(k Link) bool { return k.Shard == self })
	if at < 0 {
		return fmt.Errorf("its header has no link to this shard")
	}
	link := &header.Links[at]
	if link.Received < ch.Acked || link.Received > ch.Sent.Count() {
		return fmt.Errorf("its header acknowledges %d receipts of %d, %d were acknowledged before", link.Received, ch.Sent.Count(), ch.Acked)
	}
	if u.First != ch.Received.Count() || link.Sent < u.First || link.Sent-u.First != uint64(len(u.Receipts)) {
		return fmt.Errorf("it brings receipts [%d, %d), its header has sent %d and %d were received before",
			u.First, u.First+uint64(len(u.Receipts)), link.Sent, ch.Received.Count())
	}
	amount := uint64(0)
	for i := range u.Receipts {
		var carry uint64
		amount, carry = bits.Add64(amount, u.Receipts[i].Amount, 0)
		if carry != 0 {
			amount = 1<<64 - 1
			break
		}
	}
	// The net inflow is between minus this shard's supply and the other's, so the difference does not overflow.
	if room := uint64(int64(ch.Supply) - ch.Net()); amount > room {
		return fmt.Errorf("it brings more units than the shard can have: %d, at most %d", amount, room)
	}
	leaves := l.receiptLeaves(u.Receipts, u.Source, self, u.First)
	grown := ch.Received.Append(leaves)
	if grown.Root() != link.Root {
		return fmt.Errorf("its receipts do not have the root that its header commits to")
	}
	ch.Received, ch.Acked, ch.Known, ch.HeaderHeight = grown, link.Received, header.Known, header.Height
	ch.Inflow += amount
	for i := range u.Receipts {
		o := l.receiveOne(in, parent, c, &u.Receipts[i])
		in.outcomes = append(in.outcomes, o)
		in.leaves = append(in.leaves, tx.CreditLeaf(leaves[i], o))
	}
	return nil
}

// receiveOne finds a place for the units of a receipt; there always is one.
func (l *Ledger) receiveOne(in *received, parent *block, c int, r *tx.Receipt) tx.CreditOutcome {
	slot := l.table.route[r.To.Partition()]
	switch {
	case slot >= 0 && r.To.Index() < parent.meta.Next[slot]:
		in.credits = append(in.credits, credit{slot, r.To.Index(), r.Amount})
		return tx.Credited
	case r.Return:
		in.meta.Treasury += r.Amount
		return tx.Treasury
	default:
		in.returns[c] = append(in.returns[c], tx.Receipt{From: r.To, To: r.From, Amount: r.Amount, Tx: r.Tx, Return: true})
		in.meta.Channels[c].Outflow += r.Amount
		return tx.Returned
	}
}

// receiptLeaves are the leaves of receipts from source to dest, beginning with sequence number first.
func (l *Ledger) receiptLeaves(receipts []tx.Receipt, source, dest uint16, first uint64) [][32]byte {
	leaves := make([][32]byte, len(receipts))
	l.parallelRange(len(receipts), func(from, to int) {
		for i := from; i < to; i++ {
			leaves[i] = receipts[i].Leaf(source, dest, first+uint64(i))
		}
	})
	return leaves
}
