// Package ledger turns ordered bodies into a new authenticated state of one shard. It holds the shard's accounts in
// memory, executes bodies on named parents, and makes what is final durable.
//
// # Inputs and outputs
//
// A body (tx.Body) at height h on an executed parent, to the commitments of a header: outcomes and links of h itself,
// state root and diff hash of the block StateLag below. Amounts are units, whole numbers whose sum over all shards is
// at most MaxSupply for ever; heights are those of the shard's chain. Execute is a pure function of body, commitments
// and parent state: it gives the same bytes for any number of workers and on every machine.
//
// # A block at height h
//
//  1. Bundles: each is shown by a final header of its source (Headers) whose link to this shard says that exactly the
//     bundle's receipts follow those received before, under the root it commits to. The source's committees change with
//     its epochs: the channel keeps the hash of the newest one that a bundle has shown, and the next bundle's proof begins
//     with that committee and leads to its header's by hand-overs. The header is not older than the
//     last one used; its acknowledgement neither falls nor exceeds what was sent; the net inflow stays within the
//     source's supply. Any fault makes the body invalid. Acknowledgements count from this block on.
//  2. Signatures, against the keys in the parent state. A payer without an account there, a wrong signature or a wrong
//     proof of possession makes the body invalid.
//  3. Debits in body order. A transaction either pays amount, fee and deposit and uses its nonce, or is skipped whole;
//     the body's outcome bits must say exactly which. More than a quarter of skips, and more than 16, is invalid.
//  4. Credits at block end: receivers, receipts, openings (each to the least-filled partition, the lowest of equals).
//     Money received in a block is spendable in the next one. A receipt for a missing account is sent back with the
//     next block; a returned one whose payer is missing goes to the treasury. So receiving never fails.
//  5. The outbox to each shard grows by the returns that the parent decided, then by this block's transfers in body
//     order. Returns do not wait for the window.
//
// Beyond the design page, a transfer to another shard is skipped when that shard would then hold more of this shard's
// units than this shard had at genesis (NetLimit): the receiver refuses such a bundle for ever, and the channel would
// be stuck. Openings of accounts, fees and deposits are in the shard's counters (Meta).
//
// # Invariants
//
// Balances + fees + deposits + treasury == genesis supply + inflow - outflow, checked after every block. The tree's
// sums do not overflow. Tables, records and hashes of accounts are outside the Go heap. At most maxDepth heights and
// maxBlocks blocks are kept unfinalised.
//
// # Speculation
//
// There is one table, at the last executed block. A block keeps what it replaced and what it wrote, so the table moves
// along the tree of unfinalised blocks by undoing and redoing; abandoned blocks leave no trace. Reads as of the final
// block, pages, and proofs under the root that the final header carries, take copies back through the same
// differences and so never move the table. For that the two blocks below the final one are kept as well.
//
// # Durability
//
// Finalise commits one batch, synced, for each block in height order: the block's difference, root and counters, its
// receipts, and a slice of pages, paced by time. A stored page holds exactly the state of its height, which trails the
// final one by StateLag, and is written again only after it has changed. Differences are kept until every page that they
// changed has been written after them: two cycles at most. So an idle shard writes little but its blocks, a busy one
// every page once in a cycle, and Options.PageCycle trades bytes written against differences to read at a start. Open reads pages and
// differences, hashes everything, and refuses the folder (store.ErrCorrupt) when the root is not the stored one; the
// last StateLag blocks are then made again by the code that moves the table.
//
// # Copies
//
// A ledger is copied by validators that need one (serve.go, Restore) in parts that are proven one by one under final
// headers: the counters, chunks of 4,096 accounts as of whatever height they are read at, the differences from there
// on, the directory of BLS keys, and the receipts that wait. Restore writes them into an ordinary folder as pages and
// differences, so that Open recovers it like any other.
//
// # What is fatal
//
// ErrFatal: a failed write (store.FatalError), a supply that does not add up, a root that does not come out twice the
// same, no memory. The process must end; the folder is good up to the last Finalise that returned nil.
//
// Source: the design page "The system", 3.5 and 3.7; facts "State layer", sections 2.4 and 4.
package ledger

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tutti/accel/prefetch"
	"tutti/state/store"
	"tutti/state/tx"
)

