// Package trace records what a machine of consensus/simplex was told and what it wanted done, and checks such a record: a
// fresh machine that is told the same has to want the same. A trace that passes shows that every step a running node took
// is one that the machine allows, votes and their order included.
//
// In: a machine's configuration, its events and its Readys, from the goroutine that owns it (Writer). Out: a bounded file of
// frames, and the verdict on one (Check). A trace holds no secret: the check has public keys only, and gives its machine
// the signatures that the trace has, after it has verified them.
//
// # Format
//
// A trace is a sequence of frames: length u32 | CRC-32C of payload u32 | payload. Integers are big-endian. A payload begins
// with its type:
//
//	1 start   magic "TUTTITRC" | version u8 | chain 32 | committee hash 32 | index i32 | timing: view i64 ns, cap i64 ns,
//	          growth i32 | limits: window u64, depth i32, tail depth u64, tail body i32, reach u64 | root header | root cert
//	2 record  u8: 1 vote, 2 certificate, 3 floor (shard u16, epoch u64, view u64)
//	3 block   block
//	4 step    event (nothing in the first step, which is the making of the machine) | ready
//
// A start is followed by the records and blocks that the machine was made from, in order, and then by steps. A life of a
// node is one trace. Header: length u32, header. Certificate: length u16, certificate, 0 for none. Block: header, body
// length u32, body. Vote: as in package consensus. Event: kind u8 and its fields in order. Ready: number of own votes u16,
// those votes, SHA-256 of everything in the Ready in order (digest.go).
//
// A trace may end anywhere, as a process may: what is left of the last frame is not looked at. A frame with a wrong CRC that
// is not the last is an error, and so is everything that no Writer writes.
package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Types of frames.
const (
	frameStart byte = 1 + iota
	frameRecord
	frameBlock
	frameStep
)

// Kinds of events in a step.
const (
	eventNone byte = iota
	eventProposal
	eventVote
	eventCertificate
	eventFetched
	eventBuilt
	eventJudged
	eventTimer
	eventTick
	eventSynced
	eventPart
	eventRebuilt
)

const (
	magic   = "TUTTITRC"
	version = 1

	frameHead = 8
	maxVotes  = 4096 // own votes in a Ready
	maxFrame  = consensus.MaxBodyBytes + 2*consensus.MaxHeaderBytes + 2*consensus.MaxCertificateBytes + (maxVotes+4)*consensus.VoteBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFull is what a Writer's Err wraps when the trace has reached its size.
var ErrFull = errors.New("trace: the trace is full: give it more bytes or begin another one")

// Writer writes one trace. It is not safe for concurrent use. After an error, or with the size reached, it writes nothing
// more and Err says why; tracing never stops the machine. A nil Writer does nothing.
type Writer struct {
	w    io.Writer
	left int64
	buf  []byte
	err  error
}

// NewWriter writes at most size bytes to w, whole frames only, one Write for each.
func NewWriter(w io.Writer, size int64) *Writer { return &Writer{w: w, left: size} }

// Err is why the writer has stopped; nil while it has not.
func (t *Writer) Err() error {
	if t == nil {
		return nil
	}
	return t.err
}

// Start begins the trace with what a machine is about to be made from. It comes first, before simplex.New.
func (t *Writer) Start(c *simplex.Config) {
	if t == nil {
		return
	}
	timing, limits := c.Timing, c.Limits
	if timing == (simplex.Timing{}) {
		timing = simplex.DefaultTiming()
	}
	if limits == (simplex.Limits{}) {
		limits = simplex.DefaultLimits()
	}
	b := append(t.begin(frameStart), magic...)
	b = append(b, version)
	b = append(b, c.Chain[:]...)
	hash := c.Committee.Hash()
	b = append(b, hash[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(int32(c.Index)))
	b = binary.BigEndian.AppendUint64(b, uint64(timing.View))
	b = binary.BigEndian.AppendUint64(b, uint64(timing.Cap))
	b = binary.BigEndian.AppendUint32(b, uint32(int32(timing.GrowthPercent)))
	b = binary.BigEndian.AppendUint64(b, uint64(limits.Window))
	b = binary.BigEndian.AppendUint32(b, uint32(int32(limits.Depth)))
	b = binary.BigEndian.AppendUint64(b, uint64(limits.TailDepth))
	b = binary.BigEndian.AppendUint32(b, uint32(int32(limits.TailBody)))
	b = binary.BigEndian.AppendUint64(b, uint64(limits.Reach))
	b = appendHeader(b, c.Root)
	t.end(appendCert(b, &c.RootCert))
	for _, r := range c.Log {
		t.end(appendRecord(t.begin(frameRecord), r))
	}
	for _, bl := range c.Blocks {
		t.end(appendBlock(t.begin(frameBlock), bl))
	}
}

// Made is the Ready that simplex.New returned.
func (t *Writer) Made(r simplex.Ready) {
	if t != nil {
		t.end(appendReady(append(t.begin(frameStep), eventNone), r))
	}
}

// Step is one event and what the machine made of it.
func (t *Writer) Step(e simplex.Event, r simplex.Ready) {
	if t == nil || t.err != nil {
		return
	}
	b, err := appendEvent(t.begin(frameStep), e)
	if err != nil {
		t.err = err
		return
	}
	t.end(appendReady(b, r))
}

// begin makes room for a frame's head.
func (t *Writer) begin(typ byte) []byte {
	return append(append(t.buf[:0], make([]byte, frameHead)...), typ)
}

// end writes a frame.
func (t *Writer) end(b []byte) {
	t.buf = b
	switch {
	case t.err != nil:
		return
	case len(b)-frameHead > maxFrame:
		t.err = fmt.Errorf("trace: a frame of %d bytes, at most %d", len(b)-frameHead, maxFrame)
		return
	case int64(len(b)) > t.left:
		t.err = ErrFull
		return
	}
	t.left -= int64(len(b))
	binary.BigEndian.PutUint32(b, uint32(len(b)-frameHead))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[frameHead:], castagnoli))
	if _, err := t.w.Write(b); err != nil {
		t.err = fmt.Errorf("trace: writing: %w", err)
	}
}

