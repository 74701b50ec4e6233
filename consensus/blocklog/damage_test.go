package blocklog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// rewrite changes a file's bytes.
func rewrite(tb testing.TB, fs vfs.FS, path string, change func([]byte) []byte) {
	tb.Helper()
	f, err := fs.Open(path)
	must(tb, err)
	info, err := f.Stat()
	must(tb, err)
	b := make([]byte, info.Size())
	_, err = f.ReadAt(b, 0)
	must(tb, errors.Join(err, f.Close()))
	must(tb, writeFile(fs, path, change(b)))
}

// twoSegments makes a folder with blocks 1..6 in a complete segment and 7..9 in the last, each synced, and gives the
// offsets of the records in the two files.
func twoSegments(tb testing.TB) (vfs.FS, []consensus.Block, [2][]int64) {
	fs := newFS(tb)
	l := mustOpen(tb, options(fs))
	chain := makeChain(9, 400)
	for _, b := range chain {
		must(tb, l.AppendBlock(b))
		must(tb, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, b.Header.View)}))
		must(tb, l.Sync())
	}
	var offs [2][]int64
	for _, b := range chain {
		at, err := l.lookup(b.Header.Hash())
		must(tb, err)
		offs[at.seg.number-1] = append(offs[at.seg.number-1], at.off)
	}
	must(tb, l.Close())
	if len(offs[0]) < 4 || len(offs[1]) < 3 {
		tb.Fatalf("%d blocks in the first segment, %d in the second", len(offs[0]), len(offs[1]))
	}
	return fs, chain, offs
}

func TestDamage(t *testing.T) {
	_, _, offs := twoSegments(t)
	first, last := "home/log/"+segmentName(1), "home/log/"+segmentName(2)
	flip := func(at int64) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x10; return b }
	}
	tail := offs[1][len(offs[1])-1]
	for _, tc := range []struct {
		name   string
		path   string
		change func([]byte) []byte
		at     int64 // offset that the error must name
	}{
		{"file head of a complete segment", first, flip(9), 0},
		{"file head of the last segment", last, flip(25), 0},
		{"record head in a complete segment", first, flip(offs[0][2] + 20), offs[0][2]},
		{"header in a complete segment", first, flip(offs[0][2] + recordHeadBytes + 3), offs[0][2]},
		{"last record head in a complete segment", first, flip(offs[0][len(offs[0])-1] + 1), offs[0][len(offs[0])-1]},
		{"complete segment cut short", first, func(b []byte) []byte { return b[:len(b)-1] }, offs[0][len(offs[0])-1]},
		{"bytes after a complete segment", first, func(b []byte) []byte { return append(b, 0) }, -1},
		{"record head in the last segment, others after it", last, flip(offs[1][0] + 5), offs[1][0]},
		{"body in the last segment, others after it", last, flip(offs[1][1] + 600), offs[1][1]},
		{"length in the last segment, others after it", last, flip(offs[1][0] + 14), offs[1][0]},
		{"vote with others after it", "home/log/" + votesName, flip(segmentHeadBytes + recordHeadBytes + 8), segmentHeadBytes},
		{"vote log's head", "home/log/" + votesName, flip(0), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, _, _ := twoSegments(t)
			rewrite(t, fs, tc.path, tc.change)
			_, err := Open(options(fs))
			c := (*CorruptionError)(nil)
			if !errors.As(err, &c) || c.Path != tc.path || tc.at >= 0 && c.Offset != tc.at || c.Remedy() == "" {
				t.Fatalf("got %v, want damage of %s at %d", err, tc.path, tc.at)
			}
			if _, again := Open(options(fs)); again == nil || again.Error() != err.Error() { // nothing was changed, the lock is free
				t.Errorf("second open: %v", again)
			}
		})
	}

	t.Run("body in a complete segment is found when it is read", func(t *testing.T) {
		fs, chain, offs := twoSegments(t)
		rewrite(t, fs, first, flip(offs[0][1]+600))
		l := mustOpen(t, options(fs))
		defer l.Close()
		_, err := l.Block(chain[1].Header.Hash())
		if c := (*CorruptionError)(nil); !errors.As(err, &c) || c.Offset != offs[0][1] {
			t.Errorf("got %v", err)
		}
		sameBlock(t, l, chain[0])
	})

	t.Run("torn tails at every length are cut", func(t *testing.T) {
		for cut := int64(1); cut < 620; cut += 7 {
			fs, chain, _ := twoSegments(t)
			rewrite(t, fs, last, func(b []byte) []byte { return b[:tail+cut] })
			l := mustOpen(t, options(fs))
			if n := len(chain) - 1; l.Stats().Blocks != n {
				t.Fatalf("%d blocks after a cut at %d", l.Stats().Blocks, cut)
			}
			must(t, l.AppendBlock(chain[8]))
			must(t, l.Sync())
			must(t, l.Close())
			l = mustOpen(t, options(fs))
			sameBlock(t, l, chain[8])
			must(t, l.Close())
		}
	})

	t.Run("unsynced records after a hole are a torn tail", func(t *testing.T) {
		fs, chain, _ := twoSegments(t)
		l := mustOpen(t, options(fs))
		var offs []int64
		for _, b := range makeChain(3, 30) {
			b.Header.Outcomes[0] = 9
			must(t, l.AppendBlock(b))
			at, err := l.lookup(b.Header.Hash())
			must(t, err)
			offs = append(offs, at.off)
		}
		must(t, l.Close()) // without Sync
		rewrite(t, fs, last, flip(offs[0]+40))
		l = mustOpen(t, options(fs))
		defer l.Close()
		if l.Stats().Blocks != len(chain) {
			t.Errorf("%d blocks, want the %d synced ones", l.Stats().Blocks, len(chain))
		}
	})
}

