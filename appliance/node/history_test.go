package node

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// chainLog is a block log in memory over the blocks of a prooftest.Network: blocks[i] has height i+1.
type chainLog struct {
	end    *consensus.EpochEnd // nil: no epoch has ended
	blocks []*proof.Block
	opened map[uint64][]ledger.Opened // by height
	base   consensus.Height
	known  uint64 // the lowest height of which credits and openings are known
	broken error  // of every read
}

func (c *chainLog) EffectsFrom() uint64 { return c.known }

func (c *chainLog) at(h consensus.Height) *proof.Block {
	if h < max(c.base, 1) || int(h) > len(c.blocks) {
		return nil
	}
	return c.blocks[h-1]
}

func (c *chainLog) find(hash consensus.Hash) (*proof.Block, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	for _, b := range c.blocks {
		if b.Final.Header().Hash() == hash && c.at(b.Final.Header().Height) != nil {
			return b, nil
		}
	}
	return nil, blocklog.ErrNotFound
}

func (c *chainLog) Base() consensus.Height { return c.base }

func (c *chainLog) FinalAt(h consensus.Height) (consensus.Hash, bool) {
	if b := c.at(h); b != nil {
		return b.Final.Header().Hash(), true
	}
	return consensus.Hash{}, false
}

func (c *chainLog) Block(hash consensus.Hash) (consensus.Block, error) {
	b, err := c.find(hash)
	if err != nil {
		return consensus.Block{}, err
	}
	return consensus.Block{Header: b.Final.Header(), Body: b.Body}, nil
}

func (c *chainLog) Header(hash consensus.Hash) (*consensus.Header, error) {
	b, err := c.find(hash)
	if err != nil {
		return nil, err
	}
	return b.Final.Header(), nil
}

func (c *chainLog) Finalization(from consensus.Height) (consensus.Height, *consensus.Certificate, error) {
	if c.broken != nil {
		return 0, nil, c.broken
	}
	b := c.at(from)
	if b == nil {
		return 0, nil, blocklog.ErrNotFound
	}
	at := from
	for _, h := range b.Final.Headers[1:] {
		if !h.IsEcho() {
			at = h.Height
		}
	}
	return at, &b.Final.Cert, nil
}

func (c *chainLog) EpochEnd(epoch consensus.Epoch) (*consensus.EpochEnd, error) {
	if c.end == nil || c.end.Last.Epoch != epoch {
		return nil, blocklog.ErrNotFound
	}
	return c.end, nil
}

func (c *chainLog) Credits(height uint64) ([]tx.CreditOutcome, error) {
	return c.blocks[height-1].Credits, nil
}

func (c *chainLog) Opened(height uint64) ([]ledger.Opened, error) { return c.opened[height], nil }

// chain makes blocks of shard 0, each with one transfer; those at heights in certified get a certificate of their own.
func chain(t *testing.T, blocks int, isCertified func(height int) bool) (*prooftest.Network, *chainLog, []tx.Signed) {
	net := prooftest.New(t, "history", 2)
	log := &chainLog{base: 1}
	var txs []tx.Signed
	for i := 1; i <= blocks; i++ {
		s := net.Transfer(net.Account(0, 1), net.Account(consensus.ShardID(i%2), 2), uint64(i), uint32(i))
		net.Add(0, []tx.Signed{s}, nil)
		txs = append(txs, s)
		if isCertified(i) {
			log.blocks = append(log.blocks, net.Finalise(0)...)
		}
	}
	return net, log, txs
}

func always(int) bool { return true }

func historyOf(net *prooftest.Network, log *chainLog) *history {
	return newHistory(tx.Hash(net.Genesis), 0, net.ShardOf, log, log, newMeter(time.Now()))
}

// play adds the blocks of a log as the application does.
func play(t *testing.T, h *history, log *chainLog) {
	t.Helper()
	for _, b := range log.blocks {
		c, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		h.add(b, c.Body, &ledger.Executed{IDs: c.IDs, Outcomes: c.Body.Outcomes})
	}
}

