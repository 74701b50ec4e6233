package committee

import (
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// host is a validator: a machine, two cores, an uplink.
type host struct {
	w       *world
	i       int
	region  int
	silent  bool
	machine *simplex.Machine
	link    []time.Duration // when the last message to each other one arrives: a connection keeps its order

	inbox  []arrival // waits for the first core
	busy   bool
	free   time.Duration // when the first core is
	app    time.Duration // when the second core is
	up     time.Duration // when the uplink is
	timer  int           // number of the armed view timer
	charge time.Duration // what the running step costs
	judged map[consensus.Hash]bool
	top    consensus.Hash // last final block that clients were told of

	used     time.Duration // of both cores
	sent     float64       // bytes
	received int           // messages
}

type arrival struct {
	event   simplex.Event
	message bool
}

// charged takes the time of the product's keys for signatures that are tags.
type charged struct {
	simtest.Keys
	h *host
}

func (c charged) Verify(i int, msg []byte, sig consensus.Signature) bool {
	c.h.charge += c.h.w.o.Costs.Verify
	return c.Keys.Verify(i, msg, sig)
}

func (c charged) VerifyAggregate(signers consensus.Signers, msg []byte, sig consensus.Signature) bool {
	costs := &c.h.w.o.Costs
	c.h.charge += costs.Aggregate + time.Duration(c.h.w.o.Validators-signers.Count())*costs.Missing
	return c.Keys.VerifyAggregate(signers, msg, sig)
}

func (c charged) Aggregate(sigs []consensus.Signature) (consensus.Signature, error) {
	c.h.charge += time.Duration(len(sigs)) * c.h.w.o.Costs.Add
	return c.Keys.Aggregate(sigs)
}

type signing struct {
	consensus.Signer
	h *host
}

func (s signing) Sign(msg []byte) consensus.Signature {
	s.h.charge += s.h.w.o.Costs.Sign
	return s.Signer.Sign(msg)
}

// deliver puts an event before the first core.
func (h *host) deliver(e simplex.Event, message bool) {
	h.inbox = append(h.inbox, arrival{e, message})
	if message {
		h.received++
	}
	if !h.busy {
		h.busy = true
		h.w.at(h.free, h.work)
	}
}

// work does what waits for the first core, one event.
func (h *host) work() {
	a := h.inbox[0]
	h.inbox = h.inbox[1:]
	h.charge = 0
	if a.message {
		h.charge = h.w.o.Costs.Receive
	}
	if p, ok := a.event.(simplex.PartReceived); ok { // hashed as it comes, though those beyond enough are not
		h.charge += time.Duration(h.w.share(p.Part) * float64(h.w.o.Costs.Byte))
	}
	ready := h.machine.Step(a.event)
	h.spend(h.charge, ready)
	if len(h.inbox) > 0 {
		h.w.at(h.free, h.work)
	} else {
		h.busy = false
	}
}

// spend lets the time of a step pass and then does what it asked for.
func (h *host) spend(cost time.Duration, r simplex.Ready) {
	h.used += cost
	h.free = max(h.free, h.w.now) + cost
	if len(r.Persist.Blocks)+len(r.Persist.Records) > 0 {
		h.free += syncTime
	}
	if len(r.Send)+len(r.Apply) > 0 {
		h.w.at(h.free, func() { h.duties(r) })
	}
}

func (h *host) duties(r simplex.Ready) {
	for _, o := range r.Send {
		h.send(o)
	}
	for _, a := range r.Apply {
		h.act(a)
	}
}

// background takes time on the second core, and then does something.
func (h *host) background(cost time.Duration, do func()) {
	h.used += cost
	h.app = max(h.app, h.w.now) + cost
	h.w.at(h.app, do)
}

func (h *host) tick() {
	h.w.at(h.w.now+tickEvery, func() {
		h.deliver(simplex.Tick{}, false)
		h.tick()
	})
}

// send brings a message to those it is for, through the uplink.
func (h *host) send(o simplex.Outbound) {
	var e simplex.Event
	bytes := 1.0 + frameBytes
	switch {
	case o.Proposal != nil:
		e = simplex.ProposalReceived{From: h.i, Proposal: o.Proposal}
		bytes += float64(len(o.Proposal.Append(nil))) + h.w.contents[o.Proposal.Vote.Block].bytes()
	case o.Part != nil:
		e = simplex.PartReceived{From: h.i, Part: o.Part}
		bytes += float64(o.Part.Size()) + h.w.share(o.Part)
	case o.Vote != nil:
		e = simplex.VoteReceived{From: h.i, Vote: *o.Vote}
		bytes += consensus.VoteBytes
	default:
		e = simplex.CertificateReceived{From: h.i, Cert: *o.Cert}
		bytes += float64(len(o.Cert.Append(nil)))
	}
	for _, to := range h.w.hosts {
		if to != h && (o.To == simplex.ToAll || o.To == to.i) {
			h.carry(to, bytes, func() { to.deliver(e, true) })
		}
	}
}

// carry takes bytes to another host.
func (h *host) carry(to *host, bytes float64, arrive func()) {
	h.sent += bytes
	h.used += h.w.o.Costs.Send
	h.up = max(h.up, h.w.now) + time.Duration(bytes*8/h.w.o.Profile.Uplink*float64(time.Second))
	way := h.w.o.Profile.latency(h.region, to.region)
	way += time.Duration((h.w.rng.Float64()*2 - 1) * h.w.o.Profile.Jitter * float64(way))
	h.link[to.i] = max(h.link[to.i], h.up+way)
	if !to.silent {
		h.w.at(h.link[to.i], arrive)
	}
}

func (h *host) act(a simplex.Action) {
	switch a := a.(type) {
	case simplex.SetTimer:
		h.timer++
		id := h.timer
		h.w.at(h.w.now+a.After, func() {
			if id == h.timer {
				h.deliver(simplex.TimerFired{View: a.View}, false)
			}
		})
	case simplex.Build:
		due := time.Duration(a.Parent.TimeMs)*time.Millisecond + interval
		h.w.at(due, func() { h.build(a) })
	case simplex.Certify:
		hash := a.Block.Header.Hash()
		c := h.w.contents[hash]
		cost := time.Duration(c.total*float64(h.w.o.Costs.Tx)) + time.Duration(c.bytes()*float64(h.w.o.Costs.Byte))
		if h.judged[hash] { // executed when it was made
			delete(h.judged, hash)
			cost = 0
		}
		h.background(cost, func() { h.deliver(simplex.Judged{Block: hash, Valid: true}, false) })
	case simplex.Rebuild:
		cost := h.w.o.Costs.Rebuild + time.Duration(h.w.contents[a.Block].bytes()*float64(h.w.o.Costs.Code))
		h.background(cost, func() { h.deliver(simplex.Rebuilt{Block: a.Block, Shreds: h.w.sets[a.Block]}, false) })
	case simplex.Fetch:
		h.fetch(a.Block)
	case simplex.Finalised:
		h.w.at(h.w.now+makeFinal, func() { h.w.tell(h, a.Blocks, h.w.now) })
	case simplex.SyncNeeded, simplex.Halted, simplex.Misbehaved, simplex.Evidence, simplex.KeyElsewhere:
		h.w.fail("validator %d: %T %+v", h.i, a, a)
	}
}

// build makes a block of what has arrived.
func (h *host) build(a simplex.Build) {
	if h.machine.Status().View != a.View {
		return
	}
	parent := a.Parent.Hash()
	c := h.w.fill(h, parent)
	block := simtest.Child(h.w.committee, a.Parent, a.View, name(a.View, h.i))
	block.Header.TimeMs = max(a.Parent.TimeMs+1, h.w.now.Milliseconds())
	var set *shred.Set
	coding := time.Duration(0)
	if c.bytes() > float64(h.w.committee.WholeBytes()) {
		var err error
		if set, err = shred.Cut(h.w.committee, block.Body); err != nil {
			h.w.fail("validator %d: %v", h.i, err)
			return
		}
		block.Header.Body = set.Ref()
		coding = h.w.o.Costs.Rebuild + time.Duration(c.bytes()*float64(h.w.o.Costs.Code))
	}
	hash := block.Header.Hash()
	h.w.contents[hash], h.w.sets[hash] = c, set
	if h.judged == nil {
		h.judged = map[consensus.Hash]bool{}
	}
	h.judged[hash] = true
	cost := time.Duration(c.total*float64(h.w.o.Costs.Tx)) + time.Duration(c.bytes()*float64(h.w.o.Costs.Byte)) + coding
	h.background(cost, func() { h.deliver(simplex.Built{View: a.View, Block: &block, Shreds: set}, false) })
}

// fetch asks a peer for a block.
func (h *host) fetch(hash consensus.Hash) {
	peer := h.w.hosts[h.w.rng.IntN(len(h.w.hosts))]
	if peer == h || peer.silent {
		return
	}
	h.carry(peer, 33+frameBytes, func() {
		b, cert, ok := peer.machine.Block(hash)
		if !ok {
			return
		}
		peer.carry(h, h.w.contents[hash].bytes()+600+frameBytes, func() {
			h.deliver(simplex.BlockFetched{From: peer.i, Block: b, Notarization: cert}, true)
		})
	})
}
