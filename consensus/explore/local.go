package explore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// local is one place that a machine can come to, with what its node knows beside: what it ever said, what its
// application was asked, its logs.
type local struct {
	m        *simplex.Machine // nil where it was dropped to save room: replay makes it again
	sent     set              // messages
	told     set              // messages above the root's view that it was given certificates of
	executed set              // blocks judged valid here
	pending  []int            // blocks to be judged
	wanted   []int            // blocks to be fetched
	asked    simplex.Build
	build    int // the block to answer it with, 0: none
	root     int // the last final block
	view     consensus.View
	restarts int
	log      []simplex.Record
	blocks   []consensus.Block

	from  int           // the place that it was first reached from, -1 at first
	by    int           // by this event
	next  []int32       // by event: the place that it leads to, unknown or broken
	why   map[int]error // by event that leads to broken
	eager []int         // events that may be taken at once
	vain  set           // events that need not be taken
}

const (
	unknown = -1
	broken  = -2
)

type key [16]byte

// kin are the places of validators that no event in the world tells apart: of the same power, without a view to lead.
type kin struct {
	validators []int // the first one's machine stands for all
	places     []*local
	byKey      map[key]int
}

// start makes the first place.
func (x *explorer) start(validator int) (*local, error) {
	l := &local{from: -1}
	m, r, err := simplex.New(x.config(validator))
	if err != nil {
		return nil, err
	}
	l.m = m
	return l, x.take(l, validator, r)
}

func (x *explorer) config(validator int) simplex.Config {
	return simplex.Config{
		Chain: x.o.Chain, Root: x.o.Genesis, Committee: x.o.Committee, Keys: x.o.Keys, Index: validator,
		Signer: x.o.Signers[validator], Limits: x.o.Limits,
	}
}

// step is where an event leads to from a place.
func (x *explorer) step(l *local, validator int, e event) (next *local, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	n := *l
	n.next, n.why, n.eager, n.vain = nil, nil, nil, set{}
	n.pending, n.log, n.blocks = slices.Clone(l.pending), slices.Clip(l.log), slices.Clip(l.blocks)
	forget := func() { n.pending = slices.DeleteFunc(n.pending, func(b int) bool { return b == e.of }) }
	if e.what == restart {
		c := x.config(validator)
		if l.root != 0 {
			c.Root, c.RootCert = l.m.Final()
		}
		c.Log, c.Blocks = l.log, l.blocks
		var r simplex.Ready
		if n.m, r, err = simplex.New(c); err != nil {
			return nil, fmt.Errorf("restart: %w", err)
		}
		n.pending, n.asked, n.build, n.executed = nil, simplex.Build{}, 0, set{}
		n.restarts++
		return &n, x.take(&n, validator, r)
	}
	n.m = l.m.Clone()
	switch e.what {
	case certificate:
		n.told.add(e.of)
		return &n, x.certify(&n, validator, x.messages[e.of])
	case judged:
		forget()
		if bodyValid(x.blocks[e.of].Block) {
			n.executed.add(e.of)
		}
	case built:
		n.build = 0
	}
	return &n, x.take(&n, validator, n.m.Step(x.input(e)))
}

// certify hands a machine a certificate, or the votes it is made of, from which it has to make it itself. All
// validators sign: which of them did decides nothing.
func (x *explorer) certify(l *local, validator int, m message) error {
	if x.o.ByVotes {
		for i := range x.o.Signers {
			if i == validator {
				continue
			}
			if err := x.take(l, validator, l.m.Step(simplex.VoteReceived{From: i, Vote: x.vote(m, i)})); err != nil {
				return err
			}
		}
	}
	return x.take(l, validator, l.m.Step(simplex.CertificateReceived{From: -1, Cert: x.certificate(m)}))
}

// take does for a machine what its node does, and checks what can be seen at one machine alone.
func (x *explorer) take(l *local, validator int, r simplex.Ready) error {
	for _, rec := range r.Persist.Records {
		if v := rec.Vote; v != nil {
			if err := x.cast(l, v); err != nil {
				return err
			}
		}
	}
	if x.o.Restarts > 0 {
		l.log, l.blocks = append(l.log, r.Persist.Records...), append(l.blocks, r.Persist.Blocks...)
	}
	for _, o := range r.Send {
		v := o.Vote
		if o.Proposal != nil {
			v = &o.Proposal.Vote
		}
		if v == nil {
			continue
		}
		m, ok := x.text(v.Statement)
		if id, known := x.byText[m]; !ok || !known || !l.sent.has(id) || int(v.Validator) != validator {
			return fmt.Errorf("%s sent in view %d without a record of it", v.Kind, v.View)
		}
		if o.Proposal != nil {
			l.sent.add(x.message(message{proposed, m.view, m.block}))
		}
	}
	for _, a := range r.Apply {
		if err := x.act(l, a); err != nil {
			return err
		}
	}
	l.view = l.m.Status().View
	for i, text := range x.messages {
		if text.view <= x.blocks[l.root].view {
			l.told.drop(i)
		}
	}
	l.pending = slices.DeleteFunc(l.pending, func(b int) bool { _, _, held := l.m.Block(x.blocks[b].hash); return !held })
	l.wanted = nil
	for _, h := range l.m.Wanted() {
		if b, ok := x.byHash[h]; ok {
			l.wanted = append(l.wanted, b)
		}
	}
	if l.build != 0 && x.blocks[l.build].view != l.view {
		l.build = 0
	}
	return nil
}

