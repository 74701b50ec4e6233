package node

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/appliance/api"
)

// countedFS counts the bytes that are written through it to files.
type countedFS struct {
	vfs.FS
	written *atomic.Uint64
}

func (c countedFS) counted(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return countedFile{f, c.written}, nil
}

// Create implements vfs.FS.
func (c countedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.counted(c.FS.Create(name, category))
}

// OpenReadWrite implements vfs.FS.
func (c countedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return c.counted(c.FS.OpenReadWrite(name, category, opts...))
}

// ReuseForWrite implements vfs.FS.
func (c countedFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return c.counted(c.FS.ReuseForWrite(oldname, newname, category))
}

// Unwrap implements vfs.FS.
func (c countedFS) Unwrap() vfs.FS { return c.FS }

type countedFile struct {
	vfs.File
	written *atomic.Uint64
}

// Write implements vfs.File.
func (f countedFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.written.Add(uint64(n))
	return n, err
}

// WriteAt implements vfs.File.
func (f countedFile) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	f.written.Add(uint64(n))
	return n, err
}

// written is what has been written since the start of the node.
type written struct {
	engine  uint64 // by the storage engine: log, tables, compactions
	log     uint64 // to the block log and the vote log
	process uint64 // by the process, as the kernel counts what goes to a disk
	txs     uint64 // transactions in final blocks
}

// writeMeter tells what a node writes while its shard is idle from what it writes while there are transactions. Safe for
// concurrent use.
type writeMeter struct {
	mu           sync.Mutex // guards what follows
	last         written
	at           time.Time // of last; zero: never
	idle, loaded api.WriteRate
}

// sample adds the time since the sample before to idle or loaded. What is written late, by compactions after a load,
// counts where it happens.
func (m *writeMeter) sample(now time.Time, w written) {
	m.mu.Lock()
	defer m.mu.Unlock()
	span := now.Sub(m.at).Seconds()
	if !m.at.IsZero() && span > 0 {
		r := &m.idle
		if w.txs > m.last.txs {
			r = &m.loaded
		}
		add := func(rate *float64, from, to uint64) { // keeps bytes a day over all of r's time
			const day = 24 * 3600
			*rate = (*rate*r.Seconds + float64(to-min(from, to))*day) / (r.Seconds + span)
		}
		add(&r.EngineBytesPerDay, m.last.engine, w.engine)
		add(&r.LogBytesPerDay, m.last.log, w.log)
		add(&r.ProcessBytesPerDay, m.last.process, w.process)
		r.Seconds += span
	}
	m.last, m.at = w, now
}

// status is what has been written, and how fast.
func (m *writeMeter) status(w written) api.Writes {
	m.mu.Lock()
	defer m.mu.Unlock()
	return api.Writes{EngineBytes: w.engine, LogBytes: w.log, ProcessBytes: w.process, Idle: m.idle, Loaded: m.loaded}
}

// written reads the counters. After the ledger is closed the engine's is 0.
func (n *Node) written() written {
	w := written{log: n.logWritten.Load(), process: processWritten(), txs: n.finalTxs.Load()}
	if s, err := n.ledger.Storage(); err == nil {
		w.engine = s.WrittenBytes()
	}
	return w
}

// processWritten is the bytes that this process has caused to be written to disks; 0 where the system does not say.
func processWritten() uint64 {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	var bytes, cancelled uint64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		v, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil:
		case name == "write_bytes":
			bytes = v
		case name == "cancelled_write_bytes": // of files removed before they reached the disk
			cancelled = v
		}
	}
	return bytes - min(cancelled, bytes)
}
