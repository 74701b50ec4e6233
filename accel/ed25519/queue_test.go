package ed25519

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counting is a backend of no cryptography: a signature is valid if its first byte is 1. It records its batches and,
// if gate is not nil, waits for a token per batch.
type counting struct {
	gate chan struct{}

	mu      sync.Mutex
	batches []string // first key byte and length of each
}

func (*counting) Name() string { return "counting" }

func (c *counting) VerifyMany(items []Item, ok []bool) {
	c.mu.Lock()
	c.batches = append(c.batches, fmt.Sprintf("%c%d", items[0].Key[0], len(items)))
	c.mu.Unlock()
	if c.gate != nil {
		<-c.gate
	}
	for i, it := range items {
		if it.Key[0] != items[0].Key[0] {
			panic("a batch of two sources")
		}
		ok[i] = it.Signature[0] == 1
	}
}

func (c *counting) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.batches...)
}

// named are n items of one source, all valid but those whose index is a multiple of 7.
func named(source byte, n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i].Key[0] = source
		if i%7 != 0 {
			items[i].Signature[0] = 1
		}
	}
	return items
}

func judged(t *testing.T, items []Item, ok []bool) {
	t.Helper()
	for i := range items {
		if ok[i] != (items[i].Signature[0] == 1) {
			t.Errorf("verdict %d of %d is %v", i, len(items), ok[i])
			return
		}
	}
}

// call is one Verify in flight.
type call struct {
	items []Item
	ok    []bool
	err   error
	done  bool
}

// scene runs a queue over a counting backend in a bubble with a fake clock.
type scene struct {
	t       *testing.T
	queue   *Queue
	backend *counting
	flights sync.WaitGroup
}

func stage(t *testing.T, opts QueueOptions, gated bool, play func(t *testing.T, s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, backend: &counting{}}
		if gated {
			s.backend.gate = make(chan struct{})
		}
		var err error
		if s.queue, err = newQueue(opts, s.backend); err != nil {
			t.Fatal(err)
		}
		defer s.flights.Wait()
		defer s.queue.Close()
		if gated {
			defer func() { close(s.backend.gate) }()
		}
		play(t, s)
	})
}

// send starts a Verify of n items for source.
func (s *scene) send(ctx context.Context, source byte, n int) *call {
	c := &call{items: named(source, n), ok: make([]bool, n)}
	s.flights.Go(func() {
		c.err = s.queue.Verify(ctx, uint64(source), c.items, c.ok)
		c.done = true
	})
	synctest.Wait()
	return c
}

func (s *scene) batches(want ...string) {
	s.t.Helper()
	synctest.Wait()
	if got := s.backend.seen(); !slices.Equal(got, want) {
		s.t.Errorf("batches %v, want %v", got, want)
	}
}

func (s *scene) counters(want Counters) {
	s.t.Helper()
	synctest.Wait()
	if got := s.queue.Counters(); got != want {
		s.t.Errorf("counters %+v, want %+v", got, want)
	}
}

func TestQueueWaitsForABatchToFill(t *testing.T) {
	stage(t, QueueOptions{Workers: 2, MaxBatch: 8, Depth: 100}, false, func(t *testing.T, s *scene) {
		start := time.Now()
		a := s.send(t.Context(), 'a', 2)
		time.Sleep(600 * time.Microsecond)
		b := s.send(t.Context(), 'a', 3)
		s.batches()
		time.Sleep(399 * time.Microsecond)
		s.batches()
		time.Sleep(time.Microsecond)
		s.batches("a5")
		if !a.done || !b.done || time.Since(start) != time.Millisecond {
			t.Errorf("after %v: done %v, %v", time.Since(start), a.done, b.done)
		}
		judged(t, a.items, a.ok)
		judged(t, b.items, b.ok)
		s.send(t.Context(), 'a', 6)
		s.batches("a5")
		s.send(t.Context(), 'b', 2) // eight wait: no reason to wait longer
		s.batches("a5", "a6")       // but two alone are again too few
		time.Sleep(time.Millisecond)
		s.batches("a5", "a6", "b2")
	})
}

func TestQueueWithoutDelay(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxDelay: -1}, false, func(t *testing.T, s *scene) {
		if c := s.send(t.Context(), 'a', 1); !c.done || c.err != nil {
			t.Errorf("not at once: %+v", c)
		}
	})
}

