package load

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tutti/appliance/client"
	"tutti/appliance/proof"
	"tutti/bench/openloop"
	"tutti/bench/replay"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// checkOutcome holds an outcome against what always holds: due are how many were due in the measurement and in each stretch after it.
func checkOutcome(t *testing.T, out *Outcome, due ...uint64) {
	t.Helper()
	if len(due) != 1+len(out.Then) {
		t.Fatalf("%d stretches after the measurement", len(out.Then))
	}
	finalised, lost, expired := uint64(0), uint64(0), uint64(0)
	for i, o := range append([]*Outcome{out}, out.Then...) {
		if o.Missing() != 0 || o.Due != due[i] {
			t.Errorf("%d due, want %d; %d of them in no count: %+v", o.Due, due[i], o.Missing(), o.Tally)
		}
		if n := uint64(o.Latency.TotalCount()); n != o.Finalised {
			t.Errorf("%d latencies of %d finalised transactions", n, o.Finalised)
		}
		finalised, lost, expired = finalised+o.Finalised, lost+o.Lost, expired+o.Expired
	}
	if out.Evidence == nil {
		t.Fatalf("no evidence: %v", out.NoEvidence)
	}
	settled, missed := uint64(0), uint64(0)
	for _, shard := range out.Evidence.Shards {
		for _, b := range shard.Blocks {
			settled += b.Settled.Sum()
		}
	}
	for _, slots := range out.Evidence.Missed {
		missed += slots.Sum()
	}
	p := &out.Evidence.Phase
	length := p.WarmUp
	for _, t := range p.Stretches {
		length += t.Duration
	}
	all := p.Schedule().DueBy(length - 1)
	if settled+missed != all || settled < finalised || out.Evidence.Missed[replay.Lost].Sum() < lost || out.Evidence.Missed[replay.Expired].Sum() < expired {
		t.Errorf("the evidence has %d settled and %d not of %d due: %+v", settled, missed, all, out.Tally)
	}
}

