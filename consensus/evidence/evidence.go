// Package evidence turns slashable messages into portable proofs and keeps them.
//
// A validator is slashable (design, rule 7) when it signed, in one view of one epoch of one shard,
//
//   - two notarize, or two finalize, for different blocks
//   - finalize together with nullify
//
// In: two votes of one validator (simplex.Evidence), or two certificates that contradict each other in this way. Out: a
// Proof, which a third party checks with Verify and nothing but the committee that the chain's genesis file, or a later
// final header, commits to. A certificate is an aggregate signature of its signers, so two of them prove the guilt of every
// validator that both name; both are quorums, so these hold more than a third of the power.
//
// # Encoding
//
// Integers are big-endian and fixed-width. A proof is
//
//	"tutti/evidence" 14 | version u16 | type u8 | chain 32 | shard u16 | epoch u64 | view u64 | committee hash 32 | rest
//
// and rest is, for two votes (type 1) and for two certificates (type 2),
//
//	validator u16 | voting key 48 | 2 times: kind u8, block 32, signature 96
//	bitmap length u16             | 2 times: kind u8, block 32, bitmap, signature 96
//
// What both statements share stands once, so no proof can be about two views. Of the two the one with the lower kind comes
// first, then the one with the lower block. Voting signatures are unique, so one offence by votes has one encoding. The
// decoder refuses everything else: pairs that are not slashable, another order, trailing bytes. Golden vectors are in
// testdata/. A file of proofs is JSON (file.go); the store is in store.go.
//
// # Errors
//
// All errors are for the one call. Verify says which check failed, and no proof that fails one names anybody.
package evidence

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
)

// Version is the version of the encoding that this build reads and writes.
const Version = 1

const magic = "tutti/evidence"

// Types of proofs, as encoded.
const (
	typeVotes        = 1
	typeCertificates = 2
)

const (
	headBytes  = len(magic) + 2 + 1 + 32 + 2 + 8 + 8 + 32
	votesBytes = headBytes + 2 + 48 + 2*(1+32+96)

	// MaxBytes bounds an encoded proof.
	MaxBytes = headBytes + 2 + 2*(1+32+consensus.MaxCommittee/8+96)
)

// Proof is two statements that an honest validator never signs both, with the signatures. Either Votes or Certificates is
// set. Make it with FromVotes, FromCertificates or Decode; it is not modified afterwards.
type Proof struct {
	Chain     consensus.Hash // genesis hash, under the signatures
	Committee consensus.Hash // Committee.Hash of the committee that the validator or the signers sit in

	Key   consensus.PublicKey // the validator's voting key; with Votes only
	Votes *[2]consensus.Vote  // of one validator

	Certificates *[2]consensus.Certificate
}

// ErrMalformed wraps every error of decoding.
var ErrMalformed = errors.New("not a proof of slashable votes in this build's format")

// ErrNotSlashable: an honest validator may sign both statements, or they are not about one view.
var ErrNotSlashable = errors.New("the two statements do not contradict each other")

// FromVotes makes a proof of two votes, in any order. Nothing is verified but that they are slashable together.
func FromVotes(chain consensus.Hash, c *consensus.Committee, a, b consensus.Vote) (*Proof, error) {
	if a.Validator != b.Validator || int(a.Validator) >= len(c.Validators) {
		return nil, fmt.Errorf("evidence: votes of validators %d and %d of %d: %w", a.Validator, b.Validator, len(c.Validators), ErrNotSlashable)
	}
	if order(a.Statement, b.Statement) > 0 {
		a, b = b, a
	}
	p := &Proof{Chain: chain, Committee: c.Hash(), Key: c.Validators[a.Validator].Key, Votes: &[2]consensus.Vote{a, b}}
	return p, p.slashable(c)
}

// FromCertificates makes a proof of two certificates, in any order. Nothing is verified but that they are slashable together.
func FromCertificates(chain consensus.Hash, c *consensus.Committee, a, b consensus.Certificate) (*Proof, error) {
	if order(a.Statement, b.Statement) > 0 {
		a, b = b, a
	}
	p := &Proof{Chain: chain, Committee: c.Hash(), Certificates: &[2]consensus.Certificate{a, b}}
	return p, p.slashable(c)
}

func (p *Proof) slashable(c *consensus.Committee) error {
	st := p.Statements()
	if st[0].Shard != c.Shard || st[0].Epoch != c.Epoch {
		return fmt.Errorf("evidence: statements of shard %d, epoch %d, and a committee of shard %d, epoch %d: %w",
			st[0].Shard, st[0].Epoch, c.Shard, c.Epoch, ErrOtherCommittee)
	}
	if !slashable(st[0], st[1]) {
		return fmt.Errorf("evidence: %s and %s: %w", Describe(st[0]), Describe(st[1]), ErrNotSlashable)
	}
	return nil
}

// Statements are the two that contradict each other, in their order.
func (p *Proof) Statements() [2]consensus.Statement {
	if p.Votes != nil {
		return [2]consensus.Statement{p.Votes[0].Statement, p.Votes[1].Statement}
	}
	return [2]consensus.Statement{p.Certificates[0].Statement, p.Certificates[1].Statement}
}

// Accused are the seats that the proof names, ascending; nothing is verified.
func (p *Proof) Accused() []int {
	if p.Votes != nil {
		return []int{int(p.Votes[0].Validator)}
	}
	var both []int
	for i := range 8 * len(p.Certificates[0].Signers) {
		if p.Certificates[0].Signers.Has(i) && p.Certificates[1].Signers.Has(i) {
			both = append(both, i)
		}
	}
	return both
}