// TestForgedRecordInBody: a body that contains what looks like a record does not turn a torn tail into damage.
func TestForgedRecordInBody(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	chain := makeChain(2, 100)
	must(t, l.AppendBlock(chain[0]))
	must(t, l.Sync())
	b := makeBlock(2, chain[0].Header.Hash(), 0, 0)
	body := l.blocks.w.size + recordHeadBytes + int64(len(b.Header.Append(nil))) // where the body will stand
	for range 100 {                                                              // all that an author can know: everything but the file's salt
		at := body + int64(len(b.Body))
		b.Body = appendRecord(b.Body, identity{number: 1}, at, at, recordBlock, []byte("meta"), nil)
	}
	b.Header.Body = consensus.NewBodyRef(b.Body)
	must(t, l.AppendBlock(b))
	must(t, l.Close())
	rewrite(t, fs, "home/log/"+segmentName(1), func(all []byte) []byte { return all[:len(all)-3] })
	l = mustOpen(t, options(fs))
	defer l.Close()
	if s := l.Stats(); s.Blocks != 1 {
		t.Errorf("%d blocks", s.Blocks)
	}
}

// TestRetention: whatever the sizes, forks and finalization gaps, everything at or above final-Retention stays, and the
// number of segments stays bounded.
func TestRetention(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fs := newFS(t)
		o := options(fs)
		o.SegmentBytes = int64(rapid.IntRange(600, 6000).Draw(rt, "segment"))
		l := mustOpen(t, o)
		defer func() { l.Close() }()
		parent, floor := genesis, consensus.Height(0)
		var blocks []consensus.Block // forks too
		for h := consensus.Height(1); h <= MinRetention+20; h++ {
			b := makeBlock(h, parent, rapid.IntRange(0, 300).Draw(rt, "body"), 0)
			if rapid.IntRange(0, 9).Draw(rt, "fork") == 0 {
				f := makeBlock(h, parent, 10, 1)
				must(t, l.AppendBlock(f))
				blocks = append(blocks, f)
			}
			must(t, l.AppendBlock(b))
			blocks = append(blocks, b)
			parent = b.Header.Hash()
			if rapid.IntRange(0, 3).Draw(rt, "final") == 0 {
				must(t, l.AppendFinal(finalization(b)))
				if h > o.Retention {
					floor = h - o.Retention
				}
			}
			must(t, l.Sync())
			if rapid.IntRange(0, 29).Draw(rt, "reopen") == 0 {
				must(t, l.Close())
				l = mustOpen(t, o)
			}
			if h%4 != 0 {
				continue
			}
			low := h
			for _, b := range blocks {
				if has := l.Has(b.Header.Hash()); has {
					low = min(low, b.Header.Height)
				} else if b.Header.Height >= floor {
					rt.Fatalf("block %d was dropped, final-Retention is %d", b.Header.Height, floor)
				}
			}
			final, _ := l.Final()
			if base := l.Base(); final > 0 && base > max(floor, 1) {
				rt.Fatalf("finalised chain begins at %d, must reach down to %d", base, floor)
			}
			if limit := int((h-low+2)*2*700/consensus.Height(o.SegmentBytes)) + 3; l.Stats().Segments > limit {
				rt.Fatalf("%d segments for heights %d..%d, limit %d", l.Stats().Segments, low, h, limit)
			}
		}
		if l.Base() > floor+40 {
			rt.Fatalf("base %d for a floor of %d", l.Base(), floor)
		}
	})
}

