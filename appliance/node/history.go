package node

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/accel/prefetch"
	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// Bounds of what is remembered in memory. Older transactions are still in the block log, but not findable by id here.
const (
	rememberedTxs     = 1 << 19 // 60 bytes each, and as many receipts
	rememberedWaiting = 200_000
	recentHeaders     = 1024
)

// blockSource is the block log. Safe for concurrent use.
type blockSource interface {
	Base() consensus.Height
	FinalAt(h consensus.Height) (consensus.Hash, bool)
	Block(hash consensus.Hash) (consensus.Block, error)
	Header(hash consensus.Hash) (*consensus.Header, error)
	Finalization(from consensus.Height) (consensus.Height, *consensus.Certificate, error)
	EpochEnd(epoch consensus.Epoch) (*consensus.EpochEnd, error)
}

// blockEffects is the ledger: what is known of a final block and does not stand in it. Safe for concurrent use.
type blockEffects interface {
	Credits(height uint64) ([]tx.CreditOutcome, error) // what became of the receipts that it consumed
	Opened(height uint64) ([]ledger.Opened, error)     // the accounts that it opened
	EffectsFrom() uint64                               // the lowest height of which these are known
}

// history answers for the final chain: blocks, transactions by id, and how long they took. Safe for concurrent use.
type history struct {
	chain   tx.Hash
	shard   consensus.ShardID
	shardOf func(tx.ID) consensus.ShardID
	log     blockSource
	effects blockEffects
	meter   *meter

	mu       sync.Mutex // guards what follows
	tip      consensus.Height
	headers  map[consensus.Hash]*consensus.Header
	recent   [recentHeaders]consensus.Hash // ring by height
	txs      placeIndex
	consumed placeIndex
	waiting  map[tx.Hash]time.Time // admitted here from a client, not final yet
}

func newHistory(chain tx.Hash, shard consensus.ShardID, shardOf func(tx.ID) consensus.ShardID, log blockSource, effects blockEffects, m *meter) *history {
	return &history{
		chain: chain, shard: shard, shardOf: shardOf, log: log, effects: effects, meter: m,
		headers: map[consensus.Hash]*consensus.Header{},
		txs:     newPlaceIndex(rememberedTxs), consumed: newPlaceIndex(rememberedTxs), waiting: map[tx.Hash]time.Time{},
	}
}

// restore reads the newest final blocks up to height tip back in after a start, as many as hold most transactions.
func (h *history) restore(tip consensus.Height) error {
	var blocks []consensus.Block // newest first
	for txs := 0; len(blocks) < recentHeaders && txs < rememberedTxs/4; {
		height := tip - consensus.Height(len(blocks))
		if height == 0 || height < h.log.Base() {
			break
		}
		if height < consensus.Height(h.effects.EffectsFrom()) {
			if len(blocks) > 0 {
				break
			}
			return h.restoreTip(height) // nothing more can be told of what is below
		}
		b, err := h.body(height)
		if err != nil {
			return fmt.Errorf("final block %d: %w", height, err)
		}
		blocks = append(blocks, b)
		txs += len(b.Body) / tx.TransferWire
	}
	for _, b := range slices.Backward(blocks) {
		body, err := tx.DecodeBody(b.Body)
		if err != nil {
			return fmt.Errorf("final block %d: %w", b.Header.Height, err)
		}
		ids := body.IDs(h.chain)
		opened, err := h.effects.Opened(uint64(b.Header.Height))
		if err != nil {
			return fmt.Errorf("final block %d: %w", b.Header.Height, err)
		}
		h.mu.Lock()
		h.remember(b.Header, body, ids, opened)
		h.mu.Unlock()
	}
	return nil
}

