package explore

import (
	"errors"
	"fmt"
	"slices"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// idleTicks is how many Ticks without any effect say that nothing else can be done: everything that is repeated comes
// again in fewer, in a view that has just begun.
const idleTicks = 9

// fair checks that the shard goes on from a world: the faulty validators fall silent, all that is on its way is lost,
// and from then on nothing is. A timer runs out only when nothing else can be done. Every honest machine has to have a
// new block final before any has gone further than FairViews views.
func (x *explorer) fair(world []uint32) error {
	f := &fairRun{x: x, kept: make(map[consensus.Hash]consensus.Block), chain: make(map[consensus.Height]consensus.Hash)}
	var began consensus.View
	for j, at := range world {
		l, err := x.replay(x.kins[x.of[j]], x.who[j], int(at))
		if err != nil {
			return fmt.Errorf("explore: replay: %w", err)
		}
		h := &fairHost{i: x.who[j], m: l.m, final: l.m.Status().Final, fired: l.view - 1}
		for _, b := range l.pending {
			f.push(h.i, simplex.Judged{Block: x.blocks[b].hash, Valid: bodyValid(x.blocks[b].Block)})
		}
		if l.asked.View == l.view {
			f.build(h, l.asked)
		}
		for b := l.root; b != 0; b = x.blocks[b].parent {
			f.keep(x.blocks[b].Block)
		}
		f.hosts = append(f.hosts, h)
		began, f.goal = max(began, l.view), max(f.goal, h.final.Height+1)
	}
	for idle := 0; !f.done(); {
		if f.err != nil {
			return f.err
		}
		if f.top() > began+x.o.FairViews {
			return fmt.Errorf("liveness: no block for all in %d views", x.o.FairViews)
		}
		if f.moved = false; !f.deliver() {
			for _, h := range f.hosts {
				f.step(h, simplex.Tick{})
			}
			f.deliver()
		}
		if idle++; f.moved {
			idle = 0
		}
		if idle > idleTicks && !f.timers() {
			return errors.New("liveness: nothing moves any more")
		}
	}
	x.report.Fair++
	x.report.FairViews = max(x.report.FairViews, f.top()-began)
	return f.err
}

// replay brings a fresh machine of a validator to a place.
func (x *explorer) replay(k *kin, validator, at int) (*local, error) {
	var path []int
	for p := k.places[at]; p.from >= 0; p = k.places[p.from] {
		path = append(path, p.by)
	}
	l, err := x.start(validator)
	for i := len(path) - 1; i >= 0 && err == nil; i-- {
		l, err = x.step(l, validator, x.events[path[i]])
	}
	return l, err
}

// fairRun is a network of the honest that loses nothing.
type fairRun struct {
	x     *explorer
	hosts []*fairHost
	queue []letter
	goal  consensus.Height
	kept  map[consensus.Hash]consensus.Block // final somewhere
	chain map[consensus.Height]consensus.Hash
	moved bool // something came that was not known
	err   error
}

type fairHost struct {
	i     int
	m     *simplex.Machine
	final *consensus.Header
	fired consensus.View // the last view whose timer ran out
	state []byte
}

type letter struct {
	to int
	e  simplex.Event
}

func (f *fairRun) push(to int, e simplex.Event) { f.queue = append(f.queue, letter{to, e}) }

func (f *fairRun) host(i int) *fairHost {
	for _, h := range f.hosts {
		if h.i == i {
			return h
		}
	}
	return nil
}

func (f *fairRun) done() bool {
	return !slices.ContainsFunc(f.hosts, func(h *fairHost) bool { return h.final.Height < f.goal })
}

func (f *fairRun) top() (v consensus.View) {
	for _, h := range f.hosts {
		v = max(v, h.m.Status().View)
	}
	return v
}

// deliver empties the queue. It reports whether there was anything.
func (f *fairRun) deliver() bool {
	any := len(f.queue) > 0
	for len(f.queue) > 0 && f.err == nil {
		l := f.queue[0]
		f.queue = f.queue[1:]
		f.step(f.host(l.to), l.e)
	}
	return any
}

// timers lets the timers of the lowest view run out that has any left. It reports whether it has.
func (f *fairRun) timers() bool {
	var late []*fairHost
	for _, h := range f.hosts {
		if v := h.m.Status().View; h.fired < v && (late == nil || v <= late[0].m.Status().View) {
			if late != nil && v < late[0].m.Status().View {
				late = nil
			}
			late = append(late, h)
		}
	}
	for _, h := range late {
		h.fired = h.m.Status().View
		f.step(h, simplex.TimerFired{View: h.fired})
	}
	return late != nil
}

func (f *fairRun) step(h *fairHost, e simplex.Event) {
	f.ready(h, h.m.Step(e))
	if now := h.m.AppendState(nil, true); !slices.Equal(now, h.state) {
		h.state, f.moved = now, true
	}
}

func (f *fairRun) ready(h *fairHost, r simplex.Ready) {
	for _, o := range r.Send {
		for _, to := range f.hosts {
			if to == h || (o.To != simplex.ToAll && o.To != to.i) {
				continue
			}
			switch {
			case o.Proposal != nil:
				f.push(to.i, simplex.ProposalReceived{From: h.i, Proposal: o.Proposal})
			case o.Vote != nil:
				f.push(to.i, simplex.VoteReceived{From: h.i, Vote: *o.Vote})
			default:
				f.push(to.i, simplex.CertificateReceived{From: h.i, Cert: *o.Cert})
			}
		}
	}
	for _, a := range r.Apply {
		switch a := a.(type) {
		case simplex.Build:
			f.build(h, a)
		case simplex.Certify:
			f.push(h.i, simplex.Judged{Block: a.Block.Header.Hash(), Valid: bodyValid(a.Block)})
		case simplex.Fetch:
			f.fetch(h, a.Block)
		case simplex.Finalised:
			for _, b := range a.Blocks {
				f.keep(b)
			}
			h.final = a.Blocks[len(a.Blocks)-1].Header
		case simplex.Misbehaved:
			if !f.x.faulty[a.Validator] {
				f.err = fmt.Errorf("honest %d is blamed in a fair run: %s", a.Validator, a.Reason)
			}
		case simplex.Halted:
			f.err = errors.New("halted in a fair run: " + a.Reason)
		case simplex.SyncNeeded:
			f.err = errors.New("block sync in a fair run")
		}
	}
}

func (f *fairRun) build(h *fairHost, a simplex.Build) {
	b := grow(a.Parent, a.View, 'H')
	f.push(h.i, simplex.Built{View: a.View, Block: &b})
}

// fetch is answered by all who have the block above their last final one, and from the logs.
func (f *fairRun) fetch(h *fairHost, name consensus.Hash) {
	for _, peer := range f.hosts {
		if b, c, ok := peer.m.Block(name); ok && peer != h {
			f.push(h.i, simplex.BlockFetched{From: peer.i, Block: b, Notarization: c})
		}
	}
	if b, ok := f.kept[name]; ok {
		f.push(h.i, simplex.BlockFetched{From: -1, Block: b})
	}
}

// keep notes a block that is final somewhere.
func (f *fairRun) keep(b consensus.Block) {
	name := b.Header.Hash()
	if old, ok := f.chain[b.Header.Height]; ok && old != name {
		f.err = fmt.Errorf("agreement: two blocks final at height %d in a fair run", b.Header.Height)
	}
	f.kept[name], f.chain[b.Header.Height] = b, name
}
