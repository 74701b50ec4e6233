package pool

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"
	"time"

	"tutti/state/tx"
)

// work is what passed the first judgement and waits for its signatures; parallel slices.
type work struct {
	at          []int // index in the call
	txs         []tx.Signed
	keys        [][32]byte
	generations []uint16
}

// screen does everything that is cheaper than a signature, so that only what could be pooled costs one.
func (p *Pool) screen(now time.Time, key sourceKey, txs []tx.Signed, ids []tx.Hash, errs []error) (w work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	src := p.sources.get(key, now)
	w = work{make([]int, 0, len(txs)), make([]tx.Signed, 0, len(txs)), make([][32]byte, 0, len(txs)), make([]uint16, 0, len(txs))}
	closed := make([]*Reject, len(p.opts.Fees)) // by fee class: why the gate lets nothing more in; it does not open in one call
	var accounts []Account                      // of the stretch, nil as long as nobody asked
	for i := range txs {
		if i%stretch == 0 {
			accounts = nil
		}
		weight := 1
		if txs[i].BLS != nil {
			weight = openWeight
		}
		if !src.take(weight) {
			errs[i] = p.refuse(reject(RateLimited, "over %d transactions a second from this sender", src.quota.PerSecond))
			continue
		}
		class := int(txs[i].FeeClass)
		if key.own && class < len(closed) && closed[class] != nil && p.entries[ids[i]] == nil && p.accounts[txs[i].From] == nil {
			errs[i] = p.refuse(closed[class]) // it neither waits already nor replaces what does
			continue
		}
		if accounts == nil {
			accounts = p.read(txs[i-i%stretch:min(i-i%stretch+stretch, len(txs))], true)
		}
		payer, receiver := accounts[i%stretch], accounts[len(accounts)/2+i%stretch]
		j, r := p.judge(now, src, &txs[i], ids[i], payer, receiver.Exists, len(txs))
		if r == nil && key.own && j.replaces == nil {
			r = p.tooLong(now, &txs[i])
			closed[class] = r
		}
		if r != nil {
			errs[i] = p.refuse(r)
			continue
		}
		if key.own { // it keeps its place while its signature is checked
			p.checking[class]++
		}
		w.at = append(w.at, i)
		w.txs = append(w.txs, txs[i])
		w.keys = append(w.keys, payer.Key)
		w.generations = append(w.generations, payer.Generation)
	}
	return w
}

// stretch is how many transactions' accounts are read together, since far more time goes into waiting for memory than into
// reading it.
const stretch = 32

// read reads the payers of up to a stretch of transactions, and behind them the receivers if asked to. The result is good until
// the next call. mu is held.
func (p *Pool) read(txs []tx.Signed, receivers bool) []Account {
	p.asked = p.asked[:0]
	for i := range txs {
		p.asked = append(p.asked, txs[i].From)
	}
	if receivers {
		for i := range txs {
			p.asked = append(p.asked, txs[i].To)
		}
	}
	return p.readAsked()
}

// readAsked reads the accounts named in asked. The result is good until the next call. mu is held.
func (p *Pool) readAsked() []Account {
	p.found = slices.Grow(p.found[:0], len(p.asked))[:len(p.asked)]
	p.state.Accounts(p.asked, p.found)
	return p.found
}

// refuse counts a refusal.
func (p *Pool) refuse(r *Reject) error {
	p.counters.Rejected[r.Code]++
	return r
}

// admit judges again, since time has passed and others of the call are in by now, and inserts. The signature was good
// under the given key and generation; the receiver, if it is of this shard, was there and so is.
func (p *Pool) admit(now time.Time, src *source, t *tx.Signed, id tx.Hash, payer Account, key [32]byte, generation uint16) error {
	j, r := p.judge(now, src, t, id, payer, true, 0)
	if r != nil {
		return p.refuse(r)
	}
	if payer.Key != key || payer.Generation != generation {
		return p.refuse(reject(WrongSignature, "the key of account %s has just changed", t.From))
	}
	if j.replaces != nil {
		p.counters.Replaced++
		p.remove(j.replaces)
	}
	for p.isFull(1, t.WireBytes()) {
		v := p.victim(t)
		if v == nil {
			return p.refuse(p.full())
		}
		p.counters.Evicted++
		p.remove(v)
	}
	e := p.insert(now, src, t, id, payer.Nonce, j.cost)
	if src.own {
		p.adopt(e, now)
	}
	return nil
}

