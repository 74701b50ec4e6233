package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/tx"
)

// Receipts travel between shards by pull. Every node gossips the final headers of its own shard; a header of another
// shard that has sent us receipts we do not hold makes us ask one of its validators for them. What comes back is a
// tx.Bundle, checked here against the certified header and again, root included, when a block executes it.
const (
	receiptsProtocol netstack.Protocol = "/tutti/receipts/1"

	// recentFinalHeaders is how many own final headers are kept to prove receipts with. A destination that was away
	// for longer is served with the oldest one that proves something new.
	recentFinalHeaders = 1024
	// bundleAim is the number of receipts in one answer beyond which an older header is chosen.
	bundleAim = 8192

	fetchTimeout = 3 * time.Second
	// headPoll is how often a shard's news is asked for even when gossip brought none.
	headPoll = time.Second
	// ackEvery is how many blocks apart a block may bring an acknowledgement alone, with no receipts.
	ackEvery = 16
)

func finalTopic(s consensus.ShardID) netstack.Topic {
	return netstack.Topic(fmt.Sprintf("tutti/final/%d", s))
}

// receiptSource reads receipts that this shard has sent and the destination has not yet acknowledged.
type receiptSource interface {
	Receipts(dest uint16, from, to uint64) ([]tx.Receipt, error)
}

// crossLinks is this node's view of the other shards: their newest certified header and the receipts on their way here.
// Safe for concurrent use.
type crossLinks struct {
	self      consensus.ShardID
	headers   *finalHeaders
	transport netstack.Transport
	peers     [][]netstack.NodeID // by shard
	outbox    receiptSource
	wake      func() // something that a block may include has come

	mu      sync.Mutex // guards what follows; never held while waiting
	own     []*consensus.FinalHeader
	sources []*source // by shard; nil for our own
}

// source is what is known of one other shard.
type source struct {
	shard    consensus.ShardID
	newest   *consensus.FinalHeader // highest one verified, nil before the first
	received uint64                 // consumed here, as of our final state
	bundle   *tx.Bundle             // receipts bundle.First.. up to what bundle.Proof has sent; nil when none
	nextPeer int
	kick     chan struct{} // capacity 1: look for news
}

func (s *source) end() uint64 {
	if s.bundle == nil {
		return s.received
	}
	return s.bundle.First + uint64(len(s.bundle.Receipts))
}

func newCrossLinks(self consensus.ShardID, headers *finalHeaders, t netstack.Transport, peers [][]netstack.NodeID, outbox receiptSource, wake func()) *crossLinks {
	c := &crossLinks{self: self, headers: headers, transport: t, peers: peers, outbox: outbox, wake: wake}
	c.sources = make([]*source, len(peers))
	for i := range peers {
		if consensus.ShardID(i) != self {
			c.sources[i] = &source{shard: consensus.ShardID(i), kick: make(chan struct{}, 1)}
		}
	}
	t.Serve(receiptsProtocol, c.serve)
	return c
}

// run fetches until ctx ends. One goroutine for each other shard, and one for each shard's gossip.
func (c *crossLinks) run(ctx context.Context, group *sync.WaitGroup) error {
	for _, s := range c.sources {
		if s == nil {
			continue
		}
		news, err := c.transport.Subscribe(finalTopic(s.shard), func(_ netstack.NodeID, b []byte) bool {
			_, err := c.headers.check(b)
			return err == nil
		})
		if err != nil {
			return fmt.Errorf("subscribe to final headers of shard %d: %w", s.shard, err)
		}
		group.Go(func() {
			for {
				select {
				case m, ok := <-news:
					if !ok {
						return
					}
					if fh, err := c.headers.check(m.Payload); err == nil {
						c.learn(fh)
					}
				case <-ctx.Done():
					return
				}
			}
		})
		group.Go(func() { c.follow(ctx, s) })
	}
	return nil
}

