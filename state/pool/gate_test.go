package pool

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tutti/state/tx"
)

// shard is a simulated shard that takes what waits into blocks: at most so many a block, which takes a while by itself and a
// while for each transaction, and the votes a while more, beside the next block.
type shard struct {
	most      int           // transactions in a block
	interval  time.Duration // from a block to the next, at least
	each      time.Duration // work for one transaction
	votes     time.Duration
	stalled   func(at time.Duration) bool // no block begins
	offered   func(at time.Duration) int
	total     time.Duration
	dearEvery int // one in so many transactions pays the higher fee; 0: none
}

// second is what came in, or became final, in one second.
type second struct {
	offered, refused, dearRefused, final int
	waits                                []time.Duration // of those that came in then
	retry                                time.Duration   // the longest that a refusal said
}

func (s second) quantile(q float64) time.Duration {
	if len(s.waits) == 0 {
		return 0
	}
	slices.Sort(s.waits)
	return s.waits[min(int(q*float64(len(s.waits))), len(s.waits)-1)]
}

// run offers transactions of as many accounts. Nothing that was admitted is lost.
func (s shard) run(t *testing.T) (out []second, checked int) {
	synctest.Test(t, func(t *testing.T) {
		accounts := 0
		for at := time.Duration(0); at < s.total; at += time.Second {
			accounts += s.offered(at)
		}
		v := &checker{}
		l := &ledger{accounts: map[tx.ID]Account{}}
		for i := range uint32(accounts) {
			l.accounts[local(i)] = Account{Balance: 1e6}
		}
		opts := options()
		opts.MaxTxs, opts.MaxBytes = 200_000, 1<<30
		p, err := New(opts, l, v)
		if err != nil {
			t.Fatal(err)
		}
		began, next := time.Now(), uint32(0)
		out = make([]second, int(s.total/time.Second)+60)
		came := map[tx.ID]time.Duration{}
		var parent []tx.Hash // blocks that are not final
		busyUntil := time.Duration(0)
		type block struct {
			at     time.Duration
			name   tx.Hash
			height uint64
			txs    []tx.Signed
		}
		var open []block
		built := uint64(0)
		const step = 10 * time.Millisecond
		owed := 0.0
		for now := time.Duration(0); now < s.total || p.Len() > 0; now += step {
			if now > s.total+time.Minute {
				t.Fatalf("%d transactions are still there", p.Len())
			}
			sec := &out[min(int(now/time.Second), len(out)-1)]
			if now < s.total {
				owed += float64(s.offered(now)) * step.Seconds()
			}
			var call []tx.Signed
			for ; owed >= 1; owed-- {
				one := transfer(next, 0)
				one.To = local((next + 1) % uint32(accounts))
				if next++; s.dearEvery > 0 && int(next)%s.dearEvery == 0 {
					one.FeeClass = dear
				}
				call = append(call, one)
			}
			for i, err := range p.Submit(t.Context(), 1, call) {
				sec.offered++
				var r *Reject
				switch errors.As(err, &r); {
				case err == nil:
					came[call[i].From] = now
				case r.Code != PoolFull || r.RetryAfter < time.Second || r.RetryAfter > 10*time.Second:
					t.Fatalf("%+v", r)
				default:
					sec.refused++
					sec.retry = max(sec.retry, r.RetryAfter)
					if call[i].FeeClass == dear {
						sec.dearRefused++
					}
				}
			}
			for len(open) > 0 && open[0].at <= now {
				b := open[0]
				open, parent = open[1:], parent[1:]
				for i := range b.txs {
					a := l.get(b.txs[i].From)
					a.Nonce++
					l.set(b.txs[i].From, a)
					in := came[b.txs[i].From]
					first := &out[int(in/time.Second)]
					first.waits = append(first.waits, now-in)
					sec.final++
				}
				p.Finalised(b.name, b.height, b.txs)
			}
			if now >= busyUntil && (s.stalled == nil || !s.stalled(now)) && len(open) < 8 {
				built++
				b := block{name: tx.Hash{1, byte(built), byte(built >> 8)}, height: height, txs: p.Candidates(s.most, 1<<30, parent)}
				p.Included(b.name, ids(p, b.txs))
				busyUntil = now + max(s.interval, time.Duration(len(b.txs))*s.each)
				b.at = busyUntil + s.votes
				open, parent = append(open, b), append(parent, b.name)
			}
			time.Sleep(step)
		}
		admitted, final := 0, 0
		for _, sec := range out {
			admitted += sec.offered - sec.refused
			final += sec.final
		}
		if admitted != final || final != len(came) {
			t.Errorf("%d admitted, %d final", admitted, final)
		}
		if now := time.Since(began); now < s.total {
			t.Errorf("ended after %v", now)
		}
		check(t, p)
		checked = v.checked
	})
	return out, checked
}

