package node

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"slices"
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
	maxStatusBytes  = 1 << 20 // a committee of consensus.MaxCommittee takes a third of it
	maxURLBytes     = 256
)

// seat is another validator.
type seat struct {
	id    netstack.NodeID
	shard consensus.ShardID
	name  string
}

// peerStatus is one node's answer. It speaks for its own shard and its own API, whatever it writes there.
type peerStatus struct {
	Shard api.ShardStatus `json:"shard"`
	API   api.NodeAPI     `json:"api"`
}

// overview is the network as this node has been told. Safe for concurrent use.
type overview struct {
	self      func() peerStatus
	transport netstack.Transport
	peers     []seat

	mu     sync.Mutex // guards what follows
	shards map[consensus.ShardID]told
	urls   map[netstack.NodeID]string
	next   int // peer to ask next
}

type told struct {
	status api.ShardStatus
	at     time.Time
}

func newOverview(t netstack.Transport, peers []seat, self func() peerStatus) *overview {
	o := &overview{
		self: self, transport: t, peers: peers, shards: map[consensus.ShardID]told{}, urls: map[netstack.NodeID]string{},
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
	ask := make([]seat, 0, n)
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

func (o *overview) ask(ctx context.Context, peer seat) {
	b, err := o.transport.Request(ctx, peer.id, statusProtocol, nil)
	if err != nil || len(b) > maxStatusBytes {
		return
	}
	var s peerStatus
	if json.Unmarshal(b, &s) != nil {
		return
	}
	s.Shard.Shard = peer.shard
	for i := range s.Shard.Validators {
		s.Shard.Validators[i].Self = false // it meant itself
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.urls, peer.id)
	if isWebAddress(s.API.URL) {
		o.urls[peer.id] = s.API.URL
	}
	if t, ok := o.shards[peer.shard]; !ok || s.Shard.Height >= t.status.Height || time.Since(t.at) > 2*overviewEvery {
		o.shards[peer.shard] = told{s.Shard, time.Now()}
	}
}

// isWebAddress reports whether people and programs may be shown a text as the address of an API.
func isWebAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && len(text) <= maxURLBytes && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// network is the newest of each shard, with this node's own view of its own.
func (o *overview) network() api.Network {
	self := o.self()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := api.Network{Shards: []api.ShardStatus{self.Shard}, APIs: []api.NodeAPI{self.API}}
	for s, t := range o.shards {
		if s != self.Shard.Shard {
			t.status.StaleMs = time.Since(t.at).Milliseconds()
			n.Shards = append(n.Shards, t.status)
		}
	}
	slices.SortFunc(n.Shards, func(a, b api.ShardStatus) int { return cmp.Compare(a.Shard, b.Shard) })
	for _, p := range o.peers {
		if u, ok := o.urls[p.id]; ok {
			n.APIs = append(n.APIs, api.NodeAPI{Shard: p.shard, Name: p.name, URL: u})
		}
	}
	return n
}
