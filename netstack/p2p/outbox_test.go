package p2p

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOutboxModel compares the ring with a plain list under random pushes and takes.
func TestOutboxModel(t *testing.T) {
	type item struct {
		id, size int
		at       time.Duration
	}
	rapid.Check(t, func(t *rapid.T) {
		limit := QueueLimit{Messages: rapid.IntRange(1, 20).Draw(t, "messages"), Bytes: rapid.IntRange(10, 100).Draw(t, "bytes")}
		const age = 50
		o := newOutbox(limit, age)
		var model []item
		var now time.Duration
		bytes := func() (n int) {
			for _, it := range model {
				n += it.size
			}
			return n
		}
		for id := range 100 {
			now += time.Duration(rapid.IntRange(0, 20).Draw(t, "pause"))
			at := time.Unix(0, int64(now))
			if rapid.Bool().Draw(t, "push") {
				size := rapid.IntRange(1, limit.Bytes).Draw(t, "size")
				payload := make([]byte, size)
				payload[0] = byte(id)
				dropped := 0
				for len(model) == limit.Messages || bytes()+size > limit.Bytes {
					model = model[1:]
					dropped++
				}
				model = append(model, item{id, size, now})
				if got := o.push(payload, at); got != dropped {
					t.Fatalf("dropped %d, want %d", got, dropped)
				}
				continue
			}
			most := rapid.IntRange(0, 150).Draw(t, "most")
			var want []item
			stale, size := 0, 0
			for len(model) > 0 {
				it := model[0]
				if now-it.at > age {
					stale++
				} else if len(want) > 0 && size+it.size > most {
					break
				} else {
					want = append(want, it)
					size += it.size
				}
				model = model[1:]
			}
			got, gotStale := o.take(nil, most, at)
			same := slices.EqualFunc(got, want, func(p []byte, it item) bool { return len(p) == it.size && p[0] == byte(it.id) })
			if !same || gotStale != stale {
				t.Fatalf("took %d and dropped %d, want %d and %d", len(got), gotStale, len(want), stale)
			}
			if o.count != len(model) || o.bytes != bytes() || len(o.items) > limit.Messages {
				t.Fatalf("%d messages of %d bytes in a ring of %d", o.count, o.bytes, len(o.items))
			}
		}
	})
}

func TestOutboxWait(t *testing.T) {
	o := newOutbox(QueueLimit{Messages: 4, Bytes: 100}, time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan bool)
	go func() { got <- o.wait(ctx) }()
	o.push([]byte("x"), time.Now())
	if !<-got {
		t.Error("a message did not end the wait")
	}
	if !o.wait(ctx) {
		t.Error("it is still there")
	}
	o.take(nil, 100, time.Now())
	go func() { got <- o.wait(ctx) }()
	cancel()
	if <-got {
		t.Error("the wait outlived its context")
	}
}
