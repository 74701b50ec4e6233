package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tutti/netstack"
	"tutti/state/statesync"
)

// stateProtocol carries the parts of a shard's state to validators of the shard that copy it.
const stateProtocol netstack.Protocol = "/tutti/state/1"

// serveState answers the validators of the own shard, and nobody else: there may be thousands of nodes in other shards.
func (n *Node) serveState(peers []netstack.NodeID) {
	n.states = statesync.NewServer(n.ledger, statesync.Limits{BytesPerSecond: float64(n.cfg.Network.StateMiBPerSecond) * (1 << 20)})
	n.transport.Serve(stateProtocol, func(ctx context.Context, from netstack.NodeID, request []byte) ([]byte, error) {
		if !slices.Contains(peers, from) {
			return nil, fmt.Errorf("the state of shard %d is for its own validators", n.shard)
		}
		answer, err := n.states.Answer(ctx, string(from[:]), request)
		if errors.Is(err, statesync.ErrMalformed) {
			n.metrics.Consensus.Misbehaviour.WithLabelValues("state").Inc()
		}
		return answer, err
	})
}
