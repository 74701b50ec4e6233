// Package consensus holds what one shard's committee agrees on and what proves it: headers, bodies as bytes,
// votes, certificates and committees, with their canonical encodings and checks.
//
// The protocol is Simplex (Chan and Pass, 2023) over a 3f+1 committee with voting power as numbers. The machine
// that runs it is consensus/simplex, its driver consensus/engine, its logs consensus/blocklog, its seeded
// simulator consensus/sim. To all of them a body is bytes and a digest; what the bytes mean is the business of
// the application behind engine.App.
//
// # Encodings
//
// Integers are big-endian and fixed-width. Every type has exactly one encoding: decoders refuse trailing bytes,
// unsorted lists, set padding bits and lengths over the limits below. Golden vectors are in testdata/.
//
// # Signatures
//
// Every signature covers a 16-byte domain tag, the genesis hash, the kind of statement, and its content
// (VoteMessage). Notarize, nullify and finalize are three kinds, so that none can be replayed as another.
//
// # Deviations from the paper and the design page
//
//   - A proposal is authenticated by its leader's own notarize vote rather than by a further signature: the two
//     would say the same thing, and equivocation is then one kind of evidence.
//   - Leaders come from a low-discrepancy sequence over the power line (Committee.Leader), not from independent
//     draws: proportions are the same and a silent leader is never asked twice in a row by bad luck.
package consensus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Numbers that must not be mixed up with one another.
type (
	ShardID uint16 // a shard of the network; shard 0 is the reference shard
	Epoch   uint64 // a span of heights with one committee per shard
	View    uint64 // one attempt at a block, with one leader; starts at 1 in each epoch
	Height  uint64 // the position of a block in its shard's chain; genesis is 0
	Power   uint64 // voting power; a committee's total is at most MaxTotalPower
)

// Hash is a SHA-256 digest. The zero Hash means "none".
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short is the first four bytes in hex, for logs and tables.
func (h Hash) Short() string { return hex.EncodeToString(h[:4]) }

// IsZero reports whether h means "none".
func (h Hash) IsZero() bool { return h == Hash{} }

// Limits that every decoder enforces.
const (
	HeaderVersion    = 1
	MaxShards        = 1024
	MaxCommittee     = 1024
	MaxBodyBytes     = 8 << 20
	MaxTotalPower    = Power(1) << 60
	MaxHeaderBytes   = headerFixedBytes + MaxShards*linkBytes
	headerFixedBytes = 2 + 32 + 2 + 8 + 8 + 8 + 8 + 32 + bodyRefBytes + 32 + 2 + 32 + 32 + 32 + 32
	linkBytes        = 2 + 8 + 8 + 32
)

// Link is the state of the receipt channel between the header's shard and one other, after the header's block.
type Link struct {
	Shard    ShardID // the other shard
	Sent     uint64  // receipts ever sent to it
	Received uint64  // receipts ever received from it and consumed; the other shard may prune below
	Root     Hash    // cumulative root over all Sent receipts (a Merkle mountain range, see state/receipt)
}

// Header is a block's header. Its Hash is the block's name.
type Header struct {
	Version       uint16
	Chain         Hash // the genesis hash
	Shard         ShardID
	Epoch         Epoch
	View          View
	Height        Height
	TimeMs        int64 // Unix milliseconds, strictly above the parent's, by the leader's clock
	Parent        Hash  // Hash of the parent's header
	Body          BodyRef
	Outcomes      Hash   // root over (transaction id, outcome) in body order, then over receipts consumed
	Links         []Link // one entry for each other shard, ascending by Shard
	State         Hash   // state root after the block StateLag below this one (genesis root for the first blocks)
	Diff          Hash   // hash of the state difference made by that same block
	Committee     Hash   // Committee.Hash of the committee of Epoch
	NextCommittee Hash   // Committee.Hash of the committee of Epoch+1; equals Committee until the epoch's last block
}

// StateLag is how many blocks the state root trails: the header at height h carries the root after h-StateLag.
const StateLag = 2

// Domain tags, 16 bytes each, padded with zeros.
var (
	tagHeader    = tag("tutti/header/1")
	tagBody      = tag("tutti/body/1")
	tagVote      = tag("tutti/vote/1")
	tagCommittee = tag("tutti/commtee/1")
)

func tag(s string) (t [16]byte) {
	if copy(t[:], s) != len(s) {
		panic("consensus: tag too long: " + s)
	}
	return t
}

// ErrMalformed wraps every decoding error of this package: the bytes are not the encoding of the type.
var ErrMalformed = errors.New("malformed encoding")

func malformed(what, format string, args ...any) error {
	return fmt.Errorf("consensus: %s: %w: %s", what, ErrMalformed, fmt.Sprintf(format, args...))
}

