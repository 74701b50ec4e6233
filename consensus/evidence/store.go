package evidence

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

	"tutti/consensus"
	"tutti/consensus/durable"
)

// Bounds of a store. The first proofs are kept: one is enough to slash, and whoever goes on contradicting itself gains no
// room from others.
const (
	MaxProofs       = 16_384 // in all
	PerValidator    = 8      // of a validator in an epoch, by votes
	PerCommittee    = 64     // of a committee, by certificates
	storeMagic      = "TUTTIEVD"
	storeVersion    = 1
	storeHeadBytes  = len(storeMagic) + 2 + 32 + 4
	recordHeadBytes = 4 + 4
	maxStoreBytes   = int64(storeHeadBytes + MaxProofs*(recordHeadBytes+MaxBytes))
	noValidator     = 0xffff // in an offence by certificates
)

// Errors of OpenStore.
var (
	ErrVersion = errors.New("the file of evidence has a format that this build does not know: install the version of tutti that wrote it, or a later one")
	ErrDamaged = errors.New("the file of evidence is damaged: check the disk, move the file aside and start again; what can still be read of it is worth keeping")
)

// Outcome says what a store did with a proof.
type Outcome uint8

const (
	Added Outcome = iota // it is durable
	Known                // the store has a proof of this offence
	Full                 // there is no room: it was dropped
)

// Store keeps proofs in one file, durably and bounded, one for each offence: validator, view and pair of kinds. The file is
//
//	head:   "TUTTIEVD" | version u16 | chain 32 | crc u32 over what is before
//	record: length u32 | crc u32 over length and proof | proof
//
// with CRC-32C (Castagnoli), big-endian. Each record is synced before Add returns, so that only the last one can be torn by a
// crash; OpenStore cuts that off. It does not verify: the caller does before Add. Safe for concurrent use; one process has
// the file open at a time (the home's lock).
type Store struct {
	mu     sync.Mutex // guards what follows
	fs     vfs.FS
	path   string
	f      vfs.File
	size   int64
	failed error // the first failed write or sync; sticky
	proofs []*Proof
	known  map[offence]bool
	count  map[holder]int
}

// offence is what there is one proof of.
type offence struct {
	shard         consensus.ShardID
	epoch         consensus.Epoch
	view          consensus.View
	first, second consensus.Kind
	validator     uint16 // noValidator for certificates
}

// holder is who has a bounded number of proofs.
type holder struct {
	shard     consensus.ShardID
	epoch     consensus.Epoch
	validator uint16
}

