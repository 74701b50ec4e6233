package node

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Receipts travel between shards by pull. The leader of a final block gossips its header; a header of another shard that
// has sent us receipts we do not hold makes us ask one of its validators for them. What comes back is a tx.Bundle,
// checked here against the certified header and again, root included, when a block executes it. There its proof is the
// certified header alone; whoever builds a block makes the proof that the channel needs of it (lineage.go).
const (
	receiptsProtocol netstack.Protocol = "/tutti/receipts/1"

	// recentFinalHeaders is how many own final headers are kept to prove receipts with. A destination that was away
	// for longer is served with the oldest one that proves something new.
	recentFinalHeaders = 1024
	// bundleAim is the number of receipts in one answer beyond which an older header is chosen.
	bundleAim = 8192

	fetchTimeout = 3 * time.Second
	// fetchTries is how many validators are asked before the next news or headPoll.
	fetchTries = 3
	// headPoll is after how long without news of a shard one of its validators is asked for it.
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
	judges
	transport netstack.Transport
	peers     [][]netstack.NodeID // by shard
	outbox    receiptSource
	wake      func() // something that a block may include has come

	mu      sync.Mutex // guards what follows; never held while waiting
	own     []*consensus.FinalHeader
	sources []*source // by shard; nil for our own
	refusal uint64    // bundles that did not execute
}

// source is what is known of one other shard.
type source struct {
	shard    consensus.ShardID
	newest   *consensus.FinalHeader // highest one verified, nil before the first
	heard    time.Time              // when that came
	received uint64                 // consumed here, as of our final state
	bundle   *tx.Bundle             // receipts bundle.First.. up to what bundle.Proof has sent; nil when none
	nextPeer int
	refused  int           // bundles, see crossLinks.refused
	kick     chan struct{} // capacity 1: look for news
	lineage
}

func (s *source) end() uint64 {
	if s.bundle == nil {
		return s.received
	}
	return s.bundle.First + uint64(len(s.bundle.Receipts))
}

func newCrossLinks(j judges, t netstack.Transport, peers [][]netstack.NodeID, outbox receiptSource, wake func()) *crossLinks {
	c := &crossLinks{judges: j, transport: t, peers: peers, outbox: outbox, wake: wake}
	c.sources = make([]*source, len(peers))
	for i := range peers {
		if consensus.ShardID(i) != c.self {
			c.sources[i] = &source{
				shard: consensus.ShardID(i), kick: make(chan struct{}, 1), lineage: lineage{base: c.headers.first[i].Committee},
			}
		}
	}
	t.Serve(receiptsProtocol, c.serve)
	return c
}

// resume takes over what the final state says was received, and the final tip where it has a certificate of its own (else
// nil), so that receipts can be asked for and proven at once after a start. Before run.
func (c *crossLinks) resume(channels []ledger.Channel, tip *consensus.FinalHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range channels {
		s := c.sources[channels[i].Shard]
		s.received = channels[i].Received.Count()
		c.leadTo(s, channels[i].Known)
	}
	if tip != nil {
		c.own = append(c.own, tip)
	}
}

// run fetches until ctx ends: one goroutine for each other shard, and one for each shard's gossip. The own shard's is
// joined to publish and to pass on, no more.
func (c *crossLinks) run(ctx context.Context, group *sync.WaitGroup) error {
	if len(c.sources) == 1 {
		return nil
	}
	for shard, s := range c.sources {
		news, err := c.transport.Subscribe(finalTopic(consensus.ShardID(shard)), func(_ netstack.NodeID, b []byte) netstack.Verdict {
			return c.judge(consensus.ShardID(shard), b)
		})
		if err != nil {
			return fmt.Errorf("subscribe to final headers of shard %d: %w", shard, err)
		}
		group.Go(func() { c.listen(ctx, news) })
		if s != nil {
			group.Go(func() { c.follow(ctx, s) })
		}
	}
	return nil
}

// listen learns what gossip brings.
func (c *crossLinks) listen(ctx context.Context, news <-chan netstack.Message) {
	for {
		select {
		case m, ok := <-news:
			if !ok {
				return
			}
			if fh, err := c.check(m.Payload); err == nil {
				c.learn(fh)
			}
		case <-ctx.Done():
			return
		}
	}
}

