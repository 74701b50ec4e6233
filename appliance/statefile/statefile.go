// Package statefile is the file in which a shard's state travels by hand (`tutti state export`): a stream of sections,
// each with a digest of its own, so that damage is located. What the sections mean, and whether they are true, is the
// business of appliance/node; this package reads and writes them in bounded memory.
//
// # Layout
//
//	magic "tutti-state 1\n"
//	sections: kind 1, length 4, content, digest 32
//
// Numbers are big-endian. A digest is SHA-256(digest of the section before || kind || length || content), that of the
// first being over SHA-256(magic). So a section that is changed, missing, in another place or of another file is found
// where it stands. Kinds come in ascending order. Head, Final, Outline, Difference and End are there exactly once, Block
// at least once, the others any number of times:
//
//	Head        chain 32, shard 2, height of the state 8, height of the last block 8
//	Final       header of the block whose state it is, those after it, certificate (proof.Final)
//	Outline     ledger.Outline: the counters, under the state root
//	Difference  ledger.Difference of that block
//	Chunk       ledger.Chunk, ascending
//	Keys        ledger.AppendKeys, in the order of the directory
//	Outbox      ledger.Outbox, ascending by shard
//	Block       consensus.Block, ascending by height, from the one whose state it is on
//	End         number of sections before it 8; nothing follows
//
// A reader takes nothing into memory but one section, whose length is bounded by its kind.
package statefile

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"tutti/consensus"
	"tutti/state/ledger"
)

const magic = "tutti-state 1\n"

// Kind is what a section holds.
type Kind uint8

// The kinds, in the order of the file.
const (
	Head Kind = 1 + iota
	Final
	Outline
	Difference
	Chunk
	Keys
	Outbox
	Block
	End
)

// kinds is what is known of each, by Kind.
var kinds = [...]struct {
	name     string
	maxBytes int
	many     bool // any number of times
}{
	Head:       {"head", headBytes, false},
	Final:      {"final headers", 4 << 20, false},
	Outline:    {"outline", ledger.MaxOutlineBytes, false},
	Difference: {"difference", ledger.MaxDifferenceBytes, false},
	Chunk:      {"chunk", ledger.MaxChunkBytes, true},
	Keys:       {"keys", ledger.SegmentKeys * 54, true},
	Outbox:     {"outbox", ledger.MaxOutboxBytes, true},
	Block:      {"block", 4 + consensus.MaxHeaderBytes + consensus.MaxBodyBytes, true},
	End:        {"end", 8, false},
}

func (k Kind) known() bool { return k >= Head && k <= End }

// String names a kind.
func (k Kind) String() string {
	if !k.known() {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return kinds[k].name
}

// Info is the content of Head.
type Info struct {
	Chain  consensus.Hash // genesis hash
	Shard  consensus.ShardID
	Height consensus.Height // of the state
	Last   consensus.Height // of the last block
}

const headBytes = 32 + 2 + 8 + 8

// Append appends the encoding.
func (h *Info) Append(b []byte) []byte {
	b = append(b, h.Chain[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Shard))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Height))
	return binary.BigEndian.AppendUint64(b, uint64(h.Last))
}

// DecodeInfo decodes exactly one.
func DecodeInfo(b []byte) (Info, error) {
	if len(b) != headBytes {
		return Info{}, fmt.Errorf("statefile: head: %d bytes, need %d", len(b), headBytes)
	}
	be := binary.BigEndian
	return Info{
		consensus.Hash(b[:32]), consensus.ShardID(be.Uint16(b[32:])), consensus.Height(be.Uint64(b[34:])), consensus.Height(be.Uint64(b[42:])),
	}, nil
}

// ErrFormat says that it is no file of this kind, or of a newer version.
var ErrFormat = errors.New("not a state file that this build can read: 'tutti state export' of this or an older version makes one")

// DamageError says where a file is not what was written.
type DamageError struct {
	Section uint64 // number, from 0
	Kind    Kind   // 0: not known
	Offset  int64  // of the section in the file
	Detail  string
}

func (e *DamageError) Error() string {
	what := "a section"
	if e.Kind != 0 {
		what = "its " + e.Kind.String()
	}
	return fmt.Sprintf("the state file is damaged at byte %d (section %d, %s): %s: copy or export it again", e.Offset, e.Section, what, e.Detail)
}

// order follows the kinds that may come.
type order struct {
	last  Kind
	count uint64 // of sections
}

// next accepts a kind; a reason not to otherwise.
func (o *order) next(k Kind) string {
	switch {
	case !k.known():
		return "there is no such kind"
	case k < o.last || k == o.last && !kinds[k].many:
		return fmt.Sprintf("it follows %s", o.last)
	}
	for missing := o.last + 1; missing < k; missing++ {
		if !kinds[missing].many || missing == Block {
			return fmt.Sprintf("the %s is missing before it", missing)
		}
	}
	o.last = k
	o.count++
	return ""
}

