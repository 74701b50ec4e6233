package engine

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tutti/consensus"
)

// slowFinalize lets what the member From votes final arrive late, changed on its way to each by change.
func (c *cluster) slowFinalize(from int, change func(to int, v *consensus.Vote)) {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.sent = func(self, to int, class Class, payload []byte) bool {
		in, err := decodeInbound(class, payload)
		if self != from || err != nil || in.vote == nil || in.vote.Kind != consensus.Finalize {
			return true
		}
		v := *in.vote
		change(to, &v)
		time.AfterFunc(60*time.Millisecond, func() { c.wire.deliver(self, to, class, encodeVote(&v)) })
		return false
	}
}

// signersAt are the signers of the finalization of a height in a node's log, after it was checked.
func (c *cluster) signersAt(i int, h consensus.Height) consensus.Signers {
	c.tb.Helper()
	at, cert, err := c.nodes[i].log.Finalization(h)
	must(c.tb, err)
	if at != h {
		return nil // final by a later one
	}
	must(c.tb, c.committee.VerifyCertificate(testChain, c.keys, cert))
	return cert.Signers
}

// TestLateVotes: a vote that comes after the quorum's is in the certificate soon after, which survives a restart; a bad one
// costs its sender its place and nothing else; and one that never comes is not waited for.
func TestLateVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t, 4), &watcher{}
		c.options = func(i int, cfg *Config) {
			if i == 0 {
				cfg.Observer = w
			}
		}
		c.slowFinalize(3, func(to int, v *consensus.Vote) {
			if to == 0 {
				v.Signature[20]++
			}
		})
		c.start(all(4)...)
		c.reach(12, time.Minute, all(4)...)
		full, own := 0, 0 // node 0 gets 3's votes in certificates only
		for h := consensus.Height(1); h <= 8; h++ {
			for i := range 4 {
				switch s := c.signersAt(i, h); {
				case i > 0 && s.Count() == 4: // else node 0, which hears nothing of 3's while that has lost its place, did not vote
					full++
				case i == 0 && s != nil:
					own++
				}
			}
		}
		if full < 12 || own < 6 {
			t.Errorf("of 24 finalizations %d have all signers; node 0 has %d of 8", full, own)
		}
		if guilty, why := w.seen(); !slices.Contains(guilty, 3) || !strings.Contains(why, "late vote") {
			t.Errorf("penalised %v: %s", guilty, why)
		}
		if n := c.nodes[1].Status().Counters.LateVotes; n < 6 {
			t.Errorf("%d late votes", n)
		}
		before := c.signersAt(1, 5)
		c.crash(1)
		c.start(1)
		if after := c.signersAt(1, 5); !slices.Equal(before, after) {
			t.Errorf("signers %v before a restart and %v after", before, after)
		}
		c.stop(all(4)...)
		c.agree()
	})
}

// TestNobodyLate: nothing is kept for those who never vote.
func TestNobodyLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4)
		c.start(0, 1, 2)
		c.reach(12, 5*time.Minute, 0, 1, 2)
		c.stop(0, 1, 2)
		for i := range 3 {
			if n := len(c.nodes[i].late); n > maxLate || c.nodes[i].Status().Counters.LateVotes != 0 {
				t.Errorf("node %d waits for %d", i, n)
			}
		}
		c.agree()
	})
}