// check holds an outcome and the session against what always holds.
func check(t *testing.T, s *Session, out *Outcome, due ...uint64) {
	t.Helper()
	checkOutcome(t, out, due...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != 0 || len(s.flights) != 0 {
		t.Errorf("%d under way, %d in the books after the end", s.live, len(s.flights))
	}
	total := int64(0)
	for _, d := range s.delta {
		total += d
	}
	if total != -int64(s.totals.Settled*s.opt.Fee) {
		t.Errorf("all accounts together changed by %d; %d fees were paid", total, s.totals.Settled)
	}
}

func TestRun(t *testing.T) {
	for _, w := range []workload.Options{
		{Seed: 1, CrossShard: 0.3, Invalid: 0.1},
		{Seed: 2, CrossShard: 0.3, Kind: workload.Zipf, Window: 32, Accounts: 40},
	} {
		t.Run(string(w.Kind), func(t *testing.T) {
			y := newToy(t, 2, 2, 200, nil)
			s := open(t, y.options(w))
			called := make(chan string, 2)
			const rate, warm, length = 150, 210 * time.Millisecond, time.Second // in the warm-up 31.5 are due
			o, err := s.Run(t.Context(), Phase{
				Rate: rate, WarmUp: warm, Duration: length, Drain: 20 * time.Second,
				Begin: func() { called <- "begin" }, End: func() { called <- "end" },
			})
			if err != nil {
				t.Fatal(err)
			}
			check(t, s, o, rate)
			if a, b := <-called, <-called; a != "begin" || b != "end" {
				t.Errorf("called %s, %s", a, b)
			}
			wrong := o.Rejected["wrong_signature"]
			if o.Finalised+wrong != rate || (w.Invalid > 0) != (wrong > 0) || o.RejectedSum() != wrong {
				t.Errorf("%+v", o.Tally)
			}
			y.mu.Lock()
			defer y.mu.Unlock()
			if n := uint64(len(y.executed)); n != s.totals.Settled {
				t.Errorf("the network executed %d, the client saw %d settle", n, s.totals.Settled)
			}
			if o.TPS() < 0 || o.TPS() > 2*rate || o.End.At-o.Begin.At < length/2 || o.End.Shards[1].Blocks == 0 {
				t.Errorf("%.1f tx/s between %+v and %+v", o.TPS(), o.Begin, o.End)
			}
		})
	}
}

// TestThen: after the measurement comes three times the rate, of which the node refuses a part that nobody sends again, and then
// the first rate. Each stretch has its own counts, and a nonce that was refused is used by the next transfer.
func TestThen(t *testing.T) {
	y := newToy(t, 1, 1, 1500, nil) // enough for all that is ever under way, however slow the machine
	opt := y.options(workload.Options{Seed: 3})
	opt.ReadRate = 0.001 // no nonce can be read again
	s := open(t, opt)
	const rate = 100
	full := func() {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.nodes[0][0].full = 2 * rate
	}
	o, err := s.Run(t.Context(), Phase{
		Rate: rate, Duration: time.Second, Drain: 20 * time.Second,
		End:  full,
		Then: []Stretch{{Rate: 3 * rate, Duration: time.Second, GiveUp: true, Invalid: 0.1}, {Rate: rate, Duration: time.Second}},
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, o, rate, 3*rate, rate)
	over, after := o.Then[0], o.Then[1]
	wrong := over.Rejected["wrong_signature"]
	if over.Rejected["pool_full"] == 0 || wrong == 0 || over.Retried["pool_full"] > 0 {
		t.Errorf("overload: %+v", over.Tally)
	}
	y.mu.Lock()
	back := 0
	for _, n := range y.offered {
		if n > 1 {
			back++
		}
	}
	y.mu.Unlock()
	if back == 0 && over.Unsent == 0 {
		t.Error("nobody came back with the same bytes")
	}
	if o.Finalised+after.Finalised != 2*rate || len(after.Rejected) > 0 {
		t.Errorf("before and after: %+v, %+v", o.Tally, after.Tally)
	}
	if len(over.Seconds) != 1 || over.Seconds[0].Due != 3*rate-wrong || over.Seconds[0].InTime > over.Finalised || after.Seconds[0].Due != rate {
		t.Errorf("by second: %+v, %+v", over.Seconds, after.Seconds)
	}
	if gap := over.Begin.At - o.End.At; gap < -100*time.Millisecond || gap > 100*time.Millisecond || over.End.At-over.Begin.At < 900*time.Millisecond {
		t.Errorf("from %s to %s, after %s", over.Begin.At, over.End.At, o.End.At)
	}
	if n := s.Totals().Refused; n < over.RejectedSum() {
		t.Errorf("%d refusals", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unread) > 0 {
		t.Errorf("%d nonces are unknown", len(s.unread))
	}
}

// TestTimely: what is given up is not sent when it is late, and its nonce is drawn again; all else is sent however late.
func TestTimely(t *testing.T) {
	y := newToy(t, 1, 1, 100, nil)
	s := open(t, y.options(workload.Options{Seed: 4}))
	s.mu.Lock()
	defer s.mu.Unlock()
	draw := func(giveUp bool, due time.Duration, attempts int) *flight {
		tally := newTally()
		tally.giveUp, tally.Due = giveUp, 1
		tr, ok := s.gen.Next()
		if !ok {
			t.Fatal("no payer")
		}
		s.live++
		s.totals.Submitted++
		return &flight{t: tr, tally: tally, due: due, attempts: attempts}
	}
	now := s.now()
	late, patient, again, fresh := draw(true, now-2*sendWithin, 0), draw(false, now-2*sendWithin, 0), draw(true, now-2*sendWithin, 1), draw(true, now, 0)
	if got := s.timely([]*flight{late, patient, again, fresh}); len(got) != 3 || got[0] != patient || got[1] != again || got[2] != fresh {
		t.Errorf("%d are sent", len(got))
	}
	if !late.gone || late.tally.Unsent != 1 || late.tally.Missing() != 0 || s.live != 3 || s.totals.Submitted != 3 || !s.gen.Again(late.t) {
		t.Errorf("late: %+v", late.tally)
	}
}

// TestNodeDies: a node dies with what it had accepted. Its clients send the same bytes elsewhere, and everything
// executes, once.
func TestNodeDies(t *testing.T) {
	y := newToy(t, 1, 3, 200, nil)
	opt := y.options(workload.Options{Seed: 3})
	opt.ResendAfter = 200 * time.Millisecond
	s := open(t, opt)
	const rate = 100
	o, err := s.Run(t.Context(), Phase{Rate: rate, WarmUp: 300 * time.Millisecond, Duration: time.Second, Drain: 30 * time.Second, Begin: y.nodes[0][1].crash})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, o, rate)
	if o.Finalised != rate || sum(o.Retried) == 0 {
		t.Errorf("%d of %d finalised, sent again %v", o.Finalised, rate, o.Retried)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for id, n := range y.executed {
		if n != 1 {
			t.Errorf("%s executed %d times", id, n)
		}
	}
}

// TestLostAndExpired: what the network accepts and forgets is lost, unless it has expired.
func TestLostAndExpired(t *testing.T) {
	for name, c := range map[string]struct {
		expiry        uint32
		lost, expired bool
	}{"lost": {100_000, true, false}, "expired": {10, false, true}} {
		t.Run(name, func(t *testing.T) {
			y := newToy(t, 1, 1, 200, func(t *tx.Signed) bool { return t.Amount == 7 })
			opt := y.options(workload.Options{Seed: 4})
			opt.ExpiryBlocks = c.expiry
			s := open(t, opt)
			drain := 20 * time.Second
			if c.lost {
				drain = 500 * time.Millisecond
			}
			o, err := s.Run(t.Context(), Phase{Rate: 200, Duration: 500 * time.Millisecond, Drain: drain})
			if err != nil {
				t.Fatal(err)
			}
			check(t, s, o, 100)
			if (o.Lost > 0) != c.lost || (o.Expired > 0) != c.expired || o.Finalised < 50 {
				t.Errorf("%+v", o.Tally)
			}
		})
	}
}

// TestNoFreePayer: what cannot be sent is counted.
func TestNoFreePayer(t *testing.T) {
	y := newToy(t, 1, 1, 4, func(*tx.Signed) bool { return true })
	s := open(t, y.options(workload.Options{Seed: 5}))
	o, err := s.Run(t.Context(), Phase{Rate: 200, Duration: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, o, 100)
	if o.Unsent != 96 || o.Submitted() != 4 || o.Lost+o.RejectedSum() != 4 {
		t.Errorf("4 accounts, one transfer each: %+v", o.Tally)
	}
}

// TestNonces: a session that takes over accounts reads their nonces and keys first.
func TestNonces(t *testing.T) {
	y := newToy(t, 1, 1, 20, nil)
	y.mu.Lock()
	for i := range uint32(20) {
		y.nonces[y.crowd.ID(i)] = 100 + i
	}
	y.mu.Unlock()
	opt := y.options(workload.Options{Seed: 6})
	opt.Fresh = false
	s := open(t, opt)
	if err := s.Known(t.Context()); err != nil {
		t.Fatal(err)
	}
	o, err := s.Run(t.Context(), Phase{Rate: 100, Duration: 500 * time.Millisecond, Drain: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, o, 50)
	if o.Finalised+o.Unsent != 50 || o.Finalised < 20 || s.Totals().Foreign != 1 {
		t.Errorf("%+v, %d foreign", o.Tally, s.Totals().Foreign)
	}
	if n := y.nonces[y.crowd.ID(0)]; n != 100 {
		t.Errorf("somebody else's account paid %d times", n-100)
	}
}

// TestUntilStopped: a load without an end goes on until its context ends, and that is no error.
func TestUntilStopped(t *testing.T) {
	y := newToy(t, 1, 1, 100, nil)
	s := open(t, y.options(workload.Options{Seed: 7}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for s.Totals().Settled < 20 && openloop.Wait(ctx, toyBlock) {
		}
		cancel()
	}()
	if o, err := s.Run(ctx, Phase{Rate: 100}); err != nil || o.Finalised < 20 {
		t.Errorf("%+v, %v", o, err)
	}
	snap := s.Snapshot()
	if snap.Settled < 20 || snap.Latency.TotalCount() < 20 || len(s.Sample()[0]) == 0 {
		t.Errorf("%+v", snap)
	}
	if next := s.Snapshot(); next.Latency.TotalCount() > snap.Latency.TotalCount() {
		t.Error("an interval was not begun anew")
	}
}

// TestAllNodesGone: a session that can no longer see a shard says so.
func TestAllNodesGone(t *testing.T) {
	y := newToy(t, 1, 1, 10, nil)
	opt := y.options(workload.Options{})
	opt.Patience = 300 * time.Millisecond
	s := open(t, opt)
	y.nodes[0][0].crash()
	if _, err := s.Run(t.Context(), Phase{Rate: 10, Duration: time.Minute}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// bookkeeper is a session without a network, in a bubble of synthetic time.
func bookkeeper(t *testing.T, w workload.Options) *Session {
	t.Helper()
	gen, err := workload.New(w)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{
		books: newBooks(t.Context(), w.Shards, w.Accounts, 1), opt: Options{Workload: w}.filled(), gen: gen, flights: map[tx.Hash]*flight{},
		last: make([]uint8, w.Accounts), turn: make([]uint64, w.Shards),
	}
	for range w.Shards {
		var row []*lane
		for i := range uint8(2) {
			row = append(row, &lane{s: s, index: i, wake: make(chan struct{}, 1)})
		}
		s.lanes = append(s.lanes, row)
	}
	for i := range uint32(w.Accounts) {
		gen.Ready(i, 0)
	}
	return s
}

// TestStuckNode: when all calls to a node hang, what waits for it goes to another one.
func TestStuckNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bookkeeper(t, workload.Options{Kind: workload.Uniform, Shards: 1, Accounts: 10})
		tally := newTally()
		hung, other := s.lanes[0][0], s.lanes[0][1]
		hung.calls = laneWorkers
		hung.taken = s.now()
		hung.push(&flight{tally: tally})
		time.Sleep(stuckAfter - time.Millisecond)
		if s.unblock(hung, 0, s.now()); len(hung.queue) != 1 {
			t.Error("taken away too early")
		}
		time.Sleep(time.Millisecond)
		if s.unblock(hung, 0, s.now()); len(hung.queue) != 0 || len(other.queue) != 1 || tally.Retried[stuckNode] != 1 {
			t.Errorf("%d wait for the hung node, %d for the other", len(hung.queue), len(other.queue))
		}
		if l := s.pick(0); l != other {
			t.Error("the hung node is chosen again at once")
		}
		other.calls, other.taken = laneWorkers, s.now()-stuckAfter
		if s.unblock(other, 0, s.now()); len(other.queue) != 1 {
			t.Error("moved from one hung node to another")
		}
	})
}

// TestBackoff: each further attempt waits longer, and an accepted transaction is sent again ever more rarely.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bookkeeper(t, workload.Options{Kind: workload.Uniform, Shards: 1, Accounts: 10})
		f := &flight{tally: newTally(), id: tx.Hash{1}}
		for attempt, want := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second, time.Second} {
			f.attempts = attempt + 1
			if s.retry(f, "busy", s.now(), 0); f.again-s.now() != want {
				t.Errorf("attempt %d waits %s, want %s", attempt+1, f.again-s.now(), want)
			}
		}
		s.retries = nil
		s.flights[f.id] = f
		f.attempts, f.accepted, f.sent, f.signed.Expiry = 1, true, s.now(), 100
		sent := 0
		for range 70 {
			time.Sleep(time.Second)
			s.scan(s.now())
			for _, l := range s.lanes[0] {
				sent += len(l.queue)
				f.attempts += len(l.queue)
				l.queue = nil
			}
		}
		if sent != 3 { // after more than 5, 10 and 20 seconds, with a look each second
			t.Errorf("sent again %d times in 70 s", sent)
		}
		s.lanes[0][f.lane].gone, f.sent = s.now(), s.now()
		time.Sleep(downFor)
		if s.scan(s.now()); len(s.lanes[0][0].queue)+len(s.lanes[0][1].queue) != 0 {
			t.Error("sent again less than a second after the look before")
		}
		f.sent -= time.Millisecond
		if s.scan(s.now()); len(s.lanes[0][0].queue)+len(s.lanes[0][1].queue) != 1 {
			t.Error("not sent again although its node is gone")
		}
	})
}

// TestContradiction: a credit that is final but not the one the transfer asked for ends the session.
func TestContradiction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bookkeeper(t, workload.Options{Kind: workload.Uniform, Shards: 2, Accounts: 10, CrossShard: 1})
		for i := range s.totals.Shards {
			s.totals.Shards[i].Blocks = 1 // begun
		}
		f := &flight{tally: newTally(), id: tx.Hash{1}, dest: 1, signed: tx.Signed{Tx: tx.Tx{From: 1, To: 2, Amount: 3}}}
		s.flights[f.id] = f
		for _, amount := range []uint64{4, 3} {
			e := client.Event{Header: &consensus.Header{Shard: 1, Height: 5}}
			e.Contents = contents(e.Header, tx.Receipt{From: 1, To: 2, Amount: amount, Tx: f.id})
			if err := s.block(e); errors.Is(err, errContradiction) != (amount == 4) {
				t.Errorf("credit of %d for a transfer of 3: %v", amount, err)
			}
		}
		if !f.credited || f.gone {
			t.Error("the credit alone settles nothing, and must not be forgotten")
		}
	})
}

