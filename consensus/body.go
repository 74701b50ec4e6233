package consensus

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"

	"tutti/accel/erasure"
)

// Body codecs: how a body travels, and what its root is.
const (
	CodecWhole  uint8 = 0 // in one piece; the root is BodyRoot
	CodecShards uint8 = 1 // erasure-coded; the root is the commitment of accel/erasure over its shards
	CodecNone   uint8 = 2 // there is no body, and no length or root: the header is an echo (Echo)
)

// Of n validators a leader sends n-1 bodies whole, or about three in shards and, with each part, a header, a vote and paths,
// together 0.5 to 1 KiB; each of the others then sends as much. In shards everybody spends more bytes, messages and time, and
// the leader's uplink is spared. So bodies travel whole as long as that keeps the uplink busy for some milliseconds only.
const (
	wholeUpload = 1 << 20 // bytes that a leader may send at once: 8 ms of a gigabit
	wholeLeast  = 4 << 10 // a body up to this is no shorter in parts
)

// WholeBytes is the longest body under CodecWhole that this committee accepts (CheckBodyRef): 341 KiB for four validators,
// 10 KiB for a hundred, and never below 4 KiB.
func (c *Committee) WholeBytes() int {
	others := len(c.Validators) - 1
	if others == 0 {
		return MaxBodyBytes
	}
	return max(wholeLeast, wholeUpload/others)
}

// maxExpansion bounds N/K of a reference, and so what checking a body against one can cost. Codes of committees stay
// below 4.
const maxExpansion = 8

// BodyRef commits a header to its body. It says of itself how a body is checked against it, so that whoever has a header
// and a body needs no committee for that; whether the code is the one of the header's committee is CheckBodyRef's business.
type BodyRef struct {
	Codec  uint8
	Length uint32 // bytes, at most MaxBodyBytes
	K, N   uint16 // CodecShards: any K of the body's N shards are enough; else 0, and not encoded
	Root   Hash
}

// bodyRefBytes is the length of the longest encoded reference.
const bodyRefBytes = 1 + 4 + 2 + 2 + 32

func (r *BodyRef) append(b []byte) []byte {
	b = append(b, r.Codec)
	b = binary.BigEndian.AppendUint32(b, r.Length)
	if r.Codec == CodecShards {
		b = binary.BigEndian.AppendUint16(b, r.K)
		b = binary.BigEndian.AppendUint16(b, r.N)
	}
	return append(b, r.Root[:]...)
}

func readBodyRef(s *cryptobyte.String) (r BodyRef, err error) {
	ok := s.ReadUint8(&r.Codec) && s.ReadUint32(&r.Length)
	if ok && r.Codec == CodecShards {
		ok = s.ReadUint16(&r.K) && s.ReadUint16(&r.N)
	}
	if !ok || !s.CopyBytes(r.Root[:]) {
		return r, malformed("header", "too short")
	}
	if r.Length > MaxBodyBytes {
		return r, malformed("header", "body of %d bytes, limit %d", r.Length, MaxBodyBytes)
	}
	if r.Codec == CodecNone && r != (BodyRef{Codec: CodecNone}) {
		return r, malformed("header", "an echo with a body of %d bytes", r.Length)
	}
	if k, n := int(r.K), int(r.N); r.Codec == CodecShards && (r.Length == 0 || k < 1 || n <= k || n > erasure.MaxShards || n > maxExpansion*k) {
		return r, malformed("header", "body of %d bytes in %d shards, %d of them enough", r.Length, n, k)
	}
	return r, nil
}

// BodyRoot is the root of a body under CodecWhole.
func BodyRoot(body []byte) Hash {
	d := sha256.New()
	d.Write(tagBody[:])
	d.Write(body)
	return Hash(d.Sum(nil))
}

// NewBodyRef commits to body under CodecWhole.
func NewBodyRef(body []byte) BodyRef {
	return BodyRef{Codec: CodecWhole, Length: uint32(len(body)), Root: BodyRoot(body)}
}

// Matches reports whether body is the one r commits to. False for a codec this build does not know. Under CodecShards it
// encodes the body: about 2 ms for each MiB, and half a millisecond for the code's buffers, which Committee.Code keeps.
func (r BodyRef) Matches(body []byte) bool {
	if int(r.Length) != len(body) {
		return false
	}
	switch r.Codec {
	case CodecWhole:
		return r.Root == BodyRoot(body)
	case CodecShards:
		code, err := erasure.New(int(r.K), int(r.N))
		if err != nil {
			return false
		}
		set, err := code.Encode(body)
		return err == nil && r.Root == Hash(set.Commitment())
	case CodecNone:
		return r == BodyRef{Codec: CodecNone}
	}
	return false
}

// Code is the committee's erasure code: which shards of a body are whose. The first call may take a tenth of a second for
// a thousand validators of unlike power.
func (c *Committee) Code() *erasure.Committee { return c.code() }

// newCode chooses the code. It cannot fail: NewCommittee's limits are those of ForCommittee.
func (c *Committee) newCode() *erasure.Committee {
	powers := make([]uint64, len(c.Validators))
	for i, v := range c.Validators {
		powers[i] = uint64(v.Power)
	}
	code, err := erasure.ForCommittee(powers)
	if err != nil {
		panic("consensus: committee without a code: " + err.Error())
	}
	return code
}

// BodyRef commits to body, of at most MaxBodyBytes, as a leader of this committee must: under CodecWhole up to WholeBytes,
// else under CodecShards.
func (c *Committee) BodyRef(body []byte) BodyRef {
	if len(body) <= c.WholeBytes() {
		return NewBodyRef(body)
	}
	return c.ShardsRef(body)
}

// ShardsRef commits to body, of 1 to MaxBodyBytes, under CodecShards.
func (c *Committee) ShardsRef(body []byte) BodyRef {
	set, err := c.Code().Encode(body)
	if err != nil {
		panic("consensus: " + err.Error()) // the caller's mistake: the length
	}
	return c.RefOf(set)
}

// RefOf is the reference of a body that was cut up by Code.
func (c *Committee) RefOf(set *erasure.Set) BodyRef {
	code := c.Code()
	return BodyRef{Codec: CodecShards, Length: uint32(set.Length()), K: uint16(code.K()), N: uint16(code.N()), Root: set.Commitment()}
}

// CheckBodyRef says what is wrong with a reference in a header of this committee, whatever the body, or "": a codec that
// nobody knows, a body that is too long to travel whole, or another code than the committee's.
func (c *Committee) CheckBodyRef(r BodyRef) string {
	switch r.Codec {
	case CodecWhole:
		if int64(r.Length) > int64(c.WholeBytes()) {
			return "body too long to travel whole"
		}
	case CodecShards:
		if code := c.Code(); int(r.K) != code.K() || int(r.N) != code.N() {
			return "body in shards of another code"
		}
	case CodecNone:
		if r != (BodyRef{Codec: CodecNone}) {
			return "an echo with a body"
		}
	default:
		return "body of an unknown codec"
	}
	return ""
}