// TestQueueSourcesTakeTurns has one source flood the queue; the other waits for one batch, not for the flood.
func TestQueueSourcesTakeTurns(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxBatch: 4, MaxDelay: -1, Depth: 100}, true, func(t *testing.T, s *scene) {
		flood := s.send(t.Context(), 'a', 14)
		s.batches("a4")
		other := s.send(t.Context(), 'b', 3)
		more := s.send(t.Context(), 'b', 3)
		for range 3 {
			s.backend.gate <- struct{}{}
			synctest.Wait()
		}
		s.batches("a4", "a4", "b4", "a4")
		if !other.done || more.done || flood.done {
			t.Errorf("done: other %v, more %v, flood %v; want the other only", other.done, more.done, flood.done)
		}
		for range 3 {
			s.backend.gate <- struct{}{}
			synctest.Wait()
		}
		s.batches("a4", "a4", "b4", "a4", "b2", "a2")
		judged(t, flood.items, flood.ok)
		judged(t, other.items, other.ok)
		judged(t, more.items, more.ok)
		s.counters(Counters{Valid: 12 + 2 + 2, Invalid: 2 + 1 + 1, Batches: 6})
	})
}

func TestQueueFull(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxBatch: 4, MaxDelay: -1, Depth: 10, PerSource: 8}, true, func(t *testing.T, s *scene) {
		s.send(t.Context(), 'a', 4)
		s.counters(Counters{Running: 4, Batches: 1})
		s.send(t.Context(), 'a', 6)
		for _, tc := range []struct {
			name   string
			source byte
			n      int
			want   error
		}{
			{"more than the source's share", 'a', 3, ErrQueueFull},
			{"more than any share", 'c', 9, ErrQueueFull},
			{"more than is left", 'b', 5, ErrQueueFull},
			{"exactly what is left", 'b', 4, nil},
			{"one too many", 'c', 1, ErrQueueFull},
			{"none", 'c', 0, nil},
		} {
			c := s.send(t.Context(), tc.source, tc.n)
			if waits := tc.want == nil && tc.n > 0; !errors.Is(c.err, tc.want) || c.done == waits {
				t.Errorf("%s: done %v, error %v", tc.name, c.done, c.err)
			}
		}
		s.counters(Counters{Running: 4, Batches: 1, Waiting: 10, Full: 6, OverShare: 12})
	})
}

func TestQueueCancel(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxBatch: 4, MaxDelay: -1, Depth: 10, PerSource: 10}, true, func(t *testing.T, s *scene) {
		ctx, cancel := context.WithCancel(t.Context())
		running := s.send(ctx, 'a', 6) // four with the worker, two waiting
		waiting := s.send(ctx, 'a', 3)
		kept := s.send(t.Context(), 'a', 2)
		cancel()
		synctest.Wait()
		if !waiting.done || !errors.Is(waiting.err, context.Canceled) {
			t.Errorf("waiting: done %v, error %v", waiting.done, waiting.err)
		}
		if running.done {
			t.Error("returned while a worker was writing verdicts")
		}
		s.counters(Counters{Running: 4, Batches: 1, Waiting: 2, Cancelled: 5})
		if c := s.send(t.Context(), 'b', 4); !errors.Is(c.err, ErrQueueFull) {
			t.Errorf("cancelled signatures keep their places until their turn: error %v", c.err)
		}
		s.backend.gate <- struct{}{}
		synctest.Wait()
		if !running.done || !errors.Is(running.err, context.Canceled) {
			t.Errorf("running: done %v, error %v", running.done, running.err)
		}
		s.batches("a4", "a2")
		s.backend.gate <- struct{}{}
		synctest.Wait()
		if kept.err != nil || !kept.done {
			t.Errorf("kept: done %v, error %v", kept.done, kept.err)
		}
		if c := s.send(ctx, 'b', 1); !errors.Is(c.err, context.Canceled) {
			t.Errorf("a context that had ended: error %v", c.err)
		}
		all := s.send(t.Context(), 'b', 10) // every place is free again
		if all.err != nil {
			t.Error(all.err)
		}
		s.batches("a4", "a2", "b4")
	})
}

// TestQueueCancelledSourceIsPassedOver leaves a source with nothing but cancelled requests in front of another.
func TestQueueCancelledSourceIsPassedOver(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxBatch: 4, MaxDelay: -1}, true, func(t *testing.T, s *scene) {
		s.send(t.Context(), 'a', 1)
		ctx, cancel := context.WithCancel(t.Context())
		s.send(ctx, 'b', 9)
		s.send(ctx, 'b', 1)
		last := s.send(t.Context(), 'c', 1)
		cancel()
		synctest.Wait()
		s.backend.gate <- struct{}{}
		s.batches("a1", "c1")
		s.backend.gate <- struct{}{}
		synctest.Wait()
		if !last.done {
			t.Error("not reached")
		}
		s.counters(Counters{Invalid: 2, Cancelled: 10, Batches: 2})
	})
}

