package statesync

import (
	"slices"
	"sync"
	"time"

	"tutti/state/ledger"
)

// Step is what a sync is doing.
type Step string

// The steps, in order. Differences may lead back to Chunks.
const (
	Finding     Step = "finding peers"
	Chunks      Step = "accounts"
	Differences Step = "recent blocks"
	Keys        Step = "keys"
	Receipts    Step = "receipts"
	Finishing   Step = "checking"
	Done        Step = "done"
)

// Progress is a snapshot of a sync.
type Progress struct {
	Step          Step
	Bytes         uint64 // of accounts and keys, verified and durable
	TotalBytes    uint64 // of accounts and keys; 0 while it is unknown
	Accounts      uint64 // whose chunks are here
	TotalAccounts uint64
	Height        uint64        // up to which differences are here; 0 before
	Tip           uint64        // of the chain, when it was last asked for
	Rate          float64       // bytes a second over the last seconds; 0 while it is unknown
	Left          time.Duration // that what is missing takes at this rate
	LeftKnown     bool          // false: nobody can tell yet
	Peers         []PeerStatus  // by name

	rest uint64 // bytes of differences that are missing, about
}

// Share is how much is done, 0 to 1; 0 while the total is unknown, and 1 only when all is done.
func (p *Progress) Share() float64 {
	switch {
	case p.Step == Done:
		return 1
	case p.TotalBytes == 0:
		return 0
	}
	return min(0.99, float64(p.Bytes)/float64(p.TotalBytes+p.rest))
}

// PeerStatus is how one peer has served this sync.
type PeerStatus struct {
	Peer        Peer
	Answers     int
	Bytes       uint64 // of good parts
	Refused     int    // busy, or without the part
	Slow        int    // requests that were taken again because they took too long
	Unreachable int
	Behind      int    // parts that were too old to be of use
	Last        string // the last thing that went wrong, in words
	Dropped     string // what it sent that was wrong; it is asked for nothing any more
}

// Rates are over the last rateWindow, and not told before rateLeast has passed.
const (
	rateWindow  = 10 * time.Second
	rateLeast   = 2 * time.Second
	sampleEvery = 250 * time.Millisecond
)

// meter counts bytes and time. Safe for concurrent use.
type meter struct {
	mu      sync.Mutex // guards what follows
	p       Progress   // without the rate, time left and peers
	fetched uint64     // since the start
	samples []sample   // oldest first, within rateWindow
	peers   map[Peer]PeerStatus
}

type sample struct {
	at      time.Time
	fetched uint64
}

func newMeter(now time.Time) *meter {
	return &meter{p: Progress{Step: Finding}, samples: []sample{{at: now}}, peers: map[Peer]PeerStatus{}}
}

func (m *meter) set(f func(*Progress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.p)
}

// got counts bytes of good parts.
func (m *meter) got(bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched += bytes
	m.p.Bytes += bytes
}

// chunks counts accounts that came.
func (m *meter) chunks(accounts uint64) {
	m.got(accounts * ledger.RecordBytes)
	m.set(func(p *Progress) { p.Accounts += accounts })
}

// differences counts those that came, and says what is missing of them.
func (m *meter) differences(bytes, height, rest uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched += bytes
	m.p.Height, m.p.rest = height, rest
}

func (m *meter) peer(s PeerStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers[s.Peer] = s
}

// sample is called now and then.
func (m *meter) sample(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.samples[len(m.samples)-1]; now.Sub(last.at) < sampleEvery {
		return
	}
	m.samples = append(m.samples, sample{now, m.fetched})
	old := 0
	for now.Sub(m.samples[old].at) > rateWindow {
		old++
	}
	m.samples = slices.Delete(m.samples, 0, old)
}

// read is the snapshot at a time.
func (m *meter) read(now time.Time) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.p
	oldest := m.samples[0]
	if span := now.Sub(oldest.at); span >= rateLeast && m.fetched > oldest.fetched {
		p.Rate = float64(m.fetched-oldest.fetched) / span.Seconds()
		// With nothing left to fetch it is the chain that has to grow, and nobody knows when.
		if rest := p.TotalBytes - min(p.Bytes, p.TotalBytes) + p.rest; p.TotalBytes > 0 && rest > 0 {
			p.Left, p.LeftKnown = time.Duration(float64(rest)/p.Rate*float64(time.Second)), true
		}
	}
	for _, s := range m.peers {
		p.Peers = append(p.Peers, s)
	}
	slices.SortFunc(p.Peers, func(a, b PeerStatus) int {
		if a.Peer < b.Peer {
			return -1
		}
		return 1
	})
	return p
}
