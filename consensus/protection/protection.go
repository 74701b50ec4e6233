// Package protection moves a validator's slashing protection, which is its vote log, between data folders and tools, as a
// file in the form of EIP-3076 (https://eips.ethereum.org/EIPS/eip-3076, slashing protection interchange format, version 5).
//
// In: the records of a vote log, or such a file. Out: the file, or what has to be made durable in a log so that everything
// the file says was signed binds the validator like its own log (simplex, R8 and R17). Nothing here ever takes protection
// away: a merge is the most of both.
//
// # What is protected
//
// A vote is notarize, nullify or finalize, of a shard, an epoch and a view, and a block where it is not nullify. Slashable
// are two notarize, or two finalize, for different blocks in a view, and finalize together with nullify. A log says exactly
// which votes were cast above some view, the bar, and of the views up to the bar no more than that nothing may be signed
// there: it is the highest view that a finalization or a floor is held of.
//
// # The mapping
//
//	metadata.genesis_validators_root   the genesis hash of the chain
//	data[].pubkey                      the voting key
//	number                             epoch * 2^40 + view: ascends with the epochs, in each with the views
//	signed_blocks[]                    notarize: slot = number, signing_root = SHA-256 of the message that the vote signs
//	signed_attestations[]              nullify and finalize: target_epoch = number, source_epoch = 0, signing_root likewise
//	the bar                            one signed_blocks and one signed_attestations entry at its number, without signing_root
//	data[].tutti                       ours: shard, bar, and the votes with their signatures, encoded as on the wire
//
// The shard needs no place of its own in the standard part: it is under the signing root, and a key has one seat.
// Notarize is the block, since a validator signs one of them a view and it is legal beside a nullify of that view; nullify
// and finalize share the attestations, since together they are slashable, as are two attestations of one target.
// source_epoch is the same in all entries, so nothing surrounds anything.
//
// # What a foreign reader concludes
//
// One that knows the minimal rules only (no block at or below the highest slot, no attestation with a source below the
// highest source or a target at or below the highest target) refuses every vote in a view up to the highest one that the
// validator has signed in with that kind or its rival, whatever the epoch. That is more than is needed: it also refuses
// legal votes, such as a late finalize for an earlier view, which costs a vote and never safety. One that knows the complete
// rules refuses a second block of a slot and a second attestation of a target, which are our slashable pairs, and, from the
// lowest entries, everything up to the bar. One that refuses fields it does not know refuses the whole file, and with it to
// sign: Export without Exact leaves tutti out. No reader needs to understand numbers, roots or votes to be safe.
//
// # Reading
//
// What tutti says is checked: each vote by its signature, so that a vote binds only who signed it. It is restored as own
// vote, and a restart binds it (R8). Every entry of the standard part that neither such a vote nor the log's own nor the
// bar accounts for (another tool's file has nothing else) bars its view and all below, with simplex.FloorMargin on top,
// because who wrote it need not have known of the last votes. If the file, or file and log, contradict each other, the key
// was used twice: that is said, and all of it bars.
//
// A file is of one epoch: the newest one in which the validator has a seat. It needs no other. Nothing was signed in later ones, and in
// epochs before a floor's a validator takes no part (the caller's rule), so that the bar of this one stands for all before it;
// a foreign reader's numbers say the same.
//
// Refused are: another chain, a file without this key, another shard, another epoch than the committee's, anything malformed. JSON is bounded and strict where leniency could hide an entry: no field twice, whatever its
// case, no number but decimal text, no trailing bytes. Unknown fields outside tutti are ignored, as we ask others to.
//
// A file is as old as its export. If the validator voted afterwards, neither this nor any other file makes it safe to sign;
// `tutti run --resync` without a log, which asks the other validators, does.
package protection

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// InterchangeVersion is the version of EIP-3076's format.
const InterchangeVersion = "5"

// Limits of a file.
const (
	MaxFileBytes = 32 << 20
	maxKeys      = 4096    // in a file
	maxEntries   = 1 << 17 // of a key: blocks, attestations, and votes, each
)

// viewBits of a number are the view. At a view a millisecond an epoch has room for 34 years of them.
const viewBits = 40

