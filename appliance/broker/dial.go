package broker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/config"
)

// Errors of the client end.
var (
	ErrReach = errors.New("broker: it can't be reached")
	ErrGone  = errors.New("broker: the connection is over")
	ErrLied  = errors.New("broker: it broke the protocol")
)

// Conn is a connection to a broker, for as many senders as one likes. Make it with Dial. It is safe for concurrent use.
type Conn struct {
	chain   distill.Chain
	quic    *quic.Conn
	stream  *quic.Stream
	welcome Welcome
	jobs    chan job // offers to be answered; bounded by the transfers under way times maxOffers
	wake    chan struct{}
	done    chan struct{} // closed when the connection is over
	group   sync.WaitGroup
	cancel  context.CancelFunc

	mu    sync.Mutex // guards what follows
	next  uint32
	calls map[uint32]*call
	out   []byte
	why   error // set before done is closed
}

// call is a submission without a verdict.
type call struct {
	body    [distill.BodyBytes]byte
	key     *bls.SecretKey
	offers  int
	verdict chan Verdict // holds one
}

// job is an offer to be answered.
type job struct {
	call *call
	late time.Time // the broker does not wait longer
	offer
}

// maxCalls bounds the submissions of a connection that have no verdict.
const maxCalls = 100_000

// Dial connects to a broker, whose address is as config.ParseBroker reads it. The context is for connecting alone.
func Dial(ctx context.Context, address string, chain distill.Chain) (*Conn, error) {
	key, at, err := config.ParseBroker(address)
	if err != nil {
		return nil, err
	}
	if err := quiet(); err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{
		NextProtos: []string{ALPN}, MinVersion: tls.VersionTLS13, ServerName: "broker",
		InsecureSkipVerify: true, // nothing rests on who the broker is; a key that is named is compared below
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if key == nil {
				return nil
			}
			c, err := x509.ParseCertificate(raw[0])
			if err != nil {
				return err
			}
			if public, ok := c.PublicKey.(ed25519.PublicKey); !ok || !bytes.Equal(public, key[:]) {
				return errors.New("the broker has another key than its address says")
			}
			return nil
		},
	}
	q, err := quic.DialAddr(ctx, at, tlsConfig, &quic.Config{
		MaxIncomingStreams: -1, MaxIncomingUniStreams: -1, MaxIdleTimeout: idleFor, KeepAlivePeriod: idleFor / 3, HandshakeIdleTimeout: greetFor,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrReach, at, err)
	}
	c := &Conn{
		chain: chain, quic: q, jobs: make(chan job, maxOut/answerBytes), wake: make(chan struct{}, 1), done: make(chan struct{}), calls: map[uint32]*call{},
	}
	if err := c.greet(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s: %w", ErrReach, at, err), q.CloseWithError(0, ""))
	}
	return c, nil
}

// greet exchanges hello and welcome and starts the goroutines.
func (c *Conn) greet(ctx context.Context) (err error) {
	if c.stream, err = c.quic.OpenStream(); err != nil {
		return err
	}
	if _, err = c.stream.Write(appendHello(nil, c.chain)); err != nil {
		return err
	}
	until, limited := ctx.Deadline()
	if !limited {
		until = time.Now().Add(greetFor)
	}
	if err = c.stream.SetReadDeadline(until); err != nil {
		return err
	}
	r := newReader(c.stream)
	if c.welcome, err = r.hail(); err != nil {
		return err
	}
	if err = c.stream.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	var running context.Context
	running, c.cancel = context.WithCancel(context.Background())
	for range runtime.GOMAXPROCS(0) {
		c.group.Go(func() { c.sign(running) })
	}
	c.group.Go(func() { c.write(running) })
	c.group.Go(func() { c.end(c.read(r)) })
	return nil
}

// hail is welcome, where the end of the stream is no end.
func (r *reader) hail() (Welcome, error) {
	w, err := r.welcome()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return w, err
}

// Welcome is what the broker said of itself.
func (c *Conn) Welcome() Welcome { return c.welcome }

// Done is closed when the connection is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for its goroutines.
func (c *Conn) Close() error {
	c.end(ErrGone)
	c.group.Wait()
	return nil
}

