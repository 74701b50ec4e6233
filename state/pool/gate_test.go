package pool

import (
	"errors"
	"fmt"
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
					a, _ := l.Account(b.txs[i].From)
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

func show(t *testing.T, seconds []second) {
	for i, s := range seconds {
		if s.offered > 0 || s.final > 0 {
			t.Log(fmt.Sprintf("%2d s: offered %6d refused %6d final %6d; waits p50 %v p99 %v; retry %v", i, s.offered, s.refused, s.final, s.quantile(0.5), s.quantile(0.99), s.retry))
		}
	}
}

func times(rate int, factor float64, from, to time.Duration) func(time.Duration) int {
	return func(at time.Duration) int {
		if at >= from && at < to {
			return int(factor * float64(rate))
		}
		return rate
	}
}

func TestExplore(t *testing.T) {
	big := shard{most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 100_000, votes: 200 * time.Millisecond}
	for name, s := range map[string]shard{
		"step":  big,
		"stall": big,
		"dead":  big,
		"six":   {most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 3000, votes: 100 * time.Millisecond},
		"20000": {most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 20000, votes: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			s.total = 10 * time.Second
			switch name {
			case "step":
				s.total = 4 * time.Second
				s.offered = func(at time.Duration) int {
					if at < 2*time.Second {
						return 10
					}
					return 20000
				}
			case "stall":
				s.offered = times(5000, 1, 0, 0)
				s.stalled = func(at time.Duration) bool { return at > 3*time.Second && at < 7*time.Second }
			case "dead":
				s.offered = times(10000, 1, 0, 0)
				s.stalled = func(at time.Duration) bool { return at > 2*time.Second && at%(2800*time.Millisecond) < 2*time.Second }
			case "six":
				s.offered = times(2700, 6, 3*time.Second, 9*time.Second)
				s.total = 13 * time.Second
			case "20000":
				s.offered = times(18000, 3, 2*time.Second, 6*time.Second)
				s.total = 8 * time.Second
			}
			got, _ := s.run(t)
			show(t, got)
		})
	}
}

// TestOverload offers three times of what a shard can take, in the two ways in which one can be full.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name  string
		shard shard
		rate  int // of the shard
	}{
		{"work for each", shard{most: 30_000, interval: 200 * time.Millisecond, each: time.Second / 3000, votes: 100 * time.Millisecond}, 3000},
		{"full blocks", shard{most: 600, interval: 200 * time.Millisecond, votes: 150 * time.Millisecond}, 3000},
		{"far apart", shard{most: 1500, interval: 500 * time.Millisecond, votes: 400 * time.Millisecond}, 3000},
	} {
		t.Run(c.name, func(t *testing.T) {
			const from, to = 4, 16
			s := c.shard
			s.total = 26 * time.Second
			s.offered = times(c.rate*9/10, 3, from*time.Second, to*time.Second)
			got, checked := s.run(t)
			show(t, got)
			_ = checked
		})
	}
}