// cast notes an own vote and holds it against all before (R8) and against what may be voted for (R3, R6).
func (x *explorer) cast(l *local, v *consensus.Vote) error {
	m, ok := x.text(v.Statement)
	if !ok {
		return fmt.Errorf("%s for a block that does not exist", v.Kind)
	}
	for i, old := range x.messages {
		if !l.sent.has(i) || old.view != m.view || old.kind == proposed || old == m {
			continue
		}
		if old.kind == m.kind || old.kind+m.kind == consensus.Nullify+consensus.Finalize {
			return fmt.Errorf("own votes contradict: %s and %s", x.messageName(old), x.messageName(m))
		}
	}
	switch {
	case m.kind == consensus.Notarize:
		if err := x.mayExtend(l, m); err != nil {
			return err
		}
	case m.kind == consensus.Finalize && !l.executed.has(m.block):
		return fmt.Errorf("%s, which has no good verdict", x.messageName(m))
	}
	l.sent.add(x.message(m))
	return nil
}

// mayExtend checks that the block that a validator votes to notarize has a parent that is certified, and that it was
// given nullifications of all views between (R3).
func (x *explorer) mayExtend(l *local, m message) error {
	p := x.blocks[m.block].parent
	if p != l.root {
		vouched := false
		for i, text := range x.messages {
			vouched = vouched || (l.told.has(i) && text.block >= 0 && x.descends(text.block, p))
		}
		if !vouched || !l.executed.has(p) {
			return fmt.Errorf("%s, whose parent is not certified", x.messageName(m))
		}
	}
	for v := x.blocks[p].view + 1; v < m.view; v++ {
		if i, ok := x.byText[message{consensus.Nullify, v, -1}]; !ok || !l.told.has(i) {
			return fmt.Errorf("%s without a nullification of view %d", x.messageName(m), v)
		}
	}
	return nil
}

// act notes a wish, or checks it.
func (x *explorer) act(l *local, a simplex.Action) error {
	switch a := a.(type) {
	case simplex.Certify:
		if b := x.byHash[a.Block.Header.Hash()]; !slices.Contains(l.pending, b) {
			l.pending = append(l.pending, b)
			slices.Sort(l.pending)
		}
	case simplex.Build:
		l.asked = a
		if a.View <= x.o.Views {
			l.build = x.child(child{x.byHash[a.Parent.Hash()], a.View, 'H'})
		}
	case simplex.Finalised:
		for _, fb := range a.Blocks {
			b, ok := x.byHash[fb.Header.Hash()]
			switch {
			case !ok || x.blocks[b].parent != l.root:
				return fmt.Errorf("%s is final on top of %s", x.blockName(b), x.blockName(l.root))
			case !l.executed.has(b):
				return fmt.Errorf("%s is final without a good verdict", x.blockName(b))
			}
			l.root = b
		}
		if a.Cert.Kind != consensus.Finalize || a.Cert.Block != x.blocks[l.root].hash {
			return fmt.Errorf("%s is final by a certificate that is not its own", x.blockName(l.root))
		}
	case simplex.Evidence:
		if i := int(a.First.Validator); !x.faulty[i] {
			return fmt.Errorf("evidence against honest %d", i)
		}
	case simplex.Misbehaved:
		if !x.faulty[a.Validator] {
			return fmt.Errorf("honest %d is blamed: %s", a.Validator, a.Reason)
		}
	case simplex.Halted:
		return errors.New("halted: " + a.Reason)
	case simplex.SyncNeeded:
		return errors.New("block sync in a world without one")
	}
	return nil
}

// key is equal for places that behave alike from here on.
func (x *explorer) key(l *local) key {
	b := x.scratch[:0]
	for _, w := range l.sent {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	for _, w := range l.told {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	b = append(b, byte(l.root), byte(l.restarts))
	b = l.m.AppendState(b, false)
	if x.o.Restarts > 0 {
		b = appendLog(b, l, x.blocks[l.root].view)
	}
	x.scratch = b
	sum := sha256.Sum256(b)
	return key(sum[:16])
}

// appendLog adds what a restart would find above the root, own votes aside: they are in sent.
func appendLog(b []byte, l *local, root consensus.View) []byte {
	var entries [][]byte
	for _, rec := range l.log {
		if c := rec.Cert; c != nil && c.View > root {
			e := binary.BigEndian.AppendUint64([]byte{byte(c.Kind)}, uint64(c.View))
			entries = append(entries, append(e, c.Block[:]...))
		}
	}
	for _, bl := range l.blocks {
		if h := bl.Header.Hash(); bl.Header.View > root {
			entries = append(entries, h[:])
		}
	}
	slices.SortFunc(entries, bytes.Compare)
	return append(b, bytes.Join(slices.CompactFunc(entries, bytes.Equal), nil)...)
}
