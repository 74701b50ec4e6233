package engine

import (
	"context"
	"errors"

	"tutti/consensus"
	"tutti/consensus/blocklog"
)

// Requester asks members for things: the part of Network that a Follower needs.
type Requester interface {
	// Request asks a member and waits for the answer or the context's end. Safe for concurrent use. An answer that comes
	// back is the member's own: the transport has proved who it is.
	Request(ctx context.Context, to int, request []byte) ([]byte, error)
}

// FollowerConfig of a Follower. All fields are required; Index may be -1.
type FollowerConfig struct {
	Chain     consensus.Hash    // genesis hash, under every signature
	Genesis   *consensus.Header // the block at height 0
	Committee *consensus.Committee
	Keys      consensus.Keys
	Index     int // own place in the committee, which is not asked; -1 for an observer
	Network   Requester
}

// Lie is what a member sent that no correct one sends.
type Lie struct {
	Member int
	Reason string
}

// Errors of a Follower. Each says what to do.
var (
	// ErrNoAnswer: no member, or too few, gave a usable answer.
	ErrNoAnswer = errors.New("too few members of the committee answered: check the network, then try again")
	// ErrAboveTip: the height is not known to be final yet.
	ErrAboveTip = errors.New("the height is above the highest finalization that was verified: call Advance, or ask for less")
	// ErrRange: from is above to, or the range is longer than MaxHeaders.
	ErrRange = errors.New("not a range of 1 to MaxHeaders heights: ask for it in parts")
	// ErrNotEmpty: the log that was to be adopted holds votes or blocks of its own.
	ErrNotEmpty = errors.New("the consensus log has votes or blocks of its own: start the node with it, or move it aside and join with an empty one")
)

// MaxHeaders is the longest range that Headers gives at once.
const MaxHeaders = 8192

// Follower knows the verified final headers of one shard without executing anything. Safe for concurrent use; a call
// returns soon after its context ends.
type Follower struct{ c FollowerConfig }

// NewFollower makes a follower that knows genesis only. It asks nothing by itself.
func NewFollower(c FollowerConfig) *Follower { return &Follower{c: c} }

// Advance asks members for their latest finalization, verifies what they say and returns the highest final header known;
// genesis while nothing else is final. Errors: ErrNoAnswer, ErrHalted, the context's.
func (f *Follower) Advance(ctx context.Context) (*consensus.Header, error) { return nil, ErrNoAnswer }

// Tip is the highest final header known, as the last Advance left it; genesis at first.
func (f *Follower) Tip() *consensus.Header { return f.c.Genesis }

// Headers are the final headers at heights from to to, both included, ascending, each linked by hash to a header with a
// verified finalization. At most MaxHeaders at a time. Errors: ErrRange, ErrAboveTip, ErrNoAnswer, ErrHalted, the context's.
func (f *Follower) Headers(ctx context.Context, from, to consensus.Height) ([]*consensus.Header, error) {
	return nil, ErrNoAnswer
}

// Liars are the members that sent nonsense, each once; they are not asked any more by this follower.
func (f *Follower) Liars() []Lie { return nil }

// Adopt makes an empty log one that begins with the final block at height at, for a node whose state is final there:
// first the vote floor (simplex, rule R17), then the block and its descendants up to one with a finalization, verified and
// synced. With at 0 only the floor is set. It may be killed at any point and called again, on the same log or after
// another Open; a log that holds the block already is left as it is. Afterwards Start runs on the log as on any.
// Errors: ErrNotEmpty, ErrNoAnswer, ErrHalted, those of blocklog, the context's.
func (f *Follower) Adopt(ctx context.Context, log *blocklog.Log, at consensus.Height) error {
	return ErrNoAnswer
}
