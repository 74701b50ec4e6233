package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/state/tx"
)

// Submit sends transactions to nodes of their payers' shards and returns one entry for each: nil if a node pooled it,
// else the last reason why not. A transaction that is refused in passing (pool full, rate limit, node not reached) is
// sent to another node, with the same bytes. Transactions of one account keep their order.
func (c *Client) Submit(ctx context.Context, txs []tx.Signed) []error {
	verdicts := make([]error, len(txs))
	if c.trust == nil {
		for i := range verdicts {
			verdicts[i] = ErrNoTrust
		}
		return verdicts
	}
	groups := map[consensus.ShardID][]int{}
	var order []consensus.ShardID
	for i := range txs {
		s := c.trust.ShardOf(txs[i].From)
		if groups[s] == nil {
			order = append(order, s)
		}
		groups[s] = append(groups[s], i)
	}
	for _, s := range order {
		for g := groups[s]; len(g) > 0; {
			n := min(len(g), api.MaxTransactions)
			c.submitTo(ctx, s, txs, g[:n], verdicts)
			g = g[n:]
		}
	}
	return verdicts
}

// submitTo sends txs[i], i in pending, to the shard until each has a lasting verdict or the rounds are over.
func (c *Client) submitTo(ctx context.Context, shard consensus.ShardID, txs []tx.Signed, pending []int, verdicts []error) {
	nodes, err := c.ofShard(ctx, shard)
	if err != nil {
		for _, i := range pending {
			verdicts[i] = err
		}
		return
	}
	maybe := false // a node may have taken transactions without our knowing
	for round := range c.rounds {
		for _, n := range nodes {
			lost := c.post(ctx, n, txs, pending, verdicts)
			again := pending[:0:0]
			for _, i := range pending {
				if e := verdicts[i]; e != nil && maybe && errors.Is(e, &api.Error{Code: api.NonceTooLow}) && c.known(ctx, shard, &txs[i]) {
					verdicts[i] = nil // an earlier attempt had arrived, and has executed since
				} else if e != nil && passing(e) {
					again = append(again, i)
				}
			}
			maybe = maybe || lost
			if pending = again; len(pending) == 0 || ctx.Err() != nil {
				return
			}
		}
		if round < c.rounds-1 && pause(ctx, round+1, longest(verdicts, pending)) != nil {
			return
		}
	}
}

// longest is the verdict of those pending that asks for the longest wait, else the first.
func longest(verdicts []error, pending []int) error {
	last, most := verdicts[pending[0]], time.Duration(0)
	for _, i := range pending {
		if e := (*api.Error)(nil); errors.As(verdicts[i], &e) && e.RetryAfter > most {
			last, most = e, e.RetryAfter
		}
	}
	return last
}

// known reports whether the shard has seen the transaction.
func (c *Client) known(ctx context.Context, shard consensus.ShardID, t *tx.Signed) bool {
	got, err := c.Transaction(ctx, shard, t.TxID(tx.Hash(c.trust.Genesis())))
	return err == nil && got.State != api.Unknown
}

// post sends one call to one node and enters the verdicts. lost says that the node may have taken the call although
// its answer did not come.
func (c *Client) post(ctx context.Context, n *node, txs []tx.Signed, pending []int, verdicts []error) (lost bool) {
	var body []byte
	for _, i := range pending {
		body = txs[i].Append(body)
		verdicts[i] = nil
	}
	answer, err := c.send(ctx, n, http.MethodPost, "/v1/transactions", contentBinary, body, maxAnswer)
	var got api.SubmitAnswer
	if err == nil {
		err = json.Unmarshal(answer, &got)
	}
	next, refused := 0, 0 // the first index that may follow
	for _, r := range got.Results {
		count := max(1, r.Count)
		if err == nil && (r.Index < next || count > len(pending) || r.Index > len(pending)-count || r.Error == nil) {
			err = fmt.Errorf("%w: %s: a result that is none of ours", ErrAnswer, n.url)
		}
		next, refused = r.Index+count, refused+count
	}
	if err == nil && got.Accepted+refused != len(pending) {
		err = fmt.Errorf("%w: %s: %d accepted and %d refused of %d", ErrAnswer, n.url, got.Accepted, refused, len(pending))
	}
	if err != nil {
		for _, i := range pending {
			verdicts[i] = err
		}
		return !errors.As(err, new(*api.Error))
	}
	for _, r := range got.Results {
		verdict := refusedBy(r.Error)
		for _, i := range pending[r.Index:][:max(1, r.Count)] {
			verdicts[i] = verdict
		}
	}
	return false
}
