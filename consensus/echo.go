package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Ends reports whether the block is the last of its epoch, or an echo of that: its header names the next committee. A
// committee's hash covers its epoch, so while the next committee is not known the two hashes are the same.
func (h *Header) Ends() bool { return h.NextCommittee != h.Committee }

// IsEcho reports whether the block is an echo: it has no content, is no block of the chain, and serves only to make the
// last block of its epoch final.
func (h *Header) IsEcho() bool { return h.Body.Codec == CodecNone }

// Echo is the only header that a block of the given view may have on an epoch's last block, or on an echo of it.
func Echo(parent *Header, view View) *Header {
	h := *parent
	h.View, h.Height, h.Parent, h.TimeMs, h.Body = view, parent.Height+1, parent.Hash(), parent.TimeMs+1, BodyRef{Codec: CodecNone}
	return &h
}

// EpochEnd proves that an epoch is over: its last block, the echoes from that block's child up to the one that the
// certificate finalizes, and the certificate. Without echoes the certificate finalizes the last block itself.
type EpochEnd struct {
	Last   *Header
	Echoes []*Header
	Cert   Certificate
}

// Bounds of an encoded EpochEnd. An echo is a view in which the epoch's last block was not made final: at least a view timer each.
const (
	MaxEchoes        = 65_536
	MaxEpochEndBytes = 4 + MaxHeaderBytes + 4 + 8*MaxEchoes + MaxCertificateBytes
)

// Append appends the encoding: u32 header length, header, u32 number of echoes, the view of each 8, certificate. All else in an
// echo follows from its parent. There are at most MaxEchoes, each is the echo of the one before, and the certificate is a
// finalize for the last.
func (e *EpochEnd) Append(b []byte) []byte {
	at := len(b)
	b = e.Last.Append(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Echoes)))
	for _, h := range e.Echoes {
		b = binary.BigEndian.AppendUint64(b, uint64(h.View))
	}
	return e.Cert.Append(b)
}

// DecodeEpochEnd decodes exactly one end of an epoch: a header that ends one, its echoes, and a finalize for the last of them. The
// certificate's signature is not verified.
func DecodeEpochEnd(b []byte) (*EpochEnd, error) {
	const what = "end of an epoch"
	s := cryptobyte.String(b)
	var n, count uint32
	var head, views []byte
	if !s.ReadUint32(&n) || n > uint32(MaxHeaderBytes) || !s.ReadBytes(&head, int(n)) {
		return nil, malformed(what, "header too short or too long")
	}
	if !s.ReadUint32(&count) || count > MaxEchoes || !s.ReadBytes(&views, 8*int(count)) {
		return nil, malformed(what, "echoes too short, or more than %d", MaxEchoes)
	}
	last, err := DecodeHeader(head)
	if err != nil {
		return nil, err
	}
	cert, err := DecodeCertificate(s)
	if err != nil {
		return nil, err
	}
	if !last.Ends() || last.IsEcho() {
		return nil, malformed(what, "the block is not the last of its epoch")
	}
	e := &EpochEnd{Last: last, Cert: *cert}
	top := last
	if count > 0 {
		e.Echoes = make([]*Header, count)
	}
	for i := range e.Echoes {
		view := View(binary.BigEndian.Uint64(views[8*i:]))
		if view <= top.View {
			return nil, malformed(what, "echo %d of view %d after view %d", i, view, top.View)
		}
		top = Echo(top, view)
		e.Echoes[i] = top
	}
	if want := (Statement{Finalize, last.Shard, last.Epoch, top.View, top.Hash()}); cert.Statement != want {
		return nil, malformed(what, "the certificate is not a finalize for the last header")
	}
	return e, nil
}

// ErrEnd wraps every error of VerifyEnd.
var ErrEnd = errors.New("not the end of an epoch")

// CheckEchoes checks that echoes continue a header that ends its epoch, each the echo of the one before, and returns the
// last of them; the header itself if there are none.
func CheckEchoes(last *Header, echoes []*Header) (*Header, error) {
	if !last.Ends() || last.IsEcho() {
		return nil, fmt.Errorf("consensus: %w: the block at height %d is not the last of its epoch", ErrEnd, last.Height)
	}
	at := last
	for _, h := range echoes {
		if h.View <= at.View || Echo(at, h.View).Hash() != h.Hash() {
			return nil, fmt.Errorf("consensus: %w: the header at height %d is no echo of the one before", ErrEnd, h.Height)
		}
		at = h
	}
	return at, nil
}

// VerifyEnd checks that e ends the epoch of committee c on a chain: the echoes, and the certificate.
func (c *Committee) VerifyEnd(chain Hash, keys Keys, e *EpochEnd) error {
	top, err := CheckEchoes(e.Last, e.Echoes)
	if err != nil {
		return err
	}
	if e.Last.Chain != chain || e.Last.Committee != c.Hash() {
		return fmt.Errorf("consensus: %w: a block of another chain or committee", ErrEnd)
	}
	if want := (Statement{Finalize, c.Shard, c.Epoch, top.View, top.Hash()}); e.Cert.Statement != want {
		return fmt.Errorf("consensus: %w: the certificate is not for the last echo", ErrEnd)
	}
	return c.VerifyCertificate(chain, keys, &e.Cert)
}
