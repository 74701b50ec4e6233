// Package transporttest is the conformance suite of netstack.Transport: what every implementation promises, tested
// through the interface alone.
package transporttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/netstack"
)

// Suite describes an implementation.
type Suite struct {
	// Start makes n connected nodes, each a peer of all others, on a network that loses nothing. They end with t.
	Start func(t *testing.T, n int) []netstack.Transport
	// Requests is how many requests one peer may have in progress.
	Requests int
	// Bubble runs each test in a testing/synctest bubble.
	Bubble bool
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// Run runs every test of the suite.
func (s Suite) Run(t *testing.T) {
	tests := []struct {
		name  string
		nodes int
		test  func(*testing.T, []netstack.Transport)
	}{
		{"sizes of every class", 2, s.sizes},
		{"many senders, nothing corrupted", 3, s.intact},
		{"a slow reader loses and stops nobody", 2, s.slowReader},
		{"send refused", 2, s.sendRefused},
		{"payloads belong to their receivers", 3, s.ownership},
		{"peers", 3, s.peers},
		{"request", 2, s.request},
		{"request refused", 2, s.requestRefused},
		{"request timeout", 2, s.requestTimeout},
		{"requests at a time", 2, s.requestsAtATime},
		{"gossip reaches everyone once", 4, s.gossip},
		{"gossip that is invalid goes no further", 4, s.gossipInvalid},
		{"gossip that can not be judged goes no further and costs nothing", 2, s.gossipIgnored},
		{"gossip refused", 2, s.gossipRefused},
		{"close", 3, s.closing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !s.Bubble {
				tt.test(t, s.Start(t, tt.nodes))
				return
			}
			synctest.Test(t, func(t *testing.T) { tt.test(t, s.Start(t, tt.nodes)) })
		})
	}
}

// next receives one message.
func next(t *testing.T, from <-chan netstack.Message) netstack.Message {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case m, ok := <-from:
		if !ok {
			t.Fatal("the channel is closed")
		}
		return m
	case <-timeout.C:
		t.Fatal("nothing received")
		panic("unreachable")
	}
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for start := time.Now(); !cond(); <-poll.C {
		if time.Since(start) > patience {
			t.Fatal("still waiting for " + what)
		}
	}
}

// pattern is n bytes that depend on seed.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
	_, _ = src.Read(b)
	return b
}

func (s Suite) sizes(t *testing.T, n []netstack.Transport) {
	for c := range netstack.Class(netstack.Classes) {
		for _, size := range []int{0, 1, 1000, netstack.MaxBytes(c)} {
			want := pattern(size, uint64(size))
			if err := n[0].Send(n[1].Self(), c, want); err != nil {
				t.Fatalf("%v of %d bytes: %v", c, size, err)
			}
			m := next(t, n[1].Receive(c))
			if m.From != n[0].Self() || !bytes.Equal(m.Payload, want) {
				t.Fatalf("%v of %d bytes: got %d bytes from %s", c, size, len(m.Payload), m.From.Short())
			}
		}
		if a, b := n[1].Receive(c), n[1].Receive(c); a != b {
			t.Fatalf("Receive(%v) gave two channels", c)
		}
	}
	until(t, "the counters", func() bool {
		a, b := n[0].Counters(), n[1].Counters()
		return a.SentMessages == [netstack.Classes]uint64{4, 4, 4} && a.SentMessages == b.ReceivedMessages && a.SentBytes == b.ReceivedBytes
	})
}

