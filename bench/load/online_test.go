package load

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"math"
	"net"
	"testing"
	"time"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/broker"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// toyNodes is the toy network as a broker sees it; it implements broker.Nodes. It is the keys of the crowd, too.
type toyNodes struct {
	*toy
	directory *bls.Directory
	keys      []*bls.PublicKey // by account
	lost      int              // transfers of the first batch, which is taken and never executed; toy.mu guards it
}

func newToyNodes(t *testing.T, y *toy) *toyNodes {
	t.Helper()
	n := &toyNodes{toy: y, directory: bls.NewDirectory(y.crowd.Len())}
	for i := range uint32(y.crowd.Len()) {
		enc := y.crowd.BLSKey(i).Public()
		key, err := bls.ParsePublicKey(enc)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.directory.AddTrusted(i, enc); err != nil {
			t.Fatal(err)
		}
		n.keys = append(n.keys, &key)
	}
	return n
}

// Slots implements distill.Keys.
func (n *toyNodes) Slots(senders []uint64, slots []uint32) int {
	for i, s := range senders {
		slots[i] = n.account[tx.ID(s)]
	}
	return len(senders)
}

// Ed25519 implements distill.Keys.
func (n *toyNodes) Ed25519(senders []uint64, keys [][32]byte) int {
	for i, s := range senders {
		keys[i] = n.crowd.PublicKey(n.account[tx.ID(s)])
	}
	return len(senders)
}

// Signers implements broker.Nodes.
func (n *toyNodes) Signers(_ context.Context, shard consensus.ShardID, ids []tx.ID) (*api.Signers, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := &api.Signers{Height: n.nodes[shard][0].FinalHeight()}
	for _, id := range ids {
		i := n.account[id]
		out.Accounts = append(out.Accounts, api.Signer{Known: true, Nonce: n.nonces[id], Balance: math.MaxUint32, Key: n.crowd.PublicKey(i), BLS: n.keys[i]})
	}
	return out, nil
}

// Submit implements broker.Nodes.
func (n *toyNodes) Submit(ctx context.Context, txs []tx.Signed) []error {
	out := make([]error, len(txs))
	for i := range txs {
		out[i] = n.nodes[n.net.ShardOf(txs[i].From)][0].Submit(ctx, 0, txs[i:i+1])[0]
	}
	return out
}

// SubmitBatch implements broker.Nodes.
func (n *toyNodes) SubmitBatch(_ context.Context, b *distill.Batch) error {
	if _, err := b.Verify(distill.Chain(n.crowd.Genesis()), n.directory, n); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == 0 {
		n.lost = b.Count()
		return nil
	}
	shard := n.net.ShardOf(tx.ID(distill.Sender(b.Body(0))))
	n.batches[shard] = append(n.batches[shard], b)
	return nil
}

// toyBroker starts a broker on a toy network and returns its address.
func toyBroker(t *testing.T, n *toyNodes) string {
	t.Helper()
	s, err := broker.New(broker.Options{
		Chain: distill.Chain(n.crowd.Genesis()), Shards: len(n.nodes), ShardOf: n.net.ShardOf, Fees: []uint64{1}, MaxExpiry: 20_000, MaxCount: 1000, Nodes: n,
		Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Patience: 8 * time.Second, Least: 2, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, at) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return at.LocalAddr().String()
}

// TestOnline: a broker distils what the crowd signs in the run. Its first batch gets lost; the transfers in it go to a node with
// their own signatures, and each is final once.
func TestOnline(t *testing.T) {
	y := newToy(t, 2, 1, 400, nil)
	n := newToyNodes(t, y)
	opt := y.options(workload.Options{Seed: 8})
	s, err := OpenOnline(t.Context(), OnlineOptions{
		Target: opt.Target, Broker: toyBroker(t, n), Workload: opt.Workload, ExpiryBlocks: opt.ExpiryBlocks, FallBack: 400 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const rate = 200
	o, err := s.Run(t.Context(), Phase{Rate: rate, WarmUp: 300 * time.Millisecond, Duration: time.Second, Drain: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	checkOutcome(t, o, rate)
	y.mu.Lock()
	defer y.mu.Unlock()
	for id, times := range y.executed {
		if times != 1 {
			t.Errorf("%s executed %d times", id, times)
		}
	}
	total := s.Totals()
	if n.lost == 0 || total.Settled != total.Submitted || uint64(len(y.executed)) != total.Settled {
		t.Errorf("%d lost with a batch; %d executed, the client saw %d of %d settle", n.lost, len(y.executed), total.Settled, total.Submitted)
	}
	if o.Finalised != rate || o.Distilled == 0 || o.Batched < o.Distilled || o.Batches == 0 || len(o.Rejected) > 0 {
		t.Errorf("%+v", o.Tally)
	}
}
