package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/netstack"
	"tutti/netstack/simnet"
	"tutti/state/ledger"
	"tutti/state/receipt"
	"tutti/state/tx"
)

// outbox is the receipts that a shard has sent to any other and that are still stored: from base on.
type outbox struct {
	base uint64
	all  []tx.Receipt // from 0
}

func (o *outbox) Receipts(_ uint16, from, to uint64) ([]tx.Receipt, error) {
	if from < o.base || to > uint64(len(o.all)) {
		return nil, ledger.ErrNotStored
	}
	return o.all[from:to], nil
}

func receipts(n int) []tx.Receipt {
	out := make([]tx.Receipt, n)
	for i := range out {
		out[i] = tx.Receipt{From: tx.MakeID(0, 1), To: tx.MakeID(1, 2), Amount: uint64(i + 1)}
		binary.BigEndian.PutUint64(out[i].Tx[:], uint64(i))
	}
	return out
}

// certified makes the next header of a shard, final, with these links.
func certified(n *prooftest.Network, shard consensus.ShardID, links ...consensus.Link) *consensus.FinalHeader {
	h := n.Add(shard, nil, nil)
	h.Links = links
	return &consensus.FinalHeader{Header: h, Cert: n.Certify(shard, h)}
}

// lane is crossLinks of shard 1 of three, without a running fetcher, and what its transport would ask.
type lane struct {
	*crossLinks
	net   *prooftest.Network
	woken int
}

// judging is what a node of a shard judges headers by. It knows the genesis only.
func judging(net *prooftest.Network, shard consensus.ShardID, headers *finalHeaders) judges {
	return judges{self: shard, headers: headers, trust: net.NewTrust(), current: func() member { return headers.first[shard] }}
}

// channel is one that so many receipts were received by.
func channel(shard uint16, received int) ledger.Channel {
	return ledger.Channel{Shard: shard, Received: rangeOf(received)}
}

func nodeID(b byte) netstack.NodeID { return netstack.NodeID{b} }

func newLane(t *testing.T, box receiptSource) *lane {
	t.Helper()
	l := &lane{net: prooftest.New(t, "lane", 3)}
	headers, err := newFinalHeaders(l.net.Genesis, l.net.Committees)
	if err != nil {
		t.Fatal(err)
	}
	world := simnet.New(simnet.Config{})
	t.Cleanup(world.Close)
	peers := [][]netstack.NodeID{{nodeID(0x01), nodeID(0x02)}, nil, {nodeID(0x21)}}
	l.crossLinks = newCrossLinks(judging(l.net, 1, headers), world.Join(nodeID(0x11)), peers, box, func() { l.woken++ })
	return l
}

// answer is the bundle with receipts [from, to) that a header of shard 0 proves.
func answer(fh *consensus.FinalHeader, from, to int) *tx.Bundle {
	return &tx.Bundle{Source: uint16(fh.Header.Shard), Proof: fh.Append(nil), First: uint64(from), Receipts: receipts(to)[from:]}
}

func TestTakeRefuses(t *testing.T) {
	l := newLane(t, nil)
	good := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 4}, consensus.Link{Shard: 2})
	noLink := certified(l.net, 0, consensus.Link{Shard: 2, Sent: 4})
	other := certified(l.net, 2, consensus.Link{Shard: 1, Sent: 4})
	stranger := certified(prooftest.New(t, "stranger", 3), 0, consensus.Link{Shard: 1, Sent: 4})
	forged := &consensus.FinalHeader{Header: good.Header, Cert: good.Cert}
	forged.Cert.Signature[5] ^= 1
	change := func(f func(*tx.Bundle)) []byte {
		b := answer(good, 0, 4)
		f(b)
		return b.Append(nil)
	}
	for name, b := range map[string][]byte{
		"empty":                    {},
		"trailing byte":            append(answer(good, 0, 4).Append(nil), 0),
		"no header":                change(func(b *tx.Bundle) { b.Proof = nil }),
		"certificate forged":       answer(forged, 0, 4).Append(nil),
		"other chain":              answer(stranger, 0, 4).Append(nil),
		"header of another shard":  answer(other, 0, 4).Append(nil),
		"source is another shard":  change(func(b *tx.Bundle) { b.Source = 2 }),
		"header has no link to us": answer(noLink, 0, 4).Append(nil),
		"other first":              change(func(b *tx.Bundle) { b.First = 1 }),
		"one receipt too few":      answer(good, 0, 3).Append(nil),
		"one receipt too many":     answer(good, 0, 5).Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			if grew, err := l.take(l.sources[0], 0, b); err == nil || grew {
				t.Errorf("taken: grew %t", grew)
			}
			if s := l.sources[0]; s.bundle != nil || s.newest != nil || l.woken != 0 {
				t.Error("a refused answer left something behind")
			}
		})
	}
}

