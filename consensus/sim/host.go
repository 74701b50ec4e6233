package sim

import (
	"fmt"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
	"tutti/consensus/trace"
)

// Participant is what a host runs: a simplex.Machine, or an adversary around one.
type Participant interface {
	Step(simplex.Event) simplex.Ready
	Status() simplex.Status
	Block(consensus.Hash) (consensus.Block, consensus.Certificate, bool)
	Header(consensus.Hash) *consensus.Header
	Leading() (consensus.Certificate, bool)
}

// host is one node: the engine's duties around a machine, a disk, an application.
type host struct {
	s         *simulation
	i, index  int // index is the place in the committee of the host's epoch
	era       int
	told      bool // since the last tick: somebody was told, or asked, about the end of an epoch
	adversary bool
	twin      bool    // an honest machine that is not alone with its key
	rate      float64 // of its timers

	up    bool
	life  int // restarts; what was started in an earlier life does not come back
	node  Participant
	trace *trace.Writer // of this life; may be nil
	busy  bool          // a sync runs
	inbox []simplex.Event
	asked []func() // requests of others that wait for the sync
	timer int      // number of the armed timer

	joining *joint         // the disk is lost and a floor is being made; else nil
	mute    bool           // no vote has left since the disk was lost
	floor   consensus.View // the last one made
	disk    disk
	app     app

	heard votesHeard
}

// faulty reports whether what h signs may contradict what its validator signed elsewhere.
func (h *host) faulty() bool { return h.adversary || h.twin }

const maxInbox = 10_000

// disk is the block log and the vote log. What is not synced may be lost in a crash, its end first.
type disk struct {
	blocks        []loggedBlock
	records       []simplex.Record
	syncedBlocks  int
	syncedRecords int
	nullified     map[slot]bool // nullifications ever logged
}

type loggedBlock struct {
	consensus.Block
	hash consensus.Hash
}

func (d *disk) write(b consensus.Block) {
	d.blocks = append(d.blocks, loggedBlock{b, b.Header.Hash()})
}

// block is a synced block, or nil.
func (d *disk) block(h consensus.Hash) *loggedBlock {
	for i := d.syncedBlocks - 1; i >= 0; i-- {
		if d.blocks[i].hash == h {
			return &d.blocks[i]
		}
	}
	return nil
}

// vote reports whether a vote is synced.
func (d *disk) vote(v *consensus.Vote) bool {
	for i := d.syncedRecords - 1; i >= 0; i-- {
		if own := d.records[i].Vote; own != nil && *own == *v {
			return true
		}
	}
	return false
}

// start begins a life with what is on the disk.
func (h *host) start() {
	o := &h.s.o
	if h.era = after(h.app.final()); o.Epochs != nil {
		h.index = h.placeIn(h.era)
	}
	c := simplex.Config{
		Chain: o.Chain, Root: h.app.final(), RootCert: h.app.cert, Committee: h.now().Committee, Keys: h.now().Keys, Index: h.index,
		Limits: o.Limits, Log: append([]simplex.Record(nil), h.disk.records...),
	}
	for _, b := range h.disk.blocks {
		c.Blocks = append(c.Blocks, b.Block)
	}
	if h.index >= 0 {
		c.Signer = o.Signers[h.now().Members[h.index]]
	}
	if o.ForgetLog {
		c.Log, c.Blocks = nil, nil
	}
	h.up, h.busy, h.inbox, h.asked = true, false, nil, nil
	h.life++
	h.heard = votesHeard{}
	h.app.restart()
	maker := o.Honest
	if maker == nil {
		maker = Honest
	}
	if h.adversary && h.index >= 0 {
		maker = o.Adversaries[h.i]
	}
	if h.trace = nil; o.Record != nil && !h.adversary {
		h.trace = o.Record(h.i)
	}
	h.trace.Start(&c)
	node, ready, err := maker(Env{Config: c, Rand: h.s.rng, Life: h.life})
	if err != nil {
		h.s.check.fail("host %d: %v", h.i, err)
		return
	}
	h.trace.Made(ready)
	h.node = node
	h.s.trace("%d starts at height %d, view %d", h.i, h.app.final().Height, node.Status().View)
	h.duties(ready)
}

// crash ends a life. Of what was not synced a prefix survives, blocks before votes.
func (h *host) crash() {
	h.s.trace("%d crashes", h.i)
	h.s.report.Restarts++
	h.up = false
	d := &h.disk
	d.syncedBlocks += h.s.rng.IntN(len(d.blocks) - d.syncedBlocks + 1)
	if d.syncedBlocks == len(d.blocks) {
		d.syncedRecords += h.s.rng.IntN(len(d.records) - d.syncedRecords + 1)
	}
	d.blocks, d.records = d.blocks[:d.syncedBlocks], d.records[:d.syncedRecords]
}

