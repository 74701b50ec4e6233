package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tutti/accel/ed25519"
	"tutti/state/tx"
	"tutti/state/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a State that tests write.
type ledger struct {
	mu       sync.RWMutex
	accounts map[tx.ID]Account
	reads    atomic.Int64
}

func (l *ledger) Accounts(ids []tx.ID, found []Account) {
	l.reads.Add(int64(len(ids)))
	l.mu.RLock()
	defer l.mu.RUnlock()
	for i, id := range ids {
		a, ok := l.accounts[id]
		a.Exists = ok
		found[i] = a
	}
}

func (l *ledger) get(id tx.ID) Account {
	var a [1]Account
	l.Accounts([]tx.ID{id}, a[:])
	return a[0]
}

func (l *ledger) set(id tx.ID, a Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accounts[id] = a
}

// checker is a Verifier to whom a signature is good if its first byte is not 0xbd.
// accept is a Verifier to whom every signature is good.
type accept struct{}

func (accept) Check(_ context.Context, _ uint64, _ []tx.Signed, _ [][32]byte, _ []uint16, ok []bool) error {
	for i := range ok {
		ok[i] = true
	}
	return nil
}

type checker struct {
	err     error
	checked int
	during  func() // called while signatures are checked
}

func (c *checker) Check(_ context.Context, _ uint64, txs []tx.Signed, keys [][32]byte, generations []uint16, ok []bool) error {
	c.checked += len(txs)
	for i := range txs {
		ok[i] = txs[i].Signature[0] != 0xbd
	}
	if c.during != nil {
		c.during()
	}
	return c.err
}

const (
	cheap, dear = 0, 1 // fee classes
	height      = 100
)

func options() Options {
	quota := Quota{PerSecond: 1e6, Burst: 1e6, Held: 1e6}
	return Options{
		Genesis: tx.Hash{1}, Shard: 1, Fees: []uint64{10, 20}, OpenDeposit: 1000, Height: height,
		ShardOf:    func(id tx.ID) (uint16, bool) { return id.Partition(), id.Partition() < 3 }, // partition is shard
		Possession: func(_ [48]byte, _ []byte, proof [96]byte) bool { return proof[0] == 1 },
		MaxTxs:     1000, MaxBytes: 1 << 20, MaxPerAccount: 100, MaxAhead: 500,
		Client: quota, Peer: quota, ResendAfter: time.Second,
	}
}

// local is account i of the pool's shard.
func local(i uint32) tx.ID { return tx.MakeID(1, i) }

// fataler is what testing.T and rapid.T have in common here.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// newPool makes a pool over 50 local accounts with 1,000,000 units each.
func newPool(t fataler, edit func(*Options)) (*Pool, *ledger, *checker) {
	opts := options()
	if edit != nil {
		edit(&opts)
	}
	l := &ledger{accounts: map[tx.ID]Account{}}
	for i := range uint32(50) {
		l.accounts[local(i)] = Account{Key: [32]byte{byte(i)}, Balance: 1e6}
	}
	c := &checker{}
	p, err := New(opts, l, c)
	if err != nil {
		t.Fatal(err)
	}
	return p, l, c
}

func transfer(from uint32, nonce uint32) tx.Signed {
	return tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: local(from), To: local(49), Amount: 5, Nonce: nonce, Expiry: height + 100}}
}

func opening(from uint32, nonce uint32) tx.Signed {
	return tx.Signed{Tx: tx.Tx{Kind: tx.Open, From: local(from), Amount: 5, Nonce: nonce, Expiry: height + 100}}
}

func with(s tx.Signed, edit func(*tx.Signed)) tx.Signed {
	edit(&s)
	return s
}

