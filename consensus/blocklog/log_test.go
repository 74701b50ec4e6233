package blocklog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

var chainID = consensus.Hash{0xc0, 0xff, 0xee}

func options(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "home/log", Chain: chainID, Shard: 3, Create: true, Retention: MinRetention, SegmentBytes: 4 << 10}
}

// newFS is a crashable file system with a durable parent folder.
func newFS(tb testing.TB) *vfs.MemFS {
	tb.Helper()
	fs := vfs.NewCrashableMem()
	must(tb, fs.MkdirAll("home", 0o755))
	must(tb, syncDir(fs, "/"))
	return fs
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func mustOpen(tb testing.TB, o Options) *Log {
	tb.Helper()
	l, err := Open(o)
	must(tb, err)
	return l
}

// genesis is the parent of height 1.
var genesis = consensus.Hash{0x99}

// makeBlock makes a block; salt tells forks apart.
func makeBlock(h consensus.Height, parent consensus.Hash, bodyBytes int, salt byte) consensus.Block {
	body := bytes.Repeat([]byte{byte(h), salt}, bodyBytes)[:bodyBytes]
	return consensus.Block{Header: &consensus.Header{
		Version: consensus.HeaderVersion, Chain: chainID, Shard: 3, View: consensus.View(h), Height: h, TimeMs: int64(h),
		Parent: parent, Body: consensus.NewBodyRef(body), Outcomes: consensus.Hash{salt},
	}, Body: body}
}

// makeChain makes n blocks from height 1.
func makeChain(n, bodyBytes int) (out []consensus.Block) {
	parent := genesis
	for h := range consensus.Height(n) {
		b := makeBlock(h+1, parent, bodyBytes, 0)
		out, parent = append(out, b), b.Header.Hash()
	}
	return out
}

func finalization(b consensus.Block) *consensus.Certificate {
	return &consensus.Certificate{
		Statement: consensus.Statement{Kind: consensus.Finalize, Shard: 3, View: b.Header.View, Block: b.Header.Hash()},
		Signers:   consensus.Signers{0x0f}, Signature: consensus.Signature{byte(b.Header.Height)},
	}
}

func ownVote(kind consensus.Kind, v consensus.View) *consensus.Vote {
	st := consensus.Statement{Kind: kind, Shard: 3, View: v}
	if kind != consensus.Nullify {
		st.Block = consensus.Hash{byte(v), 1}
	}
	return &consensus.Vote{Statement: st, Validator: 2}
}

func sameBlock(tb testing.TB, l *Log, want consensus.Block) {
	tb.Helper()
	got, err := l.Block(want.Header.Hash())
	if err != nil {
		tb.Fatalf("block %d: %v", want.Header.Height, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		tb.Fatalf("block %d:\n%s", want.Header.Height, d)
	}
}

func TestRoundTrip(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	chain := makeChain(40, 300) // several segments
	for i, b := range chain {
		must(t, l.AppendBlock(b))
		must(t, l.AppendBlock(b)) // held already
		must(t, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Notarize, consensus.View(i+1))}))
		if i%3 == 2 && i < 36 {
			must(t, l.AppendFinal(finalization(b)))
		}
		must(t, l.Sync())
	}
	fork := makeBlock(37, chain[35].Header.Hash(), 10, 7)
	must(t, l.AppendBlock(fork))
	must(t, l.Sync())

	check := func(l *Log) {
		t.Helper()
		for _, b := range append([]consensus.Block{fork}, chain...) {
			sameBlock(t, l, b)
			if h, err := l.Header(b.Header.Hash()); err != nil || cmp.Diff(b.Header, h) != "" {
				t.Fatalf("header %d: %v", b.Header.Height, err)
			}
		}
		if h, hash := l.Final(); h != 36 || hash != chain[35].Header.Hash() || l.Base() != 1 {
			t.Fatalf("final %d %s, base %d", h, hash.Short(), l.Base())
		}
		for h := consensus.Height(1); h <= 36; h++ {
			if hash, ok := l.FinalAt(h); !ok || hash != chain[h-1].Header.Hash() {
				t.Fatalf("final at %d: %s %v", h, hash.Short(), ok)
			}
			at, cert, err := l.Finalization(h)
			if want := (h + 2) / 3 * 3; err != nil || at != want || cert.Block != chain[want-1].Header.Hash() {
				t.Fatalf("finalization from %d: at %d, %v", h, at, err)
			}
		}
		if _, _, err := l.Finalization(37); !errors.Is(err, ErrNotFound) {
			t.Fatalf("finalization above the tip: %v", err)
		}
		if _, err := l.Block(consensus.Hash{1}); !errors.Is(err, ErrNotFound) {
			t.Fatalf("unknown block: %v", err)
		}
		var undecided []consensus.Height
		for _, hash := range l.Undecided() {
			h, err := l.Header(hash)
			must(t, err)
			undecided = append(undecided, h.Height)
		}
		if d := cmp.Diff([]consensus.Height{37, 37, 38, 39, 40}, undecided); d != "" {
			t.Fatalf("undecided:\n%s", d)
		}
	}
	check(l)
	must(t, l.Close())
	l = mustOpen(t, options(fs))
	check(l)
	if n := len(l.Records()); n != 40 { // nothing final among the records: all votes are kept
		t.Errorf("%d records, want 40", n)
	}
	if s := l.Stats(); s.Segments < 3 || s.Blocks != 41 || s.Final != 36 {
		t.Errorf("stats %+v", s)
	}
	must(t, l.Close())
}

