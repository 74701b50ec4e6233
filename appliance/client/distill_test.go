package client_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"tutti/accel/bls"
	"tutti/accel/distill"
	tuttied25519 "tutti/accel/ed25519"
	"tutti/appliance/api"
	"tutti/appliance/broker"
	"tutti/appliance/client"
	"tutti/appliance/proof/prooftest"
	"tutti/state/tx"
)

// wallet is an account with a BLS key and its next transfer.
type wallet struct {
	bls *bls.SecretKey
	pay tx.Signed
}

// newWallet makes an account of shard 0 that a node knows.
func newWallet(t *testing.T, n *prooftest.Network, at *node) *wallet {
	t.Helper()
	seed := sha256.Sum256([]byte("wallet"))
	secret, err := bls.NewSecretKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	public, err := bls.ParsePublicKey(secret.Public())
	if err != nil {
		t.Fatal(err)
	}
	ed := tuttied25519.NewPrivateKey(seed)
	w := &wallet{bls: secret, pay: n.Transfer(n.Account(0, 1), n.Account(0, 2), 5, 3)}
	w.pay.Signature = ed.Sign(w.pay.Message(tx.Hash(n.Genesis)))
	at.SetSigner(w.pay.From, api.Signer{Known: true, Nonce: 3, Balance: 1000, Key: ed.Public(), BLS: &public})
	at.SetSigner(w.pay.To, api.Signer{Known: true})
	return w
}

// startBroker runs a broker at a node until the test ends or stop is called.
func startBroker(t *testing.T, n *prooftest.Network, nodes broker.Nodes, change func(*broker.Options)) (address string, stop func()) {
	t.Helper()
	opt := broker.Options{
		Chain: distill.Chain(n.Genesis), Shards: 1, ShardOf: n.ShardOf, Fees: []uint64{1}, MaxExpiry: 1 << 31, MaxCount: 100, Nodes: nodes,
		Key: ed25519.NewKeyFromSeed(make([]byte, 32)), Window: 20 * time.Millisecond, Patience: 5 * time.Second, Least: 1, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&opt)
	}
	s, err := broker.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, at); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return fmt.Sprintf("%x@%s", opt.Key.Public(), at.LocalAddr()), stop
}

// forgetful is a broker's view of nodes that drops every batch.
type forgetful struct{ broker.Nodes }

func (forgetful) SubmitBatch(context.Context, *distill.Batch) error { return nil }

// blocking is a broker's view of nodes that never answer.
type blocking struct {
	broker.Nodes
	reached chan struct{}
}

func (b blocking) SubmitBatch(ctx context.Context, _ *distill.Batch) error {
	close(b.reached)
	<-ctx.Done()
	return ctx.Err()
}

// TestDistill: through an honest broker, which a node tells of, a transfer becomes final in a batch; through one that is dead, silent,
// killed in the middle or never gives the batch to a node it becomes final all the same, with its own signature.
func TestDistill(t *testing.T) {
	for name, tc := range map[string]struct {
		bad     func(t *testing.T, n *prooftest.Network, nodes broker.Nodes) string // address of a broker before the good one
		good    bool                                                                // there is a good one
		batched bool                                                                // a node gets a batch
		taken   bool                                                                // a broker says that it is on its way
	}{
		"honest": {good: true, batched: true, taken: true},
		"none":   {},
		"dead": {bad: func(t *testing.T, _ *prooftest.Network, _ broker.Nodes) string {
			l, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			return l.LocalAddr().String()
		}},
		"silent": {bad: func(t *testing.T, n *prooftest.Network, nodes broker.Nodes) string {
			at, _ := startBroker(t, n, nodes, func(o *broker.Options) { o.Window = 10 * time.Second })
			return at
		}},
		"never submits": {taken: true, bad: func(t *testing.T, n *prooftest.Network, nodes broker.Nodes) string {
			at, _ := startBroker(t, n, forgetful{nodes}, nil)
			return at
		}},
		"killed": {bad: func(t *testing.T, n *prooftest.Network, nodes broker.Nodes) string {
			b := blocking{nodes, make(chan struct{})}
			at, stop := startBroker(t, n, b, nil)
			go func() { <-b.reached; stop() }()
			return at
		}},
		"replaced": {good: true, batched: true, taken: true, bad: func(t *testing.T, n *prooftest.Network, nodes broker.Nodes) string {
			at, stop := startBroker(t, n, nodes, nil)
			stop()
			return at
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := prooftest.New(t, "distill", 1)
			var told []string
			behind := serve(t, n, 0, nil) // what brokers talk to
			w := newWallet(t, n, behind)
			nodes := connect(t, n, behind.url)
			if tc.bad != nil {
				told = append(told, tc.bad(t, n, nodes))
			}
			if tc.good {
				at, _ := startBroker(t, n, nodes, nil)
				told = append(told, at)
			}
			front := serve(t, n, 0, func(o *api.Options) { o.Params.Brokers = told })
			n.Add(0, []tx.Signed{w.pay}, nil)
			blocks := n.Finalise(0)
			var batched, single atomic.Bool
			behind.JudgeBatch = func(b *distill.Batch) error {
				if b.Count() != 1 || b.Stragglers() != 0 {
					t.Errorf("%d transfers, %d stragglers", b.Count(), b.Stragglers())
				}
				if !batched.Swap(true) {
					front.Append(blocks...)
				}
				return nil
			}
			front.Judge = func(s tx.Signed) error {
				if s != w.pay {
					t.Error("another transfer was sent")
				}
				if !single.Swap(true) {
					front.Append(blocks...)
				}
				return nil
			}
			c := connect(t, n, front.url)
			c.Hurry(1500*time.Millisecond, 300*time.Millisecond)
			if tc.batched {
				c.Hurry(5*time.Second, 20*time.Second)
			}
			err := c.Distill(t.Context(), &w.pay, w.bls)
			if (err == nil) != tc.taken {
				t.Errorf("distill: %v", err)
			}
			if err != nil {
				if name == "none" && !errors.Is(err, client.ErrNoBroker) {
					t.Error(err)
				}
				if err := c.Submit(t.Context(), []tx.Signed{w.pay})[0]; err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := c.Await(t.Context(), &w.pay); err != nil {
				t.Fatal(err)
			}
			if batched.Load() != tc.batched || single.Load() == tc.batched {
				t.Errorf("in a batch: %v, on its own: %v", batched.Load(), single.Load())
			}
		})
	}
}

// TestDistillRefused: a refusal for good is not tried at another broker.
func TestDistillRefused(t *testing.T) {
	n := prooftest.New(t, "distill", 1)
	at := serve(t, n, 0, nil)
	w := newWallet(t, n, at)
	at.SetSigner(w.pay.From, api.Signer{Known: true, Nonce: 3, Balance: 1000})
	address, _ := startBroker(t, n, connect(t, n, at.url), nil)
	c, err := client.New(client.Options{URLs: []string{at.url}, Trust: n.Trust, Brokers: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Hurry(10*time.Second, time.Second)
	if err := c.Distill(t.Context(), &w.pay, w.bls); err == nil || errors.Is(err, client.ErrNoBroker) {
		t.Errorf("an account without a BLS key: %v", err)
	}
	if _, err := client.New(client.Options{URLs: []string{at.url}, Brokers: []string{"nonsense"}}); err == nil {
		t.Error("nonsense is a broker's address")
	}
}
