package distill

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Batch is a batch as it goes into a block's body: well-formed, with senders in order. Whether it is true is for
// Verify to say. Only Decode and Round.Finish make one.
type Batch struct {
	root       [32]byte
	aggregate  [96]byte // the sum of the signers' signatures, compressed
	bodies     []byte   // end to end
	stragglers []byte   // a bit for each body
	signatures []byte   // of the stragglers, end to end
}

const (
	version        = 1
	headBytes      = 1 + 4 + 32 + 96
	signatureBytes = 64
)

// MaxBatchBytes is the length of the longest batch.
const MaxBatchBytes = headBytes + MaxCount*BodyBytes + MaxCount/8 + (MaxCount-1)*signatureBytes

// Count is the number of transfers.
func (b *Batch) Count() int { return len(b.bodies) / BodyBytes }

// Root is the root that the signers have signed.
func (b *Batch) Root() [32]byte { return b.root }

// Aggregate is the sum of the signers' signatures, compressed.
func (b *Batch) Aggregate() [96]byte { return b.aggregate }

// StragglerBits tell which transfers are stragglers', as encoded. They are the batch's own: do not change them.
func (b *Batch) StragglerBits() []byte { return b.stragglers }

// Body is transfer i, which is the batch's own: do not change it. It panics if there is none.
func (b *Batch) Body(i int) *[BodyBytes]byte { return (*[BodyBytes]byte)(b.bodies[i*BodyBytes:]) }

// Straggler reports whether transfer i carries its own signature. It panics if there is none.
func (b *Batch) Straggler(i int) bool { return b.stragglers[i/8]>>(i%8)&1 == 1 }

// Signature is the signature that transfer i carries if it is a straggler's, and 64 zeros if not. It panics if there is no
// such transfer. The time grows with i.
func (b *Batch) Signature(i int) (s [64]byte) {
	if !b.Straggler(i) {
		return s
	}
	rank := bits.OnesCount8(b.stragglers[i/8] & (1<<(i%8) - 1))
	for _, x := range b.stragglers[:i/8] {
		rank += bits.OnesCount8(x)
	}
	return [64]byte(b.signatures[rank*signatureBytes:])
}

// Stragglers is how many transfers carry their own signature.
func (b *Batch) Stragglers() int { return len(b.signatures) / signatureBytes }

// Append appends the encoding.
func (b *Batch) Append(to []byte) []byte {
	to = b.appendHead(to)
	to = append(to, b.bodies...)
	to = append(to, b.stragglers...)
	return append(to, b.signatures...)
}

func (b *Batch) appendHead(to []byte) []byte {
	to = append(to, version)
	to = binary.BigEndian.AppendUint32(to, uint32(b.Count()))
	to = append(to, b.root[:]...)
	return append(to, b.aggregate[:]...)
}

// Digest is the SHA-256 of the encoding.
func (b *Batch) Digest() (sum [32]byte) {
	head := b.appendHead(make([]byte, 0, headBytes))
	d := sha256.New()
	for _, part := range [][]byte{head, b.bodies, b.stragglers, b.signatures} {
		d.Write(part)
	}
	d.Sum(sum[:0])
	return sum
}

// Bytes is the length of the encoding.
func (b *Batch) Bytes() int {
	return headBytes + len(b.bodies) + len(b.stragglers) + len(b.signatures)
}

// Decode decodes exactly one batch, which aliases b. The error wraps ErrMalformed or ErrOrder.
func Decode(b []byte) (*Batch, error) {
	batch, rest, err := read(b)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, malformed("%d bytes after the batch", len(rest))
	}
	return batch, nil
}

// DecodeSection decodes one or more batches, at most limit of them, which alias b. No order is asked for between
// batches: a sender may be in several. The errors are as Decode's.
func DecodeSection(b []byte, limit int) ([]*Batch, error) {
	if len(b) == 0 {
		return nil, malformed("section without a batch")
	}
	var batches []*Batch
	for len(b) > 0 {
		if len(batches) == limit {
			return nil, malformed("more than %d batches", limit)
		}
		batch, rest, err := read(b)
		if err != nil {
			return nil, fmt.Errorf("batch %d: %w", len(batches), err)
		}
		batches, b = append(batches, batch), rest
	}
	return batches, nil
}

// read decodes a batch from the front of b.
func read(b []byte) (*Batch, []byte, error) {
	if len(b) < headBytes {
		return nil, nil, malformed("%d bytes are no batch", len(b))
	}
	if b[0] != version {
		return nil, nil, malformed("version %d, this build knows %d", b[0], version)
	}
	count := binary.BigEndian.Uint32(b[1:])
	if count < 1 || count > MaxCount {
		return nil, nil, malformed("%d transfers, need 1 to %d", count, MaxCount)
	}
	n := int(count)
	batch := &Batch{root: [32]byte(b[5:]), aggregate: [96]byte(b[37:])}
	b = b[headBytes:]
	if len(b) < n*BodyBytes+(n+7)/8 {
		return nil, nil, malformed("%d bytes for the bodies of %d transfers", len(b), n)
	}
	batch.bodies, b = b[:n*BodyBytes:n*BodyBytes], b[n*BodyBytes:]
	batch.stragglers, b = b[:(n+7)/8:(n+7)/8], b[(n+7)/8:]
	if n%8 != 0 && batch.stragglers[n/8]>>(n%8) != 0 {
		return nil, nil, malformed("straggler bits beyond transfer %d", n-1)
	}
	late := 0
	for _, x := range batch.stragglers {
		late += bits.OnesCount8(x)
	}
	if late == n {
		return nil, nil, malformed("all %d transfers are stragglers'", n)
	}
	if len(b) < late*signatureBytes {
		return nil, nil, malformed("%d bytes for the signatures of %d stragglers", len(b), late)
	}
	batch.signatures, b = b[:late*signatureBytes:late*signatureBytes], b[late*signatureBytes:]
	if i := disorder(batch.bodies); i > 0 {
		return nil, nil, fmt.Errorf("distill: %w: transfer %d is from %d after %d", ErrOrder, i, Sender(batch.Body(i)), Sender(batch.Body(i-1)))
	}
	return batch, b, nil
}

// disorder is the first body whose sender is not above that of the one before, or 0.
func disorder(bodies []byte) int {
	last := binary.BigEndian.Uint64(bodies) >> 16
	for at := BodyBytes; at < len(bodies); at += BodyBytes {
		sender := binary.BigEndian.Uint64(bodies[at:]) >> 16
		if sender <= last {
			return at / BodyBytes
		}
		last = sender
	}
	return 0
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("distill: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
