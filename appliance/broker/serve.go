package broker

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/consensus"
	"tutti/state/tx"
)

// Nodes is what a broker needs of the network; package client's Client is one. Safe for concurrent use.
type Nodes interface {
	// Signers is a node's word on accounts of a shard, at most api.MaxSigners, in their order.
	Signers(ctx context.Context, shard consensus.ShardID, ids []tx.ID) (*api.Signers, error)
	// Submit gives transactions to nodes; each has its verdict.
	Submit(ctx context.Context, txs []tx.Signed) []error
	// SubmitBatch gives a batch to nodes of its senders' shard.
	SubmitBatch(ctx context.Context, b *distill.Batch) error
}

// Quota bounds what a broker takes.
type Quota struct {
	InWork     int // transfers without a verdict, over all
	InWorkEach int // of one source
	PerSecond  int // submissions of one source
	Conns      int // of one source
	TotalConns int
}

// DefaultQuota is what a broker takes that nobody configured.
var DefaultQuota = Quota{InWork: 200_000, InWorkEach: 20_000, PerSecond: 10_000, Conns: 64, TotalConns: 4096}

// Options of a Server. What has a default in brackets may be zero.
type Options struct {
	Chain     distill.Chain
	Shards    int
	ShardOf   func(tx.ID) consensus.ShardID
	Fees      []uint64 // price of each fee class
	MaxExpiry uint32   // heights that an expiry may be ahead of the final one, for nodes to take it
	MaxCount  int      // transfers of one batch, for nodes to take it
	Nodes     Nodes
	Key       ed25519.PrivateKey
	Window    time.Duration // [DefaultWindow]
	Patience  time.Duration // [DefaultPatience]
	Least     int           // transfers of a batch; fewer are sent on their own [DefaultLeast]
	Quota     Quota         // [DefaultQuota]
	Log       *slog.Logger
}

// Defaults. A pairing costs a validator about as much as two dozen single signatures.
const (
	DefaultWindow   = 100 * time.Millisecond
	DefaultPatience = 150 * time.Millisecond
	DefaultLeast    = 16
)

// Bounds and times.
const (
	maxWindow   = 10 * time.Second
	maxBehind   = 4 // transfers of one sender that wait for the one in work
	maxRounds   = 8 // batches in the making, of each shard
	maxOffers   = 4 // of one submission
	maxOut      = 16 << 20
	maxStanding = 1 << 19
	maxBarred   = 1 << 16
	maxSent     = 1 << 19
	maxSettling = 256

	busyFor     = 200 * time.Millisecond
	barFor      = time.Minute
	settleAfter = 4 * time.Second
	askFor      = 2 * time.Second
	submitFor   = 5 * time.Second
	stopFor     = 2 * time.Second
	greetFor    = 5 * time.Second
	writeFor    = 10 * time.Second
	idleFor     = 30 * time.Second
	leastAhead  = 20 // heights that an expiry must be ahead
	slackAhead  = 8  // heights that nodes may be behind the one that was asked
)

// Stats counts since the start, but for the first two.
type Stats struct {
	Conns, InWork int // now

	Submitted  uint64        `json:"submitted"`
	Batches    uint64        `json:"batches"`
	Batched    uint64        `json:"batched"`    // transfers in them
	Stragglers uint64        `json:"stragglers"` // of those
	Single     uint64        `json:"single"`     // sent on their own
	Refused    [codes]uint64 `json:"refused"`
	Again      uint64        `json:"again"`    // batches that were made again without a wrong signature
	Strikes    uint64        `json:"strikes"`  // for wrong signatures and shares
	Excluded   uint64        `json:"excluded"` // senders, for transfers that took no effect
}

type counters struct {
	submitted, batches, batched, stragglers, single, again, strikes, excluded atomic.Uint64
	refused                                                                   [codes]atomic.Uint64
}

// Server is a broker. Make it with New, and run Serve once.
type Server struct {
	opt      Options
	lanes    []*lane // by shard
	sources  *sources
	standing *recent[netip.Prefix] // senders that answered rightly lately, and where from
	barred   *recent[time.Time]    // senders, until when
	sent     *recent[sentOne]      // of senders, their newest transfer that a node holds
	count    counters
	conns    atomic.Int64
	settling chan struct{}
	stopping atomic.Bool
	rounds   atomic.Uint32
	group    sync.WaitGroup

	settleAfter time.Duration // constant; tests are less patient
}

