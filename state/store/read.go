package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

func bounds(prefix byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}}
}

func shardBounds(prefix byte, shard uint16) *pebble.IterOptions {
	o := bounds(prefix)
	o.LowerBound = key(prefix, shard)
	if shard < 1<<16-1 {
		o.UpperBound = key(prefix, shard+1)
	}
	return o
}

// scan visits keys and values in order, beginning at from, until visit says to stop.
func (s *Store) scan(o *pebble.IterOptions, from []byte, visit func(k, v []byte) (more bool, err error)) error {
	it, err := s.db.NewIter(o)
	if err != nil {
		return s.unreadable(err)
	}
	var fault error
	for ok := it.SeekGE(from); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(s.unreadable(err), it.Close())
		}
		more, err := visit(it.Key(), v)
		if err != nil || !more {
			fault = err
			break
		}
	}
	if err := it.Close(); err != nil {
		return s.unreadable(err)
	}
	return fault
}

func (s *Store) unreadable(err error) error {
	if pebble.IsCorruptionError(err) {
		return Corrupt(s.dir, "%v", err)
	}
	return fmt.Errorf("store: read %s: %w", s.dir, err)
}

// get returns a copy of a value; nil: there is none.
func (s *Store) get(k []byte) ([]byte, error) {
	v, closer, err := s.db.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, s.unreadable(err)
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}

// Progress reads how far the store is.
func (s *Store) Progress() (Progress, error) {
	v, err := s.get(key('s'))
	if err != nil {
		return Progress{}, err
	}
	if len(v) != progressBytes {
		return Progress{}, Corrupt(s.dir, "its progress record has %d bytes", len(v))
	}
	be := binary.BigEndian
	return Progress{be.Uint64(v), be.Uint64(v[8:]), be.Uint16(v[16:]), be.Uint32(v[18:])}, nil
}

