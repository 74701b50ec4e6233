package node

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/appliance/api"
)

func TestWriteMeter(t *testing.T) {
	var m writeMeter
	at := time.Unix(1e9, 0)
	sample := func(seconds int, w written) { m.sample(at.Add(time.Duration(seconds)*time.Second), w) }
	sample(0, written{engine: 1000, log: 500, process: 4096, txs: 7})
	if w := m.status(written{engine: 3}); w.Idle != (api.WriteRate{}) || w.Loaded != (api.WriteRate{}) || w.EngineBytes != 3 {
		t.Errorf("after one sample: %+v", w)
	}
	sample(10, written{engine: 1100, log: 520, process: 8192, txs: 7})
	sample(20, written{engine: 5100, log: 1520, process: 8192, txs: 8})
	sample(40, written{engine: 5100, log: 1540, process: 8192, txs: 8})
	sample(40, written{engine: 9999, txs: 99}) // no time
	w := m.status(written{})
	near := func(got, bytes, seconds float64) bool { return math.Abs(got-bytes*86400/seconds) < 1 }
	if r := w.Idle; r.Seconds != 30 || !near(r.EngineBytesPerDay, 100, 30) || !near(r.LogBytesPerDay, 40, 30) || !near(r.ProcessBytesPerDay, 4096, 30) {
		t.Errorf("idle %+v", r)
	}
	if r := w.Loaded; r.Seconds != 10 || !near(r.EngineBytesPerDay, 4000, 10) || !near(r.LogBytesPerDay, 1000, 10) || r.ProcessBytesPerDay != 0 {
		t.Errorf("loaded %+v", r)
	}
}

// TestCountedFS counts every way to write, and nothing else.
func TestCountedFS(t *testing.T) {
	var n atomic.Uint64
	fs := countedFS{vfs.NewMem(), &n}
	write := func(f vfs.File, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(fs.Create("a", vfs.WriteCategoryUnspecified))
	write(fs.OpenReadWrite("a", vfs.WriteCategoryUnspecified))
	write(fs.ReuseForWrite("a", "b", vfs.WriteCategoryUnspecified))
	f, err := fs.OpenReadWrite("b", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("123"), 2); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Create("no/such/folder", vfs.WriteCategoryUnspecified); err == nil {
		t.Error("created where there is no folder")
	}
	if n.Load() != 18 {
		t.Errorf("counted %d bytes, written 18", n.Load())
	}
}
