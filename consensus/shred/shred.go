// Package shred cuts the body of a block into parts, one for each validator of a committee, and puts it together again.
//
// A body under consensus.CodecShards is n shards of the committee's erasure code (consensus.Committee.Code, package
// accel/erasure), any k of which are enough; validator i has a run of them in proportion to its power, and any validators
// with more than a third of the power hold k. A Part is what goes over the wire: the header, its leader's notarize vote,
// and the shards of one validator, each with its path to the root in the header. The leader sends each validator its own
// part; each passes its own on to all. So a leader sends about three bodies together, however many validators there are,
// and every other validator at most as much.
//
// Each shard is checked by its path before it is kept (Check, Assembly.Add). That a root is no body's, because its leader
// encoded badly, shows when the body is rebuilt, encoded again and compared (Assembly.Rebuild, ErrMalformed), and then for
// everybody, whichever shards it was rebuilt from, and for ever.
//
// Sets and Parts are immutable and safe for concurrent use; an Assembly belongs to one goroutine at a time. Work is done
// on the calling goroutine. Errors are about the one call and wrap one of those below or of accel/erasure.
//
// # Deviations
//
//   - A part holds at most k shards: who has more is enough alone.
//   - Every part carries the header and the leader's vote, so that it can be checked in whatever order parts come, and
//     who did not hear from the leader learns the proposal from anybody. It costs as much again as a small part.
//   - Each shard has its own path. Neighbours could share theirs, which would save up to n paths of a whole body:
//     a tenth of it at 64 KiB, less above.
package shred

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/erasure"
	"tutti/consensus"
)

// MaxPartBytes bounds an encoded part: the longest body, for who holds k shards, with its header and paths.
const MaxPartBytes = 9 << 20

// What can be wrong.
var (
	// ErrMalformed is a verdict on a header's root, for ever and for everybody: no body has it.
	ErrMalformed = erasure.ErrMalformed
	// ErrPart is about one part: it is not what its validator was given.
	ErrPart = errors.New("not the part of that validator")
	// ErrEncoding is a part's that are the encoding of none.
	ErrEncoding = fmt.Errorf("shred: %w", consensus.ErrMalformed)
)

// Part is the part of one validator in a proposal.
type Part struct {
	Header    *consensus.Header
	Vote      consensus.Vote // the leader's notarize for Header
	Validator uint16         // whose shards these are
	Shards    [][]byte       // from the validator's first on, at most k; not to be modified
	Paths     [][][32]byte   // of each shard
}

// Append appends the encoding of p to b: vote, u32 header length, header, u16 validator, u16 shards, then each shard's
// path and the shard. How long these are the header says.
func (p *Part) Append(b []byte) []byte {
	b = p.Vote.Append(b)
	at := len(b)
	b = p.Header.Append(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	b = binary.BigEndian.AppendUint16(b, p.Validator)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.Shards)))
	for i, shard := range p.Shards {
		for _, node := range p.Paths[i] {
			b = append(b, node[:]...)
		}
		b = append(b, shard...)
	}
	return b
}

// Size is about the length of p's encoding, and not less unless the header is huge.
func (p *Part) Size() int {
	size := consensus.VoteBytes + 1024 + 52*len(p.Header.Links)
	for i, shard := range p.Shards {
		size += len(shard) + 32*len(p.Paths[i])
	}
	return size
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: part: %s", ErrEncoding, fmt.Sprintf(format, args...))
}

// DecodePart decodes exactly one part whose vote is a notarize for its header. The shards alias b. Neither signature nor
// paths are checked.
func DecodePart(b []byte) (*Part, error) {
	if len(b) > MaxPartBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxPartBytes)
	}
	s := cryptobyte.String(b)
	var vote, header []byte
	var n uint32
	if !(s.ReadBytes(&vote, consensus.VoteBytes) && s.ReadUint32(&n) && n <= uint32(consensus.MaxHeaderBytes) && s.ReadBytes(&header, int(n))) {
		return nil, malformed("vote or header too short or too long")
	}
	v, err := consensus.DecodeVote(vote)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	p := &Part{Vote: *v}
	if p.Header, err = consensus.DecodeHeader(header); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	h := p.Header
	if h.Body.Codec != consensus.CodecShards {
		return nil, malformed("of a body under codec %d", h.Body.Codec)
	}
	if want := (consensus.Statement{Kind: consensus.Notarize, Shard: h.Shard, Epoch: h.Epoch, View: h.View, Block: h.Hash()}); v.Statement != want {
		return nil, malformed("the vote is not for this header")
	}
	if err := p.readShards(&s); err != nil {
		return nil, err
	}
	return p, nil
}