// Errors of Export and Read.
var (
	ErrMalformed  = errors.New("the file is not a slashing protection file (EIP-3076, version 5)")
	ErrOtherChain = errors.New("the file is of another chain: take the one that was exported from this network's validator")
	ErrOtherKey   = errors.New("the file has nothing about this validator's voting key: take the one that was exported with this key")
	ErrOtherShard = errors.New("the file is of another shard than the validator's: take the one that was exported from this validator")
	ErrEpoch      = errors.New("the file is of another epoch than the newest one that this home knows and its validator has a seat in: move the home's blocks folder aside and run 'tutti run --resync' once, which asks the other validators above which view it is safe to vote")
)

// Validator is whose protection it is.
type Validator struct {
	Chain     consensus.Hash
	Committee *consensus.Committee // of the epoch
	Keys      consensus.Keys       // of the committee
	Index     int                  // seat
}

func (v *Validator) key() consensus.PublicKey { return v.Committee.Validators[v.Index].Key }

// State is what binds a validator in the committee's epoch.
type State struct {
	Bar   consensus.View   // nothing may be signed in views up to it; 0: none
	Votes []consensus.Vote // own votes above it, by view, then kind
	// Conflicts are contradictions that were found, in words. Bar is above them.
	Conflicts []string // the first few
}

// Records is the state that the records of a vote log hold, with the view of the last final block, 0 if it is of an earlier
// epoch.
func (v *Validator) Records(records []simplex.Record, final consensus.View) State {
	s := State{Bar: final}
	ours := func(shard consensus.ShardID, epoch consensus.Epoch) bool {
		return shard == v.Committee.Shard && epoch == v.Committee.Epoch
	}
	for _, r := range records {
		switch {
		case r.Cert != nil && r.Cert.Kind == consensus.Finalize && ours(r.Cert.Shard, r.Cert.Epoch):
			s.Bar = max(s.Bar, r.Cert.View)
		case r.Floor != nil && ours(r.Floor.Shard, r.Floor.Epoch):
			s.Bar = max(s.Bar, r.Floor.View)
		case r.Vote != nil && ours(r.Vote.Shard, r.Vote.Epoch) && int(r.Vote.Validator) == v.Index:
			s.Votes = append(s.Votes, *r.Vote)
		}
	}
	return s.settle()
}

// Merge is the most of both.
func (s State) Merge(o State) State {
	return State{
		Bar: max(s.Bar, o.Bar), Votes: slices.Concat(s.Votes, o.Votes), Conflicts: slices.Concat(s.Conflicts, o.Conflicts),
	}.settle()
}

// settle sorts the votes, takes out repetitions and what is under the bar, and raises the bar above contradictions.
func (s State) settle() State {
	slices.SortStableFunc(s.Votes, func(a, b consensus.Vote) int {
		return cmp.Or(cmp.Compare(a.View, b.View), cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Block[:], b.Block[:]))
	})
	s.Votes = slices.CompactFunc(s.Votes, func(a, b consensus.Vote) bool { return a.Statement == b.Statement })
	found := false
	for i := range s.Votes { // at most a few of a view
		for k := i + 1; k < len(s.Votes) && s.Votes[k].View == s.Votes[i].View; k++ {
			if a, b := &s.Votes[i], &s.Votes[k]; a.Kind == b.Kind || a.Kind == consensus.Nullify && b.Kind == consensus.Finalize {
				s.conflict("%s and %s in view %d", text(a.Statement), text(b.Statement), a.View)
				found = true
			}
		}
	}
	if found {
		s.Bar = max(s.Bar, s.Votes[len(s.Votes)-1].View+simplex.FloorMargin)
	}
	s.Votes = slices.DeleteFunc(s.Votes, func(v consensus.Vote) bool { return v.View <= s.Bar })
	if len(s.Votes) == 0 {
		s.Votes = nil
	}
	return s
}

// maxConflicts are told; more say no more.
const maxConflicts = 16

func (s *State) conflict(format string, args ...any) {
	if len(s.Conflicts) < maxConflicts {
		s.Conflicts = append(s.Conflicts, fmt.Sprintf(format, args...))
	}
}

func text(st consensus.Statement) string {
	if st.Kind == consensus.Nullify {
		return st.Kind.String()
	}
	return st.Kind.String() + " " + st.Block.Short()
}

// Change is what has to be made durable in a log, in one step (blocklog.Log.Protect), so that it holds all that another
// state does. Floor is nil if the log's own bar is as high; both are empty if it holds it already.
type Change struct {
	Floor *simplex.Floor
	Votes []consensus.Vote
}

