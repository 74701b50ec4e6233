package ledger

import (
	"tutti/state/receipt"
	"tutti/state/store"
)

// upgrade adds to a folder of version 1 what version 2 keeps beside the receipts that wait to be acknowledged: the
// range of all those before them. It is in the counters after the block before; where that block's difference is kept
// no more, it is worked out from the receipts before, if these go back to one that is known or to the first of all.
//
// Receipts of which it is not known stay without: that happens when another shard has acknowledged nothing for longer
// than differences are kept. The ledger itself does not need it. Only Outbox does, and refuses (ErrNoProof) until the
// other shard has acknowledged them.
//
// What is there already is not changed, so doing it again after a crash gives the same.
func (l *Ledger) upgrade(s *store.Store, _ int) error {
	known, err := l.rangesOf(s)
	if err != nil {
		return err
	}
	b := s.NewBatch()
	for _, c := range genesisMeta(&l.o.Params).Channels {
		var next receipt.Range // before the receipts visited next, if it is known
		sure := true
		if err := s.Receipts(c.Shard, 0, func(first uint64, v []byte) (bool, error) {
			if r, ok := known[channelPlace{c.Shard, first}]; ok {
				next, sure = r, true
			} else if first != next.Count() {
				sure = false
			}
			if !sure {
				return true, nil
			}
			receipts, err := readReceipts(v)
			if err != nil {
				return false, store.Corrupt(l.o.Dir, "receipts %d to shard %d: %v", first, c.Shard, err)
			}
			b.Before(c.Shard, first, next.AppendBytes(nil))
			next = next.Append(l.receiptLeaves(receipts, l.o.Params.Shard, c.Shard, first))
			return true, nil
		}); err != nil {
			return err
		}
	}
	return s.Commit(b)
}

type channelPlace struct {
	shard uint16
	first uint64
}

// rangesOf finds the ranges before stored receipts in the counters of stored blocks.
func (l *Ledger) rangesOf(s *store.Store) (map[channelPlace]receipt.Range, error) {
	like := genesisMeta(&l.o.Params)
	wanted := map[channelPlace]bool{}
	for _, c := range like.Channels {
		if err := s.Receipts(c.Shard, 0, func(first uint64, _ []byte) (bool, error) {
			wanted[channelPlace{c.Shard, first}] = true
			return true, nil
		}); err != nil {
			return nil, err
		}
	}
	known := map[channelPlace]receipt.Range{}
	err := s.Blocks(0, func(height uint64, v []byte) error {
		m, err := storedMeta(v, like, l.table.parts)
		if err != nil {
			return store.Corrupt(l.o.Dir, "block %d: %v", height, err)
		}
		for i := range m.Channels {
			c := &m.Channels[i]
			if at := (channelPlace{c.Shard, c.Sent.Count()}); wanted[at] {
				known[at] = c.Sent
			}
		}
		return nil
	})
	return known, err
}

// storedMeta decodes the counters in a stored block.
func storedMeta(v []byte, like *Meta, parts []partition) (*Meta, error) {
	r := reader{b: v}
	r.take(storedFixed)
	b := r.take(int(min(r.u32(), maxMetaBytes+1)))
	m, rest, err := readMeta(b, like, parts)
	if err == nil && (r.bad || len(rest) > 0) {
		err = ErrMalformed
	}
	return m, err
}
