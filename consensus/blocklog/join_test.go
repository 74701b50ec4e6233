package blocklog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

func floorRecord(v consensus.View) simplex.Record {
	return simplex.Record{Floor: &simplex.Floor{Shard: 3, View: v}}
}

func nullification(v consensus.View) *consensus.Certificate {
	return &consensus.Certificate{
		Statement: consensus.Statement{Kind: consensus.Nullify, Shard: 3, View: v}, Signers: consensus.Signers{7},
	}
}

func wantRecords(tb testing.TB, l *Log, want ...simplex.Record) {
	tb.Helper()
	if d := cmp.Diff(want, l.Records()); d != "" {
		tb.Fatalf("records:\n%s", d)
	}
}

// voteLogVersion is the version in the vote log's head.
func voteLogVersion(tb testing.TB, fs vfs.FS) byte {
	tb.Helper()
	f, err := fs.Open("home/log/" + votesName)
	must(tb, err)
	var b [segmentHeadBytes]byte
	_, err = f.ReadAt(b[:], 0)
	must(tb, errors.Join(err, f.Close()))
	return b[9]
}

// TestSetFloor: a floor is durable at once and part of Records, only ever rises, is refused beside own votes, and goes
// when a finalization stands in for it. While it is there, a build that does not know it refuses the file.
func TestSetFloor(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	cert := nullification(7)
	must(t, l.SetFloor(*floorRecord(9).Floor, cert))
	wantRecords(t, l, simplex.Record{Cert: cert}, floorRecord(9))
	after := mustOpen(t, options(fs.CrashClone(vfs.CrashCloneCfg{})))
	wantRecords(t, after, simplex.Record{Cert: cert}, floorRecord(9))
	must(t, after.Close())
	if v := voteLogVersion(t, fs); v != floorVersion {
		t.Errorf("version %d of a vote log with a floor", v)
	}

	must(t, l.SetFloor(*floorRecord(5).Floor, nil))
	wantRecords(t, l, simplex.Record{Cert: cert}, floorRecord(9))
	must(t, l.SetFloor(*floorRecord(12).Floor, nullification(10)))
	want := []simplex.Record{{Cert: cert}, {Cert: nullification(10)}, floorRecord(12)}
	wantRecords(t, l, want...)

	vote := simplex.Record{Vote: ownVote(consensus.Notarize, 13)}
	must(t, l.AppendRecord(vote))
	must(t, l.Sync())
	if err := l.SetFloor(*floorRecord(20).Floor, nil); !errors.Is(err, ErrVoted) {
		t.Errorf("a floor under own votes: %v", err)
	}
	must(t, l.Close())
	l = mustOpen(t, options(fs)) // which compacts
	wantRecords(t, l, append(want, vote)...)

	final := finalization(makeBlock(12, genesis, 1, 0))
	must(t, l.AppendRecord(simplex.Record{Cert: final}))
	must(t, l.Close())
	l = mustOpen(t, options(fs))
	wantRecords(t, l, vote, simplex.Record{Cert: final})
	if v := voteLogVersion(t, fs); v != FormatVersion {
		t.Errorf("version %d of a vote log without a floor", v)
	}
	if err := l.AppendRecord(floorRecord(30)); err == nil {
		t.Error("a floor was appended")
	}
	must(t, l.Close())
}

// TestBeginsAbove: a log whose first block is far above genesis, finalised by a descendant, works like any: what it says,
// a restart, growth, retention.
func TestBeginsAbove(t *testing.T) {
	fs := newFS(t)
	o := options(fs)
	l := mustOpen(t, o)
	chain := makeChain(500, 100)
	at := func(h consensus.Height) consensus.Block { return chain[h-1] }
	const begin = 100
	for h := consensus.Height(begin); h <= begin+3; h++ {
		must(t, l.AppendBlock(at(h)))
	}
	must(t, l.AppendFinal(finalization(at(begin+3))))
	must(t, l.Sync())
	check := func(base, final consensus.Height) {
		t.Helper()
		if h, hash := l.Final(); h != final || hash != at(final).Header.Hash() || l.Base() != base {
			t.Fatalf("final %d %s, base %d; want %d and %d", h, hash.Short(), l.Base(), final, base)
		}
		for h := base; h <= final; h++ {
			if hash, ok := l.FinalAt(h); !ok || hash != at(h).Header.Hash() {
				t.Fatalf("at height %d: %s, %v", h, hash.Short(), ok)
			}
			sameBlock(t, l, at(h))
		}
		if _, ok := l.FinalAt(base - 1); ok {
			t.Fatalf("height %d is held", base-1)
		}
		if n := len(l.Undecided()); n != 0 {
			t.Fatalf("%d undecided blocks", n)
		}
	}
	check(begin, begin+3)
	if h, cert, err := l.Finalization(begin); err != nil || h != begin+3 || cert.Block != at(begin+3).Header.Hash() {
		t.Fatalf("finalization from %d: %d, %v", begin, h, err)
	}
	must(t, l.Close())
	l = mustOpen(t, o)
	check(begin, begin+3)
	for h := consensus.Height(begin + 4); h <= 500; h++ {
		must(t, l.AppendBlock(at(h)))
		if h%3 == 2 {
			must(t, l.AppendFinal(finalization(at(h))))
		}
		must(t, l.Sync())
		if h%50 == 0 {
			must(t, l.Close())
			l = mustOpen(t, o)
		}
	}
	if base := l.Base(); base < 400 || base > 500-MinRetention {
		t.Errorf("base %d after pruning", base)
	}
	check(l.Base(), 500)
	must(t, l.Close())
	l = mustOpen(t, o)
	check(l.Base(), 500)
	must(t, l.Close())
}

