package state

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"os"
	"path/filepath"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"tutti/bench/workload"
	"tutti/state/tx"
)

// tree is a dense binary SHA-256 tree with all nodes in one slice: node 1 is the root, leaf i is at first+i.
type tree struct {
	first int
	nodes [][32]byte
}

func newTree(leaves int) *tree {
	n := 1 << bits.Len(uint(leaves-1))
	return &tree{n, make([][32]byte, 2*n)}
}

func (t *tree) join(at int) { t.nodes[at] = sha256.Sum256(joined(&t.nodes[2*at], &t.nodes[2*at+1])) }

func joined(l, r *[32]byte) []byte {
	var b [64]byte
	copy(b[:], l[:])
	copy(b[32:], r[:])
	return b[:]
}

func (t *tree) fill() {
	for at := t.first - 1; at > 0; at-- {
		t.join(at)
	}
}

// names hashes the transactions to ids and to the root of their list, as the product does, one after another.
func (r *rig) names(ts []workload.Transfer) [32]byte {
	level := make([][32]byte, len(ts))
	for i, t := range ts {
		s := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: r.ids[t.From], To: r.ids[t.To], Amount: t.Amount, Nonce: t.Nonce, Expiry: 1<<32 - 1}}
		level[i] = tx.TxLeaf(s.TxID(chain), true)
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = sha256.Sum256(joined(&level[2*i], &level[2*i+1]))
		}
		level = level[:(len(level)+1)/2]
	}
	return level[0]
}

// serial is one goroutine over plain slices with crypto/sha256: records by number, each changed node of the tree hashed
// once, body and differences to files that are synced. It cannot undo, prove or sync.
type serial struct {
	r       *rig
	records [][64]byte
	tree    *tree
	log     *os.File
	diffs   *os.File
}

func newSerial(r *rig) reference {
	s := &serial{r: r, records: make([][64]byte, r.accounts), tree: newTree(r.accounts), log: r.file("serial.log"), diffs: r.file("serial.diff")}
	for i := range s.records {
		rec := r.record(i)
		copy(s.records[i][:], rec.Append(nil))
		s.tree.nodes[s.tree.first+i] = sha256.Sum256(s.records[i][:])
	}
	s.tree.fill()
	return s
}

func (s *serial) balance(i uint32) uint64 { return binary.BigEndian.Uint64(s.records[i][:]) }

func (s *serial) add(i uint32, amount uint64) {
	binary.BigEndian.PutUint64(s.records[i][:], s.balance(i)+amount)
}

func (s *serial) block(ts []workload.Transfer, body []byte) {
	s.r.names(ts)
	touched := make([]uint32, 0, 2*len(ts))
	for _, t := range ts {
		nonce := binary.BigEndian.Uint32(s.records[t.From][8:])
		if nonce != t.Nonce || s.balance(t.From) < t.Amount+1 {
			s.r.t.Fatal("a transfer fails")
		}
		binary.BigEndian.PutUint32(s.records[t.From][8:], nonce+1)
		s.add(t.From, -t.Amount-1)
		touched = append(touched, t.From, t.To)
	}
	for _, t := range ts {
		s.add(t.To, t.Amount)
	}
	slices.Sort(touched)
	touched = slices.Compact(touched)
	diff := make([]byte, 0, len(touched)*16)
	at := make([]int, 0, len(touched))
	for _, i := range touched {
		s.tree.nodes[s.tree.first+int(i)] = sha256.Sum256(s.records[i][:])
		at = append(at, s.tree.first+int(i))
		diff = append(binary.BigEndian.AppendUint32(diff, i), s.records[i][:12]...)
	}
	for len(at) > 0 && at[0] > 1 {
		for i := range at {
			at[i] /= 2
		}
		at = slices.Compact(at)
		for _, n := range at {
			s.tree.join(n)
		}
	}
	s.r.write(s.log, body)
	s.r.write(s.diffs, diff)
}