func times(rate int, factor float64, from, to time.Duration) func(time.Duration) int {
	return func(at time.Duration) int {
		if at >= from && at < to {
			return int(factor * float64(rate))
		}
		return rate
	}
}

// sum adds up whole seconds from one on to before another.
func sum(seconds []second, from, to int) (all second) {
	for _, s := range seconds[from:to] {
		all.offered += s.offered
		all.refused += s.refused
		all.dearRefused += s.dearRefused
		all.final += s.final
		all.waits = append(all.waits, s.waits...)
	}
	return all
}

// logIfFailed shows what happened.
func logIfFailed(t *testing.T, seconds []second) {
	for i, s := range seconds {
		if t.Failed() && s.offered+s.final > 0 {
			t.Logf("%2d s: offered %6d refused %6d final %6d, waits p50 %v p99 %v", i, s.offered, s.refused, s.final, s.quantile(0.5), s.quantile(0.99))
		}
	}
}

// TestOverload offers three times what a shard holds, in the ways in which one can be full.
func TestOverload(t *testing.T) {
	const rate, from, settled, to, calm, end = 2700, 2, 5, 10, 13, 15 // seconds
	for _, c := range []struct {
		name  string
		shard shard
		wait  time.Duration // of an admitted one, p99, once the shard has settled
		slow  time.Duration // p99 without a queue
	}{
		{"work for each", shard{most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 3000, votes: 100 * time.Millisecond}, 1500 * time.Millisecond, time.Second},
		{"full blocks", shard{most: 600, interval: 200 * time.Millisecond, votes: 150 * time.Millisecond}, 1500 * time.Millisecond, time.Second},
		{"slow of itself", shard{most: 1500, interval: 500 * time.Millisecond, votes: 400 * time.Millisecond}, 2 * time.Second, 1500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.shard
			s.total, s.offered = end*time.Second, times(rate, 3, from*time.Second, to*time.Second)
			got, checked := s.run(t)
			defer logIfFailed(t, got)
			if n := sum(got, 0, from).refused; n > 0 {
				t.Errorf("%d refused before the overload", n)
			}
			if n := sum(got, from, to).final; n < rate*(to-from)*9/10 {
				t.Errorf("%d final in the overload, %d a second", n, n/(to-from))
			}
			if over := sum(got, settled, to); over.quantile(0.99) > c.wait || over.refused < over.offered/2 {
				t.Errorf("waits of %v in the overload, %d of %d refused", over.quantile(0.99), over.refused, over.offered)
			}
			if w := sum(got, from, to).quantile(1); w > 4*time.Second {
				t.Errorf("a wait of %v", w)
			}
			if after := sum(got, calm, end); after.quantile(0.99) > c.slow || after.refused > after.offered/10 {
				t.Errorf("waits of %v from the third second after the overload on, %d of %d refused", after.quantile(0.99), after.refused, after.offered)
			}
			if all := sum(got, 0, end); checked != all.offered-all.refused {
				t.Errorf("%d signatures checked of %d admitted and %d refused", checked, all.offered-all.refused, all.refused)
			}
		})
	}
}

// TestSteps: what a network with room can take is not refused, whatever was there before. A rate that was never seen comes up
// to speed within a second.
func TestSteps(t *testing.T) {
	wide := shard{most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 100_000, votes: 200 * time.Millisecond}
	for _, c := range []struct {
		name    string
		offered func(time.Duration) int
		stalled func(time.Duration) bool
		refused int // at most
	}{
		{"burst while idle", func(at time.Duration) int {
			if at/(10*time.Millisecond) == 300 {
				return 100 * burst
			}
			return 0
		}, nil, 0},
		{"step while idle", times(10, 1000, 2*time.Second, time.Minute), nil, 10_000},
		{"second step", func(at time.Duration) int {
			if at%(3*time.Second) < time.Second {
				return 8000
			}
			return 10
		}, nil, 4000},
		{"short standstill", times(8000, 1, 0, 0), func(at time.Duration) bool { return at > 2*time.Second && at < 3500*time.Millisecond }, 4000},
		{"long standstill", times(3000, 1, 0, 0), func(at time.Duration) bool { return at > 2*time.Second && at < 6*time.Second }, 2000},
		{"dead leader", times(3000, 1, 0, 0), func(at time.Duration) bool { return at%(2800*time.Millisecond) > 800*time.Millisecond }, 6000},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := wide
			s.total, s.offered, s.stalled = 7*time.Second, c.offered, c.stalled
			got, _ := s.run(t)
			defer logIfFailed(t, got)
			if n := sum(got, 0, len(got)).refused; n > c.refused {
				t.Errorf("%d refused", n)
			}
		})
	}
}

