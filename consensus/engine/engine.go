// Package engine runs one validator's (or observer's) part in the consensus of one shard, an epoch at a time: it drives the pure
// machine of consensus/simplex with messages, timers and verdicts, and does what the machine asks for in the order that
// simplex.Ready lays down: log, sync, send, apply.
//
// In: votes, certificates and proposals from the committee (Network), blocks and verdicts from the application (App).
// Out: the same kinds of messages, finalised blocks in height order with the certificate that makes them final, a durable
// log (consensus/blocklog), and answers to peers that fetch blocks or catch up (wire.go has the encodings).
//
// # Goroutines
//
//	owner       the machine, the log's writer side, timers and all engine state (run); never waits for anything but the disk
//	worker      the application: Build, Certify and Abandon one after another, in the order they were asked for
//	finaliser   the application: Finalise, in height order, so that a disk that is slow for a while delays no verdict
//	receivers   one for each class: bounds for each peer, decoding
//	helpers     at most one App.Await, one sync or poll request, maxFetches block fetches, and maxRebuilds bodies that
//	            are made of their parts, of which others wait for a place: at most one for each view of the machine's window
//
// The queue to the worker is the owner's; while it holds maxJobs or more the owner takes no messages in, so that they wait
// in, and overflow, the network's queues. Everything else that has a bound is dropped beyond it and counted (Counters).
//
// # Errors
//
// What a peer sends is never an error: it is counted, and what no correct peer sends costs it its place for a while
// (Misbehaved messages are dropped and its requests refused; penalty.go). All errors of the application and the log are
// fatal: the engine stops without sending, Done is closed and Err says why, with the remedy. So is a finalised header that
// contradicts this node's state (ErrContradiction): the node must halt and resync.
//
// # Late votes
//
// Votes for a finalization that come after the quorum are added to the certificate in the log for half a second (late.go).
//
// # Catching up
//
// Blocks near the final height are fetched by hash (fetch.go). A node further behind asks for runs of blocks by height
// (rangesync.go): each run ends in, or links to, a finalization that is verified before anything is executed, and is logged
// before the application finalises it. Peers are asked in turn.
//
// # Epochs
//
// An engine is one epoch's. When the application has made the epoch's last block durable the engine ends by itself: Done is
// closed, Err is nil, and Ended says what ended the epoch. Its caller, who has the next committee from the application, starts
// another engine on the same log and application, with a Network that knows the next committee's members by their places. After
// a restart EpochOf says which epoch to start with; in an engine whose epoch turns out to be over already, all is replayed up
// to its last block, and it ends at once.
//
// Both sides of a hand-over see messages of the other's epoch; they are dropped and counted. Who votes in an epoch that is over
// here is sent what ended it, twice a second at most; who hears of a later epoch asks for what ended its own. An answer to a
// request is always about the epoch asked for, out of the log: so a node that missed several hand-overs makes one after another.
//
// # One key, one process
//
// An engine that hears a vote by its own key that its log does not hold ends with ErrKeyElsewhere before it sends anything more
// (simplex, rule R18). One whose log may be an old copy listens before it begins (listen.go).
//
// # Joining
//
// A node with an empty disk takes its state from peers (state sync, not here). Follower gives it the verified final headers
// to check that state against (follower.go), and makes it a log that begins where the state is, with the vote floor
// without which a validator that lost its votes must not vote (adopt.go; simplex, rule R17). Blocks that no member's log
// holds any more can't be fetched (ErrBehind): a node whose state is below all of them has to join in this way as well, with
// a log that begins there too and has the old one's votes (Carry, in extend.go).
//
// Deviation from the design page: App.Await is separate from App.Build, so that waiting for transactions never keeps a
// verdict or a finalization waiting.
package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/simplex"
	"tutti/consensus/trace"
)

// BuildRequest says what block is wanted: the child of Parent for Epoch and View, its body at most MaxBody bytes.
type BuildRequest = simplex.Build

