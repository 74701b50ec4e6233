package simplex

import (
	"cmp"
	"errors"
	"slices"

	"tutti/consensus"
)

// Signed is a statement with who signed it: a vote or a certificate, exactly one.
type Signed struct {
	Vote *consensus.Vote
	Cert *consensus.Certificate
}

// Statement is what was signed.
func (s Signed) Statement() consensus.Statement {
	if s.Vote != nil {
		return s.Vote.Statement
	}
	return s.Cert.Statement
}

// by reports whether validator i is among who signed.
func (s Signed) by(i int) bool {
	if s.Vote != nil {
		return int(s.Vote.Validator) == i
	}
	return s.Cert.Signers.Has(i)
}

// verify checks the signature and, of a certificate, the quorum.
func (s Signed) verify(chain consensus.Hash, c *consensus.Committee, keys consensus.Keys) bool {
	if v := s.Vote; v != nil {
		return v.Shard == c.Shard && v.Epoch == c.Epoch && int(v.Validator) < len(c.Validators) &&
			keys.Verify(int(v.Validator), consensus.VoteMessage(chain, v.Statement), v.Signature)
	}
	return c.VerifyCertificate(chain, keys, s.Cert) == nil
}

// Guilt is a contradiction of one validator: two statements that contradict each other, both signed by it. An aggregate
// signature convicts each of its signers, for nobody's share of it can be made without the key (the keys' proofs of
// possession were checked when the committee was made).
type Guilt struct {
	Validator     int
	First, Second Signed
}

// Contradictions finds the validators that contradicted themselves in what is given, at most one contradiction each, by
// index. Nothing of it need be checked before: what is used is, and what does not verify is overlooked. The work is
// bounded by the number of pairs of statements of a view, so the caller bounds how many it gives.
//
// If two finalizations conflict, the two certificates that Clash names convict more than a third of the power.
func Contradictions(chain consensus.Hash, c *consensus.Committee, keys consensus.Keys, all []Signed) []Guilt {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Signed) int { return cmp.Compare(a.Statement().View, b.Statement().View) })
	verified := make(map[int]bool) // by place in all
	good := func(k int) bool {
		ok, known := verified[k]
		if !known {
			ok = all[k].verify(chain, c, keys)
			verified[k] = ok
		}
		return ok
	}
	guilty := make([]*Guilt, len(c.Validators))
	for i := range all {
		for j := i + 1; j < len(all) && all[j].Statement().View == all[i].Statement().View; j++ {
			if !consensus.Contradict(all[i].Statement(), all[j].Statement()) {
				continue
			}
			for v := range guilty {
				if guilty[v] == nil && all[i].by(v) && all[j].by(v) && good(i) && good(j) {
					guilty[v] = &Guilt{Validator: v, First: all[i], Second: all[j]}
				}
			}
		}
	}
	var out []Guilt
	for _, g := range guilty {
		if g != nil {
			out = append(out, *g)
		}
	}
	return out
}

// ErrNoClash is what Clash returns for finalizations that do not contradict each other.
var ErrNoClash = errors.New("simplex: the finalizations do not conflict: one block descends from the other, or the headers between are missing")

// Clash says which two certificates convict when two blocks of an epoch are final and neither descends from the other. low
// and high are final headers, of views in that order; between are the ancestors of high, its parent first, down to the
// first whose view is not above low's. The package comment, under "Accountability", says why the certificates exist and
// who has them.
func Clash(low, high *consensus.Header, between []*consensus.Header) (first, second consensus.Statement, err error) {
	at := func(k consensus.Kind, block consensus.Hash) consensus.Statement {
		return consensus.Statement{Kind: k, Shard: low.Shard, Epoch: low.Epoch, View: low.View, Block: block}
	}
	if low.Shard != high.Shard || low.Epoch != high.Epoch || low.View > high.View {
		return first, second, ErrNoClash
	}
	if low.View == high.View {
		if low.Hash() == high.Hash() {
			return first, second, ErrNoClash
		}
		return at(consensus.Finalize, low.Hash()), at(consensus.Finalize, high.Hash()), nil
	}
	for child := high; len(between) > 0; between = between[1:] {
		p := between[0]
		switch {
		case p.Hash() != child.Parent || p.View >= child.View && p.Epoch == child.Epoch:
			return first, second, ErrNoClash
		case p.View < low.View || p.Epoch != low.Epoch: // high's chain skips the view that low is final in
			return at(consensus.Finalize, low.Hash()), at(consensus.Nullify, consensus.Hash{}), nil
		case p.View == low.View && p.Hash() == low.Hash():
			return first, second, ErrNoClash
		case p.View == low.View:
			return at(consensus.Notarize, low.Hash()), at(consensus.Notarize, p.Hash()), nil
		}
		child = p
	}
	return first, second, ErrNoClash
}