// Append appends the canonical encoding of h to b.
func (h *Header) Append(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint16(b, h.Version)
	b = append(b, h.Chain[:]...)
	b = be.AppendUint16(b, uint16(h.Shard))
	b = be.AppendUint64(b, uint64(h.Epoch))
	b = be.AppendUint64(b, uint64(h.View))
	b = be.AppendUint64(b, uint64(h.Height))
	b = be.AppendUint64(b, uint64(h.TimeMs))
	b = append(b, h.Parent[:]...)
	b = h.Body.append(b)
	b = append(b, h.Outcomes[:]...)
	b = be.AppendUint16(b, uint16(len(h.Links)))
	for _, l := range h.Links {
		b = be.AppendUint16(b, uint16(l.Shard))
		b = be.AppendUint64(b, l.Sent)
		b = be.AppendUint64(b, l.Received)
		b = append(b, l.Root[:]...)
	}
	b = append(b, h.State[:]...)
	b = append(b, h.Diff[:]...)
	b = append(b, h.Committee[:]...)
	return append(b, h.NextCommittee[:]...)
}

// Hash names the block: SHA-256 over the header tag and the encoding.
func (h *Header) Hash() Hash {
	b := make([]byte, 0, 16+headerFixedBytes+len(h.Links)*linkBytes)
	b = append(b, tagHeader[:]...)
	return sha256.Sum256(h.Append(b))
}

// DecodeHeader decodes exactly one header from b. It checks the encoding, not the content's truth.
func DecodeHeader(b []byte) (*Header, error) {
	s := cryptobyte.String(b)
	h, err := readHeader(&s)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("header", "%d bytes too many", len(s))
	}
	return h, nil
}

func readHeader(s *cryptobyte.String) (*Header, error) {
	var h Header
	var time uint64
	var links uint16
	ok := s.ReadUint16(&h.Version) && s.CopyBytes(h.Chain[:]) && s.ReadUint16((*uint16)(&h.Shard)) &&
		s.ReadUint64((*uint64)(&h.Epoch)) && s.ReadUint64((*uint64)(&h.View)) && s.ReadUint64((*uint64)(&h.Height)) &&
		s.ReadUint64(&time) && s.CopyBytes(h.Parent[:])
	if !ok {
		return nil, malformed("header", "too short")
	}
	if h.Version != HeaderVersion {
		return nil, malformed("header", "version %d, this build knows %d: update tutti", h.Version, HeaderVersion)
	}
	if int64(time) < 0 {
		return nil, malformed("header", "time before 1970")
	}
	h.TimeMs = int64(time)
	var err error
	if h.Body, err = readBodyRef(s); err != nil {
		return nil, err
	}
	if !(s.CopyBytes(h.Outcomes[:]) && s.ReadUint16(&links)) {
		return nil, malformed("header", "too short")
	}
	if links > MaxShards {
		return nil, malformed("header", "%d links, limit %d", links, MaxShards)
	}
	for i := range int(links) {
		var l Link
		if !(s.ReadUint16((*uint16)(&l.Shard)) && s.ReadUint64(&l.Sent) && s.ReadUint64(&l.Received) && s.CopyBytes(l.Root[:])) {
			return nil, malformed("header", "link %d too short", i)
		}
		if i > 0 && l.Shard <= h.Links[i-1].Shard {
			return nil, malformed("header", "links not ascending at %d", i)
		}
		h.Links = append(h.Links, l)
	}
	if !(s.CopyBytes(h.State[:]) && s.CopyBytes(h.Diff[:]) && s.CopyBytes(h.Committee[:]) && s.CopyBytes(h.NextCommittee[:])) {
		return nil, malformed("header", "too short")
	}
	return &h, nil
}

// Block is a header with its body. The body is shared, never modified.
type Block struct {
	Header *Header
	Body   []byte
}

// Append appends the encoding of the block: u32 header length, header, body to the end.
func (bl Block) Append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = bl.Header.Append(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return append(b, bl.Body...)
}

// DecodeBlock decodes exactly one block whose body matches its header. The body aliases b.
func DecodeBlock(b []byte) (Block, error) {
	s := cryptobyte.String(b)
	var n uint32
	var hb []byte
	if !s.ReadUint32(&n) || n > uint32(MaxHeaderBytes) || !s.ReadBytes(&hb, int(n)) {
		return Block{}, malformed("block", "header too short or too long")
	}
	h, err := DecodeHeader(hb)
	if err != nil {
		return Block{}, err
	}
	if !h.Body.Matches(s) {
		return Block{}, malformed("block", "body does not match the header's commitment")
	}
	return Block{Header: h, Body: s}, nil
}
