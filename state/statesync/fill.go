package statesync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tutti/state/ledger"
	"tutti/state/tx"
)

// Differences are fetched while chunks are, every diffsBehind blocks, so that it does not matter how long peers keep them
// and how long the chunks take; and at the end until they are nearTip blocks behind the chain.
const (
	diffsBehind = 64
	nearTip     = 8
	brokenWords = 3 // times that a peer may not keep the differences that it said it keeps
)

// fillWork is chunks, differences, and the directory of BLS keys. Owned by the crew's goroutine.
type fillWork struct {
	c      *Client
	r      *ledger.Restore
	least  uint64            // height of the outline: older chunks are of no use
	opened map[uint16]uint32 // by partition: accounts ever opened, by the outline
	step   Step

	chunks    []ledger.ChunkID // to be asked for
	chunksOut int
	keys      []ledger.KeySpan // the same
	keysOut   int
	tops      topsWork
	diffs     diffsWork
	moved     time.Time // when the tip was last seen to move
	tip       uint64
}

// topsWork is the tops of the directory's segments, which come from one peer, in pieces.
type topsWork struct {
	total uint64 // 0: none are missing
	from  Peer   // of the pieces that are here
	got   []tx.Hash
	out   bool
}

// diffsWork is the differences, one request at a time.
type diffsWork struct {
	next     uint64 // height of the next one
	out      bool
	mean     float64         // bytes of one
	refused  map[Peer]uint64 // who does not keep the next one, and from which height on it says it keeps them
	promised map[Peer]uint64 // the last such word of each
	broken   map[Peer]int    // how often it was not true
}

// fill fetches all that is missing, and returns a height at which the ledger can be finished.
func (c *Client) fill(ctx context.Context) (uint64, error) {
	w, err := newFillWork(c)
	if err != nil {
		return 0, err
	}
	c.begin(w.step)
	if err := c.crew.do(ctx, w); err != nil {
		return 0, err
	}
	return w.diffs.next - 1, nil
}

func newFillWork(c *Client) (*fillWork, error) {
	r := c.o.Restore
	meta := r.Outline()
	w := &fillWork{
		c: c, r: r, least: meta.Height, opened: map[uint16]uint32{}, step: Chunks, moved: time.Now(),
		chunks: r.Missing(), keys: r.MissingKeys(), tops: topsWork{total: r.MissingTops()},
		diffs: diffsWork{refused: map[Peer]uint64{}, promised: map[Peer]uint64{}, broken: map[Peer]int{}},
	}
	lowest, _ := r.Lowest()
	w.diffs.next = max(lowest, 1) // the genesis block has none
	if _, last, ok := r.Differences(); ok {
		w.diffs.next = last + 1
	}
	for i, p := range c.o.Partitions {
		w.opened[p] = meta.Next[i]
	}
	c.meter.set(func(p *Progress) {
		p.Accounts, p.TotalAccounts = 0, 0
		for _, n := range meta.Next {
			p.TotalAccounts += uint64(n)
		}
		p.Accounts = p.TotalAccounts
		for _, id := range w.chunks {
			p.Accounts -= min(p.Accounts, w.accounts(id))
		}
		keys := meta.Directory.Count()
		p.TotalBytes = p.TotalAccounts*ledger.RecordBytes + keys*keyBytes
		for _, k := range w.keys {
			keys -= min(keys, uint64(k.Count))
		}
		p.Bytes = p.Accounts*ledger.RecordBytes + keys*keyBytes
	})
	return w, nil
}

// accounts are how many a chunk has by the outline.
func (w *fillWork) accounts(id ledger.ChunkID) uint64 {
	n, first := w.opened[id.Partition], id.Index*ledger.ChunkAccounts
	return uint64(min(n-min(n, first), ledger.ChunkAccounts))
}

// known is the highest height whose difference can be checked.
func (w *fillWork) known() uint64 {
	tip := w.c.trust.tip.Load()
	return tip - min(tip, ledger.StateLag)
}

// bulk reports whether nothing but differences is missing.
func (w *fillWork) bulk() bool {
	return len(w.chunks)+w.chunksOut+len(w.keys)+w.keysOut == 0 && w.tops.total == 0
}

