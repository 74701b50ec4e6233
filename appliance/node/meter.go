package node

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/appliance/api"
)

// The meter looks back over meterSlots slots of meterSlot each.
const (
	meterSlot   = 5 * time.Second
	meterSlots  = 12
	maxFinality = 120_000 // milliseconds; longer waits count as this
	rateSeconds = 10
)

// finalitySteps are the upper ends, in milliseconds, of the histogram that people see.
var finalitySteps = []int64{50, 100, 150, 200, 300, 400, 600, 1000, 2000, maxFinality}

// meter measures what this node's users wait for: how many transactions become final and how long each took from
// admission here. Safe for concurrent use.
type meter struct {
	mu       sync.Mutex // guards what follows
	window   *hdrhistogram.WindowedHistogram
	rotated  time.Time
	began    time.Time
	perSec   [rateSeconds + 1]uint64 // ring by second since began
	second   int64                   // of the newest slot of perSec
	blocks   uint64
	lastSeen time.Time // of the last final block
}

func newMeter(now time.Time) *meter {
	return &meter{window: hdrhistogram.NewWindowed(meterSlots, 1, maxFinality, 2), rotated: now, began: now, lastSeen: now}
}

// advance moves the windows on to now. mu is held.
func (m *meter) advance(now time.Time) {
	for i := 0; now.Sub(m.rotated) >= meterSlot && i < meterSlots; i++ {
		m.window.Rotate()
		m.rotated = m.rotated.Add(meterSlot)
	}
	if now.Sub(m.rotated) >= meterSlot {
		m.rotated = now
	}
	if s := m.secondOf(now); s-m.second > rateSeconds {
		m.perSec, m.second = [rateSeconds + 1]uint64{}, s
	} else {
		for ; m.second < s; m.second++ {
			m.perSec[(m.second+1)%int64(len(m.perSec))] = 0
		}
	}
}

// secondOf does not jump when the wall clock is set.
func (m *meter) secondOf(now time.Time) int64 { return int64(now.Sub(m.began) / time.Second) }

// block counts a final block with so many successful transactions.
func (m *meter) block(now time.Time, succeeded int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	m.perSec[m.second%int64(len(m.perSec))] += uint64(succeeded)
	m.blocks++
	m.lastSeen = now
}

// waited records one transaction's time from admission here to finality.
func (m *meter) waited(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.window.Current.RecordValue(min(max(d.Milliseconds(), 1), maxFinality)) // in range by the bounds
}

// reading is a snapshot of a meter.
type reading struct {
	tps        float64 // mean of the last ten whole seconds
	quantiles  api.Quantiles
	histogram  []api.Bucket
	blocks     uint64        // final since the start
	sinceBlock time.Duration // since the last of them, or the start
}

func (m *meter) read(now time.Time) reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	var sum uint64
	for i, n := range m.perSec {
		if int64(i) != m.second%int64(len(m.perSec)) {
			sum += n
		}
	}
	r := reading{tps: float64(sum) / rateSeconds, blocks: m.blocks, sinceBlock: now.Sub(m.lastSeen)}
	h := m.window.Merge()
	if h.TotalCount() > 0 {
		q := func(p float64) float64 { return float64(h.ValueAtQuantile(p)) }
		r.quantiles = api.Quantiles{P50: q(50), P90: q(90), P99: q(99), Max: float64(h.Max())}
	}
	r.histogram = make([]api.Bucket, len(finalitySteps))
	for i, upTo := range finalitySteps {
		r.histogram[i].UpToMs = upTo
	}
	for _, bar := range h.Distribution() {
		for i, upTo := range finalitySteps {
			if bar.Count > 0 && (bar.From <= upTo || i == len(finalitySteps)-1) { // a bar is 1 % wide at most
				r.histogram[i].Count += uint64(bar.Count)
				break
			}
		}
	}
	return r
}