func (p *Proof) offence() offence {
	st := p.Statements()
	o := offence{st[0].Shard, st[0].Epoch, st[0].View, st[0].Kind, st[1].Kind, noValidator}
	if p.Votes != nil {
		o.validator = p.Votes[0].Validator
	}
	return o
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenStore opens the file at path, whose folder exists, or makes it. Proofs of another chain are refused, as damage is:
// the error says what to do. A torn last record is cut off.
func OpenStore(fs vfs.FS, path string, chain consensus.Hash) (*Store, error) {
	s := &Store{fs: fs, path: path, known: map[offence]bool{}, count: map[holder]int{}}
	head := storeHead(chain)
	b, err := readStore(fs, path)
	if errors.Is(err, os.ErrNotExist) {
		b, err = head, durable.Replace(fs, path, head)
	}
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	if err := checkHead(b, head); err != nil {
		return nil, fmt.Errorf("evidence: %s: %w", path, err)
	}
	whole, err := s.read(b, chain)
	if err != nil {
		return nil, fmt.Errorf("evidence: %s: %w", path, err)
	}
	if whole < len(b) {
		if err := durable.Replace(fs, path, b[:whole]); err != nil {
			return nil, fmt.Errorf("evidence: %w", err)
		}
	}
	if s.f, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	s.size = int64(whole)
	if err := s.f.Sync(); err != nil { // what was read may not have been durable before
		return nil, fmt.Errorf("evidence: sync %s: %w", path, errors.Join(err, s.f.Close()))
	}
	return s, nil
}

func storeHead(chain consensus.Hash) []byte {
	b := append([]byte(nil), storeMagic...)
	b = binary.BigEndian.AppendUint16(b, storeVersion)
	b = append(b, chain[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func readStore(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxStoreBytes+1))
	return b, errors.Join(err, f.Close())
}

func checkHead(b, want []byte) error {
	switch crcAt := storeHeadBytes - 4; {
	case len(b) < storeHeadBytes || string(b[:len(storeMagic)]) != storeMagic:
		return ErrDamaged
	case binary.BigEndian.Uint16(b[len(storeMagic):]) != storeVersion:
		return fmt.Errorf("version %d: %w", binary.BigEndian.Uint16(b[len(storeMagic):]), ErrVersion)
	case binary.BigEndian.Uint32(b[crcAt:]) != crc32.Checksum(b[:crcAt], castagnoli):
		return ErrDamaged
	case string(b[:storeHeadBytes]) != string(want):
		return ErrOtherChain
	}
	return nil
}

// read takes in all records and returns where the last whole one ends.
func (s *Store) read(b []byte, chain consensus.Hash) (int, error) {
	off := storeHeadBytes
	for off < len(b) {
		raw, end := recordAt(b, off)
		if raw == nil {
			for at := off + 1; at < len(b); at++ {
				if raw, _ := recordAt(b, at); raw != nil { // written later, so what is at off was durable
					return 0, fmt.Errorf("at byte %d: %w", off, ErrDamaged)
				}
			}
			return off, nil
		}
		p, err := Decode(raw)
		if err != nil {
			return 0, fmt.Errorf("at byte %d: %w (%w)", off, ErrDamaged, err)
		}
		if p.Chain != chain || len(s.proofs) >= MaxProofs {
			return 0, fmt.Errorf("at byte %d: %w", off, ErrDamaged)
		}
		s.take(p)
		off = end
	}
	return off, nil
}

// recordAt is the proof in the record at off, and the record's end; nil if there is no whole record.
func recordAt(b []byte, off int) (raw []byte, end int) {
	if len(b)-off < recordHeadBytes {
		return nil, 0
	}
	n := int(binary.BigEndian.Uint32(b[off:]))
	from := off + recordHeadBytes
	if n < headBytes || n > MaxBytes || len(b)-from < n || string(b[from:from+len(magic)]) != magic {
		return nil, 0
	}
	raw = b[from : from+n]
	if binary.BigEndian.Uint32(b[off+4:]) != recordCRC(b[off:off+4], raw) {
		return nil, 0
	}
	return raw, from + n
}

func recordCRC(length, raw []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, raw)
}

func (s *Store) take(p *Proof) {
	o := p.offence()
	s.proofs = append(s.proofs, p)
	s.known[o] = true
	s.count[holder{o.shard, o.epoch, o.validator}]++
}

// Add keeps a proof unless the store has one of the offence or no room. With Added it is durable. After a failed write or
// sync every Add fails with that error, and nothing is kept.
func (s *Store) Add(p *Proof) (Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := p.offence()
	limit := PerValidator
	if o.validator == noValidator {
		limit = PerCommittee
	}
	switch {
	case s.known[o]:
		return Known, nil
	case len(s.proofs) >= MaxProofs || s.count[holder{o.shard, o.epoch, o.validator}] >= limit:
		return Full, nil
	case s.failed != nil:
		return Full, s.failed
	}
	raw := p.Append(nil)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	b = binary.BigEndian.AppendUint32(b, recordCRC(b, raw))
	b = append(b, raw...)
	n := int64(len(b))
	_, err := s.f.WriteAt(b, s.size)
	if err == nil {
		err = s.f.SyncData()
	}
	if err != nil {
		s.failed = fmt.Errorf("evidence: write %s: %w: check the disk and start again", s.path, err)
		return Full, s.failed
	}
	s.size += n
	s.take(p)
	return Added, nil
}

// Proofs are up to limit proofs in the order they came in, from number from on, and how many there are. They are shared and
// not modified.
func (s *Store) Proofs(from, limit int) (page []*Proof, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total = len(s.proofs)
	from = min(max(from, 0), total)
	return slices.Clone(s.proofs[from:min(from+max(limit, 0), total)]), total
}

// Close releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.f.Close(); err != nil {
		return fmt.Errorf("evidence: close %s: %w", s.path, err)
	}
	return nil
}