func TestHistoryFinal(t *testing.T) {
	net, log, _ := chain(t, 10, func(h int) bool { return h%4 == 0 || h == 10 })
	h := historyOf(net, log)
	if h.latest() != nil {
		t.Error("a final header before there was one")
	}
	play(t, h, log)
	if l := h.latest(); l == nil || l.Height != 10 || h.height() != 10 {
		t.Errorf("the last final header is %+v", l)
	}
	for height := consensus.Height(1); height <= 10; height++ {
		b, err := h.block(height)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Verify(net.Trust); err != nil || b.Final.Header().Height != height {
			t.Errorf("block %d, shown as %d: %v", height, b.Final.Header().Height, err)
		}
		fh, err := h.certified(height)
		if want := height%4 == 0 || height == 10; err != nil || fh != nil != want {
			t.Errorf("block %d has a certificate of its own: %t (%v)", height, fh != nil, err)
		}
	}
	h.tip = 9 // the log and the ledger are a block ahead of what clients were told
	if _, err := h.final(10); !errors.Is(err, &api.Error{Code: api.NotFinal}) {
		t.Errorf("a block that clients were not told of: %v", err)
	}
	if f, err := h.logged(10); err != nil || f.Header().Height != 10 {
		t.Errorf("a block of the log: %v", err)
	}
	if _, err := h.logged(11); !errors.Is(err, &api.Error{Code: api.NotFinal}) {
		t.Errorf("a block that is not in the log: %v", err)
	}
	h.tip = 10
	log.base = 4
	for height, want := range map[consensus.Height]api.Code{0: api.NotFound, 3: api.Pruned, 11: api.NotFinal} {
		if _, err := h.block(height); !errors.Is(err, &api.Error{Code: want}) {
			t.Errorf("block %d: %v, want %s", height, err, want)
		}
	}
	if fh, err := h.certified(3); fh != nil || err != nil {
		t.Errorf("a pruned tip: %v, %v", fh, err)
	}
	log.broken = errors.New("disk")
	if _, err := h.block(5); !errors.Is(err, log.broken) || errors.As(err, new(*api.Error)) {
		t.Errorf("a broken disk: %v", err)
	}
	if _, err := h.certified(5); !errors.Is(err, log.broken) {
		t.Errorf("a broken disk: %v", err)
	}
}

func TestHistoryFarFromItsCertificate(t *testing.T) {
	net, log, _ := chain(t, proof.MaxDescendants+2, func(h int) bool { return h == proof.MaxDescendants+2 })
	h := historyOf(net, log)
	h.tip = proof.MaxDescendants + 2
	if _, err := h.final(1); !errors.Is(err, &api.Error{Code: api.Pruned}) {
		t.Errorf("block 1: %v", err)
	}
	if f, err := h.final(2); err != nil || len(f.Headers) != proof.MaxDescendants+1 {
		t.Errorf("block 2: %d headers, %v", len(f.Headers), err)
	}
}

func TestHistoryRestore(t *testing.T) {
	net, log, txs := chain(t, 12, always)
	live := historyOf(net, log)
	play(t, live, log)
	for name, c := range map[string]struct {
		base, tip, oldest consensus.Height
	}{
		"all":                   {1, 12, 1},
		"state behind the log":  {1, 9, 1},
		"pruned":                {5, 12, 5},
		"one":                   {12, 12, 12},
		"nothing is final":      {0, 0, 1},
		"the log is far behind": {13, 12, 13},
	} {
		t.Run(name, func(t *testing.T) {
			log.base = c.base
			h := historyOf(net, log)
			if err := h.restore(c.tip); err != nil {
				t.Fatal(err)
			}
			if want := c.tip; c.oldest <= c.tip && h.height() != want {
				t.Errorf("height %d, want %d", h.height(), want)
			}
			for i, s := range txs {
				height := consensus.Height(i + 1)
				p, ok := h.find(net.ID(s))
				if want := height >= c.oldest && height <= c.tip; ok != want {
					t.Errorf("transaction of block %d found: %t", height, ok)
				} else if was, _ := live.find(net.ID(s)); ok && p != was {
					t.Errorf("restored %+v, was %+v", p, was)
				}
				header := h.header(log.blocks[i].Final.Header().Hash())
				if want := height >= c.oldest && height <= c.tip; header != nil != want {
					t.Errorf("header %d held: %t", height, header != nil)
				}
			}
		})
	}
	log.base, log.broken = 1, errors.New("disk")
	if err := historyOf(net, log).restore(12); !errors.Is(err, log.broken) {
		t.Errorf("a broken disk: %v", err)
	}
}

