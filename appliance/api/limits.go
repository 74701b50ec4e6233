package api

import (
	"container/list"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tutti/accel/distill"
	"tutti/state/pool"
)

// maxClients bounds the table of client addresses. When it is full the one not seen for longest is forgotten; its
// buckets have usually refilled by then.
const maxClients = 8192

// limits holds the token buckets. Safe for concurrent use.
type limits struct {
	rates     Rates
	requests  *rate.Limiter // over all
	transfers *rate.Limiter // over all
	inBatches *rate.Limiter // over all
	seed      maphash.Seed

	mu      sync.Mutex                     // guards what follows
	clients map[netip.Prefix]*list.Element // of *client
	recent  *list.List                     // most recently seen first
}

type client struct {
	from      netip.Prefix
	requests  *rate.Limiter
	transfers *rate.Limiter
	inBatches *rate.Limiter
}

func newLimits(r Rates) *limits {
	return &limits{
		rates: r, requests: requestBucket(r.TotalRequests), transfers: transferBucket(r.TotalTransactions),
		inBatches: batchBucket(r.TotalBatched),
		seed:      maphash.MakeSeed(), clients: map[netip.Prefix]*list.Element{}, recent: list.New(),
	}
}

// requestBucket holds two seconds' worth of requests, transferBucket one second's of transactions but a full call at
// least, so that a call within the limit always fits some time.
func requestBucket(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), 1+int(2*perSecond))
}

func transferBucket(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(MaxTransactions, int(perSecond)))
}

// batchBucket is likewise for transfers in batches.
func batchBucket(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), max(distill.MaxCount, int(perSecond)))
}

// clientOf is the network that a request is from. Forwarding headers are not believed.
func clientOf(r *http.Request) netip.Prefix {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // not TCP: all such clients share one bucket
	}
	bits, addr := 32, at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// source numbers a client for quotas of the pool.
func (l *limits) source(r *http.Request) uint64 { return maphash.Comparable(l.seed, clientOf(r)) }

func (l *limits) client(from netip.Prefix) *client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.clients[from]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*client)
	}
	if l.recent.Len() == maxClients {
		oldest := l.recent.Back()
		delete(l.clients, l.recent.Remove(oldest).(*client).from)
	}
	c := &client{from, requestBucket(l.rates.ClientRequests), transferBucket(l.rates.ClientTransactions), batchBucket(l.rates.ClientBatched)}
	l.clients[from] = l.recent.PushFront(c)
	return c
}

// request takes a token for one request, or says when to come back.
func (l *limits) request(r *http.Request) error {
	return take(1, l.client(clientOf(r)).requests, l.requests)
}

// transactions takes n tokens, or none and says when to come back.
func (l *limits) transactions(r *http.Request, n int) error {
	return take(n, l.client(clientOf(r)).transfers, l.transfers)
}

// batched takes tokens for a batch, likewise, or all there can be if it costs more.
func (l *limits) batched(r *http.Request, b *distill.Batch) error {
	mine := l.client(clientOf(r)).inBatches
	return take(min(pool.BatchCost(b), mine.Burst(), l.inBatches.Burst()), mine, l.inBatches)
}

// signers takes tokens for accounts that a broker asks for, out of the same buckets.
func (l *limits) signers(r *http.Request, n int) error {
	return take(n, l.client(clientOf(r)).inBatches, l.inBatches)
}

// take takes n tokens from both buckets or from neither. The client's comes first, so that what one client is refused
// does not cost the others.
func take(n int, client, total *rate.Limiter) error {
	now := time.Now()
	mine := client.ReserveN(now, n)
	if wait := mine.DelayFrom(now); wait > 0 {
		mine.CancelAt(now)
		return &Error{Code: RateLimited, Detail: "the limit for your address", RetryAfter: wait}
	}
	all := total.ReserveN(now, n)
	if wait := all.DelayFrom(now); wait > 0 {
		all.CancelAt(now)
		mine.CancelAt(now)
		return &Error{Code: RateLimited, Detail: "the limit over all clients", RetryAfter: wait}
	}
	return nil
}

// limitConns makes Accept wait while max connections are open.
func limitConns(l net.Listener, max int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, max), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
