// Package pool holds the transactions that a validator has accepted and that are not final yet: it judges newcomers,
// offers candidates for blocks, and says what to forward again.
//
// In: decoded transactions, from clients of this node (Submit) and forwarded by other validators (Forwarded). Out:
// a verdict for each, nil or a *Reject; candidates in an order that a block can execute; transactions to resend.
//
// # Admission
//
// A transaction is pooled if it can still execute on the final state as the State interface shows it: known payer of
// this shard, existing receiver if it is local, nonce not used and at most MaxGap beyond the first one missing, expiry
// ahead but within the horizon, known fee class, and a balance that covers it together with everything the payer has
// pooled. Then its signature is checked, outside the lock and for the whole call at once, and it is judged once more.
// These are rules of this node's, not of the chain: the ledger judges again.
//
// One nonce of an account holds one transaction. Another one takes its place only if its fee is strictly higher and
// the first is in no unfinalised block.
//
// # How much may wait
//
// Transactions that could be in the next block wait, those of clients of this node and forwarded ones, and so do those in
// unfinalised blocks. How many may wait follows from how long they do (gate.go), because a number alone is ten seconds of waiting
// for everybody in one network and half a second in another. Beyond that a client's transaction is refused with PoolFull and
// with the time after which it may come again, before its signature is checked; its place is kept while that happens. Once the gate
// is found shut, the rest of the call is refused unread, unless it waits already or its account has something that does. Only
// those that pay as much or more count, so that a higher fee finds room where a lower one does not; nothing that was admitted
// is thrown out for this, as it has been forwarded already. Forwarded transactions are never refused for it: who
// forwards them has admitted them. One that replaces another needs no room.
//
//   - Evidence: in the last final block the median of those that waited here waited longer than the target, 1 s, and longer
//     than since the final block before, so at least one block has passed it over. Then 0.8 × target × rate may wait, where
//     the rate is the highest of the last seconds, each over a second or a block that took longer, of those that left for good.
//     By Little's law waiting comes down to that share of the target. The rate is that of a shard with more to do than it can,
//     so it is its capacity and not its demand. Without evidence that limit doubles in 3 s.
//   - Before there is evidence, which comes only when the first block of an overload is final: 2 × target × the highest rate
//     of the last minutes, and at least 4,096, a full call of the API, so that an idle network takes a burst.
//   - A standstill is no evidence: when it ends, the leader takes all that has come meanwhile. When no block has been final for
//     2 targets, there is room for what the shard would have made final in that time as well, unless too many waited
//     before. Its time counts in no rate.
//   - Where even the quick ones wait long, in a wide network, the target is 1.5 × the shortest wait of the last minutes, up to
//     2 s: limits below what is under way without any queue would only slow it down.
//
// Simpler rules do not do: a limit by the rate alone takes an idle network for a slow one, and one by the shortest wait in a
// block, as routers do it, does not see the queue, since a leader takes everything it knows and it is blocks that take long.
//
// # When it is full
//
// The worst entry is the one with the lowest fee; among those, with the nearest expiry; among those, the newest. A
// newcomer with a strictly higher fee pushes out the highest nonce of the worst entry's account, so that no gap opens;
// it never pushes out its own account's. Any other newcomer is refused with PoolFull. Equal fees never displace one
// another: a flood at the going price cannot wash out what is waiting.
//
// # Bounds
//
// Transactions, wire bytes, what waits, entries for each account, entries and rate for each source, sources known by name (4,096;
// the rest share one quota), unfinalised blocks tracked (64, as in the ledger). Everything refused or dropped is
// counted by reason. The pool starts no goroutine and does no I/O; its caller calls it.
//
// # Distilled batches
//
// Batches holds those. They are checked as a whole and take no part in what is said above: nonces and balances in them are
// the broker's business, and a nonce that a batch uses is used.
//
// # Deviations
//
// Finalised takes no outcomes: State says which nonces are used, and a transaction that a block skipped may still
// execute until it expires, so it stays.
package pool

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tutti/state/tx"
)

// Account is what the pool needs to know of an account.
type Account struct {
	Exists     bool     // once true it stays so
	Key        [32]byte // Ed25519
	Generation uint16   // of the key
	Balance    uint64
	Nonce      uint32 // the next one to be used
}

// State is the final state. It must be safe for concurrent use, must not call back into the pool, and is called under
// the pool's lock, so it must be quick.
type State interface {
	// Accounts sets found[i] to what there is under ids[i]. The slices are as long as one another.
	Accounts(ids []tx.ID, found []Account)
}