// TestHistoryOfACopy: a node whose state was copied when block 5 was final knows its tip, and nothing of what blocks up to
// there did, even where it has them.
func TestHistoryOfACopy(t *testing.T) {
	net, log, txs := chain(t, 8, always)
	all := log.blocks
	log.blocks, log.known, log.base = all[:5], 6, 3
	h := historyOf(net, log)
	if err := h.restore(5); err != nil || h.height() != 5 || h.latest() == nil || h.latest().Height != 5 {
		t.Fatalf("tip %d, %v", h.height(), err)
	}
	log.blocks = all
	for _, b := range all[5:] {
		c, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		h.add(b, c.Body, &ledger.Executed{IDs: c.IDs, Outcomes: c.Body.Outcomes})
	}
	check := func(h *history, when string) {
		t.Helper()
		for height := consensus.Height(1); height <= 8; height++ {
			_, err := h.block(height)
			if height < 6 && (!errors.Is(err, &api.Error{Code: api.Pruned}) || !strings.Contains(err.Error(), "from 6 on")) || height >= 6 && err != nil {
				t.Errorf("%s: block %d: %v", when, height, err)
			}
			if _, ok := h.find(net.ID(txs[height-1])); ok != (height >= 6) {
				t.Errorf("%s: transaction of block %d is known: %t", when, height, ok)
			}
		}
		if _, err := h.final(4); err != nil {
			t.Errorf("%s: block 4 is in the log and can't be shown to be final: %v", when, err)
		}
		if _, err := h.final(2); !errors.Is(err, &api.Error{Code: api.Pruned}) {
			t.Errorf("%s: block 2 is not in the log: %v", when, err)
		}
	}
	check(h, "after the copy")
	again := historyOf(net, log)
	if err := again.restore(8); err != nil {
		t.Fatal(err)
	}
	check(again, "after a restart")
}