func TestTakeJoins(t *testing.T) {
	l := newLane(t, nil)
	s := l.sources[0]
	take := func(from int, b *tx.Bundle, want bool) {
		t.Helper()
		if grew, err := l.take(s, uint64(from), b.Append(nil)); err != nil || grew != want {
			t.Fatalf("grew %t, want %t: %v", grew, want, err)
		}
	}
	first := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 3})
	second := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 5})
	take(0, answer(first, 0, 3), true)
	take(0, answer(first, 0, 3), false) // an answer to an earlier question
	take(3, answer(second, 3, 5), true)
	take(5, answer(second, 5, 5), false) // nothing, but the newest header
	if l.woken != 2 || s.newest.Header != second.Header && s.newest.Header.Hash() != second.Header.Hash() {
		t.Errorf("woken %d times, newest height %d", l.woken, s.newest.Header.Height)
	}
	got := l.bundles(1, []ledger.Channel{channel(0, 0)}, 1<<20, 1<<20)
	if len(got) != 1 || len(got[0].Receipts) != 5 || string(got[0].Proof) != string(second.Append(nil)) {
		t.Fatalf("joined to %d bundles", len(got))
	}
	for i, r := range got[0].Receipts {
		if r != receipts(5)[i] {
			t.Errorf("receipt %d is another one", i)
		}
	}
	// An older header does not replace the newest one.
	if l.learn(first); s.newest.Header.Height != second.Header.Height {
		t.Error("went back to an older header")
	}
	// What is held is bounded: more is not taken in, and not asked for.
	s.bundle.Receipts = make([]tx.Receipt, tx.MaxBundleCount-1)
	third := certified(l.net, 0, consensus.Link{Shard: 1, Sent: tx.MaxBundleCount + 1})
	b := &tx.Bundle{Proof: third.Append(nil), First: s.end(), Receipts: receipts(2)}
	take(tx.MaxBundleCount-1, b, false)
	if len(s.bundle.Receipts) != tx.MaxBundleCount-1 || l.lacks(s) {
		t.Error("holds, or asks for, more than a body takes")
	}
}

func TestBundles(t *testing.T) {
	l := newLane(t, nil)
	fh0 := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 10, Received: 2})
	fh2 := certified(l.net, 2, consensus.Link{Shard: 1, Sent: 6})
	l.sources[0].bundle, l.sources[2].bundle = answer(fh0, 4, 10), answer(fh2, 0, 6)
	size0, size2 := len(l.sources[0].bundle.Append(nil)), len(l.sources[2].bundle.Append(nil))
	if got := bundleBytes(l.sources[0].bundle); got != size0 {
		t.Fatalf("bundleBytes says %d, the encoding has %d", got, size0)
	}
	type want struct{ source, first, n int }
	for _, c := range []struct {
		name         string
		height       consensus.Height
		parent       []ledger.Channel
		room, at     int
		want         []want
		isWaitingFor bool
	}{
		{"both", 1, []ledger.Channel{channel(0, 4), channel(2, 0)}, size0 + size2, 0, []want{{0, 4, 6}, {2, 0, 6}}, true},
		{"ascending whoever is first", 2, []ledger.Channel{channel(0, 4), channel(2, 0)}, size0 + size2, 0, []want{{0, 4, 6}, {2, 0, 6}}, true},
		{"the rest of one", 1, []ledger.Channel{channel(0, 7)}, 1 << 20, 0, []want{{0, 7, 3}}, true},
		{"all consumed", 1, []ledger.Channel{channel(0, 10)}, 1 << 20, 0, nil, false},
		{"more consumed than is held", 1, []ledger.Channel{channel(0, 11)}, 1 << 20, 0, nil, false},
		{"a gap before what is held", 1, []ledger.Channel{channel(0, 3)}, 1 << 20, 0, nil, false},
		{"room for one: even height", 2, []ledger.Channel{channel(0, 4), channel(2, 0)}, size0, 0, []want{{0, 4, 6}}, true},
		{"room for one: odd height", 1, []ledger.Channel{channel(0, 4), channel(2, 0)}, size2, 0, []want{{2, 0, 6}}, true},
		{"room for none, but it can't be cut", 2, []ledger.Channel{channel(0, 4), channel(2, 0)}, 100, 1 << 20, []want{{0, 4, 6}}, true},
		{"room for none at all", 2, []ledger.Channel{channel(0, 4), channel(2, 0)}, 100, 100, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := l.bundles(c.height, c.parent, c.room, max(c.at, c.room))
			if len(got) != len(c.want) {
				t.Fatalf("%d bundles, want %d", len(got), len(c.want))
			}
			for i, w := range c.want {
				if b := got[i]; int(b.Source) != w.source || int(b.First) != w.first || len(b.Receipts) != w.n || b.Receipts[0].Amount != uint64(w.first+1) {
					t.Errorf("bundle %d: source %d, first %d, %d receipts", i, b.Source, b.First, len(b.Receipts))
				}
			}
			if l.waiting(c.parent) != c.isWaitingFor {
				t.Errorf("waiting: %t", !c.isWaitingFor)
			}
		})
	}
}

