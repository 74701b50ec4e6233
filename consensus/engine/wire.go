package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
	"tutti/consensus/shred"
)

// A payload is one type byte and the encoding of what it carries. Integers are big-endian; every payload has exactly one
// encoding.
//
//	class vote       0x01 vote | 0x02 certificate
//	class proposal   0x03 proposal | 0x04 part of a proposal (consensus/shred)
//	request          0x11 block by hash:        hash(32)
//	                 0x12 run from height:      u64 height
//	                 0x13 latest finalization:  u64 epoch
//	                 0x14 headers down from:    hash(32), u16 most (1 to 1,024)
//	                 0x15 leading certificate:  u64 epoch
//	                 0x16 own last vote:        u64 epoch
//	answer           0x21 block:  u16 length of notarization (0: none), notarization, block
//	                 0x22 run:    u16 count, count * (u32 length, block); u16 count, count * (u32 length, header);
//	                              u16 count, count * u64 view of an echo; finalization
//	                 0x23 latest: final header
//	                 0x24 headers: u16 count, count * (u32 length, header)
//	                 0x25 leading: certificate
//	                 0x26 own: u8 1 if the peer has left the epoch, else 0; u8 1 and a vote, or 0
//	                 0x2f nothing: this peer does not hold it
//
// Headers are the one of that hash and its ancestors, descending, as far as they are held and fit. The leading certificate
// is the one of the highest view that the peer's machine holds, nothing if it holds none (simplex, rule R17); a peer that is
// in another epoch gives no answer. The own last vote is the one of the highest view of the epoch that the peer has heard from the
// asker itself since the peer began. The latest finalization of an epoch that is over is the one that ended it.
//
// A run is blocks in height order from the one asked for, then the headers that link the last of them to the block that
// the finalization is of (none if it is that block itself). It never goes beyond the end of an epoch; if it goes up to there, the
// views of the echoes follow that link the epoch's last block to the one that the finalization is of. Their headers follow from
// the views (consensus.Echo).
const (
	typeVote        = 0x01
	typeCertificate = 0x02
	typeProposal    = 0x03
	typePart        = 0x04
	typeGetBlock    = 0x11
	typeGetRun      = 0x12
	typeGetLatest   = 0x13
	typeGetHeaders  = 0x14
	typeGetLeading  = 0x15
	typeGetOwn      = 0x16
	typeBlock       = 0x21
	typeRun         = 0x22
	typeLatest      = 0x23
	typeHeaders     = 0x24
	typeLeading     = 0x25
	typeOwn         = 0x26
	typeNothing     = 0x2f
)

// Limits of a run. A run has at least one block, however long; MaxAnswerBytes bounds any answer.
const (
	MaxAnswerBytes = 16 << 20
	runBlockBytes  = 4 << 20
	runLinkBytes   = 7 << 20
	maxRunBlocks   = 1024
	maxRunLinks    = 8192
	maxRunEchoes   = 16384 // views in which nothing was final: many hours of them

	maxAnswerHeaders = 1024    // of one answer, which has at least one
	headersBytes     = 1 << 20 // of an answer's headers, but for the first
)

// ErrWire wraps every decoding error of this package.
var ErrWire = errors.New("engine: malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrWire, fmt.Sprintf(format, args...))
}

func encodeVote(v *consensus.Vote) []byte { return v.Append([]byte{typeVote}) }

func encodeCertificate(c *consensus.Certificate) []byte { return c.Append([]byte{typeCertificate}) }

func encodeProposal(p *consensus.Proposal) []byte {
	b := make([]byte, 0, 1+consensus.VoteBytes+4+1024+len(p.Block.Body))
	return p.Append(append(b, typeProposal))
}

func encodePart(p *shred.Part) []byte {
	return p.Append(append(make([]byte, 0, 1+p.Size()), typePart))
}

// inbound is a decoded message of the committee; exactly one field is set.
type inbound struct {
	vote     *consensus.Vote
	cert     *consensus.Certificate
	proposal *consensus.Proposal
	part     *shred.Part
}

// epoch is the one that the message is about.
func (m *inbound) epoch() consensus.Epoch {
	switch {
	case m.vote != nil:
		return m.vote.Epoch
	case m.cert != nil:
		return m.cert.Epoch
	}
	return m.header().Epoch
}

// header is that of a proposal or part.
func (m *inbound) header() *consensus.Header {
	if m.part != nil {
		return m.part.Header
	}
	return m.proposal.Block.Header
}

