package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/consensus"
)

// Requester asks members for things: the part of Network that a Follower needs.
type Requester interface {
	// Request asks a member and waits for the answer or the context's end. Safe for concurrent use. An answer that comes
	// back is the member's own: the transport has proved who it is.
	Request(ctx context.Context, to int, request []byte) ([]byte, error)
}

// FollowerConfig of a Follower. All fields but Later are required.
type FollowerConfig struct {
	Chain     consensus.Hash    // genesis hash, under every signature
	Genesis   *consensus.Header // the block at height 0
	Committee *consensus.Committee
	Keys      consensus.Keys
	Index     int // own place in the committee, which is not asked; -1 for an observer
	Network   Requester
	// Later says that a node without a place may have one in a later epoch, so that Adopt sets a vote floor for it too: the
	// quorum that answers has not begun the next epoch, so nobody has voted in that (simplex, why the floor is high enough).
	Later bool
}

// Lie is what a member sent that no correct one sends.
type Lie struct {
	Member int
	Reason string
}

// Errors of a Follower. Each says what to do.
var (
	// ErrNoAnswer: no member, or too few, gave a usable answer.
	ErrNoAnswer = errors.New("too few members of the committee gave a usable answer: check the network, then try again")
	// ErrNotKept: of the members that answered nobody holds a block any more, or yet.
	ErrNotKept = fmt.Errorf("the members that answered do not hold it: %w", ErrNoAnswer)
	// ErrAboveTip: the height is not known to be final yet.
	ErrAboveTip = errors.New("the height is above the highest finalization that was verified: call Advance, or ask for less")
	// ErrEpochOver: the epoch whose committee the follower was made with is over.
	ErrEpochOver = errors.New("the epoch of this committee is over: follow the shard with the committee that its last block names")
	// ErrForeignEpoch: blocks are needed that another epoch's committee made final.
	ErrForeignEpoch = errors.New("the blocks were made final by the committee of another epoch, which this follower does not know: take a state of the present epoch, or follow with that epoch's committee first")
	// ErrRange: from is above to, or the range is longer than MaxHeaders.
	ErrRange = errors.New("not a range of 1 to 8192 heights: ask for it in parts")
)

// Bounds of a Follower.
const (
	// MaxHeaders is the longest range that Headers gives at once.
	MaxHeaders = 8192

	keptHeaders     = 16384    // headers kept, the highest ones of those that were asked for
	keptHeaderBytes = 32 << 20 // and at most about as many bytes of memory
	askedAtOnce     = 4        // members asked at a time, where several have to answer
	latestWanted    = 3        // answers that an Advance waits for; of few members, half
)

// Follower knows the verified final headers of one shard without executing anything. It follows one epoch, by its committee, and
// fails with ErrEpochOver once that is over; headers of earlier epochs it gets by their hashes. It trusts a header because a
// finalization of it, or of a descendant that is linked to it by hashes, has a quorum's signature. Members are only
// sources: one that is silent or does not hold something is asked again later, one that sends nonsense is not asked any
// more and named by Liars.
//
// Memory: the highest 16,384 of the headers that were ever asked for are kept, fewer if they take more than 32 MiB. A range
// further down is fetched again each time it is asked for, from the lowest header kept above it downwards.
//
// Limits: Advance learns what the members that it asks want to tell, so that with all of them against it, or cut off by
// who owns the network, the tip stays behind; it is never one that is not final.
//
// Safe for concurrent use. A call returns soon after its context ends.
type Follower struct {
	c      FollowerConfig
	verify verifier

	mu    sync.Mutex
	tip   trusted
	kept  map[consensus.Height]trusted // all on the chain that ends in tip, tip included, genesis not
	bytes int                          // of kept, about
	lies  []Lie
	bad   map[int]bool // members in lies
	rotor int          // the member that is asked first: the last one that had what it was asked for
}

// trusted is a header that is proven final.
type trusted struct {
	*consensus.Header
	hash consensus.Hash
}

func (t trusted) bytes() int { return 512 + 64*len(t.Links) }

// NewFollower makes a follower that knows genesis only. It asks nothing by itself.
func NewFollower(c FollowerConfig) *Follower {
	return &Follower{
		c: c, verify: verifier{c.Chain, c.Committee, c.Keys}, tip: trusted{c.Genesis, c.Genesis.Hash()},
		kept: map[consensus.Height]trusted{}, bad: map[int]bool{}, rotor: max(c.Index, 0),
	}
}

// Tip is the highest final header known, as the last Advance left it; genesis at first.
func (f *Follower) Tip() *consensus.Header {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tip.Header
}