func TestManyBundles(t *testing.T) {
	l := newLane(t, nil)
	l.sources = nil
	one := answer(certified(l.net, 0, consensus.Link{Shard: 1, Sent: 1}), 0, 1)
	var parent []ledger.Channel
	for i := range tx.MaxBundles + 6 {
		l.sources = append(l.sources, &source{shard: consensus.ShardID(i), bundle: one, lineage: lineage{base: l.net.Committees[0]}})
		parent = append(parent, channel(uint16(i), 0))
	}
	seen := map[uint16]bool{}
	for height := range consensus.Height(len(parent)) {
		got := l.bundles(height, parent, 1<<20, 1<<20)
		if len(got) != tx.MaxBundles {
			t.Fatalf("%d bundles, a body takes %d", len(got), tx.MaxBundles)
		}
		for i := range got {
			if seen[got[i].Source] = true; i > 0 && got[i].Source <= got[i-1].Source {
				t.Fatal("not ascending")
			}
		}
	}
	if len(seen) != len(parent) {
		t.Errorf("%d of %d shards had their turn", len(seen), len(parent))
	}
}

func TestAcknowledgements(t *testing.T) {
	l := newLane(t, nil)
	fh := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 7, Received: 5})
	l.learn(fh)
	for _, c := range []struct {
		name     string
		height   consensus.Height
		received int
		acked    uint64
		want     bool
	}{
		{"news", ackEvery, 7, 4, true},
		{"not at this height", ackEvery + 1, 7, 4, false},
		{"no news", ackEvery, 7, 5, false},
		{"receipts are missing, which the header would have to bring", ackEvery, 6, 4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := channel(0, c.received)
			ch.Acked = c.acked
			got := l.bundles(c.height, []ledger.Channel{ch}, 1<<20, 1<<20)
			if len(got) != 1 != !c.want {
				t.Fatalf("%d bundles", len(got))
			}
			if c.want && (len(got[0].Receipts) != 0 || got[0].First != 7 || string(got[0].Proof) != string(fh.Append(nil))) {
				t.Error("not the acknowledgement alone")
			}
		})
	}
}

func TestFinalisedTrims(t *testing.T) {
	l := newLane(t, nil)
	s := l.sources[0]
	before := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 8})
	fh := certified(l.net, 0, consensus.Link{Shard: 1, Sent: 10})
	l.learn(fh)
	<-s.kick
	s.bundle = answer(before, 0, 8)
	consume := func(received uint64) {
		l.finalised(&consensus.Header{Links: []consensus.Link{{Shard: 0, Received: received}, {Shard: 1, Received: 99}}}, nil, nil)
	}
	held := l.bundles(1, []ledger.Channel{channel(0, 0)}, 1<<20, 1<<20)[0]
	consume(3)
	if s.received != 3 || s.bundle.First != 3 || len(s.bundle.Receipts) != 5 || s.bundle.Receipts[0].Amount != 4 {
		t.Errorf("after 3 are consumed: received %d, holds %d from %d", s.received, len(s.bundle.Receipts), s.bundle.First)
	}
	if len(held.Receipts) != 8 || held.Receipts[7].Amount != 8 {
		t.Error("a bundle that was handed out has changed")
	}
	consume(2) // an older block says less: nothing happens
	if s.received != 3 {
		t.Error("went back")
	}
	consume(9) // another leader had more than we hold
	if s.received != 9 || s.bundle != nil || s.end() != 9 {
		t.Errorf("after 9 are consumed: received %d, bundle %v", s.received, s.bundle)
	}
	select {
	case <-s.kick:
	default:
		t.Error("one receipt is still missing and nobody asks for it")
	}
	l.resume([]ledger.Channel{{Shard: 0, Received: rangeOf(10)}, {Shard: 2}}, fh)
	if s.received != 10 || len(l.own) != 1 {
		t.Errorf("resumed at %d receipts, %d own headers", s.received, len(l.own))
	}
}