// restoreTip makes the block at a height the tip without what is in it.
func (h *history) restoreTip(height consensus.Height) error {
	hash, ok := h.log.FinalAt(height)
	if !ok {
		return fmt.Errorf("final block %d: %w", height, blocklog.ErrNotFound)
	}
	header, err := h.log.Header(hash)
	if err != nil {
		return fmt.Errorf("final block %d: %w", height, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remember(header, &tx.Body{}, nil, nil)
	return nil
}

func (h *history) body(height consensus.Height) (consensus.Block, error) {
	hash, ok := h.log.FinalAt(height)
	if !ok {
		return consensus.Block{}, blocklog.ErrNotFound
	}
	return h.log.Block(hash)
}

// admitted notes when a client's transactions were accepted here.
func (h *history) admitted(now time.Time, ids []tx.Hash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if len(h.waiting) >= rememberedWaiting {
			return // not measured; counted nowhere else
		}
		if _, again := h.waiting[id]; !again {
			h.waiting[id] = now
		}
	}
}

// add takes a final block in height order.
func (h *history) add(b *proof.Block, body *tx.Body, executed *ledger.Executed) {
	now := time.Now()
	succeeded := 0
	var waits []time.Duration
	h.mu.Lock()
	h.remember(b.Final.Header(), body, executed.IDs, executed.Opened)
	for _, ok := range executed.Outcomes {
		if ok {
			succeeded++
		}
	}
	arrived := func(id tx.Hash, since time.Time) {
		waits = append(waits, now.Sub(since))
		delete(h.waiting, id)
	}
	if len(h.waiting) < len(executed.IDs) { // the fewer look for themselves among the others
		for id, since := range h.waiting {
			if p := h.txs.find(&id); p != nil && consensus.Height(p.height) == h.tip {
				arrived(id, since)
			}
		}
	} else {
		for _, id := range executed.IDs {
			if since, ours := h.waiting[id]; ours {
				arrived(id, since)
			}
		}
	}
	if len(h.waiting) > rememberedWaiting/2 {
		for id, since := range h.waiting { // expired or evicted; order does not matter
			if now.Sub(since) > time.Minute {
				delete(h.waiting, id)
			}
		}
	}
	h.mu.Unlock()
	h.meter.block(now, succeeded)
	for _, w := range waits {
		h.meter.waited(w)
	}
}

// remember indexes a final block. mu is held.
func (h *history) remember(header *consensus.Header, body *tx.Body, ids []tx.Hash, opened []ledger.Opened) {
	hash := header.Hash()
	slot := &h.recent[header.Height%recentHeaders]
	delete(h.headers, *slot)
	*slot = hash
	h.headers[hash] = header
	h.tip = header.Height
	for i := range ids {
		if next := i + prefetch.Ahead; next < len(ids) {
			h.txs.expect(&ids[next])
		}
		p := place{height: uint32(header.Height), index: uint32(i), dest: h.shard, success: body.Outcomes[i]}
		if t := body.Tx(i); p.success && t.Kind == tx.Transfer {
			p.dest = h.shardOf(t.To)
		}
		h.txs.put(&ids[i], p)
	}
	for _, o := range opened {
		if p := h.txs.find(&ids[o.Tx]); p != nil {
			p.opened = o.ID
		}
	}
	k := uint32(0)
	for i := range body.Bundles {
		for r := range body.Bundles[i].Receipts {
			if receipt := &body.Bundles[i].Receipts[r]; !receipt.Return {
				h.consumed.put(&receipt.Tx, place{height: uint32(header.Height), index: k, dest: h.shard, success: true})
			}
			k++
		}
	}
}

// header is a recent final header, nil if it is not among them.
func (h *history) header(hash consensus.Hash) *consensus.Header {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.headers[hash]
}

// latest is the header of the final tip, nil at genesis.
func (h *history) latest() *consensus.Header {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.headers[h.recent[h.tip%recentHeaders]]
}

func (h *history) height() consensus.Height {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tip
}

func (h *history) find(id tx.Hash) (place, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.txs.find(&id); p != nil {
		return *p, true
	}
	return place{}, false
}

func (h *history) findConsumed(id tx.Hash) (place, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.consumed.find(&id); p != nil {
		return *p, true
	}
	return place{}, false
}

// final shows that the block at a height is final. Errors are *api.Error.
func (h *history) final(height consensus.Height) (proof.Final, error) {
	if tip := h.height(); height > tip {
		return proof.Final{}, api.Refuse(api.NotFinal, "height %d; the final tip is %d", height, tip)
	}
	return h.logged(height)
}

// logged shows that the block at a height is final that the log has as final, of which more may not be told yet: the ledger
// is up to one block ahead of what clients were told, never ahead of the log. Errors are as final's.
func (h *history) logged(height consensus.Height) (proof.Final, error) {
	if base := h.log.Base(); height < base {
		return proof.Final{}, h.notKept(height, base)
	}
	if _, ok := h.log.FinalAt(height); !ok {
		return proof.Final{}, api.Refuse(api.NotFinal, "height %d; the final tip is %d", height, h.height())
	}
	certified, cert, err := h.log.Finalization(height)
	if err != nil {
		return proof.Final{}, h.missing(height, err)
	}
	if certified-height > proof.MaxDescendants {
		return proof.Final{}, api.Refuse(api.Pruned, "block %d was final only by a block %d later", height, certified-height)
	}
	f := proof.Final{Cert: *cert}
	for at := height; at <= certified; at++ {
		hash, ok := h.log.FinalAt(at)
		if !ok {
			return proof.Final{}, h.missing(at, blocklog.ErrNotFound)
		}
		header, err := h.log.Header(hash)
		if err != nil {
			return proof.Final{}, h.missing(at, err)
		}
		f.Headers = append(f.Headers, header)
	}
	echoes, err := echoesTo(h.log, f.Headers[len(f.Headers)-1], &f.Cert)
	if err != nil {
		return proof.Final{}, h.missing(height, err)
	}
	if f.Headers = append(f.Headers, echoes...); len(f.Headers) > 1+proof.MaxDescendants {
		return proof.Final{}, api.Refuse(api.Pruned, "block %d was final only by an echo %d later; the hand-over shows the end of its epoch", height, len(f.Headers)-1)
	}
	return f, nil
}

// echoesTo are the echoes of an epoch's last block up to the one that the certificate finalizes; none if that is the block's own.
func echoesTo(log blockSource, last *consensus.Header, cert *consensus.Certificate) ([]*consensus.Header, error) {
	if cert.Block == last.Hash() {
		return nil, nil
	}
	end, err := log.EpochEnd(last.Epoch)
	if err != nil {
		return nil, err
	}
	if end.Last.Hash() != last.Hash() || end.Cert.Statement != cert.Statement {
		return nil, fmt.Errorf("block %d has a finalization of something else", last.Height)
	}
	return end.Echoes, nil
}

// certified is the final header at a height if it has a certificate of its own, else nil.
func (h *history) certified(height consensus.Height) (*consensus.FinalHeader, error) {
	f, err := h.final(height)
	if errors.As(err, new(*api.Error)) || err == nil && len(f.Headers) > 1 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &consensus.FinalHeader{Header: f.Header(), Cert: f.Cert}, nil
}

// block is the whole final block at a height. Errors are *api.Error, or of the disk.
func (h *history) block(height consensus.Height) (*proof.Block, error) {
	if height == 0 {
		return nil, api.Refuse(api.NotFound, "the genesis block has no body; see /v1/genesis")
	}
	if from := consensus.Height(h.effects.EffectsFrom()); height < from {
		return nil, h.notKept(height, from)
	}
	f, err := h.final(height)
	if err != nil {
		return nil, err
	}
	b, err := h.log.Block(f.Header().Hash())
	if err != nil {
		return nil, h.missing(height, err)
	}
	credits, err := h.effects.Credits(uint64(height))
	if err != nil {
		return nil, fmt.Errorf("credits of block %d: %w", height, err)
	}
	return &proof.Block{Final: f, Body: b.Body, Credits: credits}, nil
}

func (h *history) missing(height consensus.Height, err error) error {
	if errors.Is(err, blocklog.ErrNotFound) {
		return h.notKept(height, max(h.log.Base(), consensus.Height(h.effects.EffectsFrom())))
	}
	return fmt.Errorf("read block %d: %w", height, err)
}

// notKept refuses a block that is not here: it was dropped, or this node copied its state when it was final already.
func (h *history) notKept(height, from consensus.Height) error {
	return api.Refuse(api.Pruned, "block %d; this node keeps blocks from %d on", height, from)
}