// Beginning is what Batch.Beginning set; height 0: a ledger made from genesis, or by a version that set none.
func (s *Store) Beginning() (height uint64, root, diff [32]byte, err error) {
	v, err := s.get(key('f'))
	if err != nil || v == nil {
		return 0, root, diff, err
	}
	if len(v) != 8+2*32 {
		return 0, root, diff, Corrupt(s.dir, "where the ledger begins has %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), [32]byte(v[8:]), [32]byte(v[40:]), nil
}

// EffectsFrom is the height from which on credits and openings of blocks were ever stored: 0 unless the store was filled
// from elsewhere.
func (s *Store) EffectsFrom() (uint64, error) {
	v, err := s.get(key('e'))
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, Corrupt(s.dir, "its record of the first block whose effects are known has %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Credits reads what became of the receipts that the block at a height consumed; nil: it consumed none, or so long ago
// that it was dropped.
func (s *Store) Credits(height uint64) ([]byte, error) { return s.get(key('c', height)) }

// Opened reads the accounts that the block at a height opened; nil: none, or dropped.
func (s *Store) Opened(height uint64) ([]byte, error) { return s.get(key('o', height)) }

// Blocks visits the stored blocks at heights from and above, ascending. v is valid during the visit.
func (s *Store) Blocks(from uint64, visit func(height uint64, v []byte) error) error {
	return s.BlocksWhile(from, func(height uint64, v []byte) (bool, error) { return true, visit(height, v) })
}

// BlocksWhile is Blocks until visit says to stop.
func (s *Store) BlocksWhile(from uint64, visit func(height uint64, v []byte) (more bool, err error)) error {
	return s.scan(bounds('b'), key('b', from), func(k, v []byte) (bool, error) {
		if len(k) != 9 {
			return false, Corrupt(s.dir, "a block key has %d bytes", len(k))
		}
		return visit(binary.BigEndian.Uint64(k[1:]), v)
	})
}

// Block reads a stored block; nil: there is none.
func (s *Store) Block(height uint64) ([]byte, error) { return s.get(key('b', height)) }

// Notes visits the notes of a restore whose names begin with prefix, ascending. name and v are valid during the visit.
func (s *Store) Notes(prefix byte, visit func(name, v []byte) error) error {
	o := &pebble.IterOptions{LowerBound: []byte{'x', prefix}, UpperBound: []byte{'x', prefix + 1}}
	return s.scan(o, o.LowerBound, func(k, v []byte) (bool, error) { return true, visit(k[1:], v) })
}

// Before reads the range of all receipts to a shard before sequence number first, where stored ones begin; nil: it is
// not known.
func (s *Store) Before(shard uint16, first uint64) ([]byte, error) {
	return s.get(key('q', shard, first))
}

// Pages visits the stored pages of a partition, ascending. v is valid during the visit.
func (s *Store) Pages(partition uint16, visit func(page uint32, v []byte) error) error {
	o := &pebble.IterOptions{LowerBound: key('p', partition), UpperBound: []byte{'p' + 1}}
	if partition < 1<<16-1 {
		o.UpperBound = key('p', partition+1)
	}
	return s.scan(o, o.LowerBound, func(k, v []byte) (bool, error) {
		if len(k) != 7 {
			return false, Corrupt(s.dir, "a page key has %d bytes", len(k))
		}
		return true, visit(binary.BigEndian.Uint32(k[3:]), v)
	})
}

// PagedPartitions visits the partitions of which pages are stored, ascending.
func (s *Store) PagedPartitions(visit func(partition uint16) error) error {
	o := bounds('p')
	for from := o.LowerBound; ; {
		var found uint16
		none := true
		err := s.scan(o, from, func(k, _ []byte) (bool, error) {
			if len(k) != 7 {
				return false, Corrupt(s.dir, "a page key has %d bytes", len(k))
			}
			found, none = binary.BigEndian.Uint16(k[1:]), false
			return false, nil
		})
		if err == nil && !none {
			err = visit(found)
		}
		if err != nil || none || found == 1<<16-1 {
			return err
		}
		from = key('p', found+1)
	}
}

// Receipts visits the stored ranges of receipts to a shard, ascending, beginning with the one that holds sequence
// number from, until visit says to stop. v is valid during the visit.
func (s *Store) Receipts(shard uint16, from uint64, visit func(first uint64, v []byte) (more bool, err error)) error {
	at, err := s.rangeOf(shard, from)
	if err != nil {
		return err
	}
	return s.scan(shardBounds('r', shard), at, func(k, v []byte) (bool, error) {
		if len(k) != 11 {
			return false, Corrupt(s.dir, "a receipt key has %d bytes", len(k))
		}
		return visit(binary.BigEndian.Uint64(k[3:]), v)
	})
}

// rangeOf is the key of the last stored range to a shard that begins at or below seq, the one that seq may fall into;
// without one, the lowest key a range to the shard can have.
func (s *Store) rangeOf(shard uint16, seq uint64) ([]byte, error) {
	it, err := s.db.NewIter(shardBounds('r', shard))
	if err != nil {
		return nil, s.unreadable(err)
	}
	k := key('r', shard, uint64(0))
	if it.SeekLT(key('r', shard, seq+1)) {
		k = append([]byte{}, it.Key()...)
	}
	if err := it.Close(); err != nil {
		return nil, s.unreadable(err)
	}
	return k, nil
}

// Keys visits the entries of the directory of BLS keys from a place on, ascending, until visit says to stop. v is valid
// during the visit.
func (s *Store) Keys(from uint64, visit func(place uint64, v []byte) (more bool, err error)) error {
	return s.scan(bounds('k'), key('k', from), func(k, v []byte) (bool, error) {
		if len(k) != 9 {
			return false, Corrupt(s.dir, "a key of the directory has %d bytes", len(k))
		}
		return visit(binary.BigEndian.Uint64(k[1:]), v)
	})
}

// Points is Keys for what decodes the entries; not all may have it.
func (s *Store) Points(from uint64, visit func(place uint64, v []byte) (more bool, err error)) error {
	return s.scan(bounds('y'), key('y', from), func(k, v []byte) (bool, error) {
		if len(k) != 9 {
			return false, Corrupt(s.dir, "a key of what decodes the directory has %d bytes", len(k))
		}
		return visit(binary.BigEndian.Uint64(k[1:]), v)
	})
}

// Key reads an entry of the directory of BLS keys; nil: there is none.
func (s *Store) Key(place uint64) ([]byte, error) { return s.get(key('k', place)) }