// slashable reports whether no honest validator signs both statements, and they are in the order of a proof.
func slashable(a, b consensus.Statement) bool { return consensus.Contradict(a, b) && order(a, b) < 0 }

// order is negative if a comes first in a proof.
func order(a, b consensus.Statement) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Block[:], b.Block[:]))
}

// Describe is a statement in words.
func Describe(st consensus.Statement) string {
	text := fmt.Sprintf("%s of view %d", st.Kind, st.View)
	if st.Kind != consensus.Nullify {
		text += " for block " + st.Block.Short()
	}
	return text
}

// ID names a proof: SHA-256 of its encoding.
func (p *Proof) ID() consensus.Hash { return sha256.Sum256(p.Append(nil)) }

// Append appends the encoding of p to b.
func (p *Proof) Append(b []byte) []byte {
	be, typ, st := binary.BigEndian, byte(typeVotes), p.Statements()
	if p.Votes == nil {
		typ = typeCertificates
	}
	b = append(b, magic...)
	b = be.AppendUint16(b, Version)
	b = append(b, typ)
	b = append(b, p.Chain[:]...)
	b = be.AppendUint16(b, uint16(st[0].Shard))
	b = be.AppendUint64(b, uint64(st[0].Epoch))
	b = be.AppendUint64(b, uint64(st[0].View))
	b = append(b, p.Committee[:]...)
	if typ == typeVotes {
		b = be.AppendUint16(b, p.Votes[0].Validator)
		b = append(b, p.Key[:]...)
		for i := range p.Votes {
			b = append(append(b, byte(st[i].Kind)), st[i].Block[:]...)
			b = append(b, p.Votes[i].Signature[:]...)
		}
		return b
	}
	b = be.AppendUint16(b, uint16(len(p.Certificates[0].Signers)))
	for i := range p.Certificates {
		b = append(append(b, byte(st[i].Kind)), st[i].Block[:]...)
		b = append(b, p.Certificates[i].Signers...)
		b = append(b, p.Certificates[i].Signature[:]...)
	}
	return b
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("evidence: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Decode decodes exactly one proof, at most MaxBytes. No signature is checked; see Verify.
func Decode(b []byte) (*Proof, error) {
	if len(b) > MaxBytes {
		return nil, malformed("%d bytes, limit %d", len(b), MaxBytes)
	}
	s := cryptobyte.String(b)
	var m []byte
	var version uint16
	if !s.ReadBytes(&m, len(magic)) || string(m) != magic || !s.ReadUint16(&version) {
		return nil, malformed("it does not begin like one")
	}
	if version != Version {
		return nil, malformed("version %d, this build knows %d: update tutti", version, Version)
	}
	var p Proof
	var typ uint8
	var st consensus.Statement
	if !(s.ReadUint8(&typ) && s.CopyBytes(p.Chain[:]) && s.ReadUint16((*uint16)(&st.Shard)) && s.ReadUint64((*uint64)(&st.Epoch)) &&
		s.ReadUint64((*uint64)(&st.View)) && s.CopyBytes(p.Committee[:])) {
		return nil, malformed("too short")
	}
	var err error
	switch typ {
	case typeVotes:
		err = p.readVotes(&s, st)
	case typeCertificates:
		err = p.readCertificates(&s, st)
	default:
		err = malformed("unknown type %d", typ)
	}
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, malformed("%d bytes too many", len(s))
	}
	if both := p.Statements(); !slashable(both[0], both[1]) {
		return nil, malformed("%s and %s are not slashable, or not in this order", Describe(both[0]), Describe(both[1]))
	}
	return &p, nil
}

func (p *Proof) readVotes(s *cryptobyte.String, shared consensus.Statement) error {
	var validator uint16
	if !(s.ReadUint16(&validator) && s.CopyBytes(p.Key[:])) {
		return malformed("too short")
	}
	if validator >= consensus.MaxCommittee {
		return malformed("validator %d, limit %d", validator, consensus.MaxCommittee)
	}
	p.Votes = new([2]consensus.Vote)
	for i := range p.Votes {
		v := &p.Votes[i]
		v.Statement, v.Validator = shared, validator
		if err := readStatement(s, &v.Statement); err != nil {
			return err
		}
		if !s.CopyBytes(v.Signature[:]) {
			return malformed("too short")
		}
	}
	return nil
}

func (p *Proof) readCertificates(s *cryptobyte.String, shared consensus.Statement) error {
	var n uint16
	if !s.ReadUint16(&n) || n == 0 || n > consensus.MaxCommittee/8 {
		return malformed("signers of no committee")
	}
	p.Certificates = new([2]consensus.Certificate)
	for i := range p.Certificates {
		c := &p.Certificates[i]
		c.Statement, c.Signers = shared, make(consensus.Signers, n)
		if err := readStatement(s, &c.Statement); err != nil {
			return err
		}
		if !(s.CopyBytes(c.Signers) && s.CopyBytes(c.Signature[:])) {
			return malformed("too short")
		}
	}
	return nil
}

func readStatement(s *cryptobyte.String, st *consensus.Statement) error {
	if !(s.ReadUint8((*uint8)(&st.Kind)) && s.CopyBytes(st.Block[:])) {
		return malformed("too short")
	}
	if st.Kind < consensus.Notarize || st.Kind > consensus.Finalize || (st.Kind == consensus.Nullify) != st.Block.IsZero() {
		return malformed("kind %d with block %s", st.Kind, st.Block.Short())
	}
	return nil
}
