package blocklog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"tutti/consensus"
)

// segment is one file of the block log. All but the last are complete and durable.
type segment struct {
	number    uint64
	path      string
	maxHeight consensus.Height // highest block or finalization in it
	hashes    []consensus.Hash // blocks in it
}

// place is where a record begins.
type place struct {
	seg *segment
	off int64
}

// held is what the index knows of a block.
type held struct {
	place
	height consensus.Height
	parent consensus.Hash
	epoch  consensus.Epoch
	ends   bool // its epoch, itself or as an echo
	echo   bool
}

// blocks is the block log with its index. Log.mu guards everything but w, which is the writer's.
type blocks struct {
	o     Options
	segs  []*segment // oldest first, numbers without gaps; w writes the last
	w     *file
	index map[consensus.Hash]held

	// The finalised chain as far as it is held: chain[i] is final at height base+i.
	base  consensus.Height
	chain []consensus.Hash
	certs map[consensus.Height]place           // heights with a finalization of their own, or of an echo of the block there
	ends  map[consensus.Epoch]consensus.Height // of the last blocks of epochs, as far as chain has them
}

func segmentName(number uint64) string { return fmt.Sprintf("blocks-%08d.log", number) }

func segmentNumber(name string) (n uint64, ok bool) {
	_, err := fmt.Sscanf(name, "blocks-%d.log", &n)
	return n, err == nil && name == segmentName(n)
}

