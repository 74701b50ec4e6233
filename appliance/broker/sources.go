package broker

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// source is what is known of an address network: an IPv4 address or an IPv6 /64.
type source struct {
	tokens  float64 // submissions that may come now
	at      time.Time
	conns   int
	inWork  int // transfers
	strikes int
	barred  time.Time // until when it is refused
}

// sources are all that were heard of lately. Safe for concurrent use.
type sources struct {
	quota Quota

	mu    sync.Mutex // guards what follows
	all   map[netip.Prefix]*source
	inUse int // transfers in work, over all
}

// Limits of the tables.
const (
	maxSources = 65536
	maxStrikes = 8 // of a source, before it is barred
	evictLooks = 64
)

func sourceOf(a net.Addr) netip.Prefix {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{}
	}
	bits, addr := 32, at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}

// get finds or makes a source; nil: the table is full of sources in use. mu is held.
func (s *sources) get(from netip.Prefix, now time.Time) *source {
	x := s.all[from]
	if x == nil {
		if len(s.all) >= maxSources && !s.evict(now) {
			return nil
		}
		x = &source{tokens: float64(s.quota.PerSecond), at: now}
		s.all[from] = x
	}
	x.tokens = min(x.tokens+now.Sub(x.at).Seconds()*float64(s.quota.PerSecond), float64(s.quota.PerSecond))
	x.at = now
	return x
}

// evict forgets a source out of some that are not in use. mu is held.
func (s *sources) evict(now time.Time) bool {
	looks := 0
	for from, x := range s.all { // in an order of chance
		if x.conns == 0 && x.inWork == 0 && x.barred.Before(now) {
			delete(s.all, from)
			return true
		}
		if looks++; looks == evictLooks {
			break
		}
	}
	return false
}

// connect takes a place for a connection, or says no.
func (s *sources) connect(from netip.Prefix, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(from, now)
	if x == nil || x.conns >= s.quota.Conns || now.Before(x.barred) {
		return false
	}
	x.conns++
	return true
}

func (s *sources) disconnect(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[from].conns--
}

// take takes a place for a transfer, or says why not.
func (s *sources) take(from netip.Prefix, now time.Time) (v Verdict, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(from, now) // there is one: it is connected
	switch {
	case now.Before(x.barred):
		return Verdict{CodeBarred, x.barred.Sub(now)}, false
	case s.inUse >= s.quota.InWork || x.inWork >= s.quota.InWorkEach:
		return Verdict{CodeBusy, busyFor}, false
	case x.tokens < 1:
		return Verdict{CodeRate, max(time.Duration((1-x.tokens)/float64(s.quota.PerSecond)*float64(time.Second)), time.Millisecond)}, false
	}
	x.tokens--
	x.inWork++
	s.inUse++
	return v, true
}

// free gives the place of a transfer back.
func (s *sources) free(from netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse--
	s.all[from].inWork--
}

// strike remembers that a source did harm.
func (s *sources) strike(from netip.Prefix, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.get(from, now)
	if x == nil {
		return
	}
	if x.strikes++; x.strikes >= maxStrikes {
		x.strikes, x.barred = 0, now.Add(barFor)
	}
}

// working is how many transfers are in work.
func (s *sources) working() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inUse
}

// recent remembers values of accounts, the newest most to 2*most of them. Safe for concurrent use.
type recent[V any] struct {
	mu       sync.Mutex
	now, old map[uint64]V
	most     int
}

func newRecent[V any](most int) *recent[V] { return &recent[V]{now: map[uint64]V{}, most: most} }

func (r *recent[V]) put(key uint64, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now) >= r.most {
		r.now, r.old = map[uint64]V{}, r.now
	}
	r.now[key] = v
}

func (r *recent[V]) get(key uint64) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.now[key]
	if !ok {
		v, ok = r.old[key]
	}
	return v, ok
}

func (r *recent[V]) drop(key uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.now, key)
	delete(r.old, key)
}
