package blocklog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/consensus"
)

// A file is a head and records.
//
//	head, 32 bytes:   "TUTTILOG" | version u16 | kind u8 | 0 u8 | number u64 | salt u64 | crc u32 over the 28 bytes before
//	record:           magic u32 | type u8 | 0 0 0 | meta length u32 | data length u32 | synced u32 | data crc u32 | head crc u32 | meta | data
//
// The head crc covers number, salt, the record's offset, the 24 bytes before it and meta, so that a record counts only in
// the place it was written to, and so that nobody who chooses a body's bytes can place a record in it. The data crc covers
// data. synced is the offset below which the file was durable when the record was written. Integers are big-endian.
// The version is FormatVersion, but floorVersion for a vote log that holds a floor, and echoVersion for a segment that holds
// echoes: a build that does not know them would take them for a torn tail or damage, and must refuse the file instead.
const (
	fileMagic        = "TUTTILOG"
	segmentHeadBytes = 32
	recordMagic      = 0x7e54ac0d
	recordHeadBytes  = 28
	maxMetaBytes     = 8 + max(consensus.MaxHeaderBytes, consensus.MaxCertificateBytes, consensus.VoteBytes)

	kindBlocks byte = 'b'
	kindVotes  byte = 'v'

	recordBlock byte = 1 // meta: header; data: body
	recordFinal byte = 2 // meta: height u64 of what it proves final, finalization of that or of an echo above
	recordVote  byte = 3 // meta: own vote
	recordCert  byte = 4 // meta: certificate
	recordFloor byte = 5 // meta: vote floor: shard u16, epoch u64, view u64

	floorVersion = 2
	echoVersion  = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identity is what ties a record to its file.
type identity struct{ number, salt uint64 }

func (id identity) headCRC(off int64, head, meta []byte) uint32 {
	var b [24]byte
	binary.BigEndian.PutUint64(b[0:], id.number)
	binary.BigEndian.PutUint64(b[8:], id.salt)
	binary.BigEndian.PutUint64(b[16:], uint64(off))
	crc := crc32.Checksum(b[:], castagnoli)
	crc = crc32.Update(crc, castagnoli, head)
	return crc32.Update(crc, castagnoli, meta)
}

// record is one decoded record head with its meta.
type record struct {
	typ      byte
	off      int64
	synced   int64
	meta     []byte
	dataLen  int64
	dataCRC  uint32
	dataFrom int64 // offset of data in the file
}

func (r record) end() int64 { return r.dataFrom + r.dataLen }

// appendRecord appends the encoding of a record that will stand at off.
func appendRecord(b []byte, id identity, off, synced int64, typ byte, meta, data []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, recordMagic)
	b = append(b, typ, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(meta)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint32(b, uint32(synced))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
	b = binary.BigEndian.AppendUint32(b, id.headCRC(off, b[at:], meta))
	b = append(b, meta...)
	return append(b, data...)
}

// errFrame says that no whole record stands at an offset.
var errFrame = errors.New("no valid record")

// parseRecord decodes the head and meta of the record at off from b, which begins there. Need is how many bytes of the
// file it takes to say more, when b is too short for that.
func parseRecord(b []byte, id identity, off, size int64) (r record, need int, err error) {
	if len(b) < recordHeadBytes {
		return r, recordHeadBytes, errFrame
	}
	be := binary.BigEndian
	meta, data := be.Uint32(b[8:]), be.Uint32(b[12:])
	if be.Uint32(b) != recordMagic || b[4] < recordBlock || b[4] > recordFloor || b[5]|b[6]|b[7] != 0 ||
		meta > uint32(maxMetaBytes) || data > consensus.MaxBodyBytes {
		return r, 0, errFrame
	}
	r = record{typ: b[4], off: off, synced: int64(be.Uint32(b[16:])), dataLen: int64(data), dataCRC: be.Uint32(b[20:])}
	r.dataFrom = off + recordHeadBytes + int64(meta)
	if r.end() > size || r.synced > off {
		return r, 0, errFrame
	}
	if need := recordHeadBytes + int(meta); len(b) < need {
		return r, need, errFrame
	}
	r.meta = b[recordHeadBytes : recordHeadBytes+int(meta)]
	if id.headCRC(off, b[:24], r.meta) != be.Uint32(b[24:]) {
		return r, 0, errFrame
	}
	return r, 0, nil
}

// file is an open file of records being read or written. Writes are by one goroutine.
type file struct {
	path    string
	f       vfs.File
	id      identity
	version byte
	size    int64  // bytes written
	synced  int64  // bytes durable
	buf     []byte // scratch for encoding; the file system may scribble on it
}

// maxScratch is how much scratch a file keeps between writes.
const maxScratch = 1 << 20

// fileHead encodes the head of a file.
func fileHead(kind, version byte, id identity) []byte {
	b := append([]byte(fileMagic), 0, version, kind, 0)
	b = binary.BigEndian.AppendUint64(b, id.number)
	b = binary.BigEndian.AppendUint64(b, id.salt)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// createFile makes a file with a durable head and no records. The directory is not synced.
func createFile(fs vfs.FS, path string, kind, version byte, number uint64) error {
	var salt [8]byte
	rand.Read(salt[:]) // never fails
	return writeFile(fs, path, fileHead(kind, version, identity{number, binary.BigEndian.Uint64(salt[:])}))
}

// writeFile makes a durable file with the given content. The directory is not synced.
func writeFile(fs vfs.FS, path string, content []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return &WriteError{"create", path, err}
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return &WriteError{"write", path, err}
	}
	return nil
}

// parseFileHead decodes the first 32 bytes of a file.
func parseFileHead(b []byte, kind byte, number uint64) (identity, error) {
	be := binary.BigEndian
	if len(b) < segmentHeadBytes || string(b[:8]) != fileMagic || crc32.Checksum(b[:28], castagnoli) != be.Uint32(b[28:]) {
		return identity{}, errors.New("the file's head is not readable")
	}
	if v := be.Uint16(b[8:]); v != FormatVersion && !(v == floorVersion && b[10] == kindVotes) && !(v == echoVersion && b[10] == kindBlocks) {
		return identity{}, fmt.Errorf("version %d: %w", v, ErrVersion)
	}
	id := identity{be.Uint64(b[12:]), be.Uint64(b[20:])}
	if b[10] != kind || b[11] != 0 || number != 0 && id.number != number {
		return identity{}, errors.New("the file's head belongs to another file")
	}
	return id, nil
}

// openFile opens a file for reading and appending. number 0 means any.
func openFile(fs vfs.FS, path string, kind byte, number uint64) (*file, error) {
	if _, err := fs.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, &CorruptionError{path, 0, "the file is missing"}
	}
	f, err := fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("blocklog: %w", err)
	}
	return readHead(f, path, kind, number)
}