// Verifier checks signatures; state/verify's Verifier is one. ok[i] is set for txs[i] under keys[i] and
// generations[i]. An error means that nothing was found out. Safe for concurrent use.
type Verifier interface {
	Check(ctx context.Context, source uint64, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) error
}

// Quota limits one source of transactions.
type Quota struct {
	PerSecond int // transactions, sustained; an opening with a BLS key counts as openWeight
	Burst     int // transactions at once
	Held      int // entries in the pool
}

// Options of a pool. All limits must be above zero.
type Options struct {
	Genesis     tx.Hash
	Shard       uint16                              // the shard whose accounts pay here
	ShardOf     func(tx.ID) (shard uint16, ok bool) // false: no such partition
	Fees        []uint64                            // price of each fee class
	OpenDeposit uint64
	Height      uint64 // final height at the start

	// Possession checks the proof of possession of a BLS key (accel/bls). Safe for concurrent use.
	Possession func(key [48]byte, message []byte, proof [96]byte) bool

	MaxTxs        int
	MaxBytes      int // of wire form
	MaxPerAccount int
	MaxAhead      uint32        // blocks that an expiry may lie ahead of the final height
	Client, Peer  Quota         // for each source of Submit and of Forwarded
	ResendAfter   time.Duration // first repeat of an own transaction; doubles four times
}

// MaxGap is how far a nonce may lie beyond the first one that is missing.
const MaxGap = 64

const (
	maxBlocks    = 64 // unfinalised blocks tracked; one bit each in entry.in
	resendLevels = 5
	openWeight   = 32 // a proof of possession costs about as much as this many signatures
)

// Pool is safe for concurrent use. Its lock is held for table operations only, never while signatures are checked.
type Pool struct {
	opts     Options
	state    State
	verifier Verifier
	byPrice  []int // fee classes, cheapest first

	mu       sync.Mutex // guards everything below, and every entry, account and source
	height   uint64     // final
	bytes    int
	seq      uint64
	entries  map[tx.Hash]*entry
	accounts map[tx.ID]*account      // those with entries
	classes  []classHeap             // by fee class: nearest expiry first, then newest
	ready    list.List               // *account whose next nonce is pooled; the longest waiting in front
	resend   [resendLevels]list.List // own *entry; level k was sent k times again; longest unsent in front
	sources  sources
	blocks   map[tx.Hash]*inFlight
	slots    uint64 // slots of blocks in use
	gate     gate
	waiting  []int // by fee class, entries that the next blocks could take: no nonce before them is missing
	checking []int // by fee class, clients' transactions whose signatures are being checked
	asked    []tx.ID
	found    []Account // of asked
	counters Counters
}

// entry is one pooled transaction.
type entry struct {
	tx      tx.Signed
	id      tx.Hash
	cost    uint64 // what the payer needs for it
	bytes   int    // wire form
	seq     uint64 // order of arrival
	came    time.Time
	waits   bool   // in waiting
	in      uint64 // slots of the unfinalised blocks that contain it
	at      int    // place in the heap of its fee class
	account *account
	source  *source

	own    *list.Element // in resend[level]; nil for a forwarded one
	level  int
	sentAt time.Time // when it was last given out to be sent
}

// account is the payer of pooled entries.
type account struct {
	id      tx.ID
	nonce   uint32   // the next one to be used in the final state
	entries []*entry // by nonce, which is nowhere below the account's
	cost    uint64   // of all entries together; the balance covered it when the last was added
	ready   *list.Element
}

// inFlight is an unfinalised block.
type inFlight struct {
	slot    uint64   // one bit
	entries []*entry // pooled when the block was reported; some may have left since
}

// Counters counts since New, but for the first two.
type Counters struct {
	Txs, Bytes   int             // now
	Added        uint64          // admitted
	Replaced     uint64          // by a higher fee at the same nonce
	Evicted      uint64          // by a higher fee when full
	Used         uint64          // left because their nonce is used in the final state: executed, or beaten to it
	Expired      uint64          // left because their last height has passed
	Unaffordable uint64          // left because the final balance no longer covers them
	Resent       uint64          // given out by Resend
	Untracked    uint64          // blocks beyond the limit on unfinalised ones
	Rejected     map[Code]uint64 // refused, by reason
}

