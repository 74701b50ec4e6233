package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/receipt"
	"tutti/state/store"
	"tutti/state/tx"
)

// kit is all the parts of a ledger, taken at several heights of a story whose blocks go on meanwhile.
type kit struct {
	s       *story
	hs      headers
	outline *Outline
	older   *Outline // from before
	again   *Chunk   // chunk 0 of partition 1, from two blocks before
	beyond  *Chunk   // one that the outline does not have; nil: there is none
	chunks  map[ChunkID]*Chunk
	tops    []tx.Hash
	keys    map[uint64][]DirectoryKey
	diffs   []Difference
	extra   []Difference // above the height to finish at
	outbox  map[uint16]*Outbox
	final   uint64 // height to finish at
}

// newKit takes the outline at block 8, a chunk every second block from then on, and the rest two blocks after the last.
func newKit(t testing.TB, s *story) *kit {
	t.Helper()
	o := s.options(vfs.NewMem(), true)
	o.Now = (&clock{time.Unix(1e9, 0)}).now
	l := mustOpen(t, o)
	k := &kit{s: s, hs: s.headers(), chunks: map[ChunkID]*Chunk{}, keys: map[uint64][]DirectoryKey{}, outbox: map[uint16]*Outbox{}}
	extend := func(n int) {
		t.Helper()
		for range n {
			if err := s.extend(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	extend(6)
	var err error
	if k.older, err = l.Outline(); err != nil {
		t.Fatal(err)
	}
	if k.again, err = l.Chunk(1, 0); err != nil {
		t.Fatal(err)
	}
	extend(2)
	if k.outline, err = l.Outline(); err != nil {
		t.Fatal(err)
	}
	root, _ := k.hs.root(k.outline.Height)
	m, err := k.outline.Verify(root, &s.p)
	if err != nil {
		t.Fatal(err)
	}
	for slot, next := range m.Next {
		for at := uint32(0); at < next; at += chunkAccounts {
			c, err := l.Chunk(l.table.parts[slot].number, at>>chunkLog)
			if err != nil {
				t.Fatal(err)
			}
			k.chunks[c.ChunkID] = c
			extend(2)
		}
	}
	extend(2)
	height, _ := l.Final()
	k.final = height - StateLag
	if c, err := l.Chunk(1, 1); err == nil {
		k.beyond = c
	}
	for from := uint64(0); from < m.Directory.Count(); from += SegmentKeys {
		if k.keys[from], err = l.DirectoryKeys(from, int(min(SegmentKeys, m.Directory.Count()-from))); err != nil {
			t.Fatal(err)
		}
	}
	if k.tops, err = l.DirectoryTops(0, int(m.Directory.Count()/SegmentKeys)); err != nil {
		t.Fatal(err)
	}
	if k.diffs, err = l.Differences(1, 1<<30); err != nil {
		t.Fatal(err)
	}
	k.diffs, k.extra = k.diffs[k.outline.Height:k.final], k.diffs[k.final:]
	for shard, c := range s.models[k.final].channels {
		if n := uint64(len(c.sent)); n > c.acked {
			if k.outbox[shard], err = l.Outbox(shard, c.acked, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return k
}

// fill puts what is missing, one part in a call, but for parts of kinds in without, and finishes.
func (k *kit) fill(r *Restore, without ...string) error {
	skip := func(kind string) bool { return slices.Contains(without, kind) }
	if r.Outline() == nil && !skip("outline") {
		root, _ := k.hs.root(k.outline.Height)
		if err := r.Begin(k.outline, root); err != nil {
			return err
		}
	}
	for _, id := range r.Missing() {
		if skip(fmt.Sprint("chunk ", id.Partition, " ", id.Index)) {
			continue
		}
		if err := r.PutChunks([]*Chunk{k.chunks[id]}, k.hs.root); err != nil {
			return err
		}
	}
	if r.MissingTops() > 0 {
		if err := r.PutTops(k.tops); err != nil {
			return err
		}
	}
	for _, s := range r.MissingKeys() {
		if skip(fmt.Sprint("keys ", s.From)) {
			continue
		}
		if err := r.PutKeys(s.From, k.keys[s.From]); err != nil {
			return err
		}
	}
	if err := k.fillDifferences(r, skip); err != nil {
		return err
	}
	if _, last, ok := r.Differences(); ok && last == k.final {
		if err := r.PutDifferences(k.extra, k.hs.header); err != nil {
			return err
		}
	}
	if spans, err := r.MissingOutbox(k.final); err == nil {
		for _, span := range spans {
			if skip(fmt.Sprint("outbox ", span.Shard)) {
				continue
			}
			if err := r.PutOutbox(k.final, k.outbox[span.Shard]); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, ErrNotStored) {
		return err
	}
	return r.Finish(k.final, k.hs[k.final+1])
}

// fillDifferences puts them three at a time, from the last ones down: any order will do.
func (k *kit) fillDifferences(r *Restore, skip func(string) bool) error {
	ds := k.diffs
	if skip("first difference") {
		ds = ds[1:]
	}
	if skip("last difference") {
		ds = ds[:len(ds)-1]
	}
	for len(ds) > 0 {
		n := min(3, len(ds))
		group := ds[len(ds)-n:]
		ds = ds[:len(ds)-n]
		if first, last, ok := r.Differences(); ok && first <= group[0].Height && last >= group[n-1].Height {
			continue
		}
		if err := r.PutDifferences(group, k.hs.header); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) options(fs vfs.FS) RestoreOptions {
	return RestoreOptions{FS: fs, Dir: "copy", Params: k.s.p, Workers: 2}
}

// check opens the finished ledger, compares it with the model and goes on.
func (k *kit) check(fs vfs.FS) error {
	o := k.s.options(fs, false)
	o.Dir = "copy"
	l, err := Open(o)
	if err != nil {
		return err
	}
	next, err := l.store.Key(uint64(len(k.s.models[k.final].keys)))
	if h, _ := l.Final(); err != nil || h != k.final || next != nil {
		return errors.Join(fmt.Errorf("final at height %d, not %d; key after the last: %x, %w", h, k.final, next, err), l.Close())
	}
	for range 2 {
		h, _ := l.Final()
		if err := errors.Join(k.s.models[h].agrees(l), outboxAgrees(k.s.models[h], l)); err != nil {
			return errors.Join(err, l.Close())
		}
		if err := k.s.extend(l); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	for i, want := range k.s.models[k.final].keys {
		if v, err := l.store.Key(uint64(i)); err != nil || string(v) != want {
			return errors.Join(fmt.Errorf("key %d of the directory: %x, %w", i, v, err), l.Close())
		}
	}
	return l.Close()
}

// newLargeStory is a chain with several chunks in a partition, one of which begins while the copy is made, and several
// segments of BLS keys.
func newLargeStory(t testing.TB) *story {
	const full, nearly = 2*chunkAccounts + 300, chunkAccounts - 12
	s := &story{p: testParams(t, 0, 2, full+nearly)}
	s.p.Table = PartitionTable{{First: 0, Log2: 1, Shard: 0}, {First: 2, Log2: 0, Shard: 1}}
	s.genesis = func(yield func(GenesisAccount) bool) {
		for i := range uint32(full + nearly) {
			a := GenesisAccount{ID: tx.MakeID(0, i), Balance: testBalance}
			if i >= full {
				a.ID = tx.MakeID(1, i-full)
			} else if i != 7 {
				a.BLS = &[48]byte{byte(i), byte(i >> 8), 9}
			}
			a.Key = keyOf(a.ID)
			if !yield(a) {
				return
			}
		}
	}
	m := newModel(&s.p, s.genesis)
	s.models, s.txs, s.in = []*model{m}, [][]tx.Signed{nil}, [][]tx.Bundle{nil}
	for h := uint64(1); h <= 24; h++ {
		var txs []tx.Signed
		for i := range uint64(5) {
			from := tx.MakeID(0, uint32(h*1999+i)%full)
			x := transfer(&s.p, from, tx.MakeID(uint16(i%3), uint32(h*1777+i)%nearly), 5, m.accounts[from].Nonce)
			if i == 4 {
				x = opening(&s.p, from, 3, m.accounts[from].Nonce, keyOf(tx.ID(h)<<40))
				x.BLS = &tx.BLSKey{Key: [48]byte{byte(h), 7}}
				d := sha256.Sum256(append(x.BLS.Key[:], tx.PossessionMessage(s.p.GenesisHash, x.Key, x.BLS.Key)...))
				copy(x.BLS.Possession[:], d[:])
				fakeSign(s.p.GenesisHash, &x, keyOf(from))
			}
			txs = append(txs, x)
		}
		m, _ = m.block(txs, nil)
		s.models, s.txs, s.in = append(s.models, m), append(s.txs, txs), append(s.in, nil)
	}
	return s
}

func TestRestoreLarge(t *testing.T) {
	k := newKit(t, newLargeStory(t))
	if len(k.chunks) != 4 || len(k.tops) != 2 || len(k.keys) != 3 || len(k.s.models[k.final].accounts) <= 3*chunkAccounts+300 {
		t.Fatalf("%d chunks, %d tops, %d segments, %d accounts: not what this is about", len(k.chunks), len(k.tops), len(k.keys), len(k.s.models[k.final].accounts))
	}
	for id, c := range k.chunks {
		for i, r := range c.Records() {
			if want := k.s.models[c.Height].accounts[tx.MakeID(id.Partition, id.Index<<chunkLog+uint32(i))]; r != want {
				t.Fatalf("record %d of chunk %v: %+v, want %+v", i, id, r, want)
			}
		}
	}
	if k.beyond == nil {
		t.Error("no chunk began while the copy was made")
	}
	fs := vfs.NewMem()
	r := mustRestore(t, k.options(fs))
	// An older outline does for a beginning. The chunks taken are then what it lists, if not all that there are.
	root, _ := k.hs.root(k.older.Height)
	if err := r.Begin(k.older, root); err != nil || r.Outline().Height != k.older.Height {
		t.Fatal(err)
	}
	root, _ = k.hs.root(k.outline.Height)
	if err := r.Begin(k.outline, root); err != nil {
		t.Fatal(err)
	}
	root, _ = k.hs.root(k.older.Height)
	if err := r.Begin(k.older, root); !errors.Is(err, ErrSequence) || r.Outline().Height != k.outline.Height {
		t.Fatal(err)
	}
	// An older chunk does not take the place of a newer one, in one call or two.
	newer := k.chunks[ChunkID{1, 0}]
	for _, cs := range [][]*Chunk{{newer, k.again}, {k.again}} {
		if err := r.PutChunks(cs, k.hs.root); err != nil || r.chunks[newer.ChunkID] != newer.Height || k.again.Height >= newer.Height {
			t.Fatal(err, r.chunks)
		}
	}
	if err := k.fill(r); err != nil {
		t.Fatal(err)
	}
	if err := k.check(fs); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreCrash crashes before every operation of a whole copy on the disk, and continues each time.
func TestRestoreCrash(t *testing.T) {
	k := newKit(t, newFolderStory(t))
	c := newCrashes()
	c.take = true
	fs := c.fs()
	r := mustRestore(t, k.options(fs))
	if err := k.fill(r, "chunk 1 0"); !errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.fill(mustRestore(t, k.options(fs))); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.take = false
	c.mu.Unlock()
	finished := 0
	for i, fs := range append(c.at, c.disk) {
		r, err := OpenRestore(k.options(fs))
		if errors.Is(err, store.ErrExists) {
			finished++
		} else if err == nil {
			_, open := Open(func() Options { o := k.s.options(fs, false); o.Dir = "copy"; return o }())
			if !errors.Is(open, store.ErrRestoring) {
				t.Fatalf("crash %d: opened: %v", i, open)
			}
			err = k.fill(r)
		}
		if err != nil && !errors.Is(err, store.ErrExists) {
			t.Fatalf("crash %d: %v", i, err)
		}
		if err := k.check(fs); err != nil {
			t.Fatalf("crash %d: %v", i, err)
		}
	}
	if len(c.at) < 150 || finished == 0 || finished == len(c.at) {
		t.Errorf("%d crashes, %d of them when all was done", len(c.at), finished)
	}
	t.Logf("%d crashes, %d of them when all was done", len(c.at), finished)
}

// TestRestoreWriteFailures: a disk that fails is a fatal error, and the copy goes on after a restart.
func TestRestoreWriteFailures(t *testing.T) {
	k := newKit(t, newFolderStory(t))
	failures := 0
	for fail := 0; ; fail += 3 {
		c := newCrashes()
		r := mustRestore(t, k.options(c.fs()))
		c.mu.Lock()
		c.fail = c.ops + fail
		c.mu.Unlock()
		err := k.fill(r)
		c.mu.Lock()
		done := c.ops <= c.fail
		c.fail = -1
		c.mu.Unlock()
		if done {
			break
		}
		failures++
		var f *store.FatalError
		if err != nil && !errors.As(err, &f) {
			t.Fatalf("failure %d: %v", fail, err)
		}
		fs := c.disk.CrashClone(vfs.CrashCloneCfg{})
		if r, err := OpenRestore(k.options(fs)); err == nil {
			if err := k.fill(r); err != nil {
				t.Fatalf("failure %d, going on: %v", fail, err)
			}
		} else if !errors.Is(err, store.ErrExists) {
			t.Fatalf("failure %d, again: %v", fail, err)
		}
		if err := k.check(fs); err != nil {
			t.Fatalf("failure %d: %v", fail, err)
		}
	}
	if failures < 8 {
		t.Errorf("%d failures", failures)
	}
	t.Logf("%d failures", failures)
}

// TestFinishRefuses leaves out one part at a time.
func TestFinishRefuses(t *testing.T) {
	k := newKit(t, newLargeStory(t))
	for _, without := range []string{
		"outline", "chunk 0 0", "chunk 0 2", "chunk 1 0", "keys 0", "keys 8192", "first difference", "last difference", "outbox 1",
	} {
		fs := vfs.NewMem()
		r := mustRestore(t, k.options(fs))
		if err := k.fill(r, without); !errors.Is(err, ErrUnfinished) {
			t.Errorf("without %s: %v", without, err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = mustRestore(t, k.options(fs))
		highest, _ := r.Highest()
		if err := k.fill(r); err != nil {
			t.Errorf("then with %s: %v", without, err)
		}
		if without == "outline" {
			continue
		}
		if highest > k.final {
			t.Errorf("highest part %d", highest)
		}
	}
	// Too low a height, and one above what is there.
	r := mustRestore(t, k.options(vfs.NewMem()))
	if err := k.fill(r, "outbox 1"); !errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	highest, _ := r.Highest()
	for s, want := range map[uint64]string{
		0: "can be finished at", 1: "can be finished at", 2: "can be finished at", highest - 1: "can be finished at",
		highest: "receipts", highest + 2: "receipts", k.final + 3: "differences", 1 << 63: "differences", 1<<64 - 1: "differences",
	} {
		if err := r.Finish(s, Trusted{}); !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), want) {
			t.Errorf("finished at height %d: %v, want something about %s", s, err, want)
		}
	}
	// Receipts that end where they should, but begin too late, as if taken for a later height.
	c := k.s.models[k.final].channels[1]
	r.outbox[1] = held{c.acked + 1, uint64(len(c.sent))}
	if spans, err := r.MissingOutbox(k.final); err != nil || !slices.Equal(spans, []OutboxSpan{{1, c.acked, uint64(len(c.sent))}}) {
		t.Errorf("%v, %v", spans, err)
	}
	if err := k.fill(r); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(k.final, Trusted{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestCopyOfAStandingChain: all parts are of one height, and no block is final above the one that carries their root. The copy is
// opened again after each of the next blocks, and goes on as the original does.
func TestCopyOfAStandingChain(t *testing.T) {
	for _, tip := range []uint64{3, 4, 9} {
		s := newStory(t, 12)
		hs := s.headers()[:tip+1]
		l := mustOpen(t, s.options(vfs.NewMem(), true))
		for range tip {
			if err := s.extend(l); err != nil {
				t.Fatal(err)
			}
		}
		at := tip - StateLag
		fs := vfs.NewMem()
		r := mustRestore(t, RestoreOptions{FS: fs, Dir: "copy", Params: s.p})
		if err := copyOutline(l, r, hs); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(copyChunks(l, r, hs, r.Missing()), copyKeys(l, r), copyDifferences(l, r, hs, at), copyOutbox(l, r, at)); err != nil {
			t.Fatal(err)
		}
		if err := r.Finish(at, hs[at+1]); err != nil {
			t.Fatalf("standing at %d: %v", tip, err)
		}
		o := s.options(fs, false)
		o.Dir = "copy"
		for h := at; h < at+5; h++ {
			c, err := Open(o)
			if err != nil {
				t.Fatalf("standing at %d, opened at %d: %v", tip, h, err)
			}
			if got, _ := c.Final(); got != h {
				t.Fatalf("final at %d, not %d", got, h)
			}
			if err := errors.Join(s.models[h].agrees(c), s.extend(c), s.models[h+1].agrees(c), c.Close()); err != nil {
				t.Fatalf("standing at %d, block %d: %v", tip, h+1, err)
			}
		}
	}
}

// TestFinishBelowAnOutbox: receipts that were sent above the height at which the ledger is finished are not in it.
func TestFinishBelowAnOutbox(t *testing.T) {
	s := &story{p: testParams(t, 0, 2, storyAccounts)}
	m := newModel(&s.p, testAccounts(&s.p, storyAccounts))
	s.models, s.txs, s.in = []*model{m}, [][]tx.Signed{nil}, [][]tx.Bundle{nil}
	for h := 1; h <= 12; h++ {
		var txs []tx.Signed
		if h > 6 {
			txs = []tx.Signed{transfer(&s.p, s.p.GenesisID(0), tx.MakeID(200, 0), 1, m.accounts[s.p.GenesisID(0)].Nonce)}
		}
		m, _ = m.block(txs, nil)
		s.models, s.txs, s.in = append(s.models, m), append(s.txs, txs), append(s.in, nil)
	}
	hs := s.headers()
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	extend := func(to uint64) {
		for h, _ := l.Final(); h < to; h++ {
			if err := s.extend(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	extend(4)
	fs := vfs.NewMem()
	r := mustRestore(t, RestoreOptions{FS: fs, Dir: "copy", Params: s.p})
	if err := copyOutline(l, r, hs); err != nil {
		t.Fatal(err)
	}
	if err := copyChunks(l, r, hs, r.Missing()); err != nil {
		t.Fatal(err)
	}
	extend(10)
	if err := errors.Join(copyDifferences(l, r, hs, 9), copyOutbox(l, r, 9), r.Finish(6, hs[7])); err != nil {
		t.Fatal(err)
	}
	o := s.options(fs, false)
	o.Dir = "copy"
	c := mustOpen(t, o)
	if err := c.store.Receipts(1, 0, func(first uint64, _ []byte) (bool, error) {
		return false, fmt.Errorf("receipts from %d on are stored", first)
	}); err != nil {
		t.Error(err)
	}
	for range 4 {
		if h, _ := c.Final(); h == 10 {
			break
		}
		if err := s.extend(c); err != nil {
			t.Fatal(err)
		}
		h, _ := c.Final()
		if err := errors.Join(s.models[h].agrees(c), outboxAgrees(s.models[h], c)); err != nil {
			t.Fatal(err)
		}
	}
}

// flips are copies of b with one bit changed, of every n-th byte after the first hundred.
func flips(b []byte, n int, visit func(at int, b []byte)) {
	for at := range b {
		if at < 100 || at%n == 0 {
			c := slices.Clone(b)
			c[at] ^= 1 << (at % 8)
			visit(at, c)
		}
	}
}

// isBad: the error blames whoever sent the part.
func isBad(err error) bool {
	var bad *BadPart
	return errors.Is(err, ErrMalformed) || errors.As(err, &bad) && (errors.Is(err, ErrPart))
}

// TestCorruptParts changes every field of every part. Each is refused with an error that blames the sender, and none
// of it keeps the copy from being right in the end.
func TestCorruptParts(t *testing.T) {
	for name, s := range map[string]*story{"small": newFolderStory(t), "large": newLargeStory(t)} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t, s)
			fs := vfs.NewMem()
			r := mustRestore(t, k.options(fs))
			k.corruptOutline(t, r)
			if err := k.fill(r, "chunk 0 0", "chunk 1 0", "keys 0", "keys 4096", "keys 8192", "first difference", "outbox 1", "outbox 2", "outbox 3"); !errors.Is(err, ErrUnfinished) {
				t.Fatal(err)
			}
			k.corruptChunks(t, r)
			k.corruptKeys(t, r)
			k.corruptDifferences(t, r)
			k.corruptOutbox(t, r)
			if err := k.fill(r); err != nil {
				t.Fatal(err)
			}
			if err := k.check(fs); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (k *kit) corruptOutline(t *testing.T, r *Restore) {
	root, _ := k.hs.root(k.outline.Height)
	flips(k.outline.Append(nil), 1, func(at int, b []byte) {
		o, err := DecodeOutline(b)
		if err == nil {
			err = r.Begin(o, root)
		}
		if !isBad(err) || r.Outline() != nil {
			t.Fatalf("outline, byte %d: %v", at, err)
		}
	})
	for _, b := range [][]byte{nil, make([]byte, 40), make([]byte, MaxOutlineBytes+1), append(k.outline.Append(nil), 0)} {
		o, err := DecodeOutline(b)
		if err == nil {
			err = r.Begin(o, root)
		}
		if !isBad(err) {
			t.Fatalf("outline of %d bytes: %v", len(b), err)
		}
	}
	// One that is right, of another height.
	o := *k.outline
	o.Height++
	if err := r.Begin(&o, root); !isBad(err) {
		t.Fatal(err)
	}
	// One that is under a root, but of another shard.
	p := k.s.p
	p.Shard = 1
	if _, err := k.outline.Verify(root, &p); !isBad(err) {
		t.Fatal(err)
	}
	if err := r.PutChunks([]*Chunk{k.chunks[ChunkID{0, 0}]}, k.hs.root); !errors.Is(err, ErrSequence) {
		t.Fatal(err)
	}
	if err := r.PutTops(nil); !errors.Is(err, ErrSequence) {
		t.Fatal(err)
	}
	if err := r.PutKeys(0, k.keys[0]); !errors.Is(err, ErrSequence) {
		t.Fatal(err)
	}
}

func (k *kit) corruptChunks(t *testing.T, r *Restore) {
	good := k.chunks[ChunkID{1, 0}]
	before := len(r.Missing())
	flips(good.Append(nil), len(good.records)/97|1, func(at int, b []byte) {
		c, err := DecodeChunk(b)
		if err == nil {
			err = r.PutChunks([]*Chunk{c}, k.hs.root)
			if at < 8 && errors.Is(err, ErrNoHeader) {
				return
			}
		}
		if !isBad(err) || len(r.Missing()) != before {
			t.Fatalf("chunk, byte %d: %v", at, err)
		}
	})
	enc := good.Append(nil)
	for i, b := range [][]byte{nil, enc[:len(enc)-1], enc[:len(enc)-RecordBytes], append(slices.Clone(enc), make([]byte, RecordBytes)...), append(slices.Clone(enc), 0)} {
		if _, err := DecodeChunk(b); !errors.Is(err, ErrMalformed) {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	// Fewer records than there are, in an encoding that is right; records that overflow; another height, place and path.
	short, huge, late, path := *good, *good, *good, *good
	short.records = short.records[:len(short.records)-RecordBytes]
	huge.records = bytes.Clone(huge.records)
	for i := range 2 {
		cellsOf(huge.records)[i].setBalance(1 << 63)
	}
	late.Height++
	path.path[20].sum = 1<<64 - 1
	other := *good
	other.Partition = 0
	far := *good
	far.Index = chunksPerPartition
	none := *good
	none.records = nil
	for i, c := range []*Chunk{&short, &huge, &late, &path, &other, &far, &none} {
		err := r.PutChunks([]*Chunk{c}, k.hs.root)
		if !isBad(err) || (c == &huge || c == &path) != strings.Contains(err.Error(), "overflow") {
			t.Fatalf("chunk %d: %v", i, err)
		}
	}
	if err := r.PutChunks([]*Chunk{good}, func(uint64) (tx.Hash, bool) { return tx.Hash{}, false }); !errors.Is(err, ErrNoHeader) || len(BadParts(err)) > 0 {
		t.Fatal(err)
	}
	if k.beyond != nil {
		if err := r.PutChunks([]*Chunk{k.beyond}, k.hs.root); !errors.Is(err, ErrNotHere) || len(BadParts(err)) > 0 {
			t.Fatal(err)
		}
	}
	// Good ones are kept beside bad ones, each of which is named.
	err := r.PutChunks([]*Chunk{&short, k.chunks[ChunkID{0, 0}], &late}, k.hs.root)
	bad := BadParts(fmt.Errorf("wrapped: %w", err))
	if len(bad) != 2 || bad[0].Index != 0 || bad[1].Index != 2 || len(r.Missing()) != before-1 {
		t.Fatal(err, bad, r.Missing())
	}
	if !strings.Contains(bad[0].Error(), fmt.Sprintf("chunk 0 of partition 1 at height %d", good.Height)) {
		t.Fatal(bad[0])
	}
}

func (k *kit) corruptKeys(t *testing.T, r *Restore) {
	flips(AppendTops(nil, k.tops), 1, func(at int, b []byte) {
		tops, err := DecodeTops(b)
		if err == nil {
			err = r.PutTops(tops)
		}
		if !isBad(err) {
			t.Fatalf("tops, byte %d: %v", at, err)
		}
	})
	if err := r.PutTops(append(slices.Clone(k.tops), tx.Hash{})); !isBad(err) {
		t.Fatal(err)
	}
	for from, keys := range k.keys {
		before := len(r.MissingKeys())
		enc := AppendKeys(nil, keys)
		put := func(b []byte) error {
			keys, err := DecodeKeys(b)
			if err == nil {
				err = r.PutKeys(from, keys)
			}
			return err
		}
		flips(enc, len(enc)/97|1, func(at int, b []byte) {
			if err := put(b); !isBad(err) || len(r.MissingKeys()) != before {
				t.Fatalf("keys from %d on, byte %d: %v", from, at, err)
			}
		})
		swapped := slices.Concat(enc[keyEntryBytes:2*keyEntryBytes], enc[:keyEntryBytes], enc[2*keyEntryBytes:])
		for i, b := range [][]byte{nil, enc[:len(enc)-1], enc[keyEntryBytes:], append(slices.Clone(enc), enc[:keyEntryBytes]...), swapped} {
			if err := put(b); !isBad(err) {
				t.Fatalf("keys from %d on, %d: %v", from, i, err)
			}
		}
		if err := r.PutKeys(from+1, keys); !errors.Is(err, ErrSequence) {
			t.Fatal(err)
		}
		if err := r.PutKeys(from+SegmentKeys, keys); !isBad(err) && !errors.Is(err, ErrSequence) {
			t.Fatal(err)
		}
	}
}

func (k *kit) corruptDifferences(t *testing.T, r *Restore) {
	good := k.diffs[0]
	before, _, _ := r.Differences()
	flips(good.Append(nil), 1, func(at int, b []byte) {
		d, err := DecodeDifference(b)
		if err == nil {
			err = r.PutDifferences([]Difference{d}, k.hs.header)
			if at < 8 && errors.Is(err, ErrNoHeader) {
				return
			}
		}
		if now, _, _ := r.Differences(); !isBad(err) || now != before {
			t.Fatalf("difference, byte %d: %v", at, err)
		}
	})
	enc := good.Append(nil)
	for i, b := range [][]byte{nil, enc[:8], enc[:11], enc[:len(enc)-1], append(slices.Clone(enc), 0), make([]byte, MaxDifferenceBytes+1)} {
		d, err := DecodeDifference(b)
		if err == nil {
			if _, hash := d.Hash(); hash == nil && i != 3 {
				t.Errorf("difference %d has a hash", i)
			}
			if d.Height == good.Height {
				err = r.PutDifferences([]Difference{d}, k.hs.header)
			} else {
				err = ErrMalformed
			}
		}
		if !isBad(err) {
			t.Fatalf("difference %d: %v", i, err)
		}
	}
	// The height of another block; a gap; none before the first block.
	late := good
	late.Height++
	genesis := good
	genesis.Height = 0
	for i, ds := range [][]Difference{{late}, {genesis}, {k.diffs[0], k.diffs[2]}, {k.diffs[0], k.diffs[0]}} {
		err := r.PutDifferences(ds, k.hs.header)
		if bad := BadParts(err); len(bad) != 1 || bad[0].Index != len(ds)-1 {
			t.Fatalf("differences %d: %v", i, err)
		}
	}
	// The first of these was good and is kept. What does not touch is refused.
	if now, _, _ := r.Differences(); now != good.Height {
		t.Fatal(now)
	}
	if err := r.DropBelow(k.final); err != nil {
		t.Fatal(err)
	}
	if err := r.PutDifferences(k.diffs[:1], k.hs.header); !errors.Is(err, ErrSequence) {
		t.Fatal(err)
	}
	if _, err := r.Meta(k.final - 1); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	few := k.hs[:k.final+1]
	if err := r.PutDifferences(k.diffs[len(k.diffs)-1:], few.header); !errors.Is(err, ErrNoHeader) || len(BadParts(err)) > 0 {
		t.Fatal(err)
	}
	if r.Outline() != nil || len(r.chunks) > 0 {
		t.Fatal("an old outline or chunk is still there")
	}
}

func (k *kit) corruptOutbox(t *testing.T, r *Restore) {
	for shard, good := range k.outbox {
		enc := good.Append(nil)
		flips(enc, len(enc)/97|1, func(at int, b []byte) {
			o, err := DecodeOutbox(b)
			if err == nil {
				err = r.PutOutbox(k.final, o)
			}
			if _, held := r.outbox[shard]; !isBad(err) || held {
				t.Fatalf("outbox to shard %d, byte %d: %v", shard, at, err)
			}
		})
		for i, b := range [][]byte{nil, enc[:1], enc[:len(enc)-1], enc[:len(enc)-receiptBytes], append(slices.Clone(enc), enc[len(enc)-receiptBytes:]...), make([]byte, MaxOutboxBytes+1)} {
			o, err := DecodeOutbox(b)
			if err == nil {
				err = r.PutOutbox(k.final, o)
			}
			if !isBad(err) {
				t.Fatalf("outbox to shard %d, %d: %v", shard, i, err)
			}
		}
		// It begins above what was acknowledged, though the root would be right.
		leaf := good.Receipts[0].Leaf(k.s.p.Shard, shard, good.Before.Count())
		late := &Outbox{shard, good.Before.Append([][32]byte{leaf}), good.Receipts[1:]}
		if late.Before.Count() > k.s.models[k.final].channels[shard].acked {
			if err := r.PutOutbox(k.final, late); !isBad(err) {
				t.Fatal(err)
			}
		}
		if err := r.PutOutbox(k.final+9, good); !errors.Is(err, ErrNotStored) {
			t.Fatal(err)
		}
	}
	if err := r.PutOutbox(k.final, &Outbox{Shard: k.s.p.Shard}); !isBad(err) {
		t.Fatal(err)
	}
}

// TestPartsWhileBlocksGoOn takes parts from several goroutines while blocks are executed, speculatively too, and
// checks each against the root of its height.
func TestPartsWhileBlocksGoOn(t *testing.T) {
	s := newFolderStory(t)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	hs := s.headers()
	for range 3 {
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range uint32(2) {
		wg.Go(func() {
			for i := uint32(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, err := l.Chunk(uint16((i+w)%2), 0)
				if err == nil {
					root, _ := hs.root(c.Height)
					err = c.Verify(root)
				}
				o, err2 := l.Outline()
				if err2 == nil {
					root, _ := hs.root(o.Height)
					_, err2 = o.Verify(root, &s.p)
				}
				ds, err3 := l.Differences(1, 1<<20)
				if err := errors.Join(err, err2, err3); err != nil || len(ds) < 3 {
					t.Error(err)
					return
				}
			}
		})
	}
	for range folderBlocks {
		if err := s.extend(l); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// TestServing: what there is not, and limits.
func TestServing(t *testing.T) {
	s := newFolderStory(t)
	c := &clock{time.Unix(1e9, 0)}
	o := s.options(vfs.NewMem(), true)
	o.Now, o.PageCycle = c.now, 4*time.Second
	l := mustOpen(t, o)
	if ds, err := l.Differences(1, 100); err != nil || len(ds) != 0 {
		t.Fatal(ds, err)
	}
	if oldest, err := l.Oldest(); err != nil || oldest != 1 {
		t.Fatal(oldest, err)
	}
	for range 20 {
		c.at = c.at.Add(time.Second)
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []ChunkID{{0, 1}, {0, chunksPerPartition}, {0, 1<<32 - 1}, {2, 0}, {65535, 0}} {
		if _, err := l.Chunk(id.Partition, id.Index); !errors.Is(err, ErrNotHere) {
			t.Errorf("chunk %v: %v", id, err)
		}
	}
	oldest, err := l.Oldest()
	if err != nil || oldest < 5 {
		t.Fatal(oldest, err)
	}
	for _, from := range []uint64{0, 1, oldest - 1} {
		if _, err := l.Differences(from, 1<<20); !errors.Is(err, ErrNotStored) {
			t.Errorf("differences from %d on: %v", from, err)
		}
	}
	for maxBytes, want := range map[int]int{0: 1, 1: 1, 1 << 20: int(21 - oldest)} {
		ds, err := l.Differences(oldest, maxBytes)
		if err != nil || len(ds) != want {
			t.Errorf("%d differences in %d bytes, %v", len(ds), maxBytes, err)
		}
		for i := range ds {
			if hash, err := ds[i].Hash(); err != nil || ds[i].Height != oldest+uint64(i) || hash != s.models[ds[i].Height].diff(s.models[ds[i].Height-1]) {
				t.Errorf("difference %d: %v, %v", ds[i].Height, hash, err)
			}
		}
	}
	for _, from := range []uint64{21, 1 << 63} {
		if ds, err := l.Differences(from, 1<<20); err != nil || len(ds) != 0 {
			t.Errorf("differences from %d on: %v, %v", from, ds, err)
		}
	}
	n := uint64(len(s.models[20].keys))
	for _, c := range []struct {
		from uint64
		max  int
		want uint64
	}{{0, 5, 5}, {0, 1 << 30, n}, {n - 1, 5, 1}, {n, 5, 0}, {1 << 63, 5, 0}, {0, 0, 0}, {0, -1, 0}} {
		if keys, err := l.DirectoryKeys(c.from, c.max); err != nil || uint64(len(keys)) != c.want || string(AppendKeys(nil, keys)) != strings.Join(s.models[20].keys[min(c.from, n):][:c.want], "") {
			t.Errorf("%+v: %d keys, %v", c, len(keys), err)
		}
	}
	if tops, err := l.DirectoryTops(0, 9); err != nil || len(tops) != 0 {
		t.Error(tops, err)
	}
	sent := uint64(len(s.models[20].channels[2].sent))
	for _, span := range [][2]uint64{{0, 0}, {5, 5}, {6, 5}, {0, sent + 1}, {sent, sent + 1}, {0, 1 << 63}} {
		if _, err := l.Outbox(2, span[0], span[1]); !errors.Is(err, ErrNotStored) {
			t.Errorf("outbox %v: %v", span, err)
		}
	}
	// What was dropped is not stored, though what follows is.
	b := l.store.NewBatch()
	if err := errors.Join(b.DropReceipts(2, 5), l.store.Commit(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Outbox(2, 4, sent); !errors.Is(err, ErrNotStored) {
		t.Error(err)
	}
	if out, err := l.Outbox(2, 6, sent); err != nil || out.Before.Count() != 6 || uint64(len(out.Receipts)) != sent-6 {
		t.Error(out, err)
	}
	for _, shard := range []uint16{0, 9} {
		if _, err := l.Outbox(shard, 0, 1); !errors.Is(err, ErrNotStored) {
			t.Errorf("outbox to shard %d: %v", shard, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err1 := l.Outline()
	_, err2 := l.Chunk(0, 0)
	_, err3 := l.Differences(1, 1)
	_, err4 := l.DirectoryKeys(0, 1)
	_, err5 := l.Outbox(2, 0, 1)
	_, err6 := l.Oldest()
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d after Close: %v", i, err)
		}
	}
}

// TestOpenRestore: folders that are something else, and notes that are spoiled.
func TestOpenRestore(t *testing.T) {
	k := newKit(t, newFolderStory(t))
	fs := vfs.NewMem()
	o := k.options(fs)
	other := o
	other.Params.Shards = 0
	if _, err := OpenRestore(other); !errors.Is(err, ErrTable) {
		t.Error(err)
	}
	other = o
	other.Dir = ""
	if _, err := OpenRestore(other); !errors.Is(err, ErrParams) {
		t.Error(err)
	}
	r := mustRestore(t, o)
	if err := k.fill(r, "outbox 2"); !errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := r.Begin(k.outline, k.hs[k.outline.Height+StateLag].State); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	other = o
	other.Params.GenesisHash[0] ^= 1
	if _, err := OpenRestore(other); !errors.Is(err, store.ErrBinding) {
		t.Error(err)
	}
	folder := store.Options{FS: fs, Dir: "copy", Binding: k.s.p.hash()}
	for name, v := range map[string][]byte{
		"o": make([]byte, 500), "c": make([]byte, 8), "c\x00\x00\x00\x00\x00\x00": {1}, "t": {1, 2}, "s\x00\x00\x00\x00\x00\x00\x00\x00": {1}, "d": {1}, "r\x00": make([]byte, 16), "r\x00\x00": {1},
	} {
		copied := vfs.NewMem()
		if ok, err := vfs.Clone(fs, copied, "copy", "copy"); err != nil || !ok {
			t.Fatal(ok, err)
		}
		spoiled := folder
		spoiled.FS = copied
		d, err := store.Restore(spoiled)
		if err != nil {
			t.Fatal(err)
		}
		b := d.NewBatch()
		b.Note([]byte(name), v)
		if err := errors.Join(d.Commit(b), d.Close()); err != nil {
			t.Fatal(err)
		}
		var refused *store.RefusedError
		if _, err := OpenRestore(k.options(copied)); !errors.Is(err, store.ErrCorrupt) || !errors.As(err, &refused) || !strings.Contains(refused.Remedy, "copy again") {
			t.Errorf("note %q: %v", name, err)
		}
	}
	if err := k.fill(mustRestore(t, o)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRestore(o); !errors.Is(err, store.ErrExists) {
		t.Error(err)
	}
}

// TestGoldenParts pins the encodings of all parts.
func TestGoldenParts(t *testing.T) {
	k := newKit(t, newFolderStory(t))
	var b strings.Builder
	show := func(name string, v []byte) {
		fmt.Fprintf(&b, "%s: %d bytes, %x\n", name, len(v), sha256.Sum256(v))
		if len(v) > 1500 {
			v = v[:1500]
		}
		fmt.Fprintf(&b, "  %x\n", v)
	}
	show("outline", k.outline.Append(nil))
	show("chunk", k.chunks[ChunkID{1, 0}].Append(nil))
	show("difference", k.diffs[0].Append(nil))
	show("keys", AppendKeys(nil, k.keys[0]))
	show("tops", AppendTops(nil, []tx.Hash{{1}, {2}}))
	show("outbox", k.outbox[1].Append(nil))
	high, low := rangeOf(SegmentKeys+3, func(i int) [32]byte { return (&keyEntry{id: tx.ID(i)}).leaf(uint64(i)) }).Split(segmentLog)
	entries := make([]byte, 0, SegmentKeys*keyEntryBytes)
	for i := range SegmentKeys {
		entries = (&keyEntry{id: tx.ID(i)}).append(entries)
	}
	top := segmentTop(keyLeaves(0, entries))
	if (receipt.Range{}).Append([][32]byte{top}).Root() != high.Root() || low.Count() != 3 {
		t.Error("the top of a segment is not in the directory's range")
	}
	fmt.Fprintf(&b, "top of a segment: %v\n", top)
	golden(t, "parts.golden", b.String())
}

func fuzzKit(f *testing.F) *kit { return newKit(f, newFolderStory(f)) }

func FuzzOutline(f *testing.F) {
	k := fuzzKit(f)
	root, _ := k.hs.root(k.outline.Height)
	good := k.outline.Append(nil)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeOutline(b)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Append(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		if _, err := o.Verify(root, &k.s.p); (err == nil) != bytes.Equal(b, good) {
			t.Fatalf("%x: %v", b, err)
		}
		// Under its own root, whatever it says, it is decoded within bounds.
		_, _ = o.Verify(stateRoot(o.accounts, metaHash(o.meta)), &k.s.p)
	})
}

func FuzzChunk(f *testing.F) {
	k := fuzzKit(f)
	var good [][]byte
	for _, c := range k.chunks {
		good = append(good, c.Append(nil))
		f.Add(c.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeChunk(b)
		if err != nil {
			return
		}
		if !bytes.Equal(c.Append(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		root, ok := k.hs.root(c.Height)
		if ok && c.Verify(root) == nil && !slices.ContainsFunc(good, func(g []byte) bool { return bytes.Equal(g, b) }) {
			// Two blocks may have left a chunk alike, but not what is beside it.
			t.Fatalf("%x verifies", b)
		}
	})
}

func FuzzDifference(f *testing.F) {
	k := fuzzKit(f)
	for _, d := range k.diffs[:3] {
		f.Add(d.Append(nil))
	}
	r := mustRestore(f, k.options(vfs.NewMem()))
	f.Cleanup(func() { _ = r.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDifference(b)
		if err != nil {
			return
		}
		if !bytes.Equal(d.Append(nil), b) || d.Bytes() != len(b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		hash, err := d.Hash()
		if err != nil {
			return
		}
		if _, _, err := r.checkDifference(&d, d.Height, hash); err == nil && binary.BigEndian.Uint64(metaOf(d.bytes[4:])) != d.Height {
			t.Fatalf("%x is of another height", b)
		}
	})
}

func FuzzKeys(f *testing.F) {
	k := fuzzKit(f)
	f.Add(AppendKeys(nil, k.keys[0]))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if keys, err := DecodeKeys(b); err == nil && !bytes.Equal(AppendKeys(nil, keys), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		if tops, err := DecodeTops(b); err == nil && !bytes.Equal(AppendTops(nil, tops), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
	})
}

func FuzzOutbox(f *testing.F) {
	k := fuzzKit(f)
	for _, o := range k.outbox {
		f.Add(o.Append(nil))
	}
	r := mustRestore(f, k.options(vfs.NewMem()))
	f.Cleanup(func() { _ = r.Close() })
	if err := r.PutDifferences(k.diffs, k.hs.header); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeOutbox(b)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Append(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		if err := r.PutOutbox(k.final, o); err == nil && !slices.Equal(o.Receipts, k.s.models[k.final].channels[o.Shard].sent[o.Before.Count():]) {
			t.Fatalf("%x is taken", b)
		}
	})
}
