package ledger

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/store"
	"tutti/state/tx"
)

const (
	defaultPageCycle = 10 * time.Minute
	seedBytes        = 4 << 20 // in one batch of genesis pages
)

// Open opens the ledger in a folder, or with Options.Create makes a new one there. Errors: ErrParams, ErrTable;
// *store.RefusedError when the folder is missing, there already, incomplete, of another format, ledger or process, or
// corrupt; *store.FatalError when it could not be written. The caller closes the ledger.
func Open(o Options) (*Ledger, error) {
	switch {
	case o.Dir == "" || o.Verifier == nil || o.Headers == nil || o.Possession == nil || o.Create && o.Genesis == nil:
		return nil, fmt.Errorf("ledger: %w: an option that is required is not set", ErrParams)
	case o.Params.GenesisBlock == (tx.Hash{}):
		return nil, fmt.Errorf("ledger: %w: no genesis block", ErrParams)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PageCycle <= 0 {
		o.PageCycle = defaultPageCycle
	}
	l, err := newLedger(o)
	if err != nil {
		return nil, err
	}
	folder := store.Options{FS: o.FS, Dir: o.Dir, Binding: o.Params.hash(), CacheBytes: o.CacheBytes, Upgrade: l.upgrade}
	if o.Create {
		err = l.create(folder)
	} else if l.store, err = store.Open(folder); err == nil {
		err = l.recover()
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	l.final.pagedAt = o.Now()
	return l, nil
}

// GenesisRoot is the state root of the genesis state, which the genesis header carries. Params.GenesisHash and
// GenesisBlock do not matter to it.
func GenesisRoot(p Params, accounts GenesisAccounts) (tx.Hash, error) {
	l, err := newLedger(Options{Params: p})
	if err != nil {
		return tx.Hash{}, err
	}
	err = l.genesis(accounts)
	root := tx.Hash{}
	if err == nil {
		root = l.last.root
	}
	_ = l.Close()
	return root, err
}

func newLedger(o Options) (*Ledger, error) {
	if err := o.Params.Validate(); err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	l := &Ledger{o: o, table: newTable(&o.Params), blocks: map[tx.Hash]*block{}}
	l.idHead = (&tx.Tx{}).Message(o.Params.GenesisHash)[:16+len(tx.Hash{})]
	l.exec.tree = newUpper(l.table.parts)
	l.exec.scratch = make([]scratch, o.Workers)
	l.tops.known = map[uint64]tx.Hash{}
	return l, nil
}

// genesis fills the table and makes the genesis block the final one.
func (l *Ledger) genesis(accounts GenesisAccounts) error {
	params := &l.o.Params
	m := genesisMeta(params)
	supply := uint64(0)
	var leaves [][32]byte // of the directory of BLS keys
	for a := range accounts {
		slot := l.table.route[a.ID.Partition()]
		if slot < 0 || a.ID.Index() != m.Next[slot] || a.ID.Index() >= AccountsPerPartition {
			return fmt.Errorf("ledger: %w: genesis account %d is at partition %d, index %d: not the next place of a partition of shard %d",
				ErrParams, m.Accounts, a.ID.Partition(), a.ID.Index(), params.Shard)
		}
		if m.Accounts == params.AccountLimit || a.Balance > params.Supplies[params.Shard]-supply {
			return fmt.Errorf("ledger: %w: the genesis accounts are more than %d or have more than %d units",
				ErrParams, params.AccountLimit, params.Supplies[params.Shard])
		}
		if err := l.table.reserve(int(slot), a.ID.Index()+1); err != nil {
			return err
		}
		r := Record{Balance: a.Balance, Kind: KindSingle, Key: a.Key}
		if a.BLS != nil {
			k := keyEntry{a.ID, *a.BLS}
			leaves = append(leaves, k.leaf(uint64(len(leaves))))
			r.Extension = uint64(len(leaves))
		}
		c := cell(r.Append(make([]byte, 0, RecordBytes)))
		l.table.parts[slot].open(a.ID.Index(), &c)
		l.table.parts[slot].next++
		m.Next[slot]++
		m.Accounts++
		supply += a.Balance
	}
	if supply != params.Supplies[params.Shard] {
		return fmt.Errorf("ledger: %w: the genesis accounts have %d units, the supply is %d", ErrParams, supply, params.Supplies[params.Shard])
	}
	m.Directory = m.Directory.Append(leaves)
	b := &block{hash: params.GenesisBlock, meta: m, returns: make([][]tx.Receipt, len(m.Channels))}
	b.head = appendHead(nil, m, l.table.parts, b.returns, nil)
	return l.begin(b)
}

// begin makes a block of which the table has the state the base, the final block and the tip. Its diff is set.
func (l *Ledger) begin(b *block) error {
	if err := l.hash(b); err != nil {
		return err
	}
	b.below = rootAndDiff{root: b.root} // asked for only at genesis
	l.tip, l.last, l.base, l.view = b, b, b, l.exec.tree.clone()
	l.blocks[b.hash] = b
	return nil
}

func (l *Ledger) create(folder store.Options) error {
	if err := l.genesis(l.o.Genesis); err != nil {
		return err
	}
	l.final.progress = store.Progress{Partition: l.table.parts[0].number}
	var err error
	l.store, err = store.Create(folder, l.seed)
	return err
}

// seed writes the directory of BLS keys, all pages, the genesis block, and the progress last.
func (l *Ledger) seed(s *store.Store) error {
	batch := s.NewBatch()
	spill := func() error {
		if batch.Bytes() < seedBytes {
			return nil
		}
		full := batch
		batch = s.NewBatch()
		return s.Commit(full)
	}
	place := uint64(0)
	for a := range l.o.Genesis {
		if a.BLS == nil {
			continue
		}
		k := keyEntry{a.ID, *a.BLS}
		batch.Key(place, k.append(nil))
		place++
		if err := spill(); err != nil {
			return err
		}
	}
	var page []byte
	for slot := range l.table.parts {
		p := &l.table.parts[slot]
		for at := uint32(0); at < p.next; at += pageAccounts {
			cells := p.chunks[at>>chunkLog].cells[at%chunkAccounts:][:min(pageAccounts, p.next-at)]
			page = appendPage(page[:0], 0, cells)
			batch.Page(p.number, at>>pageLog, page)
			if err := spill(); err != nil {
				return err
			}
		}
	}
	batch.Block(0, l.last.appendStored(nil))
	batch.Progress(l.final.progress)
	return s.Commit(batch)
}
