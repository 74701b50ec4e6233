package simnet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tutti/netstack"
	"tutti/netstack/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// id names test nodes.
func id(i int) netstack.NodeID { return sha256.Sum256([]byte{byte(i)}) }

// start makes n nodes that end with t.
func start(t *testing.T, c Config, n int) (*Network, []*Node) {
	net := New(c)
	t.Cleanup(net.Close)
	var nodes []*Node
	for i := range n {
		nodes = append(nodes, net.Join(id(i)))
	}
	return net, nodes
}

func TestConformance(t *testing.T) {
	for name, link := range map[string]Link{
		"at once": {},
		"delayed": {Delay: 50e6, Jitter: 20e6},
	} {
		t.Run(name, func(t *testing.T) {
			transporttest.Suite{
				Start: func(t *testing.T, n int) []netstack.Transport {
					_, nodes := start(t, Config{Link: link}, n)
					var out []netstack.Transport
					for _, node := range nodes {
						out = append(out, node)
					}
					return out
				},
				Requests: 8,
				Bubble:   true,
			}.Run(t)
		})
	}
}

// drain returns what a queue holds.
func drain(from <-chan netstack.Message) (out []string) {
	for len(from) > 0 {
		out = append(out, string((<-from).Payload))
	}
	return out
}

func TestDelayAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay, jitter = 40 * time.Millisecond, 20 * time.Millisecond
		net, n := start(t, Config{Seed: 1, Link: Link{Delay: delay, Jitter: jitter}}, 2)
		least, most := time.Hour, time.Duration(0)
		overtaken, last := false, time.Time{}
		for i := range 500 {
			sent := time.Now()
			if err := n[0].Send(n[1].Self(), netstack.ClassVote, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			<-n[1].Receive(netstack.ClassVote)
			took := time.Since(sent)
			least, most = min(least, took), max(most, took)
		}
		if least < delay || least > delay+jitter/10 || most > delay+jitter || most < delay+jitter*9/10 {
			t.Errorf("messages took %v to %v", least, most)
		}
		for i := range 100 {
			if err := n[0].Send(n[1].Self(), netstack.ClassVote, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		high := byte(0)
		for range 100 {
			m := <-n[1].Receive(netstack.ClassVote)
			overtaken = overtaken || m.Payload[0] < high
			high = max(high, m.Payload[0])
			if time.Now().Before(last) {
				t.Fatal("time runs backwards")
			}
			last = time.Now()
		}
		if !overtaken {
			t.Error("no message overtook another")
		}
		// The other direction has its own setting.
		net.SetLink(n[1].Self(), n[0].Self(), Link{Delay: time.Minute})
		sent := time.Now()
		if err := n[1].Send(n[0].Self(), netstack.ClassVote, nil); err != nil {
			t.Fatal(err)
		}
		<-n[0].Receive(netstack.ClassVote)
		if took := time.Since(sent); took != time.Minute {
			t.Errorf("took %v", took)
		}
		if rtt := n[0].Peers()[0].RTTMs; rtt != 60_040 {
			t.Errorf("round trip %v ms", rtt)
		}
	})
}

