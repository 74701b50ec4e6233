package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"tutti/accel/merkle"
	"tutti/accel/prefetch"
	"tutti/state/tx"
)

// A body may skip a quarter of its transactions, or this many if that is more.
const (
	minSkips     = 16
	maxSkipShare = 4
)

// Execute judges a body and keeps what it does under the block's name. Executing a block again returns the first
// result. Errors: ErrInvalidBody for ever; ErrUnknownParent, ErrTooDeep and ErrHeight for this call; what Verifier or
// the context returned; anything else is fatal (ErrFatal).
func (l *Ledger) Execute(ctx context.Context, in ExecuteInput) (*Executed, error) {
	if done, err := l.executed(in); done != nil || err != nil {
		return done, err
	}
	parent, err := l.find(in.Parent, in.Height)
	if err != nil {
		return nil, err
	}
	body, err := tx.DecodeBody(in.Body)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w: %w", ErrInvalidBody, err)
	}
	skips := 0
	for _, ok := range body.Outcomes {
		if !ok {
			skips++
		}
	}
	if skips > max(minSkips, body.Len()/maxSkipShare) {
		return nil, invalid("%d of %d transactions are skipped", skips, body.Len())
	}
	received, errs := l.receive(parent, body.Bundles, len(in.Body))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("ledger: %w: %w", ErrInvalidBody, err)
	}
	ids, errs := l.checkBatches(parent, body.Batches)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	e, err := l.effectsOf(parent, received, body, ids)
	if err != nil {
		return nil, err
	}
	if err := match(e.done.Commitments, in.Want); err != nil {
		return nil, err
	}
	keys, generations, known, err := l.payers(parent, body.Txs)
	if err != nil {
		return nil, err
	}
	if i := slices.Index(known, false); i >= 0 {
		return nil, invalid("transaction %d: %v", i, UnknownPayer)
	}
	reasons := make([]Reason, len(body.Txs))
	if err := l.check(ctx, body.Txs, keys, generations, reasons); err != nil {
		return nil, err
	}
	for i, r := range reasons {
		if r != None {
			return nil, invalid("transaction %d: %v", i, r)
		}
	}
	return l.run(parent, in.Block, body, received, e)
}

// executed finds the result of a block that was executed before.
func (l *Ledger) executed(in ExecuteInput) (*Executed, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	b := l.blocks[in.Block]
	if b == nil || b.done == nil {
		return nil, nil
	}
	return b.done, match(b.done.Commitments, in.Want)
}

// match compares what a body does with what its header says.
func match(have, want Commitments) error {
	switch {
	case have.State != want.State:
		return invalid("the header's state root is %v, it is %v here", want.State, have.State)
	case have.Diff != want.Diff:
		return invalid("the header's diff hash is %v, it is %v here", want.Diff, have.Diff)
	case have.Outcomes != want.Outcomes:
		return invalid("the header's outcomes root is %v, the body's %v", want.Outcomes, have.Outcomes)
	case !slices.Equal(have.Links, want.Links):
		return invalid("the header's links are %+v, the body's %+v", want.Links, have.Links)
	}
	return nil
}

// credit is an amount for an existing account.
type credit struct {
	slot   int32
	index  uint32
	amount uint64
}

// effects are all that a body does if its outcome bits are right, but for the debits.
type effects struct {
	meta    *Meta
	head    []byte
	credits []credit
	opened  [][]cell // by slot
	outbox  [][]tx.Receipt
	returns [][]tx.Receipt
	keys    []keyEntry
	done    *Executed
}