// local runs do after a while unless this life has ended.
func (h *host) local(d time.Duration, do func()) {
	life := h.life
	h.s.after(time.Duration(float64(d)*h.rate), func() {
		if h.up && h.life == life {
			do()
		}
	})
}

func (h *host) tick() {
	h.s.after(time.Duration(float64(250*time.Millisecond)*h.rate), func() {
		if h.told = false; h.up {
			h.deliver(simplex.Tick{})
		}
		h.tick()
	})
}

// deliver steps the machine, or keeps the event while the disk is busy.
func (h *host) deliver(e simplex.Event) {
	if h.busy {
		if len(h.inbox) < maxInbox {
			h.inbox = append(h.inbox, e)
		}
		return
	}
	h.step(e)
}

// answer has the host answer a request out of its machine: after a sync that runs, as the machine may hold votes of its
// own that only then are on the disk.
func (h *host) answer(answer func()) {
	switch {
	case !h.busy:
		answer()
	case len(h.asked) < maxInbox:
		h.asked = append(h.asked, answer)
	}
}

// step steps the machine.
func (h *host) step(e simplex.Event) {
	before := h.node.Status()
	r := h.node.Step(e)
	h.trace.Step(e, r)
	h.s.check.heard(h, before, e, r)
	h.duties(r)
}

// duties does what a Ready asks for, in its order.
func (h *host) duties(r simplex.Ready) {
	for _, a := range r.Apply {
		if k, ok := a.(simplex.KeyElsewhere); ok { // before this step's own votes are in the log
			h.s.check.elsewhere(h, k.Statement)
		}
	}
	for _, b := range r.Persist.Blocks {
		h.disk.write(b)
	}
	h.disk.records = append(h.disk.records, r.Persist.Records...)
	for _, rec := range r.Persist.Records {
		if rec.Cert != nil && rec.Cert.Kind == consensus.Nullify {
			h.disk.nullified[slot{rec.Cert.Epoch, rec.Cert.View}] = true
		}
	}
	h.s.check.bounds(h)
	if len(r.Persist.Blocks)+len(r.Persist.Records) == 0 {
		h.release(r)
		return
	}
	h.busy = true
	takes := h.s.spread(4 * time.Millisecond)
	if h.s.chance(h.s.o.Faults.SlowDisk) {
		takes = h.s.spread(time.Second)
	}
	h.local(takes, func() {
		h.disk.syncedBlocks, h.disk.syncedRecords = len(h.disk.blocks), len(h.disk.records)
		h.busy = false
		h.release(r)
		for !h.busy && len(h.asked) > 0 && h.up {
			answer := h.asked[0]
			h.asked = h.asked[1:]
			answer()
		}
		for !h.busy && len(h.inbox) > 0 && h.up {
			e := h.inbox[0]
			h.inbox = h.inbox[1:]
			h.step(e)
		}
	})
}

// release sends and starts the actions, after the sync.
func (h *host) release(r simplex.Ready) {
	h.s.check.passedOn(h, r.Send)
	for _, o := range r.Send {
		h.s.check.sent(h, o)
		h.s.send(h, o)
	}
	for _, a := range r.Apply {
		h.act(a)
	}
}

// act starts one action.
func (h *host) act(a simplex.Action) {
	if h.s.o.Trace != nil {
		h.s.trace("%d wants %s", h.i, describe(a))
	}
	switch a := a.(type) {
	case simplex.SetTimer:
		h.timer++
		id := h.timer
		h.local(a.After, func() {
			if id == h.timer {
				h.deliver(simplex.TimerFired{View: a.View})
			}
		})
	case simplex.Build:
		h.build(a)
	case simplex.Certify:
		h.certify(a)
	case simplex.Rebuild:
		h.rebuild(a)
	case simplex.Fetch:
		h.s.report.Fetches++
		h.fetch(a)
	case simplex.SyncNeeded:
		h.sync()
	case simplex.Finalised:
		h.finalise(a)
	case simplex.Abandoned:
		if a.Block != h.app.final().Hash() {
			delete(h.app.executed, a.Block)
		}
	case simplex.Evidence:
		h.s.check.evidence(h, a)
	case simplex.Misbehaved:
		h.s.check.misbehaved(h, a)
	case simplex.Halted:
		h.up = !h.s.o.Above
		if !h.adversary && !h.s.o.Above {
			h.s.check.fail("host %d halts: %s", h.i, a.Reason)
		}
	}
}

