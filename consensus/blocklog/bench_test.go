package blocklog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// BenchmarkVote is what one view costs before a finalize leaves: a block of 1 MiB and a vote appended and synced to the
// real disk.
func BenchmarkVote(b *testing.B) {
	o := options(vfs.Default)
	o.Dir, o.SegmentBytes = b.TempDir()+"/log", 0
	l := mustOpen(b, o)
	defer l.Close()
	parent, body := genesis, make([]byte, 1<<20)
	ref := consensus.NewBodyRef(body)
	b.SetBytes(int64(len(body)))
	for i := range b.N {
		h := makeBlock(consensus.Height(i+1), parent, 0, 0).Header
		h.Body, parent = ref, h.Hash()
		must(b, l.AppendBlock(consensus.Block{Header: h, Body: body}))
		must(b, l.AppendRecord(simplex.Record{Vote: ownVote(consensus.Finalize, h.View)}))
		must(b, l.Sync())
	}
}

// BenchmarkOpen reads a folder of 2,000 final blocks of 32 KiB.
func BenchmarkOpen(b *testing.B) {
	o := options(vfs.Default)
	o.Dir, o.SegmentBytes, o.Retention = b.TempDir()+"/log", 0, 1<<20
	l := mustOpen(b, o)
	for _, bl := range makeChain(2000, 32<<10) {
		must(b, l.AppendBlock(bl))
		must(b, l.AppendFinal(finalization(bl)))
	}
	must(b, l.Sync())
	must(b, l.Close())
	for b.Loop() {
		must(b, mustOpen(b, o).Close())
	}
}
