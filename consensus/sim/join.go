package sim

import (
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// joint is what a host without its disk has heard from the others (simplex, R17).
type joint struct {
	asking   bool
	answered consensus.Signers
	best     consensus.Certificate // zero: none
}

// spares reports whether the shard goes on while h is without a vote, beside the adversaries and those who are already,
// and without h's disk: final blocks that somebody lacks are on most of the others, so that asking at random finds them.
func (s *simulation) spares(h *host) bool {
	if h.adversary {
		return false
	}
	var p consensus.Power
	for i, v := range s.o.Committee.Validators {
		if o := s.hosts[i]; o != h && !o.faulty() && !o.mute {
			p += v.Power
		}
	}
	for at := s.lowest() + 1; at <= s.check.top(); at++ {
		copies := 0
		for _, o := range s.hosts {
			if o != h && !o.adversary && o.disk.block(s.check.chain[at].Header.Hash()) != nil {
				copies++
			}
		}
		if 2*copies <= len(s.hosts) {
			return false
		}
	}
	return s.o.Committee.IsQuorum(p)
}

// mute is a host that has not voted since it lost its disk, or -1.
func (s *simulation) mute() int {
	for i, h := range s.hosts {
		if h.mute {
			return i
		}
	}
	return -1
}

// lose ends a life with the whole disk. Some time later the host joins again.
func (h *host) lose() {
	s := h.s
	s.trace("%d loses its disk", h.i)
	s.report.Lost++
	h.up, h.mute = false, true
	h.disk = disk{nullified: make(map[slot]bool)}
	h.app = app{}
	h.app.reset(s.o.Genesis)
	j := &joint{answered: consensus.NewSigners(len(s.o.Committee.Validators))}
	h.joining = j
	s.after(s.spread(max(2*s.o.Faults.Down, time.Millisecond)), func() {
		if !j.asking {
			h.ask(j)
		}
	})
}

// ask asks everybody else for a leading certificate, and again until a quorum has answered. An adversary says that it
// holds none, the lowest that can be said.
func (h *host) ask(j *joint) {
	s := h.s
	if h.joining != j {
		return // joined, or lost again: an answer from before the loss says nothing
	}
	j.asking = true
	for i := range s.o.Committee.Validators {
		if peer := s.hosts[i]; peer != h {
			s.pass(h, peer, func() {
				if !peer.up {
					return
				}
				peer.answer(func() {
					var cert consensus.Certificate
					if !peer.adversary {
						var ok bool
						if cert, ok = peer.node.Leading(); !ok {
							return
						}
					}
					s.pass(peer, h, func() { h.hear(j, i, cert) })
				})
			})
		}
	}
	s.after(time.Second, func() { h.ask(j) })
}

// pass takes a request or an answer from one host to another, wherever they are in their lives, unless it gets lost.
func (s *simulation) pass(from, to *host, arrive func()) {
	if s.chance(s.o.Faults.Drop) || (s.groups != nil && s.groups[from.i] != s.groups[to.i]) {
		return
	}
	s.after(5*time.Millisecond+s.spread(45*time.Millisecond), arrive)
}

// hear counts an answer. With a quorum of them the floor is made, and the host starts with that, with the state of some
// honest host that has one, and with a block log that begins somewhere below that.
func (h *host) hear(j *joint, from int, cert consensus.Certificate) {
	s := h.s
	if h.joining != j {
		return
	}
	j.answered.Add(from)
	if cert.View > j.best.View {
		j.best = cert
	}
	source := s.hosts[s.rng.IntN(len(s.hosts))]
	if !s.o.Committee.IsQuorum(s.o.Committee.PowerOf(j.answered)) || source.adversary || source.joining != nil {
		return
	}
	c := s.o.Committee
	h.floor = j.best.View + simplex.FloorMargin
	if best := j.best; best.Kind != 0 {
		h.disk.records = append(h.disk.records, simplex.Record{Cert: &best})
		h.disk.nullified[slot{best.Epoch, best.View}] = best.Kind == consensus.Nullify
	}
	h.disk.records = append(h.disk.records, simplex.Record{Floor: &simplex.Floor{Shard: c.Shard, Epoch: c.Epoch, View: h.floor}})
	h.app.chain, h.app.cert = append([]consensus.Block(nil), source.app.chain...), source.app.cert
	for at := len(h.app.chain) - 1 - s.rng.IntN(20); at < len(h.app.chain); at++ {
		if at > 0 {
			h.disk.write(h.app.chain[at])
		}
	}
	h.disk.syncedBlocks, h.disk.syncedRecords = len(h.disk.blocks), len(h.disk.records)
	h.joining = nil
	s.trace("%d joins at height %d with a floor at view %d", h.i, h.app.final().Height, h.floor)
	h.start()
}
