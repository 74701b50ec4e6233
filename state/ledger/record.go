package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// RecordBytes is the size of an account record, in memory, on disk and under the state root.
const RecordBytes = 64

// Kinds of accounts.
const (
	KindNone   uint8 = 0 // no account: all 64 bytes are zero
	KindSingle uint8 = 1 // one Ed25519 key
)

// Record is an account:
//
//	balance 8, nonce 4, paid until 4, kind 1, flags 1, generation 2, last touch 4, key 32, extension 8
//
// big-endian, 64 bytes. There is no other encoding, so a record is also its own leaf's input.
type Record struct {
	Balance    uint64
	Nonce      uint32 // the next transaction's
	PaidUntil  uint32 // epoch; 0 while there is no rent
	Kind       uint8
	Flags      uint8  // none yet
	Generation uint16 // counts key changes; part of the key of cached verdicts
	LastTouch  uint32 // height of the block that last changed the record
	Key        [32]byte
	Extension  uint64 // 1 + place of the account's BLS key in the directory, 0: none
}

// Append appends the encoding.
func (r *Record) Append(b []byte) []byte {
	be := binary.BigEndian
	b = be.AppendUint64(b, r.Balance)
	b = be.AppendUint32(b, r.Nonce)
	b = be.AppendUint32(b, r.PaidUntil)
	b = append(b, r.Kind, r.Flags)
	b = be.AppendUint16(b, r.Generation)
	b = be.AppendUint32(b, r.LastTouch)
	b = append(b, r.Key[:]...)
	return be.AppendUint64(b, r.Extension)
}

// ErrMalformed wraps every decoding error of this package.
var ErrMalformed = errors.New("malformed encoding")

// DecodeRecord decodes exactly one record. 64 zero bytes are the record of no account.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) != RecordBytes {
		return Record{}, fmt.Errorf("ledger: record: %w: %d bytes", ErrMalformed, len(b))
	}
	r := (*cell)(b).record()
	if r.Kind > KindSingle || r.Flags != 0 || r.Kind == KindNone && r != (Record{}) {
		return Record{}, fmt.Errorf("ledger: record: %w: kind %d, flags %#x", ErrMalformed, r.Kind, r.Flags)
	}
	return r, nil
}

// cell is a record in place, in its encoding, 64-byte aligned.
type cell [RecordBytes]byte

func (c *cell) balance() uint64     { return binary.BigEndian.Uint64(c[0:]) }
func (c *cell) nonce() uint32       { return binary.BigEndian.Uint32(c[8:]) }
func (c *cell) generation() uint16  { return binary.BigEndian.Uint16(c[18:]) }
func (c *cell) touched() uint32     { return binary.BigEndian.Uint32(c[20:]) }
func (c *cell) setBalance(v uint64) { binary.BigEndian.PutUint64(c[0:], v) }
func (c *cell) setNonce(v uint32)   { binary.BigEndian.PutUint32(c[8:], v) }
func (c *cell) setTouched(v uint32) { binary.BigEndian.PutUint32(c[20:], v) }
func (c *cell) key() [32]byte       { return [32]byte(c[24:56]) }
func (c *cell) extension() uint64   { return binary.BigEndian.Uint64(c[56:]) }

func (c *cell) record() Record {
	return Record{
		Balance: c.balance(), Nonce: c.nonce(), PaidUntil: binary.BigEndian.Uint32(c[12:]),
		Kind: c[16], Flags: c[17], Generation: c.generation(), LastTouch: c.touched(),
		Key: c.key(), Extension: c.extension(),
	}
}

// halves shows cells as the pairs of digests that merkle.HashPairs hashes to leaves.
func halves(cells []cell) [][32]byte {
	return unsafe.Slice((*[32]byte)(unsafe.Pointer(unsafe.SliceData(cells))), 2*len(cells))
}
