package store

import (
	"sync"
	"time"
)

// Metrics are figures about a store since it was opened. Bytes are what the storage engine gave to the file system; the
// disk may write more, for the file system's own records.
type Metrics struct {
	LogBytes     uint64        // written to the engine's log
	FlushBytes   uint64        // written as new tables, from the log's content in memory
	CompactBytes uint64        // written by compactions, which merge tables
	LoadBytes    uint64        // written by bulk loads
	DebtBytes    uint64        // compactions are behind by about so much
	TableBytes   uint64        // in live tables
	Tables       uint64        // live tables
	Compactions  uint64        // finished
	StallTime    time.Duration // in which writes had to wait for flushes or compactions, one that goes on included
	Stalls       uint64        // times that they had to
	MemoryBytes  uint64        // of memtables and cache
}

// WrittenBytes is all that the storage engine has written.
func (m *Metrics) WrittenBytes() uint64 {
	return m.LogBytes + m.FlushBytes + m.CompactBytes + m.LoadBytes
}

// Metrics reads the figures. It must not be called after Close.
func (s *Store) Metrics() Metrics {
	p := s.db.Metrics()
	m := Metrics{
		LogBytes: p.WAL.BytesWritten, DebtBytes: p.Compact.EstimatedDebt, Compactions: uint64(max(0, p.Compact.Count)),
		MemoryBytes: p.MemTable.Size + p.MemTable.ZombieSize + uint64(max(0, p.BlockCache.Size)),
	}
	for i := range p.Levels {
		l := &p.Levels[i]
		m.FlushBytes += l.TableBytesFlushed + l.BlobBytesFlushed
		m.CompactBytes += l.TableBytesCompacted + l.BlobBytesCompacted
		m.LoadBytes += l.TableBytesIngested
		m.TableBytes += uint64(max(0, l.TablesSize))
		m.Tables += uint64(max(0, l.TablesCount))
	}
	m.Stalls, m.StallTime = s.stalls.read(time.Now())
	return m
}

// stalls adds up the times in which pebble made writes wait. Safe for concurrent use.
type stalls struct {
	mu    sync.Mutex // guards what follows
	count uint64
	total time.Duration // of those that ended
	since time.Time     // zero: writes do not wait
}

func (s *stalls) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	s.since = time.Now()
}

func (s *stalls) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() {
		s.total += time.Since(s.since)
	}
	s.since = time.Time{}
}

func (s *stalls) read(now time.Time) (count uint64, total time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total = s.total
	if !s.since.IsZero() {
		total += now.Sub(s.since)
	}
	return s.count, total
}
