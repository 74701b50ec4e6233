package p2p

import (
	"context"
	"sync"
	"time"
)

// outbox is the bounded queue of one class to one peer. Any goroutine pushes; one writer waits and takes.
type outbox struct {
	limit QueueLimit
	age   time.Duration
	ready chan struct{} // one token while the queue may be non-empty
	start sync.Once     // of the writer, at the first message

	mu    sync.Mutex
	items []outItem // ring of a length that doubles up to limit.Messages
	head  int
	count int
	bytes int
}

type outItem struct {
	payload []byte
	at      time.Time
}

func newOutbox(limit QueueLimit, age time.Duration) *outbox {
	return &outbox{limit: limit, age: age, ready: make(chan struct{}, 1)}
}

// push queues payload and returns how many old messages it pushed out. len(payload) <= limit.Bytes.
func (o *outbox) push(payload []byte, now time.Time) (dropped int) {
	o.mu.Lock()
	for o.count == o.limit.Messages || o.bytes+len(payload) > o.limit.Bytes {
		o.pop()
		dropped++
	}
	if o.count == len(o.items) {
		o.grow()
	}
	o.items[(o.head+o.count)%len(o.items)] = outItem{payload, now}
	o.count++
	o.bytes += len(payload)
	o.mu.Unlock()
	select {
	case o.ready <- struct{}{}:
	default:
	}
	return dropped
}

// grow doubles the ring. The caller holds mu.
func (o *outbox) grow() {
	items := make([]outItem, min(max(8, 2*len(o.items)), o.limit.Messages))
	for i := range o.count {
		items[i] = o.items[(o.head+i)%len(o.items)]
	}
	o.items, o.head = items, 0
}

// pop removes the oldest message. The caller holds mu and knows that there is one.
func (o *outbox) pop() outItem {
	it := o.items[o.head]
	o.items[o.head] = outItem{}
	o.head = (o.head + 1) % len(o.items)
	o.count--
	o.bytes -= len(it.payload)
	return it
}

// wait returns true when there is a message, false when ctx has ended.
func (o *outbox) wait(ctx context.Context) bool {
	for {
		o.mu.Lock()
		n := o.count
		o.mu.Unlock()
		if n > 0 {
			return ctx.Err() == nil
		}
		select {
		case <-o.ready:
		case <-ctx.Done():
			return false
		}
	}
}

// take appends to batch the oldest messages up to maxBytes, at least one if there is one that is not too old, and
// returns how many it dropped for their age.
func (o *outbox) take(batch [][]byte, maxBytes int, now time.Time) (out [][]byte, stale int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for size := 0; o.count > 0; {
		it := o.items[o.head]
		if now.Sub(it.at) > o.age {
			o.pop()
			stale++
			continue
		}
		if len(batch) > 0 && size+len(it.payload) > maxBytes {
			break
		}
		o.pop()
		batch = append(batch, it.payload)
		size += len(it.payload)
	}
	return batch, stale
}