// openBlocks reads all segments. Complete ones are hopped over record by record without reading bodies, whose sums are
// checked when they are read; the last is read whole, its torn tail cut off, and the rest made durable.
func openBlocks(o Options) (*blocks, error) {
	b := &blocks{o: o, index: map[consensus.Hash]held{}, certs: map[consensus.Height]place{}, ends: map[consensus.Epoch]consensus.Height{}}
	names, err := o.FS.List(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("blocklog: %w", err)
	}
	for _, name := range names {
		if n, ok := segmentNumber(name); ok {
			b.segs = append(b.segs, &segment{number: n, path: o.FS.PathJoin(o.Dir, name)})
		} else if strings.HasSuffix(name, tempSuffix) { // a rewrite that a crash cut short; the original is in place
			if err := o.FS.Remove(o.FS.PathJoin(o.Dir, name)); err != nil {
				return nil, &WriteError{"remove", name, err}
			}
		}
	}
	slices.SortFunc(b.segs, func(x, y *segment) int { return cmp.Compare(x.number, y.number) })
	if len(b.segs) == 0 {
		return nil, &CorruptionError{o.FS.PathJoin(o.Dir, segmentName(1)), 0, "no segment of the block log is there"}
	}
	for i, s := range b.segs {
		if want := b.segs[0].number + uint64(i); s.number != want {
			return nil, &CorruptionError{o.FS.PathJoin(o.Dir, segmentName(want)), 0, "the segment is missing"}
		}
		if i < len(b.segs)-1 {
			err = b.readSealed(s)
		} else {
			err = b.readLast(s)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *blocks) readSealed(s *segment) error {
	f, err := openSealed(b.o.FS, s.path, kindBlocks, s.number)
	if err != nil {
		return err
	}
	_, err = f.scan(false, func(r record) error { return b.admit(s, r) })
	return errors.Join(err, f.close())
}

// readLast reads the last segment and leaves it open for appending, durable to its end.
func (b *blocks) readLast(s *segment) error {
	if info, err := b.o.FS.Stat(s.path); err != nil {
		return fmt.Errorf("blocklog: %w", err)
	} else if info.Size() <= segmentHeadBytes {
		// Made just before a crash: its head was synced before any record could follow. Make it again.
		if err := createFile(b.o.FS, s.path, kindBlocks, FormatVersion, s.number); err != nil {
			return err
		}
		if err := syncDir(b.o.FS, b.o.Dir); err != nil {
			return err
		}
	}
	f, err := openFile(b.o.FS, s.path, kindBlocks, s.number)
	if err != nil {
		return err
	}
	end, err := f.scan(true, func(r record) error { return b.admit(s, r) })
	if err != nil {
		return errors.Join(err, f.close())
	}
	if end == f.size {
		b.w = f
		return f.sync()
	}
	if err := b.cutTail(f, end); err != nil {
		return errors.Join(err, f.close())
	}
	if err := f.close(); err != nil {
		return err
	}
	if b.w, err = openFile(b.o.FS, s.path, kindBlocks, s.number); err != nil {
		return err
	}
	b.w.synced = b.w.size
	return nil
}

// cutTail replaces f's file by its first end bytes. A copy and a rename, so that what stands is never less than was good.
func (b *blocks) cutTail(f *file, end int64) error {
	content, err := f.read(0, int(end))
	if err != nil {
		return err
	}
	if err := writeFile(b.o.FS, f.path+tempSuffix, content); err != nil {
		return err
	}
	if err := b.o.FS.Rename(f.path+tempSuffix, f.path); err != nil {
		return &WriteError{"rename", f.path, err}
	}
	return syncDir(b.o.FS, b.o.Dir)
}

// admit puts a record that was read into the index.
func (b *blocks) admit(s *segment, r record) error {
	switch r.typ {
	case recordBlock:
		h, err := consensus.DecodeHeader(r.meta)
		if err != nil {
			return err
		}
		if int64(h.Body.Length) != r.dataLen {
			return errors.New("the body's length is not the header's")
		}
		b.noteBlock(s, r.off, h)
		return nil
	case recordFinal:
		height, cert, err := decodeFinal(r.meta)
		if err != nil {
			return err
		}
		if r.dataLen != 0 {
			return errors.New("a finalization with data")
		}
		if _, _, err := b.proven(cert.Block); err != nil && len(b.chain) == 0 {
			s.maxHeight = max(s.maxHeight, height) // its block was in a segment that retention removed
			return nil
		}
		return b.noteFinal(place{s, r.off}, height, cert)
	}
	return fmt.Errorf("record type %d in a block log", r.typ)
}

func decodeFinal(meta []byte) (consensus.Height, *consensus.Certificate, error) {
	if len(meta) < 8 {
		return 0, nil, errors.New("finalization too short")
	}
	cert, err := consensus.DecodeCertificate(meta[8:])
	if err != nil {
		return 0, nil, err
	}
	if cert.Kind != consensus.Finalize {
		return 0, nil, errors.New("not a finalization")
	}
	return consensus.Height(binary.BigEndian.Uint64(meta)), cert, nil
}

func (b *blocks) noteBlock(s *segment, off int64, h *consensus.Header) {
	hash := h.Hash()
	b.index[hash] = held{place{s, off}, h.Height, h.Parent, h.Epoch, h.Ends(), h.IsEcho()}
	s.hashes = append(s.hashes, hash)
	s.maxHeight = max(s.maxHeight, h.Height)
}

// proven is the block that a finalization of the given one is to prove final: that one itself, or the last of its epoch if it
// is an echo, which the finalised chain has nothing of.
func (b *blocks) proven(hash consensus.Hash) (consensus.Hash, held, error) {
	at, ok := b.index[hash]
	for ok && at.echo {
		hash = at.parent
		at, ok = b.index[hash]
	}
	if !ok {
		return hash, at, fmt.Errorf("%w: %s", ErrNotFound, hash.Short())
	}
	return hash, at, nil
}

// noteFinal extends the finalised chain up to what cert proves final, which is at that height. One for a height that is final
// already takes the place of the one before (improveFinal).
func (b *blocks) noteFinal(at place, height consensus.Height, cert *consensus.Certificate) error {
	hash, block, err := b.proven(cert.Block)
	if err != nil {
		return err
	}
	if block.height != height {
		return fmt.Errorf("%w: block %s is at height %d, not %d", ErrConflict, hash.Short(), block.height, height)
	}
	if final, ok := b.finalAt(height); ok && final == hash {
		b.certs[height] = at
		at.seg.maxHeight = max(at.seg.maxHeight, height)
		return nil
	}
	run, err := b.link(hash)
	if err != nil {
		return err
	}
	for _, hash := range run {
		if h := b.index[hash]; h.ends {
			b.ends[h.epoch] = h.height
		}
	}
	if len(b.chain) == 0 {
		b.base = height + 1 - consensus.Height(len(run))
	}
	b.chain = append(b.chain, run...)
	b.certs[height] = at
	at.seg.maxHeight = max(at.seg.maxHeight, height)
	return nil
}

// link returns the blocks above the final tip up to hash, in height order.
func (b *blocks) link(hash consensus.Hash) ([]consensus.Hash, error) {
	at, ok := b.index[hash]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, hash.Short())
	}
	tip, tipHash := b.final()
	var run []consensus.Hash
	for {
		run = append(run, hash)
		if len(b.chain) > 0 && at.height == tip+1 {
			if at.parent != tipHash {
				return nil, fmt.Errorf("%w: block %s at height %d", ErrConflict, hash.Short(), at.height)
			}
			break
		}
		parent, ok := b.index[at.parent]
		if !ok && len(b.chain) == 0 {
			break // the oldest that is held
		}
		if !ok {
			return nil, fmt.Errorf("%w: %s, parent of %s", ErrNotFound, at.parent.Short(), hash.Short())
		}
		if parent.height+1 != at.height {
			return nil, fmt.Errorf("%w: block %s at height %d has a parent at %d", ErrConflict, hash.Short(), at.height, parent.height)
		}
		hash, at = at.parent, parent
	}
	slices.Reverse(run)
	return run, nil
}

