package client_test

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"tutti/accel/distill"
	"tutti/accel/distill/distilltest"
	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/proof/prooftest"
	"tutti/state/pool"
)

// TestSubmitBatch: a batch goes to a node of its senders' shard, to another one when the first has no room, and a refusal for
// good is the answer.
func TestSubmitBatch(t *testing.T) {
	n := prooftest.New(t, "batches", 2)
	full, other, foreign := serve(t, n, 1, nil), serve(t, n, 1, nil), serve(t, n, 0, nil)
	var body [distill.BodyBytes]byte
	binary.BigEndian.PutUint64(body[:], uint64(n.Account(1, 3))<<16)
	b, err := distilltest.Unsigned(1, body)
	if err != nil {
		t.Fatal(err)
	}
	var seen atomic.Int32
	var verdict atomic.Pointer[pool.Reject]
	full.JudgeBatch = func(*distill.Batch) error { return &pool.Reject{Code: pool.PoolFull} }
	other.JudgeBatch = func(got *distill.Batch) error {
		seen.Add(1)
		if got.Digest() != b.Digest() {
			t.Error("another batch came")
		}
		if r := verdict.Load(); r != nil {
			return r
		}
		return nil
	}
	foreign.JudgeBatch = func(*distill.Batch) error { t.Error("sent to the wrong shard"); return nil }
	c := connect(t, n, full.url, foreign.url, other.url)
	for _, code := range []pool.Code{"", pool.Duplicate, pool.WrongBatch} {
		verdict.Store(&pool.Reject{Code: code})
		if code == "" {
			verdict.Store(nil)
		}
		before := seen.Load()
		err := c.SubmitBatch(t.Context(), b)
		if want := code == pool.WrongBatch; errors.Is(err, &api.Error{Code: api.WrongBatch}) != want || !want && err != nil || seen.Load() != before+1 {
			t.Errorf("%q: %v", code, err)
		}
	}
	blind, err := client.New(client.Options{URLs: []string{full.url}})
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	if err := blind.SubmitBatch(t.Context(), b); !errors.Is(err, client.ErrNoTrust) {
		t.Error(err)
	}
}
