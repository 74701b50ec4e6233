package tx

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/distill"
	"tutti/accel/merkle"
)

// SectionType names a typed section of a body. Sections come in ascending type order, each type at most once;
// unknown types are refused.
type SectionType uint8

const (
	SectionSigned    SectionType = 1 // concatenated signed transactions
	SectionDistilled SectionType = 2 // distilled batches (accel/distill), one or more
	SectionReceipts  SectionType = 3 // bundles of receipts from other shards
	SectionSystem    SectionType = 4 // system records; format reserved, refused by this build
	SectionOutcomes  SectionType = 5 // outcome bits of all transactions, in body order
)

// BodyVersion is the first byte of a body.
const BodyVersion = 1

// Limits of a body.
const (
	MaxBodyTx      = 1 << 17 // both sections together
	MaxBatches     = 64
	MaxBundles     = 64
	MaxBundleCount = 65536
	MaxProofBytes  = 1 << 20
	receiptBytes   = 6 + 6 + 8 + 32 + 1
)

// Receipt is a credit on its way to another shard. It is identified by (source shard, destination shard, sequence).
type Receipt struct {
	From   ID // who paid; a return credit goes back there
	To     ID
	Amount uint64
	Tx     Hash // id of the transfer that made it
	Return bool // the money comes back because it could not be credited
}

// Append appends the encoding: from 6, to 6, amount 8, tx 32, return 1.
func (r *Receipt) Append(b []byte) []byte {
	b = append48(append48(b, r.From), r.To)
	b = binary.BigEndian.AppendUint64(b, r.Amount)
	b = append(b, r.Tx[:]...)
	if r.Return {
		return append(b, 1)
	}
	return append(b, 0)
}

// Leaf is the receipt's leaf in the source's cumulative root towards dest: tag, source, dest, sequence, encoding.
func (r *Receipt) Leaf(source, dest uint16, seq uint64) Hash {
	b := make([]byte, 0, 16+2+2+8+receiptBytes)
	b = append(b, tagReceipt[:]...)
	b = binary.BigEndian.AppendUint16(b, source)
	b = binary.BigEndian.AppendUint16(b, dest)
	b = binary.BigEndian.AppendUint64(b, seq)
	return sha256.Sum256(r.Append(b))
}

func readReceipt(s *cryptobyte.String, r *Receipt) error {
	var from, to uint64
	var ret uint8
	if !(s.ReadUint48(&from) && s.ReadUint48(&to) && s.ReadUint64(&r.Amount) && s.CopyBytes(r.Tx[:]) && s.ReadUint8(&ret)) {
		return malformed("receipt", "too short")
	}
	if ret > 1 {
		return malformed("receipt", "return flag %d", ret)
	}
	r.From, r.To, r.Return = ID(from), ID(to), ret == 1
	return nil
}

// DecodeReceipt decodes exactly one receipt.
func DecodeReceipt(b []byte) (*Receipt, error) {
	s := cryptobyte.String(b)
	var r Receipt
	if err := readReceipt(&s, &r); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("receipt", "%d bytes too many", len(s))
	}
	return &r, nil
}

// Bundle brings receipts First, First+1, ... from one source shard, all that its proven header has sent and the
// destination has not received yet; possibly none, when only the source's acknowledgement is news.
type Bundle struct {
	Source   uint16
	Proof    []byte // that a header of the source is final (opaque here: appliance/node has its form)
	First    uint64 // equals the destination's received cursor for Source
	Receipts []Receipt
}

// Append appends the encoding: source 2, proof length 4, proof, first 8, count 4, receipts.
func (u *Bundle) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, u.Source)
	b = binary.BigEndian.AppendUint32(b, uint32(len(u.Proof)))
	b = append(b, u.Proof...)
	b = binary.BigEndian.AppendUint64(b, u.First)
	b = binary.BigEndian.AppendUint32(b, uint32(len(u.Receipts)))
	for i := range u.Receipts {
		b = u.Receipts[i].Append(b)
	}
	return b
}

func readBundle(s *cryptobyte.String, u *Bundle) error {
	var n, count uint32
	if !(s.ReadUint16(&u.Source) && s.ReadUint32(&n) && n <= MaxProofBytes && s.ReadBytes(&u.Proof, int(n)) &&
		s.ReadUint64(&u.First) && s.ReadUint32(&count)) {
		return malformed("bundle", "too short or proof over %d bytes", MaxProofBytes)
	}
	if count > MaxBundleCount || int(count)*receiptBytes > len(*s) {
		return malformed("bundle", "%d receipts in %d bytes, limit %d", count, len(*s), MaxBundleCount)
	}
	u.Receipts = make([]Receipt, count)
	for i := range u.Receipts {
		if err := readReceipt(s, &u.Receipts[i]); err != nil {
			return err
		}
	}
	return nil
}