func (s Suite) intact(t *testing.T, n []netstack.Transport) {
	const each = 300
	var senders sync.WaitGroup
	for who := 1; who <= 2; who++ {
		senders.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(who)))
			for i := range each {
				body := pattern(r.IntN(4000), uint64(i))
				sum := sha256.Sum256(body)
				if err := n[who].Send(n[0].Self(), netstack.ClassVote, append(sum[:], body...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[string]bool{}
	for range 2 * each {
		m := next(t, n[0].Receive(netstack.ClassVote))
		sum := sha256.Sum256(m.Payload[32:])
		key := m.From.String() + string(sum[:])
		if !bytes.Equal(sum[:], m.Payload[:32]) || seen[key] {
			t.Fatal("a message is corrupted or came twice")
		}
		seen[key] = true
	}
	senders.Wait()
}

func (s Suite) slowReader(t *testing.T, n []netstack.Transport) {
	for c, sent := range []uint64{20_000, 60, 400} {
		class := netstack.Class(c)
		payload := pattern(1000, 1)
		for range sent {
			if err := n[0].Send(n[1].Self(), class, payload); err != nil {
				t.Fatal(err)
			}
		}
		// Everything is accounted for: written or dropped here, queued or dropped there.
		until(t, class.String()+" messages to settle", func() bool {
			a, b := n[0].Counters(), n[1].Counters()
			arrived := b.ReceivedMessages[c] + b.RefusedRate
			return arrived+a.DroppedSendFull[c]+a.DroppedSendStale[c] == sent
		})
		queued := uint64(len(n[1].Receive(class)))
		b := n[1].Counters()
		if queued+b.DroppedReceiveFull[c] != b.ReceivedMessages[c] || queued == 0 || queued == sent {
			t.Fatalf("%v: %d queued, %d dropped, %d received", class, queued, b.DroppedReceiveFull[c], b.ReceivedMessages[c])
		}
		for range queued {
			next(t, n[1].Receive(class))
		}
		if err := n[0].Send(n[1].Self(), class, []byte("again")); err != nil {
			t.Fatal(err)
		}
		if m := next(t, n[1].Receive(class)); string(m.Payload) != "again" {
			t.Fatal("not the message after the flood")
		}
	}
}

func (s Suite) sendRefused(t *testing.T, n []netstack.Transport) {
	stranger := netstack.NodeID(sha256.Sum256([]byte("stranger")))
	for c := range netstack.Class(netstack.Classes) {
		for _, tt := range []struct {
			name string
			to   netstack.NodeID
			size int
			want error
		}{
			{"stranger", stranger, 1, netstack.ErrUnknownPeer},
			{"oneself", n[0].Self(), 1, netstack.ErrUnknownPeer},
			{"too large", n[1].Self(), netstack.MaxBytes(c) + 1, netstack.ErrTooLarge},
		} {
			if err := n[0].Send(tt.to, c, make([]byte, tt.size)); !errors.Is(err, tt.want) {
				t.Errorf("%v, %s: got %v, want %v", c, tt.name, err, tt.want)
			}
		}
	}
	c := n[0].Counters()
	if c.RefusedUnknownPeer != 6 || c.RefusedTooLarge != 3 {
		t.Errorf("counted %d unknown peers and %d too large, want 6 and 3", c.RefusedUnknownPeer, c.RefusedTooLarge)
	}
}

func (s Suite) ownership(t *testing.T, n []netstack.Transport) {
	queues := subscribe(t, n, "tutti/own", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept })
	shared := pattern(2000, 7)
	want := bytes.Clone(shared)
	for _, to := range n[1:] {
		if err := n[0].Send(to.Self(), netstack.ClassVote, shared); err != nil {
			t.Fatal(err)
		}
	}
	joinGossip(t, n, queues, "tutti/own")
	if err := n[0].Publish("tutti/own", shared); err != nil {
		t.Fatal(err)
	}
	for i, to := range n[1:] {
		for _, m := range []netstack.Message{next(t, to.Receive(netstack.ClassVote)), hear(t, queues[i+1])} {
			if !bytes.Equal(m.Payload, want) {
				t.Fatal("another receiver's writing shows")
			}
			clear(m.Payload)
		}
	}
	if !bytes.Equal(shared, want) {
		t.Fatal("a receiver's writing shows at the sender")
	}
}

func (s Suite) peers(t *testing.T, n []netstack.Transport) {
	for _, a := range n {
		peers := a.Peers()
		if len(peers) != len(n)-1 {
			t.Fatalf("%d peers", len(peers))
		}
		for i, p := range peers {
			if p.ID == a.Self() || !p.Connected || len(p.Addrs) == 0 || p.LastError != "" {
				t.Fatalf("peer %+v", p)
			}
			if i > 0 && bytes.Compare(peers[i-1].ID[:], p.ID[:]) >= 0 {
				t.Fatal("peers are not in order")
			}
		}
	}
}

const echo = netstack.Protocol("/tutti/echo/1")

func (s Suite) request(t *testing.T, n []netstack.Transport) {
	n[1].Serve(echo, func(_ context.Context, from netstack.NodeID, request []byte) ([]byte, error) {
		if from != n[0].Self() {
			t.Errorf("from %s", from.Short())
		}
		return append([]byte("re:"), request...), nil
	})
	n[1].Serve("/tutti/large/1", func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
		return pattern(netstack.MaxResponseBytes, 3), nil
	})
	for _, size := range []int{0, 1, 100_000, netstack.MaxRequestBytes} {
		q := pattern(size, 5)
		a, err := n[0].Request(t.Context(), n[1].Self(), echo, q)
		if err != nil || !bytes.Equal(a, append([]byte("re:"), q...)) {
			t.Fatalf("%d bytes: %d bytes, %v", size, len(a), err)
		}
	}
	a, err := n[0].Request(t.Context(), n[1].Self(), "/tutti/large/1", nil)
	if err != nil || !bytes.Equal(a, pattern(netstack.MaxResponseBytes, 3)) {
		t.Fatalf("large answer: %d bytes, %v", len(a), err)
	}
	if c := n[1].Counters(); c.RequestsServed != 5 || c.RequestsRefused != 0 {
		t.Fatalf("served %d, refused %d", c.RequestsServed, c.RequestsRefused)
	}
}

