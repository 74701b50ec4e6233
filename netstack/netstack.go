// Package netstack carries authenticated messages between nodes. It declares the Transport that the product uses;
// netstack/p2p implements it over go-libp2p (QUIC and TCP), netstack/simnet in memory with seeded delays and losses.
//
// Three shapes of traffic, each bounded, with a word for what happens when it is full:
//
//   - Send: datagram-shaped messages to one peer in a class. Never blocks; when the peer's queue for the class is
//     full the oldest message of a lossy class is dropped and counted. Delivery is best effort; the protocol above
//     repeats what matters.
//   - Request: one question, one answer, to one peer (block sync, receipts, status).
//   - Publish: gossip of small, self-proving messages (certificates, final headers) to everyone on a topic.
//
// A received payload belongs to the receiver. A sent payload must not be modified after the call.
package netstack

import (
	"context"
	"encoding/hex"
	"errors"
)

// NodeID is a node's Ed25519 public key. A Transport never delivers a message under a NodeID that has not proved it.
type NodeID [32]byte

func (n NodeID) String() string { return hex.EncodeToString(n[:]) }

// Short is the first four bytes in hex, for logs.
func (n NodeID) Short() string { return hex.EncodeToString(n[:4]) }

// Class separates queues so that bulk never delays votes.
type Class uint8

const (
	ClassVote        Class = 0 // votes and certificates inside a committee; small, urgent
	ClassProposal    Class = 1 // proposals with bodies; large
	ClassTransaction Class = 2 // batches of client transactions for coming leaders
	Classes                = 3
)

func (c Class) String() string { return [...]string{"vote", "proposal", "transaction"}[c] }

// Protocol names a request/response service, as "/tutti/sync/1".
type Protocol string

// Topic names a gossip topic, as "tutti/final/0".
type Topic string

// Message is one received payload.
type Message struct {
	From    NodeID
	Payload []byte
}

// Handler answers one request. A nil error sends the answer; an error sends its text, cut to 256 bytes, as a
// refusal. It runs on a goroutine of the transport's, at most a configured number at a time for each peer.
type Handler func(ctx context.Context, from NodeID, request []byte) ([]byte, error)

// Errors of a Transport. All are for the one call; none is fatal.
var (
	ErrUnknownPeer = errors.New("netstack: peer is not in the peer list of this node")
	ErrNotReached  = errors.New("netstack: peer cannot be reached now")
	ErrTooLarge    = errors.New("netstack: message is over the limit of its class")
	ErrRefused     = errors.New("netstack: peer refused the request")
	ErrClosed      = errors.New("netstack: transport is closed")
)

// Transport is safe for concurrent use.
type Transport interface {
	// Self is this node's identity.
	Self() NodeID
	// Send queues payload for the peer. It never blocks. It fails with ErrUnknownPeer, ErrTooLarge or ErrClosed;
	// a message that is queued may still be lost.
	Send(to NodeID, class Class, payload []byte) error
	// Receive is the queue of messages of a class from all peers; the same channel at each call. It is closed by Close.
	Receive(class Class) <-chan Message
	// Serve registers the handler of a protocol. Call it before the first request can arrive.
	Serve(p Protocol, h Handler)
	// Request asks a peer and waits for the answer, the context's end, or a limit of the transport's.
	Request(ctx context.Context, to NodeID, p Protocol, request []byte) ([]byte, error)
	// Publish gossips payload. The topic must have been subscribed to.
	Publish(t Topic, payload []byte) error
	// Subscribe joins a topic. judge runs before a message is passed on to other peers: it must be cheap or bounded. The
	// channel drops the oldest message when full.
	Subscribe(t Topic, judge func(from NodeID, payload []byte) Verdict) (<-chan Message, error)
	// Peers is a snapshot of the peer list with what is known of each.
	Peers() []PeerInfo
	// Counters is a snapshot of the traffic counters, by reason.
	Counters() Counters
	// Close ends all traffic and waits for the transport's goroutines.
	Close() error
}

// PeerInfo describes one configured peer.
type PeerInfo struct {
	ID        NodeID
	Addrs     []string
	Connected bool
	RTTMs     float64 // 0 while unknown
	LastError string  // why the last attempt to connect failed; empty while connected or not yet tried
}

// Verdict is what becomes of a gossiped message.
type Verdict uint8

// Verdicts. Only an accepted message is delivered and passed on.
const (
	Reject Verdict = iota // it costs the peer that passed it on its standing
	Ignore                // it can not be judged here, perhaps not yet: nobody's fault
	Accept
)

// Counters counts since start. Arrays are indexed by Class.
type Counters struct {
	SentMessages, SentBytes         [Classes]uint64
	ReceivedMessages, ReceivedBytes [Classes]uint64
	DroppedSendFull                 [Classes]uint64 // our queue to a peer was full
	DroppedSendStale                [Classes]uint64 // waited too long for a peer that could not be reached
	DroppedReceiveFull              [Classes]uint64 // our own reader was behind
	RefusedTooLarge                 uint64
	RefusedUnknownPeer              uint64
	RefusedRate                     uint64
	GossipPublished, GossipReceived uint64
	GossipInvalid, GossipIgnored    uint64 // by Verdict
	GossipDroppedFull               uint64 // our own reader was behind
	RequestsServed, RequestsRefused uint64
	WireSent, WireReceived          uint64 // bytes of all this with framing and headers; 0 where a transport does not count them
}

// Limits of payloads in bytes.
const (
	MaxVoteBytes        = 4 << 10
	MaxProposalBytes    = 9 << 20
	MaxTransactionBytes = 1 << 20
	MaxRequestBytes     = 1 << 20
	MaxResponseBytes    = 16 << 20
	MaxGossipBytes      = 128 << 10
)

// MaxBytes is the payload limit of a class.
func MaxBytes(c Class) int {
	return [...]int{MaxVoteBytes, MaxProposalBytes, MaxTransactionBytes}[c]
}