// final is the height and hash of the finalised tip; zero while nothing is final.
func (b *blocks) final() (consensus.Height, consensus.Hash) {
	if len(b.chain) == 0 {
		return 0, consensus.Hash{}
	}
	return b.base + consensus.Height(len(b.chain)) - 1, b.chain[len(b.chain)-1]
}

// finalAt is the finalised block at a height, as far as it is held.
func (b *blocks) finalAt(h consensus.Height) (consensus.Hash, bool) {
	if h < b.base || h-b.base >= consensus.Height(len(b.chain)) {
		return consensus.Hash{}, false
	}
	return b.chain[h-b.base], true
}

func (b *blocks) appendBlock(bl consensus.Block) error {
	if _, ok := b.index[bl.Header.Hash()]; ok {
		return nil
	}
	version := byte(FormatVersion)
	if bl.Header.IsEcho() {
		version = echoVersion
	}
	off, err := b.append(version, recordBlock, bl.Header.Append(nil), bl.Body)
	if err == nil {
		b.noteBlock(b.segs[len(b.segs)-1], off, bl.Header)
	}
	return err
}

func (b *blocks) appendFinal(cert *consensus.Certificate) error {
	block, at, err := b.proven(cert.Block)
	if err != nil || cert.Kind != consensus.Finalize {
		return fmt.Errorf("%w: %s, of a %s", ErrNotFound, cert.Block.Short(), cert.Kind)
	}
	if tip, _ := b.final(); len(b.chain) > 0 && at.height <= tip {
		if hash, ok := b.finalAt(at.height); ok && hash != block {
			return fmt.Errorf("%w: %s and %s at height %d", ErrConflict, hash.Short(), block.Short(), at.height)
		}
		return nil
	}
	if _, err := b.link(block); err != nil { // before anything is written
		return err
	}
	return b.writeFinal(at.height, cert)
}

func (b *blocks) improveFinal(cert *consensus.Certificate) error {
	block, at, err := b.proven(cert.Block)
	if err != nil || cert.Kind != consensus.Finalize {
		return fmt.Errorf("%w: %s, of a %s", ErrNotFound, cert.Block.Short(), cert.Kind)
	}
	if final, ok := b.finalAt(at.height); !ok || final != block {
		return fmt.Errorf("%w: %s is not final", ErrNotFound, cert.Block.Short())
	}
	return b.writeFinal(at.height, cert)
}

