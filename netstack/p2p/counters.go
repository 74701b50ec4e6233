package p2p

import (
	"sync/atomic"

	"tutti/netstack"
)

// counters is netstack.Counters as atomics; any goroutine adds.
type counters struct {
	sentMessages, sentBytes         [netstack.Classes]atomic.Uint64
	receivedMessages, receivedBytes [netstack.Classes]atomic.Uint64
	droppedSendFull                 [netstack.Classes]atomic.Uint64
	droppedSendStale                [netstack.Classes]atomic.Uint64
	droppedReceiveFull              [netstack.Classes]atomic.Uint64
	refusedTooLarge                 atomic.Uint64
	refusedUnknownPeer              atomic.Uint64
	refusedRate                     atomic.Uint64
	gossipPublished, gossipReceived atomic.Uint64
	gossipInvalid, gossipIgnored    atomic.Uint64
	gossipDroppedFull               atomic.Uint64
	requestsServed, requestsRefused atomic.Uint64
	wire                            wire
}

// Counters is a snapshot; the numbers are each right, not all of the same instant.
func (n *Node) Counters() netstack.Counters {
	c := &n.count
	sent, received := c.wire.total()
	return netstack.Counters{
		SentMessages: load(&c.sentMessages), SentBytes: load(&c.sentBytes),
		ReceivedMessages: load(&c.receivedMessages), ReceivedBytes: load(&c.receivedBytes),
		DroppedSendFull: load(&c.droppedSendFull), DroppedSendStale: load(&c.droppedSendStale),
		DroppedReceiveFull: load(&c.droppedReceiveFull),
		RefusedTooLarge:    c.refusedTooLarge.Load(),
		RefusedUnknownPeer: c.refusedUnknownPeer.Load(),
		RefusedRate:        c.refusedRate.Load(),
		GossipPublished:    c.gossipPublished.Load(), GossipReceived: c.gossipReceived.Load(),
		GossipInvalid: c.gossipInvalid.Load(), GossipIgnored: c.gossipIgnored.Load(), GossipDroppedFull: c.gossipDroppedFull.Load(),
		RequestsServed: c.requestsServed.Load(), RequestsRefused: c.requestsRefused.Load(),
		WireSent: sent, WireReceived: received,
	}
}

func load(from *[netstack.Classes]atomic.Uint64) (out [netstack.Classes]uint64) {
	for i := range from {
		out[i] = from[i].Load()
	}
	return out
}
