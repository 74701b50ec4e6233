package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"unsafe"

	"tutti/accel/merkle"
	"tutti/accel/prefetch"
	"tutti/state/tx"
)

// A block's difference is what turns the parent state into the block's: the new counters and what belongs to them
// (the head), and one section for each partition in which accounts changed, ascending by partition.
//
//	section: partition 2, touches 4, opened 4, first 4,
//	         for each touched account, ascending by index: index 4, nonce 4, balance 8 (the values after the block),
//	         for each opened account: its record, 64 bytes; the first one has index first, the others follow
//
// A touched account's last touch is the height of the block; its other fields do not change. The diff hash is
// merkle.ListRoot over SHA-256(tag || 0 || head), then SHA-256(tag || 1 || section) for each section, tag being
// "tutti/diff/1" padded to 16 bytes.
const (
	sectionHeader = 2 + 4 + 4 + 4
	touchBytes    = 4 + 4 + 8
)

func diffLeaf(kind byte, b []byte) [32]byte {
	d := sha256.New()
	var t [17]byte
	copy(t[:], "tutti/diff/1")
	t[16] = kind
	d.Write(t[:])
	d.Write(b)
	return [32]byte(d.Sum(nil))
}

// section is the part of a difference in one partition. It is immutable once it is part of a block.
type section struct {
	slot   int
	bytes  []byte   // the encoding
	leaf   [32]byte // in the diff hash
	before []before // for each touch, what it replaced
}

func newSection(slot int, partition uint16, first uint32, touches int, opened []cell) section {
	b := make([]byte, sectionHeader+touches*touchBytes, sectionHeader+touches*touchBytes+len(opened)*RecordBytes)
	be := binary.BigEndian
	be.PutUint16(b, partition)
	be.PutUint32(b[2:], uint32(touches))
	be.PutUint32(b[6:], uint32(len(opened)))
	be.PutUint32(b[10:], first)
	for i := range opened {
		b = append(b, opened[i][:]...)
	}
	return section{slot: slot, bytes: b, before: make([]before, touches)}
}

func (s *section) touches() int       { return int(binary.BigEndian.Uint32(s.bytes[2:])) }
func (s *section) opened() int        { return int(binary.BigEndian.Uint32(s.bytes[6:])) }
func (s *section) first() uint32      { return binary.BigEndian.Uint32(s.bytes[10:]) }
func (s *section) next() uint32       { return s.first() + uint32(s.opened()) }
func (s *section) touch(i int) []byte { return s.bytes[sectionHeader+i*touchBytes:][:touchBytes] }

func (s *section) index(i int) uint32 { return binary.BigEndian.Uint32(s.touch(i)) }

func (s *section) values(i int) (nonce uint32, balance uint64) {
	t := s.touch(i)
	return binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint64(t[8:])
}

func (s *section) setTouch(i int, index, nonce uint32, balance uint64) {
	t := s.touch(i)
	binary.BigEndian.PutUint32(t, index)
	binary.BigEndian.PutUint32(t[4:], nonce)
	binary.BigEndian.PutUint64(t[8:], balance)
}

// records are the opened accounts, in place.
func (s *section) records() []cell {
	b := s.bytes[sectionHeader+s.touches()*touchBytes:]
	return unsafe.Slice((*cell)(unsafe.Pointer(unsafe.SliceData(b))), s.opened())
}

// search finds the first touch whose index is not below index.
func (s *section) search(index uint32) int {
	return sort.Search(s.touches(), func(i int) bool { return s.index(i) >= index })
}