// TestSmallBlocks: blocks far smaller than a segment are dropped in time all the same, or never with Forever.
func TestSmallBlocks(t *testing.T) {
	for _, retention := range []consensus.Height{MinRetention, Forever} {
		t.Run(fmt.Sprint(uint64(retention)), func(t *testing.T) {
			o := options(newFS(t))
			o.Retention, o.SegmentBytes = retention, 64<<20
			l := mustOpen(t, o)
			defer l.Close()
			const n = 5000
			chain := makeChain(n, 1)
			for i, b := range chain {
				must(t, l.AppendBlock(b))
				must(t, l.AppendFinal(finalization(b)))
				if i%16 == 0 || i == n-1 {
					must(t, l.Sync())
				}
			}
			if s := l.Stats(); retention == Forever && (s.Blocks != n || s.Base != 1) {
				t.Errorf("an archive dropped blocks: %+v", s)
			} else if most := int(MinRetention) + 2*o.segmentBlocks(); retention != Forever && s.Blocks > most {
				t.Errorf("%d small blocks are held, at most %d should be", s.Blocks, most)
			}
			sameBlock(t, l, chain[n-int(MinRetention)])
		})
	}
}

// TestNeeded states what a rewrite of the vote log may forget.
func TestNeeded(t *testing.T) {
	cert := func(k consensus.Kind, e consensus.Epoch, v consensus.View) simplex.Record {
		c := &consensus.Certificate{Statement: consensus.Statement{Kind: k, Epoch: e, View: v}, Signers: consensus.Signers{7}}
		if k != consensus.Nullify {
			c.Block = consensus.Hash{byte(v), 1}
		}
		return simplex.Record{Cert: c}
	}
	vote := func(k consensus.Kind, e consensus.Epoch, v consensus.View) simplex.Record {
		r := simplex.Record{Vote: ownVote(k, v)}
		r.Vote.Epoch = e
		return r
	}
	floor := func(e consensus.Epoch, v consensus.View) simplex.Record {
		return simplex.Record{Floor: &simplex.Floor{Epoch: e, View: v}}
	}
	const n, u, f = consensus.Notarize, consensus.Nullify, consensus.Finalize
	for _, tc := range []struct {
		name     string
		all      []simplex.Record
		keptWant []int // indexes into all
	}{
		{"nothing final", []simplex.Record{vote(n, 0, 1), cert(n, 0, 1), vote(u, 0, 2), cert(u, 0, 2)}, []int{0, 1, 2, 3}},
		{"below the finalization", []simplex.Record{vote(n, 0, 1), cert(n, 0, 1), vote(f, 0, 1), cert(f, 0, 1), cert(f, 0, 2), vote(n, 0, 3), cert(n, 0, 3)}, []int{2, 4, 5, 6}},
		{"own highest votes stay", []simplex.Record{vote(n, 0, 4), vote(u, 0, 5), vote(f, 0, 3), cert(f, 0, 9)}, []int{0, 1, 2, 3}},
		{"epochs come before views", []simplex.Record{vote(n, 1, 900), cert(f, 1, 900), vote(n, 2, 1), cert(f, 2, 1), vote(u, 2, 2)}, []int{2, 3, 4}},
		{"the highest floor", []simplex.Record{cert(n, 0, 3), floor(0, 5), floor(0, 9), floor(0, 7), floor(0, 9), vote(n, 0, 10)}, []int{0, 2, 5}},
		{"a floor above the finalization", []simplex.Record{floor(0, 9), cert(f, 0, 8), vote(n, 0, 10)}, []int{0, 1, 2}},
		{"a floor that a finalization stands in for", []simplex.Record{floor(0, 9), cert(f, 0, 9), vote(n, 0, 10)}, []int{1, 2}},
		{"a floor of an earlier epoch", []simplex.Record{floor(1, 900), cert(f, 2, 1), vote(n, 2, 2)}, []int{1, 2}},
		{"repetitions", []simplex.Record{cert(n, 0, 1), cert(n, 0, 1), vote(n, 0, 1), vote(n, 0, 1)}, []int{0, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want []simplex.Record
			for _, i := range tc.keptWant {
				want = append(want, tc.all[i])
			}
			got := needed(tc.all)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("kept:\n%s", d)
			}
			if d := cmp.Diff(got, needed(got)); d != "" {
				t.Errorf("not stable:\n%s", d)
			}
		})
	}
}