func code(err error) Code {
	var r *Reject
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// mustAdd requires that everything is pooled.
func mustAdd(t testing.TB, p *Pool, txs ...tx.Signed) {
	t.Helper()
	for i, err := range p.Submit(t.Context(), 1, txs) {
		if err != nil {
			t.Fatalf("transaction %d: %v", i, err)
		}
	}
	check(t, p)
}

// payments is what tests say of candidates: payer's index and nonce.
func payments(txs []tx.Signed) (out [][2]uint32) {
	for i := range txs {
		out = append(out, [2]uint32{txs[i].From.Index(), txs[i].Nonce})
	}
	return out
}

func ids(p *Pool, txs []tx.Signed) (out []tx.Hash) {
	for i := range txs {
		out = append(out, txs[i].TxID(p.opts.Genesis))
	}
	return out
}

// check tests every invariant of the tables.
func check(t fataler, p *Pool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes, inHeaps, ready, held, n, waiting := 0, 0, 0, 0, 0, 0
	for id, e := range p.entries {
		if e.id != id || e.tx.TxID(p.opts.Genesis) != id || p.accounts[e.tx.From] != e.account || !slices.Contains(e.account.entries, e) {
			t.Fatalf("entry %v is not where it belongs", id)
		}
		bytes += e.bytes
	}
	for class, h := range p.classes {
		inHeaps += len(h)
		for i, e := range h {
			if e.at != i || int(e.tx.FeeClass) != class || i > 0 && h.Less(i, (i-1)/2) {
				t.Fatalf("heap of class %d is broken at %d", class, i)
			}
		}
	}
	for id, a := range p.accounts {
		var cost uint64
		for i, e := range a.entries {
			cost += e.cost
			n++
			if i > 0 && e.tx.Nonce <= a.entries[i-1].tx.Nonce || e.tx.Nonce < a.nonce {
				t.Fatalf("account %d: nonce %d at %d", id, e.tx.Nonce, i)
			}
		}
		for i, e := range a.entries {
			if e.tx.Nonce == a.nonce+uint32(i) {
				waiting++
			}
		}
		can := len(a.entries) > 0 && a.entries[0].tx.Nonce == a.nonce
		if a.cost != cost || len(a.entries) == 0 || can != (a.ready != nil) {
			t.Fatalf("account %d: cost %d of %d, %d entries, ready %v", id, a.cost, cost, len(a.entries), a.ready != nil)
		}
		if can {
			ready++
		}
	}
	for _, s := range p.sources.known {
		held += s.held
	}
	held += p.sources.otherClient.held + p.sources.otherPeer.held
	if bytes != p.bytes || inHeaps != len(p.entries) || n != len(p.entries) || held != len(p.entries) || ready != p.ready.Len() {
		t.Fatalf("%d entries: bytes %d of %d, heaps %d, accounts %d, sources %d, ready %d of %d",
			len(p.entries), p.bytes, bytes, inHeaps, n, held, p.ready.Len(), ready)
	}
	if waiting != p.waitingFrom(0) || slices.Max(p.checking) != 0 {
		t.Fatalf("%d waiting of %d, %d in work", p.waiting, waiting, p.checking)
	}
	if len(p.entries) > p.opts.MaxTxs || p.bytes > p.opts.MaxBytes {
		t.Fatalf("over the bounds: %d transactions, %d bytes", len(p.entries), p.bytes)
	}
}

func TestRejects(t *testing.T) {
	for _, c := range []struct {
		name string
		tx   tx.Signed
		want Code
		say  string
	}{
		{"kind", with(transfer(0, 0), func(s *tx.Signed) { s.Kind = 9 }), Malformed, "kind(9)"},
		{"key", with(transfer(0, 0), func(s *tx.Signed) { s.BLS = new(tx.BLSKey) }), Malformed, "transfer with a BLS key"},
		{"id over 48 bits", with(transfer(0, 0), func(s *tx.Signed) { s.To = 1 << 48 }), Malformed, "48 bits"},
		{"signature", with(transfer(0, 0), func(s *tx.Signed) { s.Signature[0] = 0xbd }), WrongSignature, local(0).String()},
		{"possession", with(opening(0, 0), func(s *tx.Signed) { s.BLS = new(tx.BLSKey) }), WrongPossession, "proof"},
		{"payer missing", transfer(77, 0), UnknownAccount, local(77).String()},
		{"payer nowhere", with(transfer(0, 0), func(s *tx.Signed) { s.From = tx.MakeID(9, 0) }), UnknownAccount, "no shard"},
		{"payer elsewhere", with(transfer(0, 0), func(s *tx.Signed) { s.From = tx.MakeID(2, 0) }), WrongShard, "shard 2, this is shard 1"},
		{"receiver missing", with(transfer(0, 0), func(s *tx.Signed) { s.To = local(77) }), UnknownReceiver, local(77).String()},
		{"receiver nowhere", with(transfer(0, 0), func(s *tx.Signed) { s.To = tx.MakeID(9, 0) }), UnknownReceiver, "no shard"},
		{"nonce used", transfer(1, 2), NonceTooLow, "next one of account " + local(1).String() + " is 3"},
		{"nonce far", transfer(1, 3+MaxGap+2), NonceGap, "beyond 3"},
		{"expired", with(transfer(0, 0), func(s *tx.Signed) { s.Expiry = height }), Expired, "final height 100"},
		{"expires too far", with(transfer(0, 0), func(s *tx.Signed) { s.Expiry = height + 501 }), ExpiresTooFar, "at most 500"},
		{"fee class", with(transfer(0, 0), func(s *tx.Signed) { s.FeeClass = 2 }), UnknownFeeClass, "has 2"},
		{"self", with(transfer(0, 0), func(s *tx.Signed) { s.To = s.From }), SelfTransfer, "both"},
		{"zero", with(transfer(0, 0), func(s *tx.Signed) { s.Amount = 0 }), ZeroAmount, "0"},
		{"funds", with(transfer(0, 0), func(s *tx.Signed) { s.Amount = 1e6 - 9 }), InsufficientFunds, "this needs 1000001"},
		{"funds for a deposit", with(opening(0, 0), func(s *tx.Signed) { s.Amount = 1e6 - 1009 }), InsufficientFunds, "this needs 1000001"},
		{"overflow", with(opening(0, 0), func(s *tx.Signed) { s.Amount = math.MaxUint64 - 20 }), InsufficientFunds, "any account"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, l, v := newPool(t, nil)
			l.set(local(1), Account{Balance: 1e6, Nonce: 3})
			err := p.Submit(t.Context(), 1, []tx.Signed{c.tx})[0]
			var r *Reject
			if !errors.As(err, &r) || r.Code != c.want || !strings.Contains(r.Detail, c.say) || r.Remedy != c.want.Remedy() || Pooled(err) {
				t.Fatalf("got %v, want %s with %q", err, c.want, c.say)
			}
			if paid := v.checked > 0; paid != (c.want == WrongSignature || c.want == WrongPossession) {
				t.Errorf("%d signatures checked", v.checked)
			}
			if n := p.Counters().Rejected[c.want]; n != 1 || p.Len() != 0 {
				t.Errorf("counted %d times, %d pooled", n, p.Len())
			}
		})
	}
}

