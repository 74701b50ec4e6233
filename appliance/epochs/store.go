// Package epochs keeps what a node has to know of the epochs of its shard: the hand-overs, from the genesis' committee to the
// newest one, and the block that the next committee is drawn from. The committee of any epoch follows from it, and light clients
// are served from it. Nothing in it is ever dropped: a hand-over has a few hundred bytes, and 88 for each seat.
//
// In: hand-overs that were verified (by the own engine, or proof.Trust.Advance), in order. Out: the same, durably. The store
// checks that they are a chain, by hashes; it checks no signature.
//
// One file, append-only, CRC-32C (Castagnoli), big-endian:
//
//	head:   "TUTTIEPO" | version u16 | chain 32 | shard u16 | crc u32 over what is before
//	record: length u32 | crc u32 over length and content | content: kind u8, then
//	        1: proof.Handover, out of the epoch that was the newest
//	        2: middle: epoch 8, hash 32 of the block that the committee after that epoch's is drawn from
//
// Each record is synced before Add or SetMiddle returns, so that only the last one can be torn by a crash; Open cuts that
// off. After a failed write or sync every further one fails with that error, and the node ends.
package epochs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/durable"
)

const (
	magic           = "TUTTIEPO"
	version         = 1
	headBytes       = len(magic) + 2 + 32 + 2 + 4
	recordHeadBytes = 4 + 4
	maxContent      = 1 + proof.MaxHandoverBytes
	kindHandover    = 1
	kindMiddle      = 2
	middleBytes     = 1 + 8 + 32
)

// Errors of a store.
var (
	ErrVersion = errors.New("the file of hand-overs has a format that this build does not know: install the version of tutti that wrote it, or a later one")
	ErrDamaged = errors.New("the file of hand-overs is damaged: check the disk, then run once 'tutti run --resync', which copies it from the other validators")
	ErrOther   = errors.New("the file of hand-overs is of another chain or shard: point --home at the right folder")
	ErrUnknown = errors.New("the epoch is not known here")
	ErrOrder   = errors.New("the hand-over does not follow the newest one")
)

// Term is an epoch and who has its seats.
type Term struct {
	Committee *consensus.Committee
	Start     consensus.Height // of the last block of the epoch before; 0 in the first
	Block     consensus.Hash   // that block; zero in the first
}

// Store keeps the hand-overs of one shard. Safe for concurrent use; one process has the file open at a time (the home's lock).
type Store struct {
	fs    vfs.FS
	path  string
	chain consensus.Hash
	first *consensus.Committee

	mu     sync.Mutex // guards what follows
	f      vfs.File
	size   int64
	failed error
	newest Term
	at     []int64         // offset of the record of the hand-over out of first.Epoch + i
	middle *consensus.Hash // of the newest epoch
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open opens the file at path, whose folder exists, or makes it. first is the genesis' committee of the shard.
func Open(fs vfs.FS, path string, chain consensus.Hash, first *consensus.Committee) (*Store, error) {
	s := &Store{fs: fs, path: path, chain: chain, first: first, newest: Term{Committee: first}}
	if _, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := durable.Replace(fs, path, s.head()); err != nil {
			return nil, fmt.Errorf("epochs: %w", err)
		}
	}
	var err error
	if s.f, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified); err != nil {
		return nil, fmt.Errorf("epochs: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("epochs: %s: %w", path, errors.Join(err, s.f.Close()))
	}
	return s, nil
}

func (s *Store) head() []byte {
	b := binary.BigEndian.AppendUint16([]byte(magic), version)
	b = append(b, s.chain[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(s.first.Shard))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// load reads all records, and cuts a torn last one off.
func (s *Store) load() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, headBytes)
	if _, err := s.f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	want, crcAt := s.head(), headBytes-4
	switch {
	case info.Size() < int64(headBytes) || string(head[:len(magic)]) != magic:
		return ErrDamaged
	case binary.BigEndian.Uint16(head[len(magic):]) != version:
		return fmt.Errorf("version %d: %w", binary.BigEndian.Uint16(head[len(magic):]), ErrVersion)
	case binary.BigEndian.Uint32(head[crcAt:]) != crc32.Checksum(head[:crcAt], castagnoli):
		return ErrDamaged
	case string(head) != string(want):
		return ErrOther
	}
	s.size = int64(headBytes)
	for s.size < info.Size() {
		content, err := s.record(s.size, info.Size())
		if err != nil {
			return err
		}
		if content == nil {
			return s.cut(info.Size())
		}
		if err := s.take(content, s.size); err != nil {
			return fmt.Errorf("at byte %d: %w: %w", s.size, ErrDamaged, err)
		}
		s.size += int64(recordHeadBytes + len(content))
	}
	return s.f.Sync() // what was read may not have been durable before
}

