package pool

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tutti/accel/distill"
	"tutti/accel/distill/distilltest"
	"tutti/state/tx"
)

// someBatch is a well-formed batch of n transfers with an expiry; salt tells it from others.
func someBatch(t testing.TB, salt byte, n int, expiry uint32) *distill.Batch {
	t.Helper()
	txs := make([]tx.Tx, n)
	for i := range txs {
		txs[i] = tx.Tx{Kind: tx.Transfer, From: tx.ID(i), Expiry: expiry}
	}
	return batchOf(t, salt, txs...)
}

func batchOf(t testing.TB, salt byte, txs ...tx.Tx) *distill.Batch {
	t.Helper()
	bodies := make([][distill.BodyBytes]byte, len(txs))
	for i := range txs {
		bodies[i] = [distill.BodyBytes]byte(txs[i].AppendBody(nil)[1:])
	}
	batch, err := distilltest.Unsigned(salt, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func newBatches(t testing.TB) (*Batches, *error) {
	t.Helper()
	wrong := new(error)
	s, err := NewBatches(BatchOptions{
		Height: 10, MaxCount: 60, MaxSize: 1 << 12, MaxTransfers: 100, MaxBytes: 1 << 20, MaxAhead: 50, ResendAfter: time.Second,
		Client: Quota{PerSecond: 2 * batchWeight, Burst: 3 * batchWeight, Held: 60}, Peer: Quota{PerSecond: batchWeight, Burst: 2 * batchWeight, Held: 10},
		Check: func(b *distill.Batch) ([]tx.Hash, error) { return []tx.Hash{{byte(b.Root()[0]), 7}}, *wrong },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, wrong
}

func codeOf(err error) Code {
	var r *Reject
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// TestBatchesRefuse: each reason to refuse a batch, and that it is counted.
func TestBatchesRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, wrong := newBatches(t)
		submit := func(source uint64, b *distill.Batch, want Code) {
			t.Helper()
			if err := s.Submit(source, b); codeOf(err) != want || (err == nil) != (want == "") {
				t.Errorf("%v, want %q", err, want)
			}
		}
		submit(1, someBatch(t, 1, 40, 20), "")
		submit(2, someBatch(t, 1, 40, 20), Duplicate)
		submit(1, someBatch(t, 2, 21, 20), AccountLimit)
		submit(1, someBatch(t, 2, 20, 10), Expired)
		submit(1, someBatch(t, 2, 20, 61), ExpiresTooFar)
		submit(1, someBatch(t, 2, 61, 20), TooLarge)
		if err := s.Forwarded(1, someBatch(t, 2, 11, 20)); codeOf(err) != AccountLimit {
			t.Error(err)
		}
		*wrong = errors.New("a share is wrong")
		submit(3, someBatch(t, 3, 30, 20), WrongBatch)
		*wrong = nil
		submit(4, someBatch(t, 4, 60, 20), "")
		submit(5, someBatch(t, 5, 1, 20), PoolFull)
		s.Finalised(tx.Hash{1}, 11, []*distill.Batch{someBatch(t, 4, 60, 20)})
		submit(1, someBatch(t, 4, 60, 20), Duplicate) // it is final
		submit(4, someBatch(t, 6, 60, 20), "")
		s.Drop(someBatch(t, 6, 60, 20))
		submit(4, someBatch(t, 7, 60, 20), RateLimited) // a third in no time
		time.Sleep(time.Second)
		*wrong = errors.New("a share is wrong") // which takes a second
		submit(4, someBatch(t, 7, 60, 20), WrongBatch)
		*wrong = nil
		submit(4, someBatch(t, 7, 60, 20), RateLimited)
		time.Sleep(time.Second)
		submit(4, someBatch(t, 7, 60, 20), "")
		c := s.Counters()
		if c.Batches != 2 || c.Transfers != 100 || c.Added != 4 || c.Used != 1 || c.Dropped != 1 || len(c.Rejected) != 8 || c.Rejected[RateLimited] != 2 {
			t.Errorf("%+v", c)
		}
		s.Finalised(tx.Hash{2}, 20, nil)
		if c := s.Counters(); c.Batches != 0 || c.Transfers != 0 || c.Bytes != 0 || c.Expired != 2 {
			t.Errorf("%+v", c)
		}
	})
	if _, err := NewBatches(BatchOptions{}); err == nil {
		t.Error("limits of zero were taken")
	}
}

// TestBatchesOffer: oldest first, within a block's room, and never what an ancestor has.
func TestBatchesOffer(t *testing.T) {
	s, _ := newBatches(t)
	var all []*distill.Batch
	for i := range byte(5) {
		b := someBatch(t, i, 10+int(i), 20)
		all = append(all, b)
		if err := s.Submit(uint64(i), b); err != nil {
			t.Fatal(err)
		}
	}
	offered := func(maxTxs int, ancestors ...tx.Hash) (out []int) {
		for _, b := range s.Offer(maxTxs, 1<<20, ancestors) {
			out = append(out, b.Count())
		}
		return out
	}
	check := func(got []int, want ...int) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	}
	check(offered(1000), 10, 11, 12, 13, 14)
	check(offered(24), 10, 11)
	check(offered(25), 10, 11)
	check(offered(13), 10)
	s.Included(tx.Hash{1}, all[:2])
	s.Included(tx.Hash{2}, all[2:3])
	check(offered(1000, tx.Hash{1}), 12, 13, 14)
	check(offered(1000, tx.Hash{2}, tx.Hash{1}), 13, 14)
	check(offered(1000), 10, 11, 12, 13, 14)
	s.Abandoned(tx.Hash{1})
	check(offered(1000, tx.Hash{1}, tx.Hash{2}), 10, 11, 13, 14)
	s.Finalised(tx.Hash{2}, 11, all[2:3])
	check(offered(1000, tx.Hash{2}), 10, 11, 13, 14)
	if len(s.Offer(1000, all[0].Bytes()+2, nil)) != 1 || !s.Waits(nil) {
		t.Error("bytes are not heeded")
	}
}

// TestBatchesSkipped: what a block left out is offered again after the next final one, but not for ever; what is wrong leaves
// at once.
func TestBatchesSkipped(t *testing.T) {
	s, _ := newBatches(t)
	early, wrong := someBatch(t, 1, 10, 60), someBatch(t, 2, 10, 60)
	for i, b := range []*distill.Batch{early, wrong} {
		if err := s.Submit(uint64(i), b); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Has(tx.Hash{1, 7}) || s.Has(tx.Hash{3, 7}) {
		t.Error("the transfers held are others")
	}
	s.Drop(wrong)
	for n := range maxSkipped {
		if got := s.Offer(100, 1<<20, nil); len(got) != 1 || got[0] != early {
			t.Fatalf("time %d: %d offered", n, len(got))
		}
		s.Skipped(early)
		if s.Waits(nil) {
			t.Fatal("offered again in the same state")
		}
		s.Finalised(tx.Hash{byte(n)}, uint64(11+n), nil)
	}
	if c := s.Counters(); c.Batches != 0 || c.Dropped != 2 || s.Has(tx.Hash{1, 7}) {
		t.Errorf("%+v", c)
	}
	s.Skipped(early) // gone: nothing happens
}

// TestBatchesResend: own batches are given out again, ever less often, within a size, and not while a block has them.
func TestBatchesResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newBatches(t)
		a, b := someBatch(t, 1, 10, 60), someBatch(t, 2, 10, 60)
		for i, batch := range []*distill.Batch{a, b} {
			if err := s.Submit(uint64(i), batch); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Forwarded(9, someBatch(t, 3, 10, 60)); err != nil {
			t.Fatal(err)
		}
		resent := func(maxBytes int) int { return len(s.Resend(time.Now(), maxBytes)) }
		if n := resent(1 << 20); n != 0 {
			t.Errorf("%d at once", n)
		}
		time.Sleep(time.Second)
		if n := resent(a.Bytes()); n != 1 {
			t.Errorf("%d in the room of one", n)
		}
		s.Included(tx.Hash{1}, []*distill.Batch{b})
		if n := resent(1 << 20); n != 0 {
			t.Errorf("%d although a block has it", n)
		}
		s.Abandoned(tx.Hash{1})
		if n := resent(1 << 20); n != 1 {
			t.Errorf("%d of the one left", n)
		}
		for _, wait := range []time.Duration{2, 4, 8, 16, 16} {
			time.Sleep(wait*time.Second - time.Millisecond)
			if n := resent(1 << 20); n != 0 {
				t.Errorf("%d before %d s", n, wait)
			}
			time.Sleep(time.Millisecond)
			if n := resent(1 << 20); n != 2 {
				t.Errorf("%d after %d s", n, wait)
			}
		}
		if c := s.Counters(); c.Resent != 12 {
			t.Errorf("%+v", c)
		}
	})
}

// TestBatchesForgetThePast: what was final lately is bounded.
func TestBatchesForgetThePast(t *testing.T) {
	s, _ := newBatches(t)
	for i := range maxPast + 10 {
		s.Finalised(tx.Hash{}, 11, []*distill.Batch{someBatch(t, byte(i), 1+i/256, 60)})
		s.Finalised(tx.Hash{}, 11, []*distill.Batch{someBatch(t, byte(i), 1+i/256, 60)})
	}
	if len(s.past) != maxPast || len(s.order) != maxPast {
		t.Errorf("%d and %d", len(s.past), len(s.order))
	}
}