func rangeOf(n int) receipt.Range { return receipt.Range{}.Append(make([][32]byte, n)) }

func TestRefused(t *testing.T) {
	l := newLane(t, nil)
	s := l.sources[0]
	s.bundle = &tx.Bundle{Receipts: receipts(1)}
	l.refused(0)
	if s.bundle != nil || s.nextPeer != 1 || len(s.kick) != 1 || l.refusals() != 1 {
		t.Errorf("bundle %v, next peer %d, %d kicks, %d counted", s.bundle, s.nextPeer, len(s.kick), l.refusals())
	}
}

func question(dest uint16, from uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, dest), from)
}

func TestServe(t *testing.T) {
	box := &outbox{all: receipts(3 * bundleAim), base: 10}
	l := newLane(t, box)
	serve := func(dest uint16, from uint64) (*tx.Bundle, error) {
		b, err := l.serve(t.Context(), nodeID(9), question(dest, from))
		if err != nil {
			return nil, err
		}
		return tx.DecodeBundle(b)
	}
	if _, err := serve(0, 10); err == nil {
		t.Error("an answer before anything is final")
	}
	var headers []*consensus.Header
	for _, sent := range []uint64{12, 12, 100, bundleAim + 100, bundleAim + 200, 3 * bundleAim} {
		fh := certified(l.net, 1, consensus.Link{Shard: 0, Sent: sent}, consensus.Link{Shard: 2, Sent: 0})
		headers = append(headers, fh.Header)
		l.finalised(fh.Header, &fh.Cert, nil)
	}
	l.finalised(l.net.Add(1, nil, nil), nil, nil) // a block without a certificate of its own proves nothing
	for _, c := range []struct {
		name   string
		from   uint64
		header int // index of the one that proves
		n      uint64
	}{
		{"nothing new: the newest, for its acknowledgement", 3 * bundleAim, 5, 0},
		{"the newest that brings no more than the aim", 110, 3, bundleAim - 10},
		{"aim exactly", 100, 3, bundleAim},
		{"an older one, where the newest brings too much", 50, 2, 50},
		{"a run of equal ones ends at the first above", 12, 2, 88},
		{"more than the aim, where no header brings less", bundleAim + 200, 5, 2*bundleAim - 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := serve(0, c.from)
			if err != nil {
				t.Fatal(err)
			}
			fh, err := consensus.DecodeFinalHeader(b.Proof)
			if err != nil {
				t.Fatal(err)
			}
			if b.Source != 1 || b.First != c.from || uint64(len(b.Receipts)) != c.n || fh.Header.Hash() != headers[c.header].Hash() {
				t.Errorf("source %d, first %d, %d receipts, header at height %d", b.Source, b.First, len(b.Receipts), fh.Header.Height)
			}
		})
	}
	for name, req := range map[string][]byte{
		"empty": {}, "a byte short": question(0, 10)[1:], "a byte long": append(question(0, 10), 0), "own shard": question(1, 0),
		"no such shard": question(3, 0), "more than was sent": question(0, 3*bundleAim+1), "pruned": question(0, 9),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := l.serve(t.Context(), nodeID(9), req); err == nil {
				t.Error("answered")
			}
		})
	}
	// Own headers are bounded, and what is left does not reach back for ever.
	last := certified(l.net, 1, consensus.Link{Shard: 0, Sent: tx.MaxBundleCount + 11})
	for range recentFinalHeaders + 5 {
		l.finalised(last.Header, &last.Cert, nil)
	}
	if len(l.own) != recentFinalHeaders {
		t.Errorf("%d own headers are kept", len(l.own))
	}
	if _, err := serve(0, 10); err == nil {
		t.Error("more receipts than a bundle takes")
	}
}

