package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// FinalEvent is the data of a "final" event of GET /v1/finality. Binary is in base64.
type FinalEvent struct {
	Shard  consensus.ShardID `json:"shard"`
	Height consensus.Height  `json:"height"`
	TimeMs int64             `json:"time_ms"`
	Final  []byte            `json:"final,omitempty"` // proof.Final: header, linking headers, certificate; not with body=1
	Block  []byte            `json:"block,omitempty"` // with body=1: the whole proof.Block
	IDs    []proof.Digest    `json:"ids,omitempty"`   // with ids=1: of the transactions, in body order
}

// HelloEvent is the data of the first event, "hello": where the node is. Final events follow for every later height.
type HelloEvent struct {
	Shard  consensus.ShardID `json:"shard"`
	Height consensus.Height  `json:"height"` // final tip
}

// The last event of a subscription that the node ends is "end", its data an ErrorBody.

// hub passes final blocks on to subscribers. Safe for concurrent use.
type hub struct {
	max        int
	maxEvents  int
	maxBytes   int64
	counters   *metrics.API
	mu         sync.Mutex // guards what follows and every subscriber's fields below its mark
	closed     bool
	subscribed map[*subscriber]struct{}
}

// subscriber is one reader's queue.
type subscriber struct {
	kind kind
	wake chan struct{} // holds one token while queue or cut is news
	// guarded by hub.mu:
	queue  []*event
	queued int64 // bytes
	cut    Code  // not empty: the subscription is over
}

// kind is what a subscriber wants in an event.
type kind struct{ ids, body bool }

// event is a final block with its frames, each made once, by the first subscriber who wants it.
type event struct {
	block  *proof.Block
	frames map[kind]func() ([]byte, error)
}

func newHub(max, maxEvents int, maxBytes int64, c *metrics.API) *hub {
	return &hub{max: max, maxEvents: maxEvents, maxBytes: maxBytes, counters: c, subscribed: map[*subscriber]struct{}{}}
}

func newEvent(b *proof.Block) *event {
	e := &event{block: b, frames: make(map[kind]func() ([]byte, error), 4)}
	for _, k := range []kind{{}, {ids: true}, {body: true}, {ids: true, body: true}} {
		e.frames[k] = sync.OnceValues(func() ([]byte, error) { return frame(b, k) })
	}
	return e
}

// size estimates a frame from above, before it is made.
func (e *event) size(k kind) int64 {
	n := int64(1024) + 2*int64(len(e.block.Final.Headers))*int64(512+52*len(e.block.Final.Header().Links))
	if k.body {
		n += int64(len(e.block.Body)+len(e.block.Credits)) * 4 / 3
	}
	if k.ids {
		n += int64(len(e.block.Body)) * 67 / tx.TransferBytes
	}
	return n
}

// frame is the event on the wire.
func frame(b *proof.Block, k kind) ([]byte, error) {
	h := b.Final.Header()
	out := fmt.Appendf(nil, "id: %d\nevent: final\ndata: {\"shard\":%d,\"height\":%d,\"time_ms\":%d", h.Height, h.Shard, h.Height, h.TimeMs)
	name, blob := "final", []byte(nil)
	if k.body {
		name, blob = "block", b.Append(nil)
	} else {
		blob = b.Final.Append(nil)
	}
	out = fmt.Appendf(out, ",%q:\"", name)
	out = append(base64.StdEncoding.AppendEncode(out, blob), '"')
	if k.ids {
		body, err := tx.DecodeBody(b.Body)
		if err != nil {
			return nil, fmt.Errorf("body of a final block: %w", err)
		}
		out = hexList(append(out, `,"ids":`...), body.IDs(tx.Hash(h.Chain)))
	}
	return append(out, "}\n\n"...), nil
}

func (h *hub) subscribe(k kind) (*subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, &Error{Code: ShuttingDown}
	}
	if len(h.subscribed) == h.max {
		return nil, &Error{Code: TooManySubscribers, Detail: fmt.Sprintf("limit %d", h.max), RetryAfter: 10 * time.Second}
	}
	s := &subscriber{kind: k, wake: make(chan struct{}, 1)}
	h.subscribed[s] = struct{}{}
	h.counters.Subscribers.Set(float64(len(h.subscribed)))
	return s, nil
}

func (h *hub) leave(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribed, s)
	h.counters.Subscribers.Set(float64(len(h.subscribed)))
}

func (h *hub) publish(b *proof.Block) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subscribed) == 0 {
		return
	}
	e := newEvent(b)
	for s := range h.subscribed {
		size := e.size(s.kind)
		if len(s.queue) == h.maxEvents || len(s.queue) > 0 && s.queued+size > h.maxBytes {
			h.end(s, SlowSubscriber)
			continue
		}
		s.queue = append(s.queue, e)
		s.queued += size
		s.poke()
	}
}

// end takes s off the list and tells its goroutine why. The lock is held.
func (h *hub) end(s *subscriber, why Code) {
	s.cut, s.queue, s.queued = why, nil, 0
	delete(h.subscribed, s)
	h.counters.Subscribers.Set(float64(len(h.subscribed)))
	h.counters.Cut.WithLabelValues(string(why)).Inc()
	s.poke()
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.subscribed {
		h.end(s, ShuttingDown)
	}
}

func (s *subscriber) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next takes the oldest event, nil if there is none, or says that the subscription is over.
func (h *hub) next(s *subscriber) (*event, Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, s.cut
	}
	e := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.queued -= e.size(s.kind)
	return e, ""
}

// follow streams final blocks as server-sent events until the client or the node ends it.
func (s *Server) follow(w http.ResponseWriter, r *http.Request) error {
	ids, err := flag(r, "ids")
	if err != nil {
		return err
	}
	body, err := flag(r, "body")
	if err != nil {
		return err
	}
	sub, err := s.hub.subscribe(kind{ids: ids, body: body})
	if err != nil {
		return err
	}
	defer s.hub.leave(sub)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies must not hold events back
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the request's own would end the subscription
	hello, err := json.Marshal(HelloEvent{Shard: s.opt.Params.Shard, Height: s.backend.FinalHeight()})
	if err != nil {
		return nil
	}
	send := func(b []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(s.opt.Timeout))
		_, err := w.Write(b)
		return err == nil && out.Flush() == nil
	}
	if !send(fmt.Appendf(nil, "retry: 1000\nevent: hello\ndata: %s\n\n", hello)) {
		return nil
	}
	s.pump(r, sub, send)
	return nil
}

// pump sends events until send fails, the client leaves or the hub ends the subscription.
func (s *Server) pump(r *http.Request, sub *subscriber, send func([]byte) bool) {
	beat := time.NewTicker(s.opt.Heartbeat)
	defer beat.Stop()
	for {
		e, cut := s.hub.next(sub)
		switch {
		case cut != "":
			send(endFrame(cut))
			return
		case e != nil:
			b, err := e.frames[sub.kind]()
			if err != nil {
				s.opt.Log.Error("finality event", "err", err)
				send(endFrame(Internal))
				return
			}
			if !send(b) {
				return
			}
			continue
		}
		select {
		case <-sub.wake:
		case <-beat.C:
			if !send([]byte(": alive at " + strconv.FormatUint(uint64(s.backend.FinalHeight()), 10) + "\n\n")) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func endFrame(why Code) []byte {
	e, entry := describe(&Error{Code: why})
	b, err := json.Marshal(body(e, entry))
	if err != nil {
		return nil
	}
	return fmt.Appendf(nil, "event: end\ndata: %s\n\n", b)
}