// Liars are the members that sent nonsense, each once; they are not asked any more by this follower.
func (f *Follower) Liars() []Lie {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lies)
}

// Advance asks members for their latest finalization, verifies what they say and returns the highest final header known;
// genesis while nothing else is final. Errors: ErrNoAnswer, also while nothing is final in an epoch above 0; ErrEpochOver,
// ErrHalted, the context's.
func (f *Follower) Advance(ctx context.Context) (*consensus.Header, error) {
	heard, contradicts := 0, error(nil)
	wanted := min(latestWanted, (len(f.members())+1)/2)
	err := f.poll(ctx, request{typ: typeGetLatest, epoch: f.c.Committee.Epoch}, fetchTimeout, askedAtOnce, func(_ int, b []byte) (bool, error) {
		if b != nil {
			final, err := decodeLatest(b)
			if err != nil {
				return false, err
			}
			if err := f.learn(final); errors.Is(err, ErrHalted) || errors.Is(err, ErrEpochOver) {
				contradicts = err
				return true, nil
			} else if err != nil {
				return false, err
			}
		}
		heard++
		return heard >= wanted, nil
	})
	switch {
	case contradicts != nil:
		return nil, contradicts
	case heard > 0 && f.Tip().Epoch == f.c.Committee.Epoch:
		return f.Tip(), nil
	case heard > 0:
		return nil, fmt.Errorf("engine: nothing is final yet in epoch %d: %w", f.c.Committee.Epoch, ErrNoAnswer)
	case err == nil:
		err = fmt.Errorf("engine: asking for the latest finalization: %w", ErrNoAnswer)
	}
	return nil, err
}

// learn moves the tip if a finalization is above it and good.
func (f *Follower) learn(final *consensus.FinalHeader) error {
	h, hash := final.Header, final.Header.Hash()
	tip := f.trustedTip()
	if h.Height < tip.Height || hash == tip.hash {
		return nil // nothing new, whether it is true or not
	}
	if h.Chain != f.c.Chain {
		return malformed("final header of another chain")
	}
	if err := f.verify.certificate(&final.Cert); err != nil {
		return err
	}
	if h.Ends() {
		return fatal(fmt.Sprintf("a finalization of height %d ends epoch %d", h.Height, h.Epoch), ErrEpochOver)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case h.Height > f.tip.Height:
		f.tip = trusted{h, hash}
		f.keep(f.tip)
	case h.Height == f.tip.Height && hash != f.tip.hash:
		return contradiction(h.Height, hash, f.tip.hash)
	}
	return nil
}

func contradiction(at consensus.Height, a, b consensus.Hash) error {
	return fatal(fmt.Sprintf("blocks %s and %s are both proven final at height %d", a.Short(), b.Short(), at), ErrHalted)
}

func (f *Follower) trustedTip() trusted {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tip
}

// Headers are the final headers at heights from to to, both included, ascending, each linked by hashes to a header with a
// verified finalization. At most MaxHeaders at a time. Errors: ErrRange, ErrAboveTip, ErrNoAnswer, ErrHalted, the context's.
func (f *Follower) Headers(ctx context.Context, from, to consensus.Height) ([]*consensus.Header, error) {
	if from > to || to-from >= MaxHeaders {
		return nil, fmt.Errorf("engine: headers %d to %d: %w", from, to, ErrRange)
	}
	if tip := f.trustedTip(); to > tip.Height {
		return nil, fmt.Errorf("engine: header %d, and %d is final: %w", to, tip.Height, ErrAboveTip)
	}
	out := make([]*consensus.Header, to-from+1)
	at := f.lowestFrom(to)
	for {
		if at.Height <= to {
			out[at.Height-from] = at.Header
		}
		if at.Height == from {
			return out, nil
		}
		below, err := f.below(ctx, at, from)
		if err != nil {
			return nil, fmt.Errorf("engine: headers %d to %d, at %d: %w", from, to, at.Height, err)
		}
		for _, t := range below[:len(below)-1] {
			if t.Height <= to {
				out[t.Height-from] = t.Header
			}
		}
		at = below[len(below)-1]
	}
}

// lowestFrom is the lowest trusted header at hand at a height or above it. The tip is one.
func (f *Follower) lowestFrom(h consensus.Height) trusted {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.kept[h]; ok {
		return t
	}
	best := f.tip
	for _, t := range f.kept {
		if t.Height >= h && t.Height < best.Height {
			best = t
		}
	}
	return best
}

