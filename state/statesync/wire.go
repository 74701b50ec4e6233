package statesync

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tutti/state/ledger"
)

// A message is one type byte and its fields; integers are big-endian. Every message has exactly one encoding.
//
//	request  0x01 outline:      empty
//	         0x02 chunks:       count 1 (1 to MaxChunks), count * (partition 2, index 4), ascending
//	         0x03 differences:  from height 8, at most bytes 4 (1 to MaxDifferenceBytes)
//	         0x04 tops:         from segment 8, at most 4 (1 to ledger.MaxTops)
//	         0x05 keys:         from place 8, at most 4 (1 to MaxKeys)
//	         0x06 outbox:       shard 2, from sequence number 8, to 8
//	answer   0x11 outline:      ledger.Outline
//	         0x12 chunks:       count 1 (1 to MaxChunks), count * (length 4, ledger.Chunk): the first ones of those asked for
//	         0x13 differences:  count 2 (1 to maxDifferences), count * (length 4, ledger.Difference)
//	         0x14 tops:         32 bytes each, 1 to those asked for
//	         0x15 keys:         54 bytes each, 1 to those asked for
//	         0x16 outbox:       ledger.Outbox
//	         0x1f refusal:      why 1, wait 4 in milliseconds (at most MaxWait), kept from height 8
//
// What the ledger's parts look like is the ledger's business; here they are bytes with a length.
const (
	typeOutline     = 0x01
	typeChunks      = 0x02
	typeDifferences = 0x03
	typeTops        = 0x04
	typeKeys        = 0x05
	typeOutbox      = 0x06
	answerBit       = 0x10
	typeRefusal     = 0x1f
)

// Limits that both sides enforce.
const (
	MaxRequestBytes    = 2 + MaxChunks*chunkIDBytes
	MaxAnswerBytes     = 16 << 20
	MaxDifferenceBytes = 8 << 20 // asked for at a time; a larger difference comes alone
	MaxChunks          = 16      // in one request: 4 MiB
	MaxKeys            = 16 * ledger.SegmentKeys
	MaxWait            = time.Minute

	maxDifferences = 4096
	chunkIDBytes   = 2 + 4
	refusalBytes   = 1 + 1 + 4 + 8
	keyBytes       = 6 + 48
	topBytes       = 32
)

// ErrMalformed wraps every decoding error of this package.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("statesync: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// why is the word of a refusal.
type why uint8

const (
	busy    why = 1 // more is asked than this peer gives: come back after the wait
	notKept why = 2 // differences from that height on are not kept any more; kept says from which on they are
	notHere why = 3 // the peer has no such part, or none yet
)

func (w why) String() string {
	switch w {
	case busy:
		return "busy"
	case notKept:
		return "not kept any more"
	}
	return "not here"
}

// refusal is an answer without a part.
type refusal struct {
	why  why
	wait time.Duration // whole milliseconds, at most MaxWait
	kept uint64        // notKept: differences are kept from this height on; otherwise 0
}

func (r refusal) Error() string {
	if r.wait > 0 {
		return fmt.Sprintf("refused: %s, for %v", r.why, r.wait)
	}
	return "refused: " + r.why.String()
}

func (r refusal) encode() []byte {
	b := append(make([]byte, 0, refusalBytes), typeRefusal, byte(r.why))
	b = binary.BigEndian.AppendUint32(b, uint32(min(r.wait, MaxWait).Milliseconds()))
	return binary.BigEndian.AppendUint64(b, r.kept)
}

// request is a decoded request; typ says which fields count.
type request struct {
	typ    byte
	chunks []ledger.ChunkID
	from   uint64 // height, segment, place or sequence number
	to     uint64 // sequence number
	most   uint32 // bytes of differences, or number of tops or keys
	shard  uint16
}

func (r *request) encode() []byte {
	b := []byte{r.typ}
	switch r.typ {
	case typeChunks:
		b = append(b, byte(len(r.chunks)))
		for _, c := range r.chunks {
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, c.Partition), c.Index)
		}
	case typeDifferences, typeTops, typeKeys:
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, r.from), r.most)
	case typeOutbox:
		b = binary.BigEndian.AppendUint16(b, r.shard)
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.from), r.to)
	}
	return b
}

