package client

import (
	"context"
	"fmt"
	"net/http"

	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/state/tx"
)

// Signers is a node's word on what a broker needs of accounts of a shard, at most api.MaxSigners, in their order.
func (c *Client) Signers(ctx context.Context, shard consensus.ShardID, ids []tx.ID) (s *api.Signers, err error) {
	if c.trust == nil {
		return nil, ErrNoTrust
	}
	nodes, err := c.ofShard(ctx, shard)
	if err != nil {
		return nil, err
	}
	ask := api.AppendIDs(make([]byte, 0, 6*len(ids)), ids)
	err = c.each(ctx, nodes, func(n *node) error {
		b, err := c.send(ctx, n, http.MethodPost, "/v1/signers", contentBinary, ask, api.MaxSignersBytes)
		if err != nil {
			return err
		}
		if s, err = api.DecodeSigners(b, len(ids)); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrAnswer, n.url, err)
		}
		return nil
	})
	return s, err
}
