package node

import (
	"testing"
	"testing/synctest"
	"time"

	"tutti/accel/distill"
	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/state/pool"
	"tutti/state/tx"
)

// TestPaceWithWrongClocks: a leader waits for the block interval, or the heartbeat where there is nothing to do, and never
// longer, whatever its parent says of the time: else one leader whose clock is ahead costs those after it their views.
func TestPaceWithWrongClocks(t *testing.T) {
	p := pace{interval: 200 * time.Millisecond, heartbeat: time.Second}
	waiting, err := pool.New(pool.Options{
		ShardOf: func(tx.ID) (uint16, bool) { return 0, true }, Fees: []uint64{1}, MaxTxs: 10, MaxBytes: 1 << 20, MaxPerAccount: 1,
		MaxAhead: 10, Client: pool.Quota{PerSecond: 1, Burst: 1, Held: 1}, Peer: pool.Quota{PerSecond: 1, Burst: 1, Held: 1}, ResendAfter: time.Second,

		Possession: func([48]byte, []byte, [96]byte) bool { return false },
	}, struct{ pool.State }{}, struct{ pool.Verifier }{})
	if err != nil {
		t.Fatal(err)
	}
	quota := pool.Quota{PerSecond: 1, Burst: 1, Held: 1}
	batches, err := pool.NewBatches(pool.BatchOptions{
		MaxCount: 1, MaxSize: 1, MaxTransfers: 1, MaxBytes: 1, MaxAhead: 1, Client: quota, Peer: quota, ResendAfter: 1,
		Check: func(*distill.Batch) ([]tx.Hash, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		parent time.Duration // its time, after the moment at which the leader begins to wait
		idle   bool
		want   time.Duration
	}{
		{"now", 0, false, p.interval},
		{"half an interval ago", -p.interval / 2, false, p.interval / 2},
		{"long ago", -time.Hour, false, 0},
		{"in an hour", time.Hour, false, p.interval},
		{"in many years", 100 * 365 * 24 * time.Hour, false, p.interval},
		{"idle, now", 0, true, p.heartbeat},
		{"idle, in an hour", time.Hour, true, p.heartbeat},
		{"idle, long ago", -time.Hour, true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			parent := &consensus.Header{TimeMs: began.Add(c.parent).UnixMilli()}
			if !c.idle {
				parent.Body.Length = emptyBody + 1
			}
			a := &application{pace: p, pool: waiting, batches: batches, cross: &crossLinks{}, history: &history{}}
			if err := a.Await(t.Context(), engine.BuildRequest{Parent: parent}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != c.want {
				t.Errorf("parent %s: the leader proposes after %s, expected %s", c.name, took, c.want)
			}
		})
	}
}