// end ends the connection for a reason, the first of which counts.
func (c *Conn) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return
	}
	if !errors.Is(why, ErrLied) {
		why = fmt.Errorf("%w: %w", ErrGone, why)
	}
	c.why = why
	close(c.done)
	c.cancel()
	_ = c.quic.CloseWithError(0, "") // it may be closed already
}

// Submit gives a transfer to the broker, answers for its sender when it is offered, and waits for the verdict. When ctx ends it
// gives up waiting; the transfer may come into a batch nevertheless. A broker that breaks the protocol, or the end of the connection,
// is an error.
func (c *Conn) Submit(ctx context.Context, sub Submission, key *bls.SecretKey) (Verdict, error) {
	k := &call{body: sub.Body, key: key, verdict: make(chan Verdict, 1)}
	c.mu.Lock()
	if c.why != nil {
		c.mu.Unlock()
		return Verdict{}, c.why
	}
	if len(c.calls) >= maxCalls {
		c.mu.Unlock()
		return Verdict{CodeBusy, busyFor}, nil
	}
	for c.calls[c.next] != nil {
		c.next++
	}
	number := c.next
	c.next++
	c.calls[number] = k
	c.out = (&submission{number, sub}).append(c.out)
	c.mu.Unlock()
	poke(c.wake)
	select {
	case v := <-k.verdict:
		return v, nil
	case <-c.done:
		return Verdict{}, c.why
	case <-ctx.Done():
		return Verdict{}, ctx.Err() // the call stays until its verdict: its number is in use
	}
}

// read takes messages until the connection ends.
func (c *Conn) read(r *reader) error {
	for {
		kind, err := r.kind()
		if err != nil {
			return err
		}
		switch kind {
		case typeOffer:
			o, err := r.offer()
			if err != nil {
				return lied(err)
			}
			if err := c.offered(o); err != nil {
				return err
			}
		case typeVerdict:
			v, err := r.verdict()
			if err != nil {
				return lied(err)
			}
			c.mu.Lock()
			k := c.calls[v.number]
			delete(c.calls, v.number)
			c.mu.Unlock()
			if k == nil {
				return fmt.Errorf("%w: a verdict on a submission that there is not", ErrLied)
			}
			k.verdict <- v.Verdict
		default:
			return fmt.Errorf("%w: a message of type %d", ErrLied, kind)
		}
	}
}

func lied(err error) error {
	if errors.Is(err, ErrMalformed) {
		return fmt.Errorf("%w: %w", ErrLied, err)
	}
	return err
}

// offered queues an offer for the signers.
func (c *Conn) offered(o offer) error {
	c.mu.Lock()
	k := c.calls[o.number]
	if k != nil {
		k.offers++
	}
	c.mu.Unlock()
	if k == nil || k.offers > maxOffers {
		return fmt.Errorf("%w: an offer of a submission that there is not, or one too many", ErrLied)
	}
	select {
	case c.jobs <- job{k, time.Now().Add(c.welcome.Patience), o}:
	default: // so many wait that this one would be late: its sender is a straggler
	}
	return nil
}

// sign answers offers.
func (c *Conn) sign(ctx context.Context) {
	for {
		select {
		case j := <-c.jobs:
			if time.Now().After(j.late) {
				continue // who signs what is late gets late with the rest, too
			}
			share, err := c.chain.Answer(j.call.key, &j.call.body, &j.Offer)
			if err != nil {
				c.end(fmt.Errorf("%w: %w", ErrLied, err))
				return
			}
			c.mu.Lock()
			c.out = (&answer{j.number, j.round, share}).append(c.out)
			c.mu.Unlock()
			poke(c.wake)
		case <-ctx.Done():
			return
		}
	}
}

// write writes what is to be written.
func (c *Conn) write(ctx context.Context) {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		out := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		err := c.stream.SetWriteDeadline(time.Now().Add(writeFor))
		if err == nil {
			_, err = c.stream.Write(out)
		}
		if err != nil {
			c.end(err)
			return
		}
		spare = out
	}
}