// world is simnet in a bubble of virtual time: shard 0 with some validators that serve receipts, and one of shard 1.
type world struct {
	net     *prooftest.Network
	sim     *simnet.Network
	sources []*crossLinks // of shard 0
	dest    *crossLinks
	wakes   chan struct{}
	box     *outbox
	steps   []*proof.Handover      // of shard 0, from the genesis' epoch on, as its validators have them
	asked   atomic.Int32           // requests for hand-overs
	seats   atomic.Pointer[member] // shard 0's now
}

func startWorld(t *testing.T, validators int) (*world, func()) {
	t.Helper()
	w := &world{net: prooftest.New(t, "world", 2), sim: simnet.New(simnet.Config{Link: simnet.Link{Delay: 20 * time.Millisecond}}), wakes: make(chan struct{}, 1), box: &outbox{all: receipts(100)}}
	peers := make([][]netstack.NodeID, 2)
	for i := range validators {
		peers[0] = append(peers[0], nodeID(byte(1+i)))
	}
	peers[1] = []netstack.NodeID{nodeID(0x11)}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	start := func(id netstack.NodeID, shard consensus.ShardID, wake func()) *crossLinks {
		headers, err := newFinalHeaders(w.net.Genesis, w.net.Committees)
		if err != nil {
			t.Fatal(err)
		}
		j := judging(w.net, shard, headers)
		if shard == 0 {
			w.seats.CompareAndSwap(nil, &headers.first[0])
			j.current = func() member { return *w.seats.Load() }
		}
		c := newCrossLinks(j, w.sim.Join(id), peers, w.box, wake)
		if err := c.run(ctx, &group); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, id := range peers[0] {
		w.sources = append(w.sources, start(id, 0, func() {}))
		w.sources[len(w.sources)-1].transport.Serve(handoverProtocol, w.serveSteps)
	}
	w.dest = start(nodeID(0x11), 1, func() { poke(w.wakes) })
	return w, func() {
		cancel()
		group.Wait()
		w.sim.Close()
	}
}

// send makes a final block of shard 0 with so many receipts sent in all, known to these of its validators.
func (w *world) send(sent uint64, known ...int) *consensus.FinalHeader {
	fh := certified(w.net, 0, consensus.Link{Shard: 1, Sent: sent})
	for _, i := range known {
		w.sources[i].finalised(fh.Header, &fh.Cert, nil)
	}
	return fh
}

func (w *world) gossip(t *testing.T, from int, fh *consensus.FinalHeader) {
	t.Helper()
	if err := w.sources[from].transport.Publish(finalTopic(0), fh.Append(nil)); err != nil {
		t.Fatal(err)
	}
}

// held waits for receipts and says how many there are.
func (w *world) held(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case <-w.wakes:
	case <-time.After(within):
		t.Fatalf("nothing came within %s", within)
	}
	w.dest.mu.Lock()
	defer w.dest.mu.Unlock()
	return len(w.dest.sources[0].bundle.Receipts)
}

