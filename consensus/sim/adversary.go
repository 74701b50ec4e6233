package sim

import (
	"math/rand/v2"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

// Env is what a participant is made from.
type Env struct {
	Config simplex.Config
	Rand   *rand.Rand // the run's: part of its seed
	Life   int        // 1 at first, more after restarts
}

// Maker starts a participant: at the beginning and after every crash.
type Maker func(Env) (Participant, simplex.Ready, error)

// Honest is the machine itself.
func Honest(e Env) (Participant, simplex.Ready, error) {
	m, r, err := simplex.New(e.Config)
	return m, r, err
}

// twisted is the base of adversaries: a machine that follows the protocol, whose input or output the adversary
// changes. An adversary signs with its own key only.
type twisted struct {
	*simplex.Machine
	Env
	before func(simplex.Event) simplex.Event // nil: unchanged
	after  func(*simplex.Ready)              // nil: unchanged
}

// Step steps the machine inside.
func (t *twisted) Step(e simplex.Event) simplex.Ready {
	if t.before != nil {
		e = t.before(e)
	}
	r := t.Machine.Step(e)
	if t.after != nil {
		t.after(&r)
	}
	return r
}

// twist starts an adversary; set gives it its ways.
func twist(e Env, set func(*twisted)) (Participant, simplex.Ready, error) {
	m, r, err := simplex.New(e.Config)
	if err != nil {
		return nil, r, err
	}
	t := &twisted{Machine: m, Env: e}
	set(t)
	if t.after != nil {
		t.after(&r)
	}
	return t, r, nil
}

// ownPart is the part in a message if it is of a proposal of the adversary's own, else nil.
func (t *twisted) ownPart(o simplex.Outbound) *shred.Part {
	if o.Part != nil && int(o.Part.Vote.Validator) == t.Config.Index {
		return o.Part
	}
	return nil
}

// vote signs a statement.
func (t *twisted) vote(k consensus.Kind, view consensus.View, block consensus.Hash) consensus.Vote {
	st := consensus.Statement{Kind: k, Shard: t.Config.Committee.Shard, Epoch: t.Config.Committee.Epoch, View: view, Block: block}
	return consensus.Vote{Statement: st, Validator: uint16(t.Config.Index), Signature: t.Config.Signer.Sign(consensus.VoteMessage(t.Config.Chain, st))}
}

// Adversaries are all there are, by name.
func Adversaries() map[string]Maker {
	return map[string]Maker{
		"silent": Silent, "equivocator": Equivocator, "badbody": BadBody, "replayer": Replayer,
		"doublefinaliser": DoubleFinaliser, "selective": Selective, "forger": Forger, "forker": Forker,
		"slow": Slow, "latenullifier": LateNullifier, "oldparent": OldParent, "spammer": Spammer,
		"withholder": Withholder, "badencoder": BadEncoder,
		"trespasser": Trespasser,
	}
}
