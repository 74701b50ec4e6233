package simnet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/netstack"
)

// Node is one member of a Network.
type Node struct {
	net    *Network
	id     netstack.NodeID
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // handlers; added to under net.mu while not closed
	done   chan struct{}

	// Network.mu guards the rest.
	closed   bool
	receive  [netstack.Classes]chan netstack.Message
	handlers map[netstack.Protocol]netstack.Handler
	topics   map[netstack.Topic]*topic
	seen     map[[32]byte]struct{}
	seenRing [][32]byte
	slots    map[slotKey]chan struct{}
	count    netstack.Counters
}

var _ netstack.Transport = (*Node)(nil)

type topic struct {
	judge func(netstack.NodeID, []byte) netstack.Verdict
	queue chan netstack.Message
}

// slotKey names the slots of requests with a peer in one direction.
type slotKey struct {
	peer    netstack.NodeID
	serving bool
}

func newNode(n *Network, id netstack.NodeID) *Node {
	node := &Node{
		net: n, id: id, done: make(chan struct{}),
		handlers: map[netstack.Protocol]netstack.Handler{},
		topics:   map[netstack.Topic]*topic{},
		seen:     map[[32]byte]struct{}{},
		slots:    map[slotKey]chan struct{}{},
	}
	node.ctx, node.cancel = context.WithCancel(context.Background())
	for c := range node.receive {
		size := receiveQueue[c]
		if n.config.Receive > 0 {
			size = n.config.Receive
		}
		node.receive[c] = make(chan netstack.Message, size)
	}
	return node
}

// Self is the id given to Join.
func (n *Node) Self() netstack.NodeID { return n.id }

// known checks that n is open and to another node. The caller holds net.mu. A node that has left is known still.
func (n *Node) known(to netstack.NodeID) error {
	if n.closed {
		return netstack.ErrClosed
	}
	if to == n.id || n.net.nodes[to] == nil && !n.net.left[to] {
		n.count.RefusedUnknownPeer++
		return fmt.Errorf("%w: %s", netstack.ErrUnknownPeer, to.Short())
	}
	return nil
}

// Send puts a message on the link, if the link does not lose it.
func (n *Node) Send(to netstack.NodeID, class netstack.Class, payload []byte) error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if err := n.known(to); err != nil {
		return err
	}
	if len(payload) > netstack.MaxBytes(class) {
		n.count.RefusedTooLarge++
		return fmt.Errorf("%w: %d bytes, class %v takes %d", netstack.ErrTooLarge, len(payload), class, netstack.MaxBytes(class))
	}
	n.count.SentMessages[class]++
	n.count.SentBytes[class] += uint64(len(payload))
	l := n.net.link(n.id, to)
	delay, lost := l.pass()
	if lost || !n.net.reaches(n.id, to) {
		return nil
	}
	e := &event{from: n.id, to: to, link: l, class: class, size: len(payload)}
	e.run = func(to *Node) { to.arrive(class, netstack.Message{From: n.id, Payload: slices.Clone(payload)}) }
	n.count.DroppedSendFull[class] += uint64(n.net.enter(e))
	n.net.schedule(e, delay)
	return nil
}

// arrive queues a received message and pushes out the oldest if there is no room.
func (n *Node) arrive(class netstack.Class, m netstack.Message) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return
	}
	n.count.ReceivedMessages[class]++
	n.count.ReceivedBytes[class] += uint64(len(m.Payload))
	n.count.DroppedReceiveFull[class] += offer(n.receive[class], m)
}

// offer sends m on a channel that nobody else sends on, pushing out the oldest while it is full.
func offer(to chan netstack.Message, m netstack.Message) (dropped uint64) {
	for {
		select {
		case to <- m:
			return dropped
		default:
		}
		select {
		case <-to:
			dropped++
		default:
		}
	}
}

// Receive is the queue of a class.
func (n *Node) Receive(class netstack.Class) <-chan netstack.Message { return n.receive[class] }

// Serve registers the handler of a protocol.
func (n *Node) Serve(p netstack.Protocol, h netstack.Handler) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.handlers[p] = h
}

// answer ends a request: an answer or the text of a refusal.
type answer struct {
	payload []byte
	refusal string
}