// TestVoteLogBounded: a long life in good health does not grow the file.
func TestVoteLogBounded(t *testing.T) {
	o := options(newFS(t))
	o.VoteLogBytes = 4 << 10
	l := mustOpen(t, o)
	defer l.Close()
	for v := consensus.View(1); v < 400; v++ {
		c := &consensus.Certificate{Statement: consensus.Statement{Kind: consensus.Finalize, View: v, Block: consensus.Hash{1}}, Signers: consensus.Signers{7}}
		must(t, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, v)}))
		must(t, l.AppendRecord(simplex.Record{Cert: c}))
		must(t, l.Sync())
		if l.votes.w.size > 6<<10 {
			t.Fatalf("vote log of %d bytes at view %d", l.votes.w.size, v)
		}
	}
}

// FuzzSegment opens arbitrary bytes as the records of the last segment: an error, or a log that opens to the same again.
func FuzzSegment(f *testing.F) {
	id := identity{number: 1, salt: 7}
	var seed []byte
	for _, b := range makeChain(3, 20) {
		off := int64(segmentHeadBytes + len(seed))
		seed = appendRecord(seed, id, off, off, recordBlock, b.Header.Append(nil), b.Body)
	}
	meta := finalization(makeChain(3, 20)[2]).Append([]byte{0, 0, 0, 0, 0, 0, 0, 3})
	seed = appendRecord(seed, id, int64(segmentHeadBytes+len(seed)), 0, recordFinal, meta, nil)
	f.Add(seed)
	f.Add(seed[:len(seed)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, records []byte) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("home/log", 0o755))
		must(t, writeFile(fs, "home/log/"+segmentName(1), append(fileHead(kindBlocks, FormatVersion, id), records...)))
		b, err := openBlocks(options(fs))
		if err != nil {
			if c := (*CorruptionError)(nil); !errors.As(err, &c) {
				t.Fatalf("not a *CorruptionError: %v", err)
			}
			return
		}
		for hash, at := range b.index {
			if _, _, err := b.readAt(at.place, true); err != nil {
				t.Fatalf("indexed block %s cannot be read: %v", hash.Short(), err)
			}
		}
		must(t, b.close())
		again, err := openBlocks(options(fs))
		must(t, err)
		if len(again.index) != len(b.index) || again.base != b.base || !slices.Equal(again.chain, b.chain) {
			t.Fatal("opens differently again")
		}
		must(t, again.close())
	})
}

// FuzzVotes does the same for the vote log.
func FuzzVotes(f *testing.F) {
	id := identity{number: 4, salt: 7}
	var seed []byte
	for v := range consensus.View(3) {
		_, meta, err := encodeRecord(simplex.Record{Vote: ownVote(consensus.Notarize, v+1)})
		must(f, err)
		off := int64(segmentHeadBytes + len(seed))
		seed = appendRecord(seed, id, off, off, recordVote, meta, nil)
	}
	f.Add(seed)
	floor := appendFloor(nil, simplex.Floor{Shard: 3, Epoch: 1, View: 9})
	f.Add(appendRecord(seed, id, int64(segmentHeadBytes+len(seed)), 0, recordFloor, floor, nil))
	f.Add(seed[:len(seed)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, records []byte) {
		fs := vfs.NewMem()
		must(t, fs.MkdirAll("home/log", 0o755))
		must(t, writeFile(fs, "home/log/"+votesName, append(fileHead(kindVotes, floorVersion, id), records...)))
		v, first, err := openVotes(options(fs))
		if err != nil {
			if c := (*CorruptionError)(nil); !errors.As(err, &c) {
				t.Fatalf("not a *CorruptionError: %v", err)
			}
			return
		}
		must(t, v.close())
		v, again, err := openVotes(options(fs))
		must(t, err)
		if d := cmp.Diff(first, again); d != "" {
			t.Fatalf("opens differently again:\n%s", d)
		}
		must(t, v.close())
	})
}

// FuzzFileHead: a head decodes to what encodes to it, or is refused.
func FuzzFileHead(f *testing.F) {
	f.Add(fileHead(kindBlocks, FormatVersion, identity{1, 2}))
	f.Add(fileHead(kindVotes, floorVersion, identity{1, 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := parseFileHead(b, kindBlocks, 0)
		if err == nil && string(fileHead(kindBlocks, FormatVersion, id)) != string(b[:segmentHeadBytes]) {
			t.Fatal("decodes but encodes differently")
		}
		id, err = parseFileHead(b, kindVotes, 0)
		if err == nil && string(fileHead(kindVotes, b[9], id)) != string(b[:segmentHeadBytes]) {
			t.Fatal("decodes but encodes differently")
		}
	})
}