func (s Suite) requestRefused(t *testing.T, n []netstack.Transport) {
	n[1].Serve(echo, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
		return nil, errors.New("not today" + strings.Repeat("!", 1000))
	})
	n[1].Serve("/tutti/large/1", func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
		return make([]byte, netstack.MaxResponseBytes+1), nil
	})
	for _, tt := range []struct {
		name string
		to   netstack.NodeID
		p    netstack.Protocol
		size int
		want error
	}{
		{"by the handler", n[1].Self(), echo, 1, netstack.ErrRefused},
		{"not served", n[1].Self(), "/tutti/other/1", 1, netstack.ErrRefused},
		{"not served, large", n[1].Self(), "/tutti/other/1", 100_000, netstack.ErrRefused},
		{"large answer", n[1].Self(), "/tutti/large/1", 1, netstack.ErrRefused},
		{"large request", n[1].Self(), echo, netstack.MaxRequestBytes + 1, netstack.ErrTooLarge},
		{"stranger", netstack.NodeID(sha256.Sum256([]byte("stranger"))), echo, 1, netstack.ErrUnknownPeer},
		{"oneself", n[0].Self(), echo, 1, netstack.ErrUnknownPeer},
	} {
		a, err := n[0].Request(t.Context(), tt.to, tt.p, make([]byte, tt.size))
		if !errors.Is(err, tt.want) || a != nil {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if tt.name == "by the handler" && (!strings.Contains(err.Error(), "not today!") || len(err.Error()) > 400) {
			t.Errorf("refusal is %q", err)
		}
	}
}