// Writer writes a file. Its caller syncs and closes what it writes to.
type Writer struct {
	w     *bufio.Writer
	order order
	sum   [32]byte
	bytes int64
}

// NewWriter begins a file.
func NewWriter(w io.Writer) (*Writer, error) {
	out := &Writer{w: bufio.NewWriterSize(w, 1<<20), sum: sha256.Sum256([]byte(magic)), bytes: int64(len(magic))}
	_, err := out.w.WriteString(magic)
	return out, err
}

// Bytes is the size of the file so far.
func (w *Writer) Bytes() int64 { return w.bytes }

// Add writes a section. The caller keeps the order of the package comment; anything else is an error.
func (w *Writer) Add(k Kind, content []byte) error {
	if why := w.order.next(k); why != "" {
		return fmt.Errorf("statefile: write %s: %s", k, why)
	}
	if len(content) > kinds[k].maxBytes {
		return fmt.Errorf("statefile: write %s: %d bytes, limit %d", k, len(content), kinds[k].maxBytes)
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(k)}, uint32(len(content)))
	w.sum = digest(&w.sum, head, content)
	for _, b := range [...][]byte{head, content, w.sum[:]} {
		if _, err := w.w.Write(b); err != nil {
			return err
		}
		w.bytes += int64(len(b))
	}
	return nil
}

// Finish writes the end.
func (w *Writer) Finish() error {
	if err := w.Add(End, binary.BigEndian.AppendUint64(nil, w.order.count)); err != nil {
		return err
	}
	return w.w.Flush()
}

func digest(before *[32]byte, head, content []byte) [32]byte {
	d := sha256.New()
	d.Write(before[:])
	d.Write(head)
	d.Write(content)
	return [32]byte(d.Sum(nil))
}

// Reader reads a file from its beginning.
type Reader struct {
	r      *bufio.Reader
	order  order
	sum    [32]byte
	offset int64 // of the next section
	buf    []byte
	ended  bool
}

// NewReader reads the magic. The error may be ErrFormat.
func NewReader(r io.Reader) (*Reader, error) {
	in := &Reader{r: bufio.NewReaderSize(r, 1<<20), sum: sha256.Sum256([]byte(magic)), offset: int64(len(magic))}
	var got [len(magic)]byte
	if _, err := io.ReadFull(in.r, got[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("statefile: %w", err)
	}
	if string(got[:]) != magic {
		return nil, fmt.Errorf("statefile: %w", ErrFormat)
	}
	return in, nil
}

// Offset is how many bytes were read so far.
func (r *Reader) Offset() int64 { return r.offset }

// Next is the next section, whose digest is right and whose place is allowed; its content is valid until the next call.
// After End it is io.EOF. Errors: *DamageError; anything else is of the disk.
func (r *Reader) Next() (Kind, []byte, error) {
	damage := func(k Kind, format string, args ...any) (Kind, []byte, error) {
		return 0, nil, &DamageError{r.order.count, k, r.offset, fmt.Sprintf(format, args...)}
	}
	if r.ended {
		return 0, nil, io.EOF
	}
	var head [5]byte
	if cut, err := r.read(head[:]); err != nil {
		return 0, nil, err
	} else if cut {
		return damage(0, "the file ends here, before its end")
	}
	k, n := Kind(head[0]), int(binary.BigEndian.Uint32(head[1:]))
	if !k.known() || n > kinds[k].maxBytes {
		return damage(0, "no section begins here")
	}
	need := n + sha256.Size
	if cap(r.buf) < need {
		r.buf = make([]byte, need)
	}
	r.buf = r.buf[:need]
	if cut, err := r.read(r.buf); err != nil {
		return 0, nil, err
	} else if cut {
		return damage(k, "the file ends in it")
	}
	content := r.buf[:n:n]
	sum := digest(&r.sum, head[:], content)
	if sum != [32]byte(r.buf[n:]) {
		return damage(k, "it does not have its digest")
	}
	before := r.order.count
	if why := r.order.next(k); why != "" {
		return damage(k, "%s", why)
	}
	if k == End {
		if n != 8 || binary.BigEndian.Uint64(content) != before {
			return damage(k, "it counts other sections")
		}
		if cut, err := r.read(head[:1]); err != nil {
			return 0, nil, err
		} else if !cut {
			return damage(k, "something follows it")
		}
		r.ended = true
	}
	r.sum = sum
	r.offset += int64(len(head) + need)
	return k, content, nil
}

// read fills b; cut: the file ends before that.
func (r *Reader) read(b []byte) (cut bool, err error) {
	switch _, err := io.ReadFull(r.r, b); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("statefile: %w", err)
	}
	return false, nil
}