func TestHistoryPlaces(t *testing.T) {
	net := prooftest.New(t, "places", 2)
	there, here, failed := net.Transfer(net.Account(0, 1), net.Account(1, 9), 5, 1), net.Transfer(net.Account(0, 1), net.Account(0, 9), 5, 2), net.Transfer(net.Account(0, 1), net.Account(1, 9), 5, 3)
	in, back := net.Transfer(net.Account(1, 3), net.Account(0, 3), 7, 1), net.Transfer(net.Account(0, 4), net.Account(1, 4), 7, 1)
	open := tx.Signed{Tx: tx.Tx{Kind: tx.Open, From: net.Account(0, 1), Amount: 1, Nonce: 4, Expiry: 100}}
	returned := net.Receipt(back)
	returned.Return = true
	net.Add(0, []tx.Signed{there, here, failed, open}, []tx.Bundle{{Source: 1, Receipts: []tx.Receipt{returned, net.Receipt(in)}}}, 2)
	opened := []ledger.Opened{{Tx: 3, ID: net.Account(0, 77)}}
	log := &chainLog{base: 1, blocks: net.Finalise(0), opened: map[uint64][]ledger.Opened{1: opened}}
	c, err := log.blocks[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	added, restored := historyOf(net, log), historyOf(net, log)
	added.add(log.blocks[0], c.Body, &ledger.Executed{IDs: c.IDs, Outcomes: c.Body.Outcomes, Opened: opened})
	if err := restored.restore(1); err != nil {
		t.Fatal(err)
	}
	for when, h := range map[string]*history{"as blocks come": added, "after a restart": restored} {
		for _, want := range []struct {
			name string
			id   tx.Hash
			p    place
		}{
			{"to another shard", net.ID(there), place{height: 1, index: 0, dest: 1, success: true}},
			{"inside", net.ID(here), place{height: 1, index: 1, dest: 0, success: true}},
			{"failed: nothing was sent", net.ID(failed), place{height: 1, index: 2, dest: 0}},
			{"opening", net.ID(open), place{height: 1, index: 3, opened: net.Account(0, 77), success: true}},
		} {
			if p, ok := h.find(want.id); !ok || p != want.p {
				t.Errorf("%s, %s: %+v (%t), want %+v", when, want.name, p, ok, want.p)
			}
		}
		if p, ok := h.findConsumed(net.ID(in)); !ok || p.height != 1 || p.index != 1 {
			t.Errorf("%s: consumed at %+v (%t)", when, p, ok)
		}
		if _, ok := h.findConsumed(net.ID(back)); ok {
			t.Errorf("%s: money that came back passes for a credit", when)
		}
	}
}

func TestHistoryForgets(t *testing.T) {
	// Past the point where numbers wrap around.
	for _, start := range []uint32{0, 1<<32 - 1<<13} {
		const limit = 4 << pieceBits
		p := newPlaceIndex(limit)
		p.newest += start
		if x := (tx.Hash{1}); p.find(&x) != nil {
			t.Error("an empty index finds something")
		}
		id := func(i int) (h tx.Hash) { binary.BigEndian.PutUint64(h[:], uint64(i)); return h }
		for i := range 3*limit + 5 {
			x := id(i)
			p.put(&x, place{height: uint32(i), success: i%2 == 0})
			p.put(&x, place{height: uint32(i), index: 7}) // again, in vain: what counts is where it took effect
		}
		places := 0
		for _, piece := range p.ring {
			places += len(piece)
		}
		if places != limit || len(p.heads) != limit {
			t.Errorf("%d places in %d buckets, limit %d", places, len(p.heads), limit)
		}
		found := 0
		for i := range 3*limit + 10 {
			x := id(i)
			got := p.find(&x)
			if got == nil {
				if i >= 3*limit-limit/2 && i < 3*limit+5 {
					t.Fatalf("place %d is gone", i)
				}
				continue
			}
			if found++; got.height != uint32(i) || got.success != (i%2 == 0) || (got.index == 7) == got.success {
				t.Fatalf("place %d: %+v", i, got)
			}
		}
		if found < limit/2 || found > limit {
			t.Errorf("%d found, limit %d", found, limit)
		}
	}

	net, log, _ := chain(t, 1, always)
	h := historyOf(net, log)
	for i := range recentHeaders + 3 {
		h.remember(&consensus.Header{Height: consensus.Height(i + 1)}, &tx.Body{}, nil, nil)
	}
	if len(h.headers) != recentHeaders || h.header((&consensus.Header{Height: 3}).Hash()) != nil || h.header((&consensus.Header{Height: 4}).Hash()) == nil {
		t.Errorf("%d headers are held", len(h.headers))
	}
}

func TestHistoryWaits(t *testing.T) {
	net, log, txs := chain(t, 2, always)
	h := historyOf(net, log)
	now := time.Now()
	h.admitted(now.Add(-300*time.Millisecond), []tx.Hash{net.ID(txs[0])})
	h.admitted(now, []tx.Hash{net.ID(txs[0])}) // again: the first time counts
	play(t, h, log)
	if r := h.meter.read(time.Now()); r.blocks != 2 || r.quantiles.P50 < 290 || len(h.waiting) != 0 {
		t.Errorf("%d blocks, %+v, %d still waiting", r.blocks, r.quantiles, len(h.waiting))
	}
	var ids []tx.Hash
	for i := range rememberedWaiting + 5 {
		ids = append(ids, tx.Hash{byte(i), byte(i >> 8), byte(i >> 16), 1})
	}
	h.admitted(now.Add(-2*time.Minute), ids)
	if len(h.waiting) != rememberedWaiting {
		t.Errorf("%d are waited for, limit %d", len(h.waiting), rememberedWaiting)
	}
	play(t, h, log)
	if len(h.waiting) != 0 {
		t.Errorf("%d are waited for that can't come any more", len(h.waiting))
	}
}

// TestArchive: without a retention nothing is dropped, and with one what a block did is kept longer than the block.
func TestArchive(t *testing.T) {
	if keptBlocks(0) != blocklog.Forever || keptEffects(0) != math.MaxUint64 {
		t.Errorf("an archive keeps %d blocks and the effects of %d", keptBlocks(0), keptEffects(0))
	}
	for _, n := range []int{100, 10_000, 100_000_000} {
		if keptBlocks(n) != consensus.Height(n) || keptEffects(n) < uint64(n)+uint64(n)/4+2*1024+1024 {
			t.Errorf("retention %d: %d blocks, the effects of %d", n, keptBlocks(n), keptEffects(n))
		}
	}
}

// BenchmarkHistory is the CPU time of entering a transaction of a final block, where as many are known as ever are.
func BenchmarkHistory(b *testing.B) {
	h := newHistory(tx.Hash{1}, 0, func(tx.ID) consensus.ShardID { return 0 }, nil, nil, newMeter(time.Now()))
	const n = 25_000
	body := &tx.Body{Txs: make([]tx.Signed, n), Outcomes: make([]bool, n)}
	for i := range body.Txs {
		body.Txs[i].Kind, body.Outcomes[i] = tx.Transfer, true
	}
	rng, height := rand.NewChaCha8([32]byte{}), consensus.Height(0)
	step := func() {
		height++
		ids := make([]tx.Hash, n)
		for i := range ids {
			_, _ = rng.Read(ids[i][:])
		}
		block := &proof.Block{Final: proof.Final{Headers: []*consensus.Header{{Height: height}}}}
		h.add(block, body, &ledger.Executed{IDs: ids, Outcomes: body.Outcomes})
	}
	for range rememberedTxs/n + 1 {
		step()
	}
	began := cpuSeconds()
	for b.Loop() {
		step()
	}
	b.ReportMetric(1e9*(cpuSeconds()-began)/float64(b.N)/n, "cpu_ns/tx")
}
