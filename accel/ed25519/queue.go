package ed25519

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Errors of Queue.Verify. After any error the verdicts are undefined and the signatures count as not verified.
var (
	ErrQueueFull   = errors.New("ed25519: verification queue is full, try again later")
	ErrQueueClosed = errors.New("ed25519: verification queue is closed")
)

// QueueOptions bound a Queue. Zero values mean the default in brackets.
type QueueOptions struct {
	Workers   int           // goroutines that verify, at most 1024 [GOMAXPROCS]
	MaxBatch  int           // signatures per batch, at most 4096 [512]
	MaxDelay  time.Duration // how long an idle queue waits for a batch to fill, at most 1 ms [1 ms]; negative: not at all
	Depth     int           // signatures that may wait over all sources, at most 2^24 [131072]
	PerSource int           // of these, from one source, at most Depth [half of Depth]
	Keys      int           // keys of repeat senders to remember, KeyBytes each [1024]; negative: none
}

func (o QueueOptions) filled() (QueueOptions, error) {
	def := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	def(&o.Workers, runtime.GOMAXPROCS(0))
	def(&o.MaxBatch, 512)
	def(&o.Depth, 1<<17)
	def(&o.PerSource, (o.Depth+1)/2)
	def(&o.Keys, 1024)
	if o.MaxDelay == 0 {
		o.MaxDelay = time.Millisecond
	}
	switch {
	case o.Workers < 1 || o.Workers > 1024:
		return o, fmt.Errorf("ed25519: %d workers: need 1 to 1024", o.Workers)
	case o.MaxBatch < 1 || o.MaxBatch > 4096:
		return o, fmt.Errorf("ed25519: batches of %d: need 1 to 4096", o.MaxBatch)
	case o.MaxDelay > time.Millisecond:
		return o, fmt.Errorf("ed25519: delay of %v: need at most 1ms", o.MaxDelay)
	case o.Depth < o.MaxBatch || o.Depth > 1<<24:
		return o, fmt.Errorf("ed25519: queue depth %d: need %d (one batch) to %d", o.Depth, o.MaxBatch, 1<<24)
	case o.PerSource < 1 || o.PerSource > o.Depth:
		return o, fmt.Errorf("ed25519: %d signatures per source: need 1 to the queue depth, %d", o.PerSource, o.Depth)
	}
	return o, nil
}

// Counters count signatures and batches since the queue was made. Every signature that was handed to Verify is in
// exactly one of the counters but Batches.
type Counters struct {
	Valid, Invalid uint64 // got a verdict
	Full           uint64 // refused because Depth was reached
	OverShare      uint64 // refused because PerSource was reached
	Cancelled      uint64 // dropped because the caller's context ended before they reached a worker
	Closed         uint64 // refused or dropped because the queue was closed
	Waiting        uint64 // in the queue now
	Running        uint64 // with a worker now
	Batches        uint64 // calls of the backend, each for one source
}

// Queue verifies signatures of many callers in batches on a fixed number of goroutines.
//
// Callers name a source (a peer, a client address, the chain itself). Signatures wait per source, sources take turns,
// one batch each, and a batch holds signatures of one source only. So a source that sends bad signatures slows down
// its own batches, and one that sends many delays another by no more than one batch per turn. An idle queue waits
// MaxDelay from the first signature's arrival for a batch to fill; a busy one does not wait.
//
// Safe for concurrent use. Lock mu owns every field below it; the counts in a request as well.
type Queue struct {
	opts    QueueOptions
	backend verifier
	workers sync.WaitGroup
	wake    chan struct{} // tells one worker that there may be something to do; capacity: Workers
	closing chan struct{}

	mu       sync.Mutex
	closed   bool
	held     int                // places of Depth in use: waiting signatures, and cancelled ones until their turn
	sources  map[uint64]*source // those with held signatures, so at most Depth of them
	turns    []*source          // the same, in the order of their turns
	counters Counters
}

// source is what waits for one source, oldest first. Queue.mu owns it.
type source struct {
	id       uint64
	requests []*request
	held     int // places of PerSource in use
}

// request is one call of Verify. A worker owns the verdicts that it has taken until it reduces running.
type request struct {
	items   []Item
	ok      []bool
	arrived time.Time
	end     int // items[:end] are wanted; below len(items) once cancelled or closed
	taken   int // items[:taken] went to workers
	running int // of those, how many have no verdict yet
	err     error
	done    chan struct{} // closed when nothing is waiting or running any more
}

// drop gives up what no worker has taken, says how much that is, and finishes the request if nothing is running.
func (r *request) drop(err error) int {
	left := r.end - r.taken
	if left > 0 {
		r.end, r.err = r.taken, err
		if r.running == 0 {
			close(r.done)
		}
	}
	return left
}

// part is a worker's share of a request.
type part struct {
	r     *request
	items []Item
	ok    []bool
}

// verifier is what a queue needs of a Verifier.
type verifier interface {
	VerifyMany(items []Item, ok []bool)
}

// NewQueue starts the workers, which share a Verifier. Close stops them.
func NewQueue(opts QueueOptions) (*Queue, error) {
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	v, err := NewVerifier(max(0, opts.Keys))
	if err != nil {
		return nil, err
	}
	choose() // now, so that the first signatures don't wait for it
	return newQueue(opts, v)
}

func newQueue(opts QueueOptions, backend verifier) (*Queue, error) {
	opts, err := opts.filled()
	if err != nil {
		return nil, err
	}
	q := &Queue{
		opts: opts, backend: backend,
		wake: make(chan struct{}, opts.Workers), closing: make(chan struct{}),
		sources: make(map[uint64]*source),
	}
	for range opts.Workers {
		q.workers.Go(q.work)
	}
	return q, nil
}

