package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"tutti/accel/merkle"
	"tutti/state/receipt"
	"tutti/state/tx"
)

// model is the ledger written down again without any cleverness: maps, one transaction after another, the tree hashed
// from scratch by its definition. It trusts bundles.
type model struct {
	params   *Params
	height   uint64
	accounts map[tx.ID]Record
	fees     uint64
	deposits uint64
	treasury uint64
	next     map[uint16]uint32
	channels map[uint16]*modelChannel
	keys     []string // directory entries
	outcomes [][32]byte
	credits  []tx.CreditOutcome // of this block
	opened   []Opened           // by this block
}

type modelChannel struct {
	sent, received  []tx.Receipt
	acked           uint64
	inflow, outflow uint64
	known           Known
	height          uint64
	returns         []tx.Receipt
}

func newModel(p *Params, accounts GenesisAccounts) *model {
	m := &model{params: p, accounts: map[tx.ID]Record{}, next: map[uint16]uint32{}, channels: map[uint16]*modelChannel{}}
	for _, n := range p.Table.Partitions(p.Shard) {
		m.next[n] = 0
	}
	for s := range p.Shards {
		if s != p.Shard {
			m.channels[s] = &modelChannel{}
		}
	}
	for a := range accounts {
		r := Record{Balance: a.Balance, Kind: KindSingle, Key: a.Key}
		if a.BLS != nil {
			m.keys = append(m.keys, string(binary.BigEndian.AppendUint64(nil, uint64(a.ID))[2:])+string(a.BLS[:]))
			r.Extension = uint64(len(m.keys))
		}
		m.accounts[a.ID] = r
		m.next[a.ID.Partition()]++
	}
	return m
}

func (m *model) clone() *model {
	c := *m
	c.accounts, c.next, c.channels = maps.Clone(m.accounts), maps.Clone(m.next), map[uint16]*modelChannel{}
	for s, ch := range m.channels {
		k := *ch
		c.channels[s] = &k
	}
	return &c
}

// block executes a body and returns the outcome bits; with only set, transactions that fail are left out of the body.
func (m *model) block(txs []tx.Signed, bundles []tx.Bundle) (*model, []bool) {
	parent, n := m, m.clone()
	n.height++
	n.outcomes, n.credits, n.opened = nil, nil, nil
	var credits [][32]byte
	returns := map[uint16][]tx.Receipt{}
	type add struct {
		to     tx.ID
		amount uint64
	}
	var adds []add
	for _, u := range bundles {
		ch := n.channels[u.Source]
		h, err := fakeHeaders{}.Verify(u.Source, ch.known, u.Proof)
		if err != nil {
			panic(err)
		}
		ch.known, ch.height = h.Known, h.Height
		for _, k := range h.Links {
			if k.Shard == m.params.Shard {
				ch.acked = k.Received
			}
		}
		for _, r := range u.Receipts {
			leaf := r.Leaf(u.Source, m.params.Shard, uint64(len(ch.received)))
			ch.received = append(slices.Clip(ch.received), r)
			ch.inflow += r.Amount
			if _, ok := parent.accounts[r.To]; ok {
				adds = append(adds, add{r.To, r.Amount})
				credits = append(credits, tx.CreditLeaf(leaf, tx.Credited))
				n.credits = append(n.credits, tx.Credited)
			} else if r.Return {
				n.treasury += r.Amount
				credits = append(credits, tx.CreditLeaf(leaf, tx.Treasury))
				n.credits = append(n.credits, tx.Treasury)
			} else {
				returns[u.Source] = append(returns[u.Source], tx.Receipt{From: r.To, To: r.From, Amount: r.Amount, Tx: r.Tx, Return: true})
				ch.outflow += r.Amount
				credits = append(credits, tx.CreditLeaf(leaf, tx.Returned))
				n.credits = append(n.credits, tx.Returned)
			}
		}
	}
	for s, ch := range n.channels {
		ch.sent = append(slices.Clip(ch.sent), parent.channels[s].returns...)
		ch.returns = returns[s]
	}
	var opened []tx.Signed
	outcomes := make([]bool, len(txs))
	for i := range txs {
		t := &txs[i]
		id := t.TxID(m.params.GenesisHash)
		before := len(opened)
		outcomes[i] = n.transaction(parent, t, id, &opened, func(to tx.ID, amount uint64) { adds = append(adds, add{to, amount}) })
		if len(opened) > before {
			n.opened = append(n.opened, Opened{Tx: i})
		}
		n.outcomes = append(n.outcomes, tx.TxLeaf(id, outcomes[i]))
	}
	n.outcomes = append(n.outcomes, credits...)
	for _, a := range adds {
		r := n.accounts[a.to]
		r.Balance += a.amount
		r.LastTouch = uint32(n.height)
		n.accounts[a.to] = r
	}
	for i, t := range opened {
		var best uint16
		least := uint32(1 << 31)
		for _, p := range m.params.Table.Partitions(m.params.Shard) {
			if n.next[p] < least {
				best, least = p, n.next[p]
			}
		}
		id := tx.MakeID(best, least)
		n.next[best]++
		n.opened[i].ID = id
		r := Record{Balance: t.Amount, Kind: KindSingle, LastTouch: uint32(n.height), Key: t.Key}
		if t.BLS != nil {
			n.keys = append(slices.Clip(n.keys), string(binary.BigEndian.AppendUint64(nil, uint64(id))[2:])+string(t.BLS.Key[:]))
			r.Extension = uint64(len(n.keys))
		}
		n.accounts[id] = r
	}
	return n, outcomes
}

