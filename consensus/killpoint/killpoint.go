// Package killpoint chooses the moment in which a validator dies while it sends, for tests that kill it there and look for
// votes that contradict each other afterwards.
//
// A Gate sees the payloads that one validator's engine hands to its network, in order, and says of each whether it leaves.
// A Plan names a kind of message, which of them, and whether the validator dies before any of it has left, when it has left
// to some of the others, or to all. A message is what goes out in one go: a vote to all, a proposal to all, a leader's parts
// to each their own, a certificate to one who is behind. Votes keeps every vote that left, and compares.
//
// Nothing here knows how a process dies: Die does that, and does not return in a real one. Of the product only the build with
// the tag tutti_kills has a gate (appliance/node/kills.go); consensus/engine's tests put one into their network.
//
// Encodings: consensus/engine, wire.go.
package killpoint

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
)

// Kind of a message.
type Kind string

// Kinds that are sent, and those that answer a request.
const (
	Whole         Kind = "whole proposal"
	Parts         Kind = "leader's parts"
	Relay         Kind = "relayed part"
	Notarize      Kind = "notarize"
	Nullify       Kind = "nullify"
	Finalize      Kind = "finalize"
	Notarization  Kind = "notarization"
	Nullification Kind = "nullification"
	Finalization  Kind = "finalization"

	Block   Kind = "answer with a block"
	Run     Kind = "answer with a run"
	Headers Kind = "answer with headers"
)

// Sent is the kinds that are sent. Each is a target twice: for the first time, and again (R14, R15 of consensus/simplex).
func Sent() []Kind {
	return []Kind{Whole, Parts, Relay, Notarize, Nullify, Finalize, Notarization, Nullification, Finalization}
}

// Answers is the kinds that answer.
func Answers() []Kind { return []Kind{Block, Run, Headers} }

// Point in the sending of a message.
type Point string

// Points. An answer goes to one peer, so that there is no Some.
const (
	Before Point = "before"
	Some   Point = "some"
	All    Point = "all"
)

// Plan says when to die.
type Plan struct {
	Kind  Kind   `json:"kind"`
	Again bool   `json:"again"` // at a message that was sent before
	Nth   int    `json:"nth"`   // of those that fit, from 1
	Point Point  `json:"point"`
	Seed  uint64 `json:"seed"` // of who gets it, where some do
}

// Target is a plan without its chances: what campaigns count by.
func (p Plan) Target() string {
	if p.Again {
		return string(p.Kind) + ", again"
	}
	return string(p.Kind)
}

func (p Plan) String() string { return fmt.Sprintf("%s, nr %d, %s", p.Target(), p.Nth, p.Point) }

// Target of a campaign.
type Target struct {
	Kind  Kind
	Again bool
}

// Targets is all there are.
func Targets() (all []Target) {
	for _, k := range Sent() {
		all = append(all, Target{k, false}, Target{k, true})
	}
	for _, k := range Answers() {
		all = append(all, Target{k, false})
	}
	return all
}

// Draw draws a plan for a target.
func (t Target) Draw(r *rand.Rand) Plan {
	p := Plan{Kind: t.Kind, Again: t.Again, Nth: 1 + r.IntN(3), Seed: r.Uint64(), Point: []Point{Before, Some, All}[r.IntN(3)]}
	if t.Answers() && p.Point == Some {
		p.Point = All
	}
	return p
}

// Answers reports whether the target is an answer, for which somebody has to ask.
func (t Target) Answers() bool {
	for _, k := range Answers() {
		if k == t.Kind {
			return true
		}
	}
	return false
}

// Death is how a validator died.
type Death struct {
	Plan Plan           `json:"plan"`
	View consensus.View `json:"view"`
	To   []int          `json:"to"`   // who was sent it
	Of   int            `json:"of"`   // of so many
	Sums []Sum          `json:"sums"` // of what each was sent
}

// Sum names a payload.
type Sum [32]byte

// MarshalText implements encoding.TextMarshaler.
func (s Sum) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", s[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Sum) UnmarshalText(b []byte) error {
	var out []byte
	if _, err := fmt.Sscanf(string(b), "%x", &out); err != nil || len(out) != len(s) {
		return fmt.Errorf("killpoint: %q is no sum", b)
	}
	copy(s[:], out)
	return nil
}

// settles is how long a message is waited for that goes to fewer than all, before the validator dies of it.
const settles = 30 * time.Millisecond