// New makes a broker.
func New(opt Options) (*Server, error) {
	or := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	or(&opt.Window, DefaultWindow)
	or(&opt.Patience, DefaultPatience)
	if opt.Least == 0 {
		opt.Least = DefaultLeast
	}
	if opt.Quota == (Quota{}) {
		opt.Quota = DefaultQuota
	}
	q := opt.Quota
	switch {
	case opt.Window < time.Millisecond || opt.Window > maxWindow || opt.Patience < time.Millisecond || opt.Patience > maxWindow:
		return nil, fmt.Errorf("broker: window %s, patience %s: choose 1ms to %s", opt.Window, opt.Patience, maxWindow)
	case min(q.InWork, q.InWorkEach, q.PerSecond, q.Conns, q.TotalConns, opt.Least) < 1:
		return nil, errors.New("broker: quotas and the least size of a batch must be above zero")
	case opt.Shards < 1 || opt.Nodes == nil || opt.ShardOf == nil || len(opt.Key) != ed25519.PrivateKeySize || opt.Log == nil || len(opt.Fees) == 0:
		return nil, errors.New("broker: shards, fees, nodes, key and log are needed")
	}
	if opt.MaxCount = min(opt.MaxCount, distill.MaxCount); opt.MaxCount < 1 {
		return nil, errors.New("broker: nodes take no batches")
	}
	s := &Server{
		opt: opt, sources: &sources{quota: q, all: map[netip.Prefix]*source{}}, standing: newRecent[netip.Prefix](maxStanding),
		barred: newRecent[time.Time](maxBarred), sent: newRecent[sentOne](maxSent), settling: make(chan struct{}, maxSettling),
		settleAfter: settleAfter,
	}
	for shard := range opt.Shards {
		s.lanes = append(s.lanes, newLane(s, consensus.ShardID(shard)))
	}
	return s, nil
}

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	c := &s.count
	out := Stats{
		Conns: int(s.conns.Load()), InWork: s.sources.working(), Submitted: c.submitted.Load(), Batches: c.batches.Load(), Batched: c.batched.Load(),
		Stragglers: c.stragglers.Load(), Single: c.single.Load(), Again: c.again.Load(), Strikes: c.strikes.Load(), Excluded: c.excluded.Load(),
	}
	for i := range out.Refused {
		out.Refused[i] = c.refused[i].Load()
	}
	return out
}

// Certificate is what a broker shows: of its key, and of nothing else.
func certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Codes with which the broker closes a connection.
const (
	closeStopping  = 1
	closeMalformed = 2
	closeChain     = 3
	closeTooMany   = 4
	closeSlow      = 5
)

// quiet keeps quic-go from writing to standard error that it wants a larger net.core.rmem_max: `tutti doctor` says that.
func quiet() error { return os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") }

// Serve serves at a UDP socket, which it closes, until ctx ends; then it refuses what comes, gives what is in work its verdict as
// far as that takes no longer than two seconds, and returns nil.
func (s *Server) Serve(ctx context.Context, at net.PacketConn) error {
	if err := quiet(); err != nil {
		return err
	}
	cert, err := certificate(s.opt.Key)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	transport := &quic.Transport{Conn: at, VerifySourceAddress: func(net.Addr) bool { return s.conns.Load() > int64(s.opt.Quota.TotalConns/4) }}
	listener, err := transport.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13},
		&quic.Config{MaxIncomingStreams: 1, MaxIncomingUniStreams: -1, MaxIdleTimeout: idleFor, HandshakeIdleTimeout: greetFor})
	if err != nil {
		return errors.Join(fmt.Errorf("broker: %w", err), at.Close())
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for _, l := range s.lanes {
		l.start(work)
	}
	for {
		q, err := listener.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.opt.Log.Error("the socket can't be read any more", "err", err)
			}
			break
		}
		s.group.Go(func() { s.connection(work, q) })
	}
	s.stopping.Store(true)
	for end := time.Now().Add(stopFor); s.sources.working() > 0 && time.Now().Before(end); {
		if !pause(work, 10*time.Millisecond) {
			break
		}
	}
	cancel()
	err = errors.Join(listener.Close(), transport.Close(), at.Close())
	s.group.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if ctx.Err() == nil {
		return errors.Join(errors.New("broker: the socket failed"), err)
	}
	return nil
}

// pause waits, and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// conn is one connection.
type conn struct {
	s    *Server
	from netip.Prefix
	wake chan struct{} // holds one token while out is news

	mu      sync.Mutex // guards what follows, and round, place and offers of its entries
	entries map[uint32]*entry
	out     []byte // messages to be written
	broken  bool   // nothing more is written
}