// judgement is what judge found out on the way.
type judgement struct {
	cost     uint64 // amount, fee and deposit
	replaces *entry // the entry with the same nonce, if it is to make room
}

// judge says whether t could be pooled now, signature aside. receiver tells that there is an account t.To in the final state.
// slack widens the nonce gap by that much, for a call whose earlier transactions are not in yet. A client's duplicate makes the
// pooled entry one that this node answers for.
func (p *Pool) judge(now time.Time, src *source, t *tx.Signed, id tx.Hash, payer Account, receiver bool, slack int) (j judgement, r *Reject) {
	if e := p.entries[id]; e != nil {
		if src.own {
			p.adopt(e, now)
		}
		return j, reject(Duplicate, "already pooled")
	}
	if src.held >= src.quota.Held {
		return j, reject(RateLimited, "the pool holds %d transactions of this sender, its share", src.held)
	}
	if r := p.judgeContent(t); r != nil {
		return j, r
	}
	if !payer.Exists {
		return j, reject(UnknownAccount, "account %s does not exist in the final state", t.From)
	}
	if t.Kind == tx.Transfer && !receiver {
		if shard, _ := p.opts.ShardOf(t.To); shard == p.opts.Shard {
			return j, reject(UnknownReceiver, "account %s does not exist in the final state", t.To)
		}
	}
	var ok bool
	if j.cost, ok = p.costOf(t); !ok {
		return j, reject(InsufficientFunds, "amount and fee exceed what any account can hold")
	}
	if t.Nonce < payer.Nonce {
		return j, reject(NonceTooLow, "nonce %d is used, the next one of account %s is %d", t.Nonce, t.From, payer.Nonce)
	}
	a := p.accounts[t.From]
	if a != nil && a.nonce != payer.Nonce { // the state has moved on and Finalised is about to say so
		p.refresh(now, a, payer)
		a = p.accounts[t.From]
	}
	var pooled uint64 // what the payer's other entries need
	if a != nil {
		pooled = a.cost
		at, same := a.find(t.Nonce)
		switch {
		case same && (a.entries[at].in != 0 || p.fee(t) <= p.fee(&a.entries[at].tx)):
			return j, reject(NonceTaken, "transaction %v with nonce %d is waiting", a.entries[at].id, t.Nonce)
		case same:
			j.replaces = a.entries[at]
			pooled -= j.replaces.cost
		case len(a.entries) >= p.opts.MaxPerAccount:
			return j, reject(AccountLimit, "%d transactions of account %s are waiting, the limit", len(a.entries), t.From)
		}
	}
	if missing := a.missing(payer.Nonce); uint64(t.Nonce) > missing+MaxGap+uint64(slack) {
		return j, reject(NonceGap, "nonce %d is more than %d beyond %d, which is missing", t.Nonce, MaxGap, missing)
	}
	if sum, carry := bits.Add64(pooled, j.cost, 0); carry != 0 || sum > payer.Balance {
		return j, reject(InsufficientFunds, "balance %d, pending payments %d, this needs %d", payer.Balance, pooled, j.cost)
	}
	switch bytes := t.WireBytes(); {
	case j.replaces != nil && p.isFull(0, bytes-j.replaces.bytes), j.replaces == nil && p.isFull(1, bytes) && p.victim(t) == nil:
		return j, p.full()
	}
	return j, nil
}