func (b *blocks) writeFinal(height consensus.Height, cert *consensus.Certificate) error {
	meta := cert.Append(binary.BigEndian.AppendUint64(nil, uint64(height)))
	off, err := b.append(FormatVersion, recordFinal, meta, nil)
	if err != nil {
		return err
	}
	return b.noteFinal(place{b.segs[len(b.segs)-1], off}, height, cert)
}

// append writes a record, in a new segment when the last is full or of a version that has no such records.
func (b *blocks) append(version, typ byte, meta, data []byte) (int64, error) {
	if b.w.version < version || b.w.size >= b.o.SegmentBytes || len(b.segs[len(b.segs)-1].hashes) >= b.o.segmentBlocks() {
		if err := b.roll(version); err != nil {
			return 0, err
		}
	}
	return b.w.append(typ, meta, data)
}

// roll completes the last segment and begins another: the old is durable before the new one has a name.
func (b *blocks) roll(version byte) error {
	if err := b.w.sync(); err != nil {
		return err
	}
	n := b.segs[len(b.segs)-1].number + 1
	s := &segment{number: n, path: b.o.FS.PathJoin(b.o.Dir, segmentName(n))}
	if err := createFile(b.o.FS, s.path, kindBlocks, version, n); err != nil {
		return err
	}
	if err := syncDir(b.o.FS, b.o.Dir); err != nil {
		return err
	}
	w, err := openFile(b.o.FS, s.path, kindBlocks, n)
	if err != nil {
		return err
	}
	w.synced = w.size
	old := b.w
	b.segs, b.w = append(b.segs, s), w
	return old.close()
}

func (b *blocks) sync() error { return b.w.sync() }

// prune removes the oldest segments while they lie wholly below the retention line. The directory is synced after each, so
// that a crash can't leave a gap in the numbers.
func (b *blocks) prune() error {
	tip, _ := b.final()
	pruned := false
	for len(b.segs) > 1 && tip > b.o.Retention && b.segs[0].maxHeight < tip-b.o.Retention {
		s := b.segs[0]
		if err := b.o.FS.Remove(s.path); err != nil {
			return &WriteError{"remove", s.path, err}
		}
		if err := syncDir(b.o.FS, b.o.Dir); err != nil {
			return err
		}
		b.segs = b.segs[1:]
		for _, hash := range s.hashes {
			if at := b.index[hash]; at.height >= b.base && !at.echo {
				b.dropBelow(at.height + 1)
			}
			delete(b.index, hash)
		}
		for h, at := range b.certs {
			if at.seg == s {
				delete(b.certs, h)
			}
		}
		pruned = true
	}
	if pruned {
		b.index, b.certs = fresh(b.index), fresh(b.certs)
	}
	return nil
}

// fresh copies a map. Entries that come and go split the tables of a Go map by chance, for good: to several times the size
// of one that was filled with the same. A copy for each segment costs a microsecond or two a block.
func fresh[K comparable, V any](m map[K]V) map[K]V {
	out := make(map[K]V, len(m)+len(m)/4)
	for k, v := range m {
		out[k] = v
	}
	return out
}

// dropBelow shortens the held part of the finalised chain from below.
func (b *blocks) dropBelow(base consensus.Height) {
	n := min(base-b.base, consensus.Height(len(b.chain)))
	for h := b.base; h < b.base+n; h++ {
		delete(b.certs, h)
	}
	b.chain, b.base = slices.Delete(b.chain, 0, int(n)), b.base+n
	for epoch, h := range b.ends {
		if h < b.base {
			delete(b.ends, epoch)
		}
	}
}

func (b *blocks) close() error { return b.w.close() }

// readAt reads the record at p through a handle of its own.
func (b *blocks) readAt(p place, withData bool) (rec record, data []byte, err error) {
	f, err := b.open(p.seg)
	if err != nil {
		return rec, nil, err
	}
	if rec, err = f.at(p.off); err == nil && withData {
		data, err = f.data(rec)
	}
	return rec, data, errors.Join(readBack(err, p), f.close())
}

