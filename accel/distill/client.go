package distill

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"tutti/accel/bls"
	"tutti/accel/merkle"
)

// Offer is what a broker sends a sender: where its transfer is in the tree. It does not say what the root is, because
// the sender computes that from its own transfer.
type Offer struct {
	Index, Count int
	Path         [treeDepth][32]byte // siblings from the leaf's up
}

// OfferBytes is the length of an offer.
const OfferBytes = 4 + 4 + treeDepth*32

// Append appends the encoding.
func (o *Offer) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(o.Index))
	b = binary.BigEndian.AppendUint32(b, uint32(o.Count))
	for i := range o.Path {
		b = append(b, o.Path[i][:]...)
	}
	return b
}

// DecodeOffer decodes exactly one offer. The error wraps ErrMalformed.
func DecodeOffer(b []byte) (*Offer, error) {
	if len(b) != OfferBytes {
		return nil, malformed("%d bytes are no offer", len(b))
	}
	index, count := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if count > MaxCount || index >= count {
		return nil, malformed("transfer %d of %d, at most %d", index, count, MaxCount)
	}
	o := &Offer{Index: int(index), Count: int(count)}
	for i := range o.Path {
		o.Path[i] = [32]byte(b[8+32*i:])
	}
	return o, nil
}

// Root is the root of the tree that has the transfer at the place that is offered. The error wraps ErrIndex.
func (c Chain) Root(body *[BodyBytes]byte, o *Offer) ([32]byte, error) {
	if o.Count > MaxCount || o.Index < 0 || o.Index >= o.Count {
		return [32]byte{}, fmt.Errorf("distill: %w: %d of %d", ErrIndex, o.Index, o.Count)
	}
	var msg [messageBytes]byte
	id := sha256.Sum256(c.AppendMessage(msg[:0], body))
	return merkle.Climb(id, uint64(o.Index), o.Path[:]), nil
}

// Answer signs the batch in which the sender's transfer has the place that is offered (about 0.4 ms). The signature
// says nothing about other transfers, and nothing about this one that its Ed25519 signature did not say: it may be
// given to any broker, any number of times. The error wraps ErrIndex.
func (c Chain) Answer(key *bls.SecretKey, body *[BodyBytes]byte, o *Offer) (share [ShareBytes]byte, err error) {
	root, err := c.Root(body, o)
	if err != nil {
		return share, err
	}
	return key.SignShare(c.RootMessage(root, o.Count)), nil
}