// decodeInbound decodes a payload of a class. A proposal's body and a part's shards alias it.
func decodeInbound(class Class, b []byte) (m inbound, err error) {
	switch {
	case len(b) == 0:
		return m, malformed("empty")
	case b[0] == typeVote && class == ClassVote:
		m.vote, err = consensus.DecodeVote(b[1:])
	case b[0] == typeCertificate && class == ClassVote:
		m.cert, err = consensus.DecodeCertificate(b[1:])
	case b[0] == typeProposal && class == ClassProposal:
		m.proposal, err = consensus.DecodeProposal(b[1:])
	case b[0] == typePart && class == ClassProposal:
		m.part, err = shred.DecodePart(b[1:])
	default:
		return m, malformed("type %#02x in class %d", b[0], class)
	}
	if err != nil {
		return inbound{}, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return m, nil
}

// request is a decoded request; typ says which field counts.
type request struct {
	typ   byte
	hash  consensus.Hash
	from  consensus.Height
	epoch consensus.Epoch
	most  int
}

func (r request) encode() []byte {
	switch r.typ {
	case typeGetBlock:
		return append([]byte{typeGetBlock}, r.hash[:]...)
	case typeGetRun:
		return binary.BigEndian.AppendUint64([]byte{typeGetRun}, uint64(r.from))
	case typeGetHeaders:
		return binary.BigEndian.AppendUint16(append([]byte{typeGetHeaders}, r.hash[:]...), uint16(r.most))
	}
	return binary.BigEndian.AppendUint64([]byte{r.typ}, uint64(r.epoch)) // typeGetLatest, typeGetLeading, typeGetOwn
}

func decodeRequest(b []byte) (r request, err error) {
	s := cryptobyte.String(b)
	ok := s.ReadUint8(&r.typ)
	switch {
	case ok && r.typ == typeGetBlock:
		ok = s.CopyBytes(r.hash[:])
	case ok && r.typ == typeGetRun:
		ok = s.ReadUint64((*uint64)(&r.from))
	case ok && r.typ == typeGetHeaders:
		var most uint16
		ok = s.CopyBytes(r.hash[:]) && s.ReadUint16(&most) && most > 0 && most <= maxAnswerHeaders
		r.most = int(most)
	default:
		ok = ok && (r.typ == typeGetLatest || r.typ == typeGetLeading || r.typ == typeGetOwn) && s.ReadUint64((*uint64)(&r.epoch))
	}
	if !ok || !s.Empty() {
		return request{}, malformed("request")
	}
	return r, nil
}

// blockAnswer is a block by hash, with its notarization if the peer still has it.
type blockAnswer struct {
	block        consensus.Block
	notarization consensus.Certificate // Kind 0: none
}

func (a blockAnswer) encode() []byte {
	b := make([]byte, 3, 1024+len(a.block.Body))
	b[0] = typeBlock
	if a.notarization.Kind != 0 {
		b = a.notarization.Append(b)
		binary.BigEndian.PutUint16(b[1:], uint16(len(b)-3))
	}
	return a.block.Append(b)
}

func decodeBlockAnswer(b []byte) (a blockAnswer, err error) {
	s := cryptobyte.String(b)
	var typ uint8
	var n uint16
	var cert []byte
	if !(s.ReadUint8(&typ) && typ == typeBlock && s.ReadUint16(&n) && s.ReadBytes(&cert, int(n))) {
		return a, malformed("block answer")
	}
	if n > 0 {
		c, err := consensus.DecodeCertificate(cert)
		if err != nil {
			return a, fmt.Errorf("%w: %w", ErrWire, err)
		}
		if c.Kind != consensus.Notarize {
			return a, malformed("block answer with a %s", c.Kind)
		}
		a.notarization = *c
	}
	if a.block, err = consensus.DecodeBlock(s); err != nil {
		return blockAnswer{}, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return a, nil
}

// run is a piece of the finalised chain with its proof.
type run struct {
	blocks []consensus.Block
	links  []*consensus.Header
	echoes []*consensus.Header // above the last of blocks and links, which ends its epoch then
	cert   consensus.Certificate
}

// last is the highest header of the chain in a run, no echo.
func (r *run) last() *consensus.Header {
	if n := len(r.links); n > 0 {
		return r.links[n-1]
	}
	return r.blocks[len(r.blocks)-1].Header
}

// complete reports whether the finalization proves the last of the blocks final, and there is no other between.
func (r *run) complete() bool { return len(r.links) == 0 }

func (r run) encode() []byte {
	size := 16 << 10
	for _, bl := range r.blocks {
		size += 1024 + len(bl.Body)
	}
	b := append(make([]byte, 0, size), typeRun)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.blocks)))
	for _, bl := range r.blocks {
		b = appendSized(b, bl.Append)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.links)))
	for _, h := range r.links {
		b = appendSized(b, h.Append)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.echoes)))
	for _, h := range r.echoes {
		b = binary.BigEndian.AppendUint64(b, uint64(h.View))
	}
	return r.cert.Append(b)
}

