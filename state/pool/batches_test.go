package pool

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tutti/accel/distill"
	"tutti/state/tx"
)

// someBatch is a well-formed batch of n transfers with an expiry; salt tells it from others.
func someBatch(t testing.TB, salt byte, n int, expiry uint32) *distill.Batch {
	t.Helper()
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(n))
	b = append(b, make([]byte, 32+96)...)
	b[5] = salt
	for i := range n {
		one := tx.Tx{Kind: tx.Transfer, From: tx.ID(i), Expiry: expiry}
		b = append(b, one.AppendBody(nil)[1:]...)
	}
	batch, err := distill.Decode(append(b, make([]byte, (n+7)/8)...))
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func newBatches(t testing.TB) (*Batches, *error) {
	t.Helper()
	wrong := new(error)
	s, err := NewBatches(BatchOptions{
		Height: 10, MaxTransfers: 100, MaxBytes: 1 << 20, MaxAhead: 50, Quota: Quota{PerSecond: 100, Burst: 120, Held: 60},
		Check: func(*distill.Batch) ([]tx.Hash, error) { return nil, *wrong },
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
		*wrong = errors.New("a share is wrong")
		submit(3, someBatch(t, 3, 30, 20), WrongBatch)
		*wrong = nil
		submit(4, someBatch(t, 4, 60, 20), "")
		submit(5, someBatch(t, 5, 1, 20), PoolFull)
		s.Finalised(tx.Hash{1}, 11, []*distill.Batch{someBatch(t, 4, 60, 20)})
		submit(4, someBatch(t, 6, 60, 20), "")
		s.Drop(someBatch(t, 6, 60, 20))
		submit(4, someBatch(t, 7, 60, 20), RateLimited)
		time.Sleep(time.Second)
		submit(4, someBatch(t, 7, 60, 20), "")
		c := s.Counters()
		if c.Batches != 2 || c.Transfers != 100 || c.Added != 4 || c.Used != 1 || c.Dropped != 1 || len(c.Rejected) != 7 {
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
	if len(s.Offer(1000, all[0].Bytes(), nil)) != 1 || !s.Waits(nil) {
		t.Error("bytes are not heeded")
	}
}
