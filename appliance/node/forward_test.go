package node

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/accel/distill"
	"tutti/accel/distill/distilltest"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/netstack/simnet"
	"tutti/state/tx"
)

func committeeOf(t *testing.T, powers ...consensus.Power) *consensus.Committee {
	t.Helper()
	var all []consensus.Validator
	for i, p := range powers {
		all = append(all, consensus.Validator{Key: consensus.PublicKey{byte(i), 1}, Node: [32]byte(nodeID(byte(i))), Power: p})
	}
	c, err := consensus.NewCommittee(0, 0, consensus.Hash{4}, all)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUpcomingLeaders(t *testing.T) {
	for name, c := range map[string]struct {
		powers []consensus.Power
		self   int
		n      int
	}{
		"four equals":                   {[]consensus.Power{1, 1, 1, 1}, 2, forwardLeaders},
		"alone":                         {[]consensus.Power{1}, 0, 0},
		"two":                           {[]consensus.Power{1, 1}, 0, 1},
		"one that has nearly all":       {[]consensus.Power{1000, 1, 1, 1}, 1, 1},
		"an observer":                   {[]consensus.Power{1, 1, 1, 1}, -1, forwardLeaders},
		"one that has nearly all, self": {[]consensus.Power{1_000_000, 1, 1, 1}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			committee := committeeOf(t, c.powers...)
			for view := consensus.View(1); view < 50; view++ {
				got := upcomingLeaders(committee, c.self, view, forwardLeaders)
				if len(got) != c.n {
					t.Fatalf("view %d: %d leaders, want %d", view, len(got), c.n)
				}
				seen, last := map[netstack.NodeID]bool{}, consensus.View(0)
				for _, id := range got {
					if seen[id] || c.self >= 0 && id == nodeID(byte(c.self)) {
						t.Fatalf("view %d: %s twice, or this node itself", view, id.Short())
					}
					seen[id] = true
					v := view
					for committee.Leader(v) != int(id[0]) {
						v++
					}
					if v < last {
						t.Fatalf("view %d: not the soonest first", view)
					}
					last = v
				}
			}
		})
	}
}

func transfers(n int) []tx.Signed {
	out := make([]tx.Signed, n)
	for i := range out {
		out[i] = tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: 1, To: 2, Amount: 1, Nonce: uint32(i)}}
	}
	return out
}

// arrived counts the transactions that a node has been sent, and the largest batch in bytes.
func arrived(t *testing.T, n *simnet.Node) (txs, largest int) {
	t.Helper()
	for {
		select {
		case m := <-n.Receive(netstack.ClassTransaction):
			got, err := tx.DecodeMany(m.Payload, maxForwarded)
			if err != nil {
				t.Fatal(err)
			}
			txs += len(got)
			largest = max(largest, len(m.Payload))
		default:
			return txs, largest
		}
	}
}

func TestForwarder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simnet.New(simnet.Config{})
		defer sim.Close()
		self, a, b := sim.Join(nodeID(1)), sim.Join(nodeID(2)), sim.Join(nodeID(3))
		var again atomic.Pointer[[]tx.Signed]
		var batchAgain atomic.Pointer[distill.Batch]
		f := newForwarder(self, func(n int) []netstack.NodeID {
			if n != forwardLeaders {
				t.Errorf("asked for %d leaders", n)
			}
			return []netstack.NodeID{nodeID(2), nodeID(3), nodeID(9)} // the last one is nobody: the others get theirs
		}, func(_ time.Time, max int) []tx.Signed {
			if max != resendBatch {
				t.Errorf("asked for %d to send again", max)
			}
			if txs := again.Load(); txs != nil {
				return *txs
			}
			return nil
		}, func(_ time.Time, max int) []*distill.Batch {
			if max != resendBatchesBytes {
				t.Errorf("asked for %d bytes of batches to send again", max)
			}
			if b := batchAgain.Load(); b != nil {
				return []*distill.Batch{b}
			}
			return nil
		})
		// What does not fit is not waited for.
		f.add(transfers(forwardQueue + 10))
		if len(f.queue) != forwardQueue {
			t.Fatalf("%d are queued, limit %d", len(f.queue), forwardQueue)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { f.run(ctx); close(done) }()
		time.Sleep(forwardEvery + time.Millisecond)
		for _, n := range []*simnet.Node{a, b} {
			txs, largest := arrived(t, n)
			if txs != forwardQueue || largest >= forwardBatch+tx.MaxTxBytes || largest > netstack.MaxTransactionBytes {
				t.Errorf("%d transactions came, the largest batch has %d bytes", txs, largest)
			}
		}
		// One is sent within the next beat, and nothing while there is nothing.
		f.add(transfers(1))
		time.Sleep(forwardEvery)
		synctest.Wait()
		if txs, _ := arrived(t, a); txs != 1 {
			t.Errorf("%d came, sent one", txs)
		}
		three := transfers(3)
		again.Store(&three)
		time.Sleep(resendEvery)
		synctest.Wait()
		if txs, _ := arrived(t, b); txs != 4 {
			t.Errorf("%d came, one sent and three again", txs)
		}
		arrived(t, a)
		arrived(t, b)
		// A batch goes at once, in one message, and what does not fit is not waited for.
		again.Store(nil)
		batch := transfersInBatch(t, 5)
		f.addBatch(batch)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		for _, n := range []*simnet.Node{a, b} {
			m := <-n.Receive(netstack.ClassTransaction)
			if got, ok := bytes.CutPrefix(m.Payload, []byte{batchMark}); !ok || !bytes.Equal(got, batch.Append(nil)) {
				t.Errorf("%x came", m.Payload)
			}
		}
		batchAgain.Store(batch)
		time.Sleep(resendEvery)
		synctest.Wait()
		if m := <-a.Receive(netstack.ClassTransaction); len(m.Payload) != 1+batch.Bytes() {
			t.Errorf("%d bytes of a batch came again", len(m.Payload))
		}
		cancel()
		<-done
		for range forwardBatches + 5 {
			f.addBatch(batch)
		}
		if len(f.batches) != forwardBatches {
			t.Errorf("%d batches are queued, limit %d", len(f.batches), forwardBatches)
		}
	})
}

// transfersInBatch is a well-formed batch that nobody signed.
func transfersInBatch(t *testing.T, n int) *distill.Batch {
	t.Helper()
	bodies := make([][distill.BodyBytes]byte, n)
	for i := range bodies {
		one := tx.Tx{Kind: tx.Transfer, From: tx.ID(i), To: 100, Amount: 1, Expiry: 1000}
		bodies[i] = [distill.BodyBytes]byte(one.AppendBody(nil)[1:])
	}
	batch, err := distilltest.Unsigned(1, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	return batch
}
