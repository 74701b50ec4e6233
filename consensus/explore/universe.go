package explore

import (
	"fmt"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// universe names everything that occurs in a world by small numbers: blocks, messages of honest validators, events.
type universe struct {
	o        *Options
	blocks   []block
	byHash   map[consensus.Hash]int
	children map[child]int
	messages []message
	byText   map[message]int
	events   []event
	byEvent  map[event]int
}

// block is a block that exists or may. Number 0 is genesis.
type block struct {
	consensus.Block
	child
	hash  consensus.Hash
	valid bool // it and all below
}

// child names a block by what decides its content: an honest leader makes one block on a parent in a view, 'H', the
// adversary two, 'A' and 'B', and 'X', whose body is invalid.
type child struct {
	parent int
	view   consensus.View
	kind   byte
}

// The adversary's kinds of blocks.
var forged = []byte{'A', 'B', 'X'}

// message is a vote's statement, or a proposal's: then kind is proposed.
type message struct {
	kind  consensus.Kind
	view  consensus.View
	block int // -1 for nullify
}

const proposed consensus.Kind = 4

// what happens to a machine.
type what uint8

const (
	certificate what = iota // of a message, from whoever put it together
	proposal                // of a block, by its leader
	fetched                 // a block that was asked for
	judged                  // the application's verdict on a block
	built                   // the application's block
	timer                   // of a view
	restart                 // crash and return with the logs
)

// event is what may happen to a machine; of is a message, a block or a view.
type event struct {
	what what
	of   int
}

// set is a set of messages, blocks or events by number.
type set [setSize / 64]uint64

const setSize = 512

func (s *set) has(i int) bool { return s[i>>6]>>(i&63)&1 == 1 }
func (s *set) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s *set) drop(i int)     { s[i>>6] &^= 1 << (i & 63) }

func (s *set) join(o *set) {
	for w := range s {
		s[w] |= o[w]
	}
}

func (s *set) within(o *set) bool {
	for w := range s {
		if s[w]&^o[w] != 0 {
			return false
		}
	}
	return true
}

func newUniverse(o *Options) *universe {
	u := &universe{
		o: o, byHash: make(map[consensus.Hash]int), children: make(map[child]int),
		byText: make(map[message]int), byEvent: make(map[event]int),
	}
	u.blocks = []block{{Block: consensus.Block{Header: o.Genesis}, hash: o.Genesis.Hash(), valid: true}}
	u.byHash[u.blocks[0].hash] = 0
	return u
}

// grow makes a block on a parent as an application does: a pure function of parent, view and kind.
func grow(parent *consensus.Header, view consensus.View, kind byte) consensus.Block {
	h := *parent
	body := []byte{kind}
	h.View, h.Height, h.TimeMs, h.Parent, h.Body = view, parent.Height+1, parent.TimeMs+1, parent.Hash(), consensus.NewBodyRef(body)
	return consensus.Block{Header: &h, Body: body}
}

// bodyValid is the toy application's verdict.
func bodyValid(b consensus.Block) bool { return b.Body[0] != 'X' }

func (u *universe) child(c child) int {
	if i, ok := u.children[c]; ok {
		return i
	}
	b := block{Block: grow(u.blocks[c.parent].Header, c.view, c.kind), child: c}
	b.hash, b.valid = b.Header.Hash(), bodyValid(b.Block) && u.blocks[c.parent].valid
	if len(u.blocks) == setSize {
		panic("explore: more blocks than a set holds: make set larger")
	}
	u.blocks = append(u.blocks, b)
	i := len(u.blocks) - 1
	u.children[c], u.byHash[b.hash] = i, i
	return i
}

func (u *universe) message(m message) int {
	if i, ok := u.byText[m]; ok {
		return i
	}
	if len(u.messages) == setSize {
		panic("explore: more messages than a set holds: make set larger")
	}
	u.messages = append(u.messages, m)
	u.byText[m] = len(u.messages) - 1
	return len(u.messages) - 1
}

func (u *universe) event(w what, of int) int {
	e := event{w, of}
	if i, ok := u.byEvent[e]; ok {
		return i
	}
	if len(u.events) == setSize {
		panic("explore: more events than a set holds: make set larger")
	}
	u.events = append(u.events, e)
	u.byEvent[e] = len(u.events) - 1
	return len(u.events) - 1
}

