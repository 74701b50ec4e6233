// Package peers puts other systems beside Tutti: it measures them and `tutti bench` in turn on one machine, with the same
// open loop, and divides the figures. `make bench-peers` runs it.
//
// # What is compared
//
// Every contender has so many validators on this machine, over loopback, and a client on the same cores. The load is open
// loop (bench/load): transaction n is due n/rate seconds after the start, and its latency runs from then to the moment when
// this client has it in a committed block; what is refused, or never comes, spoils the trial. A trial of a rate counts as
// held if p99 is at most one second, at least 97 % of the rate is committed while the load runs, and nothing is lost.
// Each contender climbs a ladder of rates, each Step times the last, from where it starts, until one does not hold, or
// climbs down until one does. In the next round it starts from where it stood. Every trial has a network of its own, new.
// Contenders take turns: A B C, A B C. A contender's figure is the median, over the rounds, of the rates it held.
//
// What is not the same favours the peers, and the table says so: Tutti's clients sign, its nodes verify every signature, write
// the state to disk and prove it, and its client verifies a proof of each block; the CometBFT networks here run the built-in
// key-value application, in memory, over unsigned transactions, and their client believes one node.
// Transactions have the length of Tutti's signed transfer, which is tx.TransferWire; in a distilled batch a transfer takes less.
//
// # Another system
//
// Write an Adapter: something that can install the system, start a network of it, take transactions of a given length, and
// tell what was committed. Everything else is here: schedule, latency, CPU and memory of its processes, the ladder, the
// table. Add it to the contenders of bench-peers. The toy in toy_test.go is the smallest one, comet.go a real one.
package peers

import (
	"context"
	"fmt"
	"io"
)

// Adapter is a system that orders transactions, in one version and configuration. Its methods are called by one goroutine.
type Adapter interface {
	// Name is the system with its version; no two contenders share one.
	Name() string
	// Conditions are what a reader of the figures has to know: what is signed, what is durable, how it was tuned.
	Conditions() string
	// Install makes its programs ready, at the version it is pinned to, and tells out what it does.
	Install(ctx context.Context, out io.Writer) error
	// Start starts a network of so many validators in an empty folder, and returns when it commits blocks. Its processes have
	// to end with this one, however that ends: see child.Start.
	Start(ctx context.Context, dir string, validators int) (Network, error)
}

// Network is a network that runs. Safe for concurrent use.
type Network interface {
	// Transaction makes transaction n of a network's life, size bytes long or the next length that the system can do.
	Transaction(n uint64, size int) []byte
	// Number is n of a transaction that Transaction made, also in another process; ok is false for any other.
	Number(tx []byte) (n uint64, ok bool)
	// Submit gives transactions to a node, counted from 0, in one call if there is one that takes many, and returns when the
	// node has answered. The error is a *Refused if it took some of them.
	Submit(ctx context.Context, node int, txs [][]byte) error
	// Follow calls block for each committed block from one before its first call on, in order, with all its transactions, as soon
	// as a client of one node can have them. It returns when ctx ends, without error, or when it can no longer follow.
	Follow(ctx context.Context, block func(txs [][]byte)) error
	// Processes are the process ids of the nodes.
	Processes() []int
	// Close stops the processes and waits for them.
	Close() error
}

// Refused is the error of Submit when a node did not take some transactions.
type Refused struct {
	Count int
	Why   string // of one of them
}

func (r *Refused) Error() string { return fmt.Sprintf("%d refused: %s", r.Count, r.Why) }

// Contender is a line of the table. Open and Tutti make them.
type Contender interface {
	Name() string
	Conditions() string
	// TxBytes is how long a transaction is where a client hands it over.
	TxBytes() int
	// Trial measures one rate. The error says that nothing could be measured; a rate that was too much is none.
	Trial(ctx context.Context, rate float64) (Figures, error)
}

// Figures are what a trial measured.
type Figures struct {
	Rate               float64 // transactions due a second
	TPS                float64 // committed, as the client saw it while the load ran
	P50, P90, P99, Max float64 // milliseconds from due to the client's sight of the committed block; what never came counts as long as it was waited for
	CPUUs              float64 // of all validators, for each committed transaction
	RSSMiB             float64 // of each validator at the end, mean
	BlocksPerS         float64
	Generator          float64 // cores that the client used
	Foreign, Steal     float64 // cores that other work, and other machines, used meanwhile
	Why                string  // the rate does not count as held; empty: it does
}

// Held reports whether the rate was held.
func (f *Figures) Held() bool { return f.Why == "" }