// DecodeBundle decodes exactly one bundle. Proof aliases b.
func DecodeBundle(b []byte) (*Bundle, error) {
	s := cryptobyte.String(b)
	var u Bundle
	if err := readBundle(&s, &u); err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("bundle", "%d bytes too many", len(s))
	}
	return &u, nil
}

// Body is a decoded block body. Its transactions, in the order in which they execute, are the signed ones and then those of
// the batches; Len and Tx count through both. Outcomes[i] says whether Tx(i) took effect.
type Body struct {
	Txs      []Signed
	Batches  []*distill.Batch
	Bundles  []Bundle // ascending by Source
	Outcomes []bool

	distilled []Tx // the batches' transfers
}

// NewBody makes a body of signed transactions and batches, whose transfers it decodes, without bundles and outcomes. The
// error wraps ErrMalformed.
func NewBody(txs []Signed, batches []*distill.Batch) (*Body, error) {
	y := &Body{Txs: txs, Batches: batches}
	return y, y.decodeBatches()
}

func (y *Body) decodeBatches() error {
	n := 0
	for _, batch := range y.Batches {
		n += batch.Count()
	}
	if n += len(y.Txs); n > MaxBodyTx {
		return malformed("body", "more than %d transactions", MaxBodyTx)
	}
	y.distilled = make([]Tx, n-len(y.Txs))
	at := 0
	for k, batch := range y.Batches {
		for i := range batch.Count() {
			if err := y.distilled[at].setTransfer(batch.Body(i)); err != nil {
				return fmt.Errorf("batch %d, transfer %d: %w", k, i, err)
			}
			at++
		}
	}
	return nil
}

// Len is the number of transactions.
func (y *Body) Len() int { return len(y.Txs) + len(y.distilled) }

// Tx is transaction i, which is the body's own: do not change it.
func (y *Body) Tx(i int) *Tx {
	if i < len(y.Txs) {
		return &y.Txs[i].Tx
	}
	return &y.distilled[i-len(y.Txs)]
}

// Signed is transaction i with its signature. One of a batch that is no straggler has none, which is 64 zeros: it was the
// batch that was signed.
func (y *Body) Signed(i int) Signed {
	if i < len(y.Txs) {
		return y.Txs[i]
	}
	i -= len(y.Txs)
	s := Signed{Tx: y.distilled[i]}
	for _, batch := range y.Batches {
		if n := batch.Count(); i >= n {
			i -= n
			continue
		}
		s.Signature = batch.Signature(i)
		break
	}
	return s
}

// IDs are the ids of the transactions on the chain with the given genesis hash.
func (y *Body) IDs(genesis Hash) []Hash {
	ids := make([]Hash, y.Len())
	IDs(ids, genesis, y.Tx)
	return ids
}

// idsPerRound is how many messages are written out before they are hashed: few enough to stay in the caches.
const idsPerRound = 512

// IDs sets ids[i] to the TxID of at(i). Transfers, which are all of one size, are hashed together, which is several times
// faster.
func IDs(ids []Hash, genesis Hash, at func(i int) *Tx) {
	b := make([]byte, 0, min(len(ids), idsPerRound)*TransferMessage)
	for i := 0; i < len(ids); {
		first := i
		for b = b[:0]; i < len(ids) && i < first+idsPerRound && at(i).Kind == Transfer; i++ {
			b = at(i).AppendMessage(b, genesis)
		}
		if i > first {
			merkle.HashMany(unsafe.Slice((*[32]byte)(&ids[first]), i-first), b, TransferMessage)
			continue
		}
		ids[i] = at(i).TxID(genesis)
		i++
	}
}

// Append appends the encoding: version 1, then for each non-empty section type 1, length 4, content.
// An empty body is the version byte alone.
func (y *Body) Append(b []byte) []byte {
	room := 1 + y.Len()/8 + len(y.Txs)*TransferWire
	for _, batch := range y.Batches {
		room += batch.Bytes()
	}
	b = append(slices.Grow(b, room), BodyVersion)
	section := func(t SectionType, content func([]byte) []byte) {
		b = append(b, byte(t), 0, 0, 0, 0)
		at := len(b)
		b = content(b)
		binary.BigEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	}
	if len(y.Txs) > 0 {
		section(SectionSigned, func(b []byte) []byte {
			for i := range y.Txs {
				b = y.Txs[i].Append(b)
			}
			return b
		})
	}
	if len(y.Batches) > 0 {
		section(SectionDistilled, func(b []byte) []byte {
			for _, batch := range y.Batches {
				b = batch.Append(b)
			}
			return b
		})
	}
	if len(y.Bundles) > 0 {
		section(SectionReceipts, func(b []byte) []byte {
			for i := range y.Bundles {
				b = y.Bundles[i].Append(b)
			}
			return b
		})
	}
	if len(y.Outcomes) > 0 {
		section(SectionOutcomes, func(b []byte) []byte {
			bits := make([]byte, (len(y.Outcomes)+7)/8)
			for i, ok := range y.Outcomes {
				if ok {
					bits[i>>3] |= 1 << (i & 7)
				}
			}
			return append(b, bits...)
		})
	}
	return b
}

