package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

// app is the toy application of a host. Its state is the list of executed blocks; a body is invalid if it begins with
// "bad", for everybody and for ever.
type app struct {
	chain    []consensus.Block     // durable and final, by height; genesis first
	cert     consensus.Certificate // finalizes the last of chain
	executed map[consensus.Hash]bool
	ever     map[consensus.Hash]bool // executed in this life or one before with the same disk: a vote from then may leave now
	pending  []simplex.Finalised     // final but not durable yet
	ends     []simplex.Finalised     // by epoch: the hand-over of its last block
}

func (a *app) reset(genesis *consensus.Header) {
	a.chain = []consensus.Block{{Header: genesis}}
}

// final is the last durable block.
func (a *app) final() *consensus.Header { return a.chain[len(a.chain)-1].Header }

// restart forgets what was not durable.
func (a *app) restart() {
	a.pending = nil
	a.executed = map[consensus.Hash]bool{a.final().Hash(): true}
	if a.ever == nil {
		a.ever = map[consensus.Hash]bool{}
	}
	a.ever[a.final().Hash()] = true
}

func bodyValid(body []byte) bool { return !bytes.HasPrefix(body, []byte("bad")) }

// certify executes a block: a pure function of the body, some time later. Only on an executed parent.
func (h *host) certify(c simplex.Certify) {
	if !h.adversary && !h.app.executed[c.Block.Header.Parent] {
		h.s.check.fail("host %d: Certify of view %d, height %d on a parent that was not executed", h.i, c.Block.Header.View, c.Block.Header.Height)
		return
	}
	takes := h.s.spread(40 * time.Millisecond)
	if h.s.chance(h.s.o.Faults.SlowApp) {
		takes = h.s.spread(3 * time.Second)
	}
	h.local(takes, func() {
		name, ok := c.Block.Header.Hash(), bodyValid(c.Block.Body) && h.s.rightly(c.Block.Header)
		if ok {
			h.app.executed[name], h.app.ever[name] = true, true
		}
		h.deliver(simplex.Judged{Block: name, Valid: ok})
	})
}

// build makes a block, or, now and then, has nothing to propose.
func (h *host) build(b simplex.Build) {
	h.local(h.s.spread(150*time.Millisecond), func() {
		if h.s.chance(0.03) {
			h.deliver(simplex.Built{View: b.View})
			return
		}
		h.s.blockNo++
		body := fmt.Appendf(nil, "body %d by %d", h.s.blockNo, h.i)
		if h.s.rng.IntN(2) == 0 && b.MaxBody > 300 {
			body = append(body, make([]byte, 300)...)
		}
		p := b.Parent
		hd := *p
		hd.Epoch, hd.View, hd.Height, hd.Parent = b.Epoch, b.View, p.Height+1, p.Hash()
		hd.TimeMs = max(p.TimeMs+1, h.s.now.Milliseconds())
		h.s.names(&hd)
		built := simplex.Built{View: b.View, Block: &consensus.Block{Header: &hd, Body: body}}
		if hd.Body = consensus.NewBodyRef(body); len(body) > 300 { // to this application that is long
			set := h.s.cut(h.era, body)
			hd.Body = set.Ref()
			if h.s.rng.IntN(2) == 0 {
				built.Shreds = set
			}
		}
		h.deliver(built)
	})
}

// cut cuts a body for the committee of an epoch.
func (s *simulation) cut(era int, body []byte) *shred.Set {
	set, err := shred.Cut(s.eras[era].Committee, body)
	if err != nil {
		panic(err) // a body that is empty or too long: a bug of this package
	}
	return set
}

// rebuild makes a body of its parts, some time later.
func (h *host) rebuild(r simplex.Rebuild) {
	h.local(h.s.spread(20*time.Millisecond), func() {
		set, err := r.Parts.Rebuild()
		if err != nil && !errors.Is(err, shred.ErrMalformed) {
			h.s.check.fail("host %d rebuilds %s: %v", h.i, r.Block.Short(), err)
		}
		h.deliver(simplex.Rebuilt{Block: r.Block, Shreds: set})
	})
}

// finalise makes blocks durable, in order, a little later.
func (h *host) finalise(f simplex.Finalised) {
	h.s.check.finalised(h, f)
	h.app.pending = append(h.app.pending, f)
	h.local(h.s.spread(30*time.Millisecond), func() {
		if len(h.app.pending) == 0 {
			return
		}
		f := h.app.pending[0]
		h.app.pending = h.app.pending[1:]
		for _, b := range f.Blocks {
			if at := int(b.Header.Height); at == len(h.app.chain) {
				h.app.chain, h.app.cert = append(h.app.chain, b), f.Cert
			}
		}
		if last := h.app.final(); after(last) > h.era {
			h.end(f)
		}
	})
}