func decodeRequest(b []byte) (*request, error) {
	if len(b) == 0 || len(b) > MaxRequestBytes {
		return nil, malformed("a request of %d bytes", len(b))
	}
	r := &request{typ: b[0]}
	f := fields{b: b[1:]}
	switch r.typ {
	case typeOutline:
	case typeChunks:
		n := int(f.u8())
		f.need(n >= 1 && n <= MaxChunks)
		for i := 0; i < n && !f.bad; i++ {
			r.chunks = append(r.chunks, ledger.ChunkID{Partition: f.u16(), Index: f.u32()})
			f.need(i == 0 || before(r.chunks[i-1], r.chunks[i]))
		}
	case typeDifferences, typeTops, typeKeys:
		r.from, r.most = f.u64(), f.u32()
		f.need(r.most >= 1 && r.most <= most[r.typ])
	case typeOutbox:
		r.shard, r.from, r.to = f.u16(), f.u64(), f.u64()
		f.need(r.from < r.to)
	default:
		f.bad = true
	}
	if f.bad || len(f.b) > 0 {
		return nil, malformed("request of type %#02x", r.typ)
	}
	return r, nil
}

// most is the limit of request.most by type.
var most = map[byte]uint32{typeDifferences: MaxDifferenceBytes, typeTops: ledger.MaxTops, typeKeys: MaxKeys}

func before(a, b ledger.ChunkID) bool {
	return a.Partition < b.Partition || a.Partition == b.Partition && a.Index < b.Index
}

// decodeAnswer decodes exactly one answer to a request: chunks or differences, each with its own encoding, otherwise the
// whole part in one. They alias b and are not looked into. A refusal is the error.
func decodeAnswer(r *request, b []byte) (parts [][]byte, err error) {
	if len(b) == 0 || len(b) > MaxAnswerBytes {
		return nil, malformed("an answer of %d bytes", len(b))
	}
	if b[0] == typeRefusal {
		return nil, decodeRefusal(b)
	}
	f := fields{b: b[1:]}
	f.need(b[0] == r.typ|answerBit)
	switch r.typ {
	case typeChunks:
		n := int(f.u8())
		f.need(n >= 1 && n <= len(r.chunks))
		parts = f.list(n)
	case typeDifferences:
		n := int(f.u16())
		f.need(n >= 1 && n <= maxDifferences)
		parts = f.list(n)
	case typeTops:
		parts = f.fixed(topBytes, int(r.most))
	case typeKeys:
		parts = f.fixed(keyBytes, int(r.most))
	default:
		parts = f.fixed(1, MaxAnswerBytes)
	}
	if f.bad || len(f.b) > 0 {
		return nil, malformed("an answer of type %#02x and %d bytes to a request of type %#02x", b[0], len(b), r.typ)
	}
	return parts, nil
}

func decodeRefusal(b []byte) error {
	f := fields{b: b[1:]}
	r := refusal{why: why(f.u8()), wait: time.Duration(f.u32()) * time.Millisecond, kept: f.u64()}
	f.need(r.why >= busy && r.why <= notHere && r.wait <= MaxWait && (r.kept == 0 || r.why == notKept))
	if f.bad || len(f.b) > 0 {
		return malformed("a refusal of %d bytes", len(b))
	}
	return r
}

// appendSized appends what f appends behind its length, 4 bytes.
func appendSized(b []byte, f func([]byte) []byte) []byte {
	at := len(b)
	b = f(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// fields takes big-endian values from the front of b; after the first failure it gives zeros.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) need(ok bool) { f.bad = f.bad || !ok }

func (f *fields) take(n int) []byte {
	if f.bad || n > len(f.b) {
		f.bad, f.b = true, nil
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) u8() (v uint8) {
	if b := f.take(1); b != nil {
		v = b[0]
	}
	return v
}

func (f *fields) u16() (v uint16) {
	if b := f.take(2); b != nil {
		v = binary.BigEndian.Uint16(b)
	}
	return v
}

func (f *fields) u32() (v uint32) {
	if b := f.take(4); b != nil {
		v = binary.BigEndian.Uint32(b)
	}
	return v
}

func (f *fields) u64() (v uint64) {
	if b := f.take(8); b != nil {
		v = binary.BigEndian.Uint64(b)
	}
	return v
}

// list takes n parts, each behind its length of 4 bytes.
func (f *fields) list(n int) (parts [][]byte) {
	for i := 0; i < n && !f.bad; i++ {
		size := f.u32()
		f.need(size >= 1 && size <= MaxAnswerBytes)
		parts = append(parts, f.take(int(size)))
	}
	return parts
}

// fixed takes the rest, which is 1 to most entries of some bytes each, as one part.
func (f *fields) fixed(bytes, most int) [][]byte {
	n := len(f.b) / bytes
	f.need(n >= 1 && n <= most && len(f.b)%bytes == 0)
	return [][]byte{f.take(len(f.b))}
}