// App executes blocks. Build, Certify and Abandon come from one goroutine, one at a time, Finalise from another. Every
// error is fatal, but for one that a call returns after its context has ended. Calls return soon after their context ends.
//
// Each block that Certify judged valid is later named in exactly one Finalise or Abandon, unless the process ends before.
// Build and Certify see a block only when its parent is final, though its Finalise may still be under way or wait, or is
// judged valid and not abandoned. Blocks beside those that are to be finalised may be abandoned before that is done.
type App interface {
	// Await returns when the block of req is due: there is something to put in it, or it is time for an empty one. The
	// context ends when the view does. It runs beside the other calls.
	Await(ctx context.Context, req BuildRequest) error
	// Build makes the block now: version, chain, shard, epoch, view, height, time above the parent's, and committees set.
	// nil says that there is nothing to propose and gives the view up. Certify is asked for the result like for any block.
	// A NextCommittee that is not Committee makes it the last block of the epoch. On that nothing is built in this epoch.
	Build(ctx context.Context, req BuildRequest) (*consensus.Block, error)
	// Certify judges a block: a pure function of the block and its parent's state. false is for ever. It may be asked
	// again about a block that was abandoned. Whether the block may end the epoch, and name that next committee, is judged
	// here and nowhere else.
	Certify(ctx context.Context, block consensus.Block) (valid bool, err error)
	// Finalise makes blocks, in height order from the one above the last final, durable. cert finalizes the last of them.
	// Of the epoch's last block, cert may finalize an echo (Ended, and blocklog.Log.EpochEnd).
	Finalise(ctx context.Context, blocks []consensus.Block, cert consensus.Certificate) error
	// Abandon says that a valid block will not be final, or not soon. Its state may be dropped.
	Abandon(block consensus.Hash)
	// Final is the height and hash of the last block whose effects are durable; 0 and the genesis header's hash at first.
	Final() (consensus.Height, consensus.Hash)
}

// Class separates the queues of the network, so that proposals do not delay votes.
type Class uint8

const (
	ClassVote     Class = 0 // votes and certificates
	ClassProposal Class = 1 // proposals with bodies, and parts of them
)

// Message is one received payload, which belongs to the engine. From is the sender's index in the committee, proved by the
// transport, or -1 for a peer that is not a member.
type Message struct {
	From    int
	Payload []byte
}

// Network carries bytes between the members. It is safe for concurrent use.
type Network interface {
	// Send queues payload for the member To. It never blocks; what does not fit or arrive is lost. The payload is shared
	// and not modified.
	Send(to int, class Class, payload []byte)
	// Receive is the bounded queue of a class. Closing it ends the engine's interest, no more.
	Receive(class Class) <-chan Message
	// Request asks a member and waits for the answer or the context's end.
	Request(ctx context.Context, to int, request []byte) ([]byte, error)
	// Serve registers the engine's answer to requests, whose context ends with the request. from is as in Message.
	Serve(func(ctx context.Context, from int, request []byte) ([]byte, error))
}

// Observer is told what happens, for metrics and events. Calls come from the engine's goroutine, in order, and must
// return at once.
type Observer interface {
	ViewEntered(view consensus.View, leader int)
	// Persisted: what one step had to log was appended and synced in this time.
	Persisted(took time.Duration)
	// Judged: a verdict of the application took this long.
	Judged(block *consensus.Header, valid bool, took time.Duration)
	// Finalised: the application has made the block durable as final. Cert finalizes the block or a descendant.
	Finalised(block *consensus.Header, cert consensus.Certificate)
	// Penalised: a validator lost its place until then. The validator may be this one: a bug of its application.
	Penalised(validator int, reason string, until time.Time)
	// Evidence: two votes that together are slashable.
	Evidence(first, second consensus.Vote)
	// Conflict: two verified certificates that together are slashable: whoever signed both is guilty. The engine ends.
	Conflict(first, second consensus.Certificate)
}

