package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"tutti/appliance/api"
	"tutti/appliance/api/apitest"
	"tutti/appliance/client"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a fake node behind the real API.
type node struct {
	*apitest.Backend
	server *api.Server
	url    string
	stop   func() // idempotent; waits
}

func serve(t *testing.T, n *prooftest.Network, shard consensus.ShardID, change func(*api.Options)) *node {
	t.Helper()
	b := apitest.New(n, shard)
	m, err := metrics.New(prometheus.NewRegistry(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	opt := api.Options{
		Log: slog.New(slog.DiscardHandler), Params: b.Params(), Genesis: []byte("genesis file"), Counters: &m.API,
		Rates: api.Rates{ClientRequests: 10_000, ClientTransactions: 1e6}, Heartbeat: 20 * time.Millisecond,
	}
	if change != nil {
		change(&opt)
	}
	s, err := api.New(b, opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	out := &node{b, s, "http://" + l.Addr().String(), func() { cancel(); <-done }}
	t.Cleanup(out.stop)
	return out
}

func connect(t *testing.T, n *prooftest.Network, urls ...string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URLs: urls, Trust: n.Trust, CallTimeout: callTimeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// nowhere is an address where nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return "http://" + l.Addr().String()
}

const callTimeout = 2 * time.Second

// hung is an address of a machine that takes connections and says nothing, and how many it took.
func hung(t *testing.T) (url string, taken *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken = new(atomic.Int32)
	done := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			conns = append(conns, c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, c := range conns {
			c.Close()
		}
	})
	return "http://" + l.Addr().String(), taken
}

// TestHungNode: a node that hangs costs one call its time limit, not every so many.
func TestHungNode(t *testing.T) {
	n := prooftest.New(t, "hung", 1)
	well := serve(t, n, 0, nil)
	url, taken := hung(t)
	c := connect(t, n, url, well.url)
	for range 4 {
		if _, err := c.Account(t.Context(), n.Account(0, 5)); err != nil {
			t.Error(err)
		}
		if _, err := c.Block(t.Context(), 0, 3); !errors.Is(err, &api.Error{Code: api.NotFinal}) { // other nodes may have it
			t.Errorf("got %v", err)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if taken.Load() != 1 {
		t.Errorf("it was asked %d times", taken.Load())
	}
	well.stop() // and it is all that is left
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrReach) {
		t.Errorf("got %v", err)
	}
	if taken.Load() < 2 {
		t.Error("it was not asked although nobody else answers")
	}
}

// TestFollowHungNode: what was missed is not fetched from a node that hangs, however long it takes.
func TestFollowHungNode(t *testing.T) {
	n := prooftest.New(t, "hung", 1)
	well := serve(t, n, 0, nil)
	blocks := grow(n, 6)
	well.Append(blocks[:2]...)
	url, taken := hung(t)
	c := connect(t, n, url, well.url)
	got, err := follow(t, c, client.FollowOptions{From: 1, Body: true}, 6, func(e client.Event) {
		if e.Header.Height == 2 {
			well.Append(blocks[2:]...) // they are fetched
			well.server.Publish(blocks[5])
		}
	})
	if err != nil || !slices.Equal(got, upTo(1, 6)) || taken.Load() != 1 {
		t.Errorf("%v, %v, the node that hangs was asked %d times", got, err, taken.Load())
	}
}

func TestNew(t *testing.T) {
	for _, urls := range [][]string{nil, {"127.0.0.1:9700"}, {"ftp://x"}, {"http://"}, {"http://a", "::"}} {
		if _, err := client.New(client.Options{URLs: urls}); err == nil {
			t.Errorf("%q is taken", urls)
		}
	}
}

func TestQueries(t *testing.T) {
	n := prooftest.New(t, "client", 2)
	one := serve(t, n, 1, nil)
	zero := serve(t, n, 0, nil)
	c := connect(t, n, nowhere(t), one.url+"/", zero.url)
	ctx := t.Context()
	if a, err := c.Account(ctx, n.Account(1, 5)); err != nil || a.Balance != 5 || a.Shard != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if s, err := c.Status(ctx); err != nil || s.Chain != "testnet" {
		t.Errorf("%+v, %v", s, err)
	}
	if p, err := c.Params(ctx); err != nil || p.Shards != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	if b, err := c.Genesis(ctx); err != nil || string(b) != "genesis file" {
		t.Errorf("%q, %v", b, err)
	}
	if s, err := c.Transaction(ctx, 0, tx.Hash{1}); err != nil || s.State != api.Unknown {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestNoTrust(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	at := serve(t, n, 0, nil)
	c, err := client.New(client.Options{URLs: []string{at.url}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	pay := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 0)
	_, _, proofErr := c.Proof(ctx, n.ID(pay))
	_, _, awaitErr := c.Await(ctx, &pay)
	_, blockErr := c.Block(ctx, 0, 1)
	_, _, accountErr := c.ProvenAccount(ctx, pay.From)
	for name, err := range map[string]error{
		"submit": c.Submit(ctx, []tx.Signed{pay})[0], "proof": proofErr, "await": awaitErr, "block": blockErr, "account": accountErr,
		"follow": c.Follow(ctx, client.FollowOptions{}, nil),
	} {
		if !errors.Is(err, client.ErrNoTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Status(ctx); err != nil {
		t.Errorf("a status needs no trust: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	n := prooftest.New(t, "client", 3)
	zero, two := serve(t, n, 0, nil), serve(t, n, 2, nil)
	zero.SetAPIs(api.NodeAPI{Shard: 0, URL: zero.url}, api.NodeAPI{Shard: 2, URL: two.url}, api.NodeAPI{Shard: 1, URL: "nonsense"})
	c := connect(t, n, zero.url)
	if a, err := c.Account(t.Context(), n.Account(2, 5)); err != nil || a.Shard != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := c.Account(t.Context(), n.Account(1, 5)); !errors.Is(err, client.ErrNoNode) {
		t.Errorf("a shard without a node: %v", err)
	}
}

func TestSubmitAcrossShards(t *testing.T) {
	n := prooftest.New(t, "client", 2)
	nodes := []*node{serve(t, n, 0, nil), serve(t, n, 1, nil)}
	nodes[1].Judge = func(s tx.Signed) error {
		if s.Nonce == 7 {
			return api.Refuse(api.InsufficientFunds, "balance 3")
		}
		return nil
	}
	var txs []tx.Signed
	for i := range 2*api.MaxTransactions + 10 { // more than a call for shard 0
		shard := consensus.ShardID(0)
		if i%4 == 3 {
			shard = 1
		}
		txs = append(txs, n.Transfer(n.Account(shard, 1), n.Account(shard, 2), 1, uint32(i)))
	}
	var want [2][]tx.Signed
	for i, err := range connect(t, n, nodes[0].url, nodes[1].url).Submit(t.Context(), txs) {
		if txs[i].Nonce == 7 {
			if !errors.Is(err, &api.Error{Code: api.InsufficientFunds}) || err.Error() != "insufficient_funds: balance 3" {
				t.Errorf("%d: %v", i, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		s := n.ShardOf(txs[i].From)
		want[s] = append(want[s], txs[i])
	}
	for s, node := range nodes {
		if got := node.Submitted(); !reflect.DeepEqual(got, want[s]) {
			t.Errorf("shard %d got %d transactions, want %d in order", s, len(got), len(want[s]))
		}
	}
}

func TestSubmitElsewhere(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	full, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	full.Judge = func(tx.Signed) error { return api.Refuse(api.PoolFull, "") }
	c := connect(t, n, full.url, good.url)
	for nonce := range uint32(4) { // whichever node is asked first
		pay := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, nonce)
		if err := c.Submit(t.Context(), []tx.Signed{pay})[0]; err != nil {
			t.Fatal(err)
		}
	}
	full.stop()
	pay := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 4)
	if err := c.Submit(t.Context(), []tx.Signed{pay, pay})[1]; err != nil {
		t.Errorf("with one node gone: %v", err)
	}
	if got := len(good.Submitted()); got != 6 {
		t.Errorf("the good node has %d transactions", got)
	}
	good.Judge = func(tx.Signed) error { return &api.Error{Code: api.PoolFull, RetryAfter: 10 * time.Millisecond} }
	if err := c.Submit(t.Context(), []tx.Signed{pay})[0]; err == nil {
		t.Error("no node took it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Submit(ctx, []tx.Signed{pay})[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
}

// TestSubmitWaits: a client that is refused for now comes back when the answer says, and not before.
func TestSubmitWaits(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	node := serve(t, n, 0, nil)
	const wait = 600 * time.Millisecond
	var first time.Time
	node.Judge = func(tx.Signed) error {
		if first.IsZero() {
			first = time.Now()
		}
		if time.Since(first) < wait {
			return &api.Error{Code: api.PoolFull, RetryAfter: wait}
		}
		return nil
	}
	c := connect(t, n, node.url)
	txs := []tx.Signed{n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 0), n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 1)}
	for i, err := range c.Submit(t.Context(), txs) { // the second time is in time: pauses of its own are shorter
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if took := time.Since(first); took < wait {
		t.Errorf("came back after %v, asked for %v", took, wait)
	}
}

// TestSubmitLostAnswer: a node takes a transaction, the answer is lost, and meanwhile the transaction executes. The
// retry finds its nonce used.
func TestSubmitLostAnswer(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	b := serve(t, n, 0, nil)
	pay := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 0)
	stranger := n.Transfer(n.Account(0, 1), n.Account(0, 2), 2, 0)
	b.Judge = func(tx.Signed) error { return api.Refuse(api.NonceTooLow, "next is 1") }
	n.Add(0, []tx.Signed{pay}, nil)
	b.Append(n.Finalise(0)...)
	var calls atomic.Int32
	torn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/transactions" {
			b.server.ServeHTTP(w, r)
			return
		}
		if calls.Add(1)%2 == 1 {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		b.server.ServeHTTP(w, r)
	}))
	defer torn.Close()
	c := connect(t, n, torn.URL)
	if err := c.Submit(t.Context(), []tx.Signed{pay})[0]; err != nil {
		t.Errorf("the first attempt had arrived: %v", err)
	}
	if err := c.Submit(t.Context(), []tx.Signed{stranger})[0]; !errors.Is(err, &api.Error{Code: api.NonceTooLow}) {
		t.Errorf("another transaction has used the nonce: %v", err)
	}
}

// TestBadAnswers: answers that are not to be believed count as no answer.
func TestBadAnswers(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	good := serve(t, n, 0, nil)
	pay := n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 0)
	for name, answer := range map[string]string{
		"no json": "hello", "a web page": "<html>", "too few": `{"accepted":0,"refused":0,"results":[]}`,
		"foreign index":   `{"accepted":0,"refused":1,"results":[{"index":5,"error":{"code":"busy"}}]}`,
		"without reason":  `{"accepted":0,"refused":1,"results":[{"index":0}]}`,
		"negative number": `{"accepted":-1,"refused":2,"results":[{"index":0,"error":{}},{"index":0,"error":{}}]}`,
		"too many":        `{"accepted":0,"refused":2,"results":[{"index":0,"count":2,"error":{"code":"busy"}}]}`,
		"far too many":    `{"accepted":0,"refused":1,"results":[{"index":9223372036854775807,"count":9223372036854775807,"error":{"code":"busy"}}]}`,
		"negative count":  `{"accepted":1,"refused":-1,"results":[{"index":0,"count":-1,"error":{"code":"busy"}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					good.server.ServeHTTP(w, r)
					return
				}
				_, _ = io.WriteString(w, answer)
			}))
			defer bad.Close()
			c := connect(t, n, bad.URL)
			if err := c.Submit(t.Context(), []tx.Signed{pay})[0]; err == nil {
				t.Error("believed")
			}
		})
	}
}

// TestRefusedTogether: a refusal that stands for several in a row is each one's.
func TestRefusedTogether(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	b := serve(t, n, 0, nil)
	b.Judge = func(s tx.Signed) error {
		if s.Nonce < 3 {
			return nil
		}
		return api.Refuse(api.NonceTaken, "%t", s.Nonce < 6)
	}
	var all []tx.Signed
	for nonce := range uint32(9) {
		all = append(all, n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, nonce))
	}
	for i, err := range connect(t, n, b.url).Submit(t.Context(), all) {
		want := fmt.Sprintf("nonce_taken: %t", i < 6)
		if i < 3 && err != nil || i >= 3 && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestProof(t *testing.T) {
	n := prooftest.New(t, "client", 2)
	liar, zero, one := serve(t, n, 0, nil), serve(t, n, 0, nil), serve(t, n, 1, nil)
	across := n.Transfer(n.Account(0, 1), n.Account(1, 7), 25, 1)
	debit, credit := n.Send(across)
	zero.Append(debit)
	liar.Append(debit)
	liar.Spoil(1, func(b *proof.Block) { b.Final.Cert.Signature[3]++ })
	c := connect(t, n, liar.url, zero.url, one.url)
	id := n.ID(across)
	for range 2 { // the liar is asked first at least once
		p, f, err := c.Proof(t.Context(), id)
		if err != nil || p.Settled || f.Credit != nil || !p.CrossShard {
			t.Fatalf("before the credit: %+v, %v", p, err)
		}
	}
	one.Append(credit)
	p, f, err := c.Proof(t.Context(), id)
	if err != nil || !p.Settled || f.Credit == nil || p.Credit.Where.Shard != 1 {
		t.Fatalf("with the credit: %+v, %v", p, err)
	}
	if _, err := f.Verify(n.Trust); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Proof(t.Context(), tx.Hash{1}); !errors.Is(err, &api.Error{Code: api.NotFound}) {
		t.Errorf("of nothing: %v", err)
	}
	zero.stop()
	if _, _, err := c.Proof(t.Context(), id); !errors.Is(err, proof.ErrCertificate) {
		t.Errorf("from the liar alone: %v", err)
	}
}

func TestProvenAccount(t *testing.T) {
	golden, err := os.ReadFile("../proof/testdata/account.json")
	if err != nil {
		t.Fatal(err)
	}
	p, err := proof.DecodeAccount(golden)
	if err != nil {
		t.Fatal(err)
	}
	n := prooftest.New(t, "account", 1) // the network that the golden file is from
	liar, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	forged, err := proof.DecodeAccount(golden)
	if err != nil {
		t.Fatal(err)
	}
	forged.Final.Cert.Signature[0]++
	liar.SetAccount(forged)
	good.SetAccount(p)
	c := connect(t, n, liar.url, good.url)
	for range 2 {
		if s, _, err := c.ProvenAccount(t.Context(), p.ID); err != nil || s.Balance != 200 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	good.stop()
	if _, _, err := c.ProvenAccount(t.Context(), p.ID); !errors.Is(err, proof.ErrCertificate) {
		t.Errorf("from the liar alone: %v", err)
	}
}

func TestProvenAccounts(t *testing.T) {
	golden, err := os.ReadFile("../proof/testdata/accounts.json")
	if err != nil {
		t.Fatal(err)
	}
	read := func(spoil func(*proof.Accounts)) *proof.Accounts {
		p, err := proof.DecodeAccounts(golden)
		if err != nil {
			t.Fatal(err)
		}
		if spoil != nil {
			spoil(p)
		}
		return p
	}
	n := prooftest.New(t, "account", 1) // the network that the golden file is from
	liar, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	good.SetAccounts(read(nil))
	p := read(nil)
	ids := []tx.ID{p.IDs[2], p.IDs[0], p.IDs[1], p.IDs[0]}
	c := connect(t, n, liar.url, good.url)
	for name, spoil := range map[string]func(*proof.Accounts){
		"certificate": func(p *proof.Accounts) { p.Final.Cert.Signature[0]++ },
		"other ids":   func(p *proof.Accounts) { p.IDs[2] ^= 1 << 12 },
	} {
		liar.SetAccounts(read(spoil))
		for range 2 {
			s, proofs, err := c.ProvenAccounts(t.Context(), ids)
			if err != nil || len(proofs) != 1 || len(s) != 4 || s[0].Exists || s[1].Balance != 100 || s[2].Balance != 200 || s[3] != s[1] {
				t.Fatalf("%s: %+v, %d proofs, %v", name, s, len(proofs), err)
			}
		}
	}
	good.stop()
	if _, _, err := c.ProvenAccounts(t.Context(), ids); !errors.Is(err, client.ErrAnswer) && !errors.Is(err, proof.ErrCertificate) {
		t.Errorf("from the liar alone: %v", err)
	}
	if s, proofs, err := c.ProvenAccounts(t.Context(), nil); err != nil || len(s) != 0 || len(proofs) != 0 {
		t.Errorf("of nothing: %v, %v, %v", s, proofs, err)
	}
}

func TestAwait(t *testing.T) {
	n := prooftest.New(t, "client", 2)
	zero, one := serve(t, n, 0, nil), serve(t, n, 1, nil)
	c := connect(t, n, zero.url, one.url)
	across := n.Transfer(n.Account(0, 1), n.Account(1, 7), 25, 1)
	debit, credit := n.Send(across)
	// The node forgets the transaction first: Await sends it again. Then it becomes final, shard by shard.
	var seen atomic.Int32
	zero.Judge = func(s tx.Signed) error {
		if s == across && seen.Add(1) == 1 {
			zero.Append(debit)
			one.Append(credit)
		}
		return nil
	}
	p, f, err := c.Await(t.Context(), &across)
	if err != nil || !p.Settled || f.Credit == nil || seen.Load() != 1 {
		t.Fatalf("%+v, %v, sent %d times", p, err, seen.Load())
	}
	for name, tc := range map[string]struct {
		judge error
		want  error
	}{
		"expired":  {api.Refuse(api.Expired, ""), client.ErrExpired},
		"overtook": {api.Refuse(api.NonceTooLow, ""), &api.Error{Code: api.NonceTooLow}},
		"refused":  {api.Refuse(api.InsufficientFunds, ""), &api.Error{Code: api.InsufficientFunds}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lost := n.Transfer(n.Account(0, 1), n.Account(0, 2), 25, 1)
			at := serve(t, n, 0, nil)
			at.Judge = func(tx.Signed) error { return tc.judge }
			if _, _, err := connect(t, n, at.url).Await(t.Context(), &lost); !errors.Is(err, tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	waiting := n.Transfer(n.Account(0, 1), n.Account(0, 2), 25, 9)
	zero.SetState(n.ID(waiting), api.Pooled)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := c.Await(ctx, &waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a transaction in the pool: %v", err)
	}
}

func TestBlock(t *testing.T) {
	n := prooftest.New(t, "client", 1)
	liar, good := serve(t, n, 0, nil), serve(t, n, 0, nil)
	n.Add(0, []tx.Signed{n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, 0)}, nil)
	n.Add(0, nil, nil)
	blocks := n.Finalise(0)
	liar.Append(blocks[1], blocks[0]) // each under the other's height
	good.Append(blocks...)
	c := connect(t, n, liar.url, good.url)
	for range 2 {
		k, err := c.Block(t.Context(), 0, 1)
		if err != nil || len(k.IDs) != 1 || k.Header.Height != 1 {
			t.Fatalf("%+v, %v", k, err)
		}
	}
	if _, err := c.Block(t.Context(), 0, 3); !errors.Is(err, &api.Error{Code: api.NotFinal}) {
		t.Errorf("ahead: %v", err)
	}
	good.stop()
	if _, err := c.Block(t.Context(), 0, 1); !errors.Is(err, client.ErrAnswer) || !strings.Contains(fmt.Sprint(err), "block 2 of shard 0, asked for 1") {
		t.Errorf("from the liar alone: %v", err)
	}
}
