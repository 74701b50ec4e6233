package proof

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"tutti/consensus"
	"tutti/state/tx"
)

// Bounds of what a Trust keeps beside the genesis committees.
const (
	MaxEpochs   = 1 << 16 // of a shard, 72 bytes each; older ones are forgotten
	maxLatest   = 2       // committees of a shard's newest epochs
	maxRecalled = 16      // committees of older epochs, of all shards together
)

// Trust is what a verifier believes before it sees a proof: which chain, which committees, which shard keeps which accounts.
// It begins with the committees of a genesis file and learns more by hand-overs. Safe for concurrent use.
//
// Of each epoch that it was led through it keeps the committee's hash and the last block of the epoch before. Committees
// themselves are kept of the genesis and of the newest epochs; those of others can be brought back (Advance), and then the
// last few of these are kept too.
type Trust struct {
	genesis consensus.Hash
	shardOf func(tx.ID) consensus.ShardID
	limit   int           // MaxEpochs, lower in a test
	checks  atomic.Uint64 // signature checks made

	mu       sync.Mutex // guards what follows
	chains   map[consensus.ShardID]*chain
	recalled []member // last used last
}

// chain is what is known of the committees of one shard.
type chain struct {
	genesis member
	first   consensus.Epoch // of records[0]: the genesis', a checkpoint's, or what is left of more than MaxEpochs
	records []record        // one for each epoch from first on, never empty
	latest  []member        // of the newest epochs, ascending; some may be missing
}

// record is what is kept of an epoch.
type record struct {
	committee consensus.Hash
	height    consensus.Height // of the last block of the epoch before
	block     consensus.Hash   // that block; zero in the genesis' epoch
}

type member struct {
	committee *consensus.Committee
	keys      counted
}

// counted counts the signature checks of keys.
type counted struct {
	consensus.Keys
	checks *atomic.Uint64
}

func (c counted) VerifyAggregate(signers consensus.Signers, msg []byte, sig consensus.Signature) bool {
	c.checks.Add(1)
	return c.Keys.VerifyAggregate(signers, msg, sig)
}

// span is an epoch as a block of it is held against it.
type span struct {
	member
	start record
	end   *record // the next epoch's; nil while it is not known
}

// EpochError says that the committee of an epoch is not known. It wraps ErrEpoch.
type EpochError struct {
	Shard consensus.ShardID
	Epoch consensus.Epoch // of the committee that is needed
	From  consensus.Epoch // the hand-overs out of this epoch and the following, up to Epoch, would show it
	Lost  bool            // no hand-over would: the epoch is before the checkpoint, or was forgotten; From is the first known
}

func (e *EpochError) Error() string {
	if e.Lost {
		return fmt.Sprintf("proof: %v: epoch %d of shard %d; what is known begins with epoch %d: follow the hand-overs from the genesis file again",
			ErrEpoch, e.Epoch, e.Shard, e.From)
	}
	return fmt.Sprintf("proof: %v: epoch %d of shard %d; the hand-overs out of epochs %d to %d would show it", ErrEpoch, e.Epoch, e.Shard, e.From, e.Epoch-1)
}

func (e *EpochError) Unwrap() error { return ErrEpoch }

// NewTrust takes the genesis hash, the genesis committee of each shard and the partition table. shardOf must be
// pure and safe for concurrent use. It fails if two committees are of one shard or a voting key is not valid.
func NewTrust(genesis consensus.Hash, committees []*consensus.Committee, shardOf func(tx.ID) consensus.ShardID) (*Trust, error) {
	t := &Trust{genesis: genesis, shardOf: shardOf, limit: MaxEpochs, chains: make(map[consensus.ShardID]*chain, len(committees))}
	for _, c := range committees {
		if _, twice := t.chains[c.Shard]; twice {
			return nil, fmt.Errorf("proof: two committees for shard %d", c.Shard)
		}
		m, err := t.member(c)
		if err != nil {
			return nil, fmt.Errorf("proof: committee of shard %d: %w", c.Shard, err)
		}
		t.chains[c.Shard] = &chain{genesis: m, first: c.Epoch, records: []record{{committee: c.Hash()}}}
	}
	return t, nil
}

// member decodes a committee's keys.
func (t *Trust) member(c *consensus.Committee) (member, error) {
	keys, err := consensus.NewKeys(c)
	if err != nil {
		return member{}, err
	}
	return member{c, counted{keys, &t.checks}}, nil
}

// Genesis is the hash of the trusted chain.
func (t *Trust) Genesis() consensus.Hash { return t.genesis }

// ShardOf is the shard that keeps an account.
func (t *Trust) ShardOf(id tx.ID) consensus.ShardID { return t.shardOf(id) }

// Shards is the number of shards.
func (t *Trust) Shards() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.chains)
}

