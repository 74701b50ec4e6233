package proof

import (
	"encoding/json"
	"fmt"
	"slices"

	"tutti/consensus"
)

// Checkpoint says from which committees on to follow the hand-overs. It is not proven by anything: take it from a source that
// you trust today (package comment). Trust.Adopt begins with it, Trust.Check holds a chain that was followed against it.
type Checkpoint struct {
	Genesis consensus.Hash
	Shards  []CheckpointShard // ascending by Shard, each once; a shard that is not here is followed from the genesis
}

// CheckpointShard is one shard's part of a Checkpoint.
type CheckpointShard struct {
	Shard     consensus.ShardID
	Epoch     consensus.Epoch
	Committee consensus.Hash   // Committee.Hash of the committee of Epoch
	Height    consensus.Height // of the last block of the epoch before; 0 in the genesis' epoch
	Block     consensus.Hash   // its hash; zero in the genesis' epoch
}

// maxEpoch is the highest epoch that files may name, far above any that can come and far below where sums would wrap.
const maxEpoch = consensus.Epoch(1) << 62

// checkpointFile is the JSON form.
type checkpointFile struct {
	Format  string                `json:"format"`
	Genesis Digest                `json:"genesis"`
	Shards  []checkpointFileShard `json:"shards"`
}

type checkpointFileShard struct {
	Shard     consensus.ShardID `json:"shard"`
	Epoch     consensus.Epoch   `json:"epoch"`
	Committee Digest            `json:"committee"`
	Height    consensus.Height  `json:"height"`
	Block     Digest            `json:"block"`
}

// MarshalJSON writes the file form.
func (c *Checkpoint) MarshalJSON() ([]byte, error) {
	out := checkpointFile{Format: CheckpointFormat, Genesis: Digest(c.Genesis), Shards: []checkpointFileShard{}}
	for _, s := range c.Shards {
		out.Shards = append(out.Shards, checkpointFileShard{s.Shard, s.Epoch, Digest(s.Committee), s.Height, Digest(s.Block)})
	}
	return json.Marshal(out)
}

// DecodeCheckpoint decodes exactly one checkpoint in its file form, at most MaxFileBytes.
func DecodeCheckpoint(b []byte) (*Checkpoint, error) {
	var in checkpointFile
	if err := strict(b, MaxFileBytes, CheckpointFormat, &in); err != nil {
		return nil, err
	}
	if len(in.Shards) == 0 || len(in.Shards) > consensus.MaxShards {
		return nil, fail(ErrMalformed, "a checkpoint of %d shards, need 1 to %d", len(in.Shards), consensus.MaxShards)
	}
	c := &Checkpoint{Genesis: consensus.Hash(in.Genesis)}
	for i, s := range in.Shards {
		if i > 0 && s.Shard <= in.Shards[i-1].Shard {
			return nil, fail(ErrMalformed, "shards of a checkpoint not ascending at %d", i)
		}
		x := CheckpointShard{s.Shard, s.Epoch, consensus.Hash(s.Committee), s.Height, consensus.Hash(s.Block)}
		if s.Epoch > maxEpoch || x.Committee.IsZero() || (x.Height == 0) != x.Block.IsZero() {
			return nil, fail(ErrMalformed, "shard %d of a checkpoint: epoch %d, committee %s, block %s at height %d",
				x.Shard, x.Epoch, x.Committee.Short(), x.Block.Short(), x.Height)
		}
		c.Shards = append(c.Shards, x)
	}
	return c, nil
}

// Checkpoint is the newest epoch of each shard.
func (t *Trust) Checkpoint() *Checkpoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &Checkpoint{Genesis: t.genesis}
	for _, s := range t.shardIDs() {
		c := t.chains[s]
		r := c.records[len(c.records)-1]
		out.Shards = append(out.Shards, CheckpointShard{s, c.newest(), r.committee, r.height, r.block})
	}
	return out
}

// shardIDs are all shards, ascending. The caller holds mu.
func (t *Trust) shardIDs() (out []consensus.ShardID) {
	for s := range t.chains {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// Adopt takes what a checkpoint says for true. t must have followed no hand-over yet. The epochs between the genesis' and the
// checkpoint's stay unknown.
func (t *Trust) Adopt(c *Checkpoint) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.fresh() {
		return errNotFresh
	}
	if c.Genesis != t.genesis {
		return fail(ErrGenesis, "the checkpoint's genesis hash is %s, the trusted one %s", c.Genesis.Short(), t.genesis.Short())
	}
	for _, s := range c.Shards {
		k := t.chains[s.Shard]
		if k == nil {
			return fail(ErrShard, "the checkpoint has shard %d, which is not in the trusted genesis", s.Shard)
		}
		if s.Epoch < k.first || s.Epoch == k.first && (record{s.Committee, s.Height, s.Block}) != k.records[0] {
			return fail(ErrFollowed, "the checkpoint has committee %s in epoch %d of shard %d, the genesis %s in epoch %d",
				s.Committee.Short(), s.Epoch, s.Shard, k.records[0].committee.Short(), k.first)
		}
	}
	for _, s := range c.Shards {
		k := t.chains[s.Shard]
		k.first, k.records = s.Epoch, []record{{s.Committee, s.Height, s.Block}}
	}
	return nil
}

// Begin makes the chain of a shard begin anew with the committee of an epoch above all that t knows, for a caller to whom a state
// that was proven names it by its hash. What was known of earlier epochs is forgotten, but for the genesis; where the epoch
// before ended stays unknown.
func (t *Trust) Begin(c *consensus.Committee) error {
	m, err := t.member(c)
	if err != nil {
		return fmt.Errorf("proof: %w: %w", ErrNext, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.chains[c.Shard]
	if k == nil {
		return fail(ErrShard, "shard %d is not in the trusted genesis", c.Shard)
	}
	if c.Epoch <= k.newest() {
		return fail(ErrFollowed, "epoch %d of shard %d is not above epoch %d, up to which hand-overs were followed", c.Epoch, c.Shard, k.newest())
	}
	k.first, k.records, k.latest = c.Epoch, []record{{committee: c.Hash()}}, nil
	t.recalled = slices.DeleteFunc(t.recalled, func(m member) bool { return m.committee.Shard == c.Shard })
	t.keep(k, m)
	return nil
}

// Check compares a checkpoint with what was followed. The error wraps ErrFollowed if they contradict each other, and is an
// *EpochError if t does not know one of its epochs, which then says nothing.
func (t *Trust) Check(c *Checkpoint) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Genesis != t.genesis {
		return fail(ErrGenesis, "the checkpoint's genesis hash is %s, the trusted one %s", c.Genesis.Short(), t.genesis.Short())
	}
	var unknown error
	for _, s := range c.Shards {
		k := t.chains[s.Shard]
		if k == nil {
			return fail(ErrShard, "the checkpoint has shard %d, which is not in the trusted genesis", s.Shard)
		}
		r, ok := k.record(s.Epoch)
		switch {
		case ok && r != record{s.Committee, s.Height, s.Block}:
			return fail(ErrFollowed, "the checkpoint has block %s before committee %s in epoch %d of shard %d, the hand-overs %s before %s",
				s.Block.Short(), s.Committee.Short(), s.Epoch, s.Shard, r.block.Short(), r.committee.Short())
		case !ok && s.Epoch < k.first:
			unknown = &EpochError{Shard: s.Shard, Epoch: s.Epoch, From: k.first, Lost: true}
		case !ok:
			unknown = &EpochError{Shard: s.Shard, Epoch: s.Epoch, From: k.newest()}
		}
	}
	return unknown
}
