package node

import (
	"context"
	"encoding/binary"
	"sync/atomic"

	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/netstack"
)

// committeeProtocol carries the engine's own requests: blocks by hash, runs of blocks, the last finalization.
const committeeProtocol netstack.Protocol = "/tutti/committee/1"

// committeeRouter gives the messages of the own shard's committees to the engine of the present epoch. Between two epochs they wait.
type committeeRouter struct {
	transport netstack.Transport
	current   atomic.Pointer[committeeNetwork]
}

func newCommitteeRouter(t netstack.Transport) *committeeRouter { return &committeeRouter{transport: t} }

// enter makes the network of an epoch's committee, which gets all messages from now on. One call at a time.
func (r *committeeRouter) enter(c *consensus.Committee) *committeeNetwork {
	n := newCommitteeNetwork(r.transport, c)
	if before := r.current.Swap(n); before != nil {
		close(before.over)
	}
	return n
}

// run passes messages on until ctx ends or the transport is closed. enter has been called.
func (r *committeeRouter) run(ctx context.Context, class engine.Class) {
	in := r.transport.Receive(netstackClass(class))
	for {
		select {
		case m, ok := <-in:
			if !ok || !r.pass(ctx, class, m) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// pass gives a message to the present network, or to the next if that takes its place meanwhile. It is false if ctx ended.
func (r *committeeRouter) pass(ctx context.Context, class engine.Class, m netstack.Message) bool {
	for {
		n := r.current.Load()
		select {
		case n.inboxes[class] <- engine.Message{From: n.indexOf(m.From), Payload: m.Payload}:
			return true
		case <-n.over:
		case <-ctx.Done():
			return false
		}
	}
}

// committeeNetwork is the transport as one committee sees it: it implements engine.Network.
type committeeNetwork struct {
	transport netstack.Transport
	members   []netstack.NodeID // by committee index
	index     map[netstack.NodeID]int
	inboxes   [2]chan engine.Message
	over      chan struct{} // closed when the next epoch's has taken its place
}

// inboxDepth is small: the transport's own queues are in front of it.
const inboxDepth = 64

func newCommitteeNetwork(t netstack.Transport, c *consensus.Committee) *committeeNetwork {
	n := &committeeNetwork{transport: t, index: map[netstack.NodeID]int{}, over: make(chan struct{})}
	for i, v := range c.Validators {
		id := netstack.NodeID(v.Node)
		n.members = append(n.members, id)
		n.index[id] = i
	}
	for class := range n.inboxes {
		n.inboxes[class] = make(chan engine.Message, inboxDepth)
	}
	return n
}

func netstackClass(c engine.Class) netstack.Class {
	if c == engine.ClassProposal {
		return netstack.ClassProposal
	}
	return netstack.ClassVote
}

func (n *committeeNetwork) indexOf(id netstack.NodeID) int {
	if i, ok := n.index[id]; ok {
		return i
	}
	return -1
}

// Send implements engine.Network. What cannot be queued is lost and counted by the transport; the machine repeats.
func (n *committeeNetwork) Send(to int, class engine.Class, payload []byte) {
	_ = n.transport.Send(n.members[to], netstackClass(class), payload)
}

// Receive implements engine.Network.
func (n *committeeNetwork) Receive(class engine.Class) <-chan engine.Message { return n.inboxes[class] }

// Request implements engine.Network.
func (n *committeeNetwork) Request(ctx context.Context, to int, request []byte) ([]byte, error) {
	return n.transport.Request(ctx, n.members[to], committeeProtocol, request)
}

// Serve implements engine.Network.
func (n *committeeNetwork) Serve(answer func(ctx context.Context, from int, request []byte) ([]byte, error)) {
	n.transport.Serve(committeeProtocol, func(ctx context.Context, from netstack.NodeID, request []byte) ([]byte, error) {
		return answer(ctx, n.indexOf(from), request)
	})
}

// sourceOf turns a peer into the number under which the pool keeps its quota.
func sourceOf(id netstack.NodeID) uint64 { return binary.BigEndian.Uint64(id[:8]) }