func (m *model) transaction(parent *model, t *tx.Signed, id tx.Hash, opened *[]tx.Signed, credit func(tx.ID, uint64)) bool {
	p := m.params
	r := m.accounts[t.From]
	if t.Nonce != r.Nonce || t.Nonce == 1<<32-1 || uint64(t.Expiry) < m.height || int(t.FeeClass) >= len(p.Fees) {
		return false
	}
	cost := t.Amount + p.Fees[t.FeeClass]
	if t.Kind == tx.Open {
		cost += p.OpenDeposit
	}
	if t.Amount > 1<<62 || r.Balance < cost {
		return false
	}
	if t.Kind == tx.Open {
		if uint64(len(*opened)) >= p.OpenCap || uint64(len(parent.accounts)+len(*opened)) >= p.AccountLimit {
			return false
		}
		*opened = append(*opened, *t)
		m.deposits += p.OpenDeposit
	} else {
		if t.From == t.To {
			return false
		}
		shard, ok := p.Table.ShardOf(t.To.Partition())
		if !ok {
			return false
		}
		if shard == p.Shard {
			if _, ok := parent.accounts[t.To]; !ok {
				return false
			}
			credit(t.To, t.Amount)
		} else {
			ch := m.channels[shard]
			if uint64(len(ch.sent))-ch.acked >= p.ReceiptWindow || int64(ch.outflow-ch.inflow+t.Amount) > int64(p.Supplies[p.Shard]) {
				return false
			}
			ch.sent = append(slices.Clip(ch.sent), tx.Receipt{From: t.From, To: t.To, Amount: t.Amount, Tx: id})
			ch.outflow += t.Amount
		}
	}
	m.fees += p.Fees[t.FeeClass]
	r.Balance -= cost
	r.Nonce++
	r.LastTouch = uint32(m.height)
	m.accounts[t.From] = r
	return true
}

func rangeOf(n int, leaf func(int) [32]byte) receipt.Range {
	leaves := make([][32]byte, n)
	for i := range leaves {
		leaves[i] = leaf(i)
	}
	return receipt.Range{}.Append(leaves)
}