func TestReceiptsTravel(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *world){
		"gossip brings them at once": func(t *testing.T, w *world) {
			w.gossip(t, 1, w.send(7, 0, 1, 2))
			if n := w.held(t, 100*time.Millisecond); n != 7 { // a hop of gossip, a question, an answer
				t.Errorf("%d receipts", n)
			}
		},
		"without gossip they are asked for": func(t *testing.T, w *world) {
			w.send(7, 0, 1, 2)
			if n := w.held(t, headPoll+100*time.Millisecond); n != 7 {
				t.Errorf("%d receipts", n)
			}
		},
		"one that is behind is passed over": func(t *testing.T, w *world) {
			w.gossip(t, 2, w.send(7, 1, 2))
			if n := w.held(t, 200*time.Millisecond); n != 7 {
				t.Errorf("%d receipts", n)
			}
		},
		"one that does not answer is passed over": func(t *testing.T, w *world) {
			w.sim.Partition([]netstack.NodeID{nodeID(2), nodeID(3), nodeID(0x11)}, []netstack.NodeID{nodeID(1)})
			w.gossip(t, 2, w.send(7, 1, 2))
			if n := w.held(t, 200*time.Millisecond); n != 7 {
				t.Errorf("%d receipts", n)
			}
		},
		"one that lies is passed over": func(t *testing.T, w *world) {
			fh := w.send(7, 1, 2)
			w.sources[0].transport.Serve(receiptsProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				return answer(fh, 0, 6).Append(nil), nil
			})
			w.gossip(t, 2, fh)
			if n := w.held(t, 200*time.Millisecond); n != 7 {
				t.Errorf("%d receipts", n)
			}
		},
		"what does not execute is fetched again from another": func(t *testing.T, w *world) {
			fh := w.send(7, 0, 1, 2)
			w.gossip(t, 2, fh)
			w.held(t, 100*time.Millisecond)
			var asked atomic.Int32
			for i := range w.sources {
				serve := w.sources[i].serve
				w.sources[i].transport.Serve(receiptsProtocol, func(ctx context.Context, from netstack.NodeID, req []byte) ([]byte, error) {
					asked.Store(int32(i))
					return serve(ctx, from, req)
				})
			}
			w.dest.refused(0)
			if n := w.held(t, 100*time.Millisecond); n != 7 || asked.Load() != 1 {
				t.Errorf("%d receipts, from validator %d", n, asked.Load())
			}
		},
		"more comes while some is held": func(t *testing.T, w *world) {
			w.gossip(t, 0, w.send(7, 0, 1, 2))
			w.held(t, 100*time.Millisecond)
			w.gossip(t, 0, w.send(9, 0, 1, 2))
			if n := w.held(t, 100*time.Millisecond); n != 9 {
				t.Errorf("%d receipts", n)
			}
		},
		"nobody is asked while gossip says that there is nothing": func(t *testing.T, w *world) {
			var asked atomic.Int32
			for i := range w.sources {
				w.sources[i].transport.Serve(receiptsProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
					asked.Add(1)
					return nil, fmt.Errorf("nothing")
				})
			}
			for range 10 {
				w.gossip(t, 0, w.send(0, 0))
				time.Sleep(headPoll / 2)
			}
			if asked.Load() > 1 { // at first there was silence
				t.Errorf("asked %d times", asked.Load())
			}
			time.Sleep(3 * headPoll)
			if asked.Load() < 2 {
				t.Error("silence, and nobody is asked")
			}
		},
		"false headers stop at the first node": func(t *testing.T, w *world) {
			fh := w.send(7, 0, 1, 2)
			fh.Cert.Signature[7] ^= 1
			w.gossip(t, 0, fh)
			time.Sleep(headPoll / 2)
			if c := w.dest.transport.Counters(); c.GossipReceived != 0 || c.GossipInvalid == 0 {
				t.Errorf("%d taken, %d invalid", c.GossipReceived, c.GossipInvalid)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := startWorld(t, 3)
				defer stop()
				test(t, w)
			})
		})
	}
}

// TestOneHonestSource: one of two validators lies, and what the other has comes in the end (consensus/propagation).
func TestOneHonestSource(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *world){
		"who answers with an old header and nothing is passed over": func(t *testing.T, w *world) {
			old := w.send(0)
			w.send(7, 1)
			w.sources[0].transport.Serve(receiptsProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				return answer(old, 0, 0).Append(nil), nil
			})
			if n := w.held(t, 5*headPoll); n != 7 {
				t.Errorf("%d receipts", n)
			}
		},
		"who spoils what the other completes is not the first to be asked each time": func(t *testing.T, w *world) {
			old, fh := w.send(3, 1), w.send(7, 1)
			wrong := answer(old, 0, 3)
			wrong.Receipts[0].Amount++
			w.sources[0].transport.Serve(receiptsProtocol, func(context.Context, netstack.NodeID, []byte) ([]byte, error) {
				return wrong.Append(nil), nil
			})
			w.gossip(t, 1, fh)
			for range 10 {
				if w.held(t, 3*headPoll) < 7 {
					continue
				}
				w.dest.mu.Lock()
				spoiled := w.dest.sources[0].bundle.Receipts[0] != receipts(1)[0]
				w.dest.mu.Unlock()
				if !spoiled {
					return
				}
				w.dest.refused(0)
			}
			t.Error("never anything but the liar's receipts")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := startWorld(t, 2)
				defer stop()
				test(t, w)
			})
		})
	}
}

func TestOneShardHasNoLinks(t *testing.T) {
	sim := simnet.New(simnet.Config{})
	defer sim.Close()
	c := newCrossLinks(judges{}, sim.Join(nodeID(1)), make([][]netstack.NodeID, 1), nil, func() {})
	var group sync.WaitGroup
	if err := c.run(t.Context(), &group); err != nil {
		t.Fatal(err)
	}
	group.Wait() // nothing was started
}