func TestAppendFinalRefuses(t *testing.T) {
	l := mustOpen(t, options(newFS(t)))
	defer l.Close()
	chain := makeChain(6, 10)
	for _, b := range chain[:4] {
		must(t, l.AppendBlock(b))
	}
	must(t, l.AppendFinal(finalization(chain[2])))
	fork2 := makeBlock(2, chain[0].Header.Hash(), 5, 9)
	fork5 := makeBlock(5, makeBlock(4, fork2.Header.Hash(), 5, 9).Header.Hash(), 5, 9)
	fork4 := makeBlock(4, fork2.Header.Hash(), 5, 9) // skips a height as well
	for _, b := range []consensus.Block{fork2, fork4, fork5} {
		must(t, l.AppendBlock(b))
	}
	notFinal := finalization(chain[3])
	notFinal.Kind = consensus.Notarize
	for _, tc := range []struct {
		name string
		cert *consensus.Certificate
		want error
	}{
		{"block not held", finalization(chain[5]), ErrNotFound},
		{"not a finalization", notFinal, ErrNotFound},
		{"another block at a final height", finalization(fork2), ErrConflict},
		{"a chain beside the final one", finalization(fork4), ErrConflict},
		{"a chain beside the final one, higher", finalization(fork5), ErrConflict},
		{"already final", finalization(chain[0]), nil},
		{"next", finalization(chain[3]), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := l.AppendFinal(tc.cert); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if h, _ := l.Final(); h != 4 {
		t.Errorf("final %d, want 4", h)
	}
}

// TestImproveFinal: a finalization with more signers takes the place of the one that is held, for good, at the tip and below, in
// the same segment and in a later one; for what is not final there is none to improve.
func TestImproveFinal(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	chain := makeChain(40, 3000)
	for _, b := range chain {
		must(t, l.AppendBlock(b))
	}
	for _, b := range chain[:39] {
		must(t, l.AppendFinal(finalization(b)))
	}
	better := map[consensus.Height]consensus.Signers{}
	for _, h := range []consensus.Height{39, 38, 3, 1, 3} {
		c := finalization(chain[h-1])
		c.Signers = consensus.Signers{byte(0x80 | h)}
		must(t, l.ImproveFinal(c))
		better[h] = c.Signers
	}
	must(t, l.Sync())
	check := func(l *Log) {
		t.Helper()
		for h := consensus.Height(1); h <= 39; h++ {
			want := finalization(chain[h-1]).Signers
			if s := better[h]; s != nil {
				want = s
			}
			if at, cert, err := l.Finalization(h); err != nil || at != h || !slices.Equal(cert.Signers, want) {
				t.Errorf("height %d: %+v, %v", h, cert, err)
			}
		}
		if h, _ := l.Final(); h != 39 {
			t.Errorf("final height %d", h)
		}
	}
	check(l)
	if err := l.ImproveFinal(finalization(chain[39])); !errors.Is(err, ErrNotFound) {
		t.Errorf("a block that is not final: %v", err)
	}
	if err := l.ImproveFinal(finalization(makeBlock(5, chain[3].Header.Hash(), 10, 9))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a block that is not held: %v", err)
	}
	must(t, l.Close())
	l = mustOpen(t, options(fs))
	check(l)
	must(t, l.Close())
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, content string) func(testing.TB, vfs.FS) {
		return func(tb testing.TB, fs vfs.FS) { must(tb, writeFile(fs, "home/log/"+name, []byte(content))) }
	}
	remove := func(name string) func(testing.TB, vfs.FS) {
		return func(tb testing.TB, fs vfs.FS) { must(tb, fs.Remove("home/log/"+name)) }
	}
	corrupt := func(err error) bool { return errors.As(err, new(*CorruptionError)) }
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for _, tc := range []struct {
		name  string
		spoil func(testing.TB, vfs.FS)
		opts  func(*Options)
		want  func(error) bool
	}{
		{"no folder", func(tb testing.TB, fs vfs.FS) { must(tb, fs.RemoveAll("home/log")) }, func(o *Options) { o.Create = false }, is(ErrMissing)},
		{"later version", write(formatName, "tutti consensus log\nversion 2\n"), nil, is(ErrVersion)},
		{"other chain", nil, func(o *Options) { o.Chain[0]++ }, is(ErrOtherChain)},
		{"other shard", nil, func(o *Options) { o.Shard++ }, is(ErrOtherChain)},
		{"format is no format", write(formatName, "hello\nversion 1\n"), nil, corrupt},
		{"format gone", remove(formatName), nil, corrupt},
		{"vote log gone", remove(votesName), nil, corrupt},
		{"no segment", func(tb testing.TB, fs vfs.FS) {
			for n := range 3 {
				must(tb, fs.Remove("home/log/"+segmentName(uint64(n+1))))
			}
		}, nil, corrupt},
		{"segment missing in the middle", remove(segmentName(2)), nil, corrupt},
		{"segment under another's name", func(tb testing.TB, fs vfs.FS) {
			must(tb, fs.Rename("home/log/"+segmentName(1), "home/log/"+segmentName(4)))
			must(tb, fs.Rename("home/log/"+segmentName(2), "home/log/"+segmentName(1)))
			must(tb, fs.Rename("home/log/"+segmentName(4), "home/log/"+segmentName(2)))
		}, nil, corrupt},
		{"retention too short", nil, func(o *Options) { o.Retention = 1 }, func(err error) bool { return err != nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := newFS(t)
			l := mustOpen(t, options(fs))
			for _, b := range makeChain(14, 600) {
				must(t, l.AppendBlock(b))
			}
			if n := l.Stats().Segments; n != 3 {
				t.Fatalf("%d segments, the test wants 3", n)
			}
			must(t, l.Sync())
			must(t, l.Close())
			o := options(fs)
			if tc.spoil != nil {
				tc.spoil(t, fs)
			}
			if tc.opts != nil {
				tc.opts(&o)
			}
			l, err := Open(o)
			if err == nil {
				l.Close()
			}
			if !tc.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	for _, tc := range []struct {
		name string
		fs   func(t *testing.T) vfs.FS
		dir  func(t *testing.T) string
	}{
		{"memory", func(t *testing.T) vfs.FS { return newFS(t) }, func(*testing.T) string { return "home/log" }},
		{"disk", func(*testing.T) vfs.FS { return vfs.Default }, func(t *testing.T) string { return t.TempDir() + "/log" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := options(tc.fs(t))
			o.Dir = tc.dir(t)
			l := mustOpen(t, o)
			if _, err := Open(o); !errors.Is(err, ErrInUse) {
				t.Errorf("second open: %v", err)
			}
			must(t, l.AppendBlock(makeChain(1, 10)[0]))
			must(t, l.Sync())
			must(t, l.Close())
			l = mustOpen(t, o)
			if l.Stats().Blocks != 1 {
				t.Error("block lost")
			}
			must(t, l.Close())
		})
	}
}

// TestGolden pins the bytes on disk.
func TestGolden(t *testing.T) {
	id := identity{number: 5, salt: 0x0102030405060708}
	head := fileHead(kindBlocks, FormatVersion, id)
	b := makeBlock(9, genesis, 4, 1)
	cert := finalization(b).Append([]byte{0, 0, 0, 0, 0, 0, 0, 9})
	_, vote, err := encodeRecord(simplex.Record{Vote: ownVote(consensus.Nullify, 4)})
	must(t, err)
	_, floor, err := encodeRecord(simplex.Record{Floor: &simplex.Floor{Shard: 3, Epoch: 1, View: 77}})
	must(t, err)
	var got strings.Builder
	for _, v := range []struct {
		name string
		enc  []byte
	}{
		{"file head", head},
		{"block record", appendRecord(nil, id, 32, 0, recordBlock, b.Header.Append(nil), b.Body)},
		{"head of a segment with echoes", fileHead(kindBlocks, echoVersion, id)},
		{"echo record", appendRecord(nil, id, 32, 0, recordBlock, consensus.Echo(b.Header, 12).Append(nil), nil)},
		{"final record", appendRecord(nil, id, 500, 32, recordFinal, cert, nil)},
		{"vote record", appendRecord(nil, id, 900, 500, recordVote, vote, nil)},
		{"head of a vote log with a floor", fileHead(kindVotes, floorVersion, id)},
		{"floor record", appendRecord(nil, id, 32, 32, recordFloor, floor, nil)},
	} {
		fmt.Fprintf(&got, "%s = %s\n", v.name, hex.EncodeToString(v.enc))
	}
	const path = "testdata/golden.txt"
	if *update {
		must(t, os.WriteFile(path, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("disk format changed (rewrite with -update only with a new FormatVersion):\n%s", d)
	}
}

// TestReadersBesideWriter runs readers against appends, rolls and pruning; the race detector is the judge.
func TestReadersBesideWriter(t *testing.T) {
	l := mustOpen(t, options(newFS(t)))
	defer l.Close()
	chain := makeChain(300, 100)
	stop, done := make(chan struct{}), make(chan error)
	for range 2 {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				h, hash := l.Final()
				if h == 0 {
					continue
				}
				if _, err := l.Block(hash); err != nil && l.Base() <= h { // else the writer has left it behind
					done <- err
					return
				}
				if hash, ok := l.FinalAt(l.Base()); ok { // the oldest may be pruned at any moment
					if _, err := l.Block(hash); err != nil && !errors.Is(err, ErrNotFound) {
						done <- err
						return
					}
				}
				l.Undecided()
				l.Stats()
			}
		}()
	}
	for _, b := range chain {
		must(t, l.AppendBlock(b))
		must(t, l.AppendFinal(finalization(b)))
		must(t, l.Sync())
	}
	close(stop)
	for range 2 {
		must(t, <-done)
	}
	if l.Base() < 100 {
		t.Errorf("base %d: nothing was pruned", l.Base())
	}
}