// Verify waits until ok[i] is the verdict on items[i] for every item. ok must be at least as long as items, and
// neither may be touched before Verify returns. It fails at once with ErrQueueFull if the items do not fit into what
// is left of Depth or of the source's share (more than PerSource never fit: split them), with ErrQueueClosed after or
// during Close, and with the context's error, within the time of one batch, if ctx ends first.
func (q *Queue) Verify(ctx context.Context, sourceID uint64, items []Item, ok []bool) error {
	if err := ctx.Err(); err != nil || len(items) == 0 {
		return err
	}
	r := &request{items: items, ok: ok[:len(items)], arrived: time.Now(), end: len(items), done: make(chan struct{})}
	if err := q.put(sourceID, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		q.mu.Lock()
		dropped := uint64(r.drop(ctx.Err()))
		q.counters.Cancelled += dropped
		q.counters.Waiting -= dropped
		q.mu.Unlock()
		<-r.done // a worker may still be writing verdicts
	}
	return r.err
}

func (q *Queue) put(sourceID uint64, r *request) error {
	n := len(r.items)
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.sources[sourceID]
	switch {
	case q.closed:
		q.counters.Closed += uint64(n)
		return ErrQueueClosed
	case n > q.opts.PerSource || s != nil && n > q.opts.PerSource-s.held:
		q.counters.OverShare += uint64(n)
		return ErrQueueFull
	case n > q.opts.Depth-q.held:
		q.counters.Full += uint64(n)
		return ErrQueueFull
	}
	if s == nil {
		s = &source{id: sourceID}
		q.sources[sourceID] = s
		q.turns = append(q.turns, s)
	}
	s.requests = append(s.requests, r)
	s.held += n
	q.held += n
	q.counters.Waiting += uint64(n)
	q.signal()
	return nil
}

// signal wakes a worker, unless enough are being woken already.
func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// work is a worker's life.
func (q *Queue) work() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var parts []part
	items, ok := make([]Item, 0, q.opts.MaxBatch), make([]bool, q.opts.MaxBatch)
	for {
		var wait time.Duration
		parts, wait = q.take(parts[:0])
		if len(parts) > 0 {
			q.verify(parts, items, ok)
			clear(parts) // callers own what the parts point to
			continue
		}
		timer.Reset(wait)
		select {
		case <-q.wake:
		case <-timer.C:
		case <-q.closing:
			return
		}
	}
}

// take takes the batch of the source whose turn it is, as parts appended to the empty parts. If it is too early for
// that, or nothing waits, it says how long to wait for a signal.
func (q *Queue) take(parts []part) ([]part, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.turns) > 0 && len(parts) == 0 {
		s := q.turns[0]
		if q.counters.Waiting < uint64(q.opts.MaxBatch) {
			if early := q.opts.MaxDelay - time.Since(s.requests[0].arrived); early > 0 {
				return parts, early
			}
		}
		parts = q.takeFrom(s, parts)
		q.turns = q.turns[1:]
		if len(s.requests) > 0 {
			q.turns = append(q.turns, s)
		} else {
			delete(q.sources, s.id)
		}
	}
	if len(q.turns) > 0 {
		q.signal()
	}
	return parts, time.Hour
}

// takeFrom takes up to a batch from s and forgets its requests that were taken whole or dropped.
func (q *Queue) takeFrom(s *source, parts []part) []part {
	room := q.opts.MaxBatch
	for room > 0 && len(s.requests) > 0 {
		r := s.requests[0]
		n := min(room, r.end-r.taken)
		if n > 0 {
			parts = append(parts, part{r, r.items[r.taken : r.taken+n], r.ok[r.taken : r.taken+n]})
		}
		r.taken += n
		r.running += n
		room -= n
		freed := n
		if r.taken == r.end {
			freed += len(r.items) - r.end
			s.requests[0] = nil
			s.requests = s.requests[1:]
		}
		s.held -= freed
		q.held -= freed
	}
	if n := uint64(q.opts.MaxBatch - room); n > 0 {
		q.counters.Waiting -= n
		q.counters.Running += n
		q.counters.Batches++
	}
	return parts
}

// verify runs one batch and gives its parts back. A batch from one request needs no copy; others are gathered in
// items and ok, the worker's own.
func (q *Queue) verify(parts []part, items []Item, ok []bool) {
	if len(parts) == 1 {
		items, ok = parts[0].items, parts[0].ok
		q.backend.VerifyMany(items, ok)
	} else {
		for _, p := range parts {
			items = append(items, p.items...)
		}
		ok = ok[:len(items)]
		q.backend.VerifyMany(items, ok)
		at := 0
		for _, p := range parts {
			at += copy(p.ok, ok[at:])
		}
		clear(items) // callers own the messages
	}
	valid := 0
	for _, v := range ok {
		if v {
			valid++
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counters.Valid += uint64(valid)
	q.counters.Invalid += uint64(len(ok) - valid)
	q.counters.Running -= uint64(len(ok))
	for _, p := range parts {
		p.r.running -= len(p.items)
		if p.r.running == 0 && p.r.taken == p.r.end {
			close(p.r.done)
		}
	}
}

// Counters is a consistent snapshot.
func (q *Queue) Counters() Counters {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counters
}

// Close drops what waits (those calls of Verify fail with ErrQueueClosed), lets running batches finish and returns
// when the workers are gone. It may be called more than once.
func (q *Queue) Close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
		for _, s := range q.turns {
			for _, r := range s.requests {
				dropped := uint64(r.drop(ErrQueueClosed))
				q.counters.Closed += dropped
				q.counters.Waiting -= dropped
			}
		}
		q.turns, q.sources = nil, nil
	}
	q.mu.Unlock()
	q.workers.Wait()
}