// remembered bounds the messages that a gate knows to have been sent. A life in a campaign is much shorter.
const remembered = 1 << 16

// Gate decides what leaves a validator. Safe for concurrent use. It belongs to one life of the validator.
type Gate struct {
	self, others int
	die          func(Death)

	mu    sync.Mutex // guards what follows
	plan  Plan
	seen  map[Sum]bool
	burst burst
	fits  int // messages so far
	dead  bool
}

// burst is a message on its way out.
type burst struct {
	key   Sum
	to    map[int]bool
	ill   bool // the validator dies of it
	all   bool // when all have it
	death Death
	lucky map[int]bool // who gets it, if only some do
	timer *time.Timer
}

// NewGate makes the gate of member self of a committee of size. die is called once, by whoever sends, and if it returns
// nothing leaves any more. A zero plan never fits; Arm gives another.
func NewGate(self, size int, p Plan, die func(Death)) *Gate {
	return &Gate{self: self, others: size - 1, plan: p, die: die, seen: map[Sum]bool{}}
}

// Arm gives a gate another plan. What was sent so far counts as sent, and not for the plan.
func (g *Gate) Arm(p Plan) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.plan, g.fits = p, 0
}

// Send calls leave if a payload leaves to a member.
func (g *Gate) Send(to int, payload []byte, leave func()) {
	m, err := classify(g.self, payload)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead || err != nil {
		return
	}
	b := &g.burst
	if b.to == nil || m.key != b.key || b.to[to] {
		if g.end(); g.dead {
			return
		}
		g.begin(m)
	}
	if g.dead {
		return
	}
	b.to[to] = true
	if !b.ill || b.lucky[to] || b.all {
		leave()
		if b.ill {
			b.death.To, b.death.Sums = append(b.death.To, to), append(b.death.Sums, sha256.Sum256(payload))
		}
	}
	if b.ill && len(b.to) == g.others {
		g.end()
	}
}

// begin is for the first payload of a message. mu is held.
func (g *Gate) begin(m message) {
	again := g.seen[m.key]
	if len(g.seen) < remembered {
		g.seen[m.key] = true
	}
	g.burst = burst{key: m.key, to: map[int]bool{}}
	if m.kind != g.plan.Kind || again != g.plan.Again {
		return
	}
	if g.fits++; g.fits < g.plan.Nth {
		return
	}
	b := &g.burst
	b.ill, b.all, b.death = true, g.plan.Point == All, Death{Plan: g.plan, View: m.view}
	if g.plan.Point == Before {
		g.end()
		return
	}
	if g.plan.Point == Some {
		r := rand.New(rand.NewPCG(g.plan.Seed, 1))
		b.lucky = map[int]bool{}
		order := r.Perm(g.others + 1)
		for _, i := range order[:1+r.IntN(max(g.others-1, 1))] {
			b.lucky[i] = true
		}
		if b.lucky[g.self] { // it does not count
			delete(b.lucky, g.self)
			b.lucky[order[len(order)-1]] = true
		}
	}
	b.timer = time.AfterFunc(settles, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.burst.ill {
			g.end()
		}
	})
}

// end is for the end of a message. mu is held.
func (g *Gate) end() {
	if b := &g.burst; b.ill && !g.dead {
		if b.timer != nil {
			b.timer.Stop()
		}
		b.death.Of = len(b.to)
		g.dead = true
		g.die(b.death)
	}
}

// Answer reports whether an answer leaves. If the validator is to die of it when it has left, dying is to be called after
// that, else it is nil.
func (g *Gate) Answer(to int, payload []byte) (leaves bool, dying func()) {
	m, err := classify(g.self, payload)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return false, nil
	}
	if err != nil || m.kind != g.plan.Kind {
		return true, nil
	}
	if g.fits++; g.fits != g.plan.Nth {
		return true, nil
	}
	d := Death{Plan: g.plan, Of: 1}
	if g.plan.Point == Before {
		g.dead = true
		g.die(d)
		return false, nil
	}
	d.To, d.Sums = []int{to}, []Sum{sha256.Sum256(payload)}
	return true, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.dead {
			g.dead = true
			g.die(d)
		}
	}
}

// Dead reports whether the validator has died.
func (g *Gate) Dead() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dead
}

// message is what a payload belongs to.
type message struct {
	kind Kind
	key  Sum
	view consensus.View
}

