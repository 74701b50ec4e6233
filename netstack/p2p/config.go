package p2p

import (
	"errors"
	"fmt"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"tutti/netstack"
)

// Peer is one entry of the peer list.
type Peer struct {
	ID    netstack.NodeID
	Addrs []string // multiaddresses, as "/ip4/192.0.2.7/tcp/9000" or "/dns4/a.example/udp/9000/quic-v1"
}

// Config is what New needs. The zero value of every field but Seed and Listen is usable.
type Config struct {
	Seed   [32]byte // Ed25519 seed (RFC 8032); its public key is the NodeID
	Listen []string // multiaddresses to listen on; port 0 lets the system choose; empty listens nowhere
	Peers  []Peer   // from genesis or the configuration; an entry for this node itself is passed over

	// AllowStrangers lets nodes outside Peers connect, make requests and gossip, at most MaxStrangers at a time.
	// Their class messages are refused and nothing can be sent to them. Validators leave it false.
	AllowStrangers bool
	MaxStrangers   int // 0 means 64

	Limits Limits // zero fields are replaced by those of DefaultLimits
}

// QueueLimit bounds a queue. What does not fit pushes out the oldest.
type QueueLimit struct {
	Messages int
	Bytes    int
}

// Rate bounds what one peer may send in a class. Up to one second's worth, and at least one message of the largest
// size, may come in one burst.
type Rate struct {
	MessagesPerSecond float64
	BytesPerSecond    float64
}

// Limits are the bounds of a Node. Arrays are indexed by netstack.Class.
type Limits struct {
	Send         [netstack.Classes]QueueLimit // queue to one peer; oldest dropped when full (DroppedSendFull)
	SendAge      time.Duration                // what waited longer for an unreachable peer is dropped (DroppedSendStale)
	WriteTimeout time.Duration                // for one write; large ones get a second more for each 512 KiB
	Receive      [netstack.Classes]int        // messages of all peers awaiting our reader; oldest dropped when full
	Rate         [netstack.Classes]Rate       // inbound, each peer; what is over it is dropped (RefusedRate)

	Requests    int           // requests in progress with one peer, each direction; further ones wait
	RequestTime time.Duration // for one request, queueing and answer included

	GossipQueue     int           // messages of one topic awaiting our reader; oldest dropped when full
	GossipHeartbeat time.Duration // period of gossipsub's upkeep

	DialsAtOnce  int           // connection attempts in progress
	DialTimeout  time.Duration // of an attempt over one address, handshake included
	RedialMin    time.Duration // pause after the first failed attempt; doubles, with jitter, up to RedialMax
	RedialMax    time.Duration
	PingInterval time.Duration // how often a connection is tested; by default longer where there are over 160 peers
	PingTimeout  time.Duration // a connection that does not answer for this long is closed and redialled

	Peers        int   // size for which connection and stream limits are laid out; at least that of the peer list
	WindowMemory int64 // bytes of stream windows granted to all peers together
}

// pingPace is the least time between two pings; testing one peer costs both sides together about 0.4 ms of CPU.
const pingPace = 60 * time.Millisecond

// DefaultLimits suit a validator in a committee of a few to about a thousand.
func DefaultLimits() Limits {
	return Limits{
		Send: [netstack.Classes]QueueLimit{
			netstack.ClassVote:        {Messages: 4096, Bytes: 2 << 20},
			netstack.ClassProposal:    {Messages: 16, Bytes: 32 << 20},
			netstack.ClassTransaction: {Messages: 64, Bytes: 32 << 20},
		},
		SendAge:      5 * time.Second,
		WriteTimeout: 10 * time.Second,
		Receive: [netstack.Classes]int{
			netstack.ClassVote:        8192,
			netstack.ClassProposal:    32,
			netstack.ClassTransaction: 128,
		},
		Rate: [netstack.Classes]Rate{
			netstack.ClassVote:        {MessagesPerSecond: 20_000, BytesPerSecond: 8 << 20},
			netstack.ClassProposal:    {MessagesPerSecond: 200, BytesPerSecond: 128 << 20},
			netstack.ClassTransaction: {MessagesPerSecond: 2_000, BytesPerSecond: 64 << 20},
		},
		Requests:        8,
		RequestTime:     30 * time.Second,
		GossipQueue:     256,
		GossipHeartbeat: time.Second,
		DialsAtOnce:     32,
		DialTimeout:     5 * time.Second,
		RedialMin:       100 * time.Millisecond,
		RedialMax:       5 * time.Second,
		PingInterval:    10 * time.Second,
		PingTimeout:     5 * time.Second,
		Peers:           1024,
		WindowMemory:    4 << 30,
	}
}