func TestRemediesAreComplete(t *testing.T) {
	for _, c := range Codes() {
		if c != Busy && c.Remedy() == Busy.Remedy() {
			t.Errorf("%s has no remedy of its own", c)
		}
	}
}

func TestAccepts(t *testing.T) {
	p, _, _ := newPool(t, nil)
	bls := with(opening(2, 0), func(s *tx.Signed) { s.BLS = &tx.BLSKey{Possession: [96]byte{1}} })
	remote := with(transfer(3, 0), func(s *tx.Signed) { s.To = tx.MakeID(2, 4711) })
	exact := with(transfer(4, 0), func(s *tx.Signed) { s.Amount = 1e6 - 10 })
	last := with(transfer(5, 0), func(s *tx.Signed) { s.Expiry = height + 500 })
	mustAdd(t, p, transfer(0, 0), opening(1, 0), bls, remote, exact, last, transfer(6, MaxGap))
	if c := p.Counters(); c.Txs != 7 || c.Added != 7 || c.Bytes != 5*tx.TransferWire+(1+60+64)+tx.MaxTxBytes {
		t.Errorf("counters %+v", c)
	}
	again := transfer(0, 0)
	again.Signature[0] = 0xbd // the id does not cover the signature: nothing new to judge
	err := p.Forwarded(t.Context(), 1, []tx.Signed{again})[0]
	if code(err) != Duplicate || !Pooled(err) || !p.Has(again.TxID(p.opts.Genesis)) {
		t.Errorf("again: %v", err)
	}
}

