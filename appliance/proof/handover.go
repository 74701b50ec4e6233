package proof

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
)

// Handover shows which committee a shard has in the epoch after one that is over: what ended that epoch, and the committee of the
// next, whose hash the epoch's last block names. Verify it with Trust.Advance. Neither is nil in a decoded Handover.
type Handover struct {
	End  *consensus.EpochEnd
	Next *consensus.Committee
}

// MaxHandoverBytes bounds an encoded Handover.
const MaxHandoverBytes = 1 + 4 + consensus.MaxEpochEndBytes + 4 + consensus.MaxCommitteeBytes

const handoverVersion = 1

// Epoch is the epoch that the hand-over leads out of.
func (h *Handover) Epoch() consensus.Epoch { return h.End.Last.Epoch }

// Append appends the encoding: version 1, end of the epoch (length 4, bytes), committee (length 4, bytes).
func (h *Handover) Append(b []byte) []byte {
	s := cryptobyte.NewBuilder(append(b, handoverVersion))
	for _, enc := range [][]byte{h.End.Append(nil), h.Next.Append(nil)} {
		s.AddUint32(uint32(len(enc)))
		s.AddBytes(enc)
	}
	return s.BytesOrPanic()
}

// DecodeHandover decodes exactly one Handover, at most MaxHandoverBytes. Nothing is verified.
func DecodeHandover(b []byte) (*Handover, error) {
	s := cryptobyte.String(b)
	var version uint8
	if !s.ReadUint8(&version) || version != handoverVersion {
		return nil, fail(ErrMalformed, "hand-over format %d, this build knows %d: update tutti", version, handoverVersion)
	}
	var parts [2][]byte
	for i, most := range []int{consensus.MaxEpochEndBytes, consensus.MaxCommitteeBytes} {
		var n uint32
		if !s.ReadUint32(&n) || int64(n) > int64(most) || !s.ReadBytes(&parts[i], int(n)) {
			return nil, fail(ErrMalformed, "the end of the epoch or the committee is cut short or too long")
		}
	}
	if !s.Empty() {
		return nil, fail(ErrMalformed, "%d bytes after the committee", len(s))
	}
	next, err := consensus.DecodeCommittee(parts[1])
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	end, err := consensus.DecodeEpochEnd(parts[0])
	if err != nil {
		return nil, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
	}
	return &Handover{End: end, Next: next}, nil
}