func (m *model) meta() []byte {
	be := binary.BigEndian
	var b []byte
	for _, v := range []uint64{m.height, m.fees, m.deposits, m.treasury, uint64(len(m.accounts))} {
		b = be.AppendUint64(b, v)
	}
	parts := m.params.Table.Partitions(m.params.Shard)
	b = be.AppendUint32(b, uint32(len(parts)))
	for _, p := range parts {
		b = be.AppendUint32(be.AppendUint16(b, p), m.next[p])
	}
	b = rangeOf(len(m.keys), func(i int) [32]byte {
		return sha256.Sum256([]byte("tutti/blskey/1\x00\x00" + string(be.AppendUint64(nil, uint64(i))) + m.keys[i]))
	}).AppendBytes(b)
	shards := slices.Sorted(maps.Keys(m.channels))
	b = be.AppendUint16(b, uint16(len(shards)))
	for _, s := range shards {
		ch := m.channels[s]
		b = be.AppendUint16(b, s)
		b = m.sentRange(s).AppendBytes(b)
		b = m.receivedRange(s).AppendBytes(b)
		for _, v := range []uint64{ch.acked, ch.outflow, ch.inflow, m.params.Supplies[s]} {
			b = be.AppendUint64(b, v)
		}
		if ch.known.Committee == (tx.Hash{}) {
			b = be.AppendUint64(b, ch.known.Epoch)
		} else {
			b = append(be.AppendUint64(b, ch.known.Epoch+1<<63), ch.known.Committee[:]...)
		}
		b = be.AppendUint64(b, ch.height)
		b = be.AppendUint32(b, uint32(len(ch.returns)))
		hash := tx.Hash{}
		if len(ch.returns) > 0 {
			var list []byte
			for _, r := range ch.returns {
				list = r.Append(list)
			}
			hash = sha256.Sum256(list)
		}
		b = append(b, hash[:]...)
	}
	return b
}

func (m *model) sentRange(shard uint16) receipt.Range {
	sent := m.channels[shard].sent
	return rangeOf(len(sent), func(i int) [32]byte { return sent[i].Leaf(m.params.Shard, shard, uint64(i)) })
}

func (m *model) receivedRange(shard uint16) receipt.Range {
	received := m.channels[shard].received
	return rangeOf(len(received), func(i int) [32]byte { return received[i].Leaf(shard, m.params.Shard, uint64(i)) })
}

func (m *model) links() []Link {
	var out []Link
	for _, s := range slices.Sorted(maps.Keys(m.channels)) {
		out = append(out, Link{s, uint64(len(m.channels[s].sent)), uint64(len(m.channels[s].received)), m.sentRange(s).Root()})
	}
	return out
}

// root is the state root by definition: 40 levels, positions below in order.
func (m *model) root() tx.Hash {
	ids := slices.Sorted(maps.Keys(m.accounts))
	hash, sum := m.node(ids, 40)
	b := append([]byte("tutti/state/1\x00\x00\x00"), hash[:]...)
	b = binary.BigEndian.AppendUint64(b, sum)
	meta := sha256.Sum256(append([]byte("tutti/meta/1\x00\x00\x00\x00"), m.meta()...))
	return sha256.Sum256(append(b, meta[:]...))
}

// node is the node at a level above all of ids; an account's leaf number is partition and the low 24 bits of its index.
func (m *model) node(ids []tx.ID, level int) ([32]byte, uint64) {
	if len(ids) == 0 {
		return modelZeros[level], 0
	}
	if level == 0 {
		r := m.accounts[ids[0]]
		return sha256.Sum256(r.Append(nil)), r.Balance
	}
	at := func(id tx.ID) uint64 { return uint64(id.Partition())<<24 | uint64(id.Index()) }
	cut := slices.IndexFunc(ids, func(id tx.ID) bool { return at(id)>>(level-1)&1 == 1 })
	if cut < 0 {
		cut = len(ids)
	}
	lh, ls := m.node(ids[:cut], level-1)
	rh, rs := m.node(ids[cut:], level-1)
	return modelParent(level, lh, ls, rh, rs), ls + rs
}

func modelParent(level int, lh [32]byte, ls uint64, rh [32]byte, rs uint64) [32]byte {
	if level <= 12 {
		return sha256.Sum256(append(lh[:], rh[:]...))
	}
	b := binary.BigEndian.AppendUint64(lh[:], ls)
	b = append(b, rh[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, rs))
}

var modelZeros = func() (z [41][32]byte) {
	z[0] = sha256.Sum256(make([]byte, 64))
	for i := 1; i <= 40; i++ {
		z[i] = modelParent(i, z[i-1], 0, z[i-1], 0)
	}
	return z
}()