// judge judges what gossip brings of a shard. A header of an epoch that is not known yet makes us ask for that.
func (c *crossLinks) judge(shard consensus.ShardID, b []byte) netstack.Verdict {
	fh, err := c.check(b)
	switch {
	case errors.Is(err, proof.ErrEpoch) && fh.Header.Shard == shard:
		c.claim(shard, fh.Header.Epoch)
		return netstack.Ignore
	case err != nil || fh.Header.Shard != shard:
		return netstack.Reject
	}
	return netstack.Accept
}

// learn takes a verified final header of another shard.
func (c *crossLinks) learn(fh *consensus.FinalHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[fh.Header.Shard]
	if s == nil || (s.newest != nil && fh.Header.Height <= s.newest.Header.Height) {
		return
	}
	s.newest, s.heard = fh, time.Now()
	if c.lacks(s) {
		poke(s.kick)
	}
}

// lacks reports whether s has sent receipts that are not held and that there is room for. mu is held.
func (c *crossLinks) lacks(s *source) bool {
	if s.newest == nil || s.bundle != nil && len(s.bundle.Receipts) >= bundleAim {
		return false
	}
	l, ok := linkTo(s.newest.Header, c.self)
	return ok && l.Sent > s.end()
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

// follow fetches from one shard whenever there is news, and asks for news when gossip is silent. Hand-overs come first: without
// them no header can be judged.
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
		c.catchUp(ctx, s)
	}
}

// catchUp fetches what is missing of s until there is nothing more, or fetchTries requests brought nothing.
func (c *crossLinks) catchUp(ctx context.Context, s *source) {
	for failed, ask := 0, c.due(s); ctx.Err() == nil; {
		grew := false
		if from, limit, missing := c.missing(s); missing {
			grew = c.fetchSteps(ctx, s, from, limit)
			ask = ask || grew // what could not be judged may tell news
		} else if ask || c.short(s) {
			grew, ask = c.fetch(ctx, s), false
		} else {
			return
		}
		if grew {
			continue
		}
		if failed++; failed == fetchTries {
			c.disbelieve(s)
			return
		}
	}
}

// short is lacks for who does not hold mu.
func (c *crossLinks) short(s *source) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lacks(s)
}

// due reports whether s should be asked without news of it.
func (c *crossLinks) due(s *source) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lacks(s) || time.Since(s.heard) >= headPoll
}

// fetch asks one validator of s for what we lack. It reports whether receipts came.
func (c *crossLinks) fetch(ctx context.Context, s *source) bool {
	c.mu.Lock()
	from := s.end()
	peers := c.peers[s.shard]
	at := s.nextPeer
	peer := peers[at%len(peers)]
	c.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, uint16(c.self)), from)
	answer, err := c.transport.Request(ctx, peer, receiptsProtocol, req)
	grew := false
	if err == nil {
		grew, err = c.take(s, from, answer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.nextPeer != at: // refused has chosen meanwhile
	case err != nil || !grew || c.lacks(s): // unreachable, wrong, without news, behind, or sparing: ask the next one next time
		s.nextPeer++
	}
	return grew
}

// take checks an answer to a request for receipts from sequence from and joins it to what is held.
func (c *crossLinks) take(s *source, from uint64, answer []byte) (bool, error) {
	b, err := tx.DecodeBundle(answer)
	if err != nil {
		return false, err
	}
	fh, err := c.check(b.Proof)
	if errors.Is(err, proof.ErrEpoch) && fh.Header.Shard == s.shard {
		c.want(s.shard, fh.Header.Epoch) // it may be an older one, where there is much to bring
	}
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
		s.newest, s.heard = fh, time.Now()
	}
	if len(b.Receipts) == 0 || s.end() != from { // or the final state moved meanwhile
		return false, nil
	}
	switch {
	case s.bundle == nil:
		s.bundle = b
	case len(s.bundle.Receipts)+len(b.Receipts) > tx.MaxBundleCount:
		return false, nil // more than a body takes: when some of what is held has been consumed
	default:
		s.bundle = &tx.Bundle{Source: b.Source, Proof: b.Proof, First: s.bundle.First, Receipts: append(s.bundle.Receipts, b.Receipts...)}
	}
	c.wake()
	return true, nil
}

