package replay

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"tutti/accel/merkle"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// Opening shows from a header how many transactions its block has and which of them took effect, without the block. The
// number of leaves is under the header's outcomes root, and the outcome bits are the last section of the body, so the end of
// the body shows them all, with the state of SHA-256 before it: of the body itself where that travelled whole, and of the
// shards that the end lies in where it travelled in shards, each with its path.
type Opening struct {
	Leaves uint64   // under the outcomes root: transactions, then receipts consumed
	Top    [32]byte // of their tree; zero if there are none
	Pieces []Piece  // none if there are no transactions
}

// Piece is the end of a body or of a shard, from a multiple of 64 bytes on: the last before the section of outcomes.
type Piece struct {
	State [32]byte // chaining value of SHA-256 before Bytes; zero if Bytes is all
	Bytes []byte
	Path  [][32]byte // of a shard; nil of a body
}

// Domain tags of what is hashed here as consensus, accel/erasure and accel/merkle define it.
var (
	tagBody  = [16]byte{'t', 'u', 't', 't', 'i', '/', 'b', 'o', 'd', 'y', '/', '1'}
	tagShard = [16]byte{'t', 'u', 't', 't', 'i', '/', 's', 'h', 'a', 'r', 'd', '/', '1'}
	tagList  = [16]byte{'t', 'u', 't', 't', 'i', '/', 'l', 'i', 's', 't', '/', '1'}
)

const (
	hashBlock     = 64
	outcomesHead  = 1 + 4 // type and length of the section
	maxShardPath  = 12    // log2 of erasure.MaxShards
	maxPieces     = 64
	maxPieceBytes = 1 << 20
)

// ErrOpening says that an Opening is not of the header's block.
var ErrOpening = errors.New("the transactions and outcomes are not those of the block")

func notOpen(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrOpening, fmt.Sprintf(format, args...))
}

// outcomes is what an Opening shows.
type outcomes struct{ txs, successes uint64 }

// verify checks o against the header of a block that consumed so many receipts.
func (o *Opening) verify(h *consensus.Header, receipts uint64) (outcomes, error) {
	var seal [16 + 8 + 32]byte
	copy(seal[:], tagList[:])
	binary.BigEndian.PutUint64(seal[16:], o.Leaves)
	copy(seal[24:], o.Top[:])
	if sha256.Sum256(seal[:]) != h.Outcomes {
		return outcomes{}, notOpen("the outcomes root has another number of leaves than %d", o.Leaves)
	}
	if o.Leaves < receipts || o.Leaves-receipts > tx.MaxBodyTx {
		return outcomes{}, notOpen("%d leaves in a block that consumed %d receipts", o.Leaves, receipts)
	}
	out := outcomes{txs: o.Leaves - receipts}
	if out.txs == 0 {
		if len(o.Pieces) != 0 {
			return outcomes{}, notOpen("pieces of a body without transactions")
		}
		return out, nil
	}
	section := outcomesHead + (int(out.txs)+7)/8
	end, err := o.end(h.Body, section)
	if err != nil {
		return outcomes{}, err
	}
	if tx.SectionType(end[0]) != tx.SectionOutcomes || int(binary.BigEndian.Uint32(end[1:])) != section-outcomesHead {
		return outcomes{}, notOpen("the body does not end with the outcomes of %d transactions", out.txs)
	}
	for _, b := range end[outcomesHead:] {
		out.successes += uint64(bits.OnesCount8(b))
	}
	if n := out.txs & 7; n != 0 && end[section-1]>>n != 0 {
		return outcomes{}, notOpen("padding after %d outcomes", out.txs)
	}
	return out, nil
}

// end is the last n bytes of the body, shown to be that.
func (o *Opening) end(r consensus.BodyRef, n int) ([]byte, error) {
	start := int(r.Length) - n
	if start < 1 {
		return nil, notOpen("a body of %d bytes is too short for them", r.Length)
	}
	if r.Codec == consensus.CodecWhole {
		if len(o.Pieces) != 1 || o.Pieces[0].Path != nil {
			return nil, notOpen("a whole body has one piece, here are %d", len(o.Pieces))
		}
		p, whole, from := &o.Pieces[0], len(tagBody)+int(r.Length), floorBlock(len(tagBody)+start)
		digest, err := p.digest(from, whole)
		if err != nil {
			return nil, err
		}
		if digest != [32]byte(r.Root) {
			return nil, notOpen("the end of the body is not the header's")
		}
		return p.Bytes[len(p.Bytes)-n:], nil
	}
	if r.Codec != consensus.CodecShards {
		return nil, notOpen("a body of codec %d", r.Codec)
	}
	size := shardBytes(r)
	first, last := start/size, (int(r.Length)-1)/size
	if len(o.Pieces) != last-first+1 {
		return nil, notOpen("%d pieces, the end of the body is in shards %d to %d", len(o.Pieces), first, last)
	}
	var all []byte
	for i := range o.Pieces {
		p, from := &o.Pieces[i], 0
		if i == 0 {
			from = floorBlock(start - first*size)
		}
		digest, err := p.digest(from, size)
		if err != nil {
			return nil, err
		}
		if !merkle.VerifyList(r.Root, uint64(r.N), uint64(first+i), shardLeaf(r, digest), p.Path) {
			return nil, notOpen("shard %d of the body is not the header's", first+i)
		}
		all = append(all, p.Bytes...)
	}
	at := start - first*size - floorBlock(start-first*size)
	return all[at : at+n], nil
}