const maxRefusalBytes = 256

// Request asks a peer. Its own limit is Config.RequestTime.
func (n *Node) Request(ctx context.Context, to netstack.NodeID, p netstack.Protocol, request []byte) ([]byte, error) {
	n.net.mu.Lock()
	err := n.known(to)
	if err == nil && len(request) > netstack.MaxRequestBytes {
		n.count.RefusedTooLarge++
		err = fmt.Errorf("%w: request of %d bytes, at most %d", netstack.ErrTooLarge, len(request), netstack.MaxRequestBytes)
	}
	if err == nil && (n.net.nodes[to] == nil || !n.net.reaches(n.id, to)) {
		err = fmt.Errorf("%w: %s: not connected", netstack.ErrNotReached, to.Short())
	}
	slots := n.slotsFor(slotKey{peer: to})
	n.net.mu.Unlock()
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithTimeout(ctx, n.net.config.RequestTime)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		back := make(chan answer, 1)
		n.carry(to, func(there *Node) { there.serve(own, n.id, p, slices.Clone(request), back) })
		select {
		case a := <-back:
			if a.refusal != "" {
				return nil, fmt.Errorf("%w: %s", netstack.ErrRefused, a.refusal)
			}
			return a.payload, nil
		case <-own.Done():
		}
	case <-own.Done():
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case n.ctx.Err() != nil:
		return nil, netstack.ErrClosed
	}
	return nil, fmt.Errorf("%w: %s did not answer within %v", netstack.ErrNotReached, to.Short(), n.net.config.RequestTime)
}

// carry brings a request or answer to a node, late where it is drawn as lost.
func (n *Node) carry(to netstack.NodeID, run func(*Node)) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	l := n.net.link(n.id, to)
	total, lost := l.pass()
	for tries := 0; lost && tries < 10; tries++ {
		var again time.Duration
		again, lost = l.pass()
		total += again + resendDelay
	}
	if lost || !n.net.reaches(n.id, to) {
		return
	}
	n.net.schedule(&event{from: n.id, to: to, run: run}, total)
}

// slotsFor finds or makes the slots of requests with a peer. The caller holds net.mu.
func (n *Node) slotsFor(key slotKey) chan struct{} {
	if n.slots[key] == nil {
		n.slots[key] = make(chan struct{}, n.net.config.Requests)
	}
	return n.slots[key]
}

// serve runs the handler on a goroutine and carries its answer back. asker ends when nobody waits for it any more.
func (n *Node) serve(asker context.Context, from netstack.NodeID, p netstack.Protocol, request []byte, back chan<- answer) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return
	}
	h := n.handlers[p]
	slots := n.slotsFor(slotKey{from, true})
	n.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, n.net.config.RequestTime)
		defer cancel()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return
		case <-asker.Done():
			return
		}
		a := n.handle(ctx, h, from, p, request)
		n.carry(from, func(*Node) { back <- a })
	})
}

// handle runs a handler and counts.
func (n *Node) handle(ctx context.Context, h netstack.Handler, from netstack.NodeID, p netstack.Protocol, request []byte) answer {
	err := fmt.Errorf("peer does not serve %s", p)
	var a answer
	if h != nil {
		a.payload, err = h(ctx, from, request)
		a.payload = slices.Clone(a.payload)
	}
	if err == nil && len(a.payload) > netstack.MaxResponseBytes {
		err = errors.New("the answer is too large; ask for less")
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if err != nil {
		n.count.RequestsRefused++
		text := err.Error()
		return answer{refusal: text[:min(len(text), maxRefusalBytes)]}
	}
	n.count.RequestsServed++
	return a
}

// Subscribe joins a topic, once.
func (n *Node) Subscribe(t netstack.Topic, judge func(netstack.NodeID, []byte) netstack.Verdict) (<-chan netstack.Message, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return nil, netstack.ErrClosed
	}
	if n.topics[t] != nil {
		return nil, fmt.Errorf("simnet: topic %q is subscribed to already", t)
	}
	tp := &topic{judge: judge, queue: make(chan netstack.Message, gossipQueue)}
	n.topics[t] = tp
	return tp.queue, nil
}

