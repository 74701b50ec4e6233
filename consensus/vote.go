package consensus

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
)

// Kind is what a vote or certificate states.
type Kind uint8

const (
	Notarize Kind = 1 // "this is the first proposal I saw in this view, on a parent I certified"
	Nullify  Kind = 2 // "I leave this view without finalizing in it"; the block is zero
	Finalize Kind = 3 // "I certified this block and have not nullified its view"
)

func (k Kind) String() string {
	switch k {
	case Notarize:
		return "notarize"
	case Nullify:
		return "nullify"
	case Finalize:
		return "finalize"
	}
	return "unknown"
}

// Certificate names: a quorum of notarize is a notarization, of nullify a nullification, of finalize a finalization.

// Signature is a compressed BLS12-381 G2 point (min-pk).
type Signature [96]byte

// PublicKey is a compressed BLS12-381 G1 point (min-pk).
type PublicKey [48]byte

// Statement is what is voted on: the content of votes and certificates.
type Statement struct {
	Kind  Kind
	Shard ShardID
	Epoch Epoch
	View  View
	Block Hash // zero for Nullify, else the header's hash
}

const statementBytes = 1 + 2 + 8 + 8 + 32

func (st Statement) append(b []byte) []byte {
	b = append(b, byte(st.Kind))
	b = binary.BigEndian.AppendUint16(b, uint16(st.Shard))
	b = binary.BigEndian.AppendUint64(b, uint64(st.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(st.View))
	return append(b, st.Block[:]...)
}

func readStatement(s *cryptobyte.String, what string) (st Statement, err error) {
	if !(s.ReadUint8((*uint8)(&st.Kind)) && s.ReadUint16((*uint16)(&st.Shard)) && s.ReadUint64((*uint64)(&st.Epoch)) &&
		s.ReadUint64((*uint64)(&st.View)) && s.CopyBytes(st.Block[:])) {
		return st, malformed(what, "too short")
	}
	if st.Kind < Notarize || st.Kind > Finalize {
		return st, malformed(what, "unknown kind %d", st.Kind)
	}
	if (st.Kind == Nullify) != st.Block.IsZero() {
		return st, malformed(what, "%s with block %s", st.Kind, st.Block.Short())
	}
	return st, nil
}

// Contradict reports whether no honest validator signs both statements: two of one kind, to notarize or finalize, for
// different blocks of a view, or finalize and nullify in a view. Two statements of different kinds to notarize and nullify
// are no contradiction, nor are statements of different shards or epochs.
func Contradict(a, b Statement) bool {
	if a.Shard != b.Shard || a.Epoch != b.Epoch || a.View != b.View {
		return false
	}
	if a.Kind == b.Kind {
		return a.Block != b.Block
	}
	return a.Kind+b.Kind == Nullify+Finalize
}

// VoteMessage is what is signed for st on the chain with the given genesis hash:
// tag(16) genesis(32) kind(1) shard(2) epoch(8) view(8) block(32).
func VoteMessage(genesis Hash, st Statement) []byte {
	b := make([]byte, 0, 16+32+statementBytes)
	b = append(b, tagVote[:]...)
	b = append(b, genesis[:]...)
	return st.append(b)
}

// Vote is one validator's signed statement.
type Vote struct {
	Statement
	Validator uint16 // index in the committee
	Signature Signature
}

// VoteBytes is the length of an encoded vote.
const VoteBytes = statementBytes + 2 + 96

// Append appends the encoding of v.
func (v *Vote) Append(b []byte) []byte {
	b = v.Statement.append(b)
	b = binary.BigEndian.AppendUint16(b, v.Validator)
	return append(b, v.Signature[:]...)
}

func readVote(s *cryptobyte.String) (v Vote, err error) {
	if v.Statement, err = readStatement(s, "vote"); err != nil {
		return v, err
	}
	if !(s.ReadUint16(&v.Validator) && s.CopyBytes(v.Signature[:])) {
		return v, malformed("vote", "too short")
	}
	if v.Validator >= MaxCommittee {
		return v, malformed("vote", "validator %d, limit %d", v.Validator, MaxCommittee)
	}
	return v, nil
}

// DecodeVote decodes exactly one vote. The signature is not checked.
func DecodeVote(b []byte) (*Vote, error) {
	s := cryptobyte.String(b)
	v, err := readVote(&s)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("vote", "%d bytes too many", len(s))
	}
	return &v, nil
}

// Signers is a set of committee indexes; bit i of byte i/8, least significant first.
type Signers []byte

// NewSigners returns the empty set for a committee of n.
func NewSigners(n int) Signers { return make(Signers, (n+7)/8) }