// digest is SHA-256 of the whole that Bytes is the rest of, from offset from on.
func (p *Piece) digest(from, whole int) ([32]byte, error) {
	if len(p.Bytes) != whole-from {
		return [32]byte{}, notOpen("a piece of %d bytes, need %d", len(p.Bytes), whole-from)
	}
	if from == 0 {
		if p.State != [32]byte{} {
			return [32]byte{}, notOpen("a state before the first byte")
		}
		return sha256.Sum256(p.Bytes), nil
	}
	d, err := resume(p.State, from)
	if err != nil {
		return [32]byte{}, err
	}
	d.Write(p.Bytes)
	return [32]byte(d.Sum(nil)), nil
}

func floorBlock(n int) int { return n / hashBlock * hashBlock }

// shardBytes is the size of the shards of a body (accel/erasure). K is at least 1 in a decoded header.
func shardBytes(r consensus.BodyRef) int {
	each := (int(r.Length) + int(r.K) - 1) / int(r.K)
	return (each + hashBlock - 1) / hashBlock * hashBlock
}

// shardLeaf is the leaf of a shard with such a digest (accel/erasure).
func shardLeaf(r consensus.BodyRef, digest [32]byte) [32]byte {
	b := append(make([]byte, 0, 16+2+2+4+32), tagShard[:]...)
	b = binary.BigEndian.AppendUint16(b, r.K)
	b = binary.BigEndian.AppendUint16(b, r.N)
	b = binary.BigEndian.AppendUint32(b, r.Length)
	return sha256.Sum256(append(b, digest[:]...))
}

// The serialised state of crypto/sha256: magic 4, chaining value 32, buffer 64, length 8. A golden vector notices if a Go
// release changes it.
const stateMagic = "sha\x03"

// resume is a SHA-256 that has taken in so many bytes, a multiple of 64.
func resume(state [32]byte, n int) (interface {
	Write([]byte) (int, error)
	Sum([]byte) []byte
}, error,
) {
	b := append(make([]byte, 0, 108), stateMagic...)
	b = append(b, state[:]...)
	b = append(b, make([]byte, hashBlock)...)
	b = binary.BigEndian.AppendUint64(b, uint64(n))
	d := sha256.New()
	if err := d.(encoding.BinaryUnmarshaler).UnmarshalBinary(b); err != nil {
		return nil, fmt.Errorf("replay: this build's SHA-256 takes no state: %w", err)
	}
	return d, nil
}

// stateAfter is the chaining value after b, whose length is a multiple of 64; zero after nothing.
func stateAfter(parts ...[]byte) (state [32]byte, err error) {
	d, n := sha256.New(), 0
	for _, p := range parts {
		d.Write(p)
		n += len(p)
	}
	if n == 0 {
		return state, nil
	}
	b, err := d.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil || len(b) != 108 || string(b[:4]) != stateMagic {
		return state, fmt.Errorf("replay: this build's SHA-256 gives no state: %w", err)
	}
	return [32]byte(b[4:]), nil
}

// Open makes the Opening of a block of a committee. Bodies in shards are encoded once more for it, about 2 ms for each MiB.
func Open(c *proof.Contents, of *consensus.Committee) (Opening, error) {
	leaves, top := c.Leaves()
	o := Opening{Leaves: leaves, Top: top}
	n := c.Body.Len()
	if n == 0 {
		return o, nil
	}
	r, body := c.Header.Body, c.Block.Body
	start := len(body) - outcomesHead - (n+7)/8
	if r.Codec == consensus.CodecWhole {
		from := floorBlock(len(tagBody)+start) - len(tagBody)
		if from < 0 { // the tag is in the piece
			o.Pieces = []Piece{{Bytes: append(append([]byte{}, tagBody[:]...), body...)}}
			return o, nil
		}
		state, err := stateAfter(tagBody[:], body[:from])
		o.Pieces = []Piece{{State: state, Bytes: append([]byte{}, body[from:]...)}}
		return o, err
	}
	set, err := of.Code().Encode(body)
	if err != nil {
		return o, err
	}
	size := shardBytes(r)
	for i := start / size; i*size < len(body); i++ {
		shard, from := set.Shard(i), 0
		if i == start/size {
			from = floorBlock(start - i*size)
		}
		state, err := stateAfter(shard[:from])
		if err != nil {
			return o, err
		}
		o.Pieces = append(o.Pieces, Piece{State: state, Bytes: append([]byte{}, shard[from:]...), Path: set.Path(i)})
	}
	return o, nil
}