// openSealed opens a file for reading.
func openSealed(fs vfs.FS, path string, kind byte, number uint64) (*file, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("blocklog: %w", err)
	}
	return readHead(f, path, kind, number)
}

func readHead(f vfs.File, path string, kind byte, number uint64) (*file, error) {
	r := &file{path: path, f: f}
	if err := r.readHead(kind, number); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (r *file) readHead(kind byte, number uint64) error {
	info, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("blocklog: %w", err)
	}
	r.size = info.Size()
	head, err := r.read(0, segmentHeadBytes)
	if err != nil {
		return err
	}
	if len(head) == segmentHeadBytes {
		r.version = head[9]
	}
	if r.id, err = parseFileHead(head, kind, number); errors.Is(err, ErrVersion) {
		return fmt.Errorf("blocklog: %s: %w", r.path, err)
	} else if err != nil {
		return &CorruptionError{r.path, 0, err.Error()}
	}
	return nil
}

// read reads up to n bytes at off, fewer only at the end of the file.
func (r *file) read(off int64, n int) ([]byte, error) {
	b := make([]byte, max(0, min(int64(n), r.size-off)))
	if got, err := r.f.ReadAt(b, off); got < len(b) {
		if err == io.EOF { // the file is shorter than when it was opened
			return nil, &CorruptionError{r.path, off + int64(got), "the file has become shorter"}
		}
		return nil, fmt.Errorf("blocklog: read %s: %w", r.path, err)
	}
	return b, nil
}

