package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"tutti/netstack"
)

// maxPenalties bounds the memory of who is cut off.
const maxPenalties = 2048

// Node is a netstack.Transport. All methods are safe for concurrent use.
type Node struct {
	self   netstack.NodeID
	limits Limits
	host   *host
	gossip *gossip
	count  counters

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup // every goroutine of this package; added to under mu while not closed
	done   chan struct{}  // closed when Close has finished

	receive   [netstack.Classes]chan netstack.Message // closed by Close, after tasks
	dialSlots chan struct{}

	mu           sync.RWMutex
	closed       bool
	links        map[netstack.NodeID]*link // peers and, while connected, strangers
	byPeer       map[peer.ID]*link         // the same links
	penalties    map[netstack.NodeID]time.Time
	maxStrangers int // 0: none may connect
	strangers    int
}

var _ netstack.Transport = (*Node)(nil)

// New starts a node: it listens, and connects to its peers in the background. When ctx ends the node stops working;
// Close must be called in any case. An error says what to change: a busy port, an address of another machine, a
// malformed peer entry.
func New(ctx context.Context, c Config) (*Node, error) {
	limits := c.Limits.withDefaults(len(c.Peers))
	if err := limits.check(); err != nil {
		return nil, err
	}
	listen, err := parseAddrs("listen", c.Listen)
	if err != nil {
		return nil, err
	}
	key, self, err := privateKey(c.Seed)
	if err != nil {
		return nil, fmt.Errorf("p2p: node key: %w", err)
	}
	n := &Node{
		self: self, limits: limits,
		done:      make(chan struct{}),
		dialSlots: make(chan struct{}, limits.DialsAtOnce),
		links:     map[netstack.NodeID]*link{},
		byPeer:    map[peer.ID]*link{},
		penalties: map[netstack.NodeID]time.Time{},
	}
	if c.AllowStrangers {
		n.maxStrangers = c.MaxStrangers
		fill(&n.maxStrangers, 64)
	}
	for class := range n.receive {
		n.receive[class] = make(chan netstack.Message, limits.Receive[class])
	}
	n.ctx, n.cancel = context.WithCancel(ctx)
	if err := n.startHost(key, listen); err != nil {
		n.cancel()
		return nil, err
	}
	if err := n.SetPeers(c.Peers); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// startHost sets up libp2p and gossip and listens last, when everything can be served.
func (n *Node) startHost(key crypto.PrivKey, listen []ma.Multiaddr) error {
	h, err := newHost(key, n.limits, gater{n}, &n.count.wire, n.newestConn)
	if err != nil {
		return fmt.Errorf("p2p: libp2p: %w", err)
	}
	n.host = h
	h.swarm.Notify(&network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { n.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { n.disconnected(c) },
	})
	for class := range netstack.Class(netstack.Classes) {
		n.handle(classProtocol(class), func(l *link, s network.Stream) { n.readClass(l, class, s) })
	}
	n.handle(pingProtocol, answerPing)
	if n.gossip, err = newGossip(n); err != nil {
		return errors.Join(fmt.Errorf("p2p: gossip: %w", err), h.Close())
	}
	if err := h.listen(listen); err != nil {
		return errors.Join(err, h.Close())
	}
	return nil
}

// Self is the public key of Config.Seed.
func (n *Node) Self() netstack.NodeID { return n.self }

// Addrs are the addresses listened on, with the ports that the system chose.
func (n *Node) Addrs() []string {
	var out []string
	for _, a := range n.host.swarm.ListenAddresses() {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return out
}

// SetPeers replaces the peer list: new peers are dialled, those that are gone are cut off, and the others keep their
// connections. On error nothing has changed.
func (n *Node) SetPeers(peers []Peer) error {
	type entry struct {
		pid   peer.ID
		addrs []ma.Multiaddr
	}
	list := map[netstack.NodeID]entry{}
	for _, p := range peers {
		addrs, err := parseAddrs("peer "+p.ID.Short(), p.Addrs)
		if err != nil {
			return err
		}
		pid, err := peerID(p.ID)
		if err != nil {
			return fmt.Errorf("p2p: peer %s: %w", p.ID.Short(), err)
		}
		if _, twice := list[p.ID]; twice {
			return fmt.Errorf("p2p: peer %s is listed twice; merge its addresses into one entry", p.ID.Short())
		}
		list[p.ID] = entry{pid, addrs}
	}
	delete(list, n.self)

	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return netstack.ErrClosed
	}
	var gone, fresh []*link
	for id, l := range n.links {
		e, listed := list[id]
		switch {
		case l.stranger == listed: // a stranger who becomes a peer gets a new link; a peer who is gone gets none
			gone = append(gone, l)
			n.forget(l)
		case listed:
			l.setAddrs(e.addrs)
		}
	}
	for id, e := range list {
		if n.links[id] == nil {
			l := newLink(n, id, e.pid, e.addrs)
			n.links[id], n.byPeer[e.pid] = l, l
			fresh = append(fresh, l)
		}
	}
	n.mu.Unlock()

	for _, l := range gone {
		l.stop()
	}
	for _, l := range fresh {
		n.spawn(l.keep)
	}
	return nil
}

// Penalise cuts a node off until a time: its connections are closed, it is neither dialled nor let in, and messages
// to it wait in their queues and grow stale. A time in the past lifts an earlier penalty.
func (n *Node) Penalise(id netstack.NodeID, until time.Time) {
	n.mu.Lock()
	now := time.Now()
	if until.After(now) {
		maps.DeleteFunc(n.penalties, func(_ netstack.NodeID, t time.Time) bool { return !t.After(now) })
		if _, had := n.penalties[id]; !had && len(n.penalties) >= maxPenalties {
			first := slices.MinFunc(slices.Collect(maps.Keys(n.penalties)), func(a, b netstack.NodeID) int {
				return n.penalties[a].Compare(n.penalties[b])
			})
			delete(n.penalties, first)
		}
		n.penalties[id] = until
	} else {
		delete(n.penalties, id)
	}
	l := n.links[id]
	n.mu.Unlock()
	if l == nil {
		return
	}
	if until.After(now) {
		l.closeConns()
	}
	l.poke()
}

// penalised tells whether a node is cut off now, and penaltyLeft for how long.
func (n *Node) penalised(id netstack.NodeID) bool { return n.penaltyLeft(id) > 0 }

func (n *Node) penaltyLeft(id netstack.NodeID) time.Duration {
	n.mu.RLock()
	defer n.mu.RUnlock()
	until, ok := n.penalties[id]
	if !ok {
		return 0
	}
	return time.Until(until)
}

// Send queues payload for the peer and class; see netstack.Transport.
func (n *Node) Send(to netstack.NodeID, class netstack.Class, payload []byte) error {
	l, err := n.peerLink(to)
	if err != nil {
		return err
	}
	if len(payload) > netstack.MaxBytes(class) {
		n.count.refusedTooLarge.Add(1)
		return fmt.Errorf("%w: %d bytes, class %v takes %d", netstack.ErrTooLarge, len(payload), class, netstack.MaxBytes(class))
	}
	out := l.out[class]
	if dropped := out.push(payload, time.Now()); dropped > 0 {
		n.count.droppedSendFull[class].Add(uint64(dropped))
	}
	out.start.Do(func() { n.spawn(func() { l.write(class) }) })
	return nil
}

// Receive is the queue of a class. A full queue drops its oldest message.
func (n *Node) Receive(class netstack.Class) <-chan netstack.Message { return n.receive[class] }

// Peers is sorted by NodeID.
func (n *Node) Peers() []netstack.PeerInfo {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []netstack.PeerInfo
	for _, l := range n.links {
		if l.stranger {
			continue
		}
		info := l.info()
		if until := n.penalties[l.id]; until.After(time.Now()) {
			info.LastError = "cut off by this node until " + until.Format(time.TimeOnly)
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b netstack.PeerInfo) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

// Close ends all traffic, waits for every goroutine of this package, handlers of requests included, and closes the
// channels. Later calls wait for the first and return nil.
func (n *Node) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	n.mu.Unlock()
	if !first {
		<-n.done
		return nil
	}
	n.cancel()
	err := n.host.Close()
	n.tasks.Wait()
	for _, c := range n.receive {
		close(c)
	}
	n.gossip.close()
	close(n.done)
	return err
}

// spawn runs f on a goroutine that Close waits for; false when closed.
func (n *Node) spawn(f func()) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return false
	}
	n.tasks.Go(f)
	return true
}

