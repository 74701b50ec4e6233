package node

import (
	"testing"
	"time"

	"tutti/appliance/api"
)

func TestMeterRate(t *testing.T) {
	start := time.Unix(1_800_000_000, 123)
	m := newMeter(start)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	rate := func(s, want float64) {
		t.Helper()
		if got := m.read(at(s)).tps; got != want {
			t.Errorf("after %.1f s: %.2f tx/s, want %.2f", s, got, want)
		}
	}
	rate(0, 0)
	for i := range 50 { // 100 in each second
		m.block(at(float64(i)/5), 20)
	}
	rate(9.9, 90) // nine whole seconds of ten, and the tenth does not count yet
	rate(10, 100)
	rate(10.9, 100)
	rate(15, 50)
	rate(20, 0)
	m.block(at(21), 30)
	rate(21.5, 0)
	rate(22, 3)
	m.block(at(1000), 0) // after a long silence
	rate(1000, 0)
	if r := m.read(at(1004)); r.blocks != 52 || r.sinceBlock != 4*time.Second {
		t.Errorf("%d blocks, the last %s ago", r.blocks, r.sinceBlock)
	}
}

func TestMeterFinality(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	m := newMeter(start)
	if r := m.read(start); r.quantiles != (api.Quantiles{}) || len(r.histogram) != len(finalitySteps) {
		t.Errorf("before anything: %+v", r)
	}
	for i, upTo := range finalitySteps { // exactly at each end, and well behind it
		m.waited(time.Duration(upTo) * time.Millisecond)
		if i+1 < len(finalitySteps) {
			m.waited(time.Duration(upTo*102/100+1) * time.Millisecond)
		}
	}
	m.waited(0)
	m.waited(time.Hour)
	r := m.read(start)
	want := []uint64{2, 2, 2, 2, 2, 2, 2, 2, 2, 3}
	for i, b := range r.histogram {
		if b.UpToMs != finalitySteps[i] || b.Count != want[i] {
			t.Errorf("%d waited up to %d ms, want %d", b.Count, b.UpToMs, want[i])
		}
	}
	if q := r.quantiles; q.P50 < 298 || q.P50 > 309 || q.Max < 119_000 || q.Max > 121_000 || q.P90 > q.P99 || q.P50 > q.P90 {
		t.Errorf("quantiles %+v", q)
	}
	count := func(after time.Duration) (n uint64) {
		for _, b := range m.read(start.Add(after)).histogram {
			n += b.Count
		}
		return n
	}
	if n := count(meterSlots*meterSlot - 1); n != 21 {
		t.Errorf("%d within the window, want 21", n)
	}
	if n := count(meterSlots * meterSlot); n != 0 {
		t.Errorf("%d behind the window, want 0", n)
	}
	later := start.Add(24 * time.Hour)
	m.read(later)
	m.waited(time.Millisecond)
	if n := count(24*time.Hour + meterSlot); n != 1 {
		t.Errorf("%d after a day of silence, want 1", n)
	}
}