// readShards reads the rest of a part to the end.
func (p *Part) readShards(s *cryptobyte.String) error {
	code, err := erasure.New(int(p.Header.Body.K), int(p.Header.Body.N))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	size, err := code.ShardBytes(int(p.Header.Body.Length))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	var n uint16
	if !(s.ReadUint16(&p.Validator) && s.ReadUint16(&n)) || int(p.Validator) >= consensus.MaxCommittee || int(n) > code.K() {
		return malformed("of validator %d with %d shards, %d are enough", p.Validator, n, code.K())
	}
	if len(*s) != int(n)*(size+code.PathBytes()) {
		return malformed("%d bytes for %d shards of %d with their paths", len(*s), n, size)
	}
	depth := code.PathBytes() / 32
	nodes := make([][32]byte, int(n)*depth)
	for range n {
		path := nodes[:depth:depth]
		nodes = nodes[depth:]
		for k := range path {
			s.CopyBytes(path[k][:])
		}
		var shard []byte
		s.ReadBytes(&shard, size)
		p.Shards, p.Paths = append(p.Shards, shard), append(p.Paths, path)
	}
	return nil
}

// Clone is a copy that shares no shards with p: for who keeps a part but not the set or message that it is from.
func (p *Part) Clone() *Part {
	c := *p
	c.Shards = nil
	for _, shard := range p.Shards {
		c.Shards = append(c.Shards, bytes.Clone(shard))
	}
	return &c
}

// span is validator i's shards: first to end-1.
func span(c *consensus.Committee, i int) (first, end int) {
	first, end = c.Code().Shards(i)
	return first, min(end, first+c.Code().K())
}

// Check is nil if p is the part of its validator in the committee: it has all of its shards, and each is under the root
// in the header. It costs one hash of each shard. Neither the rest of the header nor the vote is checked.
func Check(c *consensus.Committee, p *Part) error {
	if int(p.Validator) >= len(c.Validators) {
		return fmt.Errorf("shred: %w: %d of %d", ErrPart, p.Validator, len(c.Validators))
	}
	if wrong := c.CheckBodyRef(p.Header.Body); wrong != "" || p.Header.Body.Codec != consensus.CodecShards {
		return fmt.Errorf("shred: %w: %s", ErrPart, wrong)
	}
	first, end := span(c, int(p.Validator))
	if len(p.Shards) != end-first || len(p.Paths) != end-first {
		return fmt.Errorf("shred: %w: %d shards with %d paths, %d has %d", ErrPart, len(p.Shards), len(p.Paths), p.Validator, end-first)
	}
	for k, shard := range p.Shards {
		if err := c.Code().Verify(p.Header.Body.Root, int(p.Header.Body.Length), first+k, shard, p.Paths[k]); err != nil {
			return fmt.Errorf("shred: %w: %w", ErrPart, err)
		}
	}
	return nil
}

// Set is a body cut up for a committee.
type Set struct {
	c    *consensus.Committee
	set  *erasure.Set
	body []byte
}

// Cut cuts a body of 1 to consensus.MaxBodyBytes. The set holds on to it.
func Cut(c *consensus.Committee, body []byte) (*Set, error) {
	if len(body) > consensus.MaxBodyBytes {
		return nil, fmt.Errorf("shred: %w: body of %d bytes, limit %d", erasure.ErrLength, len(body), consensus.MaxBodyBytes)
	}
	set, err := c.Code().Encode(body)
	if err != nil {
		return nil, fmt.Errorf("shred: %w", err)
	}
	return &Set{c: c, set: set, body: body}, nil
}

// Ref is what the body's header carries.
func (s *Set) Ref() consensus.BodyRef { return s.c.RefOf(s.set) }

// Body is the body; it does not hold on to the set.
func (s *Set) Body() []byte { return s.body }

// Part is validator i's part in the proposal of a header with this body. It shares the set's shards. It panics if there
// is no validator i.
func (s *Set) Part(i int, h *consensus.Header, leader consensus.Vote) *Part {
	first, end := span(s.c, i)
	p := &Part{Header: h, Vote: leader, Validator: uint16(i)}
	for k := first; k < end; k++ {
		p.Shards, p.Paths = append(p.Shards, s.set.Shard(k)), append(p.Paths, s.set.Path(k))
	}
	return p
}