// effectsOf works out what a body's transactions, of which those with a good outcome take effect, do after the receipts. ids
// are those of its batches. It is a function of the parent's Meta and its arguments and takes no lock. It does not judge
// outcomes; run does.
func (l *Ledger) effectsOf(parent *block, in *received, body *tx.Body, batchIDs [][]tx.Hash) (*effects, error) {
	n, ok := body.Len(), body.Outcomes
	ids, leaves := l.identify(body, batchIDs, len(in.leaves))
	copy(leaves[n:], in.leaves)
	m := in.meta.clone()
	e := &effects{
		meta: m, credits: append(make([]credit, 0, len(in.credits)+n), in.credits...), opened: make([][]cell, len(m.Next)),
		outbox: make([][]tx.Receipt, len(m.Channels)), returns: in.returns,
		done: &Executed{Body: body, IDs: ids, Outcomes: ok, Credits: in.outcomes, Leaves: leaves},
	}
	for c := range e.outbox {
		e.outbox[c] = slices.Clone(parent.returns[c])
	}
	for i := range n {
		if t := body.Tx(i); ok[i] {
			if int(t.FeeClass) >= len(l.o.Params.Fees) {
				return nil, invalid("transaction %d: %v", i, UnknownFee)
			}
			m.Fees += l.o.Params.Fees[t.FeeClass]
			switch t.Kind {
			case tx.Open:
				if err := l.openEffect(e, i, t); err != nil {
					return nil, err
				}
			default:
				if err := l.transferEffect(e, i, t); err != nil {
					return nil, err
				}
			}
		}
	}
	l.sendEffect(e)
	e.head = appendHead(nil, m, l.table.parts, e.returns, e.keys)
	e.done.Commitments = commitments(parent, e)
	return e, nil
}

func (l *Ledger) transferEffect(e *effects, i int, t *tx.Tx) error {
	route := l.table.route[t.To.Partition()]
	if route >= 0 {
		e.credits = append(e.credits, credit{route, t.To.Index(), t.Amount})
		return nil
	}
	if route == routeNowhere {
		return invalid("transaction %d: %v", i, UnknownReceiver)
	}
	c := e.meta.channel(uint16(-1 - route))
	e.outbox[c] = append(e.outbox[c], tx.Receipt{From: t.From, To: t.To, Amount: t.Amount, Tx: e.done.IDs[i]})
	e.meta.Channels[c].Outflow += t.Amount
	return nil
}

func (l *Ledger) openEffect(e *effects, i int, t *tx.Tx) error {
	m := e.meta
	if uint64(len(e.done.Opened)) >= l.o.Params.OpenCap || m.Accounts >= l.o.Params.AccountLimit {
		return invalid("transaction %d: %v", i, OpenLimit)
	}
	slot := 0
	for s, n := range m.Next {
		if n < m.Next[slot] {
			slot = s
		}
	}
	id := tx.MakeID(l.table.parts[slot].number, m.Next[slot])
	r := Record{Balance: t.Amount, Kind: KindSingle, LastTouch: uint32(m.Height), Key: t.Key}
	if t.BLS != nil {
		e.keys = append(e.keys, keyEntry{id, t.BLS.Key})
		r.Extension = m.Directory.Count() + uint64(len(e.keys))
	}
	e.opened[slot] = append(e.opened[slot], cell(r.Append(nil)))
	e.done.Opened = append(e.done.Opened, Opened{Tx: i, ID: id})
	m.Next[slot]++
	m.Accounts++
	m.Deposits += l.o.Params.OpenDeposit
	return nil
}

// sendEffect appends to the channels' roots and the directory what the block adds to them.
func (l *Ledger) sendEffect(e *effects) {
	for c := range e.outbox {
		ch, out := &e.meta.Channels[c], e.outbox[c]
		ch.Sent = ch.Sent.Append(l.receiptLeaves(out, l.o.Params.Shard, ch.Shard, ch.Sent.Count()))
		ch.Returns, ch.ReturnsHash = uint32(len(e.returns[c])), tx.Hash{}
		if len(e.returns[c]) > 0 {
			ch.ReturnsHash = sha256.Sum256(appendReceipts(nil, e.returns[c]))
		}
	}
	leaves := make([][32]byte, len(e.keys))
	for i, k := range e.keys {
		leaves[i] = k.leaf(e.meta.Directory.Count() + uint64(i))
	}
	e.meta.Directory = e.meta.Directory.Append(leaves)
}

func commitments(parent *block, e *effects) Commitments {
	c := Commitments{Outcomes: merkle.ListRoot(e.done.Leaves), State: parent.below.root, Diff: parent.below.diff}
	for i := range e.meta.Channels {
		c.Links = append(c.Links, e.meta.Channels[i].Link())
	}
	return c
}

