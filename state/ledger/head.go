package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"tutti/state/tx"
)

// The head of a block's difference: Meta length 4, Meta, then for each channel its return receipts (Meta says how
// many), then entries 4 and the entries that the block appended to the directory of BLS keys.

func appendHead(b []byte, m *Meta, parts []partition, returns [][]tx.Receipt, keys []keyEntry) []byte {
	at := len(b)
	b = m.append(append(b, 0, 0, 0, 0), parts)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	for _, r := range returns {
		b = appendReceipts(b, r)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(keys)))
	for i := range keys {
		b = keys[i].append(b)
	}
	return b
}

// metaOf is the encoded Meta in an encoded head.
func metaOf(head []byte) []byte { return head[4:][:binary.BigEndian.Uint32(head)] }

// readHead decodes exactly one head whose Meta is of the shape of like.
func readHead(b []byte, like *Meta, parts []partition) (m *Meta, returns [][]tx.Receipt, keys []keyEntry, err error) {
	r := reader{b: b}
	n := r.u32()
	if r.ok(uint64(n) <= uint64(len(r.b))) {
		var rest []byte
		if m, rest, err = readMeta(r.take(int(n)), like, parts); err != nil {
			return nil, nil, nil, err
		}
		r.ok(len(rest) == 0)
	}
	for i := 0; !r.bad && i < len(m.Channels); i++ {
		size := uint64(m.Channels[i].Returns) * receiptBytes
		if !r.ok(size <= uint64(len(r.b))) {
			break
		}
		raw := r.take(int(size))
		list, err := readReceipts(raw)
		r.ok(err == nil && (len(list) == 0 || m.Channels[i].ReturnsHash == sha256.Sum256(raw)))
		returns = append(returns, list)
	}
	n = r.u32()
	if r.ok(uint64(n)*keyEntryBytes == uint64(len(r.b))) {
		for range n {
			id := tx.MakeID(r.u16(), r.u32())
			keys = append(keys, keyEntry{id, [48]byte(r.take(48))})
		}
	}
	if r.bad {
		return nil, nil, nil, fmt.Errorf("ledger: head of a difference: %w", ErrMalformed)
	}
	return m, returns, keys, nil
}

// receiptBytes is the size of an encoded tx.Receipt.
const receiptBytes = 6 + 6 + 8 + 32 + 1

func appendReceipts(b []byte, receipts []tx.Receipt) []byte {
	for i := range receipts {
		b = receipts[i].Append(b)
	}
	return b
}

func readReceipts(b []byte) ([]tx.Receipt, error) {
	if len(b)%receiptBytes != 0 {
		return nil, fmt.Errorf("ledger: receipts: %w: %d bytes", ErrMalformed, len(b))
	}
	out := make([]tx.Receipt, 0, len(b)/receiptBytes)
	for ; len(b) > 0; b = b[receiptBytes:] {
		r, err := tx.DecodeReceipt(b[:receiptBytes])
		if err != nil {
			return nil, err
		}
		out = append(out, *r)
	}
	return out, nil
}

// keyEntry is an entry of the directory of BLS keys: id 6, key 48.
type keyEntry struct {
	id  tx.ID
	key [48]byte
}

const keyEntryBytes = 6 + 48

func append48(b []byte, id tx.ID) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id.Partition()), id.Index())
}

func (k *keyEntry) append(b []byte) []byte { return append(append48(b, k.id), k.key[:]...) }

const tagKey = "tutti/blskey/1\x00\x00"

// leaf is the entry's leaf in Meta.Directory: SHA-256("tutti/blskey/1" padded to 16 bytes || place 8 || entry).
func (k *keyEntry) leaf(place uint64) [32]byte {
	b := append(make([]byte, 0, 16+8+keyEntryBytes), tagKey...)
	return sha256.Sum256(k.append(binary.BigEndian.AppendUint64(b, place)))
}