func (w *fillWork) next(p Peer, batch int) *job {
	if j := w.nextDiffs(p); j != nil {
		return j
	}
	if j := w.nextChunks(batch); j != nil {
		return j
	}
	if j := w.nextTops(p); j != nil {
		return j
	}
	return w.nextKeys(batch)
}

func (w *fillWork) ended(p Peer, j *job, err error) error {
	switch j.request.typ {
	case typeChunks:
		w.chunksOut -= len(j.request.chunks)
		w.chunks = append(w.chunks, j.left...)
		return err
	case typeDifferences:
		return w.endedDiffs(p, j, err)
	case typeTops:
		return w.endedTops(p, j, err)
	}
	w.keysOut -= len(j.spans)
	w.keys = append(w.keys, j.spans[j.kept:]...)
	return err
}

func (w *fillWork) done() (bool, error) {
	if kept, all := w.tooOld(); all {
		return false, &errTooOld{kept}
	}
	now := time.Now()
	if tip := w.c.trust.tip.Load(); tip != w.tip {
		w.tip, w.moved = tip, now
	}
	if !w.bulk() {
		return false, nil
	}
	if w.step != Differences {
		w.step = Differences
		w.c.begin(w.step)
	}
	highest, _ := w.r.Highest()
	known := w.known()
	if w.diffs.next > max(highest, 1) && w.diffs.next+nearTip > known && !w.diffs.out {
		return true, nil
	}
	if w.diffs.next > known { // the peers can't help: the chain has just begun
		w.c.crew.good = now
		if now.Sub(w.moved) > w.c.o.Patience {
			return false, fmt.Errorf("statesync: %w: the chain has had no new final block for %v; it needs three in all", ErrNobody, w.c.o.Patience)
		}
	}
	return false, nil
}

func (w *fillWork) nextChunks(batch int) *job {
	if len(w.chunks) == 0 {
		return nil
	}
	n := min(batch, len(w.chunks))
	ids := slices.Clone(w.chunks[:n])
	w.chunks = w.chunks[n:]
	w.chunksOut += n
	slices.SortFunc(ids, func(a, b ledger.ChunkID) int {
		if before(a, b) {
			return -1
		}
		return 1
	})
	j := &job{request: request{typ: typeChunks, chunks: ids}, left: ids}
	for _, id := range ids {
		j.bytes += int(w.accounts(id)) * ledger.RecordBytes
	}
	j.take = func(ctx context.Context, parts [][]byte) error { return w.takeChunks(ctx, j, parts) }
	return j
}

// takeChunks keeps the chunks that are right. Those that are not there afterwards are in j.left.
func (w *fillWork) takeChunks(ctx context.Context, j *job, parts [][]byte) error {
	ids := j.request.chunks
	var cs []*ledger.Chunk
	var wrong error // with the part that comes after cs
	roots := map[uint64]tx.Hash{}
	for i := 0; i < len(parts) && wrong == nil; i++ {
		var c *ledger.Chunk
		if c, wrong = w.readChunk(ctx, ids[i], parts[i], roots); wrong == nil {
			cs = append(cs, c)
		}
	}
	bad := map[int]bool{}
	if len(cs) > 0 {
		err := w.r.PutChunks(cs, func(height uint64) (tx.Hash, bool) { root, ok := roots[height]; return root, ok })
		for _, b := range ledger.BadParts(err) {
			bad[b.Index] = true
		}
		if err != nil && len(bad) == 0 {
			return &fatalError{err}
		}
		wrong = errors.Join(err, wrong)
	}
	j.left = slices.Clone(ids[len(cs):])
	accounts := uint64(0)
	for i, c := range cs {
		if bad[i] {
			j.left = append(j.left, c.ChunkID)
		} else {
			accounts += w.accounts(c.ChunkID)
		}
	}
	w.c.meter.chunks(accounts)
	return wrong
}