// fetch asks peers in turn, from some peer on, until one has the block, in its machine or its log. A message that gets
// lost ends it: the machine asks again.
func (h *host) fetch(a simplex.Fetch) { h.fetchFrom(a, h.s.rng.IntN(len(h.s.hosts)), len(h.s.hosts)) }

func (h *host) fetchFrom(a simplex.Fetch, at, left int) {
	peer := h.s.hosts[at%len(h.s.hosts)]
	next := func() {
		if left > 1 {
			h.fetchFrom(a, at+1, left-1)
		}
	}
	if peer == h {
		next()
		return
	}
	if h.s.parted(h, peer, h.node.Status().View, 1) {
		return
	}
	h.s.carry(h, peer, func() {
		peer.answer(func() {
			b, cert, ok := peer.node.Block(a.Block)
			if logged := peer.disk.block(a.Block); !ok && logged != nil {
				b, ok = logged.Block, true
			}
			h.s.carry(peer, h, func() {
				if ok {
					h.deliver(simplex.BlockFetched{From: peer.placeIn(h.era), Block: b, Notarization: cert})
				} else {
					next()
				}
			})
		})
	})
}

// sync copies the final chain of an honest host that is ahead, and comes back either way.
func (h *host) sync() {
	takes := h.s.spread(2 * time.Second)
	if h.s.calm {
		takes /= 8
	}
	h.local(takes, func() {
		peer := h.s.hosts[h.s.rng.IntN(len(h.s.hosts))]
		if !peer.adversary && peer.up && peer.app.final().Height > h.app.final().Height {
			h.s.report.Synced++
			run, cert := peer.app.chain[len(h.app.chain):], peer.app.cert
			var over *simplex.Finalised
			if h.era < len(peer.app.ends) { // not beyond the end of the epoch
				over = &peer.app.ends[h.era]
				last := over.Blocks[len(over.Blocks)-1].Header.Height
				run, cert = run[:int(last)+1-len(h.app.chain)], over.Cert
			}
			for _, b := range run {
				h.app.chain = append(h.app.chain, b)
				h.disk.write(b)
			}
			if over != nil {
				for _, e := range over.Echoes {
					h.disk.write(consensus.Block{Header: e})
				}
			}
			h.disk.syncedBlocks = len(h.disk.blocks)
			h.app.cert = cert
			h.app.executed[h.app.final().Hash()], h.app.ever[h.app.final().Hash()] = true, true
			h.s.trace("%d synced to height %d", h.i, h.app.final().Height)
			if over != nil {
				h.end(*over)
				return
			}
		}
		h.deliver(simplex.Synced{Header: h.app.final(), Cert: h.app.cert})
	})
}

// describe is an action or message in one line, for traces.
func describe(x any) string {
	switch x := x.(type) {
	case simplex.Outbound:
		switch {
		case x.Proposal != nil:
			return fmt.Sprintf("to %d: proposal of view %d, %s", x.To, x.Proposal.Vote.View, x.Proposal.Vote.Block.Short())
		case x.Part != nil:
			return fmt.Sprintf("to %d: part of %d, proposal of view %d, %s", x.To, x.Part.Validator, x.Part.Vote.View, x.Part.Vote.Block.Short())
		case x.Vote != nil:
			return fmt.Sprintf("to %d: %s of view %d, %s", x.To, x.Vote.Kind, x.Vote.View, x.Vote.Block.Short())
		default:
			return fmt.Sprintf("to %d: certificate %s of view %d, %s", x.To, x.Cert.Kind, x.Cert.View, x.Cert.Block.Short())
		}
	case simplex.Certify:
		return fmt.Sprintf("Certify %s of view %d", x.Block.Header.Hash().Short(), x.Block.Header.View)
	case simplex.Build:
		return fmt.Sprintf("Build for view %d on height %d", x.View, x.Parent.Height)
	case simplex.Finalised:
		return fmt.Sprintf("Finalised %d blocks to height %d", len(x.Blocks), x.Blocks[len(x.Blocks)-1].Header.Height)
	case simplex.Rebuild:
		return fmt.Sprintf("Rebuild %s from %d shards", x.Block.Short(), x.Parts.Count())
	case simplex.Fetch:
		return fmt.Sprintf("Fetch %s of view %d", x.Block.Short(), x.View)
	case simplex.SyncNeeded:
		return fmt.Sprintf("SyncNeeded to view %d", x.Cert.View)
	case simplex.Abandoned:
		return "Abandoned " + x.Block.Short()
	case simplex.Evidence:
		return fmt.Sprintf("Evidence: %s and %s of validator %d in view %d", x.First.Kind, x.Second.Kind, x.First.Validator, x.First.View)
	}
	return fmt.Sprintf("%T %+v", x, x)
}