// TestDearGoesFirst: where too many wait, a higher fee still finds room, and throws nobody out.
func TestDearGoesFirst(t *testing.T) {
	s := shard{most: 600, interval: 200 * time.Millisecond, votes: 150 * time.Millisecond, dearEvery: 20}
	s.total, s.offered = 6*time.Second, times(2700, 3, time.Second, 6*time.Second)
	got, _ := s.run(t)
	defer logIfFailed(t, got)
	if all := sum(got, 1, 6); all.dearRefused > 0 || all.refused < all.offered/3 {
		t.Errorf("%d of %d refused, %d of them at the higher fee", all.refused, all.offered, all.dearRefused)
	}
}

// TestPlacesAreKept: of a call only what finds room has its signature checked, and calls at the same time count.
func TestPlacesAreKept(t *testing.T) {
	p, l, v := newPool(t, func(o *Options) { o.MaxTxs, o.MaxBytes = 1<<20, 1<<30 })
	var txs []tx.Signed
	for i := range uint32(3 * burst) {
		l.set(local(100+i), Account{Balance: 1e6})
		one := transfer(0, 0)
		one.From = local(100 + i)
		txs = append(txs, one)
	}
	during := 0
	v.during = func() {
		v.during = nil
		during = pooledOf(p.Submit(t.Context(), 2, txs[2*burst:]))
		if err := p.Forwarded(t.Context(), 3, txs[2*burst:2*burst+1])[0]; err != nil {
			t.Errorf("another validator's: %v", err)
		}
	}
	first := pooledOf(p.Submit(t.Context(), 1, txs[:burst+burst/2]))
	if first != burst || during != 0 || v.checked != burst+1 {
		t.Errorf("%d pooled, %d meanwhile, %d signatures checked", first, during, v.checked)
	}
	if p.checking[cheap] != 0 || p.waiting[cheap] != burst+1 {
		t.Errorf("%d in work, %d waiting", p.checking, p.waiting)
	}
	again := with(txs[0], func(s *tx.Signed) { s.FeeClass = dear })
	if err := p.Submit(t.Context(), 1, []tx.Signed{again})[0]; err != nil {
		t.Errorf("one that replaces another: %v", err)
	}
	if p.waiting[cheap] != burst || p.waiting[dear] != 1 {
		t.Errorf("%d waiting after a replacement", p.waiting)
	}
}

// TestShut: once the gate is found shut, the rest of a call is refused unread, but for what waits already or may replace what does.
func TestShut(t *testing.T) {
	p, l, v := newPool(t, func(o *Options) { o.MaxTxs, o.MaxBytes = 1<<20, 1<<30 })
	var txs []tx.Signed
	for i := range uint32(burst + 3 + 20*stretch) {
		l.set(local(100+i), Account{Balance: 1e6})
		one := transfer(0, 0)
		one.From = local(100 + i)
		txs = append(txs, one)
	}
	if n := pooledOf(p.Submit(t.Context(), 1, txs[:burst])); n != burst {
		t.Fatalf("%d pooled", n)
	}
	reads, checked := l.reads.Load(), v.checked
	late := txs[burst:]
	replaces := with(txs[1], func(s *tx.Signed) { s.FeeClass = dear })
	unknown := with(late[2], func(s *tx.Signed) { s.FeeClass = 99 })
	got := p.Submit(t.Context(), 1, append([]tx.Signed{late[0], late[1], txs[0], replaces, unknown}, late[2:]...))
	for i, want := range append([]Code{PoolFull, PoolFull, Duplicate, "", UnknownFeeClass}, slices.Repeat([]Code{PoolFull}, len(late)-2)...) {
		if r := (*Reject)(nil); errors.As(got[i], &r) && r.Code != want || r == nil && want != "" {
			t.Errorf("%d: %v, want %q", i, got[i], want)
		} else if want == PoolFull && r.RetryAfter == 0 {
			t.Errorf("%d: %v does not say when to come again", i, r)
		}
	}
	// Payers and receivers of the first stretch, and the payer of the one that replaces again when its signature is checked.
	if l.reads.Load()-reads > 2*stretch+1 || v.checked-checked != 1 {
		t.Errorf("%d accounts were read, %d signatures checked", l.reads.Load()-reads, v.checked-checked)
	}
	if n := p.Counters().Rejected[PoolFull]; n != uint64(len(late)) {
		t.Errorf("%d refusals are counted", n)
	}
}

// TestGapsDoNotCount: what no block can take yet is in nobody's way.
func TestGapsDoNotCount(t *testing.T) {
	p, _, _ := newPool(t, nil)
	mustAdd(t, p, transfer(0, 1), transfer(0, 2), transfer(1, 0), transfer(1, 2))
	if p.waiting[cheap] != 1 {
		t.Errorf("%d count", p.waiting)
	}
	mustAdd(t, p, transfer(0, 0))
	if p.waiting[cheap] != 4 {
		t.Errorf("%d count", p.waiting)
	}
	check(t, p)
}

func pooledOf(errs []error) (n int) {
	for _, err := range errs {
		if err == nil {
			n++
		}
	}
	return n
}