// appendSized appends what f appends behind its u32 length.
func appendSized(b []byte, f func([]byte) []byte) []byte {
	at := len(b)
	b = f(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}

// decodeRun decodes a run. Bodies alias b. Nothing is verified but that bodies match their headers.
func decodeRun(b []byte) (run, error) {
	s := cryptobyte.String(b)
	var r run
	var typ uint8
	if len(b) > MaxAnswerBytes || !s.ReadUint8(&typ) || typ != typeRun {
		return run{}, malformed("run")
	}
	err := readSized(&s, maxRunBlocks, func(enc []byte) error {
		bl, err := consensus.DecodeBlock(enc)
		r.blocks = append(r.blocks, bl)
		return err
	})
	if err != nil {
		return run{}, err
	}
	err = readSized(&s, maxRunLinks, func(enc []byte) error {
		h, err := consensus.DecodeHeader(enc)
		r.links = append(r.links, h)
		return err
	})
	if err != nil {
		return run{}, err
	}
	if len(r.blocks) == 0 {
		return run{}, malformed("run without blocks")
	}
	if err := r.readEchoes(&s); err != nil {
		return run{}, err
	}
	cert, err := consensus.DecodeCertificate(s)
	if err != nil {
		return run{}, fmt.Errorf("%w: %w", ErrWire, err)
	}
	r.cert = *cert
	return r, nil
}

// readEchoes reads views and makes the headers of echoes of them.
func (r *run) readEchoes(s *cryptobyte.String) error {
	var n uint16
	if !s.ReadUint16(&n) || n > maxRunEchoes {
		return malformed("run with %d echoes, limit %d", n, maxRunEchoes)
	}
	at := r.last()
	if n > 0 && (!at.Ends() || at.IsEcho()) {
		return malformed("run with echoes of a block that does not end its epoch")
	}
	for range n {
		var view consensus.View
		if !s.ReadUint64((*uint64)(&view)) || view <= at.View {
			return malformed("run with echoes out of order")
		}
		at = consensus.Echo(at, view)
		r.echoes = append(r.echoes, at)
	}
	return nil
}

func readSized(s *cryptobyte.String, limit int, item func([]byte) error) error {
	var n uint16
	if !s.ReadUint16(&n) || int(n) > limit {
		return malformed("answer of %d items, limit %d", n, limit)
	}
	for range n {
		var size uint32
		var enc []byte
		if !s.ReadUint32(&size) || size > MaxAnswerBytes || !s.ReadBytes(&enc, int(size)) {
			return malformed("answer cut short")
		}
		if err := item(enc); err != nil {
			return fmt.Errorf("%w: %w", ErrWire, err)
		}
	}
	return nil
}

func encodeLatest(f *consensus.FinalHeader) []byte { return f.Append([]byte{typeLatest}) }

func decodeLatest(b []byte) (*consensus.FinalHeader, error) {
	if len(b) == 0 || b[0] != typeLatest {
		return nil, malformed("latest finalization")
	}
	f, err := consensus.DecodeFinalHeader(b[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return f, nil
}

func encodeHeaders(hs []*consensus.Header) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typeHeaders}, uint16(len(hs)))
	for _, h := range hs {
		b = appendSized(b, h.Append)
	}
	return b
}

func decodeHeaders(b []byte) (hs []*consensus.Header, err error) {
	s := cryptobyte.String(b)
	var typ uint8
	if len(b) > MaxAnswerBytes || !s.ReadUint8(&typ) || typ != typeHeaders {
		return nil, malformed("headers")
	}
	err = readSized(&s, maxAnswerHeaders, func(enc []byte) error {
		h, err := consensus.DecodeHeader(enc)
		hs = append(hs, h)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(hs) == 0 || !s.Empty() {
		return nil, malformed("headers: %d of them, %d bytes too many", len(hs), len(s))
	}
	return hs, nil
}

func encodeLeading(c *consensus.Certificate) []byte { return c.Append([]byte{typeLeading}) }

func decodeLeading(b []byte) (*consensus.Certificate, error) {
	if len(b) == 0 || b[0] != typeLeading {
		return nil, malformed("leading certificate")
	}
	c, err := consensus.DecodeCertificate(b[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWire, err)
	}
	return c, nil
}

// ownAnswer is what a peer has heard from the asker.
type ownAnswer struct {
	over bool            // it has left the epoch
	vote *consensus.Vote // nil: none in the epoch
}

func (a ownAnswer) encode() []byte {
	flag := func(x bool) byte {
		if x {
			return 1
		}
		return 0
	}
	b := []byte{typeOwn, flag(a.over), flag(a.vote != nil)}
	if a.vote != nil {
		b = a.vote.Append(b)
	}
	return b
}

func decodeOwn(b []byte) (a ownAnswer, err error) {
	if len(b) < 3 || b[0] != typeOwn || b[1] > 1 || b[2] > 1 || b[2] == 0 && len(b) > 3 {
		return a, malformed("own last vote")
	}
	if b[2] == 1 {
		if a.vote, err = consensus.DecodeVote(b[3:]); err != nil {
			return ownAnswer{}, fmt.Errorf("%w: %w", ErrWire, err)
		}
	}
	a.over = b[1] == 1
	return a, nil
}

// isNothing reports whether an answer says that the peer does not hold what was asked for.
func isNothing(b []byte) bool { return len(b) == 1 && b[0] == typeNothing }