// Ledger is one shard's state. All methods may be called from any goroutine. Locks are taken in the order final, exec,
// mu, reads; no lock is held while signatures or proofs are checked or the disk is written.
type Ledger struct {
	o     Options
	store *store.Store
	fatal atomic.Pointer[error]

	effects uint64 // height from which on effects of blocks were ever stored; set by Open

	// One Finalise at a time.
	final struct {
		sync.Mutex
		progress store.Progress
		pagedAt  time.Time // when pages were last counted
		pages    float64   // that are due
		acked    []*Meta   // of the last blocks made final, at most keepAcked
		dropped  []uint64  // by channel: receipts below are known to be dropped
		stored   storedPages
	}

	// Tops of whole segments of the directory of BLS keys, as far as they were asked for. Its lock is taken alone.
	tops struct {
		sync.Mutex
		known map[uint64]tx.Hash
	}

	signers signers

	// The table's tip, the tree over it, and the workers' scratch. Held to execute, build and move.
	exec struct {
		sync.Mutex
		tree    *upper
		scratch []scratch // by worker
	}

	// Held shared while the store is read, so that Close waits. closed is set under all locks and read under any.
	reads sync.RWMutex

	// What readers see. Writers hold exec as well.
	mu     sync.RWMutex
	closed bool
	table  *table // route and the partitions' numbers never change and are read without a lock
	tip    *block // where the table is: the final block or a descendant of it, perhaps an abandoned one
	last   *block // the final block
	base   *block // the block whose root the final header carries; the oldest one kept
	view   *upper // the tree as of base
	blocks map[tx.Hash]*block
}

// Close waits for running calls and releases memory and folder.
func (l *Ledger) Close() error {
	l.final.Lock()
	defer l.final.Unlock()
	l.exec.Lock()
	defer l.exec.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads.Lock()
	defer l.reads.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	err := l.table.release()
	if l.store != nil {
		err = errors.Join(l.store.Close(), err)
	}
	return err
}

// Final is the height and name of the final block, which is durable.
func (l *Ledger) Final() (height uint64, block tx.Hash) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last.height, l.last.hash
}

// Account is an account's record as of the final block; false: there is no such account in this shard.
func (l *Ledger) Account(id tx.ID) (r Record, ok bool) {
	l.Accounts([]tx.ID{id}, func(_ int, found Record) { r, ok = found, true })
	return r, ok
}

// Accounts calls found with the place in ids and the record of each that is an account of this shard, all as of one final
// block. found must be quick and must not call the ledger: a lock is held.
func (l *Ledger) Accounts(ids []tx.ID, found func(i int, r Record)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return
	}
	place := func(id tx.ID) (slot int, ok bool) {
		slot = int(l.table.route[id.Partition()])
		return slot, slot >= 0 && id.Index() < l.last.meta.Next[slot]
	}
	for i, id := range ids {
		if next := i + prefetch.Ahead; next < len(ids) {
			if slot, ok := place(ids[next]); ok {
				prefetch.Line(l.table.parts[slot].cell(ids[next].Index()))
			}
		}
		if slot, ok := place(id); ok {
			var c [1]cell
			l.cellsAt(l.last, slot, id.Index(), c[:])
			found(i, c[0].record())
		}
	}
}

// BLSKey is the BLS key that an account was opened with, as of the final block; false: it has none.
func (l *Ledger) BLSKey(id tx.ID) (key [48]byte, ok bool, err error) {
	r, ok := l.Account(id)
	if !ok || r.Extension == 0 {
		return key, false, nil
	}
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return key, false, ErrClosed
	}
	v, err := l.store.Key(r.Extension - 1)
	if err != nil {
		return key, false, err
	}
	if len(v) != keyEntryBytes || string(v[:6]) != string(append48(nil, id)) {
		return key, false, store.Corrupt(l.o.Dir, "entry %d of the key directory is not about account %d", r.Extension-1, id)
	}
	return [48]byte(v[6:]), true, nil
}