func (s *serial) close() { s.r.closeFiles(s.log, s.diffs) }

// write appends and syncs.
func (r *rig) write(f *os.File, b []byte) {
	if _, err := f.Write(b); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) closeFiles(files ...*os.File) {
	for _, f := range files {
		if err := f.Close(); err != nil {
			r.t.Error(err)
		}
		if err := os.Remove(f.Name()); err != nil {
			r.t.Error(err)
		}
	}
}

// naive is what comes first to mind: accounts in a Go map, every change hashed up to the root at once, one key of the
// storage engine for each account, in one synced batch for each block.
type naive struct {
	r        *rig
	accounts map[tx.ID]*naiveAccount
	tree     *tree
	db       *pebble.DB
	log      *os.File
	dir      string
}

type naiveAccount struct {
	number  int
	balance uint64
	nonce   uint32
	key     [32]byte
}

func newNaive(r *rig) reference {
	n := &naive{r: r, accounts: map[tx.ID]*naiveAccount{}, tree: newTree(r.accounts), log: r.file("naive.log"), dir: filepath.Join(r.dir, "naive")}
	var err error
	if n.db, err = pebble.Open(n.dir, &pebble.Options{Logger: discard{}}); err != nil {
		r.t.Fatal(err)
	}
	batch := n.db.NewBatch()
	for i, id := range r.ids {
		rec := r.record(i)
		a := &naiveAccount{i, rec.Balance, rec.Nonce, rec.Key}
		n.accounts[id] = a
		n.tree.nodes[n.tree.first+i] = a.hash()
		n.set(batch, id, a)
		if batch.Len() > 64<<20 {
			n.commit(batch)
			batch = n.db.NewBatch()
		}
	}
	n.commit(batch)
	n.tree.fill()
	return n
}

// discard is a logger for an engine that has nothing to say.
type discard struct{}

func (discard) Infof(string, ...any)  {}
func (discard) Errorf(string, ...any) {}
func (discard) Fatalf(f string, args ...any) {
	panic(f)
}

func (a *naiveAccount) encode() []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, a.balance), a.nonce)
	return append(append(b, make([]byte, 12)...), append(a.key[:], make([]byte, 8)...)...)
}

func (a *naiveAccount) hash() [32]byte { return sha256.Sum256(a.encode()) }

func (n *naive) set(b *pebble.Batch, id tx.ID, a *naiveAccount) {
	if err := b.Set(binary.BigEndian.AppendUint64(nil, uint64(id)), a.encode(), nil); err != nil {
		n.r.t.Fatal(err)
	}
}

func (n *naive) commit(b *pebble.Batch) {
	if err := b.Commit(pebble.Sync); err != nil {
		n.r.t.Fatal(err)
	}
}

func (n *naive) balance(i uint32) uint64 { return n.accounts[n.r.ids[i]].balance }

func (n *naive) block(ts []workload.Transfer, body []byte) {
	n.r.names(ts)
	batch := n.db.NewBatch()
	for _, t := range ts {
		from, to := n.accounts[n.r.ids[t.From]], n.accounts[n.r.ids[t.To]]
		if from.nonce != t.Nonce || from.balance < t.Amount+1 {
			n.r.t.Fatal("a transfer fails")
		}
		from.nonce++
		from.balance -= t.Amount + 1
		to.balance += t.Amount
		for _, a := range []*naiveAccount{from, to} {
			at := n.tree.first + a.number
			n.tree.nodes[at] = a.hash()
			for at /= 2; at > 0; at /= 2 {
				n.tree.join(at)
			}
			n.set(batch, n.r.ids[a.number], a)
		}
	}
	n.r.write(n.log, body)
	n.commit(batch)
}

func (n *naive) close() {
	if err := n.db.Close(); err != nil {
		n.r.t.Error(err)
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.r.t.Error(err)
	}
	n.r.closeFiles(n.log)
}
