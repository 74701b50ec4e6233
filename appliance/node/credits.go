package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/tx"
)

// A transfer to another shard is settled there. So that one node can answer for the whole of it, nodes ask the
// destination's validators for the proof of the credit, check it, and keep the newest ones.
const (
	creditProtocol netstack.Protocol = "/tutti/credit/1"
	creditTimeout                    = 500 * time.Millisecond
	keptCredits                      = 4096
)

// credits finds the proofs of credits in other shards. Safe for concurrent use.
type credits struct {
	transport netstack.Transport
	peers     [][]netstack.NodeID // by shard
	trust     *proof.Trust
	miss      func(consensus.ShardID, consensus.Epoch) // told of an epoch whose committee the trust lacks

	mu    sync.Mutex // guards what follows
	known map[tx.Hash]*proof.Credit
	order []tx.Hash // ring once it is full
	next  int
	turn  []int // by shard: which peer to ask
}

func newCredits(t netstack.Transport, peers [][]netstack.NodeID, trust *proof.Trust, miss func(consensus.ShardID, consensus.Epoch), own func(context.Context, tx.Hash) (*proof.Credit, error)) *credits {
	c := &credits{transport: t, peers: peers, trust: trust, miss: miss, known: map[tx.Hash]*proof.Credit{}, turn: make([]int, len(peers))}
	t.Serve(creditProtocol, func(ctx context.Context, _ netstack.NodeID, req []byte) ([]byte, error) {
		if len(req) != len(tx.Hash{}) {
			return nil, fmt.Errorf("malformed request for a credit")
		}
		p, err := own(ctx, tx.Hash(req))
		if err != nil {
			return nil, err
		}
		return json.Marshal(p)
	})
	return c
}

// lookup is the verified credit of a transfer in the destination shard, nil while none is to be had.
func (c *credits) lookup(ctx context.Context, dest consensus.ShardID, id tx.Hash) *proof.Credit {
	c.mu.Lock()
	known := c.known[id]
	peers := c.peers[dest]
	peer := peers[c.turn[dest]%len(peers)]
	c.turn[dest]++
	c.mu.Unlock()
	if known != nil {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, creditTimeout)
	defer cancel()
	answer, err := c.transport.Request(ctx, peer, creditProtocol, id[:])
	if err != nil {
		return nil
	}
	p, err := proof.DecodeCredit(answer)
	if err != nil || p.Receipt.Tx != id || p.Final.Header().Shard != dest {
		return nil
	}
	if err := p.Verify(c.trust); err != nil {
		if unknown := (*proof.EpochError)(nil); errors.As(err, &unknown) && !unknown.Lost {
			c.miss(unknown.Shard, unknown.Epoch) // known when it is asked for again
		}
		return nil
	}
	c.keep(id, p)
	return p
}

func (c *credits) keep(id tx.Hash, p *proof.Credit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[id] != nil {
		return
	}
	if len(c.order) < keptCredits {
		c.order = append(c.order, id)
	} else {
		delete(c.known, c.order[c.next])
		c.order[c.next] = id
		c.next = (c.next + 1) % keptCredits
	}
	c.known[id] = p
}
