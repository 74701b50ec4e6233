package node

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"tutti/consensus/engine"
	"tutti/netstack"
	"tutti/netstack/simnet"
)

func TestCommitteeNetwork(t *testing.T) {
	sim := simnet.New(simnet.Config{})
	defer sim.Close()
	committee := committeeOf(t, 1, 1, 1)
	stranger := sim.Join(nodeID(9))
	var nets []*committeeNetwork
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range committee.Validators {
		r := newCommitteeRouter(sim.Join(nodeID(byte(i))))
		n := r.enter(committee)
		for _, class := range []engine.Class{engine.ClassVote, engine.ClassProposal} {
			group.Go(func() { r.run(ctx, class) })
		}
		nets = append(nets, n)
	}
	expect := func(n *committeeNetwork, class engine.Class, from int, payload string) {
		t.Helper()
		select {
		case m := <-n.Receive(class):
			if m.From != from || string(m.Payload) != payload {
				t.Errorf("%q from %d, want %q from %d", m.Payload, m.From, payload, from)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%q did not come", payload)
		}
	}
	nets[0].Send(2, engine.ClassVote, []byte("vote"))
	expect(nets[2], engine.ClassVote, 0, "vote")
	nets[2].Send(1, engine.ClassProposal, []byte("proposal"))
	expect(nets[1], engine.ClassProposal, 2, "proposal")
	if err := stranger.Send(nodeID(1), netstack.ClassVote, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	expect(nets[1], engine.ClassVote, -1, "hello")

	nets[1].Serve(func(_ context.Context, from int, req []byte) ([]byte, error) {
		if string(req) == "no" {
			return nil, errors.New("refused")
		}
		return append([]byte{byte(from + 10)}, req...), nil
	})
	if b, err := nets[2].Request(t.Context(), 1, []byte("ask")); err != nil || string(b) != "\x0cask" {
		t.Errorf("answer %q: %v", b, err)
	}
	if b, err := stranger.Request(t.Context(), nodeID(1), committeeProtocol, []byte("ask")); err != nil || string(b) != "\x09ask" {
		t.Errorf("a stranger is answered %q: %v", b, err)
	}
	if _, err := nets[2].Request(t.Context(), 1, []byte("no")); !errors.Is(err, netstack.ErrRefused) {
		t.Errorf("refusal: %v", err)
	}
	// Nobody reads: run waits, and still ends with its context.
	for range 3 * inboxDepth {
		nets[0].Send(1, engine.ClassVote, []byte("flood"))
	}
	cancel()
	group.Wait()
	if n := len(nets[1].Receive(engine.ClassVote)); n > inboxDepth {
		t.Errorf("%d in an inbox of %d", n, inboxDepth)
	}
	if sourceOf(netstack.NodeID{1, 2, 3, 4, 5, 6, 7, 8, 9}) != 0x0102030405060708 {
		t.Error("sources are not told apart by the key")
	}
}

func TestCommitteeNetworkEndsWithItsTransport(t *testing.T) {
	sim := simnet.New(simnet.Config{})
	n := newCommitteeRouter(sim.Join(nodeID(0)))
	n.enter(committeeOf(t, 1))
	done := make(chan struct{})
	go func() { n.run(context.Background(), engine.ClassVote); close(done) }()
	sim.Close()
	<-done
}