// withDefaults fills the zero fields.
func (l Limits) withDefaults(peers int) Limits {
	d := DefaultLimits()
	for c := range netstack.Classes {
		fill(&l.Send[c].Messages, d.Send[c].Messages)
		fill(&l.Send[c].Bytes, d.Send[c].Bytes)
		fill(&l.Receive[c], d.Receive[c])
		fill(&l.Rate[c].MessagesPerSecond, d.Rate[c].MessagesPerSecond)
		fill(&l.Rate[c].BytesPerSecond, d.Rate[c].BytesPerSecond)
	}
	fill(&l.SendAge, d.SendAge)
	fill(&l.WriteTimeout, d.WriteTimeout)
	fill(&l.Requests, d.Requests)
	fill(&l.RequestTime, d.RequestTime)
	fill(&l.GossipQueue, d.GossipQueue)
	fill(&l.GossipHeartbeat, d.GossipHeartbeat)
	fill(&l.DialsAtOnce, d.DialsAtOnce)
	fill(&l.DialTimeout, d.DialTimeout)
	fill(&l.RedialMin, d.RedialMin)
	fill(&l.RedialMax, d.RedialMax)
	fill(&l.PingInterval, max(d.PingInterval, time.Duration(peers)*pingPace))
	fill(&l.PingTimeout, d.PingTimeout)
	fill(&l.Peers, d.Peers)
	fill(&l.WindowMemory, d.WindowMemory)
	l.Peers = max(l.Peers, peers)
	return l
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check refuses limits that cannot work.
func (l Limits) check() error {
	for c := range netstack.Class(netstack.Classes) {
		if l.Send[c].Messages < 1 || l.Receive[c] < 1 {
			return fmt.Errorf("p2p: the send and receive queues of class %v must hold at least one message", c)
		}
		if l.Send[c].Bytes < netstack.MaxBytes(c) {
			return fmt.Errorf("p2p: the send queue of class %v must hold one message of %d bytes; raise Limits.Send",
				c, netstack.MaxBytes(c))
		}
		if l.Rate[c].MessagesPerSecond < 0 || l.Rate[c].BytesPerSecond < 0 {
			return fmt.Errorf("p2p: the rate of class %v must not be negative", c)
		}
	}
	for _, d := range []time.Duration{
		l.SendAge, l.WriteTimeout, l.RequestTime, l.GossipHeartbeat,
		l.DialTimeout, l.RedialMin, l.RedialMax, l.PingInterval, l.PingTimeout,
	} {
		if d <= 0 {
			return errors.New("p2p: every duration in Limits must be positive")
		}
	}
	if l.Requests < 1 || l.GossipQueue < 1 || l.DialsAtOnce < 1 || l.WindowMemory < 1 {
		return errors.New("p2p: every count in Limits must be positive")
	}
	return nil
}

// parseAddrs reads multiaddresses and refuses those that no transport of ours can use.
func parseAddrs(what string, addrs []string) ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err == nil && !isTCP(a) && !isQUIC(a) {
			err = errors.New("neither TCP nor QUIC")
		}
		if err != nil {
			return nil, fmt.Errorf("p2p: %s: address %q: %s; write it as /ip4/192.0.2.7/tcp/9000 or /ip4/192.0.2.7/udp/9000/quic-v1",
				what, s, strings.TrimSpace(err.Error()))
		}
		out = append(out, a)
	}
	return out, nil
}

func isTCP(a ma.Multiaddr) bool  { return lastProtocol(a) == ma.P_TCP }
func isQUIC(a ma.Multiaddr) bool { return lastProtocol(a) == ma.P_QUIC_V1 }

// lastProtocol is the code of the last component, 0 for an empty address.
func lastProtocol(a ma.Multiaddr) int {
	if len(a) == 0 {
		return 0
	}
	return a[len(a)-1].Protocol().Code
}