// identify hashes signed transactions to ids, adds those of the batches, and hashes all with their outcomes to leaves, which
// have room for more behind them.
func (l *Ledger) identify(body *tx.Body, batches [][]tx.Hash, more int) (ids []tx.Hash, leaves [][32]byte) {
	ids, leaves = make([]tx.Hash, body.Len()), make([][32]byte, body.Len()+more)
	at := ids[len(body.Txs):]
	for _, b := range batches {
		at = at[copy(at, b):]
	}
	l.parallelRange(len(ids), func(from, to int) {
		if from < len(body.Txs) {
			signed := min(to, len(body.Txs))
			tx.IDs(ids[from:signed], l.o.Params.GenesisHash, func(i int) *tx.Tx { return &body.Txs[from+i].Tx })
		}
		tx.TxLeaves(leaves[from:to], ids[from:to], body.Outcomes[from:to])
	})
	return ids, leaves
}

// idsOf shows what package merkle hashes to as ids.
func idsOf(d [][32]byte) []tx.Hash { return unsafe.Slice((*tx.Hash)(unsafe.SliceData(d)), len(d)) }

// expect has the record of an account brought to the CPU. exec is held.
func (l *Ledger) expect(id tx.ID) {
	if p, ok := l.payer(id); ok {
		prefetch.Line(p.cell(id.Index()))
	}
}

// payers reads the keys of the payers in the parent state. known tells which payers are accounts there.
func (l *Ledger) payers(parent *block, txs []tx.Signed) (keys [][32]byte, generations []uint16, known []bool, err error) {
	keys, generations, known = make([][32]byte, len(txs)), make([]uint16, len(txs)), make([]bool, len(txs))
	if err := l.enter(parent); err != nil {
		return nil, nil, nil, err
	}
	defer l.exec.Unlock()
	for i := range txs {
		if i+prefetch.Ahead < len(txs) {
			l.expect(txs[i+prefetch.Ahead].From)
		}
		var p *partition
		if p, known[i] = l.payer(txs[i].From); known[i] {
			c := p.cell(txs[i].From.Index())
			keys[i], generations[i] = c.key(), c.generation()
		}
	}
	return keys, generations, known, nil
}

// payer finds the partition of an account of this shard that exists where the table is. exec is held.
func (l *Ledger) payer(id tx.ID) (*partition, bool) {
	slot := l.table.route[id.Partition()]
	if slot < 0 || id.Index() >= l.table.parts[slot].next {
		return nil, false
	}
	return &l.table.parts[slot], true
}

// check sets the reasons of those whose signature or proof of possession is wrong. No lock is held.
func (l *Ledger) check(ctx context.Context, txs []tx.Signed, keys [][32]byte, generations []uint16, reasons []Reason) error {
	if len(txs) == 0 {
		return nil
	}
	ok := make([]bool, len(txs))
	if err := l.o.Verifier.Check(ctx, txs, keys, generations, ok); err != nil {
		return fmt.Errorf("ledger: signatures could not be checked: %w", err)
	}
	var proofs []int
	for i := range txs {
		if !ok[i] {
			reasons[i] = BadSignature
		} else if txs[i].BLS != nil {
			proofs = append(proofs, i)
		}
	}
	l.parallel(len(proofs), func(_, j int) {
		t := &txs[proofs[j]]
		if !l.o.Possession(t.BLS.Key, tx.PossessionMessage(l.o.Params.GenesisHash, t.Key, t.BLS.Key), t.BLS.Possession) {
			reasons[proofs[j]] = BadPossession
		}
	})
	return nil
}

// run repeats the debits, makes the credits, hashes, and keeps the block.
func (l *Ledger) run(parent *block, name tx.Hash, body *tx.Body, in *received, e *effects) (*Executed, error) {
	if err := l.enter(parent); err != nil {
		return nil, err
	}
	defer l.exec.Unlock()
	b := &block{
		hash: name, parent: parent, below: rootAndDiff{parent.root, parent.diff}, height: e.meta.Height, meta: e.meta, head: e.head,
		outbox: e.outbox, returns: e.returns, keys: e.keys, done: e.done,
	}
	l.mu.Lock()
	if known := l.blocks[name]; known != nil { // executed meanwhile
		l.mu.Unlock()
		return known.done, nil
	}
	err := l.debits(parent, body, in)
	if err == nil {
		err = l.room(e)
	}
	if err != nil {
		l.rollback()
		l.mu.Unlock()
		return nil, err
	}
	l.creditAll(b, e)
	l.tip = b
	l.mu.Unlock()
	b.diff = diffHash(b.head, b.sections)
	if err := l.hash(b); err != nil {
		return nil, l.fail(err)
	}
	e.done.Root, e.done.Diff = b.root, b.diff
	l.mu.Lock()
	l.blocks[name] = b
	l.mu.Unlock()
	return e.done, nil
}