// TestLogHeaders: a chain is read downwards over segments, as far as it is held and within both limits.
func TestLogHeaders(t *testing.T) {
	l := mustOpen(t, options(newFS(t)))
	defer l.Close()
	chain := makeChain(30, 600)
	for _, b := range append([]consensus.Block{chain[29]}, chain[4:29]...) { // a child before its parent, and no oldest ones
		must(t, l.AppendBlock(b))
	}
	if n := l.Stats().Segments; n < 3 {
		t.Fatalf("%d segments", n)
	}
	size := len(chain[9].Header.Append(nil))
	for _, tc := range []struct{ from, most, bytes, want int }{
		{30, 100, 1 << 20, 26}, {30, 5, 1 << 20, 5}, {30, 100, 3 * size, 3}, {30, 100, 0, 1}, {5, 100, 1 << 20, 1}, {30, 0, 1 << 20, 0},
	} {
		got, err := l.Headers(chain[tc.from-1].Header.Hash(), tc.most, tc.bytes)
		if err != nil || len(got) != tc.want {
			t.Fatalf("%+v: %d headers, %v", tc, len(got), err)
		}
		for i, h := range got {
			if want := chain[tc.from-1-i].Header; h.Hash() != want.Hash() {
				t.Fatalf("%+v: header %d is of height %d", tc, i, h.Height)
			}
		}
	}
	if _, err := l.Headers(chain[3].Header.Hash(), 1, 1<<20); !errors.Is(err, ErrNotFound) {
		t.Errorf("a block that is not held: %v", err)
	}
}

// TestCrashInSetFloor takes the power away at every operation of SetFloor: afterwards the floor before it stands, or the
// new one.
func TestCrashInSetFloor(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	must(t, l.SetFloor(*floorRecord(9).Floor, nullification(7)))
	must(t, l.Close())
	var seed uint64
	points := 0
	crash := errorfs.InjectorFunc(func(op errorfs.Op) error {
		points++
		for _, percent := range []int{0, 50, 100} {
			seed++
			crashed := mustOpen(t, options(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})))
			var floors []string
			for _, r := range crashed.Records() {
				if r.Floor != nil {
					floors = append(floors, fmt.Sprint(r.Floor.View))
				}
			}
			if len(floors) != 1 || floors[0] != "9" && floors[0] != "12" {
				t.Fatalf("crash before operation %d (%s), seed %d: floors %v", points, op.Path, seed, floors)
			}
			must(t, crashed.Close())
		}
		return nil
	})
	l = mustOpen(t, options(errorfs.Wrap(fs, crash)))
	must(t, l.SetFloor(*floorRecord(12).Floor, nullification(10)))
	must(t, l.Close())
	if points < 20 {
		t.Errorf("only %d operations", points)
	}
}

// TestProtect: a floor and votes from elsewhere are durable at once, take the place of own votes that the floor bars, and
// leave the others. After a power loss at any operation the log is as before or as after.
func TestProtect(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, options(fs))
	own := func(v consensus.View) simplex.Record { return simplex.Record{Vote: ownVote(consensus.Notarize, v)} }
	for _, v := range []consensus.View{3, 8, 11} {
		must(t, l.AppendRecord(own(v)))
	}
	must(t, l.Sync())
	must(t, l.Protect(nil, []consensus.Vote{*own(9).Vote, *own(11).Vote}))
	before := []simplex.Record{own(3), own(8), own(11), own(9)}
	wantRecords(t, l, before...)
	must(t, l.Close())

	after := []simplex.Record{own(11), own(9), floorRecord(8), own(12)}
	points, seed := 0, uint64(0)
	crash := errorfs.InjectorFunc(func(op errorfs.Op) error {
		points++
		for _, percent := range []int{0, 50, 100} {
			seed++
			crashed := mustOpen(t, options(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 0))})))
			if got := crashed.Records(); !cmp.Equal(got, before) && !cmp.Equal(got, after) {
				t.Fatalf("crash before operation %d (%s), seed %d: %s", points, op.Path, seed, cmp.Diff(before, got))
			}
			must(t, crashed.Close())
		}
		return nil
	})
	l = mustOpen(t, options(errorfs.Wrap(fs, crash)))
	must(t, l.Protect(floorRecord(8).Floor, []consensus.Vote{*own(12).Vote}))
	wantRecords(t, l, after...)
	must(t, l.Close())
	if points < 20 {
		t.Errorf("only %d operations", points)
	}
	l = mustOpen(t, options(fs.CrashClone(vfs.CrashCloneCfg{})))
	wantRecords(t, l, after...)
	must(t, l.Close())
}