// learn takes a verified final header of another shard.
func (c *crossLinks) learn(fh *consensus.FinalHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[fh.Header.Shard]
	if s == nil || (s.newest != nil && fh.Header.Height <= s.newest.Header.Height) {
		return
	}
	s.newest = fh
	if l, ok := linkTo(fh.Header, c.self); ok && l.Sent > s.end() {
		poke(s.kick)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func linkTo(h *consensus.Header, shard consensus.ShardID) (consensus.Link, bool) {
	for _, l := range h.Links {
		if l.Shard == shard {
			return l, true
		}
	}
	return consensus.Link{}, false
}

// follow fetches from one shard whenever there is news, and asks for news when gossip is silent.
func (c *crossLinks) follow(ctx context.Context, s *source) {
	poll := time.NewTicker(headPoll)
	defer poll.Stop()
	for {
		select {
		case <-s.kick:
		case <-poll.C:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil && c.fetch(ctx, s) {
		}
	}
}

// fetch asks one validator of s for what we lack. It reports whether something new came, so that there may be more.
func (c *crossLinks) fetch(ctx context.Context, s *source) bool {
	c.mu.Lock()
	from := s.end()
	peers := c.peers[s.shard]
	peer := peers[s.nextPeer%len(peers)]
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, uint16(c.self)), from)
	answer, err := c.transport.Request(ctx, peer, receiptsProtocol, req)
	if err == nil {
		var grew bool
		if grew, err = c.take(s, from, answer); err == nil {
			return grew
		}
	}
	c.mu.Lock()
	s.nextPeer++ // unreachable, behind, or wrong: ask the next one next time
	c.mu.Unlock()
	return false
}

// take checks an answer to a request for receipts from sequence from and joins it to what is held.
func (c *crossLinks) take(s *source, from uint64, answer []byte) (bool, error) {
	b, err := tx.DecodeBundle(answer)
	if err != nil {
		return false, err
	}
	fh, err := c.headers.check(b.Proof)
	if err != nil {
		return false, err
	}
	link, ok := linkTo(fh.Header, c.self)
	if fh.Header.Shard != s.shard || uint16(s.shard) != b.Source || !ok ||
		b.First != from || link.Sent != from+uint64(len(b.Receipts)) {
		return false, errors.New("the bundle does not fit its header or the question")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.newest == nil || fh.Header.Height > s.newest.Header.Height {
		s.newest = fh
	}
	if len(b.Receipts) == 0 {
		return false, nil
	}
	if s.end() != from { // the final state moved meanwhile
		return false, nil
	}
	if s.bundle == nil {
		s.bundle = b
	} else {
		s.bundle = &tx.Bundle{Source: b.Source, Proof: b.Proof, First: s.bundle.First, Receipts: append(s.bundle.Receipts, b.Receipts...)}
	}
	c.wake()
	return s.newest != fh, nil // there is a newer header: ask again
}

// bundles is what a block on a parent with these links may include, ascending by source. acked is what each
// destination has acknowledged as of our final state; an acknowledgement alone is brought only at heights that are
// multiples of ackEvery.
func (c *crossLinks) bundles(height consensus.Height, parent []consensus.Link, acked func(shard uint16) uint64) (out []tx.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range parent {
		s := c.sources[l.Shard]
		if s == nil {
			continue
		}
		if b := s.bundle; b != nil && l.Received >= b.First && l.Received < s.end() {
			out = append(out, tx.Bundle{Source: b.Source, Proof: b.Proof, First: l.Received, Receipts: b.Receipts[l.Received-b.First:]})
			continue
		}
		if s.newest == nil || height%ackEvery != 0 {
			continue
		}
		if theirs, ok := linkTo(s.newest.Header, c.self); ok && theirs.Sent == l.Received && theirs.Received > acked(uint16(l.Shard)) {
			out = append(out, tx.Bundle{Source: uint16(l.Shard), Proof: s.newest.Append(nil), First: l.Received})
		}
	}
	return out
}

// waiting reports whether some shard has receipts for us beyond these links.
func (c *crossLinks) waiting(parent []consensus.Link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range parent {
		if s := c.sources[l.Shard]; s != nil && s.bundle != nil && l.Received >= s.bundle.First && l.Received < s.end() {
			return true
		}
	}
	return false
}

// refused drops what is held from a source whose bundle did not execute: a lying peer's receipts do not match the root.
func (c *crossLinks) refused(shard uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[shard]
	s.bundle = nil
	s.nextPeer++
	poke(s.kick)
}

// finalised takes an own final block: what it consumed is dropped, and its certified header can prove our receipts.
func (c *crossLinks) finalised(h *consensus.Header, cert *consensus.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cert != nil {
		if len(c.own) == recentFinalHeaders {
			c.own = append(c.own[:0], c.own[1:]...)
		}
		c.own = append(c.own, &consensus.FinalHeader{Header: h, Cert: *cert})
	}
	for _, l := range h.Links {
		s := c.sources[l.Shard]
		if s == nil || l.Received <= s.received {
			continue
		}
		if s.bundle != nil {
			if l.Received >= s.end() {
				s.bundle = nil
			} else if l.Received > s.bundle.First {
				rest := append([]tx.Receipt(nil), s.bundle.Receipts[l.Received-s.bundle.First:]...)
				s.bundle = &tx.Bundle{Source: s.bundle.Source, Proof: s.bundle.Proof, First: l.Received, Receipts: rest}
			}
		}
		s.received = l.Received
	}
}

// serve answers a destination: request is dest 2, from 8; the answer is a bundle of ours.
func (c *crossLinks) serve(_ context.Context, _ netstack.NodeID, req []byte) ([]byte, error) {
	if len(req) != 10 {
		return nil, errors.New("malformed request for receipts")
	}
	dest, from := binary.BigEndian.Uint16(req), binary.BigEndian.Uint64(req[2:])
	if int(dest) >= len(c.sources) || consensus.ShardID(dest) == c.self {
		return nil, fmt.Errorf("no shard %d", dest)
	}
	fh, sent, err := c.prove(consensus.ShardID(dest), from)
	if err != nil {
		return nil, err
	}
	receipts, err := c.outbox.Receipts(dest, from, sent)
	if err != nil {
		return nil, fmt.Errorf("receipts %d to %d are not here", from, sent)
	}
	b := tx.Bundle{Source: uint16(c.self), Proof: fh.Append(nil), First: from, Receipts: receipts}
	return b.Append(nil), nil
}

// prove picks the final header to prove receipts from sequence from with: the newest, unless that is too many at once.
func (c *crossLinks) prove(dest consensus.ShardID, from uint64) (*consensus.FinalHeader, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *consensus.FinalHeader
	var sent uint64
	for i := len(c.own) - 1; i >= 0; i-- {
		l, ok := linkTo(c.own[i].Header, dest)
		if !ok || l.Sent < from {
			break
		}
		if best != nil && l.Sent == from {
			break
		}
		best, sent = c.own[i], l.Sent
		if sent-from <= bundleAim {
			break
		}
	}
	if best == nil || sent-from > tx.MaxBundleCount {
		return nil, 0, errors.New("no final header here proves receipts from there")
	}
	return best, sent, nil
}
