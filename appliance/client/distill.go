package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/broker"
	"tutti/appliance/config"
	"tutti/state/tx"
)

// Times and bounds of brokers.
const (
	distillFor = 2 * time.Second  // from a submission to a broker's verdict; connecting included
	distillIn  = 3 * time.Second  // from its verdict until the transfer is final; then it is sent on its own
	brokerDown = 30 * time.Second // a broker that failed is left alone
	tryBrokers = 2                // for one transfer
	maxBrokers = 64
	maxBatched = 4096 // transfers remembered that a broker says are on their way
)

// Errors of Distill. A broker's refusal is none of these: it names the broker's code.
var ErrNoBroker = errors.New("client: no broker is known that answers: send the transaction on its own")

// knownBroker is a broker and the connection to it. Client.mu guards all but address.
type knownBroker struct {
	address string
	conn    *broker.Conn // nil: none
	down    time.Time    // not to be tried before
}

// addBroker keeps a broker's address once. Over maxBrokers it is left out.
func (c *Client) addBroker(address string) error {
	if _, _, err := config.ParseBroker(address); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.ContainsFunc(c.brokers, func(b *knownBroker) bool { return b.address == address })
	if !known && len(c.brokers) < maxBrokers {
		c.brokers = append(c.brokers, &knownBroker{address: address})
	}
	return nil
}

// Distill gives a transfer to a broker, whose batch key, the BLS key of the paying account, signs. Brokers are those of
// Options.Brokers and those that nodes of the payer's shard tell of. Without error a broker says that a node holds the transfer:
// follow it with Await, which sends it on its own if it is not final soon. After an error, send it with Submit. It
// may come into a batch nevertheless, which does no harm: it is the same transaction.
func (c *Client) Distill(ctx context.Context, t *tx.Signed, key *bls.SecretKey) error {
	if c.trust == nil {
		return ErrNoTrust
	}
	if t.Kind != tx.Transfer {
		return errors.New("client: only transfers have a part in batches")
	}
	if _, err := c.ofShard(ctx, c.trust.ShardOf(t.From)); err != nil { // it also asks for brokers
		return err
	}
	err := ErrNoBroker
	for _, b := range c.turnOfBrokers() {
		if err = c.distill(ctx, b, t, key); err == nil || ctx.Err() != nil {
			return err
		}
		if r := (*refusedByBroker)(nil); errors.As(err, &r) && !r.passing() {
			return err
		}
	}
	return err
}

// refusedByBroker is a broker's refusal.
type refusedByBroker struct {
	address string
	broker.Verdict
}

func (r *refusedByBroker) Error() string {
	return fmt.Sprintf("client: broker %s refuses: %s", r.address, r.Code)
}

// passing reports whether another broker may take it.
func (r *refusedByBroker) passing() bool {
	switch r.Code {
	case broker.CodeBusy, broker.CodeRate, broker.CodeBarred, broker.CodeShard, broker.CodeUnavailable, broker.CodeShuttingDown:
		return true
	}
	return false
}

// turnOfBrokers are those to be tried for a transfer, beginning with another one each time.
func (c *Client) turnOfBrokers() (out []*knownBroker) {
	turn, now := c.turn.Add(1), time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.brokers {
		b := c.brokers[(uint64(i)+turn)%uint64(len(c.brokers))]
		if now.After(b.down) && len(out) < tryBrokers {
			out = append(out, b)
		}
	}
	return out
}

// distill gives a transfer to one broker.
func (c *Client) distill(ctx context.Context, b *knownBroker, t *tx.Signed, key *bls.SecretKey) error {
	within, cancel := context.WithTimeout(ctx, c.distillFor)
	defer cancel()
	conn, err := c.brokerConn(within, b)
	if err != nil {
		return err
	}
	s := broker.Submission{Signature: t.Signature}
	copy(s.Body[:], t.AppendBody(make([]byte, 0, 1+distill.BodyBytes))[1:])
	v, err := conn.Submit(within, s, key)
	switch {
	case err == nil && v.Taken():
		c.batched(t.TxID(tx.Hash(c.trust.Genesis())))
		return nil
	case err == nil:
		r := &refusedByBroker{b.address, v}
		if r.passing() {
			c.leaveBroker(b, nil, min(max(v.Retry, firstPause), brokerDown))
		}
		return r
	case ctx.Err() != nil:
		return ctx.Err()
	}
	c.leaveBroker(b, conn, brokerDown)
	return fmt.Errorf("client: broker %s: %w", b.address, err)
}

// leaveBroker leaves a broker alone for a while, and ends the connection to it if that is no use.
func (c *Client) leaveBroker(b *knownBroker, conn *broker.Conn, d time.Duration) {
	c.mu.Lock()
	b.down = time.Now().Add(d)
	if conn != nil && b.conn == conn {
		b.conn = nil
	}
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // it is given up
	}
}

// brokerConn is the connection to a broker, made if there is none.
func (c *Client) brokerConn(ctx context.Context, b *knownBroker) (*broker.Conn, error) {
	c.mu.Lock()
	conn := b.conn
	c.mu.Unlock()
	if conn != nil {
		select {
		case <-conn.Done():
		default:
			return conn, nil
		}
	}
	fresh, err := broker.Dial(ctx, b.address, distill.Chain(c.trust.Genesis()))
	if err != nil {
		c.leaveBroker(b, nil, brokerDown)
		return nil, err
	}
	c.mu.Lock()
	if b.conn != nil && b.conn != conn { // another call was faster
		conn, fresh = fresh, b.conn
	} else {
		b.conn = fresh
	}
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // nobody uses it any more
	}
	return fresh, nil
}

// closeBrokers ends the connections to brokers.
func (c *Client) closeBrokers() {
	c.mu.Lock()
	var conns []*broker.Conn
	for _, b := range c.brokers {
		if b.conn != nil {
			conns = append(conns, b.conn)
			b.conn = nil
		}
	}
	c.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // its error is that it is closed
	}
}

// batched remembers that a broker says that a transfer is on its way.
func (c *Client) batched(id tx.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.onTheWay) >= maxBatched {
		for other, until := range c.onTheWay {
			if now.After(until) {
				delete(c.onTheWay, other)
			}
		}
	}
	if len(c.onTheWay) < maxBatched {
		c.onTheWay[id] = now.Add(c.distillIn)
	}
}

// chase sees to it that a shard has a transaction that is not final: it is sent again if the shard does not know it, and once if it
// is in a batch that takes too long.
func (c *Client) chase(ctx context.Context, t *tx.Signed, id tx.Hash) error {
	c.mu.Lock()
	until, distilled := c.onTheWay[id]
	late := distilled && time.Now().After(until)
	if late {
		delete(c.onTheWay, id)
	}
	c.mu.Unlock()
	switch {
	case late:
		return c.Submit(ctx, []tx.Signed{*t})[0]
	case distilled:
		return nil
	}
	return c.nudge(ctx, c.trust.ShardOf(t.From), id, t)
}