// debits makes the debits of a body and compares outcomes. exec and mu are held, the table is at parent.
func (l *Ledger) debits(parent *block, body *tx.Body, in *received) error {
	d := l.newDebit(parent, in)
	n := body.Len()
	for i := range n {
		if i+prefetch.Ahead < n {
			l.expect(body.Tx(i + prefetch.Ahead).From)
		}
		if r := d.apply(body.Tx(i)); (r == None) != body.Outcomes[i] {
			return invalid("transaction %d: the body says %v, the reason here is %v", i, body.Outcomes[i], r)
		}
	}
	return nil
}

// room takes memory for the accounts to open.
func (l *Ledger) room(e *effects) error {
	for slot, cells := range e.opened {
		if len(cells) > 0 {
			if err := l.table.reserve(slot, e.meta.Next[slot]); err != nil {
				return l.fail(err)
			}
		}
	}
	return nil
}

// rollback takes back debits. exec and mu are held.
func (l *Ledger) rollback() {
	for i := range l.table.parts {
		l.table.parts[i].rollback()
	}
}

// creditAll makes the credits and openings, partition by partition, and the block's sections.
func (l *Ledger) creditAll(b *block, e *effects) {
	parts := l.table.parts
	from := make([]uint32, len(parts)+1) // where each slot's credits begin, once sorted by slot
	for _, c := range e.credits {
		from[c.slot+1]++
	}
	var active []int
	for slot := range parts {
		if from[slot+1] > 0 || len(parts[slot].log) > 0 || len(e.opened[slot]) > 0 {
			active = append(active, slot)
		}
		from[slot+1] += from[slot]
	}
	sorted, at := make([]credit, len(e.credits)), slices.Clone(from)
	for _, c := range e.credits {
		sorted[at[c.slot]] = c
		at[c.slot]++
	}
	b.sections = make([]section, len(active))
	l.parallel(len(active), func(_, i int) {
		slot := active[i]
		p := &parts[slot]
		credits := sorted[from[slot]:from[slot+1]]
		for j, c := range credits {
			if j+prefetch.Ahead < len(credits) {
				prefetch.Line(p.cell(credits[j+prefetch.Ahead].index))
			}
			k := p.cell(c.index)
			p.touch(c.index, k)
			k.setBalance(k.balance() + c.amount)
			k.setTouched(uint32(b.height))
			p.chunks[c.index>>chunkLog].sum += c.amount
		}
		s := p.seal(slot, e.opened[slot])
		s.leaf = diffLeaf(1, s.bytes)
		b.sections[i] = s
	})
}

// hash brings the tree to the table, which is at b, and sets root, nodes and balances. exec is held.
func (l *Ledger) hash(b *block) error {
	var stale []int
	for slot := range l.table.parts {
		if l.table.parts[slot].dirty {
			stale = append(stale, slot)
		}
	}
	errs := make([]error, len(stale))
	l.parallel(len(stale), func(w, i int) {
		p := &l.table.parts[stale[i]]
		var nodes []chunkNode
		var dirty []*chunk
		for k, c := range p.chunks {
			if c.dirty {
				nodes, dirty = append(nodes, chunkNode{chunk: uint32(k)}), append(dirty, c)
			}
		}
		for g := range slices.Chunk(dirty, hashChunks) {
			rehash(g, &l.exec.scratch[w])
		}
		for k, c := range dirty {
			nodes[k].node = node{c.nodes[1], c.sum}
			c.dirty = false
		}
		p.dirty = false
		errs[i] = l.exec.tree.set(stale[i], nodes)
	})
	accounts, err := l.exec.tree.root()
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	b.nodes = make([][]chunkNode, len(b.sections))
	for i := range b.sections {
		s := &b.sections[i]
		for _, k := range s.chunksOf() {
			b.nodes[i] = append(b.nodes[i], chunkNode{k, l.exec.tree.chunkNode(s.slot, k)})
		}
	}
	b.balances = accounts.sum
	b.metaHash = metaHash(metaOf(b.head))
	b.root = stateRoot(accounts, b.metaHash)
	if !balanced(accounts, b.meta, l.o.Params.Supplies[l.o.Params.Shard]) {
		return fmt.Errorf("ledger: after block %d the units in the shard do not add up: balances %d, counters %+v", b.height, accounts.sum, *b.meta)
	}
	return nil
}
