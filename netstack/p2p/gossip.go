package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"tutti/netstack"
)

const (
	gossipProtocol  = pubsub.GossipSubID_v12
	gossipOverhead  = 4 << 10 // of an RPC around one message
	maxTopics       = 1024    // distinct topics remembered from all peers
	maxTopicBytes   = 64
	maxPeerTopics   = 256 // topics in one announcement
	topicPrefix     = "tutti/"
	validatorsTotal = 64 // messages being validated at a time, all topics

	// An invalid message counts against the peer that passed it on; the count falls to 1 % in about 8 minutes. The
	// score is minus its square: from 3 on the peer gets no gossip, from 6 on nothing is published to it, from 10 on
	// everything it gossips is ignored unread.
	scoreInterval = 10 * time.Second
	scoreDecay    = 0.91
)

// gossip is the publish side of a Node over gossipsub.
type gossip struct {
	n      *Node
	ps     *pubsub.PubSub
	filter topicFilter

	mu     sync.Mutex
	topics map[netstack.Topic]*topic // only grows, at most maxTopics
}

// topic is one that this node has joined.
type topic struct {
	joined *pubsub.Topic
	queue  chan netstack.Message // closed by gossip.close
}

func newGossip(n *Node) (*gossip, error) {
	g := &gossip{n: n, topics: map[netstack.Topic]*topic{}}
	params := pubsub.DefaultGossipSubParams()
	params.HeartbeatInterval = n.limits.GossipHeartbeat
	quiet := slog.New(slog.DiscardHandler)
	var err error
	g.ps, err = pubsub.NewGossipSub(n.ctx, n.host,
		pubsub.WithLogger(quiet), pubsub.WithRPCLogger(quiet),
		pubsub.WithGossipSubParams(params),
		pubsub.WithGossipSubProtocols([]protocol.ID{gossipProtocol}, pubsub.GossipSubDefaultFeatures),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign),
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithMaxMessageSize(netstack.MaxGossipBytes+gossipOverhead),
		pubsub.WithPeerOutboundQueueSize(128),
		pubsub.WithValidateQueueSize(128),
		pubsub.WithValidateThrottle(validatorsTotal),
		pubsub.WithValidateWorkers(1),
		pubsub.WithSubscriptionFilter(&g.filter),
		pubsub.WithPeerScore(&pubsub.PeerScoreParams{
			SkipAtomicValidation:  true,
			Topics:                map[string]*pubsub.TopicScoreParams{},
			AppSpecificScore:      func(peer.ID) float64 { return 0 },
			DecayInterval:         scoreInterval,
			DecayToZero:           0.01,
			RetainScore:           10 * time.Minute,
			BehaviourPenaltyDecay: scoreDecay, BehaviourPenaltyWeight: -1, BehaviourPenaltyThreshold: 6,
		}, &pubsub.PeerScoreThresholds{
			SkipAtomicValidation: true,
			GossipThreshold:      -9, PublishThreshold: -36, GraylistThreshold: -81,
		}),
	)
	return g, err
}

// messageID names a message by topic and content, so that equal messages from several publishers are one.
func messageID(m *pb.Message) string {
	h := sha256.New()
	h.Write([]byte(m.GetTopic()))
	h.Write([]byte{0})
	h.Write(m.GetData())
	return string(h.Sum(nil)[:20])
}

// connected tells gossip of a connection, in the place of libp2p's identify.
func (g *gossip) connected(c network.Conn) {
	_ = g.n.host.identified.Emit(event.EvtPeerIdentificationCompleted{
		Peer: c.RemotePeer(), Conn: c, Protocols: []protocol.ID{gossipProtocol},
	})
}

// Subscribe joins a topic, "tutti/..." of at most 64 bytes; see netstack.Transport. A topic can be joined once. What
// this node publishes itself is neither validated nor delivered to it.
func (n *Node) Subscribe(t netstack.Topic, judge func(netstack.NodeID, []byte) netstack.Verdict) (<-chan netstack.Message, error) {
	if n.closing() {
		return nil, netstack.ErrClosed
	}
	g := n.gossip
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.topics[t] != nil {
		return nil, fmt.Errorf("p2p: topic %q is subscribed to already", t)
	}
	if !g.filter.CanSubscribe(string(t)) {
		return nil, fmt.Errorf("p2p: topic %q: want %q and at most %d bytes, and at most %d topics", t, topicPrefix+"...",
			maxTopicBytes, maxTopics)
	}
	sub, joined, err := g.join(t, judge)
	if err != nil {
		if n.closing() {
			return nil, netstack.ErrClosed
		}
		return nil, fmt.Errorf("p2p: topic %q: %w", t, err)
	}
	tp := &topic{joined: joined, queue: make(chan netstack.Message, n.limits.GossipQueue)}
	if !n.spawn(func() { g.deliver(sub, tp.queue) }) {
		return nil, netstack.ErrClosed
	}
	g.topics[t] = tp
	return tp.queue, nil
}