// diff is the diff hash of the step from parent to m, by definition.
func (m *model) diff(parent *model) tx.Hash {
	be := binary.BigEndian
	meta := m.meta()
	head := append(be.AppendUint32(nil, uint32(len(meta))), meta...)
	for _, s := range slices.Sorted(maps.Keys(m.channels)) {
		for _, r := range m.channels[s].returns {
			head = r.Append(head)
		}
	}
	head = be.AppendUint32(head, uint32(len(m.keys)-len(parent.keys)))
	for _, k := range m.keys[len(parent.keys):] {
		head = append(head, k...)
	}
	leaf := func(kind byte, b []byte) [32]byte {
		return sha256.Sum256(append(append([]byte("tutti/diff/1\x00\x00\x00\x00"), kind), b...))
	}
	leaves := [][32]byte{leaf(0, head)}
	for _, p := range m.params.Table.Partitions(m.params.Shard) {
		var touches, records []byte
		for i := range m.next[p] {
			r := m.accounts[tx.MakeID(p, i)]
			if i >= parent.next[p] {
				records = r.Append(records)
			} else if r != parent.accounts[tx.MakeID(p, i)] {
				touches = be.AppendUint64(be.AppendUint32(be.AppendUint32(touches, i), r.Nonce), r.Balance)
			}
		}
		if len(touches)+len(records) > 0 {
			b := be.AppendUint16(nil, p)
			b = be.AppendUint32(b, uint32(len(touches)/16))
			b = be.AppendUint32(b, uint32(len(records)/64))
			b = be.AppendUint32(b, parent.next[p])
			leaves = append(leaves, leaf(1, append(append(b, touches...), records...)))
		}
	}
	return merkle.ListRoot(leaves)
}

// agrees compares a ledger's final state with the model's.
func (m *model) agrees(l *Ledger) error {
	s := l.Stats()
	if s.Height != m.height || s.Root != m.root() {
		return fmt.Errorf("ledger at height %d with root %v, model at height %d with root %v", s.Height, s.Root, m.height, m.root())
	}
	for id, want := range m.accounts {
		if got, ok := l.Account(id); !ok || got != want {
			return fmt.Errorf("account %x: %+v, %v; want %+v", uint64(id), got, ok, want)
		}
		if want.Extension == 0 {
			continue
		}
		if key, ok, err := l.BLSKey(id); err != nil || !ok || string(key[:]) != m.keys[want.Extension-1][6:] {
			return fmt.Errorf("BLS key of %x: %x, %v, %w", uint64(id), key, ok, err)
		}
	}
	ids := slices.Collect(maps.Keys(m.accounts))
	for p, n := range m.next {
		ids = append(ids, tx.MakeID(p, n))
		if r, ok := l.Account(tx.MakeID(p, n)); ok {
			return fmt.Errorf("account %d of partition %d, which was never opened: %+v", n, p, r)
		}
	}
	found := map[tx.ID]Record{}
	l.Accounts(ids, func(i int, r Record) { found[ids[i]] = r })
	if !maps.Equal(found, m.accounts) {
		return fmt.Errorf("%d accounts asked for at once are %d others than one by one", len(ids), len(found))
	}
	for shard, ch := range m.channels {
		got, err := l.Receipts(shard, ch.acked, uint64(len(ch.sent)))
		if err != nil || !slices.Equal(got, ch.sent[ch.acked:]) {
			return fmt.Errorf("receipts from %d to shard %d: %v, %w", ch.acked, shard, got, err)
		}
	}
	return nil
}

// effects compares what is stored about this block's receipts and openings.
func (m *model) effects(l *Ledger) error {
	credits, err := l.Credits(m.height)
	if err != nil || !slices.Equal(credits, m.credits) {
		return fmt.Errorf("credits of block %d: %v, %w; want %v", m.height, credits, err, m.credits)
	}
	opened, err := l.Opened(m.height)
	if err != nil || !slices.Equal(opened, m.opened) {
		return fmt.Errorf("openings of block %d: %v, %w; want %v", m.height, opened, err, m.opened)
	}
	return nil
}