// Checks is how many certificates t has checked, good or bad: one pairing check each.
func (t *Trust) Checks() uint64 { return t.checks.Load() }

// Newest is the newest known epoch of a shard, 0 for a shard that the network does not have.
func (t *Trust) Newest(shard consensus.ShardID) consensus.Epoch {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.chains[shard]; c != nil {
		return c.newest()
	}
	return 0
}

// Committee is the committee of an epoch, with its keys. The error is an *EpochError while it is not known.
func (t *Trust) Committee(shard consensus.ShardID, epoch consensus.Epoch) (*consensus.Committee, consensus.Keys, error) {
	k, err := t.span(shard, epoch)
	if err != nil {
		return nil, nil, err
	}
	return k.committee, k.keys, nil
}

func (c *chain) newest() consensus.Epoch { return c.first + consensus.Epoch(len(c.records)-1) }

// record is what is kept of an epoch, if it is.
func (c *chain) record(e consensus.Epoch) (record, bool) {
	switch {
	case e >= c.first && e <= c.newest():
		return c.records[e-c.first], true
	case e == c.genesis.committee.Epoch:
		return record{committee: c.genesis.committee.Hash()}, true
	}
	return record{}, false
}

// span is what a block of the epoch is to be held against.
func (t *Trust) span(shard consensus.ShardID, epoch consensus.Epoch) (k span, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chains[shard]
	if c == nil {
		return k, fail(ErrShard, "shard %d is not in the trusted genesis, which has %d", shard, len(t.chains))
	}
	r, ok := c.record(epoch)
	if !ok {
		e := &EpochError{Shard: shard, Epoch: epoch, From: c.newest()}
		if epoch < c.first {
			e.From, e.Lost = c.first, true
		}
		return k, e
	}
	if k.member, ok = t.held(c, epoch); !ok {
		return k, &EpochError{Shard: shard, Epoch: epoch, From: epoch - 1}
	}
	k.start = r
	if next, ok := c.record(epoch + 1); ok {
		k.end = &next
	}
	return k, nil
}

// held finds the committee of an epoch among those that are kept. The caller holds mu.
func (t *Trust) held(c *chain, e consensus.Epoch) (member, bool) {
	if c.genesis.committee.Epoch == e {
		return c.genesis, true
	}
	shard := c.genesis.committee.Shard
	is := func(m member) bool { return m.committee.Epoch == e && m.committee.Shard == shard }
	if i := slices.IndexFunc(c.latest, is); i >= 0 {
		return c.latest[i], true
	}
	if i := slices.IndexFunc(t.recalled, is); i >= 0 {
		m := t.recalled[i]
		t.recalled = append(slices.Delete(t.recalled, i, i+1), m)
		return m, true
	}
	return member{}, false
}

// keep keeps a committee whose hash is in c's records. The caller holds mu.
func (t *Trust) keep(c *chain, m member) {
	e := m.committee.Epoch
	if _, ok := t.held(c, e); ok {
		return
	}
	if e+maxLatest > c.newest() {
		c.latest = append(c.latest, m)
		slices.SortFunc(c.latest, func(a, b member) int { return int(a.committee.Epoch) - int(b.committee.Epoch) })
		if len(c.latest) > maxLatest {
			c.latest = slices.Delete(c.latest, 0, 1)
		}
		return
	}
	if len(t.recalled) == maxRecalled {
		t.recalled = slices.Delete(t.recalled, 0, 1)
	}
	t.recalled = append(t.recalled, m)
}

// place checks a block's place in its epoch, as far as it is known where that begins and ends.
func (k *span) place(h *consensus.Header) error {
	switch {
	case h.Height <= k.start.height:
		return fail(ErrFollowed, "block %d of epoch %d: the epoch before ended with block %d", h.Height, h.Epoch, k.start.height)
	case h.Height == k.start.height+1 && !k.start.block.IsZero() && h.Parent != k.start.block:
		return fail(ErrFollowed, "block %d does not follow block %s, with which the epoch before ended", h.Height, k.start.block.Short())
	case k.end == nil:
		return nil
	case h.Ends() && (h.Height != k.end.height || h.Hash() != k.end.block), !h.Ends() && h.Height >= k.end.height:
		return fail(ErrFollowed, "epoch %d ended with block %s at height %d, and this is block %s at %d",
			h.Epoch, k.end.block.Short(), k.end.height, h.Hash().Short(), h.Height)
	}
	return nil
}

