package engine

import (
	"sync"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Counters count since Start.
type Counters struct {
	DroppedStranger  uint64 // messages of peers that are no members
	DroppedPenalty   uint64 // messages of peers in penalty
	DroppedRate      uint64 // messages above a peer's rate
	DroppedMalformed uint64 // payloads that are no messages
	DroppedClock     uint64 // proposals from too far in the future
	DroppedEpoch     uint64 // messages of another epoch
	DroppedFetch     uint64 // fetches beyond maxFetches; the machine repeats them
	Penalties        uint64 // places taken away
	Served           uint64 // requests answered
	RefusedPenalty   uint64 // requests of peers in penalty
	RefusedRate      uint64 // requests above a peer's rate
	RefusedBusy      uint64 // requests while maxServing were being answered
	Syncs            uint64 // times that the node had to catch up by runs
	SyncedBlocks     uint64 // blocks that came in runs
	Rebuilt          uint64 // bodies made of their parts, or found to be none
	BadEncodings     uint64 // of them: found to be none, which shows that a leader lied
	Finalised        uint64 // blocks that the application finalised
	LateVotes        uint64 // votes added to finalizations that a quorum had made already
}

// ValidatorStatus is what this node has seen of one validator.
type ValidatorStatus struct {
	Power        consensus.Power
	View         consensus.View   // of its highest vote
	Height       consensus.Height // of the highest block it voted for that this node knows
	Seen         time.Time        // when its last vote came
	PenaltyUntil time.Time        // it has no place before then; zero if it never lost it
	Strikes      int
}

// Status is a snapshot for dashboards and tools.
type Status struct {
	Shard      consensus.ShardID
	Epoch      consensus.Epoch
	View       consensus.View
	Leader     int               // of View
	Height     consensus.Height  // of the highest block certified here
	Logged     consensus.Height  // of the last block logged as final
	Final      *consensus.Header // the last block that the application has made durable as final
	Syncing    bool              // catching up by runs
	Silent     bool              // joined without its earlier votes, and not above its vote floor yet
	Over       bool              // the epoch's last block is logged as final; the engine ends when it is durable as such
	Jobs       int               // calls of the application that wait
	Fetches    int               // blocks being fetched
	Validators []ValidatorStatus
	Counters   Counters
}

// statusBoard is where all goroutines write what Status shows.
type statusBoard struct {
	mu   sync.Mutex
	s    Status
	last []*consensus.Vote // heard from each validator itself
}

func (b *statusBoard) init(c *consensus.Committee) {
	b.s.Shard, b.s.Epoch = c.Shard, c.Epoch
	for _, v := range c.Validators {
		b.s.Validators = append(b.s.Validators, ValidatorStatus{Power: v.Power})
	}
	b.last = make([]*consensus.Vote, len(c.Validators))
}

func (b *statusBoard) count(f func(*Counters)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.s.Counters)
}

func (b *statusBoard) voted(i int, view consensus.View, height consensus.Height) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i < len(b.s.Validators) {
		v := &b.s.Validators[i]
		v.View, v.Height, v.Seen = max(v.View, view), max(v.Height, height), time.Now()
	}
}

func (b *statusBoard) finalised(h *consensus.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.s.Final != nil {
		b.s.Counters.Finalised++
	}
	b.s.Final = h
}

func (b *statusBoard) follow(m simplex.Status, logged *consensus.Header, jobs, fetches int, syncing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.View, b.s.Leader, b.s.Height, b.s.Logged = m.View, m.Leader, m.Highest.Height, logged.Height
	b.s.Jobs, b.s.Fetches, b.s.Syncing, b.s.Silent, b.s.Over = jobs, fetches, syncing, m.Silent, m.Over
}

// Status is a snapshot. Safe for concurrent use, also after the engine has ended.
func (e *Engine) Status() Status {
	e.status.mu.Lock()
	defer e.status.mu.Unlock()
	s := e.status.s
	s.Validators = append([]ValidatorStatus(nil), s.Validators...)
	e.penalties.untils(s.Validators)
	return s
}