// judgeContent judges what needs no account.
func (p *Pool) judgeContent(t *tx.Signed) *Reject {
	const ids = 1 << 48
	switch {
	case t.Kind != tx.Transfer && t.Kind != tx.Open:
		return reject(Malformed, "unknown %v", t.Kind)
	case t.BLS != nil && t.Kind != tx.Open:
		return reject(Malformed, "%v with a BLS key", t.Kind)
	case t.From >= ids || t.To >= ids:
		return reject(Malformed, "account id over 48 bits")
	case int(t.FeeClass) >= len(p.opts.Fees):
		return reject(UnknownFeeClass, "fee class %d, this network has %d", t.FeeClass, len(p.opts.Fees))
	case uint64(t.Expiry) <= p.height:
		return reject(Expired, "expiry %d, final height %d", t.Expiry, p.height)
	case uint64(t.Expiry) > p.height+uint64(p.opts.MaxAhead):
		return reject(ExpiresTooFar, "expiry %d, final height %d, at most %d ahead", t.Expiry, p.height, p.opts.MaxAhead)
	}
	if shard, ok := p.opts.ShardOf(t.From); !ok {
		return reject(UnknownAccount, "account %s lies in no shard", t.From)
	} else if shard != p.opts.Shard {
		return reject(WrongShard, "account %s is on shard %d, this is shard %d", t.From, shard, p.opts.Shard)
	}
	if t.Kind != tx.Transfer {
		return nil
	}
	if _, ok := p.opts.ShardOf(t.To); !ok {
		return reject(UnknownReceiver, "account %s lies in no shard", t.To)
	}
	switch {
	case t.From == t.To:
		return reject(SelfTransfer, "payer and receiver are both %s", t.From)
	case t.Amount == 0:
		return reject(ZeroAmount, "the amount is 0")
	}
	return nil
}

func (p *Pool) fee(t *tx.Signed) uint64 { return p.opts.Fees[t.FeeClass] }

// costOf is what the payer needs for t; false if that is over 64 bits.
func (p *Pool) costOf(t *tx.Signed) (uint64, bool) {
	sum, c := bits.Add64(t.Amount, p.fee(t), 0)
	if t.Kind == tx.Open {
		var c2 uint64
		sum, c2 = bits.Add64(sum, p.opts.OpenDeposit, 0)
		c |= c2
	}
	return sum, c == 0
}

// isFull reports whether there is no room for so much more.
func (p *Pool) isFull(txs, bytes int) bool {
	return len(p.entries)+txs > p.opts.MaxTxs || p.bytes+bytes > p.opts.MaxBytes
}

func (p *Pool) full() *Reject {
	return reject(PoolFull, "%d transactions with %d bytes are waiting at this fee or higher", len(p.entries), p.bytes)
}

// tooLong refuses a client's transaction if those that pay as much, or more, fill the room of the gate.
func (p *Pool) tooLong(now time.Time, t *tx.Signed) *Reject {
	waiting := p.waitingFrom(p.fee(t))
	if waiting < p.gate.room(now) {
		return nil
	}
	r := reject(PoolFull, "%d transactions wait at this fee or higher, %.0f a second become final", waiting, p.gate.rate)
	r.RetryAfter = p.gate.retry(now, waiting)
	return r
}

// waitingFrom counts those that wait, or will once their signatures are checked, at a fee or higher.
func (p *Pool) waitingFrom(fee uint64) (n int) {
	for class, price := range p.opts.Fees {
		if price >= fee {
			n += p.waiting[class] + p.checking[class]
		}
	}
	return n
}

// victim is the entry that t may push out of a full pool, or nil; the rule is in the package comment.
func (p *Pool) victim(t *tx.Signed) *entry {
	for _, class := range p.byPrice {
		if p.opts.Fees[class] >= p.fee(t) {
			return nil
		}
		if h := p.classes[class]; len(h) > 0 {
			a := h[0].account
			if a.id == t.From {
				return nil
			}
			return a.entries[len(a.entries)-1]
		}
	}
	return nil
}

// find is the place of a nonce among the account's entries, and whether it is there.
func (a *account) find(nonce uint32) (int, bool) {
	return slices.BinarySearchFunc(a.entries, nonce, func(e *entry, n uint32) int { return cmp.Compare(e.tx.Nonce, n) })
}

// missing is the first nonce at or after next that is not pooled. a may be nil.
func (a *account) missing(next uint32) uint64 {
	if a == nil {
		return uint64(next)
	}
	// Nonces ascend strictly, so entry k holds next+k exactly as long as nothing is missing.
	return uint64(next) + uint64(sort.Search(len(a.entries), func(k int) bool { return a.entries[k].tx.Nonce != next+uint32(k) }))
}