// contents is a verified block with one credited receipt from shard 0.
func contents(h *consensus.Header, r tx.Receipt) *proof.Contents {
	return &proof.Contents{
		Block: &proof.Block{}, Header: h, Body: &tx.Body{},
		Consumed: []proof.Consumed{{Source: 0, Receipt: r, Outcome: tx.Credited}},
	}
}

// TestNoncesOfBatches: after a phase of which nothing became final, the next batches begin with the nonces that the nodes tell.
func TestNoncesOfBatches(t *testing.T) {
	y := newToy(t, 1, 1, 20, nil)
	opt := y.options(workload.Options{})
	m, err := workload.NewBatcher(t.Context(), y.crowd, workload.BatchOptions{Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenBatches(t.Context(), BatchOptions{Target: opt.Target, Makers: []*workload.Batcher{m}, Most: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o, err := s.Run(t.Context(), Phase{Rate: 100, Duration: 300 * time.Millisecond})
	if err != nil || o.RejectedSum()+o.Lost != 30 || o.Missing() != 0 {
		t.Fatalf("%+v, %v", o, err)
	}
	y.mu.Lock()
	for i := range uint32(20) {
		y.nonces[y.crowd.ID(i)] = 100 + i
	}
	y.mu.Unlock()
	if err := s.Known(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := m.Make(20, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range b.From {
		if got := binary.BigEndian.Uint32(b.Body(i)[20:]); got != 100+from {
			t.Errorf("account %d: nonce %d", from, got)
		}
	}
	if len(s.unsure) > 0 {
		t.Errorf("%d accounts are unsure", len(s.unsure))
	}
}
