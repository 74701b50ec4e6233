package proof

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
)

// Handover shows which committee a shard has in the epoch after that of a final block. Final is of the last block of its
// epoch, and leads through echoes only; Next is the committee of the next epoch, whose hash that block names. Verify it with
// Trust.Advance. Next is never nil in a decoded Handover.
type Handover struct {
	Final Final
	Next  *consensus.Committee
}

// MaxHandoverBytes bounds an encoded Handover.
const MaxHandoverBytes = 1 + maxFinalBytes + 4*(1+MaxDescendants) + 4 + consensus.MaxCertificateBytes + 4 + consensus.MaxCommitteeBytes

const handoverVersion = 1

// Epoch is the epoch that the hand-over leads out of.
func (h *Handover) Epoch() consensus.Epoch { return h.Final.Header().Epoch }

// Append appends the encoding: version 1, final, committee length 4, committee.
func (h *Handover) Append(b []byte) []byte {
	b = h.Final.Append(append(b, handoverVersion))
	s := cryptobyte.NewBuilder(b)
	enc := h.Next.Append(nil)
	s.AddUint32(uint32(len(enc)))
	s.AddBytes(enc)
	return s.BytesOrPanic()
}

// DecodeHandover decodes exactly one Handover, at most MaxHandoverBytes. Nothing is verified.
func DecodeHandover(b []byte) (*Handover, error) {
	s := cryptobyte.String(b)
	var version uint8
	if !s.ReadUint8(&version) || version != handoverVersion {
		return nil, fail(ErrMalformed, "hand-over format %d, this build knows %d: update tutti", version, handoverVersion)
	}
	final, err := readFinal(&s)
	if err != nil {
		return nil, err
	}
	var n uint32
	var enc []byte
	if !s.ReadUint32(&n) || n > consensus.MaxCommitteeBytes || int(n) != len(s) || !s.ReadBytes(&enc, int(n)) {
		return nil, fail(ErrMalformed, "the committee is cut short, too long or followed by other bytes")
	}
	next, err := consensus.DecodeCommittee(enc)
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	return &Handover{Final: final, Next: next}, nil
}