// TestBatch submits what only makes sense together: a long run of nonces, and the same transaction twice.
func TestBatch(t *testing.T) {
	p, _, v := newPool(t, nil)
	var txs []tx.Signed
	for n := range uint32(100) {
		txs = append(txs, transfer(0, n))
	}
	txs = append(txs, transfer(0, 7), transfer(0, 100), transfer(1, 0))
	errs := p.Submit(t.Context(), 1, txs)
	for i, want := range map[int]Code{0: "", 99: "", 100: Duplicate, 101: AccountLimit, 102: ""} {
		if code(errs[i]) != want {
			t.Errorf("transaction %d: %v, want %q", i, errs[i], want)
		}
	}
	if v.checked != 103 || p.Len() != 101 {
		t.Errorf("%d checked, %d pooled", v.checked, p.Len())
	}
	check(t, p)
}

func TestReplace(t *testing.T) {
	p, l, _ := newPool(t, nil)
	l.set(local(0), Account{Balance: 60})
	first := with(transfer(0, 0), func(s *tx.Signed) { s.Amount = 40 })
	mustAdd(t, p, first)
	other := with(first, func(s *tx.Signed) { s.Amount = 39 })
	higher := with(first, func(s *tx.Signed) { s.FeeClass = dear })
	tooMuch := with(higher, func(s *tx.Signed) { s.Amount = 41 })
	p.Included(tx.Hash{9}, ids(p, []tx.Signed{first}))
	for _, c := range []struct {
		name string
		tx   tx.Signed
		want Code
	}{{"same fee", other, NonceTaken}, {"in a block", higher, NonceTaken}} {
		if err := p.Submit(t.Context(), 1, []tx.Signed{c.tx})[0]; code(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	p.Abandoned(tx.Hash{9})
	if err := p.Submit(t.Context(), 1, []tx.Signed{tooMuch})[0]; code(err) != InsufficientFunds {
		t.Errorf("over the balance: %v", err)
	}
	mustAdd(t, p, higher)
	if c := p.Candidates(9, 1<<20, nil); len(c) != 1 || c[0] != higher || p.Counters().Replaced != 1 {
		t.Errorf("candidates %v, %+v", c, p.Counters())
	}
}

// TestReplaceNeedsRoom: a longer replacement that does not fit leaves the first one alone.
func TestReplaceNeedsRoom(t *testing.T) {
	p, _, _ := newPool(t, func(o *Options) { o.MaxBytes = 2*tx.TransferWire + 5 })
	mustAdd(t, p, transfer(0, 0), transfer(1, 0))
	err := p.Submit(t.Context(), 1, []tx.Signed{with(opening(0, 0), func(s *tx.Signed) { s.FeeClass = dear })})[0]
	if code(err) != PoolFull || p.Len() != 2 {
		t.Fatalf("%v, %d pooled", err, p.Len())
	}
	check(t, p)
}

func TestEviction(t *testing.T) {
	late := func(s tx.Signed) tx.Signed { return with(s, func(s *tx.Signed) { s.Expiry += 50 }) }
	dearer := func(s tx.Signed) tx.Signed { return with(s, func(s *tx.Signed) { s.FeeClass = dear }) }
	for _, c := range []struct {
		name   string
		pooled []tx.Signed
		comes  tx.Signed
		want   Code
		gone   [2]uint32 // payer, nonce
	}{
		{"same fee", []tx.Signed{transfer(0, 0), transfer(1, 0)}, transfer(2, 0), PoolFull, [2]uint32{}},
		{"same fee, later expiry", []tx.Signed{transfer(0, 0), transfer(1, 0)}, late(transfer(2, 0)), PoolFull, [2]uint32{}},
		{"lowest fee goes", []tx.Signed{dearer(transfer(0, 0)), transfer(1, 0)}, dearer(transfer(2, 0)), "", [2]uint32{1, 0}},
		{"nearest expiry goes", []tx.Signed{late(transfer(0, 0)), transfer(1, 0)}, dearer(transfer(2, 0)), "", [2]uint32{1, 0}},
		{"newest goes", []tx.Signed{transfer(0, 0), transfer(1, 0)}, dearer(transfer(2, 0)), "", [2]uint32{1, 0}},
		{"no gap opens", []tx.Signed{transfer(0, 0), dearer(late(transfer(0, 1)))}, dearer(transfer(2, 0)), "", [2]uint32{0, 1}},
		{"own account", []tx.Signed{late(transfer(1, 0)), transfer(0, 0)}, dearer(transfer(0, 1)), PoolFull, [2]uint32{}},
		{"all dear", []tx.Signed{dearer(transfer(0, 0)), dearer(transfer(1, 0))}, dearer(transfer(2, 0)), PoolFull, [2]uint32{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _, v := newPool(t, func(o *Options) { o.MaxTxs = 2 })
			mustAdd(t, p, c.pooled...)
			v.checked = 0
			err := p.Submit(t.Context(), 1, []tx.Signed{c.comes})[0]
			if code(err) != c.want {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			check(t, p)
			if c.want != "" {
				if v.checked != 0 || p.Len() != 2 {
					t.Errorf("refused after %d signatures, %d pooled", v.checked, p.Len())
				}
				return
			}
			for _, s := range c.pooled {
				if gone := [2]uint32{s.From.Index(), s.Nonce} == c.gone; p.Has(s.TxID(p.opts.Genesis)) == gone {
					t.Errorf("payer %d nonce %d: gone %v", s.From.Index(), s.Nonce, !gone)
				}
			}
			if p.Counters().Evicted != 1 {
				t.Errorf("counters %+v", p.Counters())
			}
		})
	}
}

func TestFullOfBytes(t *testing.T) {
	p, _, _ := newPool(t, func(o *Options) { o.MaxBytes = 3 * tx.TransferWire })
	mustAdd(t, p, transfer(0, 0), transfer(1, 0), transfer(2, 0))
	if err := p.Submit(t.Context(), 1, []tx.Signed{transfer(3, 0)})[0]; code(err) != PoolFull {
		t.Fatal(err)
	}
	mustAdd(t, p, with(opening(3, 0), func(s *tx.Signed) { s.FeeClass = dear })) // takes the place of two
	if c := p.Counters(); c.Evicted != 2 || c.Txs != 2 {
		t.Errorf("counters %+v", c)
	}
}

// TestStateMovesDuringCheck: what was true before the signatures were checked is judged again after.
func TestStateMovesDuringCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		now  Account
		want Code
	}{
		{"nonce used", Account{Key: [32]byte{0}, Balance: 1e6, Nonce: 1}, NonceTooLow},
		{"money gone", Account{Key: [32]byte{0}, Balance: 3}, InsufficientFunds},
		{"key rotated", Account{Key: [32]byte{0xff}, Balance: 1e6}, WrongSignature},
		{"generation", Account{Key: [32]byte{0}, Balance: 1e6, Generation: 1}, WrongSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, l, v := newPool(t, nil)
			v.during = func() { l.set(local(0), c.now) }
			if err := p.Submit(t.Context(), 1, []tx.Signed{transfer(0, 0)})[0]; code(err) != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			check(t, p)
		})
	}
}