// readChunk decodes a chunk and sees to it that the root it is checked by is among roots.
func (w *fillWork) readChunk(ctx context.Context, id ledger.ChunkID, b []byte, roots map[uint64]tx.Hash) (*ledger.Chunk, error) {
	name := fmt.Sprintf("chunk %d of partition %d", id.Index, id.Partition)
	c, err := ledger.DecodeChunk(b)
	switch {
	case err != nil:
		return nil, &ledger.BadPart{Part: name, Err: err}
	case c.ChunkID != id:
		return nil, &ledger.BadPart{Part: name, Err: fmt.Errorf("it is chunk %d of partition %d", c.Index, c.Partition)}
	case c.Height < w.least && w.least-c.Height > maxAhead: // the headers down to it are not worth fetching
		return nil, &behind{c.Height, w.least}
	}
	if _, ok := roots[c.Height]; !ok {
		root, err := w.c.trust.root(ctx, c.Height)
		if err != nil {
			return nil, aboveIsBad(fmt.Sprintf("%s, of height %d", name, c.Height), err)
		}
		roots[c.Height] = root
	}
	if c.Height < w.least { // of no use, but it may tell who lies
		if err := c.Verify(roots[c.Height]); err != nil {
			return nil, verdict(err)
		}
		return nil, &behind{c.Height, w.least}
	}
	return c, nil
}

func (w *fillWork) nextDiffs(p Peer) *job {
	d := &w.diffs
	known := w.known()
	if _, no := d.refused[p]; no || d.out || d.next > known || !w.bulk() && known-d.next < diffsBehind {
		return nil
	}
	d.out = true
	j := &job{request: request{typ: typeDifferences, from: d.next, most: MaxDifferenceBytes}, upTo: known}
	j.bytes = int(min(max(d.mean, 16<<10)*float64(known-d.next+1), MaxDifferenceBytes))
	j.take = func(ctx context.Context, parts [][]byte) error { return w.takeDiffs(ctx, j, parts) }
	return j
}

// takeDiffs keeps differences. j.kept is their number afterwards.
func (w *fillWork) takeDiffs(ctx context.Context, j *job, parts [][]byte) error {
	from := j.request.from
	parts = parts[:min(uint64(len(parts)), j.upTo-from+1)] // what is above can't be checked yet
	headers, err := w.c.trust.between(ctx, from, from+uint64(len(parts)-1)+ledger.StateLag)
	if err != nil {
		return err
	}
	ds := make([]ledger.Difference, 0, len(parts))
	var wrong error
	for i, b := range parts {
		name := fmt.Sprintf("the difference of block %d", from+uint64(i))
		d, err := ledger.DecodeDifference(b)
		if err == nil && d.Height != from+uint64(i) {
			err = fmt.Errorf("it is that of block %d", d.Height)
		}
		if err != nil {
			wrong = &ledger.BadPart{Part: name, Err: err}
			break
		}
		ds = append(ds, d)
		j.sizes += uint64(len(b))
	}
	if len(ds) > 0 {
		err := verdict(w.r.PutDifferences(ds, func(height uint64) (ledger.Trusted, bool) { h, ok := headers[height]; return h, ok }))
		wrong = errors.Join(err, wrong)
	}
	if _, last, ok := w.r.Differences(); ok && last >= from {
		j.kept = int(last - from + 1)
	}
	if wrong == nil && j.kept == 0 {
		wrong = &fatalError{fmt.Errorf("statesync: differences from %d on were taken and are not there", from)}
	}
	return wrong
}

func (w *fillWork) endedDiffs(p Peer, j *job, err error) error {
	d := &w.diffs
	d.out = false
	if j.kept > 0 {
		d.next = j.request.from + uint64(j.kept)
		clear(d.refused)
		if err == nil {
			d.mean = float64(j.sizes) / float64(j.kept)
		}
		rest := w.known() - min(w.known(), d.next-1)
		w.c.meter.differences(j.sizes, d.next-1, uint64(d.mean*float64(rest)))
	}
	var no refusal
	if !errors.As(err, &no) || no.why != notKept {
		return err
	}
	lie := func(format string, args ...any) error {
		return &ledger.BadPart{Part: "the word on differences kept", Err: fmt.Errorf(format, args...)}
	}
	if no.kept <= j.request.from {
		return lie("those from %d on are said to be kept, and that of %d is refused", no.kept, j.request.from)
	}
	if said, ok := d.promised[p]; ok && said <= j.request.from {
		if d.broken[p]++; d.broken[p] >= brokenWords {
			return lie("those from %d on were said to be kept, and that of %d is refused", said, j.request.from)
		}
	}
	d.refused[p], d.promised[p] = no.kept, no.kept
	return err
}