// handle registers what is done with inbound streams of a protocol. f runs on the stream's goroutine, which Close
// waits for; it owns the stream.
func (n *Node) handle(p protocol.ID, f func(*link, network.Stream)) {
	n.host.SetStreamHandler(p, func(s network.Stream) {
		n.mu.RLock()
		l := n.byPeer[s.Conn().RemotePeer()]
		if l == nil || n.closed {
			n.mu.RUnlock()
			_ = s.Reset()
			return
		}
		n.tasks.Add(1)
		n.mu.RUnlock()
		defer n.tasks.Done()
		f(l, s)
	})
}

// peerLink finds a configured peer.
func (n *Node) peerLink(id netstack.NodeID) (*link, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed || n.ctx.Err() != nil {
		return nil, netstack.ErrClosed
	}
	l := n.links[id]
	if l == nil || l.stranger {
		n.count.refusedUnknownPeer.Add(1)
		return nil, fmt.Errorf("%w: %s", netstack.ErrUnknownPeer, id.Short())
	}
	return l, nil
}

// linkOf finds the link of a peer or connected stranger; nil if there is none.
func (n *Node) linkOf(p peer.ID) *link {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byPeer[p]
}

func (n *Node) newestConn(p peer.ID) network.Conn {
	if l := n.linkOf(p); l != nil {
		return l.newest()
	}
	return nil
}

