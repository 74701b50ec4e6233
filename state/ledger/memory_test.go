package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/state/tx"
)

// TestMemory holds the figures against what the layout says, and against the address space that is taken.
func TestMemory(t *testing.T) {
	const accounts = 256*chunkAccounts/4 + 10 // one chunk in each partition
	p := testParams(t, 0, 1, accounts)
	l := mustOpen(t, testOptions(p, accounts))
	s := l.Stats()
	m := s.Memory
	if m.Records != accounts*RecordBytes || m.Hashes != 256*64<<10 || m.Records+m.Room+m.Hashes != 256*chunkBytes || m.Records+m.Room+m.Hashes > s.TableBytes {
		t.Errorf("%+v in %d bytes", m, s.TableBytes)
	}
	if m.Chunks < 256*900 || m.Chunks > 256*1100 || m.Upper == 0 || m.Upper > 1<<20 || m.Blocks > 1<<14 {
		t.Errorf("%+v", m)
	}
	from, to := p.GenesisID(0), p.GenesisID(1)
	step(t, l, blockName(0), 1, blockName(1), []tx.Signed{transfer(&p, from, to, 1, 0)})
	if after := l.Stats().Memory; after.Blocks <= m.Blocks {
		t.Errorf("a block more takes nothing: %s", cmp.Diff(m, after))
	}
	if g, err := l.Storage(); err != nil || g.LoadBytes == 0 || g.LogBytes == 0 {
		t.Errorf("storage %+v, %v", g, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Storage(); err != ErrClosed {
		t.Errorf("storage of a closed ledger: %v", err)
	}
}
