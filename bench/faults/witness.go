package faults

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// maxWrongs bounds the complaints that are kept; the first ones tell most.
const maxWrongs = 64

// Witness is what clients were told, all together. Safe for concurrent use.
type Witness struct {
	mu     sync.Mutex // guards what follows
	chains [][]told   // by shard, from height 1
	books  *books
	wrongs []string
	more   int           // complaints beyond maxWrongs
	news   chan struct{} // closed and replaced whenever a client is told a new block
	proofs int           // verified again later
}

// told is a final block that a client has verified.
type told struct {
	hash  consensus.Hash
	state consensus.Hash // root in its header
	view  consensus.View // in its header
	by    string         // node that told it first
	at    time.Time      // when
}

// NewWitness makes a witness of a network that begins with these balances. fees is the price of each fee class.
func NewWitness(shards int, fees []uint64, genesis map[tx.ID]uint64, shardOf func(tx.ID) consensus.ShardID) *Witness {
	return &Witness{chains: make([][]told, shards), books: newBooks(fees, genesis, shardOf), news: make(chan struct{})}
}

// Tell enters a verified block. Each node tells its shard's blocks in height order, from 1 or from what others have told.
func (w *Witness) Tell(node string, c *proof.Contents) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, hash := c.Header, c.Header.Hash()
	chain := &w.chains[h.Shard]
	tip := consensus.Height(len(*chain))
	switch {
	case h.Height <= tip:
		if was := (*chain)[h.Height-1]; was.hash != hash {
			w.wrong("shard %d has two final blocks at height %d: %s by %s, %s by %s", h.Shard, h.Height, was.hash.Short(), was.by, hash.Short(), node)
		}
		return
	case h.Height > tip+1:
		w.wrong("%s told block %d of shard %d, %d was expected", node, h.Height, h.Shard, tip+1)
		return
	case tip > 0 && h.Parent != (*chain)[tip-1].hash:
		w.wrong("shard %d: block %d by %s does not follow block %d by %s", h.Shard, h.Height, node, tip, (*chain)[tip-1].by)
	}
	*chain = append(*chain, told{hash: hash, state: h.State, view: h.View, by: node, at: time.Now()})
	for _, wrong := range w.books.enter(c) {
		w.wrong("shard %d, block %d: %s", h.Shard, h.Height, wrong)
	}
	close(w.news)
	w.news = make(chan struct{})
}

// wrong keeps a complaint. mu is held.
func (w *Witness) wrong(format string, args ...any) {
	if len(w.wrongs) == maxWrongs {
		w.more++
		return
	}
	w.wrongs = append(w.wrongs, fmt.Sprintf(format, args...))
}

// Wrong enters a complaint.
func (w *Witness) Wrong(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong(format, args...)
}

// Wrongs is all complaints so far.
func (w *Witness) Wrongs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := append([]string(nil), w.wrongs...)
	if w.more > 0 {
		out = append(out, fmt.Sprintf("and %d more", w.more))
	}
	return out
}

// News is closed when the next block is told.
func (w *Witness) News() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news
}

// Height is the highest block of a shard that was told.
func (w *Witness) Height(shard consensus.ShardID) consensus.Height {
	w.mu.Lock()
	defer w.mu.Unlock()
	return consensus.Height(len(w.chains[shard]))
}

// Heights is Height of all shards.
func (w *Witness) Heights() []consensus.Height {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]consensus.Height, len(w.chains))
	for s := range w.chains {
		out[s] = consensus.Height(len(w.chains[s]))
	}
	return out
}

// at is the block that was told at a height.
func (w *Witness) at(shard consensus.ShardID, height consensus.Height) (told, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if height < 1 || height > consensus.Height(len(w.chains[shard])) {
		return told{}, false
	}
	return w.chains[shard][height-1], true
}

// pace is the median time between blocks of a shard lately, 0 if there were too few.
func (w *Witness) pace(shard consensus.ShardID) time.Duration {
	const few = 5
	w.mu.Lock()
	defer w.mu.Unlock()
	chain := w.chains[shard]
	if len(chain) <= few {
		return 0
	}
	var gaps []time.Duration
	for i := len(chain) - few; i < len(chain); i++ {
		gaps = append(gaps, chain[i].at.Sub(chain[i-1].at))
	}
	slices.Sort(gaps)
	return gaps[few/2]
}

// Stall is the longest time that a shard was without a new block for clients, from the start until now.
func (w *Witness) Stall(start, now time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, chain := range w.chains {
		last := start
		for _, t := range chain {
			longest, last = max(longest, t.at.Sub(last)), t.at
		}
		longest = max(longest, now.Sub(last))
	}
	return longest
}

// Executed is how many transactions took effect.
func (w *Witness) Executed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.books.executed)
}

// Reverified is how many proofs nodes were asked for again, and gave.
func (w *Witness) Reverified() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proofs
}

func (w *Witness) reverified() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proofs++
}

// InTransit is how many debits wait for their credit on another shard.
func (w *Witness) InTransit() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.books.transit)
}

// Settled checks that every receipt that was consumed is of a debit that was told. It is for a moment when clients have
// been told all blocks of all shards up to some moment after the last receipt was consumed.
func (w *Witness) Settled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wrong := range w.books.orphans() {
		w.wrong("%s", wrong)
	}
}

// CheckAccount compares a proven record with the books. The block at the height of the proof must have been told.
func (w *Witness) CheckAccount(node string, shard consensus.ShardID, s *proof.AccountStatement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.StateHeight > consensus.Height(len(w.chains[shard])) {
		w.wrong("%s proves account %s at height %d, which no client was told of", node, s.ID, s.StateHeight)
		return
	}
	if wrong := w.books.compare(s); wrong != "" {
		w.wrong("%s: %s", node, wrong)
	}
}
