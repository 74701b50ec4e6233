package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/state/pool"
	"tutti/state/tx"
)

// SubmitBatch sends a distilled batch to nodes of its senders' shard, until one holds it or refuses it for good; a refusal in
// passing (pool full, rate limit, node not reached) sends it to another node. Its transfers are followed by their ids.
func (c *Client) SubmitBatch(ctx context.Context, b *distill.Batch) error {
	if c.trust == nil {
		return ErrNoTrust
	}
	body, shard := b.Append(make([]byte, 0, b.Bytes())), c.trust.ShardOf(tx.ID(distill.Sender(b.Body(0))))
	nodes, err := c.ofShard(ctx, shard)
	if err != nil {
		return err
	}
	for round := range c.rounds {
		for _, n := range nodes {
			if err = c.postBatch(ctx, n, body, b); err == nil || !passing(err) || ctx.Err() != nil {
				return err
			}
		}
		if round < c.rounds-1 && pause(ctx, round+1, err) != nil {
			break
		}
	}
	return err
}

func (c *Client) postBatch(ctx context.Context, n *node, body []byte, b *distill.Batch) error {
	answer, err := c.send(ctx, n, http.MethodPost, "/v1/batches", contentBinary, body, maxAnswer)
	if err != nil {
		return err
	}
	var got api.BatchAnswer
	if err := json.Unmarshal(answer, &got); err != nil || got.Batch != proof.Digest(pool.BatchName(b)) || got.Transfers != b.Count() {
		return fmt.Errorf("%w: %s: it took another batch than was sent", ErrAnswer, n.url)
	}
	return nil
}