// join sets up validator, topic and subscription of gossipsub.
func (g *gossip) join(t netstack.Topic, judge func(netstack.NodeID, []byte) netstack.Verdict) (*pubsub.Subscription, *pubsub.Topic, error) {
	self := g.n.host.ID()
	check := func(_ context.Context, from peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		if from == self {
			return pubsub.ValidationAccept
		}
		l := g.n.linkOf(from)
		if l == nil {
			return pubsub.ValidationIgnore
		}
		verdict := netstack.Reject
		if len(m.Data) <= netstack.MaxGossipBytes {
			verdict = judge(l.id, m.Data)
		}
		switch verdict {
		case netstack.Accept:
			return pubsub.ValidationAccept
		case netstack.Ignore:
			g.n.count.gossipIgnored.Add(1)
			return pubsub.ValidationIgnore
		}
		g.n.count.gossipInvalid.Add(1)
		return pubsub.ValidationReject
	}
	if err := g.ps.RegisterTopicValidator(string(t), check, pubsub.WithValidatorConcurrency(validatorsTotal/2)); err != nil {
		return nil, nil, err
	}
	joined, err := g.ps.Join(string(t))
	if err != nil {
		return nil, nil, errors.Join(err, g.ps.UnregisterTopicValidator(string(t)))
	}
	err = joined.SetScoreParams(&pubsub.TopicScoreParams{
		SkipAtomicValidation: true, TopicWeight: 1,
		TimeInMeshQuantum:              time.Hour, // has no weight, but gossipsub divides by it
		InvalidMessageDeliveriesWeight: -1, InvalidMessageDeliveriesDecay: scoreDecay,
	})
	if err != nil {
		return nil, nil, err
	}
	sub, err := joined.Subscribe(pubsub.WithBufferSize(g.n.limits.GossipQueue))
	return sub, joined, err
}

// deliver moves messages of a subscription to its queue until the node closes.
func (g *gossip) deliver(sub *pubsub.Subscription, queue chan netstack.Message) {
	defer sub.Cancel()
	for {
		m, err := sub.Next(g.n.ctx)
		if err != nil {
			return
		}
		l := g.n.linkOf(m.ReceivedFrom)
		if l == nil { // ourselves, or gone since
			continue
		}
		g.n.count.gossipReceived.Add(1)
		if dropped := offer(queue, netstack.Message{From: l.id, Payload: slices.Clone(m.Data)}); dropped > 0 {
			g.n.count.gossipDroppedFull.Add(uint64(dropped))
		}
	}
}

// Publish gossips payload on a topic that was subscribed to. What was seen within the last two minutes is not sent
// again.
func (n *Node) Publish(t netstack.Topic, payload []byte) error {
	if n.closing() {
		return netstack.ErrClosed
	}
	if len(payload) > netstack.MaxGossipBytes {
		n.count.refusedTooLarge.Add(1)
		return fmt.Errorf("%w: gossip of %d bytes, at most %d", netstack.ErrTooLarge, len(payload), netstack.MaxGossipBytes)
	}
	n.gossip.mu.Lock()
	tp := n.gossip.topics[t]
	n.gossip.mu.Unlock()
	if tp == nil {
		return fmt.Errorf("p2p: topic %q is not subscribed to", t)
	}
	if err := tp.joined.Publish(n.ctx, payload); err != nil {
		if n.closing() {
			return netstack.ErrClosed
		}
		return fmt.Errorf("p2p: publish on %q: %w", t, err)
	}
	n.count.gossipPublished.Add(1)
	return nil
}

// closing tells whether the node is closed or its context has ended.
func (n *Node) closing() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.closed || n.ctx.Err() != nil
}

// close closes the queues, when no goroutine writes to them any more.
func (g *gossip) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.topics {
		close(t.queue)
	}
}

// topicFilter bounds the topics that peers can make gossipsub remember. The zero value is ready.
type topicFilter struct {
	mu    sync.Mutex
	known map[string]struct{}
}

var _ pubsub.SubscriptionFilter = (*topicFilter)(nil)

// CanSubscribe remembers t if it has the right form and there is room.
func (f *topicFilter) CanSubscribe(t string) bool {
	if len(t) > maxTopicBytes || !strings.HasPrefix(t, topicPrefix) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.known[t]; ok {
		return true
	}
	if len(f.known) >= maxTopics {
		return false
	}
	if f.known == nil {
		f.known = map[string]struct{}{}
	}
	f.known[t] = struct{}{}
	return true
}

func (f *topicFilter) FilterIncomingSubscriptions(_ peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	if len(subs) > maxPeerTopics {
		return nil, pubsub.ErrTooManySubscriptions
	}
	return pubsub.FilterSubscriptions(subs, f.CanSubscribe), nil
}