// connection serves one connection to its end.
func (s *Server) connection(ctx context.Context, q *quic.Conn) {
	end := func(code quic.ApplicationErrorCode, why string) { _ = q.CloseWithError(code, why) } // its end is all there is
	from := sourceOf(q.RemoteAddr())
	if s.conns.Add(1) > int64(s.opt.Quota.TotalConns) || !s.sources.connect(from, time.Now()) {
		s.conns.Add(-1)
		end(closeTooMany, "too many connections, or barred")
		return
	}
	defer func() { s.conns.Add(-1); s.sources.disconnect(from) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	greeting, greeted := context.WithTimeout(ctx, greetFor)
	st, err := q.AcceptStream(greeting)
	greeted()
	if err != nil {
		end(closeMalformed, "no stream")
		return
	}
	defer context.AfterFunc(ctx, func() { end(closeStopping, "stopping") })()
	r := newReader(st)
	_ = st.SetReadDeadline(time.Now().Add(greetFor)) // fails on a closed stream, and so does what follows
	chain, err := r.hello()
	switch {
	case err != nil:
		end(closeMalformed, "no hello")
		return
	case chain != s.opt.Chain:
		end(closeChain, "another chain")
		return
	}
	_ = st.SetReadDeadline(time.Time{})
	c := &conn{s: s, from: from, wake: make(chan struct{}, 1), entries: map[uint32]*entry{}}
	c.send((&Welcome{s.opt.Window, s.opt.Patience}).append)
	var writer sync.WaitGroup
	writer.Go(func() {
		if c.write(ctx, st) != nil {
			end(closeSlow, "messages are not read")
		}
	})
	err = c.read(r)
	cancel()
	c.mu.Lock()
	c.broken, c.out = true, nil
	c.mu.Unlock()
	if err != nil {
		end(closeMalformed, "malformed")
	} else {
		end(0, "")
	}
	writer.Wait()
}

// send appends a message to what is to be written.
func (c *conn) send(message func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendLocked(message)
}

// sendLocked is send for who holds mu.
func (c *conn) sendLocked(message func([]byte) []byte) {
	if c.broken {
		return
	}
	if c.out = message(c.out); len(c.out) > maxOut { // it is not read: nothing more is kept for it
		c.broken, c.out = true, nil
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

var errSlow = errors.New("broker: messages are not read")

// write writes what is to be written until ctx ends.
func (c *conn) write(ctx context.Context, st *quic.Stream) error {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil
		}
		c.mu.Lock()
		out, broken := c.out, c.broken
		c.out = spare[:0]
		c.mu.Unlock()
		if broken {
			return errSlow
		}
		if err := st.SetWriteDeadline(time.Now().Add(writeFor)); err != nil {
			return err
		}
		if _, err := st.Write(out); err != nil {
			return err
		}
		if spare = out; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

// read takes messages until the stream ends. The error says that a message was malformed, or how the connection broke.
func (c *conn) read(r *reader) error {
	for {
		kind, err := r.kind()
		if err != nil {
			return nil // the client went
		}
		switch kind {
		case typeSubmission:
			m, err := r.submission()
			if err != nil {
				return err
			}
			if err := c.submitted(&m); err != nil {
				return err
			}
		case typeAnswer:
			m, err := r.answer()
			if err != nil {
				return err
			}
			c.answered(&m)
		default:
			return fmt.Errorf("%w: type %d", ErrMalformed, kind)
		}
	}
}

// submitted takes a submission in, or refuses it.
func (c *conn) submitted(m *submission) error {
	s, now := c.s, time.Now()
	s.count.submitted.Add(1)
	t, err := tx.Decode(append(append(append(make([]byte, 0, tx.TransferWire), byte(tx.Transfer)), m.Body[:]...), m.Signature[:]...))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	e := &entry{conn: c, number: m.number, t: *t, sub: m.Submission, came: now}
	refuse := func(v Verdict) error {
		s.count.refused[v.Code].Add(1)
		c.send((&verdict{m.number, v}).append)
		return nil
	}
	shard := s.opt.ShardOf(t.From)
	if s.stopping.Load() {
		return refuse(Verdict{CodeShuttingDown, time.Second})
	}
	if int(shard) >= len(s.lanes) {
		return refuse(Verdict{Code: CodeShard})
	}
	if until, ok := s.barred.get(e.sender()); ok && now.Before(until) {
		return refuse(Verdict{CodeBarred, until.Sub(now)})
	}
	if v, ok := s.sources.take(c.from, now); !ok {
		return refuse(v)
	}
	c.mu.Lock()
	twice := c.entries[m.number] != nil
	if !twice {
		c.entries[m.number] = e
	}
	c.mu.Unlock()
	if twice {
		s.sources.free(c.from)
		return fmt.Errorf("%w: number %d is in use", ErrMalformed, m.number)
	}
	e.lane = s.lanes[shard]
	if !e.lane.enter(e) {
		s.end(e, Verdict{CodeBusy, busyFor}, false)
	}
	return nil
}

// answered takes a sender's share to its round, if it is still wanted.
func (c *conn) answered(m *answer) {
	c.mu.Lock()
	e := c.entries[m.number]
	var rd *round
	place := 0
	if e != nil && e.round != nil && e.round.id == m.round {
		rd, place = e.round, e.place
	}
	c.mu.Unlock()
	if rd == nil {
		return // too late
	}
	if !rd.answer(place, m.share) {
		c.s.strike(e)
	}
}

// end gives a submission its verdict. held says that it is the one in work of its sender.
func (s *Server) end(e *entry, v Verdict, held bool) {
	if v.Taken() {
		if v.Code == CodeSingle {
			s.count.single.Add(1)
		} else {
			s.count.batched.Add(1)
		}
	} else {
		s.count.refused[v.Code].Add(1)
	}
	c := e.conn
	c.mu.Lock()
	delete(c.entries, e.number)
	c.sendLocked((&verdict{e.number, v}).append)
	c.mu.Unlock()
	s.sources.free(c.from)
	if held {
		e.lane.release(e)
	}
}

// strike remembers that a submission was harmful.
func (s *Server) strike(e *entry) {
	s.count.strikes.Add(1)
	s.standing.drop(e.sender())
	s.sources.strike(e.conn.from, time.Now())
}
