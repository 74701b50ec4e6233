// Package tx holds the formats of transactions and bodies: account ids and their text form, the signed envelope,
// the typed sections of a body, outcome bits, receipts, and the leaves of the outcomes root. It is pure: no keys,
// no state, no I/O. Signatures are carried, never checked, here.
//
// Integers are big-endian; 48-bit account ids take six bytes. Every type has exactly one encoding and every
// decoder is bounded, refuses trailing bytes and is fuzzed. Golden vectors are in testdata/.
package tx

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Hash is a SHA-256 digest.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ID is a 48-bit account position: partition (16 bits) then index in the partition's tree (32 bits).
type ID uint64

// Partition is the account's partition, fixed for ever; the epoch's table maps partitions to shards.
func (id ID) Partition() uint16 { return uint16(id >> 32) }

// Index is the account's place in its partition's tree.
func (id ID) Index() uint32 { return uint32(id) }

// MakeID joins a partition and an index.
func MakeID(partition uint16, index uint32) ID { return ID(partition)<<32 | ID(index) }

// Kind says what a transaction does.
type Kind uint8

const (
	Transfer Kind = 1 // move an amount; 32-byte body
	Open     Kind = 2 // open an account in the payer's shard; 60-byte body, 204 with a BLS key
)

func (k Kind) String() string {
	switch k {
	case Transfer:
		return "transfer"
	case Open:
		return "open"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Body lengths in bytes.
const (
	TransferBytes = 32
	OpenBytes     = 60
	OpenBLSBytes  = OpenBytes + 48 + 96
	MaxTxBytes    = 1 + OpenBLSBytes + 64
	TransferWire  = 1 + TransferBytes + 64
)

// FlagBLS in the flags of an Open says that a BLS key and its proof of possession follow. All other flags are refused.
const FlagBLS uint16 = 1

// Tx is a decoded transaction. From pays the fee and gives the nonce.
//
//	transfer body: from 6, to 6, amount 8, nonce 4, expiry 4, fee class 2, flags 2
//	open body:     from 6, amount 8, nonce 4, expiry 4, fee class 2, flags 2, ed25519 key 32, padding 2 (zero)
//	               [, bls key 48, proof of possession 96]
type Tx struct {
	Kind     Kind
	FeeClass uint16 // index in the genesis fee table
	From     ID
	To       ID       // Transfer only
	Amount   uint64   // units moved to To, or the opening balance
	Nonce    uint32   // must equal the payer's record
	Expiry   uint32   // last block height of the payer's shard at which it may execute
	Key      [32]byte // Open only: Ed25519 key of the new account
	BLS      *BLSKey  // Open only: nil if the new account has none; FlagBLS on the wire
}

// BLSKey is the BLS key of an account to be opened. It is immutable once it is in a transaction. Few transactions have
// one, so they hold it by pointer: a block's transactions are read many times and stay small.
type BLSKey struct {
	Key        [48]byte // compressed, min-pk
	Possession [96]byte // proof of possession over PossessionMessage
}

// Signed is a transaction with the payer's Ed25519 signature (ZIP-215) over Message.
type Signed struct {
	Tx
	Signature [64]byte
}

// ErrMalformed wraps every decoding error of this package.
var ErrMalformed = errors.New("malformed encoding")

func malformed(what, format string, args ...any) error {
	return fmt.Errorf("tx: %s: %w: %s", what, ErrMalformed, fmt.Sprintf(format, args...))
}

// Domain tags, 16 bytes each, padded with zeros.
var (
	tagTx         = tag("tutti/tx/1")
	tagOutcome    = tag("tutti/outcome/1")
	tagReceipt    = tag("tutti/receipt/1")
	tagPossession = tag("tutti/possess/1")
)

func tag(s string) (t [16]byte) {
	if copy(t[:], s) != len(s) {
		panic("tx: tag too long: " + s)
	}
	return t
}

func append48(b []byte, id ID) []byte {
	return append(b, byte(id>>40), byte(id>>32), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func read48(b []byte) ID {
	return ID(binary.BigEndian.Uint16(b))<<32 | ID(binary.BigEndian.Uint32(b[2:]))
}

// AppendBody appends kind and body, the part that the transaction id covers.
func (t *Tx) AppendBody(b []byte) []byte {
	be := binary.BigEndian
	b = append(b, byte(t.Kind))
	b = append48(b, t.From)
	if t.Kind == Transfer {
		b = append48(b, t.To)
	}
	b = be.AppendUint64(b, t.Amount)
	b = be.AppendUint32(b, t.Nonce)
	b = be.AppendUint32(b, t.Expiry)
	b = be.AppendUint16(b, t.FeeClass)
	if t.Kind != Open {
		return append(b, 0, 0)
	}
	if t.BLS == nil {
		b = append(b, 0, 0)
	} else {
		b = be.AppendUint16(b, FlagBLS)
	}
	b = append(b, t.Key[:]...)
	b = append(b, 0, 0)
	if t.BLS != nil {
		b = append(b, t.BLS.Key[:]...)
		b = append(b, t.BLS.Possession[:]...)
	}
	return b
}

// AppendMessage appends what the payer signs: tag(16) genesis(32) kind(1) body. The id is its SHA-256, so a retry that
// sends the same content is the same transaction whatever its signature.
func (t *Tx) AppendMessage(b []byte, genesis Hash) []byte {
	b = append(b, tagTx[:]...)
	b = append(b, genesis[:]...)
	return t.AppendBody(b)
}

// TransferMessage is the length of a transfer's message.
const TransferMessage = 16 + 32 + 1 + TransferBytes

const maxMessageBytes = 16 + 32 + 1 + OpenBLSBytes

// Message is what the payer signs; see AppendMessage.
func (t *Tx) Message(genesis Hash) []byte {
	return t.AppendMessage(make([]byte, 0, maxMessageBytes), genesis)
}

// TxID names the transaction on the chain with the given genesis hash.
func (t *Tx) TxID(genesis Hash) Hash {
	return sha256.Sum256(t.AppendMessage(make([]byte, 0, maxMessageBytes), genesis))
}

// PossessionMessage is what the BLS key of an opening signs to prove possession: bound to the chain and, because the
// account's id is not known before it is assigned, to the account's Ed25519 key.
func PossessionMessage(genesis Hash, key [32]byte, bls [48]byte) []byte {
	b := append([]byte{}, tagPossession[:]...)
	b = append(b, genesis[:]...)
	b = append(b, key[:]...)
	return append(b, bls[:]...)
}

// WireBytes is the length of the wire form.
func (t *Tx) WireBytes() int {
	switch {
	case t.Kind == Transfer:
		return TransferWire
	case t.BLS != nil:
		return MaxTxBytes
	}
	return 1 + OpenBytes + 64
}

// Append appends the wire form: kind, body, signature.
func (s *Signed) Append(b []byte) []byte { return append(s.AppendBody(b), s.Signature[:]...) }

// read reads one signed transaction from the front of s into t, which is zero.
func read(s *cryptobyte.String, t *Signed) error {
	if s.Empty() {
		return malformed("transaction", "empty")
	}
	switch t.Kind = Kind((*s)[0]); t.Kind {
	case Transfer:
		return readTransfer(s, t)
	case Open:
		return readOpen(s, t)
	}
	return malformed("transaction", "unknown kind %d", t.Kind)
}

// readTransfer reads a transfer, field by field at fixed places: blocks are full of them.
func readTransfer(s *cryptobyte.String, t *Signed) error {
	var b []byte
	if !s.ReadBytes(&b, TransferWire) {
		return malformed("transaction", "too short for a transfer")
	}
	t.Signature = [64]byte(b[1+TransferBytes:])
	return t.setTransfer((*[TransferBytes]byte)(b[1:]))
}

// setTransfer sets t to what a transfer's body says.
func (t *Tx) setTransfer(b *[TransferBytes]byte) error {
	be := binary.BigEndian
	t.Kind, t.From, t.To = Transfer, read48(b[0:]), read48(b[6:])
	t.Amount, t.Nonce, t.Expiry = be.Uint64(b[12:]), be.Uint32(b[20:]), be.Uint32(b[24:])
	t.FeeClass = be.Uint16(b[28:])
	if flags := be.Uint16(b[30:]); flags != 0 {
		return malformed("transaction", "unknown flags %#x in a transfer", flags)
	}
	return nil
}

func readOpen(s *cryptobyte.String, t *Signed) error {
	var (
		from       uint64
		flags, pad uint16
	)
	if !(s.Skip(1) && s.ReadUint48(&from) && s.ReadUint64(&t.Amount) && s.ReadUint32(&t.Nonce) && s.ReadUint32(&t.Expiry) &&
		s.ReadUint16(&t.FeeClass) && s.ReadUint16(&flags) && s.CopyBytes(t.Key[:]) && s.ReadUint16(&pad)) {
		return malformed("transaction", "too short for an open")
	}
	t.From = ID(from)
	if flags&^FlagBLS != 0 {
		return malformed("transaction", "unknown flags %#x in an open", flags&^FlagBLS)
	}
	if pad != 0 {
		return malformed("transaction", "padding is not zero")
	}
	if flags&FlagBLS != 0 {
		t.BLS = new(BLSKey)
		if !(s.CopyBytes(t.BLS.Key[:]) && s.CopyBytes(t.BLS.Possession[:])) {
			return malformed("transaction", "too short for an open with a BLS key")
		}
	}
	if !s.CopyBytes(t.Signature[:]) {
		return malformed("transaction", "too short for a signature")
	}
	return nil
}

// Decode decodes exactly one signed transaction.
func Decode(b []byte) (*Signed, error) {
	s := cryptobyte.String(b)
	var t Signed
	if err := read(&s, &t); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("transaction", "%d bytes too many", len(s))
	}
	return &t, nil
}

// DecodeMany decodes concatenated signed transactions, at most limit of them.
func DecodeMany(b []byte, limit int) ([]Signed, error) {
	s := cryptobyte.String(b)
	out := make([]Signed, 0, min(limit, len(b)/TransferWire))
	for !s.Empty() {
		if len(out) == limit {
			return nil, malformed("transactions", "more than %d", limit)
		}
		out = append(out, Signed{})
		if err := read(&s, &out[len(out)-1]); err != nil {
			return nil, fmt.Errorf("at transaction %d: %w", len(out)-1, err)
		}
	}
	return out, nil
}
