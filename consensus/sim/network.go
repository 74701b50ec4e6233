package sim

import (
	"math"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/simplex"
)

// disturb schedules partitions and crashes until the faults end.
func (s *simulation) disturb() {
	f := s.o.Faults
	every := func(mean time.Duration, do func()) {
		if mean == 0 {
			return
		}
		var again func()
		again = func() {
			if !s.calm {
				do()
				s.after(s.spread(2*mean), again)
			}
		}
		s.after(s.spread(2*mean), again)
	}
	every(f.Partition, func() {
		groups := make([]int, len(s.hosts))
		for i := range groups {
			groups[i] = s.rng.IntN(2)
		}
		s.groups = groups
		s.trace("partition %v", groups)
		s.after(s.spread(15*time.Second), func() { s.groups = nil })
	})
	every(f.Crash, func() {
		h := s.hosts[s.rng.IntN(len(s.hosts))]
		if !h.up {
			return
		}
		h.crash()
		s.after(s.spread(2*f.Down), func() {
			if !h.up && h.joining == nil {
				h.start()
			}
		})
	})
	every(f.Lose, func() {
		h := s.hosts[s.rng.IntN(len(s.o.Committee.Validators))]
		if s.spares(h) {
			h.lose()
		}
	})
}

// carry takes something from one host to another, if it does not get lost, once or twice.
func (s *simulation) carry(from, to *host, arrive func()) {
	copies := 1
	if s.chance(s.o.Faults.Duplicate) {
		copies = 2
	}
	for range copies {
		if s.chance(s.o.Faults.Drop) || (s.groups != nil && s.groups[from.i] != s.groups[to.i]) {
			continue
		}
		delay := 5*time.Millisecond + s.spread(45*time.Millisecond)
		if !s.calm && s.o.Faults.Delay > 0 {
			delay += time.Duration(-math.Log(1-s.rng.Float64()) * float64(s.o.Faults.Delay))
		}
		s.after(delay, func() {
			if to.up {
				arrive()
			}
		})
	}
}

// send delivers an outbound message through the wire format. Certificates reach the observer too, as by gossip.
func (s *simulation) send(from *host, o simplex.Outbound) {
	if s.o.Trace != nil {
		s.trace("%d sends %s", from.i, describe(o))
	}
	view, phase := about(o)
	epoch := epochOf(o)
	for _, to := range s.hosts {
		place := to.placeIn(from.era)
		if to == from || (o.To != simplex.ToAll && o.To != place) || (place < 0 && o.Cert == nil) || s.parted(from, to, view, phase) {
			continue
		}
		var e func(from int) simplex.Event
		what := "certificate"
		switch {
		case o.Proposal != nil:
			p, err := consensus.DecodeProposal(o.Proposal.Append(nil))
			if err != nil {
				continue // an adversary's nonsense does not pass the decoder
			}
			what = "proposal"
			e = func(from int) simplex.Event { return simplex.ProposalReceived{From: from, Proposal: p} }
		case o.Part != nil:
			p, err := shred.DecodePart(o.Part.Append(nil))
			if err != nil {
				continue
			}
			what = "part"
			e = func(from int) simplex.Event { return simplex.PartReceived{From: from, Part: p} }
		case o.Vote != nil:
			v, err := consensus.DecodeVote(o.Vote.Append(nil))
			if err != nil {
				continue
			}
			what = v.Kind.String()
			e = func(from int) simplex.Event { return simplex.VoteReceived{From: from, Vote: *v} }
		case o.Cert != nil:
			c, err := consensus.DecodeCertificate(o.Cert.Append(nil))
			if err != nil {
				continue
			}
			e = func(from int) simplex.Event { return simplex.CertificateReceived{From: from, Cert: *c} }
		}
		if s.report.Messages[what]++; s.late(from, o) {
			continue
		}
		s.carry(from, to, func() {
			if int(epoch) != to.era {
				s.foreign(from, to, epoch, o.Cert != nil)
				return
			}
			to.deliver(e(from.placeIn(to.era)))
		})
	}
}