// Receipts reads the receipts to another shard with sequence numbers from <= seq < to, as of the final block; at most
// tx.MaxBundleCount. ErrNotStored: some were not sent, or acknowledged and dropped.
func (l *Ledger) Receipts(dest uint16, from, to uint64) ([]tx.Receipt, error) {
	if from > to || to-from > tx.MaxBundleCount {
		return nil, fmt.Errorf("ledger: %w: [%d, %d), at most %d at a time", ErrNotStored, from, to, tx.MaxBundleCount)
	}
	out := make([]tx.Receipt, 0, to-from)
	if from == to {
		return out, nil
	}
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	err := l.store.Receipts(dest, from, func(first uint64, v []byte) (bool, error) {
		receipts, err := readReceipts(v)
		if err != nil {
			return false, store.Corrupt(l.o.Dir, "receipts %d to shard %d: %v", first, dest, err)
		}
		seq := from + uint64(len(out))
		if first > seq || first+uint64(len(receipts)) <= seq {
			return false, nil
		}
		receipts = receipts[seq-first:]
		out = append(out, receipts[:min(uint64(len(receipts)), to-seq)]...)
		return uint64(len(out)) < to-from, nil
	})
	if err != nil {
		return nil, err
	}
	if uint64(len(out)) < to-from {
		return nil, fmt.Errorf("ledger: %w: %d of [%d, %d) to shard %d", ErrNotStored, from+uint64(len(out)), from, to, dest)
	}
	return out, nil
}

// Meta is the shard's counters as of the final block. It is shared: do not modify.
func (l *Ledger) Meta() *Meta {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last.meta
}

// Channels are those of Meta after an executed block at a height, final or not. They are shared: do not modify.
func (l *Ledger) Channels(block tx.Hash, height uint64) ([]Channel, error) {
	b, err := l.find(block, height+1)
	if err != nil {
		return nil, err
	}
	return b.meta.Channels, nil
}

// Stats are figures about a ledger, as of the final block where they depend on one.
type Stats struct {
	Height      uint64
	Block       tx.Hash
	Root        tx.Hash // state root after that block
	Supply      uint64  // units in the shard: balances, fees, deposits and treasury
	Balances    uint64
	Fees        uint64
	Deposits    uint64
	Treasury    uint64
	Accounts    uint64
	Links       []Link
	Unfinalised int    // blocks executed and not final
	TableBytes  uint64 // address space of the account table; what is in use of it may be less
	Memory      Memory

	BatchesChecked uint64 // distilled batches whose signatures were checked since the ledger was opened
	BatchesKnown   uint64 // those that were known to be good from an earlier check
}

// Stats counts.
func (l *Ledger) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b, m := l.last, l.last.meta
	s := Stats{
		Height: b.height, Block: b.hash, Root: b.root, Balances: b.balances, Fees: m.Fees, Deposits: m.Deposits,
		Treasury: m.Treasury, Accounts: m.Accounts, TableBytes: l.table.bytes(),
		BatchesChecked: l.signers.checked.Load(), BatchesKnown: l.signers.known.Load(),
	}
	s.Supply = s.Balances + s.Fees + s.Deposits + s.Treasury
	for i := range m.Channels {
		s.Links = append(s.Links, m.Channels[i].Link())
	}
	for _, b := range l.blocks {
		if b.height > l.last.height {
			s.Unfinalised++
		}
	}
	s.Memory = l.memory()
	return s
}

// Storage is what the storage engine counts since the ledger was opened. It fails only with ErrClosed.
func (l *Ledger) Storage() (store.Metrics, error) {
	l.reads.RLock()
	defer l.reads.RUnlock()
	if l.closed {
		return store.Metrics{}, ErrClosed
	}
	return l.store.Metrics(), nil
}

// parallel calls f for every i below n, from as many goroutines as there are workers; w tells them apart.
func (l *Ledger) parallel(n int, f func(w, i int)) {
	workers := min(l.o.Workers, n)
	if workers <= 1 {
		for i := range n {
			f(0, i)
		}
		return
	}
	var next atomic.Int64
	run := func(w int) {
		for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
			f(w, i)
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < workers; w++ {
		wg.Go(func() { run(w) })
	}
	run(0)
	wg.Wait()
}

// parallelRange calls f for consecutive ranges that make up [0, n).
func (l *Ledger) parallelRange(n int, f func(from, to int)) {
	const per = 256
	l.parallel((n+per-1)/per, func(_, i int) { f(i*per, min(n, (i+1)*per)) })
}
