package distill

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"tutti/accel/bls"
	"tutti/accel/merkle"
)

// Submission is a transfer as its sender gave it to the broker. The broker has verified the signature (Check) before
// it takes the transfer into a round: should the sender not answer, the whole batch stands and falls with it.
type Submission struct {
	Body      [BodyBytes]byte
	Signature [64]byte
}

// Check sets ok[i] to whether subs[i] is signed by its sender: false for a sender without an Ed25519 key. ok must be
// at least as long as subs.
func (c Chain) Check(keys Keys, subs []Submission, ok []bool) {
	for len(subs) > 0 {
		n := min(len(subs), stragglersPerRound)
		senders, public := make([]uint64, n), make([][32]byte, n)
		for i := range n {
			senders[i] = Sender(&subs[i].Body)
		}
		known := 0 // senders with a key from the last one without on
		for at := 0; at < n; at += known + 1 {
			known = keys.Ed25519(senders[at:], public[at:])
			c.judge(public[at:at+known], ok[at:at+known], func(i int) (*[BodyBytes]byte, [64]byte) {
				return &subs[at+i].Body, subs[at+i].Signature
			})
			if at+known < n {
				ok[at+known] = false
			}
		}
		subs, ok = subs[n:], ok[n:]
	}
}

// Round is one batch in the making: its transfers are fixed, senders are asked for their signatures. It belongs to one
// goroutine.
type Round struct {
	chain    Chain
	subs     []Submission // by sender
	tree     *merkle.Tree
	shares   []bls.Share
	answered []bool
	answers  int
}

// NewRound sorts 1 to MaxCount transfers by sender and builds their tree. The slice is not kept. The error wraps
// ErrCount or ErrDuplicate: a sender has one transfer in a batch, its next one waits for the next.
func (c Chain) NewRound(subs []Submission) (*Round, error) {
	if len(subs) < 1 || len(subs) > MaxCount {
		return nil, fmt.Errorf("distill: %w: %d, need 1 to %d", ErrCount, len(subs), MaxCount)
	}
	r := &Round{chain: c, subs: slices.Clone(subs), shares: make([]bls.Share, len(subs)), answered: make([]bool, len(subs))}
	slices.SortFunc(r.subs, func(a, b Submission) int { return cmp.Compare(Sender(&a.Body), Sender(&b.Body)) })
	bodies := r.bodies()
	if i := disorder(bodies); i > 0 {
		return nil, fmt.Errorf("distill: %w: %d", ErrDuplicate, Sender(&r.subs[i].Body))
	}
	ids := make([][32]byte, len(subs))
	c.ids(ids, bodies)
	r.tree = merkle.NewTree(ids, treeDepth)
	return r, nil
}

func (r *Round) bodies() []byte {
	b := make([]byte, 0, len(r.subs)*BodyBytes)
	for i := range r.subs {
		b = append(b, r.subs[i].Body[:]...)
	}
	return b
}

// Count is the number of transfers.
func (r *Round) Count() int { return len(r.subs) }

// Answers is the number of senders that have answered.
func (r *Round) Answers() int { return r.answers }

// Body is transfer i, which is the round's own: do not change it. It panics if there is none.
func (r *Round) Body(i int) *[BodyBytes]byte { return &r.subs[i].Body }

// Index is the place of a sender's transfer.
func (r *Round) Index(sender uint64) (int, bool) {
	return slices.BinarySearchFunc(r.subs, sender, func(s Submission, sender uint64) int {
		return cmp.Compare(Sender(&s.Body), sender)
	})
}

// Offer is what the sender of transfer i is asked to sign. It panics if there is no such transfer.
func (r *Round) Offer(i int) *Offer {
	return &Offer{Index: i, Count: r.Count(), Path: [treeDepth][32]byte(r.tree.Path(i))}
}

// Answer takes what the sender of transfer i answered. Whether it is the right signature is seen when the round is
// finished; the first answer counts, so the caller knows by other means whom an answer comes from. The error wraps
// ErrIndex, ErrDuplicate or ErrShare.
func (r *Round) Answer(i int, share [ShareBytes]byte) error {
	if i < 0 || i >= len(r.subs) {
		return fmt.Errorf("distill: %w: %d of %d", ErrIndex, i, len(r.subs))
	}
	if r.answered[i] {
		return fmt.Errorf("distill: %w: answer of %d", ErrDuplicate, Sender(r.Body(i)))
	}
	p, err := bls.ParseShareUncompressed(share)
	if err != nil {
		return fmt.Errorf("distill: %w: of %d: %w", ErrShare, Sender(r.Body(i)), err)
	}
	r.shares[i], r.answered[i] = p, true
	r.answers++
	return nil
}

// Finish makes the batch of the answers so far. The shares are checked once, as a sum; wrong are the transfers whose
// share was found to be wrong, and which are stragglers' now, as are those of senders that have not answered or have no
// BLS key. The error wraps ErrNoSigners if there is no right share, ErrNoKey, or ErrStraggler if the caller took a
// transfer into the round without checking it: then there is no batch.
func (r *Round) Finish(directory *bls.Directory, keys Keys) (b *Batch, wrong []int, err error) {
	at, slots := r.signers(keys)
	shares := make([]bls.Share, len(at))
	for j, i := range at {
		shares[j] = r.shares[i]
	}
	root := r.tree.Top()
	sum, bad, err := directory.CheckShares(slots, r.chain.RootMessage(root, r.Count()), shares)
	for _, j := range bad {
		wrong = append(wrong, at[j])
	}
	switch {
	case errors.Is(err, bls.ErrNoShares):
		return nil, wrong, fmt.Errorf("distill: %w", ErrNoSigners)
	case err != nil:
		return nil, nil, fmt.Errorf("distill: %w: BLS: %w", ErrNoKey, err)
	}
	b = &Batch{root: root, aggregate: sum, bodies: r.bodies(), stragglers: make([]byte, (r.Count()+7)/8)}
	signed := make([]bool, r.Count())
	for _, i := range at {
		signed[i] = true
	}
	for _, i := range wrong {
		signed[i] = false
	}
	for i := range signed {
		if !signed[i] {
			b.stragglers[i/8] |= 1 << (i % 8)
			b.signatures = append(b.signatures, r.subs[i].Signature[:]...)
		}
	}
	if err := b.verifyStragglers(r.chain, keys); err != nil {
		return nil, wrong, err
	}
	return b, wrong, nil
}

// signers are the transfers whose senders have answered and have a BLS key, and where it is.
func (r *Round) signers(keys Keys) (at []int, slots []uint32) {
	var answered []int
	var senders []uint64
	for i := range r.subs {
		if r.answered[i] {
			answered, senders = append(answered, i), append(senders, Sender(r.Body(i)))
		}
	}
	places := make([]uint32, len(senders))
	for first := 0; first < len(senders); {
		known := keys.Slots(senders[first:], places)
		at = append(at, answered[first:first+known]...)
		slots = append(slots, places[:known]...)
		first += known + 1 // the sender after them has no key
	}
	return at, slots
}