// Has reports whether validator i is in the set.
func (s Signers) Has(i int) bool { return i>>3 < len(s) && s[i>>3]>>(i&7)&1 == 1 }

// Add puts validator i, below the committee's size, in the set.
func (s Signers) Add(i int) { s[i>>3] |= 1 << (i & 7) }

// Count is the number of validators in the set.
func (s Signers) Count() (n int) {
	for _, b := range s {
		n += bits.OnesCount8(b)
	}
	return n
}

// Certificate is a quorum's aggregate signature under one statement.
type Certificate struct {
	Statement
	Signers   Signers // sized for the committee
	Signature Signature
}

// MaxCertificateBytes bounds an encoded certificate.
const MaxCertificateBytes = statementBytes + 2 + MaxCommittee/8 + 96

// Append appends the encoding of c: statement, u16 bitmap length, bitmap, signature.
func (c *Certificate) Append(b []byte) []byte {
	b = c.Statement.append(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.Signers)))
	b = append(b, c.Signers...)
	return append(b, c.Signature[:]...)
}

func readCertificate(s *cryptobyte.String) (c Certificate, err error) {
	if c.Statement, err = readStatement(s, "certificate"); err != nil {
		return c, err
	}
	var n uint16
	var signers []byte
	if !(s.ReadUint16(&n) && n <= MaxCommittee/8 && s.ReadBytes(&signers, int(n)) && s.CopyBytes(c.Signature[:])) {
		return c, malformed("certificate", "signers too short or too long")
	}
	c.Signers = append(Signers(nil), signers...)
	return c, nil
}

// DecodeCertificate decodes exactly one certificate. Nothing is verified; see Committee.VerifyCertificate.
func DecodeCertificate(b []byte) (*Certificate, error) {
	s := cryptobyte.String(b)
	c, err := readCertificate(&s)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("certificate", "%d bytes too many", len(s))
	}
	return &c, nil
}

// Proposal is a leader's block for a view, its body under CodecWhole or CodecNone. Vote is the leader's own notarize for it, which
// authenticates it. Under CodecShards a proposal travels in parts (consensus/shred).
type Proposal struct {
	Block Block
	Vote  Vote
}

// MaxProposalBytes bounds an encoded proposal.
const MaxProposalBytes = VoteBytes + 4 + MaxHeaderBytes + MaxBodyBytes

// Append appends the encoding of p: vote, block.
func (p *Proposal) Append(b []byte) []byte { return p.Block.Append(p.Vote.Append(b)) }

// DecodeProposal decodes exactly one proposal whose vote is a notarize for its header. The body aliases b; the
// signature is not checked.
func DecodeProposal(b []byte) (*Proposal, error) {
	s := cryptobyte.String(b)
	v, err := readVote(&s)
	if err != nil {
		return nil, err
	}
	bl, err := DecodeBlock(s)
	if err != nil {
		return nil, err
	}
	if bl.Header.Body.Codec == CodecShards {
		return nil, malformed("proposal", "whole body under codec %d", bl.Header.Body.Codec)
	}
	if want := (Statement{Notarize, bl.Header.Shard, bl.Header.Epoch, bl.Header.View, bl.Header.Hash()}); v.Statement != want {
		return nil, malformed("proposal", "the vote is not for this header")
	}
	return &Proposal{Block: bl, Vote: v}, nil
}

// FinalHeader is a header with a finalization of it, the form in which one shard shows a block to another.
type FinalHeader struct {
	Header *Header
	Cert   Certificate
}

// Append appends the encoding: u32 header length, header, certificate.
func (f *FinalHeader) Append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = f.Header.Append(b)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return f.Cert.Append(b)
}

// DecodeFinalHeader decodes exactly one final header whose certificate is a finalize for it. Nothing is verified.
func DecodeFinalHeader(b []byte) (*FinalHeader, error) {
	s := cryptobyte.String(b)
	var n uint32
	var hb []byte
	if !s.ReadUint32(&n) || n > uint32(MaxHeaderBytes) || !s.ReadBytes(&hb, int(n)) {
		return nil, malformed("final header", "header too short or too long")
	}
	h, err := DecodeHeader(hb)
	if err != nil {
		return nil, err
	}
	c, err := DecodeCertificate(s)
	if err != nil {
		return nil, err
	}
	if want := (Statement{Finalize, h.Shard, h.Epoch, h.View, h.Hash()}); c.Statement != want {
		return nil, malformed("final header", "the certificate is not a finalize for this header")
	}
	return &FinalHeader{Header: h, Cert: *c}, nil
}