// open opens a segment for a reader. ErrNotFound: it was pruned since it was looked up.
func (b *blocks) open(s *segment) (*file, error) {
	f, err := openSealed(b.o.FS, s.path, kindBlocks, s.number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	return f, err
}

// readBack says what it means that the record at p is not whole.
func readBack(err error, p place) error {
	if errors.Is(err, errFrame) {
		return &CorruptionError{p.seg.path, p.off, "the record cannot be read back"}
	}
	return err
}

// lookup finds a block in the index.
func (l *Log) lookup(hash consensus.Hash) (held, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	at, ok := l.blocks.index[hash]
	if !ok {
		return held{}, ErrNotFound
	}
	return at, nil
}

// Has reports whether the block is held.
func (l *Log) Has(hash consensus.Hash) bool {
	_, err := l.lookup(hash)
	return err == nil
}

// Header reads a block's header. Errors: ErrNotFound, *CorruptionError.
func (l *Log) Header(hash consensus.Hash) (*consensus.Header, error) {
	at, err := l.lookup(hash)
	if err != nil {
		return nil, err
	}
	rec, _, err := l.blocks.readAt(at.place, false)
	if err != nil {
		return nil, err
	}
	return consensus.DecodeHeader(rec.meta)
}

// Block reads a block. Errors: ErrNotFound, *CorruptionError.
func (l *Log) Block(hash consensus.Hash) (consensus.Block, error) {
	at, err := l.lookup(hash)
	if err != nil {
		return consensus.Block{}, err
	}
	rec, body, err := l.blocks.readAt(at.place, true)
	if err != nil {
		return consensus.Block{}, err
	}
	h, err := consensus.DecodeHeader(rec.meta)
	if err != nil {
		return consensus.Block{}, err
	}
	return consensus.Block{Header: h, Body: body}, nil
}

// Headers reads headers of a chain downwards, from the block of that hash to its ancestors: at most most of them, and no
// more than mostBytes of encoding after the first. It ends early where an ancestor is not held. Errors: ErrNotFound when
// not even the first is held, *CorruptionError.
func (l *Log) Headers(hash consensus.Hash, most, mostBytes int) ([]*consensus.Header, error) {
	r := headerReader{l: l}
	out, err := r.descend(hash, most, mostBytes)
	if err = errors.Join(err, r.close()); err != nil {
		return nil, err
	}
	return out, nil
}

// headerReader reads headers and keeps the segment open that it read last.
type headerReader struct {
	l   *Log
	f   *file
	seg *segment // f's
}

func (r *headerReader) close() error {
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f, r.seg = nil, nil
	return f.close()
}

func (r *headerReader) descend(hash consensus.Hash, most, mostBytes int) (out []*consensus.Header, err error) {
	for len(out) < most {
		rec, err := r.record(hash)
		if errors.Is(err, ErrNotFound) && len(out) > 0 {
			break
		} else if err != nil {
			return nil, err
		}
		if mostBytes -= len(rec.meta); mostBytes < 0 && len(out) > 0 {
			break
		}
		h, err := consensus.DecodeHeader(rec.meta)
		if err != nil {
			return nil, err
		}
		out, hash = append(out, h), h.Parent
	}
	return out, nil
}

// record reads a block's record without its body.
func (r *headerReader) record(hash consensus.Hash) (record, error) {
	at, err := r.l.lookup(hash)
	if err != nil {
		return record{}, err
	}
	if r.seg != at.seg || at.off >= r.f.size { // the last segment may have grown since it was opened
		if err := r.close(); err != nil {
			return record{}, err
		}
		if r.f, err = r.l.blocks.open(at.seg); err != nil {
			return record{}, err
		}
		r.seg = at.seg
	}
	rec, err := r.f.at(at.off)
	return rec, readBack(err, at.place)
}

// Final is the highest block that the log knows to be final; height 0 and a zero hash while there is none.
func (l *Log) Final() (consensus.Height, consensus.Hash) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.blocks.final()
}

// Base is the lowest height from which on every final block is held; 0 while nothing is final.
func (l *Log) Base() consensus.Height {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.blocks.base
}