func TestQueueClose(t *testing.T) {
	stage(t, QueueOptions{Workers: 1, MaxBatch: 4, MaxDelay: -1, Depth: 100}, true, func(t *testing.T, s *scene) {
		running := s.send(t.Context(), 'a', 4)
		split := s.send(t.Context(), 'a', 1)
		waiting := s.send(t.Context(), 'b', 3)
		closed := make(chan struct{})
		go func() { s.queue.Close(); close(closed) }()
		synctest.Wait()
		for _, c := range []*call{split, waiting, s.send(t.Context(), 'c', 1)} {
			if !errors.Is(c.err, ErrQueueClosed) {
				t.Errorf("source %c: done %v, error %v", c.items[0].Key[0], c.done, c.err)
			}
		}
		select {
		case <-closed:
			t.Error("Close returned before the running batch")
		default:
		}
		s.backend.gate <- struct{}{}
		<-closed
		synctest.Wait()
		if running.err != nil {
			t.Errorf("running: %v", running.err)
		}
		judged(t, running.items, running.ok)
		s.counters(Counters{Valid: 3, Invalid: 1, Closed: 5, Batches: 1})
	})
}

func TestQueueOptions(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts QueueOptions
		good bool
	}{
		{"defaults", QueueOptions{}, true},
		{"negative workers", QueueOptions{Workers: -1}, false},
		{"too many workers", QueueOptions{Workers: 5000}, false},
		{"negative batch", QueueOptions{MaxBatch: -1}, false},
		{"long batch", QueueOptions{MaxBatch: 5000}, false},
		{"long delay", QueueOptions{MaxDelay: 2 * time.Millisecond}, false},
		{"shallower than a batch", QueueOptions{Depth: 100}, false},
		{"share above depth", QueueOptions{Depth: 600, PerSource: 601}, false},
	} {
		q, err := NewQueue(tc.opts)
		if (err == nil) != tc.good {
			t.Errorf("%s: error %v", tc.name, err)
		}
		if q != nil {
			q.Close()
			q.Close()
		}
	}
}

// TestQueueRealSignatures sends real batches from several sources at once, one of them with bad signatures, with
// calls that give up in between, and accounts for every signature.
func TestQueueRealSignatures(t *testing.T) {
	q, err := NewQueue(QueueOptions{Workers: 3, MaxBatch: 32, Depth: 400})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	good := sampleItems(40)
	bad := append([]Item{}, good...)
	for i := 0; i < len(bad); i += 3 {
		bad[i].Signature[50] ^= 4
	}
	var sent [4]uint64
	var callers sync.WaitGroup
	for source := range sent {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(source)))
			for range 12 {
				from := random.IntN(len(good))
				n := random.IntN(len(good)-from) + 1
				items, spoilt := good[from:from+n], source == 0
				if spoilt {
					items = bad[from : from+n]
				}
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(6) == 0 {
					cancel()
				} else {
					sent[source] += uint64(n)
				}
				ok := make([]bool, n)
				err := q.Verify(ctx, uint64(source), items, ok)
				cancel()
				for i := range ok {
					if err == nil && ok[i] == (spoilt && (from+i)%3 == 0) {
						t.Errorf("source %d: verdict %d is %v", source, from+i, ok[i])
					}
				}
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("source %d: %v", source, err)
				}
			}
		})
	}
	callers.Wait()
	c := q.Counters()
	if c.Valid+c.Invalid != sent[0]+sent[1]+sent[2]+sent[3] || c.Waiting+c.Running+c.Full+c.Closed+c.OverShare != 0 {
		t.Errorf("sent %v, counters %+v", sent, c)
	}
}

// BenchmarkQueue is the intake: callers with 16 signatures each, four sources.
func BenchmarkQueue(b *testing.B) {
	q, err := NewQueue(QueueOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	const each, callers = 16, 64
	items := sampleItems(each)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for k := range callers {
		wg.Go(func() {
			ok := make([]bool, each)
			for range (b.N + callers - 1) / callers {
				if err := q.Verify(context.Background(), uint64(k%4), items, ok); err != nil || !ok[each-1] {
					b.Errorf("verdict %v, error %v", ok[each-1], err)
					return
				}
			}
		})
	}
	wg.Wait()
	c := q.Counters()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.Valid), "ns/item")
	b.ReportMetric(float64(c.Valid)/float64(c.Batches), "items/batch")
}