// Publish floods payload from here.
func (n *Node) Publish(t netstack.Topic, payload []byte) error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.closed {
		return netstack.ErrClosed
	}
	if len(payload) > netstack.MaxGossipBytes {
		n.count.RefusedTooLarge++
		return fmt.Errorf("%w: gossip of %d bytes, at most %d", netstack.ErrTooLarge, len(payload), netstack.MaxGossipBytes)
	}
	if n.topics[t] == nil {
		return fmt.Errorf("simnet: topic %q is not subscribed to", t)
	}
	n.count.GossipPublished++
	if n.isNew(t, payload) {
		n.flood(t, payload, n.id)
	}
	return nil
}

// isNew tells whether a gossiped message is seen for the first time, and remembers it. The caller holds net.mu.
func (n *Node) isNew(t netstack.Topic, payload []byte) bool {
	h := sha256.New()
	h.Write([]byte(t))
	h.Write([]byte{0})
	h.Write(payload)
	id := [32]byte(h.Sum(nil))
	if _, ok := n.seen[id]; ok {
		return false
	}
	n.seen[id] = struct{}{}
	n.seenRing = append(n.seenRing, id)
	if len(n.seenRing) > gossipSeen {
		delete(n.seen, n.seenRing[0])
		n.seenRing = n.seenRing[1:]
	}
	return true
}

// flood sends a gossiped message to every subscriber but the one it came from. The caller holds net.mu.
func (n *Node) flood(t netstack.Topic, payload []byte, from netstack.NodeID) {
	for _, to := range n.net.everyone() {
		if to == n.id || to == from || n.net.nodes[to] == nil || n.net.nodes[to].topics[t] == nil {
			continue
		}
		delay, lost := n.net.link(n.id, to).pass()
		if lost || !n.net.reaches(n.id, to) {
			continue
		}
		n.net.schedule(&event{from: n.id, to: to, run: func(there *Node) { there.hear(t, payload, n.id) }}, delay)
	}
}

// hear takes a gossiped message: if it is new and accepted, it is delivered and passed on.
func (n *Node) hear(t netstack.Topic, payload []byte, from netstack.NodeID) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	tp := n.topics[t]
	if n.closed || tp == nil || !n.isNew(t, payload) {
		return
	}
	n.net.mu.Unlock()
	verdict := netstack.Reject
	if len(payload) <= netstack.MaxGossipBytes {
		verdict = tp.judge(from, payload)
	}
	n.net.mu.Lock()
	switch {
	case n.closed:
	case verdict == netstack.Reject:
		n.count.GossipInvalid++
	case verdict == netstack.Ignore:
		n.count.GossipIgnored++
	default:
		n.count.GossipReceived++
		n.count.GossipDroppedFull += offer(tp.queue, netstack.Message{From: from, Payload: slices.Clone(payload)})
		n.flood(t, payload, from)
	}
}

// Peers are the other nodes, in order of their ids, those that have left included.
func (n *Node) Peers() []netstack.PeerInfo {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	var out []netstack.PeerInfo
	for _, id := range n.net.everyone() {
		if id == n.id {
			continue
		}
		there, back := n.net.link(n.id, id), n.net.link(id, n.id)
		p := netstack.PeerInfo{
			ID: id, Addrs: []string{"/sim/" + id.Short()},
			Connected: n.net.nodes[id] != nil && n.net.reaches(n.id, id),
		}
		if p.Connected {
			p.RTTMs = (there.Delay + back.Delay).Seconds() * 1e3
		}
		out = append(out, p)
	}
	return out
}

// Counters is a snapshot. SentMessages counts every Send that was taken.
func (n *Node) Counters() netstack.Counters {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.count
}

// Close takes the node out of the network, waits for its handlers and closes its channels.
func (n *Node) Close() error {
	n.net.mu.Lock()
	if n.closed {
		n.net.mu.Unlock()
		<-n.done
		return nil
	}
	n.closed = true
	delete(n.net.nodes, n.id)
	n.net.left[n.id] = true
	n.cancel()
	for _, c := range n.receive {
		close(c)
	}
	for _, t := range n.topics {
		close(t.queue)
	}
	n.net.mu.Unlock()
	n.tasks.Wait()
	close(n.done)
	return nil
}
