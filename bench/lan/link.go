package lan

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Link is what happens to packets from one port to another. The zero Link hands them over at once.
type Link struct {
	Cut            bool
	Loss           float64 // chance of each packet to be lost
	Duplicate      float64 // chance of each packet to come twice
	Delay          time.Duration
	Jitter         time.Duration // at most, on top of Delay
	Reorder        bool          // packets overtake one another where Jitter lets them
	BytesPerSecond int           // 0: no limit
}

// maxWait is how long a packet waits for its turn on a Link with a rate; one that would wait longer is dropped.
const maxWait = time.Second

// And is a Link that does what both do.
func (l Link) And(o Link) Link {
	l.Cut = l.Cut || o.Cut
	l.Loss = 1 - (1-l.Loss)*(1-o.Loss)
	l.Duplicate = 1 - (1-l.Duplicate)*(1-o.Duplicate)
	l.Delay += o.Delay
	l.Jitter += o.Jitter
	l.Reorder = l.Reorder || o.Reorder
	if l.BytesPerSecond == 0 || o.BytesPerSecond > 0 && o.BytesPerSecond < l.BytesPerSecond {
		l.BytesPerSecond = o.BytesPerSecond
	}
	return l
}

// link is a Link in use.
type link struct {
	Link
	free time.Time // when the packets before it have left, with a rate
	last time.Time // when the one before it arrives
}

// Set gives each ordered pair of ports the Link that of says. Packets that are on their way arrive.
func (s *Switch) Set(of func(from, to int) Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for from := range s.links {
		for to := range s.links[from] {
			s.links[from][to].Link = of(from, to)
		}
	}
}

// Counts is how many packets were handed over, copies included, and how many dropped.
func (s *Switch) Counts() (passed, dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed, s.dropped
}

// forward decides what becomes of a packet, which it copies.
func (s *Switch) forward(from, to int, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, l := s.ports[to], &s.links[from][to]
	if p == nil || l.Cut || rand.Float64() < l.Loss {
		s.dropped++
		return
	}
	copies := 1
	if rand.Float64() < l.Duplicate {
		copies++
	}
	for range copies {
		if due, ok := l.due(time.Now(), len(b)); ok && p.push(due, b) {
			s.passed++
		} else {
			s.dropped++
		}
	}
}

// due is when a packet of some bytes arrives that comes now.
func (l *link) due(now time.Time, bytes int) (at time.Time, ok bool) {
	at = now
	if l.BytesPerSecond > 0 {
		at = later(l.free, now)
		if at.Sub(now) > maxWait {
			return at, false
		}
		at = at.Add(time.Duration(bytes) * time.Second / time.Duration(l.BytesPerSecond))
		l.free = at
	}
	at = at.Add(l.Delay)
	if l.Jitter > 0 {
		at = at.Add(rand.N(l.Jitter))
	}
	if !l.Reorder {
		at = later(at, l.last)
	}
	l.last = at
	return at, true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// arrival is a packet on its way. Those due at one time arrive in their order.
type arrival struct {
	due time.Time
	seq uint64
	b   []byte
}

// arrivals is a heap, the next one first.
type arrivals []arrival

func (a arrivals) Len() int      { return len(a) }
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a arrivals) Less(i, j int) bool {
	return a[i].due.Before(a[j].due) || a[i].due.Equal(a[j].due) && a[i].seq < a[j].seq
}
func (a *arrivals) Push(x any) { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = arrival{}
	*a = (*a)[:last]
	return x
}

// push takes a packet in, unless too many are on their way.
func (p *port) push(due time.Time, b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == maxQueue {
		return false
	}
	heap.Push(&p.queue, arrival{due, p.next, append([]byte(nil), b...)})
	p.next++
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return true
}

// due is the packet that has arrived, or how long it takes until one may have.
func (p *port) due() (b []byte, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, time.Hour
	}
	if wait = time.Until(p.queue[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&p.queue).(arrival).b, 0
}
