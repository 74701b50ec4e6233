package node

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// linkProof is what a bundle proves its header with (tx.Bundle.Proof), to a channel that knows a committee of the source. It has
// one of two forms:
//
//	an encoded consensus.FinalHeader, whose first byte is 0, where the channel knows the genesis' committee and the header is of it
//	1, committee (length 4, bytes; empty for the genesis'), number of hand-overs 1, each with its length 4, final header to the end
//
// The committee is the one that the channel knows, the hand-overs lead from it to the header's. Without a final header the header
// is the last block of the last hand-over's epoch: so a channel that is far behind is led on, at most maxSteps epochs at a time.
//
// A committee takes 88 bytes a seat, in each proof anew: a node may only use what the body says and the channel's hash proves.
type linkProof struct {
	known *consensus.Committee // nil: the genesis'
	steps []*proof.Handover
	final *consensus.FinalHeader // nil: none
}

const (
	linkProofVersion = 1
	// maxSteps bounds the hand-overs in a proof. One always fits into tx.MaxProofBytes, whatever its committees and echoes.
	maxSteps = 8
)

// header is the header that is proven.
func (p *linkProof) header() *consensus.Header {
	if p.final != nil {
		return p.final.Header
	}
	return p.steps[len(p.steps)-1].End.Last
}

// Append appends the encoding.
func (p *linkProof) Append(b []byte) []byte {
	if p.known == nil && len(p.steps) == 0 {
		return p.final.Append(b)
	}
	s := cryptobyte.NewBuilder(append(b, linkProofVersion))
	part := func(enc []byte) {
		s.AddUint32(uint32(len(enc)))
		s.AddBytes(enc)
	}
	if p.known == nil {
		part(nil)
	} else {
		part(p.known.Append(nil))
	}
	s.AddUint8(uint8(len(p.steps)))
	for _, h := range p.steps {
		part(h.Append(nil))
	}
	if p.final != nil {
		s.AddBytes(p.final.Append(nil))
	}
	return s.BytesOrPanic()
}

// linkProofBytes is the size of an encoding in the second form.
func linkProofBytes(known *consensus.Committee, steps []step, final int) int {
	n := 1 + 4 + 1 + final
	if known != nil {
		n += committeeBytes(known)
	}
	for _, h := range steps {
		n += 4 + h.bytes
	}
	return n
}

func committeeBytes(c *consensus.Committee) int {
	return consensus.MaxCommitteeBytes - (consensus.MaxCommittee-len(c.Validators))*(48+32+8)
}

var errLinkProof = errors.New("malformed proof of a bundle")

// decodeLinkProof decodes exactly one proof, at most tx.MaxProofBytes. Nothing is verified.
func decodeLinkProof(b []byte) (*linkProof, error) {
	if len(b) == 0 || len(b) > tx.MaxProofBytes {
		return nil, fmt.Errorf("%w: %d bytes", errLinkProof, len(b))
	}
	p := &linkProof{}
	var err error
	if b[0] == 0 {
		p.final, err = consensus.DecodeFinalHeader(b)
		return p, err
	}
	s := cryptobyte.String(b[1:])
	part := func(most int) (enc []byte, ok bool) {
		var n uint32
		ok = s.ReadUint32(&n) && int64(n) <= int64(most) && s.ReadBytes(&enc, int(n))
		return enc, ok
	}
	known, ok := part(consensus.MaxCommitteeBytes)
	var count uint8
	if b[0] != linkProofVersion || !ok || !s.ReadUint8(&count) || count > maxSteps {
		return nil, fmt.Errorf("%w: version %d, or %d hand-overs, or cut short", errLinkProof, b[0], count)
	}
	if len(known) > 0 {
		if p.known, err = consensus.DecodeCommittee(known); err != nil {
			return nil, err
		}
	}
	for i := range int(count) {
		enc, ok := part(proof.MaxHandoverBytes)
		if !ok {
			return nil, fmt.Errorf("%w: hand-over %d is cut short or too long", errLinkProof, i)
		}
		h, err := proof.DecodeHandover(enc)
		if err != nil {
			return nil, err
		}
		p.steps = append(p.steps, h)
	}
	if len(s) > 0 {
		if p.final, err = consensus.DecodeFinalHeader(s); err != nil {
			return nil, err
		}
	}
	if count == 0 && (p.known == nil || p.final == nil) {
		return nil, fmt.Errorf("%w: it shows no header, or has a shorter form", errLinkProof)
	}
	return p, nil
}