// at reads the record at off. errFrame means that none stands there.
func (r *file) at(off int64) (record, error) {
	const guess = 1024 // most metas fit
	b, err := r.read(off, guess)
	if err != nil {
		return record{}, err
	}
	rec, need, err := parseRecord(b, r.id, off, r.size)
	if need > len(b) {
		if b, err = r.read(off, need); err != nil {
			return record{}, err
		}
		rec, _, err = parseRecord(b, r.id, off, r.size)
	}
	return rec, err
}

// data reads and checks a record's data.
func (r *file) data(rec record) ([]byte, error) {
	b, err := r.read(rec.dataFrom, int(rec.dataLen))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != rec.dataCRC {
		return nil, errFrame
	}
	return b, nil
}

// scan visits the records in order. In the last file it reads all data too and returns where a torn tail begins, or the
// file's size. In any other file, and where a later record proves that a bad one was durable, it fails with
// *CorruptionError. An error of visit is taken as damage of that record.
func (r *file) scan(last bool, visit func(record) error) (end int64, err error) {
	off := int64(segmentHeadBytes)
	for off < r.size {
		rec, err := r.at(off)
		if err == nil && last {
			_, err = r.data(rec)
		}
		if errors.Is(err, errFrame) {
			if last {
				proven, err := r.provenAfter(off)
				if err != nil || !proven {
					return off, err
				}
			}
			return off, &CorruptionError{r.path, off, "a record that was durable cannot be read"}
		}
		if err != nil {
			return off, err
		}
		if err := visit(rec); err != nil {
			return off, &CorruptionError{r.path, off, err.Error()}
		}
		off = rec.end()
	}
	return off, nil
}

// provenAfter reports whether some record after off says that the bytes at off were durable when it was written.
func (r *file) provenAfter(off int64) (bool, error) {
	const window = 1 << 20
	magic := binary.BigEndian.AppendUint32(nil, recordMagic)
	for base := off + 1; base < r.size; base += window {
		b, err := r.read(base, window+len(magic)-1)
		if err != nil {
			return false, err
		}
		for i := 0; ; i++ {
			k := bytes.Index(b[i:], magic)
			if k < 0 {
				break
			}
			i += k
			rec, err := r.at(base + int64(i))
			if err == nil && rec.synced > off {
				return true, nil
			}
			if err != nil && !errors.Is(err, errFrame) {
				return false, err
			}
		}
	}
	return false, nil
}

// append writes a record at the end and returns its offset.
func (r *file) append(typ byte, meta, data []byte) (int64, error) {
	off := r.size
	r.buf = appendRecord(r.buf[:0], r.id, off, r.synced, typ, meta, data)
	n := int64(len(r.buf))
	_, err := r.f.WriteAt(r.buf, off)
	if cap(r.buf) > maxScratch {
		r.buf = nil
	}
	if err != nil {
		return 0, &WriteError{"write", r.path, err}
	}
	r.size += n
	return off, nil
}

func (r *file) sync() error {
	if r.synced == r.size {
		return nil
	}
	if err := r.f.SyncData(); err != nil {
		return &WriteError{"sync", r.path, err}
	}
	r.synced = r.size
	return nil
}

func (r *file) close() error {
	if err := r.f.Close(); err != nil {
		return &WriteError{"close", r.path, err}
	}
	return nil
}
