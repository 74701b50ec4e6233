package proof

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"tutti/consensus"
)

// State is what a Trust has learned, for a file: with it the next process goes on from there. It is as good as the disk that
// it was on: its form is checked, and nothing in it is proven again.
type State struct {
	genesis consensus.Hash
	shards  []shardState // ascending
}

type shardState struct {
	shard      consensus.ShardID
	first      consensus.Epoch
	records    []record
	committees []*consensus.Committee // ascending, none of the genesis
}

// MaxStateBytes bounds a State in its file form.
const MaxStateBytes = 256 << 20

const recordBytes = 32 + 8 + 32

// stateFile is the JSON form. Records has for each epoch from First on the committee's hash, and height and hash of the last
// block of the epoch before.
type stateFile struct {
	Format  string           `json:"format"`
	Genesis Digest           `json:"genesis"`
	Shards  []stateFileShard `json:"shards"`
}

type stateFileShard struct {
	Shard      consensus.ShardID `json:"shard"`
	First      consensus.Epoch   `json:"first"`
	Records    Hex               `json:"records"`
	Committees []Hex             `json:"committees"`
}

// State is a copy of what t has learned.
func (t *Trust) State() *State {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := &State{genesis: t.genesis}
	for _, id := range t.shardIDs() {
		c := t.chains[id]
		s := shardState{shard: id, first: c.first, records: append([]record(nil), c.records...)}
		for _, of := range [][]member{t.recalled, c.latest} {
			for _, m := range of {
				if m.committee.Shard == id {
					s.committees = append(s.committees, m.committee)
				}
			}
		}
		out.shards = append(out.shards, s)
	}
	return out
}

// Restore takes what an earlier Trust of the same genesis had learned. t must have followed no hand-over yet.
func (t *Trust) Restore(s *State) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.fresh() {
		return errNotFresh
	}
	if s.genesis != t.genesis {
		return fail(ErrGenesis, "the state's genesis hash is %s, the trusted one %s", s.genesis.Short(), t.genesis.Short())
	}
	var members []member
	for _, x := range s.shards {
		c := t.chains[x.shard]
		if c == nil {
			return fail(ErrShard, "the state has shard %d, which is not in the trusted genesis", x.shard)
		}
		if x.first < c.first || x.first == c.first && x.records[0] != c.records[0] {
			return fail(ErrFollowed, "the state has another committee in epoch %d of shard %d than the genesis", c.first, x.shard)
		}
		for _, k := range x.committees {
			m, err := t.member(k)
			if err != nil {
				return fmt.Errorf("proof: %w: %w", ErrMalformed, err)
			}
			members = append(members, m)
		}
	}
	for _, x := range s.shards {
		c := t.chains[x.shard]
		c.first, c.records = x.first, append([]record(nil), x.records...)
	}
	for _, m := range members {
		t.keep(t.chains[m.committee.Shard], m)
	}
	return nil
}

// MarshalJSON writes the file form.
func (s *State) MarshalJSON() ([]byte, error) {
	out := stateFile{Format: StateFormat, Genesis: Digest(s.genesis), Shards: []stateFileShard{}}
	for _, x := range s.shards {
		f := stateFileShard{Shard: x.shard, First: x.first, Records: make(Hex, 0, recordBytes*len(x.records)), Committees: []Hex{}}
		for _, r := range x.records {
			f.Records = append(f.Records, r.committee[:]...)
			f.Records = binary.BigEndian.AppendUint64(f.Records, uint64(r.height))
			f.Records = append(f.Records, r.block[:]...)
		}
		for _, c := range x.committees {
			f.Committees = append(f.Committees, c.Append(nil))
		}
		out.Shards = append(out.Shards, f)
	}
	return json.Marshal(out)
}

// DecodeState decodes exactly one state in its file form, at most MaxStateBytes.
func DecodeState(b []byte) (*State, error) {
	var in stateFile
	if err := strict(b, MaxStateBytes, StateFormat, &in); err != nil {
		return nil, err
	}
	if len(in.Shards) > consensus.MaxShards {
		return nil, fail(ErrMalformed, "a state of %d shards, limit %d", len(in.Shards), consensus.MaxShards)
	}
	s := &State{genesis: consensus.Hash(in.Genesis)}
	for i, f := range in.Shards {
		if i > 0 && f.Shard <= in.Shards[i-1].Shard {
			return nil, fail(ErrMalformed, "shards of a state not ascending at %d", i)
		}
		x, err := f.decode()
		if err != nil {
			return nil, err
		}
		s.shards = append(s.shards, x)
	}
	return s, nil
}

func (f *stateFileShard) decode() (x shardState, err error) {
	n := len(f.Records) / recordBytes
	if n == 0 || n > MaxEpochs || len(f.Records) != n*recordBytes || f.First > maxEpoch {
		return x, fail(ErrMalformed, "shard %d of a state: %d bytes of records from epoch %d on", f.Shard, len(f.Records), f.First)
	}
	x = shardState{shard: f.Shard, first: f.First, records: make([]record, n)}
	b := cryptobyte.String(f.Records)
	for i := range x.records {
		r := &x.records[i]
		if !(b.CopyBytes(r.committee[:]) && b.ReadUint64((*uint64)(&r.height)) && b.CopyBytes(r.block[:])) ||
			(r.height == 0) != r.block.IsZero() || i > 0 && r.height <= x.records[i-1].height {
			return x, fail(ErrMalformed, "shard %d of a state: record %d", f.Shard, i)
		}
	}
	if len(f.Committees) > maxLatest+maxRecalled {
		return x, fail(ErrMalformed, "shard %d of a state: %d committees, limit %d", f.Shard, len(f.Committees), maxLatest+maxRecalled)
	}
	for _, enc := range f.Committees {
		c, err := consensus.DecodeCommittee(enc)
		if err != nil {
			return x, fmt.Errorf("proof: %w: %w", ErrMalformed, err)
		}
		if c.Shard != f.Shard || c.Epoch < f.First || c.Epoch-f.First >= consensus.Epoch(n) || x.records[c.Epoch-f.First].committee != c.Hash() {
			return x, fail(ErrMalformed, "shard %d of a state: the committee of epoch %d is not the one of its record", f.Shard, c.Epoch)
		}
		x.committees = append(x.committees, c)
	}
	return x, nil
}