// DecodeBody decodes exactly one body. Batches and bundle proofs alias b.
func DecodeBody(b []byte) (*Body, error) {
	s := cryptobyte.String(b)
	var version uint8
	if !s.ReadUint8(&version) || version != BodyVersion {
		return nil, malformed("body", "version %d, this build knows %d", version, BodyVersion)
	}
	var y Body
	last := SectionType(0)
	var bits []byte
	for !s.Empty() {
		var t SectionType
		var n uint32
		var content cryptobyte.String
		if !(s.ReadUint8((*uint8)(&t)) && s.ReadUint32(&n) && s.ReadBytes((*[]byte)(&content), int(n))) {
			return nil, malformed("body", "section header too short")
		}
		if t <= last {
			return nil, malformed("body", "section %d after section %d", t, last)
		}
		last = t
		if n == 0 {
			return nil, malformed("body", "empty section %d", t)
		}
		switch t {
		case SectionSigned:
			txs, err := DecodeMany(content, MaxBodyTx)
			if err != nil {
				return nil, fmt.Errorf("body: %w", err)
			}
			y.Txs = txs
		case SectionDistilled:
			batches, err := distill.DecodeSection(content, MaxBatches)
			if err != nil {
				return nil, fmt.Errorf("tx: body: %w: %w", ErrMalformed, err)
			}
			y.Batches = batches
		case SectionReceipts:
			for !content.Empty() {
				if len(y.Bundles) == MaxBundles {
					return nil, malformed("body", "more than %d bundles", MaxBundles)
				}
				var u Bundle
				if err := readBundle(&content, &u); err != nil {
					return nil, fmt.Errorf("body: %w", err)
				}
				if k := len(y.Bundles); k > 0 && u.Source <= y.Bundles[k-1].Source {
					return nil, malformed("body", "bundles not ascending by source")
				}
				y.Bundles = append(y.Bundles, u)
			}
		case SectionOutcomes:
			bits = content
		default:
			return nil, malformed("body", "section type %d is not known to this build", t)
		}
	}
	if err := y.decodeBatches(); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if len(bits) != (y.Len()+7)/8 {
		return nil, malformed("body", "%d outcome bytes for %d transactions", len(bits), y.Len())
	}
	y.Outcomes = make([]bool, y.Len())
	for i := range y.Outcomes {
		y.Outcomes[i] = bits[i>>3]>>(i&7)&1 == 1
	}
	if n := y.Len() & 7; n != 0 && bits[len(bits)-1]>>n != 0 {
		return nil, malformed("body", "padding in the outcome bits is not zero")
	}
	return &y, nil
}

// CreditOutcome says what became of a received receipt.
type CreditOutcome uint8

const (
	Credited CreditOutcome = 1 // To was credited
	Returned CreditOutcome = 2 // To does not exist; a return receipt goes back in the next block
	Treasury CreditOutcome = 3 // a return that could not be credited either
)

func (c CreditOutcome) String() string {
	return [...]string{"none", "credited", "returned", "treasury"}[c&3]
}

// leafBytes is the size of what is hashed to a transaction's leaf: tag 16, kind 1, id 32, outcome 1.
const leafBytes = 16 + 1 + 32 + 1

func appendLeaf(b []byte, id *Hash, success bool) []byte {
	b = append(b, tagOutcome[:]...)
	b = append(b, 0)
	b = append(b, id[:]...)
	if success {
		return append(b, 1)
	}
	return append(b, 0)
}

// TxLeaf is the outcomes-root leaf of a transaction.
func TxLeaf(id Hash, success bool) Hash {
	return sha256.Sum256(appendLeaf(make([]byte, 0, leafBytes), &id, success))
}

// TxLeaves sets dst[i] to the TxLeaf of ids[i] and success[i], all together, which is several times faster.
func TxLeaves(dst [][32]byte, ids []Hash, success []bool) {
	b := make([]byte, 0, len(ids)*leafBytes)
	for i := range ids {
		b = appendLeaf(b, &ids[i], success[i])
	}
	merkle.HashMany(dst[:len(ids)], b, leafBytes)
}

// CreditLeaf is the outcomes-root leaf of a consumed receipt; receiptLeaf is Receipt.Leaf.
func CreditLeaf(receiptLeaf Hash, outcome CreditOutcome) Hash {
	b := make([]byte, 0, 16+1+32+1)
	b = append(b, tagOutcome[:]...)
	b = append(b, 1)
	b = append(b, receiptLeaf[:]...)
	b = append(b, byte(outcome))
	return sha256.Sum256(b)
}
