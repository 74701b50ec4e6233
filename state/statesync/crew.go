package statesync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tutti/state/ledger"
	"tutti/state/tx"
)

// Peer is what the network calls a peer, fit for people to read.
type Peer string

// Network reaches the peers that hold the ledger. Safe for concurrent use.
type Network interface {
	// Peers lists who may be asked, in any order; it is read again and again.
	Peers() []Peer
	// Request asks a peer and waits for the answer or the context's end. The answer belongs to the caller. Any error says
	// that the peer cannot be reached or does not answer just now.
	Request(ctx context.Context, to Peer, request []byte) ([]byte, error)
}

// Times of the scheduler.
const (
	beatEvery   = 50 * time.Millisecond
	firstPause  = 500 * time.Millisecond
	longPause   = 30 * time.Second
	aimPerBatch = 500 * time.Millisecond // what a request should take
	retakeAfter = time.Second            // and twice what it should take: it is taken again where somebody has nothing to do
	leastLimit  = 3 * time.Second        // and four times what it should take: a request's limit
)

// job is one request, and what becomes of the answer.
type job struct {
	request request
	bytes   int // of the answer, about
	// take checks and keeps what came. It runs on the job's own goroutine. A *ledger.BadPart drops the peer.
	take func(ctx context.Context, parts [][]byte) error

	// What take leaves for work.ended, by kind.
	left  []ledger.ChunkID // chunks that are still missing
	spans []ledger.KeySpan // asked for
	kept  int              // of spans or differences, the first ones
	upTo  uint64           // the highest difference that can be checked
	sizes uint64           // of differences, in bytes
	tops  []tx.Hash
}

// work is what a crew has to do. All methods are called by the crew's goroutine.
type work interface {
	// next is a job for a peer that may ask for so many chunks at a time; nil: there is none for it now.
	next(p Peer, batch int) *job
	// ended takes a job back and returns what to make of it: err, which is nil where take returned nil, or something worse.
	ended(p Peer, j *job, err error) error
	// done reports whether there is nothing more to do. An error ends the sync.
	done() (bool, error)
}

// member is what the crew knows of a peer.
type member struct {
	PeerStatus
	out   int           // requests under way
	rest  time.Time     // it is not asked before
	pause time.Duration // the next rest, where it does not say how long
	rate  float64       // bytes a second of an answer, smoothed; 0: not known
	batch int           // chunks in its next request
}

// answers reports whether a peer has said anything and is not resting for long.
func (m *member) answers() bool { return m.Answers+m.Refused+m.Behind > 0 && m.pause < longPause }

// crew hands work to peers, a bounded number of requests at a time, and takes it again from those that fail or are slow.
// It belongs to one goroutine; each request has one of its own, which reports through results.
type crew struct {
	net   Network
	o     *Options
	meter *meter
	now   func() time.Time

	members map[Peer]*member
	out     []*flight
	results chan *flight
	good    time.Time // when a part last came in
}

// flight is a job under way.
type flight struct {
	job    *job
	member *member
	began  time.Time
	cancel context.CancelFunc // of the request, not of take

	// Set by its goroutine before it reports.
	bytes   int
	took    time.Duration // the request alone
	err     error
	reached bool // an answer came
}

func newCrew(o *Options, m *meter) *crew {
	return &crew{
		net: o.Network, o: o, meter: m, now: time.Now, members: map[Peer]*member{},
		results: make(chan *flight, o.Requests), good: time.Now(),
	}
}