// readSection decodes the section at the front of b and returns what follows it. The section aliases b; slot, leaf and
// before are not set.
func readSection(b []byte) (section, []byte, error) {
	bad := func(format string, args ...any) (section, []byte, error) {
		return section{}, nil, fmt.Errorf("ledger: difference: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if len(b) < sectionHeader {
		return bad("%d bytes are too few for a section", len(b))
	}
	s := section{bytes: b}
	first := uint64(s.first())
	touches, opened := uint64(binary.BigEndian.Uint32(b[2:])), uint64(binary.BigEndian.Uint32(b[6:]))
	if touches == 0 && opened == 0 {
		return bad("an empty section")
	}
	if touches > first || first+opened > AccountsPerPartition {
		return bad("%d touches and %d openings at %d", touches, opened, first)
	}
	size := sectionHeader + touches*touchBytes + opened*RecordBytes
	if uint64(len(b)) < size {
		return bad("%d bytes, need %d", len(b), size)
	}
	s.bytes = b[:size:size]
	for i := range int(touches) {
		if x := s.index(i); x >= uint32(first) || i > 0 && x <= s.index(i-1) {
			return bad("touch %d of account %d is out of order", i, x)
		}
	}
	return s, b[size:], nil
}

// diffHash commits to a head and sections whose leaves are set.
func diffHash(head []byte, sections []section) tx.Hash {
	leaves := make([][32]byte, 1+len(sections))
	leaves[0] = diffLeaf(0, head)
	for i := range sections {
		leaves[1+i] = sections[i].leaf
	}
	return merkle.ListRoot(leaves)
}

// undo takes the section's changes out of the table, which is at its block.
func (t *table) undo(s *section) {
	p := &t.parts[s.slot]
	for i := range s.before {
		b := &s.before[i]
		p.put(b.index, b.balance, b.nonce, b.lastTouch)
	}
	var none cell
	for i := range uint32(s.opened()) {
		p.open(s.first()+i, &none)
	}
	p.next = s.first()
}

// redo makes the section's changes to the table, which is at the parent of its block, and makes s able to be undone.
func (t *table) redo(s *section, height uint64) {
	p := &t.parts[s.slot]
	if s.before == nil {
		s.before = make([]before, s.touches())
		for i := range s.before {
			c := p.cell(s.index(i))
			s.before[i] = before{c.balance(), s.index(i), c.nonce(), c.touched()}
		}
	}
	for i := range s.touches() {
		nonce, balance := s.values(i)
		p.put(s.index(i), balance, nonce, uint32(height))
	}
	for i, r := range s.records() {
		p.open(s.first()+uint32(i), &r)
	}
	p.next = s.next()
}

// apply makes the section's changes to a table of which it is known only that later sections follow up to a block whose
// state is then right. Accounts are there as far as they are reserved.
func (t *table) apply(s *section, height uint64) {
	p := &t.parts[s.slot]
	for i := range s.touches() {
		if i+prefetch.Ahead < s.touches() {
			prefetch.Line(p.cell(s.index(i + prefetch.Ahead)))
		}
		nonce, balance := s.values(i)
		p.put(s.index(i), balance, nonce, uint32(height))
	}
	for i, r := range s.records() {
		p.open(s.first()+uint32(i), &r)
	}
}

// rewind takes the section's changes out of a copy of the cells from index at on.
func (s *section) rewind(cells []cell, at uint32) {
	end := at + uint32(len(cells))
	for i := s.search(at); i < len(s.before) && s.before[i].index < end; i++ {
		b := &s.before[i]
		c := &cells[b.index-at]
		c.setBalance(b.balance)
		c.setNonce(b.nonce)
		c.setTouched(b.lastTouch)
	}
	if from, to := max(at, s.first()), min(end, s.next()); from < to {
		clear(cells[from-at : to-at])
	}
}

// chunksOf lists the chunks that the section changes, ascending.
func (s *section) chunksOf() []uint32 {
	var out []uint32
	add := func(k uint32) {
		if n := len(out); n == 0 || out[n-1] != k {
			out = append(out, k)
		}
	}
	for i := range s.touches() {
		add(s.index(i) >> chunkLog)
	}
	for i := s.first(); i < s.next(); i++ {
		add(i >> chunkLog)
	}
	return out
}

// sectionOf finds the section of a slot among sections ascending by slot; nil: there is none.
func sectionOf(sections []section, slot int) *section {
	i, ok := slices.BinarySearchFunc(sections, slot, func(s section, slot int) int { return s.slot - slot })
	if !ok {
		return nil
	}
	return &sections[i]
}
