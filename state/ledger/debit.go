package ledger

import (
	"math/bits"
	"slices"

	"tutti/accel/prefetch"
	"tutti/state/tx"
)

// debit is the running state of a block's debits.
type debit struct {
	l      *Ledger
	height uint64
	in     *Meta    // after the receipts
	sent   []uint64 // by channel: receipts in the outbox once those accepted so far are
	net    []int64  // by channel: net inflow, those accepted so far counted
	opened uint64
}

func (l *Ledger) newDebit(parent *block, in *received) *debit {
	d := &debit{l: l, height: in.meta.Height, in: in.meta}
	for i := range in.meta.Channels {
		c := &in.meta.Channels[i]
		d.sent = append(d.sent, c.Sent.Count()+uint64(len(parent.returns[i])))
		d.net = append(d.net, c.Net())
	}
	return d
}

// apply makes the debit of a transaction whose payer exists, or says why not and changes nothing.
func (d *debit) apply(t *tx.Tx) Reason {
	p, c, cost, r := d.judge(t)
	if r != None {
		return r
	}
	p.touch(t.From.Index(), c)
	c.setNonce(t.Nonce + 1)
	c.setBalance(c.balance() - cost)
	c.setTouched(uint32(d.height))
	p.chunks[t.From.Index()>>chunkLog].sum -= cost
	return None
}

// skips counts the transactions from one place of a body to another, the transfers of a batch, that would not take effect.
// Each payer is there once, so none depends on another's debit. It changes nothing.
func (d *debit) skips(y *tx.Body, from, to int) (n int) {
	sent, net := slices.Clone(d.sent), slices.Clone(d.net)
	for i := from; i < to; i++ {
		if i+prefetch.Ahead < to {
			d.l.expect(y.Tx(i + prefetch.Ahead).From)
		}
		if _, _, _, r := d.judge(y.Tx(i)); r != None {
			n++
		}
	}
	d.sent, d.net = sent, net
	return n
}

// judge says what a transaction costs whose payer's record is c, or why it does not take effect. If it does, it counts as
// accepted in what the block may open and send.
func (d *debit) judge(t *tx.Tx) (p *partition, c *cell, cost uint64, r Reason) {
	params := &d.l.o.Params
	p, exists := d.l.payer(t.From)
	if !exists {
		return nil, nil, 0, UnknownPayer
	}
	c = p.cell(t.From.Index())
	switch nonce := c.nonce(); {
	case t.Nonce < nonce:
		return nil, nil, 0, NonceUsed
	case t.Nonce > nonce || t.Nonce == 1<<32-1: // the last nonce is never used, so that none comes again
		return nil, nil, 0, NonceGap
	case uint64(t.Expiry) < d.height:
		return nil, nil, 0, Expired
	case int(t.FeeClass) >= len(params.Fees):
		return nil, nil, 0, UnknownFee
	}
	cost, carry := bits.Add64(t.Amount, params.Fees[t.FeeClass], 0)
	if t.Kind == tx.Open {
		var more uint64
		cost, more = bits.Add64(cost, params.OpenDeposit, 0)
		carry |= more
	}
	if carry != 0 || c.balance() < cost {
		return nil, nil, 0, Insufficient
	}
	return p, c, cost, d.receiver(t)
}

// receiver accepts the receiving side of a transaction whose payer can pay, or says why not.
func (d *debit) receiver(t *tx.Tx) Reason {
	params := &d.l.o.Params
	if t.Kind == tx.Open {
		if d.opened >= params.OpenCap || d.in.Accounts+d.opened >= params.AccountLimit {
			return OpenLimit
		}
		d.opened++
		return None
	}
	if t.To == t.From {
		return SelfTransfer
	}
	route := d.l.table.route[t.To.Partition()]
	if route >= 0 {
		if t.To.Index() >= d.l.table.parts[route].next {
			return UnknownReceiver
		}
		return None
	}
	if route == routeNowhere {
		return UnknownReceiver
	}
	i := d.in.channel(uint16(-1 - route))
	if d.sent[i]-d.in.Channels[i].Acked >= params.ReceiptWindow {
		return WindowFull
	}
	// Amounts are at most a balance, and the net inflow is at least minus the supply: nothing here overflows.
	if int64(t.Amount) > int64(params.Supplies[params.Shard])+d.net[i] {
		return NetLimit
	}
	d.sent[i]++
	d.net[i] -= int64(t.Amount)
	return None
}