// text is the message that a vote's statement is; false if it names a block that does not exist.
func (u *universe) text(st consensus.Statement) (m message, ok bool) {
	m = message{kind: st.Kind, view: st.View, block: -1}
	if st.Kind != consensus.Nullify {
		m.block, ok = u.byHash[st.Block]
		return m, ok
	}
	return m, true
}

func (u *universe) statement(m message) consensus.Statement {
	st := consensus.Statement{Kind: m.kind, Shard: u.o.Committee.Shard, Epoch: u.o.Committee.Epoch, View: m.view}
	if m.block >= 0 {
		st.Block = u.blocks[m.block].hash
	}
	return st
}

func (u *universe) vote(m message, validator int) consensus.Vote {
	st := u.statement(m)
	return consensus.Vote{
		Statement: st, Validator: uint16(validator),
		Signature: u.o.Signers[validator].Sign(consensus.VoteMessage(u.o.Chain, st)),
	}
}

// certificate is one that all validators made.
func (u *universe) certificate(m message) consensus.Certificate {
	c := consensus.Certificate{Statement: u.statement(m), Signers: consensus.NewSigners(len(u.o.Signers))}
	sigs := make([]consensus.Signature, len(u.o.Signers))
	for i := range sigs {
		c.Signers.Add(i)
		sigs[i] = u.vote(m, i).Signature
	}
	var err error
	if c.Signature, err = u.o.Keys.Aggregate(sigs); err != nil {
		panic("explore: own signatures do not add up: " + err.Error())
	}
	return c
}

// ancestor is the highest block of a view up to v that b is or descends from.
func (u *universe) ancestor(b int, v consensus.View) int {
	for u.blocks[b].view > v {
		b = u.blocks[b].parent
	}
	return b
}

// descends reports whether block b is a or has it below.
func (u *universe) descends(b, a int) bool { return u.ancestor(b, u.blocks[a].view) == a }

// exists reports whether a block can be had in a world where these proposals were made: the adversary makes its own as
// soon as the parent is there.
func (u *universe) exists(b int, sent *set) bool {
	for b != 0 && u.blocks[b].kind != 'H' {
		b = u.blocks[b].parent
	}
	if b == 0 {
		return true
	}
	m, ok := u.byText[message{proposed, u.blocks[b].view, b}]
	return ok && sent.has(m)
}

func (u *universe) blockName(i int) string {
	if i == 0 {
		return "G"
	}
	b := &u.blocks[i]
	return fmt.Sprintf("%s%d%c", u.blockName(b.parent), b.view, b.kind)
}

func (u *universe) messageName(m message) string {
	name := m.kind.String()
	if m.kind == proposed {
		name = "proposal"
	}
	if m.block < 0 {
		return fmt.Sprintf("%s %d", name, m.view)
	}
	return fmt.Sprintf("%s %s", name, u.blockName(m.block))
}

func (u *universe) eventName(e event) string {
	switch e.what {
	case certificate:
		return "certificate: " + u.messageName(u.messages[e.of])
	case proposal:
		return "proposal " + u.blockName(e.of)
	case fetched:
		return "fetched " + u.blockName(e.of)
	case judged:
		return fmt.Sprintf("judged %s %v", u.blockName(e.of), bodyValid(u.blocks[e.of].Block))
	case built:
		return "built " + u.blockName(e.of)
	case timer:
		return fmt.Sprintf("timer of view %d", e.of)
	}
	return "restart"
}

// input makes the machine's event of one that is neither a certificate nor a restart.
func (u *universe) input(e event) simplex.Event {
	switch e.what {
	case proposal:
		b := &u.blocks[e.of]
		leader := u.o.Committee.Leader(b.view)
		return simplex.ProposalReceived{From: -1, Proposal: &consensus.Proposal{
			Block: b.Block, Vote: u.vote(message{consensus.Notarize, b.view, e.of}, leader),
		}}
	case fetched:
		return simplex.BlockFetched{From: -1, Block: u.blocks[e.of].Block}
	case judged:
		return simplex.Judged{Block: u.blocks[e.of].hash, Valid: bodyValid(u.blocks[e.of].Block)}
	case built:
		b := u.blocks[e.of].Block
		return simplex.Built{View: b.Header.View, Block: &b}
	default:
		return simplex.TimerFired{View: consensus.View(e.of)}
	}
}
