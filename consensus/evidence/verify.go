package evidence

import (
	"errors"
	"fmt"

	"tutti/consensus"
)

// Errors of Verify, besides those of consensus.VerifyCertificate. A proof that fails with one proves nothing.
var (
	ErrOtherChain     = errors.New("the proof is of another chain: check it against that chain's genesis file")
	ErrOtherCommittee = errors.New("the proof is of another committee: check it against the committee of its shard and epoch")
	ErrOtherKey       = errors.New("the committee has another voting key in the validator's seat")
	ErrBadSignature   = errors.New("a signature does not verify, so the validator need not have signed that statement")
)

// Finding is what a proof proves: each validator in Guilty signed both statements.
type Finding struct {
	Guilty     []int           // seats in the committee, ascending, at least one
	Power      consensus.Power // of them together
	Total      consensus.Power // of the committee
	Statements [2]consensus.Statement
}

// Verify checks a proof against what the caller trusts: the chain's genesis hash, and the committee of the proof's shard and
// epoch with its keys. It costs two signature checks. Errors: ErrOtherChain, ErrOtherCommittee, ErrOtherKey,
// ErrBadSignature; for certificates also consensus.ErrNoQuorum and consensus.ErrBadSignature.
func Verify(p *Proof, chain consensus.Hash, c *consensus.Committee, keys consensus.Keys) (*Finding, error) {
	if p.Chain != chain {
		return nil, fmt.Errorf("evidence: chain %s, trusted is %s: %w", p.Chain.Short(), chain.Short(), ErrOtherChain)
	}
	if p.Committee != c.Hash() {
		return nil, fmt.Errorf("evidence: committee %s, trusted for shard %d, epoch %d is %s: %w",
			p.Committee.Short(), c.Shard, c.Epoch, c.Hash().Short(), ErrOtherCommittee)
	}
	if err := p.slashable(c); err != nil { // a proof in memory need not have come from Decode
		return nil, err
	}
	f := &Finding{Total: c.Total(), Statements: p.Statements()}
	var err error
	if p.Votes != nil {
		f.Guilty, err = p.verifyVotes(c, keys)
	} else {
		f.Guilty, err = p.verifyCertificates(c, keys)
	}
	if err != nil {
		return nil, err
	}
	for _, i := range f.Guilty {
		f.Power += c.Validators[i].Power
	}
	return f, nil
}

func (p *Proof) verifyVotes(c *consensus.Committee, keys consensus.Keys) ([]int, error) {
	i := int(p.Votes[0].Validator)
	if i >= len(c.Validators) || p.Votes[1].Validator != p.Votes[0].Validator || c.Validators[i].Key != p.Key {
		return nil, fmt.Errorf("evidence: validator %d: %w", i, ErrOtherKey)
	}
	for _, v := range p.Votes {
		if !keys.Verify(i, consensus.VoteMessage(p.Chain, v.Statement), v.Signature) {
			return nil, fmt.Errorf("evidence: validator %d, %s: %w", i, Describe(v.Statement), ErrBadSignature)
		}
	}
	return []int{i}, nil
}

func (p *Proof) verifyCertificates(c *consensus.Committee, keys consensus.Keys) ([]int, error) {
	for i := range p.Certificates {
		if err := c.VerifyCertificate(p.Chain, keys, &p.Certificates[i]); err != nil {
			return nil, fmt.Errorf("evidence: certificate, %s: %w", Describe(p.Certificates[i].Statement), err)
		}
	}
	return p.Accused(), nil // somebody: two quorums of one committee always meet
}
