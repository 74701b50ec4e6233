package consensus

import (
	"errors"
	"fmt"
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