// tooOld reports whether everybody who answers says that the next difference is not kept any more, and the lowest height
// from which on somebody says it keeps them.
func (w *fillWork) tooOld() (kept uint64, all bool) {
	for p, k := range w.diffs.refused {
		if m := w.c.crew.members[p]; m != nil && m.Dropped != "" {
			continue
		}
		if !all || k < kept {
			kept, all = k, true
		}
	}
	for _, p := range w.c.o.Network.Peers() {
		m := w.c.crew.members[p]
		if _, no := w.diffs.refused[p]; !no && m != nil && m.Dropped == "" && m.answers() {
			return 0, false
		}
	}
	return kept, all
}

func (w *fillWork) nextTops(p Peer) *job {
	t := &w.tops
	if t.total == 0 || t.out {
		return nil
	}
	if m := w.c.crew.members[t.from]; m != nil && t.from != p && m.Dropped == "" && !m.rest.After(time.Now()) {
		return nil
	}
	if t.from != p {
		t.got = nil
	}
	t.out, t.from = true, p
	from := uint64(len(t.got))
	n := min(t.total-from, ledger.MaxTops)
	j := &job{request: request{typ: typeTops, from: from, most: uint32(n)}, bytes: int(n) * topBytes}
	j.take = func(_ context.Context, parts [][]byte) error {
		tops, err := ledger.DecodeTops(parts[0])
		if err != nil {
			return &ledger.BadPart{Part: "tops of key segments", Err: err}
		}
		j.tops = append(slices.Clone(t.got), tops...) // nobody else touches t while this is out
		if uint64(len(j.tops)) == t.total {
			return verdict(w.r.PutTops(j.tops))
		}
		return nil
	}
	return j
}

func (w *fillWork) endedTops(p Peer, j *job, err error) error {
	t := &w.tops
	t.out = false
	switch {
	case err != nil: // from somebody else, from the start
		t.from, t.got = "", nil
	case uint64(len(j.tops)) == t.total:
		t.total = 0
	default:
		t.got = j.tops
	}
	return err
}

// nextKeys asks for segments of the directory that follow each other.
func (w *fillWork) nextKeys(batch int) *job {
	if w.tops.total > 0 || len(w.keys) == 0 {
		return nil
	}
	n := 1
	for n < min(batch, MaxKeys/ledger.SegmentKeys, len(w.keys)) && w.keys[n].From == w.keys[n-1].From+uint64(w.keys[n-1].Count) {
		n++
	}
	j := &job{spans: slices.Clone(w.keys[:n])}
	w.keys = w.keys[n:]
	w.keysOut += n
	count := 0
	for _, k := range j.spans {
		count += k.Count
	}
	j.request = request{typ: typeKeys, from: j.spans[0].From, most: uint32(count)}
	j.bytes = count * keyBytes
	j.take = func(_ context.Context, parts [][]byte) error { return w.takeKeys(j, parts[0]) }
	return j
}

// takeKeys keeps the segments that came whole. j.kept is their number.
func (w *fillWork) takeKeys(j *job, b []byte) error {
	for _, span := range j.spans {
		if len(b) < span.Count*keyBytes {
			break
		}
		keys, err := ledger.DecodeKeys(b[:span.Count*keyBytes])
		if err != nil {
			return &ledger.BadPart{Part: fmt.Sprintf("keys from place %d on", span.From), Err: err}
		}
		if err := verdict(w.r.PutKeys(span.From, keys)); err != nil {
			return err
		}
		w.c.meter.got(uint64(span.Count) * keyBytes)
		b = b[span.Count*keyBytes:]
		j.kept++
	}
	if j.kept == 0 {
		return &behind{0, w.least}
	}
	return nil
}