// bundles is what a block on a parent with these channels may include, ascending by source, at most maxBytes encoded. Where
// not everything fits, another shard is first at each height; what it has may be larger than room, up to maxBytes, because
// a bundle can't be cut. An acknowledgement alone is brought only at heights that are multiples of ackEvery, hand-overs alone
// at once.
func (c *crossLinks) bundles(height consensus.Height, parent []ledger.Channel, room, maxBytes int) (out []tx.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes := 0
	for k := range parent {
		b, ok := c.bundle(height, &parent[(k+int(height%consensus.Height(len(parent))))%len(parent)], room)
		if !ok {
			continue
		}
		size := bundleBytes(&b)
		if len(out) == tx.MaxBundles || bytes+size > room && (len(out) > 0 || size > maxBytes) {
			continue
		}
		bytes += size
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b tx.Bundle) int { return cmp.Compare(a.Source, b.Source) })
	return out
}

// bundle is what a block on a parent with this channel may include from one shard. mu is held.
func (c *crossLinks) bundle(height consensus.Height, ch *ledger.Channel, room int) (tx.Bundle, bool) {
	s := c.sources[ch.Shard]
	if s == nil {
		return tx.Bundle{}, false
	}
	received := ch.Received.Count()
	p := c.leading(s, ch.Known, c.usable(s, received), room)
	if p == nil {
		return tx.Bundle{}, false
	}
	theirs, ok := linkTo(p.header(), c.self)
	if !ok || theirs.Sent < received || theirs.Sent > received && (!s.holds(received) || theirs.Sent > s.end()) {
		return tx.Bundle{}, false // its receipts have to come with it
	}
	if theirs.Sent == received && len(p.steps) == 0 && (height%ackEvery != 0 || theirs.Received <= ch.Acked) {
		return tx.Bundle{}, false
	}
	out := tx.Bundle{Source: ch.Shard, Proof: p.Append(nil), First: received}
	if theirs.Sent > received {
		out.Receipts = s.bundle.Receipts[received-s.bundle.First : theirs.Sent-s.bundle.First]
	}
	return out, true
}

// usable is the newest header that the receipts from a sequence number on are held for, nil for none. mu is held.
func (c *crossLinks) usable(s *source, received uint64) *consensus.FinalHeader {
	end := received
	if s.holds(received) {
		end = s.end()
	}
	if s.newest != nil {
		if l, ok := linkTo(s.newest.Header, c.self); ok && l.Sent == end {
			return s.newest
		}
	}
	if end == received {
		return nil
	}
	fh, err := consensus.DecodeFinalHeader(s.bundle.Proof)
	if err != nil {
		return nil // not what was taken in
	}
	return fh
}

// holds reports whether the receipts from a sequence number on are held.
func (s *source) holds(from uint64) bool {
	return s.bundle != nil && from >= s.bundle.First && from < s.end()
}

// bundleBytes is the size of an encoded bundle in a body.
func bundleBytes(b *tx.Bundle) int {
	return bundleOverhead + len(b.Proof) + len(b.Receipts)*receiptBytes
}

// Sizes of tx.Bundle.Append and tx.Receipt.Append.
const (
	bundleOverhead = 2 + 4 + 8 + 4
	receiptBytes   = 6 + 6 + 8 + 32 + 1
)

// waiting reports whether some shard has receipts for us that a block on a parent with these channels may include.
func (c *crossLinks) waiting(parent []ledger.Channel) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range parent {
		ch := &parent[i]
		if s := c.sources[ch.Shard]; s != nil && s.holds(ch.Received.Count()) {
			if b, ok := c.bundle(1, ch, tx.MaxProofBytes); ok && len(b.Receipts) > 0 {
				return true
			}
		}
	}
	return false
}

// refused drops what is held from a source whose bundle did not execute: a lying peer's receipts do not match the root. Who
// lied is not known where several have answered. So each refusal lets another one be the first to be asked: going on from the
// last one could come back to the same liar for ever.
func (c *crossLinks) refused(shard uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[shard]
	s.bundle = nil
	s.refused++
	s.nextPeer = s.refused
	c.refusal++
	poke(s.kick)
}

// refusals counts bundles that did not execute.
func (c *crossLinks) refusals() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal
}

// finalised takes an own final block, with the channels after it: what it consumed is dropped, and its certified header can
// prove our receipts.
func (c *crossLinks) finalised(h *consensus.Header, cert *consensus.Certificate, channels []ledger.Channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cert != nil {
		if len(c.own) == recentFinalHeaders {
			c.own = append(c.own[:0], c.own[1:]...)
		}
		c.own = append(c.own, &consensus.FinalHeader{Header: h, Cert: *cert})
	}
	for i := range channels {
		if s := c.sources[channels[i].Shard]; s != nil {
			c.leadTo(s, channels[i].Known)
		}
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
		if c.lacks(s) { // there was no room before
			poke(s.kick)
		}
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