func TestVerifierFails(t *testing.T) {
	p, _, v := newPool(t, nil)
	v.err = errors.New("queue is full")
	if err := p.Submit(t.Context(), 1, []tx.Signed{transfer(0, 0)})[0]; code(err) != Busy || !strings.Contains(err.Error(), "queue is full") {
		t.Fatal(err)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, v := newPool(t, func(o *Options) {
			o.Client = Quota{PerSecond: 4, Burst: 3, Held: 5}
		})
		var txs []tx.Signed
		for i := range uint32(8) {
			txs = append(txs, transfer(i, 0))
		}
		count := func(errs []error) (n int) {
			for _, err := range errs {
				if err == nil {
					n++
				} else if code(err) != RateLimited {
					t.Fatal(err)
				}
			}
			return n
		}
		if n := count(p.Submit(t.Context(), 1, txs)); n != 3 || v.checked != 3 {
			t.Fatalf("burst of %d, %d checked", n, v.checked)
		}
		if n := count(p.Submit(t.Context(), 2, txs[7:])); n != 1 {
			t.Fatalf("another source is limited too")
		}
		time.Sleep(250 * time.Millisecond)
		if n := count(p.Submit(t.Context(), 1, txs[3:7])); n != 1 {
			t.Fatalf("%d after a quarter of a second", n)
		}
		time.Sleep(time.Minute)
		if n := count(p.Submit(t.Context(), 1, txs[4:7])); n != 1 {
			t.Fatalf("%d beyond the share of the pool", n)
		}
		time.Sleep(time.Minute)
		bls := with(opening(6, 0), func(s *tx.Signed) { s.BLS = &tx.BLSKey{Possession: [96]byte{1}} })
		if n := count(p.Submit(t.Context(), 3, []tx.Signed{bls, txs[5]})); n != 1 {
			t.Fatalf("an opening with a BLS key did not use the bucket up: %d", n)
		}
		check(t, p)
	})
}