// do works until w is done. When it returns, nothing that it started runs any more.
func (c *crew) do(ctx context.Context, w work) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.drain(w, cancel)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	c.good = c.now() // waiting for other things is not the peers' fault
	for {
		if done, err := w.done(); done || err != nil {
			return err
		}
		idle := c.assign(ctx, w)
		if err := c.stuck(); err != nil {
			return err
		}
		select {
		case f := <-c.results:
			if err := c.settle(ctx, w, f); err != nil {
				return err
			}
		case <-beat.C:
			c.meter.sample(c.now())
			if idle {
				c.retake()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain ends all requests and waits for their goroutines.
func (c *crew) drain(w work, cancel context.CancelFunc) {
	cancel()
	for len(c.out) > 0 {
		f := <-c.results
		c.land(f)
		_ = w.ended(f.member.Peer, f.job, f.err)
	}
}

// land takes a flight off the list.
func (c *crew) land(f *flight) {
	f.cancel()
	f.member.out--
	c.out = slices.DeleteFunc(c.out, func(x *flight) bool { return x == f })
}

// usable lists who may be asked now, the fastest first.
func (c *crew) usable() (out []*member) {
	now := c.now()
	for _, p := range c.net.Peers() {
		m := c.members[p]
		if m == nil {
			m = &member{PeerStatus: PeerStatus{Peer: p}, pause: firstPause, batch: 2}
			c.members[p] = m
			c.meter.peer(m.PeerStatus)
		}
		if m.Dropped == "" && !m.rest.After(now) && m.out < c.o.PeerRequests && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b *member) int {
		if a.out != b.out {
			return cmp.Compare(a.out, b.out)
		}
		return cmp.Compare(b.rate, a.rate)
	})
	return out
}

// assign hands out jobs while there are any. It reports whether a peer has nothing to do.
func (c *crew) assign(ctx context.Context, w work) (idle bool) {
	for handed := true; handed; {
		handed = false
		for _, m := range c.usable() {
			if len(c.out) >= c.o.Requests {
				return false
			}
			j := w.next(m.Peer, m.batch)
			if j == nil {
				idle = idle || m.out == 0
				continue
			}
			handed = true
			c.start(ctx, m, j)
		}
	}
	return idle
}

// start sends a job's request.
func (c *crew) start(ctx context.Context, m *member, j *job) {
	asking, cancel := context.WithTimeout(ctx, c.limit(j))
	f := &flight{job: j, member: m, began: c.now(), cancel: cancel}
	m.out++
	c.out = append(c.out, f)
	go func() {
		defer func() { c.results <- f }() // never blocks: there is room for all
		answer, err := c.net.Request(asking, m.Peer, j.request.encode())
		f.took, f.bytes = c.now().Sub(f.began), len(answer)
		if f.err = err; err != nil {
			return
		}
		f.reached = true
		parts, err := decodeAnswer(&j.request, answer)
		if errors.Is(err, ErrMalformed) {
			err = &ledger.BadPart{Part: "an answer", Err: err}
		}
		if f.err = err; err == nil {
			f.err = j.take(ctx, parts)
		}
	}()
}

// typical is the middle of the rates of those that have answered; 0 while nobody has.
func (c *crew) typical() float64 {
	var rates []float64
	for _, m := range c.members {
		if m.rate > 0 && m.Dropped == "" {
			rates = append(rates, m.rate)
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// expected is how long a job should take: 0 while that is not known.
func (c *crew) expected(j *job) time.Duration {
	rate := c.typical()
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(j.bytes) / rate * float64(time.Second))
}

// limit is how long a request may take.
func (c *crew) limit(j *job) time.Duration {
	if e := c.expected(j); e > 0 {
		return min(leastLimit+4*e, c.o.Timeout)
	}
	return c.o.Timeout
}

// retake ends requests that take much longer than they should, because somebody has nothing to do.
func (c *crew) retake() {
	for _, f := range c.out {
		if e := c.expected(f.job); e > 0 && c.now().Sub(f.began) > retakeAfter+2*e {
			f.cancel() // harmless where the answer is here and being checked
		}
	}
}

// settle judges a flight that has come back.
func (c *crew) settle(ctx context.Context, w work, f *flight) error {
	m := f.member
	c.land(f)
	defer func() { c.meter.peer(m.PeerStatus) }()
	f.err = w.ended(m.Peer, f.job, f.err)
	var refused refusal
	var bad *ledger.BadPart
	var old *behind
	var fatal *fatalError
	switch err := f.err; {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		c.praise(f)
	case errors.As(err, &bad):
		c.drop(m, bad)
	case errors.As(err, &fatal):
		return fatal.err
	case errors.As(err, &refused):
		m.Refused++
		c.setAside(m, refused.wait, err)
	case errors.As(err, &old):
		m.Behind++
		c.setAside(m, 0, err)
	case f.reached: // no headers to check it by, or a part that is good and of no use any more
		c.setAside(m, firstPause, err)
	case f.took >= c.o.Timeout || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		m.Slow++
		m.batch = max(1, m.batch/2)
		m.rate = min(m.rate, float64(f.job.bytes)/max(f.took.Seconds(), 0.001)) / 2
		c.setAside(m, 0, fmt.Errorf("no answer within %v", f.took.Round(100*time.Millisecond)))
	default:
		m.Unreachable++
		c.setAside(m, 0, err)
	}
	return nil
}

// praise notes a good part, and asks for as much as comes in aimPerBatch next time.
func (c *crew) praise(f *flight) {
	m := f.member
	m.Answers++
	m.Bytes += uint64(f.bytes)
	m.pause = firstPause
	rate := float64(f.bytes) / max(f.took.Seconds(), 1e-6)
	if m.rate > 0 {
		rate = 0.7*m.rate + 0.3*rate
	}
	m.rate = rate
	fits := int(rate * aimPerBatch.Seconds() / (ledger.ChunkAccounts * ledger.RecordBytes))
	m.batch = max(1, min(fits, 2*m.batch, MaxChunks))
	c.good = c.now()
}

// setAside gives a peer a rest: as long as it asks for, else longer each time.
func (c *crew) setAside(m *member, wait time.Duration, why error) {
	if wait <= 0 {
		wait = m.pause
		m.pause = min(2*m.pause, longPause)
	}
	m.rest = c.now().Add(wait)
	m.Last = why.Error()
}

// fatalError ends the sync: this node can't keep what comes.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// behind says that a good part is too old to be of use: the peer is behind itself.
type behind struct{ height, least uint64 }

func (e *behind) Error() string {
	return fmt.Sprintf("its state is of height %d, at least %d is needed", e.height, e.least)
}

// drop asks a peer for nothing any more.
func (c *crew) drop(m *member, bad *ledger.BadPart) {
	if m.Dropped != "" {
		return
	}
	m.Dropped = fmt.Sprintf("%s: %v", bad.Part, bad.Err)
	m.Last = m.Dropped
	c.o.Observer.Dropped(m.Peer, m.Dropped)
}

// ErrNobody says that no peer is left that could be believed, or none that answers.
var ErrNobody = errors.New("no validator gives this node what it needs")

// stuck reports whether there is nobody left, or nothing good has come for too long.
func (c *crew) stuck() error {
	peers := c.net.Peers()
	alive := len(peers) == 0 || slices.ContainsFunc(peers, func(p Peer) bool { return c.members[p] == nil || c.members[p].Dropped == "" })
	if c.now().Sub(c.good) <= c.o.Patience && (alive || len(c.out) > 0) {
		return nil
	}
	var said []string
	for _, m := range c.members {
		if m.Last != "" {
			said = append(said, fmt.Sprintf("%s: %s", m.Peer, m.Last))
		}
	}
	slices.Sort(said)
	what := "every one that could be asked has sent parts that are wrong"
	if alive {
		what = fmt.Sprintf("nothing good came for %v", c.o.Patience)
	}
	if len(said) == 0 {
		said = []string{"nobody could be asked"}
	}
	return fmt.Errorf("statesync: %w: %s. What came is kept: check the network and start again to go on (%s)", ErrNobody, what, strings.Join(said, "; "))
}