func appendHeader(b []byte, h *consensus.Header) []byte {
	at := len(b)
	b = h.Append(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// appendCert appends a certificate; one without a kind is none.
func appendCert(b []byte, c *consensus.Certificate) []byte {
	at := len(b)
	b = append(b, 0, 0)
	if c.Kind != 0 {
		b = c.Append(b)
		binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	}
	return b
}

func appendBlock(b []byte, bl consensus.Block) []byte {
	b = appendHeader(b, bl.Header)
	b = binary.BigEndian.AppendUint32(b, uint32(len(bl.Body)))
	return append(b, bl.Body...)
}

// Kinds of records.
const (
	recordVote byte = 1 + iota
	recordCert
	recordFloor
)

func appendRecord(b []byte, r simplex.Record) []byte {
	switch {
	case r.Vote != nil:
		return r.Vote.Append(append(b, recordVote))
	case r.Cert != nil:
		return appendCert(append(b, recordCert), r.Cert)
	default:
		b = append(b, recordFloor)
		b = binary.BigEndian.AppendUint16(b, uint16(r.Floor.Shard))
		b = binary.BigEndian.AppendUint64(b, uint64(r.Floor.Epoch))
		return binary.BigEndian.AppendUint64(b, uint64(r.Floor.View))
	}
}

func appendEvent(b []byte, e simplex.Event) ([]byte, error) {
	kind := func(k byte, from int) { b = binary.BigEndian.AppendUint32(append(b, k), uint32(int32(from))) }
	switch e := e.(type) {
	case simplex.ProposalReceived:
		kind(eventProposal, e.From)
		return appendBlock(e.Proposal.Vote.Append(b), e.Proposal.Block), nil
	case simplex.VoteReceived:
		kind(eventVote, e.From)
		return e.Vote.Append(b), nil
	case simplex.CertificateReceived:
		kind(eventCertificate, e.From)
		return appendCert(b, &e.Cert), nil
	case simplex.BlockFetched:
		kind(eventFetched, e.From)
		return appendBlock(appendCert(b, &e.Notarization), e.Block), nil
	case simplex.Built:
		b = binary.BigEndian.AppendUint64(append(b, eventBuilt), uint64(e.View))
		if e.Block == nil {
			return append(b, 0), nil
		}
		return appendBlock(append(b, 1), *e.Block), nil
	case simplex.Judged:
		b = append(append(b, eventJudged), e.Block[:]...)
		return append(b, bit(e.Valid)), nil
	case simplex.TimerFired:
		return binary.BigEndian.AppendUint64(append(b, eventTimer), uint64(e.View)), nil
	case simplex.Tick:
		return append(b, eventTick), nil
	case simplex.Synced:
		return appendCert(appendHeader(append(b, eventSynced), e.Header), &e.Cert), nil
	case simplex.PartReceived:
		kind(eventPart, e.From)
		at := len(b)
		b = e.Part.Append(append(b, 0, 0, 0, 0))
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
		return b, nil
	case simplex.Rebuilt:
		b = append(append(b, eventRebuilt), e.Block[:]...)
		if e.Shreds == nil {
			return append(b, 0), nil
		}
		body := e.Shreds.Body()
		return append(binary.BigEndian.AppendUint32(append(b, 1), uint32(len(body))), body...), nil
	}
	return b, fmt.Errorf("trace: an event %T that this build does not know", e)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendReady appends the own votes of a Ready and its digest.
func appendReady(b []byte, r simplex.Ready) []byte {
	at := len(b)
	n := 0
	b = append(b, 0, 0)
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil {
			b = rec.Vote.Append(b)
			n++
		}
	}
	binary.BigEndian.PutUint16(b[at:], uint16(n))
	d := digest(r)
	return append(b, d[:]...)
}
