package p2p

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
	"golang.org/x/time/rate"

	"tutti/netstack"
)

const (
	pingProtocol = protocol.ID("/tutti/ping/1") // eight bytes there and back
	pingBytes    = 8
	// secondDialer is how long the node with the higher NodeID leaves the dialling to the other.
	secondDialer = 500 * time.Millisecond
	// A connection that ends sooner than this counts as a failed attempt: the other side completes the handshake
	// before it can refuse.
	shortLife = 5 * time.Second
)

// link is what this node keeps for one peer, connected or not.
type link struct {
	n        *Node
	id       netstack.NodeID
	pid      peer.ID
	stranger bool // not in the peer list: requests and gossip only, lives as long as its connections

	ctx    context.Context // ends when the peer is taken off the list, or with the node
	cancel context.CancelFunc
	poked  chan struct{} // one token: connections, addresses or penalty have changed

	out     [netstack.Classes]*outbox
	in      [netstack.Classes]inbound
	asking  chan struct{} // slots of our requests to the peer
	serving chan struct{} // slots of its requests to us

	mu      sync.Mutex
	stopped bool
	addrs   []ma.Multiaddr
	conns   []network.Conn // live, the oldest first
	up      chan struct{}  // closed while conns is not empty
	rtt     time.Duration  // smoothed; 0 while unknown
	problem string         // of the last attempt to connect
	fails   int            // attempts that failed in a row
	dialAt  time.Time      // when to try next; zero while connected or not yet decided
}

// inbound bounds what the peer sends in a class, over all its streams.
type inbound struct {
	messages, bytes *rate.Limiter
	streams         atomic.Int32
}

func newLink(n *Node, id netstack.NodeID, pid peer.ID, addrs []ma.Multiaddr) *link {
	l := &link{
		n: n, id: id, pid: pid, addrs: addrs,
		poked:   make(chan struct{}, 1),
		asking:  make(chan struct{}, n.limits.Requests),
		serving: make(chan struct{}, n.limits.Requests),
		up:      make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(n.ctx)
	for c := range netstack.Class(netstack.Classes) {
		l.out[c] = newOutbox(n.limits.Send[c], n.limits.SendAge)
		r := n.limits.Rate[c]
		l.in[c].messages = rate.NewLimiter(rate.Limit(r.MessagesPerSecond), max(1, int(r.MessagesPerSecond)))
		l.in[c].bytes = rate.NewLimiter(rate.Limit(r.BytesPerSecond), max(netstack.MaxBytes(c), int(r.BytesPerSecond)))
	}
	return l
}

// stop ends the link's goroutines and connections.
func (l *link) stop() {
	l.cancel()
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.closeConns()
}

// setAddrs replaces the addresses; new ones are tried at once.
func (l *link) setAddrs(addrs []ma.Multiaddr) {
	l.mu.Lock()
	if !slices.EqualFunc(l.addrs, addrs, ma.Multiaddr.Equal) {
		l.addrs, l.fails, l.dialAt = addrs, 0, time.Time{}
	}
	l.mu.Unlock()
	l.poke()
}

// poke makes keep look again.
func (l *link) poke() {
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// add takes over a connection. A peer dials only when it has no connection that it believes in, so an inbound one
// replaces earlier inbound ones; an outbound one may be the other half of two nodes that dialled at once, and stays.
func (l *link) add(c network.Conn) {
	l.mu.Lock()
	var old []network.Conn
	if l.stopped {
		old = []network.Conn{c}
	} else {
		if c.Stat().Direction == network.DirInbound {
			for _, o := range l.conns {
				if o.Stat().Direction == network.DirInbound {
					old = append(old, o)
				}
			}
		}
		l.conns = append(l.conns, c)
		l.problem, l.dialAt = "", time.Time{}
		if len(l.conns) == 1 {
			close(l.up)
		}
	}
	l.mu.Unlock()
	for _, o := range old {
		_ = o.Close()
	}
	l.poke()
}

// remove drops a closed connection and returns how many are left.
func (l *link) remove(c network.Conn) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.conns, c)
	if i < 0 {
		return len(l.conns)
	}
	l.conns = slices.Delete(l.conns, i, i+1)
	if len(l.conns) == 0 {
		l.up = make(chan struct{})
		l.rtt = 0
		if time.Since(c.Stat().Opened) >= shortLife {
			l.fails = 0
		} else {
			l.fails++
			l.problem = "the connection ended at once; is this node in the peer's list of peers?"
		}
	}
	l.poke()
	return len(l.conns)
}

// newest is the connection that new streams use, or nil.
func (l *link) newest() network.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.conns) - 1; i >= 0; i-- {
		if !l.conns[i].IsClosed() {
			return l.conns[i]
		}
	}
	return nil
}

// await waits for a connection; nil when ctx has ended.
func (l *link) await(ctx context.Context) network.Conn {
	for ctx.Err() == nil {
		l.mu.Lock()
		up := l.up
		l.mu.Unlock()
		select {
		case <-up:
		case <-ctx.Done():
			return nil
		}
		if c := l.newest(); c != nil {
			return c
		}
		pause(ctx, 10*time.Millisecond) // closed, and the swarm is about to say so
	}
	return nil
}

