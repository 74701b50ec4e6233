package node

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/netstack/simnet"
)

func statusOf(shard consensus.ShardID, height consensus.Height, url string) peerStatus {
	return peerStatus{
		Shard: api.ShardStatus{Shard: shard, Height: height, Validators: []api.ValidatorStatus{{Name: "v", Self: true}}},
		API:   api.NodeAPI{Shard: shard, Name: "liar", URL: url},
	}
}

func TestOverview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simnet.New(simnet.Config{Link: simnet.Link{Delay: 10 * time.Millisecond}})
		defer sim.Close()
		peers := []seat{{nodeID(2), 0, "a"}, {nodeID(3), 1, "b"}, {nodeID(4), 1, "c"}, {nodeID(5), 2, "d"}, {nodeID(6), 2, "e"}}
		answers := map[netstack.NodeID]any{
			nodeID(2): statusOf(0, 8, "http://a:1"),
			nodeID(3): statusOf(1, 20, "https://b:1"),
			nodeID(4): statusOf(0, 21, "javascript:alert(1)"), // of shard 1, and says it is another's
			nodeID(5): "nonsense",
			nodeID(6): statusOf(2, 3, "http://e:1"),
		}
		var mu sync.Mutex // guards answers
		say := func(id netstack.NodeID, a any) {
			mu.Lock()
			defer mu.Unlock()
			answers[id] = a
		}
		for id := range answers {
			sim.Join(id).Serve(statusProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				return json.Marshal(answers[id])
			})
		}
		self := sim.Join(nodeID(1))
		o := newOverview(self, peers, func() peerStatus { return statusOf(0, 7, "http://self:1") })
		if n := o.network(); len(n.Shards) != 1 || n.Shards[0].Height != 7 || !n.Shards[0].Validators[0].Self || len(n.APIs) != 1 {
			t.Errorf("alone: %+v", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { o.run(ctx); close(done) }()
		time.Sleep(overviewEvery / 2)
		n := o.network()
		if len(n.Shards) != 3 {
			t.Fatalf("%d shards", len(n.Shards))
		}
		for i, want := range []consensus.Height{7, 21, 3} { // of its own shard it knows best
			if s := n.Shards[i]; s.Shard != consensus.ShardID(i) || s.Height != want || s.Validators[0].Self != (i == 0) {
				t.Errorf("shard %d: %+v", i, s)
			}
		}
		want := []api.NodeAPI{{Shard: 0, Name: "liar", URL: "http://self:1"}, {Shard: 0, Name: "a", URL: "http://a:1"}, {Shard: 1, Name: "b", URL: "https://b:1"}, {Shard: 2, Name: "e", URL: "http://e:1"}}
		if len(n.APIs) != len(want) {
			t.Fatalf("APIs %+v", n.APIs)
		}
		for i := range want {
			if n.APIs[i] != want[i] {
				t.Errorf("API %d is %+v, want %+v", i, n.APIs[i], want[i])
			}
		}
		// Who falls silent is shown with its age.
		sim.Partition([]netstack.NodeID{nodeID(1)})
		time.Sleep(10 * time.Second)
		if n := o.network(); n.Shards[1].StaleMs < 9000 || n.Shards[0].StaleMs != 0 {
			t.Errorf("stale for %d and %d ms", n.Shards[0].StaleMs, n.Shards[1].StaleMs)
		}
		// A peer that claims a great height is corrected when others have said less for a while.
		say(nodeID(4), statusOf(1, 1<<40, ""))
		sim.Heal()
		time.Sleep(overviewEvery + time.Second)
		if h := o.network().Shards[1].Height; h != 1<<40 {
			t.Errorf("height %d", h)
		}
		say(nodeID(4), "nonsense")
		time.Sleep(4 * overviewEvery)
		if h := o.network().Shards[1].Height; h != 20 {
			t.Errorf("height %d", h)
		}
		cancel()
		<-done
		if _, err := sim.Join(nodeID(7)).Request(t.Context(), nodeID(1), statusProtocol, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestOverviewAsksAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simnet.New(simnet.Config{})
		defer sim.Close()
		var asked [20]atomic.Int32
		var peers []seat
		for i := range byte(20) {
			peers = append(peers, seat{nodeID(10 + i), 0, ""})
			sim.Join(nodeID(10+i)).Serve(statusProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				asked[i].Add(1)
				return nil, context.Canceled
			})
		}
		o := newOverview(sim.Join(nodeID(1)), peers, func() peerStatus { return peerStatus{} })
		for round := range 5 {
			o.round(t.Context())
			sum := 0
			for i := range asked {
				sum += int(asked[i].Load())
			}
			if sum != (round+1)*overviewPeers {
				t.Errorf("after %d rounds %d questions", round+1, sum)
			}
		}
		for i := range byte(20) {
			if n := asked[i].Load(); n != 2 {
				t.Errorf("peer %d was asked %d times, want 2", i, n)
			}
		}
	})
}

func TestWebAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"http://127.0.0.1:9700": true, "https://node.example": true, "http://[::1]:80": true, "": false, "node.example:80": false,
		"ftp://node.example": false, "javascript:alert(1)": false, "http://": false, "http://a b": false, "http://" + string(make([]byte, 300)): false,
	} {
		if isWebAddress(text) != want {
			t.Errorf("%.40q: %t", text, !want)
		}
	}
}
