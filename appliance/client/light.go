package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
)

// ErrWithheld: a node does not show a hand-over that there should be, or lags.
var ErrWithheld = errors.New("client: the node keeps hand-overs back, or lags")

const (
	maxAsked  = 16 // nodes of a shard asked for one thing
	maxEpochs = 4  // epochs that one proof may be of: a transfer's is of two
)

// proven calls verify, and again once what it missed is learned: the committee of an epoch.
func (c *Client) proven(ctx context.Context, verify func() error) error {
	for range maxEpochs {
		err := verify()
		var miss *proof.EpochError
		if !errors.As(err, &miss) || miss.Lost {
			return err
		}
		if failed := c.Learn(ctx, miss.Shard, miss.Epoch); failed != nil {
			return fmt.Errorf("%w: %w", err, failed)
		}
	}
	return verify()
}

// Learn makes the Trust know the committee of an epoch, by hand-overs from the nodes of its shard; it asks nobody if it is
// known. What was learned stays, also if the call fails in the end. The error names every node that was asked and what is
// wrong with its answer, or is a *proof.EpochError that no hand-over can help.
func (c *Client) Learn(ctx context.Context, shard consensus.ShardID, epoch consensus.Epoch) error {
	if c.trust != nil {
		if _, _, err := c.trust.Committee(shard, epoch); err == nil {
			return nil
		}
	}
	nodes, done, err := c.learn(ctx, shard)
	if err != nil {
		return err
	}
	defer done()
	var failed error
	for _, n := range nodes {
		for {
			var miss *proof.EpochError
			_, _, err := c.trust.Committee(shard, epoch)
			if err == nil || !errors.As(err, &miss) || miss.Lost {
				return err
			}
			from := c.begin(shard, miss.From)
			taken, newest, err := c.handovers(ctx, n, shard, from, int(min(epoch-from, api.MaxHandovers)))
			if ctx.Err() != nil {
				return errors.Join(ctx.Err(), err)
			}
			if err == nil && taken == 0 {
				err = fmt.Errorf("%w: none out of epoch %d, and says that its newest epoch is %d", ErrWithheld, from, newest)
			}
			if err != nil {
				failed = errors.Join(failed, c.named(n, err))
				break
			}
		}
	}
	return failed
}

// Sync follows a shard's hand-overs as far as its nodes show any, from the newest epoch that the Trust knows. told, if not
// nil, is called with the newest epoch as it grows. It fails if no node answers to the end; what was learned stays.
func (c *Client) Sync(ctx context.Context, shard consensus.ShardID, told func(consensus.Epoch)) error {
	nodes, done, err := c.learn(ctx, shard)
	if err != nil {
		return err
	}
	defer done()
	var failed error
	ended := map[*node]consensus.Epoch{}
	for _, n := range nodes {
		for {
			from := c.begin(shard, c.trust.Newest(shard))
			taken, newest, err := c.handovers(ctx, n, shard, from, api.MaxHandovers)
			if ctx.Err() != nil {
				return errors.Join(ctx.Err(), err)
			}
			if err == nil && taken == 0 && newest > from {
				err = fmt.Errorf("%w: none out of epoch %d, and says that its newest epoch is %d", ErrWithheld, from, newest)
			}
			if err != nil {
				failed = errors.Join(failed, c.named(n, err))
				break
			}
			if taken == 0 {
				ended[n] = newest
				break
			}
			if told != nil {
				told(c.trust.Newest(shard))
			}
		}
	}
	if len(ended) == 0 {
		return failed
	}
	for _, n := range nodes {
		if newest, ok := ended[n]; ok && newest < c.trust.Newest(shard) {
			_ = c.named(n, fmt.Errorf("%w: its newest epoch is %d, another node shows %d", ErrWithheld, newest, c.trust.Newest(shard)))
		}
	}
	return nil
}

// learn waits until no other call follows hand-overs. done lets the next one.
func (c *Client) learn(ctx context.Context, shard consensus.ShardID) (nodes []*node, done func(), err error) {
	if c.trust == nil {
		return nil, nil, ErrNoTrust
	}
	nodes, err = c.ofShard(ctx, shard)
	if err != nil {
		return nil, nil, err
	}
	select {
	case c.learner <- struct{}{}:
		return nodes[:min(len(nodes), maxAsked)], func() { <-c.learner }, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// begin is the epoch to ask from for the hand-overs out of epoch from: one lower if from's own committee is not held, as after
// a checkpoint.
func (c *Client) begin(shard consensus.ShardID, from consensus.Epoch) consensus.Epoch {
	var miss *proof.EpochError
	if _, _, err := c.trust.Committee(shard, from); errors.As(err, &miss) && !miss.Lost {
		return min(from, miss.From)
	}
	return from
}

// handovers asks a node for the hand-overs of a shard out of epoch from and the following, and follows them. taken is how
// many held, newest the node's word.
func (c *Client) handovers(ctx context.Context, n *node, shard consensus.ShardID, from consensus.Epoch, limit int) (taken int, newest consensus.Epoch, err error) {
	path := fmt.Sprintf("/v1/handovers?shard=%d&from=%d&limit=%d", shard, from, limit)
	b, err := c.send(ctx, n, http.MethodGet, path, "", nil, api.MaxHandoversAnswer)
	if err != nil {
		return 0, 0, err
	}
	var page api.Handovers
	if err := json.Unmarshal(b, &page); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if len(page.Handovers) > limit {
		return 0, 0, fmt.Errorf("%w: %d hand-overs, asked for %d", ErrAnswer, len(page.Handovers), limit)
	}
	for i := range page.Handovers {
		h, err := proof.DecodeHandover(page.Handovers[i].Handover)
		if err != nil {
			return taken, page.Newest, err
		}
		if h.End.Last.Shard != shard || h.Epoch() != from+consensus.Epoch(i) {
			return taken, page.Newest, fmt.Errorf("%w: the hand-over out of epoch %d of shard %d, asked for epoch %d of shard %d",
				ErrAnswer, h.Epoch(), h.End.Last.Shard, from+consensus.Epoch(i), shard)
		}
		if err := c.trust.Advance(h); err != nil {
			return taken, page.Newest, err
		}
		taken++
	}
	return taken, page.Newest, nil
}

// named tells of a node's trouble and puts its address before the error.
func (c *Client) named(n *node, err error) error {
	if c.trouble != nil {
		c.trouble(n.url, err)
	}
	return fmt.Errorf("%s: %w", n.url, err)
}