// below is one or more trusted headers below at, descending without a gap, down to height from at most.
func (f *Follower) below(ctx context.Context, at trusted, from consensus.Height) ([]trusted, error) {
	known, ok := f.at(at.Height - 1)
	if ok && known.hash != at.Parent {
		return nil, contradiction(known.Height, known.hash, at.Parent)
	}
	if ok {
		return []trusted{known}, nil
	}
	var found []trusted
	most := int(min(at.Height-max(from, f.highestBelow(at.Height)+1), maxAnswerHeaders))
	err := f.poll(ctx, request{typ: typeGetHeaders, hash: at.Parent, most: most}, fetchTimeout, 1, func(_ int, b []byte) (bool, error) {
		if b == nil {
			return false, nil
		}
		var err error
		found, err = linked(b, at, most)
		return err == nil, err
	})
	if err == nil && found == nil {
		err = fmt.Errorf("no member has it: %w", ErrNoAnswer)
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range found {
		f.keep(t)
	}
	return found, nil
}

// highestBelow is the height of the highest trusted header at hand below a height. Genesis is one.
func (f *Follower) highestBelow(h consensus.Height) (best consensus.Height) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.kept {
		if k < h {
			best = max(best, k)
		}
	}
	return best
}

// at is the trusted header at a height, if it is at hand.
func (f *Follower) at(h consensus.Height) (trusted, bool) {
	if h == 0 {
		return trusted{f.c.Genesis, f.c.Genesis.Hash()}, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.kept[h]
	return t, ok
}

// linked decodes an answer that must be the ancestors of a header, descending.
func linked(b []byte, child trusted, most int) ([]trusted, error) {
	hs, err := decodeHeaders(b)
	if err != nil {
		return nil, err
	}
	if len(hs) > most {
		return nil, malformed("%d headers, %d were asked for", len(hs), most)
	}
	var out []trusted
	for _, h := range hs {
		t := trusted{h, h.Hash()}
		if t.hash != child.Parent || h.Height+1 != child.Height {
			return nil, malformed("header at height %d that is not the parent of the one above", h.Height)
		}
		out, child = append(out, t), t
	}
	return out, nil
}

// keep takes a trusted header in, and lets the lowest ones go when there are too many. The caller holds mu.
func (f *Follower) keep(t trusted) {
	if _, ok := f.kept[t.Height]; ok {
		return
	}
	f.kept[t.Height] = t
	f.bytes += t.bytes()
	if len(f.kept) <= keptHeaders && f.bytes <= keptHeaderBytes {
		return
	}
	var heights []consensus.Height
	for h := range f.kept {
		heights = append(heights, h)
	}
	slices.SortFunc(heights, func(a, b consensus.Height) int { return cmp.Compare(a, b) })
	for _, h := range heights { // a quarter at a time, and never the tip
		if len(f.kept) <= keptHeaders*3/4 && f.bytes <= keptHeaderBytes*3/4 || h == f.tip.Height {
			break
		}
		f.bytes -= f.kept[h].bytes()
		delete(f.kept, h)
	}
}

// members are those to ask, in turn.
func (f *Follower) members() (out []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.c.Committee.Validators)
	for k := range n {
		if i := (f.rotor + k) % n; i != f.c.Index && !f.bad[i] {
			out = append(out, i)
		}
	}
	return out
}

// lied makes a member one that is not asked any more.
func (f *Follower) lied(i int, reason error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.bad[i] {
		f.bad[i] = true
		f.lies = append(f.lies, Lie{i, reason.Error()})
	}
}

// turn has member i asked first next time.
func (f *Follower) turn(i int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rotor = i % len(f.c.Committee.Validators)
}

// poll asks members in turn, so many at a time, until take has enough or all were asked. Take gets the answers one after
// another, nil for a member that does not hold it; an error of take makes the member a liar. Who does not answer in time is
// passed over, this time. The error is the context's, nothing else.
func (f *Follower) poll(ctx context.Context, r request, timeout time.Duration, atOnce int, take func(from int, b []byte) (enough bool, err error)) error {
	asking, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type answer struct {
		from int
		b    []byte
		err  error
	}
	members, out := f.members(), 0
	answers := make(chan answer, atOnce)
	for out > 0 || len(members) > 0 {
		for ; out < atOnce && len(members) > 0; out++ {
			to := members[0]
			members = members[1:]
			wg.Go(func() {
				b, err := ask(asking, f.c.Network, to, r, timeout)
				answers <- answer{to, b, err}
			})
		}
		a := <-answers
		if out--; ctx.Err() != nil {
			return ctx.Err()
		}
		if a.err != nil {
			continue
		}
		enough, err := take(a.from, a.b)
		if err != nil {
			f.lied(a.from, err)
		} else if enough && atOnce == 1 {
			f.turn(a.from)
		} else if enough { // others next time
			f.turn(a.from + 1)
		}
		if enough {
			return nil
		}
	}
	return nil
}