// Config of an engine. Timing and Limits may be zero, Observer, Trace and Ends nil; all else is required.
type Config struct {
	Chain     consensus.Hash       // genesis hash, under every signature
	Genesis   *consensus.Header    // the block at height 0
	Committee *consensus.Committee // of the epoch to run, which is the log's, or the next if the log's is over (EpochOf)
	Keys      consensus.Keys
	Signer    consensus.Signer // nil for an observer
	Index     int              // own place in the committee, -1 for an observer
	Timing    simplex.Timing
	Limits    simplex.Limits
	Log       *blocklog.Log // opened by the caller, who closes it after Close
	App       App
	Network   Network
	Observer  Observer
	Trace     *trace.Writer // records what the machine does, for trace.Check; the engine's from Start to Close, and its errors stop nothing

	// Ends finds what ended an epoch whose last blocks the log does not keep any more, for nodes that are still in it; nil: there is
	// none. Safe for concurrent use. Nil where no epoch ends, or none is forgotten.
	Ends func(consensus.Epoch) (*consensus.EpochEnd, error)

	MaxClockAhead time.Duration // proposals that are this far ahead of our clock are dropped; default 2 s
}

// Bounds and intervals that are not the operator's business.
const (
	tickEvery    = 250 * time.Millisecond
	maxJobs      = 256             // queued calls of the application before messages have to wait
	maxFinals    = 16              // finalizations that wait for the application's disk before verdicts have to wait
	maxFetches   = 16              // blocks being fetched by hash at a time
	fetchTimeout = 2 * time.Second // for one peer's answer to a fetch
	runTimeout   = 10 * time.Second
	maxRebuilds  = 2 // bodies being rebuilt at a time
	maxServing   = 8 // requests answered at a time
	pollTicks    = 8 // ticks without finality before a peer is asked for its last finalization
	restTicks    = 4 // ticks of rest when no peer could help to catch up
)

// Errors that Err and Start may wrap. All are fatal; each says what to do.
var (
	ErrContradiction  = errors.New("this node's state contradicts a finalised block: keep its folder for inspection, then resync it from a peer")
	ErrStateAhead     = errors.New("the application's state is ahead of the consensus log, as after a restored backup of one of them: restore both from the same moment, or resync")
	ErrPruned         = errors.New("the consensus log no longer holds the blocks that the application's state lacks: resync the state")
	ErrBehind         = errors.New("the other validators no longer hold the blocks that this node lacks: its state has to be copied from them")
	ErrOtherValidator = errors.New("the vote log is another validator's: point --home at the right folder; two validators never share one")
	ErrKeyElsewhere   = errors.New("this validator's key has signed a vote that is not in this vote log, and this node has stopped voting: if another process uses the key, stop one of the two for good; if none does, the data folder is an old copy: move its blocks folder aside and run 'tutti run --resync' once, which asks the others above which view it is safe to vote")
	ErrOtherEpoch     = errors.New("the consensus log is in another epoch, or its epoch's last block names another committee: start with the committee of the epoch that engine.EpochOf says")
	ErrHalted         = errors.New("certificates contradict each other, so more than a third of the committee's power lied: do not restart; keep the folder as evidence")
)

// Engine is a running engine.
type Engine struct {
	c      Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines but run
	done   chan struct{}
	err    error // valid once done is closed

	votes, proposals chan simplex.Event  // receivers to owner
	results          chan func() error   // anyone to owner
	work             chan func() outcome // owner to worker
	finals           chan finalJob       // worker to finaliser
	penalties        *penalties
	limits           *limits
	rebuilds         chan struct{}                         // a slot for each body being rebuilt
	serving          chan struct{}                         // a slot for each request being answered
	latest           atomic.Pointer[consensus.FinalHeader] // the last finalization of this epoch, once there is one
	ahead            atomic.Bool                           // a message of a later epoch came
	ended            *consensus.EpochEnd                   // valid once done is closed
	status           statusBoard

	// Owned by run (and by Start before run begins).
	machine    *simplex.Machine
	view       consensus.View
	final      *consensus.Header // the last block handed to App.Finalise
	queue      []func() outcome  // for the worker, in order
	timer      *time.Timer
	timerView  consensus.View
	building   *building
	fetches    map[consensus.Hash]*fetch
	rotor      int // the peer that was asked last
	sync       syncer
	polling    bool
	sinceFinal int                // ticks
	late       []improving        // oldest first, at most maxLate
	finalVotes [][]consensus.Vote // by validator, oldest first, at most keptFinals

	worker worker // owned by the worker goroutine (and by Start before it begins)
}

