package engine

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred/shredtest"
)

// inShards makes the bodies of all applications travel in shards.
func (c *cluster) inShards(padding int) {
	c.options = func(_ int, cfg *Config) {
		app := cfg.App.(*toyApp)
		app.padding, app.refer = padding, c.committee.ShardsRef
	}
}

// TestShards: bodies in shards are rebuilt from what the members pass on, without asking anybody for a body. A leader
// sends half of a body to each of three others, and they send two others as much.
func TestShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		const padding = 100 << 10
		c.inShards(padding)
		var bytes, parts, whole atomic.Int64
		c.wire.sent = func(_, _ int, class Class, payload []byte) bool {
			if class == ClassProposal {
				if bytes.Add(int64(len(payload))); payload[0] == typePart {
					parts.Add(1)
				} else {
					whole.Add(1)
				}
			}
			return true
		}
		c.wire.asked = func(_, _ int, req []byte) ([]byte, error, bool) {
			if req[0] == typeGetBlock {
				t.Error("a block was asked for")
			}
			return nil, nil, false
		}
		c.start(all(4)...)
		c.reach(12, 20*time.Second, all(4)...)
		blocks := int64(0)
		for i, n := range c.nodes {
			s := n.Status()
			blocks = max(blocks, int64(s.View)-1)
			if s.Counters.Rebuilt < 6 || s.Counters.BadEncodings != 0 || s.Counters.Penalties != 0 {
				t.Errorf("node %d: %+v", i, s.Counters)
			}
		}
		most := blocks * 9 * (padding/2 + padding/16) // with paths and headers
		if whole.Load() != 0 || parts.Load() > blocks*9 || bytes.Load() > most {
			t.Errorf("%d parts and %d proposals, %d bytes for %d blocks, want at most %d parts and %d bytes", parts.Load(), whole.Load(), bytes.Load(), blocks, blocks*9, most)
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// TestShardsLost: a member that gets no parts at all fetches the bodies whole, and keeps up.
func TestShardsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.inShards(20 << 10)
		c.wire.sent = func(_, to int, class Class, payload []byte) bool { return to != 3 || class != ClassProposal }
		c.start(all(4)...)
		c.reach(12, time.Minute, all(4)...)
		c.stop(all(4)...)
		c.agree()
	})
}

// TestBadEncoding: a leader whose parts are no body's is found out by everybody that votes, loses its place, and its view
// is passed over.
func TestBadEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		leader := c.committee.Leader(1)
		var others []int
		for i := range 4 {
			if i != leader {
				others = append(others, i)
			}
		}
		c.start(others...)
		bad := shredtest.Spoil(c.committee, make([]byte, 10_000), 50)
		h := c.proposal(leader, 1, time.Now()).Block.Header
		h.Body = bad.Ref
		vote := *c.vote(leader, consensus.Notarize, 1, h.Hash())
		for _, i := range others {
			c.wire.deliver(leader, i, ClassProposal, encodePart(bad.Part(i, h, vote)))
		}
		c.await("the verdict", 5*time.Second, func() bool {
			for _, i := range others {
				if s := c.nodes[i].Status(); s.Counters.BadEncodings != 1 || s.Validators[leader].Strikes != 1 {
					return false
				}
			}
			return true
		})
		c.reach(3, 30*time.Second, others...)
		c.stop(others...)
		c.agree()
	})
}
