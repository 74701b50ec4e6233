package node

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/netstack"
)

// Nodes tell one another how they are, so that each one's API and dashboard can show the whole network. What they say is
// shown, never acted on.
const (
	statusProtocol netstack.Protocol = "/tutti/status/1"

	overviewEvery   = 2 * time.Second
	overviewPeers   = 8 // asked in one round
	overviewTimeout = time.Second
	maxStatusBytes  = 256 << 10
	maxPeerShards   = 1024
)

// peerStatus is one node's answer.
type peerStatus struct {
	Shard api.ShardStatus `json:"shard"`
	API   api.NodeAPI     `json:"api"`
}

// overview is the network as this node has been told. Safe for concurrent use.
type overview struct {
	self      func() peerStatus
	transport netstack.Transport
	peers     []netstack.NodeID

	mu     sync.Mutex // guards what follows
	shards map[consensus.ShardID]told
	apis   map[netstack.NodeID]api.NodeAPI
	next   int // peer to ask next
}

type told struct {
	status api.ShardStatus
	at     time.Time
}

func newOverview(t netstack.Transport, peers []netstack.NodeID, self func() peerStatus) *overview {
	o := &overview{
		self: self, transport: t, peers: peers,
		shards: map[consensus.ShardID]told{}, apis: map[netstack.NodeID]api.NodeAPI{},
	}
	t.Serve(statusProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
		return json.Marshal(o.self())
	})
	return o
}

// run asks peers in turn until ctx ends.
func (o *overview) run(ctx context.Context) {
	beat := time.NewTicker(overviewEvery)
	defer beat.Stop()
	for {
		o.round(ctx)
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}

func (o *overview) round(ctx context.Context) {
	o.mu.Lock()
	n := min(overviewPeers, len(o.peers))
	ask := make([]netstack.NodeID, 0, n)
	for range n {
		ask = append(ask, o.peers[o.next%len(o.peers)])
		o.next++
	}
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, overviewTimeout)
	defer cancel()
	var group sync.WaitGroup
	for _, p := range ask {
		group.Go(func() { o.ask(ctx, p) })
	}
	group.Wait()
}

func (o *overview) ask(ctx context.Context, peer netstack.NodeID) {
	b, err := o.transport.Request(ctx, peer, statusProtocol, nil)
	if err != nil || len(b) > maxStatusBytes {
		return
	}
	var s peerStatus
	if json.Unmarshal(b, &s) != nil || int(s.Shard.Shard) >= maxPeerShards {
		return
	}
	for i := range s.Shard.Validators {
		s.Shard.Validators[i].Self = false // it meant itself
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.apis[peer] = s.API
	if t, ok := o.shards[s.Shard.Shard]; !ok || s.Shard.Height >= t.status.Height || time.Since(t.at) > 2*overviewEvery {
		o.shards[s.Shard.Shard] = told{s.Shard, time.Now()}
	}
}

// network is the newest of each shard, with this node's own view of its own.
func (o *overview) network() api.Network {
	self := o.self()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := api.Network{APIs: []api.NodeAPI{self.API}}
	for s := range consensus.ShardID(maxPeerShards) {
		if s == self.Shard.Shard {
			n.Shards = append(n.Shards, self.Shard)
		} else if t, ok := o.shards[s]; ok {
			t.status.StaleMs = time.Since(t.at).Milliseconds()
			n.Shards = append(n.Shards, t.status)
		}
	}
	for _, p := range o.peers {
		if a, ok := o.apis[p]; ok {
			n.APIs = append(n.APIs, a)
		}
	}
	return n
}