// Advance verifies a hand-over and takes the next committee from it. One out of the newest epoch costs one signature check
// and the decoding of the keys that are new. One out of an older epoch is compared with what was followed, and brings its committee back
// for proofs of that epoch; it costs no signature check. One out of an epoch that is not known gives an *EpochError.
func (t *Trust) Advance(h *Handover) error {
	if err := h.check(t.genesis); err != nil {
		return err
	}
	b := h.End.Last
	if done, err := t.recall(h); done || err != nil {
		return err
	}
	k, err := t.span(b.Shard, b.Epoch)
	if err != nil {
		return err
	}
	if err := k.place(b); err != nil {
		return err
	}
	if err := k.committee.VerifyEnd(t.genesis, k.keys, h.End); err != nil {
		return fmt.Errorf("proof: %w: %w", ErrCertificate, err)
	}
	keys, err := consensus.NewKeysFrom(k.keys.Keys, h.Next)
	if err != nil {
		return fmt.Errorf("proof: %w: %w", ErrNext, err)
	}
	m := member{h.Next, counted{keys, &t.checks}}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chains[b.Shard]
	if b.Epoch != c.newest() { // somebody else was faster, or b is of a genesis far below a checkpoint
		return c.compare(h)
	}
	c.records = append(c.records, record{committee: h.Next.Hash(), height: b.Height, block: b.Hash()})
	if len(c.records) > t.limit {
		c.records = slices.Delete(c.records, 0, 1)
		c.first++
	}
	t.keep(c, m)
	return nil
}

// Verify checks that the hand-over leads out of the epoch of committee c on a chain, whatever was followed before. It costs one
// signature check.
func (h *Handover) Verify(chain consensus.Hash, c *consensus.Committee, keys consensus.Keys) error {
	if err := h.check(chain); err != nil {
		return err
	}
	if b := h.End.Last; b.Shard != c.Shard || b.Epoch != c.Epoch {
		return fail(ErrCommittee, "it leads out of epoch %d of shard %d, not %d of shard %d", b.Epoch, b.Shard, c.Epoch, c.Shard)
	}
	if err := c.VerifyEnd(chain, keys, h.End); err != nil {
		return fmt.Errorf("proof: %w: %w", ErrCertificate, err)
	}
	return nil
}

// check checks what needs no committee: that the hand-over is of the chain, and the next committee the one that is named.
func (h *Handover) check(chain consensus.Hash) error {
	b := h.End.Last
	if b.Chain != chain {
		return fail(ErrGenesis, "its genesis hash is %s, the trusted one %s", b.Chain.Short(), chain.Short())
	}
	if b.IsEcho() {
		return fail(ErrEcho, "header %s has no body", b.Hash().Short())
	}
	if !b.Ends() {
		return fail(ErrNotLast, "block %d of shard %d names its own committee as the next", b.Height, b.Shard)
	}
	if got := h.Next.Hash(); got != b.NextCommittee {
		return fail(ErrNext, "its hash is %s, block %d names %s", got.Short(), b.Height, b.NextCommittee.Short())
	}
	if h.Next.Shard != b.Shard || h.Next.Epoch != b.Epoch+1 {
		return fail(ErrNext, "it is of shard %d and epoch %d, after epoch %d of shard %d", h.Next.Shard, h.Next.Epoch, b.Epoch, b.Shard)
	}
	return nil
}

// recall takes the next committee if its epoch is recorded already.
func (t *Trust) recall(h *Handover) (done bool, err error) {
	b := h.End.Last
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.chains[b.Shard]
	if c == nil {
		return false, nil
	}
	if _, ok := c.record(h.Next.Epoch); !ok {
		return false, nil
	}
	if err := c.compare(h); err != nil {
		return false, err
	}
	if _, ok := t.held(c, h.Next.Epoch); ok {
		return true, nil
	}
	m, err := t.member(h.Next)
	if err != nil {
		return false, fmt.Errorf("proof: %w: %w", ErrNext, err)
	}
	t.keep(c, m)
	return true, nil
}

// compare says whether a hand-over is the one that was followed.
func (c *chain) compare(h *Handover) error {
	b := h.End.Last
	r, ok := c.record(h.Next.Epoch)
	switch {
	case !ok:
		return &EpochError{Shard: b.Shard, Epoch: b.Epoch, From: c.first, Lost: true}
	case r.committee != h.Next.Hash() || r.height != b.Height || r.block != b.Hash():
		return fail(ErrFollowed, "epoch %d of shard %d ended with block %s and committee %s, this names %s and %s", b.Epoch, b.Shard,
			r.block.Short(), r.committee.Short(), b.Hash().Short(), h.Next.Hash().Short())
	}
	return nil
}

// errNotFresh: a checkpoint or a state is only taken where nothing was followed yet.
var errNotFresh = errors.New("proof: hand-overs were followed already: begin anew to take a checkpoint or a state")

// fresh reports whether nothing but the genesis is known. The caller holds mu.
func (t *Trust) fresh() bool {
	for _, c := range t.chains {
		if len(c.records) > 1 || c.first != c.genesis.committee.Epoch {
			return false
		}
	}
	return true
}