// New makes an empty pool.
func New(opts Options, state State, verifier Verifier) (*Pool, error) {
	for _, l := range []struct {
		name  string
		value int
	}{
		{"Fees", len(opts.Fees)},
		{"MaxTxs", opts.MaxTxs},
		{"MaxBytes", opts.MaxBytes},
		{"MaxPerAccount", opts.MaxPerAccount},
		{"MaxAhead", int(opts.MaxAhead)},
		{"Client.PerSecond", opts.Client.PerSecond},
		{"Client.Burst", opts.Client.Burst},
		{"Client.Held", opts.Client.Held},
		{"Peer.PerSecond", opts.Peer.PerSecond},
		{"Peer.Burst", opts.Peer.Burst},
		{"Peer.Held", opts.Peer.Held},
		{"ResendAfter", int(opts.ResendAfter)},
	} {
		if l.value <= 0 {
			return nil, fmt.Errorf("pool: option %s is %d: it must be above zero", l.name, l.value)
		}
	}
	if opts.ShardOf == nil || opts.Possession == nil || state == nil || verifier == nil {
		return nil, errors.New("pool: options ShardOf and Possession, state and verifier must be given")
	}
	p := &Pool{
		opts: opts, state: state, verifier: verifier, height: opts.Height,
		entries: map[tx.Hash]*entry{}, accounts: map[tx.ID]*account{}, blocks: map[tx.Hash]*inFlight{},
		classes: make([]classHeap, len(opts.Fees)), gate: newGate(time.Now()),
		waiting: make([]int, len(opts.Fees)), checking: make([]int, len(opts.Fees)),
	}
	p.sources.init(opts.Client, opts.Peer)
	p.counters.Rejected = map[Code]uint64{}
	for class := range opts.Fees {
		p.byPrice = append(p.byPrice, class)
	}
	slices.SortStableFunc(p.byPrice, func(a, b int) int { return cmp.Compare(opts.Fees[a], opts.Fees[b]) })
	return p, nil
}

// Submit judges and pools transactions of a client of this node, whom source names. The pool answers for them: Resend
// gives them out until they are final or expired. The result has one error for each transaction: nil, or a *Reject.
func (p *Pool) Submit(ctx context.Context, source uint64, txs []tx.Signed) []error {
	return p.add(ctx, sourceKey{own: true, id: source}, txs)
}

// Forwarded judges and pools transactions that another validator accepted, like Submit; the pool does not resend them.
func (p *Pool) Forwarded(ctx context.Context, source uint64, txs []tx.Signed) []error {
	return p.add(ctx, sourceKey{id: source}, txs)
}

func (p *Pool) add(ctx context.Context, key sourceKey, txs []tx.Signed) []error {
	errs := make([]error, len(txs))
	ids := make([]tx.Hash, len(txs))
	for i := range txs {
		ids[i] = txs[i].TxID(p.opts.Genesis)
	}
	now := time.Now()
	w := p.screen(now, key, txs, ids, errs)
	if len(w.txs) == 0 {
		return errs
	}
	verdicts := make([]Code, len(w.txs)) // empty: genuine
	ok := make([]bool, len(w.txs))
	err := p.verifier.Check(ctx, key.id, w.txs, w.keys, w.generations, ok)
	for k := range w.txs {
		switch t := &w.txs[k].Tx; {
		case err != nil:
			verdicts[k] = Busy
		case !ok[k]:
			verdicts[k] = WrongSignature
		case t.BLS != nil && !p.opts.Possession(t.BLS.Key, tx.PossessionMessage(p.opts.Genesis, t.Key, t.BLS.Key), t.BLS.Possession):
			verdicts[k] = WrongPossession
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	src := p.sources.get(key, now)
	var payers []Account // of the stretch
	for k, i := range w.at {
		if k%stretch == 0 {
			payers = p.read(w.txs[k:min(k+stretch, len(w.txs))], false)
		}
		if key.own {
			p.checking[w.txs[k].FeeClass]--
		}
		switch verdicts[k] {
		case Busy:
			errs[i] = p.refuse(reject(Busy, "signatures could not be checked: %v", err))
		case WrongSignature:
			errs[i] = p.refuse(reject(WrongSignature, "the signature is not one of account %s's key", w.txs[k].From))
		case WrongPossession:
			errs[i] = p.refuse(reject(WrongPossession, "the proof does not belong to this chain, Ed25519 key and BLS key"))
		default:
			errs[i] = p.admit(now, src, &w.txs[k], ids[i], payers[k%stretch], w.keys[k], w.generations[k])
		}
	}
	return errs
}

// Has reports whether the transaction is pooled.
func (p *Pool) Has(id tx.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.entries[id] != nil
}

// Len is the number of pooled transactions.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.entries)
}

// Counters is a snapshot.
func (p *Pool) Counters() Counters {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counters
	c.Txs, c.Bytes, c.Rejected = len(p.entries), p.bytes, maps.Clone(c.Rejected)
	return c
}
