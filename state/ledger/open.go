package ledger

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/store"
	"tutti/state/tx"
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
	if o.History == 0 {
		o.History = defaultHistory
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
	if err == nil {
		err = l.loadSigners()
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	l.final.pagedAt = o.Now()
	return l, nil
}

// Genesis is a shard's genesis state in memory, of which folders are made. It belongs to one goroutine.
type Genesis struct {
	l    *Ledger
	keys []keyEntry // of the directory of BLS keys, by place
	ords []ordinate // of those that are known
}

// ordinate is that of the key at a place of the directory.
type ordinate struct {
	place uint64
	y     [48]byte
}

// NewGenesis makes the genesis state of a shard. Params.GenesisHash and GenesisBlock do not matter to it; workers is as in
// Options. accounts are run through once. Errors: ErrParams, ErrTable, no memory. The caller closes it.
func NewGenesis(p Params, accounts GenesisAccounts, workers int) (*Genesis, error) {
	l, err := newLedger(Options{Params: p, Workers: workers})
	if err != nil {
		return nil, err
	}
	g := &Genesis{l: l}
	if err := g.fill(accounts); err != nil {
		_ = l.Close()
		return nil, err
	}
	return g, nil
}

// Root is the state root, which the genesis header carries.
func (g *Genesis) Root() tx.Hash { return g.l.last.root }

// Create makes a new ledger's folder, missing or empty before, of the chain and genesis block that p names; otherwise p
// is what NewGenesis was given. Errors as of Open.
func (g *Genesis) Create(fs vfs.FS, dir string, p Params) error {
	same := g.l.o.Params
	same.GenesisHash, same.GenesisBlock = p.GenesisHash, p.GenesisBlock
	if same.hash() != p.hash() || p.GenesisBlock == (tx.Hash{}) {
		return fmt.Errorf("ledger: %w: not those of the genesis state", ErrParams)
	}
	if fs == nil {
		fs = vfs.Default
	}
	s, err := g.create(store.Options{FS: fs, Dir: dir}, p)
	if err != nil {
		return err
	}
	return s.Close()
}

// Close releases the memory.
func (g *Genesis) Close() error { return g.l.Close() }

// GenesisRoot is the state root of the genesis state. See NewGenesis.
func GenesisRoot(p Params, accounts GenesisAccounts) (tx.Hash, error) {
	g, err := NewGenesis(p, accounts, 0)
	if err != nil {
		return tx.Hash{}, err
	}
	root := g.Root()
	return root, g.Close()
}

func newLedger(o Options) (*Ledger, error) {
	if err := o.Params.Validate(); err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	l := &Ledger{o: o, table: newTable(&o.Params), blocks: map[tx.Hash]*block{}}
	l.signers.init(o.Params.AccountLimit)
	l.exec.tree = newUpper(l.table.parts)
	l.exec.scratch = make([]scratch, o.Workers)
	l.tops.known = map[uint64]tx.Hash{}
	return l, nil
}

// fill fills the table and makes the genesis block the final one.
func (g *Genesis) fill(accounts GenesisAccounts) error {
	l := g.l
	params := &l.o.Params
	m := genesisMeta(params)
	supply := uint64(0)
	var leaves [][32]byte // of the directory
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
			g.keys = append(g.keys, k)
			if a.Ordinate != nil {
				g.ords = append(g.ords, ordinate{uint64(len(g.keys) - 1), *a.Ordinate})
			}
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
	g := &Genesis{l: l}
	if err := g.fill(l.o.Genesis); err != nil {
		return err
	}
	l.final.progress = g.progress()
	var err error
	l.store, err = g.create(folder, l.o.Params)
	return err
}

func (g *Genesis) progress() store.Progress {
	return store.Progress{Partition: g.l.table.parts[0].number}
}

// create writes the directory of BLS keys, all pages, then the genesis block with the progress.
func (g *Genesis) create(folder store.Options, p Params) (*store.Store, error) {
	folder.Binding = p.hash()
	genesis := *g.l.last
	genesis.hash = p.GenesisBlock
	return store.Create(folder, func(s *store.Store) error {
		if err := s.Load(g.load); err != nil {
			return err
		}
		batch := s.NewBatch()
		batch.Block(0, genesis.appendStored(nil))
		batch.Progress(g.progress())
		return s.Commit(batch)
	})
}

func (g *Genesis) load(to *store.Bulk) error {
	var v []byte
	for i := range g.keys {
		v = g.keys[i].append(v[:0])
		to.Key(uint64(i), v)
	}
	for slot := range g.l.table.parts {
		p := &g.l.table.parts[slot]
		for at := uint32(0); at < p.next; at += pageAccounts {
			cells := p.chunks[at>>chunkLog].cells[at%chunkAccounts:][:min(pageAccounts, p.next-at)]
			v = appendPage(v[:0], 0, cells)
			to.Page(p.number, at>>pageLog, v)
		}
	}
	for _, o := range g.ords {
		to.Point(o.place, o.y[:])
	}
	return nil
}