// outcome is what a job of the worker leaves for the owner to do; nil for nothing.
type outcome func() error

// Start replays the log into the application and the machine and starts the engine. The context bounds the replay only;
// Close ends the engine. The errors are those of Err.
func Start(ctx context.Context, c Config) (*Engine, error) {
	if c.Genesis == nil || c.Committee == nil || c.Keys == nil || c.Log == nil || c.App == nil || c.Network == nil {
		return nil, errors.New("engine: Genesis, Committee, Keys, Log, App and Network are required")
	}
	if c.Observer == nil {
		c.Observer = deaf{}
	}
	if c.MaxClockAhead == 0 {
		c.MaxClockAhead = 2 * time.Second
	}
	n := len(c.Committee.Validators)
	e := &Engine{
		c: c, done: make(chan struct{}),
		votes: make(chan simplex.Event, 64), proposals: make(chan simplex.Event, 2),
		results: make(chan func() error), work: make(chan func() outcome), finals: make(chan finalJob, maxFinals),
		penalties: newPenalties(n), limits: newLimits(n), serving: make(chan struct{}, maxServing), rebuilds: make(chan struct{}, maxRebuilds),
		fetches: map[consensus.Hash]*fetch{}, rotor: max(c.Index, 0), finalVotes: make([][]consensus.Vote, n),
		worker: worker{app: c.App, log: c.Log, known: map[consensus.Hash]knownBlock{}},
	}
	e.status.init(c.Committee)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	ready, err := e.restart(ctx)
	if err != nil {
		e.cancel()
		return nil, err
	}
	if e.ended != nil {
		e.cancel()
		close(e.done)
		return e, nil
	}
	e.timer = time.NewTimer(time.Hour)
	e.timer.Stop()
	c.Network.Serve(e.serve)
	e.spawn(e.runWorker)
	e.spawn(e.runFinaliser)
	e.spawn(func() { e.receive(ClassVote, e.votes) })
	e.spawn(func() { e.receive(ClassProposal, e.proposals) })
	go func() {
		err := e.listen()
		if err == nil {
			err = e.run(ready)
		}
		e.cancel()
		e.wg.Wait()
		e.err = err
		close(e.done)
	}()
	return e, nil
}

// Done is closed when the engine has ended: by Close, or on its own after a fatal error or at the end of its epoch.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err is the fatal error that ended the engine: nil after Close, at the end of the epoch, and while the engine runs.
func (e *Engine) Err() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

// Close stops the engine, waits for its goroutines and for running App calls, and returns Err.
func (e *Engine) Close() error {
	e.cancel()
	<-e.done
	return e.err
}

// spawn starts a goroutine that Close waits for. It is called only before run has ended.
func (e *Engine) spawn(f func()) {
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		f()
	}()
}

// post hands f to the owner; it is dropped when the engine ends. Owner code must not call it.
func (e *Engine) post(f func() error) {
	select {
	case e.results <- f:
	case <-e.ctx.Done():
	}
}

// elsewhere is why an engine ends whose key has signed what its log does not hold.
func elsewhere(st consensus.Statement) error {
	return fatal(fmt.Sprintf("a %s of view %d by this validator's key", st.Kind, st.View), ErrKeyElsewhere)
}

// fatal wraps an error that ends the engine.
func fatal(what string, err error) error { return fmt.Errorf("engine: %s: %w", what, err) }

// deaf is the Observer of those who have none.
type deaf struct{}

func (deaf) ViewEntered(consensus.View, int)                       {}
func (deaf) Persisted(time.Duration)                               {}
func (deaf) Judged(*consensus.Header, bool, time.Duration)         {}
func (deaf) Finalised(*consensus.Header, consensus.Certificate)    {}
func (deaf) Penalised(int, string, time.Time)                      {}
func (deaf) Evidence(consensus.Vote, consensus.Vote)               {}
func (deaf) Conflict(consensus.Certificate, consensus.Certificate) {}