// TestSourcesAreBounded: more sources than are known by name share one quota, until old ones can be forgotten.
func TestSourcesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := newPool(t, func(o *Options) {
			o.Client = Quota{PerSecond: 1, Burst: 1, Held: 100}
		})
		for i := range uint64(maxSources) {
			p.Submit(t.Context(), i, []tx.Signed{transfer(0, 0)})
		}
		for i, want := range []Code{Duplicate, RateLimited} {
			if err := p.Submit(t.Context(), 1e6+uint64(i), []tx.Signed{transfer(0, 0)})[0]; code(err) != want {
				t.Fatalf("source %d too many: %v", i+1, err)
			}
		}
		if n := len(p.sources.known); n != maxSources {
			t.Fatalf("%d sources", n)
		}
		time.Sleep(2 * time.Second)
		if err := p.Submit(t.Context(), 2e6, []tx.Signed{transfer(0, 0)})[0]; code(err) != Duplicate {
			t.Fatal(err)
		}
		if n := len(p.sources.known); n != 2 { // the one with an entry, and the new one
			t.Fatalf("%d sources after a pause", n)
		}
		check(t, p)
	})
}

func TestOptions(t *testing.T) {
	for name, edit := range map[string]func(*Options){
		"Fees": func(o *Options) { o.Fees = nil }, "MaxTxs": func(o *Options) { o.MaxTxs = 0 },
		"ShardOf": func(o *Options) { o.ShardOf = nil }, "Possession": func(o *Options) { o.Possession = nil },
		"Peer.Held": func(o *Options) { o.Peer.Held = -1 }, "ResendAfter": func(o *Options) { o.ResendAfter = 0 },
	} {
		o := options()
		edit(&o)
		if _, err := New(o, &ledger{}, &checker{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWithSignatures runs the pool over the product's verifier.
func TestWithSignatures(t *testing.T) {
	q, err := ed25519.NewQueue(ed25519.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	opts := options()
	v, err := verify.New(opts.Genesis, q, 100)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewPrivateKey([32]byte{5})
	l := &ledger{accounts: map[tx.ID]Account{local(0): {Key: key.Public(), Balance: 1e6}, local(49): {}}}
	p, err := New(opts, l, v)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := transfer(0, 0), transfer(0, 1)
	good.Signature = key.Sign(good.Message(opts.Genesis))
	bad.Signature = key.Sign(bad.Message(tx.Hash{0xff})) // another chain
	errs := p.Submit(t.Context(), 1, []tx.Signed{good, bad})
	if errs[0] != nil || code(errs[1]) != WrongSignature {
		t.Fatalf("%v", errs)
	}
}

// BenchmarkForwarded fills a pool by calls of 100 and offers it all; a client's calls would find the gate shut.
func BenchmarkForwarded(b *testing.B) {
	const n, size = 100_000, 100
	opts := options()
	opts.MaxTxs, opts.MaxBytes = n, n*tx.TransferWire
	opts.Peer = Quota{PerSecond: 1e9, Burst: 1e9, Held: 1e9}
	l := &ledger{accounts: map[tx.ID]Account{local(n): {}}}
	txs := make([]tx.Signed, n)
	for i := range txs {
		l.accounts[local(uint32(i))] = Account{Balance: 1e6}
		txs[i] = transfer(uint32(i), 0)
		txs[i].To = local(n)
	}
	var sum uint64
	for b.Loop() {
		p, err := New(opts, l, &checker{})
		if err != nil {
			b.Fatal(err)
		}
		for batch := range slices.Chunk(txs, size) {
			for _, err := range p.Forwarded(b.Context(), 1, batch) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		for _, c := range p.Candidates(n, math.MaxInt, nil) {
			sum += uint64(c.From)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/tx")
	b.Logf("sum %d", sum)
}

// BenchmarkLife is what a pool does for one transaction from arrival to finality, in blocks of 2,000 with two others
// in flight: pooled, offered, included, final.
func BenchmarkLife(b *testing.B) {
	const accounts, block = 10_000, 2_000
	opts := options()
	opts.MaxTxs, opts.MaxBytes, opts.MaxAhead = 1<<20, 1<<30, math.MaxInt32
	opts.Client = Quota{PerSecond: 1e9, Burst: 1e9, Held: 1e9}
	l := &ledger{accounts: map[tx.ID]Account{local(accounts): {}}}
	for i := range uint32(accounts) {
		l.accounts[local(i)] = Account{Balance: 1e18}
	}
	p, err := New(opts, l, &checker{})
	if err != nil {
		b.Fatal(err)
	}
	next := make([]uint32, accounts)
	at, total := 0, 0
	type flight struct {
		id  tx.Hash
		txs []tx.Signed
	}
	var flying []flight
	for h := uint64(1); b.Loop(); h++ {
		txs := make([]tx.Signed, block)
		for i := range txs {
			txs[i] = transfer(uint32(at), next[at])
			txs[i].To, txs[i].Expiry = local(accounts), math.MaxInt32
			next[at]++
			at = (at + 1) % accounts
		}
		p.Submit(b.Context(), 1, txs)
		var ancestors []tx.Hash
		for _, f := range flying {
			ancestors = append(ancestors, f.id)
		}
		f := flight{txs: p.Candidates(block, math.MaxInt, ancestors)}
		binary.BigEndian.PutUint64(f.id[:], h)
		p.Included(f.id, ids(p, f.txs))
		if flying = append(flying, f); len(flying) < 3 {
			continue
		}
		f, flying = flying[0], flying[1:]
		for i := range f.txs {
			a := l.accounts[f.txs[i].From]
			a.Nonce = f.txs[i].Nonce + 1
			l.accounts[f.txs[i].From] = a
		}
		p.Finalised(f.id, h, f.txs)
		total += len(f.txs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/block, "ns/tx")
	b.Logf("final %d, pooled %d", total, p.Len())
}