// run sends numbered votes around a lossy, jittery network of three and returns what each node received, and when.
func run(t *testing.T, seed uint64) (log string) {
	synctest.Test(t, func(t *testing.T) {
		_, n := start(t, Config{Seed: seed, Link: Link{Delay: 10 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.3}}, 3)
		began := time.Now()
		for i := range 100 {
			for a := range n {
				if err := n[a].Send(n[(a+1+i%2)%3].Self(), netstack.ClassVote, fmt.Append(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Millisecond)
			for a := range n {
				for _, m := range drain(n[a].Receive(netstack.ClassVote)) {
					log += fmt.Sprintf("%v: %d has %s\n", time.Since(began), a, m)
				}
			}
		}
	})
	return log
}

func TestSeedDecides(t *testing.T) {
	first := run(t, 7)
	if again := run(t, 7); again != first {
		t.Error("two runs with one seed differ")
	}
	if other := run(t, 8); other == first {
		t.Error("another seed makes no difference")
	}
	if got := strings.Count(first, "\n"); got < 100 || got > 230 { // of 300, 30 % lost and some still under way
		t.Errorf("%d messages arrived", got)
	}
}

func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, n := start(t, Config{Seed: 3, Link: Link{Loss: 0.25}}, 2)
		for range 4000 {
			if err := n[0].Send(n[1].Self(), netstack.ClassVote, nil); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		time.Sleep(time.Millisecond)
		if got := len(n[1].Receive(netstack.ClassVote)); got < 2850 || got > 3150 {
			t.Errorf("%d of 4000 arrived", got)
		}
		// Requests get through, later.
		n[1].Serve("/tutti/echo/1", func(_ context.Context, _ netstack.NodeID, q []byte) ([]byte, error) { return q, nil })
		began := time.Now()
		for range 100 {
			if _, err := n[0].Request(t.Context(), n[1].Self(), "/tutti/echo/1", nil); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 20*resendDelay {
			t.Errorf("took %v; nothing was sent twice", took)
		}
		net.SetLink(n[0].Self(), n[1].Self(), Link{Loss: 1})
		if _, err := n[0].Request(t.Context(), n[1].Self(), "/tutti/echo/1", nil); !errors.Is(err, netstack.ErrNotReached) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, n := start(t, Config{Link: Link{Delay: 10 * time.Millisecond}}, 4)
		var topics []<-chan netstack.Message
		for _, node := range n {
			q, err := node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept })
			if err != nil {
				t.Fatal(err)
			}
			topics = append(topics, q)
		}
		vote := func(from, to int) {
			if err := n[from].Send(n[to].Self(), netstack.ClassVote, []byte{byte(from)}); err != nil {
				t.Fatal(err)
			}
		}
		got := func(i int) int { return len(drain(n[i].Receive(netstack.ClassVote))) }

		vote(0, 2) // under way when the partition comes
		net.Partition([]netstack.NodeID{id(0), id(1)}, []netstack.NodeID{id(2)})
		vote(0, 1)
		vote(2, 0)
		vote(0, 3)
		vote(3, 0)
		if err := n[0].Publish("tutti/final/0", []byte("one side")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got(0) != 0 || got(1) != 1 || got(2) != 0 || got(3) != 0 {
			t.Error("the partition leaks, or cuts within a group")
		}
		for i, want := range []int{0, 1, 0, 0} {
			if len(drain(topics[i])) != want {
				t.Errorf("gossip at %d", i)
			}
		}
		if _, err := n[0].Request(t.Context(), n[2].Self(), "/tutti/echo/1", nil); !errors.Is(err, netstack.ErrNotReached) {
			t.Errorf("got %v", err)
		}
		for _, p := range n[0].Peers() {
			if p.Connected != (p.ID == n[1].Self()) {
				t.Errorf("peer %+v", p)
			}
		}
		net.Heal()
		vote(2, 0)
		time.Sleep(time.Second)
		if got(0) != 1 {
			t.Error("the partition is not healed")
		}
	})
}

// TestGossipHops has a node that the publisher does not reach: others pass the message on.
func TestGossipHops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, n := start(t, Config{Link: Link{Delay: 10 * time.Millisecond}}, 3)
		net.SetLink(n[0].Self(), n[2].Self(), Link{Loss: 1})
		var last <-chan netstack.Message
		for _, node := range n {
			var err error
			if last, err = node.Subscribe("tutti/final/0", func(netstack.NodeID, []byte) netstack.Verdict { return netstack.Accept }); err != nil {
				t.Fatal(err)
			}
		}
		if err := n[0].Publish("tutti/final/0", []byte("x")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if m := <-last; m.From != n[1].Self() || time.Since(began) != 20*time.Millisecond {
			t.Errorf("from %s after %v", m.From.Short(), time.Since(began))
		}
	})
}

func TestRejoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, n := start(t, Config{}, 2)
		if err := n[1].Close(); err != nil {
			t.Fatal(err)
		}
		if err := n[0].Send(n[1].Self(), netstack.ClassVote, []byte("lost")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		back := net.Join(n[1].Self())
		if err := n[0].Send(back.Self(), netstack.ClassVote, []byte("heard")); err != nil {
			t.Fatal(err)
		}
		if m := <-back.Receive(netstack.ClassVote); string(m.Payload) != "heard" {
			t.Errorf("got %q", m.Payload)
		}
		defer func() {
			if recover() == nil {
				t.Error("joined twice")
			}
		}()
		net.Join(n[0].Self())
	})
}

// TestFlightIsBounded fills a slow link: the oldest messages give way.
func TestFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n := start(t, Config{Link: Link{Delay: time.Second}}, 2)
		for i := range 20 {
			if err := n[0].Send(n[1].Self(), netstack.ClassProposal, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if err := n[0].Send(n[1].Self(), netstack.ClassTransaction, make([]byte, netstack.MaxTransactionBytes)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		if m := <-n[1].Receive(netstack.ClassProposal); m.Payload[0] != 4 || len(n[1].Receive(netstack.ClassProposal)) != 15 {
			t.Errorf("the first is %d", m.Payload[0])
		}
		if c := n[0].Counters(); c.DroppedSendFull != [netstack.Classes]uint64{0, 4, 0} {
			t.Errorf("dropped %v", c.DroppedSendFull)
		}
	})
}
