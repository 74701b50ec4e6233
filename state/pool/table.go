package pool

import (
	"container/heap"
	"slices"
	"time"

	"tutti/state/tx"
)

// insert puts a judged transaction in all tables; nonce is its payer's next one in the final state.
func (p *Pool) insert(now time.Time, src *source, t *tx.Signed, id tx.Hash, nonce uint32, cost uint64) *entry {
	a := p.accounts[t.From]
	if a == nil {
		a = &account{id: t.From, nonce: nonce}
		p.accounts[t.From] = a
	}
	p.seq++
	e := &entry{tx: *t, id: id, cost: cost, bytes: t.WireBytes(), seq: p.seq, came: now, account: a, source: src}
	at, _ := a.find(t.Nonce)
	a.entries = slices.Insert(a.entries, at, e)
	a.cost += e.cost
	p.settle(a)
	p.entries[id] = e
	heap.Push(&p.classes[t.FeeClass], e)
	p.bytes += e.bytes
	src.held++
	p.counters.Added++
	return e
}

// remove takes an entry out of all tables; a block that contains it may still hold the pointer.
func (p *Pool) remove(e *entry) {
	a := e.account
	at, _ := a.find(e.tx.Nonce)
	a.entries = slices.Delete(a.entries, at, at+1)
	a.cost -= e.cost
	if e.waits {
		p.wait(e, -1)
	}
	p.settle(a)
	delete(p.entries, e.id)
	heap.Remove(&p.classes[e.tx.FeeClass], e.at)
	p.bytes -= e.bytes
	e.source.held--
	if e.own != nil {
		p.resend[e.level].Remove(e.own)
		e.own = nil
	}
}

// settle counts what a block could take of the account, puts it in or out of the queue of those that can offer a candidate,
// and forgets it when empty.
func (p *Pool) settle(a *account) {
	next := int(a.missing(a.nonce) - uint64(a.nonce))
	for k := next - 1; k >= 0 && !a.entries[k].waits; k-- {
		p.wait(a.entries[k], 1)
	}
	for k := next; k < len(a.entries) && a.entries[k].waits; k++ {
		p.wait(a.entries[k], -1)
	}
	can := next > 0
	switch {
	case can && a.ready == nil:
		a.ready = p.ready.PushBack(a)
	case !can && a.ready != nil:
		p.ready.Remove(a.ready)
		a.ready = nil
	}
	if len(a.entries) == 0 {
		delete(p.accounts, a.id)
	}
}

// wait counts an entry among those that wait, with 1, or no more, with -1.
func (p *Pool) wait(e *entry, n int) {
	e.waits = n > 0
	p.waiting[e.tx.FeeClass] += n
}

// refresh takes over the payer's final record: entries with used nonces leave, then the highest nonces until the
// balance covers the rest.
func (p *Pool) refresh(now time.Time, a *account, payer Account) {
	for len(a.entries) > 0 && a.entries[0].tx.Nonce < payer.Nonce {
		e := a.entries[0]
		p.counters.Used++
		p.gate.leaves(now.Sub(e.came))
		a.nonce = e.tx.Nonce + 1 // so that those behind it wait on
		p.remove(e)
	}
	a.nonce = payer.Nonce
	for len(a.entries) > 0 && a.cost > payer.Balance {
		p.counters.Unaffordable++
		p.remove(a.entries[len(a.entries)-1])
	}
	p.settle(a)
}

// adopt makes the entry one that this node answers for.
func (p *Pool) adopt(e *entry, now time.Time) {
	if e.own == nil {
		e.sentAt = now // its receiver forwards it at once
		e.own = p.resend[e.level].PushBack(e)
	}
}

// classHeap orders the entries of one fee class, the worst first: nearest expiry, then newest.
type classHeap []*entry

func (h classHeap) Len() int { return len(h) }
func (h classHeap) Less(i, k int) bool {
	if a, b := h[i].tx.Expiry, h[k].tx.Expiry; a != b {
		return a < b
	}
	return h[i].seq > h[k].seq
}

func (h classHeap) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].at, h[k].at = i, k
}

func (h *classHeap) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}

func (h *classHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}

// maxSources bounds the sources that have a quota of their own.
const maxSources = 4096

type sourceKey struct {
	own bool // of Submit
	id  uint64
}

// source is the quota of one source, a token bucket and a count.
type source struct {
	own    bool
	quota  Quota
	tokens float64
	at     time.Time // when tokens was right
	held   int       // entries in the pool
}

// sources are all quotas, guarded by the pool's lock.
type sources struct {
	client, peer           Quota
	known                  map[sourceKey]*source
	otherClient, otherPeer source // shared by those that came when the table was full
	swept                  time.Time
}

func (s *sources) init(client, peer Quota) {
	s.client, s.peer, s.known = client, peer, map[sourceKey]*source{}
	s.otherClient = source{own: true, quota: client, tokens: float64(client.Burst)}
	s.otherPeer = source{quota: peer, tokens: float64(peer.Burst)}
}

// get finds or makes the quota of a source and fills its bucket up to now.
func (s *sources) get(k sourceKey, now time.Time) *source {
	src := s.known[k]
	if src == nil {
		if len(s.known) >= maxSources && now.Sub(s.swept) >= time.Second {
			s.sweep(now)
		}
		quota, other := s.peer, &s.otherPeer
		if k.own {
			quota, other = s.client, &s.otherClient
		}
		if src = other; len(s.known) < maxSources {
			src = &source{own: k.own, quota: quota, tokens: float64(quota.Burst), at: now}
			s.known[k] = src
		}
	}
	src.fill(now)
	return src
}

// sweep forgets the sources that hold nothing and have a full bucket: nothing is known of them.
func (s *sources) sweep(now time.Time) {
	s.swept = now
	for k, src := range s.known {
		if src.fill(now); src.held == 0 && src.tokens >= float64(src.quota.Burst) {
			delete(s.known, k)
		}
	}
}

func (s *source) fill(now time.Time) {
	if d := now.Sub(s.at); d > 0 {
		s.tokens = min(float64(s.quota.Burst), s.tokens+d.Seconds()*float64(s.quota.PerSecond))
		s.at = now
	}
}

// take takes n tokens, or the whole bucket if it is smaller than that.
func (s *source) take(n int) bool {
	need := float64(min(n, s.quota.Burst))
	if s.tokens < need {
		return false
	}
	s.tokens -= need
	return true
}