// Empty reports whether there is nothing to do.
func (c *Change) Empty() bool { return c.Floor == nil && len(c.Votes) == 0 }

// Change is what the log whose state is held lacks of s.
func (v *Validator) Change(held, s State) (Change, State) {
	merged := held.Merge(s)
	var c Change
	if merged.Bar > held.Bar {
		c.Floor = &simplex.Floor{Shard: v.Committee.Shard, Epoch: v.Committee.Epoch, View: merged.Bar}
	}
	for _, vote := range merged.Votes {
		if !slices.ContainsFunc(held.Votes, func(h consensus.Vote) bool { return h.Statement == vote.Statement }) {
			c.Votes = append(c.Votes, vote)
		}
	}
	return c, merged
}

// The JSON form.
type (
	file struct {
		Metadata metadata `json:"metadata"`
		Data     []keyed  `json:"data"`
	}
	metadata struct {
		Version string `json:"interchange_format_version"`
		Root    string `json:"genesis_validators_root"`
	}
	keyed struct {
		Key          string        `json:"pubkey"`
		Blocks       []block       `json:"signed_blocks"`
		Attestations []attestation `json:"signed_attestations"`
		Exact        *exact        `json:"tutti,omitempty"`
	}
	block struct {
		Slot string `json:"slot"`
		Root string `json:"signing_root,omitempty"`
	}
	attestation struct {
		Source string `json:"source_epoch"`
		Target string `json:"target_epoch"`
		Root   string `json:"signing_root,omitempty"`
	}
	exact struct {
		Shard string   `json:"shard"`
		Bar   string   `json:"barred_to"` // number
		Votes []string `json:"votes"`     // consensus.Vote
	}
)

// Form says which file Export makes.
type Form uint8

const (
	Exact    Form = iota // with everything that a log of ours needs to be as exact as this one
	Standard             // without fields of our own, for tools that refuse them
)

// Export makes the file of a state, which must have no conflicts.
func (v *Validator) Export(s State, form Form) ([]byte, error) {
	if len(s.Conflicts) > 0 {
		return nil, fmt.Errorf("protection: the log contradicts itself (%s): the key was used twice, and no file makes it safe", s.Conflicts[0])
	}
	if len(s.Votes) > maxEntries {
		return nil, fmt.Errorf("protection: %d votes, limit of a file %d: run the node until it is in step, then export", len(s.Votes), maxEntries)
	}
	number := func(view consensus.View) (string, error) {
		if view >= 1<<viewBits || v.Committee.Epoch >= 1<<(64-viewBits) {
			return "", fmt.Errorf("protection: view %d of epoch %d has no number in the file's format", view, v.Committee.Epoch)
		}
		return strconv.FormatUint(uint64(v.Committee.Epoch)<<viewBits|uint64(view), 10), nil
	}
	key := v.key()
	k := keyed{Key: "0x" + hex.EncodeToString(key[:]), Blocks: []block{}, Attestations: []attestation{}}
	bar, err := number(s.Bar)
	if err != nil {
		return nil, err
	}
	if s.Bar > 0 {
		k.Blocks = append(k.Blocks, block{Slot: bar})
		k.Attestations = append(k.Attestations, attestation{Source: "0", Target: bar})
	}
	x := &exact{Shard: strconv.Itoa(int(v.Committee.Shard)), Bar: bar, Votes: []string{}}
	for i := range s.Votes {
		vote := &s.Votes[i]
		at, err := number(vote.View)
		if err != nil {
			return nil, err
		}
		root := v.root(vote.Statement)
		if vote.Kind == consensus.Notarize {
			k.Blocks = append(k.Blocks, block{at, root})
		} else {
			k.Attestations = append(k.Attestations, attestation{"0", at, root})
		}
		x.Votes = append(x.Votes, "0x"+hex.EncodeToString(vote.Append(nil)))
	}
	if form == Exact {
		k.Exact = x
	}
	f := file{Metadata: metadata{InterchangeVersion, "0x" + v.Chain.String()}, Data: []keyed{k}}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("protection: %w", err)
	}
	return append(b, '\n'), nil
}

// root is the signing root of a statement.
func (v *Validator) root(st consensus.Statement) string {
	h := sha256.Sum256(consensus.VoteMessage(v.Chain, st))
	return "0x" + hex.EncodeToString(h[:])
}