func (l *link) closeConns() {
	l.mu.Lock()
	conns := slices.Clone(l.conns)
	l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (l *link) info() netstack.PeerInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	info := netstack.PeerInfo{ID: l.id, Connected: len(l.conns) > 0, RTTMs: l.rtt.Seconds() * 1e3, LastError: l.problem}
	for _, a := range l.addrs {
		info.Addrs = append(info.Addrs, a.String())
	}
	return info
}

// keep holds the peer connected until the link ends: it dials with growing pauses, and tests what is connected.
func (l *link) keep() {
	for l.ctx.Err() == nil {
		if wait := l.n.penaltyLeft(l.id); wait > 0 {
			l.rest(wait)
			continue
		}
		if l.newest() != nil {
			l.rest(jitter(l.n.limits.PingInterval))
			l.pingAll()
			l.thin(shortLife)
			continue
		}
		if wait := l.untilDial(); wait > 0 {
			l.rest(wait)
			continue
		}
		l.dial()
	}
}

// untilDial is how long to wait before the next attempt.
func (l *link) untilDial() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.addrs) == 0 { // the peer must dial us
		return l.n.limits.RedialMax
	}
	if l.dialAt.IsZero() {
		var wait time.Duration
		switch {
		case l.fails > 0:
			wait = jitter(min(l.n.limits.RedialMin<<min(l.fails-1, 20), l.n.limits.RedialMax))
		case bytes.Compare(l.n.self[:], l.id[:]) > 0:
			wait = secondDialer
		}
		l.dialAt = time.Now().Add(wait)
	}
	return time.Until(l.dialAt)
}

// rest waits for a time, or until something about the link has changed.
func (l *link) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.poked:
	case <-l.ctx.Done():
	}
}

// dial makes one attempt, when a slot is free.
func (l *link) dial() {
	select {
	case l.n.dialSlots <- struct{}{}:
		defer func() { <-l.n.dialSlots }()
	case <-l.ctx.Done():
		return
	}
	h := l.n.host
	l.mu.Lock()
	addrs := l.addrs
	l.mu.Unlock()
	h.Peerstore().ClearAddrs(l.pid)
	h.Peerstore().AddAddrs(l.pid, addrs, peerstore.PermanentAddrTTL)
	h.swarm.Backoff().Clear(l.pid) // keep paces itself
	_, err := h.swarm.DialPeer(l.ctx, l.pid)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) > 0 {
		return
	}
	l.dialAt = time.Now().Add(10 * time.Millisecond) // of a connection that is not yet, or no longer, known here
	if err != nil {
		l.dialAt = time.Time{}
		l.fails++
		l.problem = strings.Join(strings.Fields(err.Error()), " ")
	}
}

// pingAll tests every connection at once and closes those that do not answer.
func (l *link) pingAll() {
	l.mu.Lock()
	conns := slices.Clone(l.conns)
	l.mu.Unlock()
	var wait sync.WaitGroup
	for _, c := range conns {
		wait.Go(func() {
			rtt, err := l.ping(c)
			if err != nil {
				if l.ctx.Err() == nil {
					_ = c.Close()
				}
				return
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.rtt == 0 {
				l.rtt = rtt
			}
			l.rtt = (3*l.rtt + rtt) / 4
		})
	}
	wait.Wait()
}

// thin closes the second of two connections of some age that stand since both nodes dialled at once. Only the node with the lower
// NodeID does so, and keeps its own, so that the two never close one each.
func (l *link) thin(age time.Duration) {
	if bytes.Compare(l.n.self[:], l.id[:]) > 0 {
		return
	}
	var ours, theirs network.Conn
	l.mu.Lock()
	for _, c := range l.conns {
		stat := c.Stat()
		switch {
		case c.IsClosed() || time.Since(stat.Opened) < age:
		case stat.Direction == network.DirOutbound:
			ours = c
		default:
			theirs = c
		}
	}
	l.mu.Unlock()
	if ours != nil && theirs != nil {
		_ = theirs.Close()
	}
}

// ping is one round trip on a stream of its own.
func (l *link) ping(c network.Conn) (rtt time.Duration, err error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.n.limits.PingTimeout)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { finish(s, err) }()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if err := s.SetProtocol(pingProtocol); err != nil {
		return 0, err
	}
	lazy := multistream.NewMSSelect(s, pingProtocol)
	var buf [pingBytes]byte
	binary.BigEndian.PutUint64(buf[:], rand.Uint64())
	start := time.Now()
	if _, err := lazy.Write(buf[:]); err != nil {
		return 0, err
	}
	var back [pingBytes]byte
	if _, err := io.ReadFull(lazy, back[:]); err != nil {
		return 0, err
	}
	if back != buf {
		return 0, io.ErrUnexpectedEOF
	}
	return time.Since(start), nil
}

// answerPing serves one ping.
func answerPing(_ *link, s network.Stream) {
	var buf [pingBytes]byte
	err := s.SetDeadline(time.Now().Add(negotiateTime))
	if err == nil {
		_, err = io.ReadFull(s, buf[:])
	}
	if err == nil {
		_, err = s.Write(buf[:])
	}
	finish(s, err)
}

// finish closes a stream that did its work and resets one that did not. Over QUIC a reset would also destroy what is
// still under way to the other side.
func finish(s network.Stream, err error) {
	if err != nil {
		_ = s.Reset()
	} else {
		_ = s.Close()
	}
}

// jitter is d, a quarter more or less.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
