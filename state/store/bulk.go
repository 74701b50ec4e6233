package store

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// bulkBytes is how large a table of a bulk load gets. The page cycle later rewrites a table as a whole.
const bulkBytes = 32 << 20

// Bulk is much content that comes in the order of its keys: it is written once, into tables that pebble takes as they
// are, where batches would be written three times, to the log, out of it, and by compactions. Values are copied. It
// belongs to one goroutine.
type Bulk struct {
	s     *Store
	w     *sstable.Writer
	paths []string
	last  []byte
	bytes int // in the table that is being written
	err   error
}

// Load adds what write adds, all or nothing, durable when it returns: entries of the directory by place, then pages by
// partition and page, then what decodes the entries. None of it is in the store yet. Other writes wait.
func (s *Store) Load(write func(*Bulk) error) error {
	b := &Bulk{s: s}
	err := write(b)
	if err == nil {
		err = b.err
	}
	if closed := b.finish(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if len(b.paths) == 0 {
		return nil
	}
	if err := s.guard(func() error { return s.db.Ingest(context.Background(), b.paths) }); err != nil {
		s.fail("take in tables", err)
	}
	return s.Err()
}

// Key adds an entry of the directory of BLS keys.
func (b *Bulk) Key(place uint64, v []byte) { b.add(key('k', place), v) }

// Point adds what decodes an entry of the directory of BLS keys.
func (b *Bulk) Point(place uint64, v []byte) { b.add(key('y', place), v) }

// Page adds a page of records.
func (b *Bulk) Page(partition uint16, page uint32, v []byte) { b.add(key('p', partition, page), v) }

func (b *Bulk) add(k, v []byte) {
	if b.err != nil {
		return
	}
	if bytes.Compare(b.last, k) >= 0 {
		b.err = fmt.Errorf("store: bulk load: key %x after %x", k, b.last)
		return
	}
	b.last = k
	if b.bytes >= bulkBytes {
		b.err = b.finish()
	}
	if b.err == nil && b.w == nil {
		b.err = b.begin()
	}
	if b.err == nil {
		b.bytes += len(k) + len(v)
		b.err = b.failed(b.w.Set(k, v))
	}
}

func (b *Bulk) begin() error {
	fs := b.s.options.FS.Unwrap() // an error here is returned, and parks nobody
	path := fs.PathJoin(b.s.dir, fmt.Sprintf("load-%d", len(b.paths)))
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return b.failed(err)
	}
	b.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), b.s.options.MakeWriterOptions(bottomLevel, b.s.db.TableFormat()))
	b.paths, b.bytes = append(b.paths, path), 0
	return nil
}

// finish ends the table that is being written and syncs it.
func (b *Bulk) finish() error {
	if b.w == nil {
		return nil
	}
	err := b.w.Close()
	b.w = nil
	return b.failed(err)
}

// failed makes an error of a write fatal.
func (b *Bulk) failed(err error) error {
	if err == nil {
		return nil
	}
	b.s.fail("write tables", err)
	return b.s.Err()
}

// bottomLevel is where pebble keeps what lies longest.
const bottomLevel = len(pebble.Options{}.Levels) - 1
