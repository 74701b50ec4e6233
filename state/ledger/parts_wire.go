package ledger

import "tutti/state/tx"

// Append appends the encoding.
func (o *Outline) Append(b []byte) []byte { return b }

// DecodeOutline decodes exactly one outline. It aliases b. Verify decodes the counters.
func DecodeOutline(b []byte) (*Outline, error) { return nil, errNotYet }

// Verify checks the outline against the state root at its height and returns the counters. *BadPart.
func (o *Outline) Verify(root tx.Hash, p *Params) (*Meta, error) { return nil, errNotYet }

// Append appends the encoding.
func (c *Chunk) Append(b []byte) []byte { return b }

// DecodeChunk decodes exactly one chunk. It aliases b.
func DecodeChunk(b []byte) (*Chunk, error) { return nil, errNotYet }

// Verify checks the chunk against the state root at its height. *BadPart.
func (c *Chunk) Verify(root tx.Hash) error { return errNotYet }

// Records are the accounts in the chunk, from the first one on.
func (c *Chunk) Records() []Record { return nil }

// Append appends the encoding.
func (d *Difference) Append(b []byte) []byte { return b }

// DecodeDifference decodes exactly one difference, as far as its height. It aliases b. Hash and PutDifferences decode the rest.
func DecodeDifference(b []byte) (Difference, error) { return Difference{}, errNotYet }

// Bytes is the size of the encoding.
func (d *Difference) Bytes() int { return 8 + len(d.bytes) }

// Hash is the diff hash.
func (d *Difference) Hash() (tx.Hash, error) { return tx.Hash{}, errNotYet }

// AppendKeys appends the encodings of entries of the directory.
func AppendKeys(b []byte, keys []DirectoryKey) []byte { return b }

// DecodeKeys decodes at most SegmentKeys entries.
func DecodeKeys(b []byte) ([]DirectoryKey, error) { return nil, errNotYet }

// AppendTops appends the encodings of tops of segments: 32 bytes each.
func AppendTops(b []byte, tops []tx.Hash) []byte { return b }

// DecodeTops decodes at most MaxTops tops.
func DecodeTops(b []byte) ([]tx.Hash, error) { return nil, errNotYet }

// Append appends the encoding.
func (o *Outbox) Append(b []byte) []byte { return b }

// DecodeOutbox decodes exactly one outbox.
func DecodeOutbox(b []byte) (*Outbox, error) { return nil, errNotYet }