// FinalAt is the finalised block at a height, if it is held.
func (l *Log) FinalAt(h consensus.Height) (consensus.Hash, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.blocks.finalAt(h)
}

// Finalization reads the lowest finalization at or above a height: it makes the block at its own height final, and so
// everything below. If that is the last block of its epoch, it may be of an echo (EpochEnd). Errors: ErrNotFound when there
// is none, *CorruptionError.
func (l *Log) Finalization(from consensus.Height) (consensus.Height, *consensus.Certificate, error) {
	at, err := l.nextCert(from)
	if err != nil {
		return 0, nil, err
	}
	rec, _, err := l.blocks.readAt(at, false)
	if err != nil {
		return 0, nil, err
	}
	return decodeFinal(rec.meta)
}

func (l *Log) nextCert(from consensus.Height) (place, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	tip, _ := l.blocks.final()
	for h := max(from, l.blocks.base); h <= tip; h++ {
		if at, ok := l.blocks.certs[h]; ok {
			return at, nil
		}
	}
	return place{}, ErrNotFound
}

// EpochEnd reads what proves that an epoch is over: its last block, which is final here, the echoes above it, and the
// finalization. Errors: ErrNotFound while the epoch's end is not final, or if it was pruned; *CorruptionError.
func (l *Log) EpochEnd(epoch consensus.Epoch) (*consensus.EpochEnd, error) {
	l.mu.RLock()
	height, ok := l.blocks.ends[epoch]
	hash, held := l.blocks.finalAt(height)
	at, proven := l.blocks.certs[height]
	l.mu.RUnlock()
	if !ok || !held || !proven {
		return nil, ErrNotFound
	}
	rec, _, err := l.blocks.readAt(at, false)
	if err != nil {
		return nil, err
	}
	_, cert, err := decodeFinal(rec.meta)
	if err != nil {
		return nil, err
	}
	e := &consensus.EpochEnd{Cert: *cert}
	r := headerReader{l: l}
	for name := cert.Block; ; name = e.Echoes[len(e.Echoes)-1].Parent {
		one, err := r.descend(name, 1, consensus.MaxHeaderBytes)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		if name == hash {
			e.Last = one[0]
			break
		}
		e.Echoes = append(e.Echoes, one[0])
	}
	slices.Reverse(e.Echoes)
	return e, r.close()
}

// NextEnd is the height and epoch of the lowest last block of an epoch at or above a height, as EndOf knows them.
func (l *Log) NextEnd(from consensus.Height) (at consensus.Height, epoch consensus.Epoch, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for e, h := range l.blocks.ends {
		if h >= from && (!ok || h < at) {
			at, epoch, ok = h, e, true
		}
	}
	return at, epoch, ok
}

// EndOf is the height of the last block of an epoch, if that is final here and held.
func (l *Log) EndOf(epoch consensus.Epoch) (consensus.Height, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	h, ok := l.blocks.ends[epoch]
	return h, ok
}

// Undecided lists the held blocks above the final height, lowest first: what a restart may have to judge again. Echoes and
// others that a final last block of their epoch has left behind are none of them.
func (l *Log) Undecided() []consensus.Hash {
	l.mu.RLock()
	defer l.mu.RUnlock()
	tip, name := l.blocks.final()
	last := l.blocks.index[name]
	var out []consensus.Hash
	for hash, at := range l.blocks.index {
		over := at.epoch < last.epoch || last.ends && at.epoch == last.epoch
		if at.height > tip && !over {
			out = append(out, hash)
		}
	}
	slices.SortFunc(out, func(x, y consensus.Hash) int {
		return cmp.Or(cmp.Compare(l.blocks.index[x].height, l.blocks.index[y].height), slices.Compare(x[:], y[:]))
	})
	return out
}

// Stats describes the folder's size.
type Stats struct {
	Segments int
	Blocks   int
	Base     consensus.Height // as Base
	Final    consensus.Height // as Final
}

// Stats is a snapshot.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	tip, _ := l.blocks.final()
	return Stats{Segments: len(l.blocks.segs), Blocks: len(l.blocks.index), Base: l.blocks.base, Final: tip}
}