// record is the content of the record at off in a file of a size; nil if there is no whole record.
func (s *Store) record(off, size int64) ([]byte, error) {
	var head [recordHeadBytes]byte
	if size-off < recordHeadBytes {
		return nil, nil
	}
	if _, err := s.f.ReadAt(head[:], off); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n == 0 || n > int64(maxContent) || off+recordHeadBytes+n > size {
		return nil, nil
	}
	b := make([]byte, n)
	if _, err := s.f.ReadAt(b, off+recordHeadBytes); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(head[4:]) != recordCRC(head[:4], b) {
		return nil, nil
	}
	return b, nil
}

func recordCRC(length, content []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, content)
}

// cut takes the torn record at the end off. What is longer than one, or has a whole record in it, was durable once.
func (s *Store) cut(size int64) error {
	if size-s.size > int64(recordHeadBytes+maxContent) {
		return fmt.Errorf("at byte %d: %w", s.size, ErrDamaged)
	}
	rest := make([]byte, size-s.size)
	if _, err := s.f.ReadAt(rest, s.size); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for at := 1; at+recordHeadBytes < len(rest); at++ {
		n := int(binary.BigEndian.Uint32(rest[at:]))
		from := at + recordHeadBytes
		if n > 0 && n <= len(rest)-from && binary.BigEndian.Uint32(rest[at+4:]) == recordCRC(rest[at:at+4], rest[from:from+n]) {
			return fmt.Errorf("at byte %d: %w", s.size, ErrDamaged)
		}
	}
	// A file of the same name without the torn record, durable before it has the name: vfs can not make a file shorter.
	whole := make([]byte, s.size)
	if _, err := s.f.ReadAt(whole, 0); err != nil {
		return err
	}
	if err := durable.Replace(s.fs, s.path, whole); err != nil {
		return err
	}
	f, err := s.fs.OpenReadWrite(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	old := s.f
	s.f = f
	return old.Close()
}

// take takes a record in.
func (s *Store) take(content []byte, off int64) error {
	switch {
	case content[0] == kindHandover:
		h, err := proof.DecodeHandover(content[1:])
		if err != nil {
			return err
		}
		if err := s.follows(h); err != nil {
			return err
		}
		s.at = append(s.at, off)
		s.newest, s.middle = termAfter(h), nil
		return nil
	case content[0] == kindMiddle && len(content) == middleBytes:
		if epoch := consensus.Epoch(binary.BigEndian.Uint64(content[1:])); epoch != s.newest.Committee.Epoch || s.middle != nil {
			return fmt.Errorf("the middle of epoch %d, after that of epoch %d: %w", epoch, s.newest.Committee.Epoch, ErrOrder)
		}
		m := consensus.Hash(content[9:])
		s.middle = &m
		return nil
	}
	return fmt.Errorf("a record of kind %d and %d bytes", content[0], len(content))
}

func termAfter(h *proof.Handover) Term {
	return Term{Committee: h.Next, Start: h.End.Last.Height, Block: h.End.Last.Hash()}
}

// follows checks that a hand-over leads on from the newest epoch.
func (s *Store) follows(h *proof.Handover) error {
	b, c := h.End.Last, s.newest.Committee
	if b.Chain != s.chain || b.Shard != c.Shard || b.Epoch != c.Epoch || b.Committee != c.Hash() || b.Height <= s.newest.Start ||
		b.NextCommittee != h.Next.Hash() || h.Next.Shard != c.Shard || h.Next.Epoch != c.Epoch+1 {
		return fmt.Errorf("out of epoch %d of shard %d at height %d, the newest is %d: %w", b.Epoch, b.Shard, b.Height, c.Epoch, ErrOrder)
	}
	return nil
}

// Newest is the newest epoch that is known.
func (s *Store) Newest() Term {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// Add makes the hand-over out of the newest epoch durable. The caller has verified it.
func (s *Store) Add(h *proof.Handover) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.follows(h); err != nil {
		return fmt.Errorf("epochs: %w", err)
	}
	return s.append(h.Append([]byte{kindHandover}))
}

// SetMiddle makes durable which block the committee after that of the newest epoch is drawn from. Said again of the same
// epoch, or of an earlier one, it changes nothing.
func (s *Store) SetMiddle(epoch consensus.Epoch, block consensus.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.newest.Committee.Epoch
	switch {
	case epoch < newest:
		return nil
	case epoch > newest:
		return fmt.Errorf("epochs: the middle of epoch %d, the newest known is %d: %w", epoch, newest, ErrOrder)
	case s.middle != nil && *s.middle != block:
		return fmt.Errorf("epochs: block %s is in the middle of epoch %d, where %s is known: %w", block.Short(), epoch, s.middle.Short(), ErrOrder)
	case s.middle != nil:
		return nil
	}
	b := binary.BigEndian.AppendUint64([]byte{kindMiddle}, uint64(epoch))
	return s.append(append(b, block[:]...))
}

// append writes and syncs a record, and takes it in. The caller holds mu.
func (s *Store) append(content []byte) error {
	if s.failed != nil {
		return s.failed
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	b = binary.BigEndian.AppendUint32(b, recordCRC(b, content))
	b = append(b, content...)
	n := int64(len(b))
	_, err := s.f.WriteAt(slices.Clone(b), s.size) // vfs may modify what it writes
	if err == nil {
		err = s.f.Sync()
	}
	if err != nil {
		s.failed = fmt.Errorf("epochs: write %s: %w: check the disk and start again", s.path, err)
		return s.failed
	}
	off := s.size
	s.size += n
	return s.take(content, off)
}

// Middle is the block that the committee after that of an epoch is drawn from, if the epoch is the newest and that is known.
func (s *Store) Middle(epoch consensus.Epoch) (consensus.Hash, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.middle == nil || epoch != s.newest.Committee.Epoch {
		return consensus.Hash{}, false
	}
	return *s.middle, true
}

// Term is an epoch that is known. Error: ErrUnknown, or of the disk.
func (s *Store) Term(epoch consensus.Epoch) (Term, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case epoch == s.newest.Committee.Epoch:
		return s.newest, nil
	case epoch == s.first.Epoch:
		return Term{Committee: s.first}, nil
	case epoch < s.first.Epoch || epoch > s.newest.Committee.Epoch:
		return Term{}, fmt.Errorf("epochs: epoch %d, known are %d to %d: %w", epoch, s.first.Epoch, s.newest.Committee.Epoch, ErrUnknown)
	}
	h, err := s.read(epoch - 1)
	if err != nil {
		return Term{}, err
	}
	return termAfter(h), nil
}

// Handovers are those out of an epoch and the following ones, at most limit of them and most bytes, but for the first.
func (s *Store) Handovers(from consensus.Epoch, limit, mostBytes int) (out []*proof.Handover, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for bytes := 0; len(out) < limit && from < s.newest.Committee.Epoch && from >= s.first.Epoch && bytes < mostBytes; from++ {
		h, err := s.read(from)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
		bytes += s.bytes(from)
	}
	return out, nil
}

// bytes is the size of a record. The caller holds mu.
func (s *Store) bytes(out consensus.Epoch) int {
	i := int(out - s.first.Epoch)
	if i+1 < len(s.at) {
		return int(s.at[i+1] - s.at[i])
	}
	return int(s.size - s.at[i])
}

// read reads the hand-over out of an epoch that has one. The caller holds mu.
func (s *Store) read(out consensus.Epoch) (*proof.Handover, error) {
	content, err := s.record(s.at[out-s.first.Epoch], s.size)
	if err == nil && content == nil {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("epochs: the hand-over out of epoch %d in %s: %w", out, s.path, err)
	}
	return proof.DecodeHandover(content[1:])
}

// Close releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.f.Close(); err != nil {
		return fmt.Errorf("epochs: close %s: %w", s.path, err)
	}
	return nil
}