// classify reads a payload that member self sends. An unknown one is of no kind.
func classify(self int, b []byte) (m message, err error) {
	if len(b) == 0 {
		return m, fmt.Errorf("killpoint: an empty payload")
	}
	m.key = sha256.Sum256(b)
	switch b[0] {
	case 0x01:
		v, err := consensus.DecodeVote(b[1:])
		if err != nil {
			return m, err
		}
		m.view, m.kind = v.View, map[consensus.Kind]Kind{consensus.Notarize: Notarize, consensus.Nullify: Nullify, consensus.Finalize: Finalize}[v.Kind]
	case 0x02:
		c, err := consensus.DecodeCertificate(b[1:])
		if err != nil {
			return m, err
		}
		m.view, m.kind = c.View, map[consensus.Kind]Kind{consensus.Notarize: Notarization, consensus.Nullify: Nullification, consensus.Finalize: Finalization}[c.Kind]
	case 0x03:
		p, err := consensus.DecodeProposal(b[1:])
		if err != nil {
			return m, err
		}
		m.view, m.kind = p.Block.Header.View, Whole
	case 0x04:
		p, err := shred.DecodePart(b[1:])
		if err != nil {
			return m, err
		}
		m.view, m.kind = p.Header.View, Relay
		if int(p.Vote.Validator) == self {
			h := p.Header.Hash()
			m.kind, m.key = Parts, sha256.Sum256(append(h[:], "parts"...)) // each is another payload
		}
	case 0x21:
		m.kind = Block
	case 0x22:
		m.kind = Run
	case 0x24:
		m.kind = Headers
	}
	return m, nil
}

// Cast is a vote that left its validator, whether alone, with a proposal or inside a certificate.
type Cast struct {
	Validator int                 `json:"validator"`
	Statement consensus.Statement `json:"statement"`
}

// Read is the votes in a payload, of whomever.
func Read(b []byte) (all []Cast) {
	if len(b) == 0 {
		return nil
	}
	switch b[0] {
	case 0x01:
		if v, err := consensus.DecodeVote(b[1:]); err == nil {
			all = append(all, Cast{int(v.Validator), v.Statement})
		}
	case 0x02:
		if c, err := consensus.DecodeCertificate(b[1:]); err == nil {
			for i := range 8 * len(c.Signers) {
				if c.Signers.Has(i) {
					all = append(all, Cast{i, c.Statement})
				}
			}
		}
	case 0x03:
		if p, err := consensus.DecodeProposal(b[1:]); err == nil {
			all = append(all, Cast{int(p.Vote.Validator), p.Vote.Statement})
		}
	case 0x04:
		if p, err := shred.DecodePart(b[1:]); err == nil {
			all = append(all, Cast{int(p.Vote.Validator), p.Vote.Statement})
		}
	}
	return all
}

// Votes is every vote that was heard, compared pair by pair without any help of the product. The zero value is ready. One
// goroutine uses it. It keeps the views of one network's campaign, some hundred bytes each.
type Votes struct {
	at    map[place][]consensus.Statement
	count int
}

// place is where two votes can contradict each other.
type place struct {
	validator int
	shard     consensus.ShardID
	epoch     consensus.Epoch
	view      consensus.View
}

// Add takes votes in and returns a pair that contradicts itself, or nil.
func (v *Votes) Add(all ...Cast) (pair *[2]Cast) {
	if v.at == nil {
		v.at = map[place][]consensus.Statement{}
	}
	for _, c := range all {
		at := place{c.Validator, c.Statement.Shard, c.Statement.Epoch, c.Statement.View}
		known := false
		for _, st := range v.at[at] {
			if known = known || st == c.Statement; pair == nil && contradict(st, c.Statement) {
				pair = &[2]Cast{{c.Validator, st}, c}
			}
		}
		if !known {
			v.at[at] = append(v.at[at], c.Statement)
			v.count++
		}
	}
	return pair
}

// contradict is the slashing rule once more: two blocks by votes of one kind, or finalize beside nullify.
func contradict(a, b consensus.Statement) bool {
	if a.Kind == b.Kind {
		return a.Kind != consensus.Nullify && a.Block != b.Block
	}
	return a.Kind != consensus.Notarize && b.Kind != consensus.Notarize
}

// Len is how many different votes there are.
func (v *Votes) Len() int { return v.count }

// Encode is a death as a file has it.
func (d Death) Encode() []byte {
	b, _ := json.Marshal(d) // plain fields
	return b
}