// roomForStranger tells whether a node outside the peer list may connect.
func (n *Node) roomForStranger(p peer.ID) bool {
	id, ok := nodeID(p)
	n.mu.RLock()
	defer n.mu.RUnlock()
	return ok && n.strangers < n.maxStrangers && !n.penalties[id].After(time.Now())
}

// connected takes over a connection that has passed the gater.
func (n *Node) connected(c network.Conn) {
	n.count.wire.meterQUIC(c)
	n.mu.Lock()
	pid := c.RemotePeer()
	l := n.byPeer[pid]
	if l == nil && n.strangers < n.maxStrangers && !n.closed {
		if id, ok := nodeID(pid); ok {
			l = newLink(n, id, pid, nil)
			l.stranger = true
			n.links[id], n.byPeer[pid] = l, l
			n.strangers++
		}
	}
	n.mu.Unlock()
	if l == nil { // taken off the list during the handshake, or one stranger too many
		_ = c.Close()
		return
	}
	l.add(c)
	n.gossip.connected(c)
}

func (n *Node) disconnected(c network.Conn) {
	n.count.wire.end(c)
	l := n.linkOf(c.RemotePeer())
	if l == nil {
		return
	}
	if left := l.remove(c); left == 0 && l.stranger {
		n.mu.Lock()
		if n.links[l.id] == l && l.newest() == nil {
			n.forget(l)
		}
		n.mu.Unlock()
		l.stop()
	}
}

// forget takes a link out of the tables. The caller holds mu.
func (n *Node) forget(l *link) {
	delete(n.links, l.id)
	delete(n.byPeer, l.pid)
	if l.stranger {
		n.strangers--
	}
}