func (s Suite) requestTimeout(t *testing.T, n []netstack.Transport) {
	started, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	n[1].Serve(echo, func(ctx context.Context, _ netstack.NodeID, _ []byte) ([]byte, error) {
		started <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n[0].Request(ctx, n[1].Self(), echo, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's error", err)
	}
	// Of a peer that closes while it works on the answer, nothing more is heard.
	waiting := make(chan error, 1)
	go func() {
		_, err := n[0].Request(context.Background(), n[1].Self(), echo, nil)
		waiting <- err
	}()
	<-started
	if err := n[1].Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := <-waiting; !errors.Is(err, netstack.ErrNotReached) && !errors.Is(err, netstack.ErrRefused) {
		t.Fatalf("got %v, want %v", err, netstack.ErrNotReached)
	}
	until(t, "the peer to be gone", func() bool { return !n[0].Peers()[0].Connected })
	if _, err := n[0].Request(t.Context(), n[1].Self(), echo, nil); !errors.Is(err, netstack.ErrNotReached) {
		t.Fatalf("got %v, want %v", err, netstack.ErrNotReached)
	}
}

func (s Suite) requestsAtATime(t *testing.T, n []netstack.Transport) {
	var now, most atomic.Int32
	full := make(chan struct{})
	n[1].Serve(echo, func(ctx context.Context, _ netstack.NodeID, q []byte) ([]byte, error) {
		if k := now.Add(1); k > most.Load() {
			most.Store(k)
			if int(k) == s.Requests {
				close(full)
			}
		}
		defer now.Add(-1)
		select {
		case <-full:
		case <-ctx.Done():
		}
		return q, ctx.Err()
	})
	var all sync.WaitGroup
	for i := range 3 * s.Requests {
		all.Go(func() {
			q := []byte{byte(i)}
			if a, err := n[0].Request(t.Context(), n[1].Self(), echo, q); err != nil || !bytes.Equal(a, q) {
				t.Errorf("request %d: %v, %v", i, a, err)
			}
		})
	}
	all.Wait()
	if int(most.Load()) != s.Requests {
		t.Errorf("%d at a time, want %d", most.Load(), s.Requests)
	}
}

func subscribe(t *testing.T, n []netstack.Transport, topic netstack.Topic, judge func(netstack.NodeID, []byte) netstack.Verdict) []<-chan netstack.Message {
	t.Helper()
	var out []<-chan netstack.Message
	for _, node := range n {
		q, err := node.Subscribe(topic, judge)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, q)
	}
	return out
}

// joinGossip publishes probes from every node until every other has heard one, so that all know who is subscribed.
// Later probes may still be under way; hear passes over them.
func joinGossip(t *testing.T, n []netstack.Transport, queues []<-chan netstack.Message, topic netstack.Topic) {
	t.Helper()
	round, heard := 0, map[[2]int]bool{}
	until(t, "gossip to connect", func() bool {
		round++
		for i, node := range n {
			if err := node.Publish(topic, fmt.Appendf(nil, "probe %d of %d", round, i)); err != nil {
				t.Fatal(err)
			}
		}
		for i, q := range queues {
			for len(q) > 0 {
				m := <-q
				from := 0
				if _, err := fmt.Sscanf(string(m.Payload), "probe %d of %d", new(int), &from); err != nil {
					t.Fatalf("got %q", m.Payload)
				}
				heard[[2]int{from, i}] = true
			}
		}
		return len(heard) == len(n)*(len(n)-1)
	})
}

// hear receives one gossiped message that is no probe.
func hear(t *testing.T, from <-chan netstack.Message) netstack.Message {
	t.Helper()
	for {
		if m := next(t, from); !bytes.HasPrefix(m.Payload, []byte("probe ")) {
			return m
		}
	}
}

func (s Suite) gossip(t *testing.T, n []netstack.Transport) {
	queues := subscribe(t, n, "tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept })
	joinGossip(t, n, queues, "tutti/final/0")
	const each = 10
	for i := range each {
		for _, node := range n {
			// Equal content from several publishers is one message.
			if err := node.Publish("tutti/final/0", pattern(3000, uint64(i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := n[i%len(n)].Publish("tutti/final/0", fmt.Appendf(nil, "from one only %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for who, q := range queues {
		want := 0
		for i := range each {
			if i%len(n) != who {
				want++
			}
		}
		got := map[string]int{}
		for len(got) < want {
			m := hear(t, q)
			if m.From == n[who].Self() {
				t.Fatal("a node hears itself")
			}
			if strings.HasPrefix(string(m.Payload), "from one only") {
				got[string(m.Payload)]++
			}
		}
		for k, times := range got {
			if times != 1 {
				t.Errorf("node %d heard %q %d times", who, k, times)
			}
		}
	}
}

func (s Suite) gossipInvalid(t *testing.T, n []netstack.Transport) {
	queues := subscribe(t, n, "tutti/final/0", unless("bad", netstack.Reject))
	joinGossip(t, n, queues, "tutti/final/0")
	if err := n[0].Publish("tutti/final/0", []byte("bad apple")); err != nil {
		t.Fatal(err)
	}
	if err := n[0].Publish("tutti/final/0", []byte("good apple")); err != nil {
		t.Fatal(err)
	}
	// Those who hear it from the publisher refuse it, so that nobody else does.
	until(t, "the message to be judged", func() bool {
		judged := uint64(0)
		for _, node := range n[1:] {
			judged += node.Counters().GossipInvalid
		}
		return judged > 0 && judged < uint64(len(n))
	})
	for _, q := range queues[1:] {
		if m := hear(t, q); string(m.Payload) != "good apple" {
			t.Fatalf("got %q", m.Payload)
		}
	}
}

// unless accepts every message but those that begin with a word.
func unless(word string, verdict netstack.Verdict) func(netstack.NodeID, []byte) netstack.Verdict {
	return func(_ netstack.NodeID, p []byte) netstack.Verdict {
		if bytes.HasPrefix(p, []byte(word)) {
			return verdict
		}
		return netstack.Accept
	}
}

func (s Suite) gossipIgnored(t *testing.T, n []netstack.Transport) {
	queues := subscribe(t, n, "tutti/final/0", unless("later", netstack.Ignore))
	joinGossip(t, n, queues, "tutti/final/0")
	const many = 40 // as invalid ones they would shut the publisher out
	for i := range many {
		if err := n[0].Publish("tutti/final/0", fmt.Appendf(nil, "later %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the messages to be judged", func() bool { return n[1].Counters().GossipIgnored > many/2 })
	if err := n[0].Publish("tutti/final/0", []byte("good apple")); err != nil {
		t.Fatal(err)
	}
	for i, q := range queues[1:] {
		if m := hear(t, q); string(m.Payload) != "good apple" {
			t.Fatalf("got %q", m.Payload)
		}
		if c := n[1+i].Counters(); c.GossipInvalid != 0 {
			t.Errorf("%d messages were invalid", c.GossipInvalid)
		}
	}
}

func (s Suite) gossipRefused(t *testing.T, n []netstack.Transport) {
	all := func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept }
	if err := n[0].Publish("tutti/none", []byte("x")); err == nil {
		t.Error("published on a topic without a subscription")
	}
	subscribe(t, n, "tutti/final/0", all)
	if _, err := n[0].Subscribe("tutti/final/0", all); err == nil {
		t.Error("subscribed twice")
	}
	if err := n[0].Publish("tutti/final/0", make([]byte, netstack.MaxGossipBytes+1)); !errors.Is(err, netstack.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, netstack.ErrTooLarge)
	}
	if err := n[0].Publish("tutti/final/0", make([]byte, netstack.MaxGossipBytes)); err != nil {
		t.Error(err)
	}
}

func (s Suite) closing(t *testing.T, n []netstack.Transport) {
	queues := subscribe(t, n, "tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept })
	waiting := make(chan error, 1)
	n[1].Serve(echo, func(ctx context.Context, _ netstack.NodeID, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	go func() {
		_, err := n[0].Request(context.Background(), n[1].Self(), echo, nil)
		waiting <- err
	}()
	until(t, "Close", func() bool { return n[0].Close() == nil })
	if err := <-waiting; !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("a request in progress: %v", err)
	}
	if err := n[0].Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	for c := range netstack.Class(netstack.Classes) {
		if _, ok := <-n[0].Receive(c); ok {
			t.Errorf("the %v channel is open", c)
		}
		if err := n[0].Send(n[1].Self(), c, nil); !errors.Is(err, netstack.ErrClosed) {
			t.Errorf("Send: %v", err)
		}
	}
	if _, ok := <-queues[0]; ok {
		t.Error("the gossip channel is open")
	}
	if _, err := n[0].Request(context.Background(), n[1].Self(), echo, nil); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("Request: %v", err)
	}
	if err := n[0].Publish("tutti/final/0", nil); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := n[0].Subscribe("tutti/final/1", nil); !errors.Is(err, netstack.ErrClosed) {
		t.Errorf("Subscribe: %v", err)
	}
	// The others go on.
	until(t, "the others to notice", func() bool {
		for _, p := range n[1].Peers() {
			if p.ID == n[0].Self() && p.Connected {
				return false
			}
		}
		return true
	})
	if err := n[1].Send(n[0].Self(), netstack.ClassVote, []byte("into the void")); err != nil {
		t.Errorf("to a peer that is away: %v", err)
	}
	if err := n[1].Send(n[2].Self(), netstack.ClassVote, []byte("on")); err != nil {
		t.Error(err)
	}
	if m := next(t, n[2].Receive(netstack.ClassVote)); string(m.Payload) != "on" {
		t.Errorf("got %q", m.Payload)
	}
}
