package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// poll is the time between questions about a transaction that is not final yet. A transaction that the shard does not
// know although its nonce is used has lost it to another one, if that stays so for maxLost questions.
const (
	poll    = 150 * time.Millisecond
	maxLost = 10
)

// Proof is a transaction's finality proof, verified, and the file to keep. It looks in every shard, and for a transfer
// to another shard it adds the credit if that is final too (Proven.Settled says whether anything is still missing).
// The error has code NotFinal or NotFound while there is no proof.
func (c *Client) Proof(ctx context.Context, id tx.Hash) (*proof.Proven, *proof.Finality, error) {
	if c.trust == nil {
		return nil, nil, ErrNoTrust
	}
	var failed error
	for shard := range c.trust.Shards() {
		p, f, err := c.proofFrom(ctx, consensus.ShardID(shard), id)
		if err == nil {
			return p, f, nil
		}
		if failed == nil || !errors.Is(err, &api.Error{Code: api.NotFound}) {
			failed = err
		}
	}
	return nil, nil, failed
}

func (c *Client) proofFrom(ctx context.Context, shard consensus.ShardID, id tx.Hash) (p *proof.Proven, f *proof.Finality, err error) {
	err = c.fetch(ctx, shard, "/v1/transactions/"+id.String()+"/proof", proof.MaxFileBytes, func(b []byte) (err error) {
		if f, err = proof.DecodeFinality(b); err != nil {
			return err
		}
		err = c.proven(ctx, func() error { p, err = f.Verify(c.trust); return err })
		if err == nil && tx.Hash(p.ID) != id {
			err = fmt.Errorf("%w: a proof of transaction %s, asked for %s", ErrAnswer, p.ID, id)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if p.Settled {
		return p, f, nil
	}
	full := *f
	err = c.fetch(ctx, c.trust.ShardOf(f.Tx.To), "/v1/transactions/"+id.String()+"/credit", proof.MaxFileBytes, func(b []byte) (err error) {
		if full.Credit, err = proof.DecodeCredit(b); err != nil {
			return err
		}
		return c.proven(ctx, func() error { p, err = full.Verify(c.trust); return err })
	})
	if err == nil {
		return p, &full, nil
	}
	err = c.proven(ctx, func() error { p, err = f.Verify(c.trust); return err }) // the debit alone is proven all the same
	return p, f, err
}

// Await waits until a transaction has settled: it is final, and for a transfer to another shard its credit too. The
// transaction must have been submitted; it is sent again when the shard does not know it any more, or when a broker has it and it
// is not final within three seconds. The error is ErrExpired once it can never execute.
func (c *Client) Await(ctx context.Context, t *tx.Signed) (*proof.Proven, *proof.Finality, error) {
	if c.trust == nil {
		return nil, nil, ErrNoTrust
	}
	id, shard := t.TxID(tx.Hash(c.trust.Genesis())), c.trust.ShardOf(t.From)
	beat := time.NewTicker(poll)
	defer beat.Stop()
	for lost := 0; ; {
		p, f, err := c.proofFrom(ctx, shard, id)
		if err == nil && p.Settled {
			return p, f, nil
		}
		if err != nil {
			again := c.chase(ctx, t, id)
			used := errors.Is(again, &api.Error{Code: api.NonceTooLow})
			switch {
			case errors.Is(again, &api.Error{Code: api.Expired}):
				return nil, nil, ErrExpired
			case used && lost < maxLost:
				lost++
			case again != nil && !passing(again):
				return nil, nil, again
			}
			if !used {
				lost = 0
			}
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil, nil, errors.Join(ctx.Err(), err)
		}
	}
}

// nudge sends a transaction again if the shard does not know it.
func (c *Client) nudge(ctx context.Context, shard consensus.ShardID, id tx.Hash, t *tx.Signed) error {
	got, err := c.Transaction(ctx, shard, id)
	if err != nil || got.State != api.Unknown {
		return nil
	}
	return c.Submit(ctx, []tx.Signed{*t})[0]
}
