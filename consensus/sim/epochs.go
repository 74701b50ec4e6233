package sim

import (
	"slices"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Era is an epoch of a run: its committee, and which host is at each place of it. Keys are the committee's.
type Era struct {
	Committee *consensus.Committee
	Keys      consensus.Keys
	Members   []int
}

// Epochs make a run go through several epochs, with hosts that come and go. There are as many hosts as Options.Signers, and the
// observer; Options.Committee and Keys are those of epoch 0.
type Epochs struct {
	Length consensus.Height // blocks of an epoch
	First  []int            // members of epoch 0
	Later  []Era            // epochs from 1 on; the last of them does not end
	Late   float64          // share of the finalize votes for last blocks, and for echoes, that are lost before the network settles
}

// slot is a view of an epoch.
type slot struct {
	epoch consensus.Epoch
	view  consensus.View
}

// eras are the epochs of a run, of one without Epochs the only one.
func (o *Options) eras() []Era {
	first := Era{Committee: o.Committee, Keys: o.Keys}
	if o.Epochs != nil {
		first.Members = o.Epochs.First
		return append([]Era{first}, o.Epochs.Later...)
	}
	for i := range o.Committee.Validators {
		first.Members = append(first.Members, i)
	}
	return []Era{first}
}

// names sets what a header on this chain has to say about committees.
func (s *simulation) names(h *consensus.Header) {
	if s.o.Epochs == nil {
		return
	}
	e := int(h.Epoch)
	h.Committee = s.eras[e].Committee.Hash()
	if h.NextCommittee = h.Committee; e+1 < len(s.eras) && h.Height == s.o.Epochs.Length*consensus.Height(e+1) {
		h.NextCommittee = s.eras[e+1].Committee.Hash()
	}
}

// rightly reports whether a header names the committees that this chain wants.
func (s *simulation) rightly(h *consensus.Header) bool {
	want := *h
	s.names(&want)
	return want.NextCommittee == h.NextCommittee && want.Committee == h.Committee
}

// after is the epoch that a chain with this last block is in.
func after(last *consensus.Header) int {
	if last.Ends() {
		return int(last.Epoch) + 1
	}
	return int(last.Epoch)
}

// now is the host's epoch.
func (h *host) now() *Era { return &h.s.eras[h.era] }

// placeIn is the host's place in an epoch's committee, -1 if it has none.
func (h *host) placeIn(era int) int {
	if h.s.o.Epochs == nil {
		return h.index
	}
	return slices.Index(h.s.eras[era].Members, h.i)
}

// member is the host at a place in this host's epoch.
func (h *host) member(place int) *host { return h.s.hosts[h.now().Members[place]] }

// line is a view counted over all epochs: the views of those before count up to the one that ended them.
func (s *simulation) line(epoch consensus.Epoch, view consensus.View) consensus.View {
	return s.before[epoch] + view
}

// finalView is the view of a machine's root in its own epoch.
func finalView(h *host, f *consensus.Header) consensus.View {
	if int(f.Epoch) != h.era {
		return 0
	}
	return f.View
}

// end notes what ended the epoch of the last durable block, and begins the next one: another machine on the same disk.
func (h *host) end(f simplex.Finalised) {
	h.app.ends = append(h.app.ends, f)
	if len(h.s.before) == len(h.app.ends) {
		h.s.before = append(h.s.before, h.s.before[len(h.app.ends)-1]+f.Cert.View)
		h.s.report.Epochs++
		h.s.report.Echoes += len(f.Echoes)
	}
	h.start()
}

// ended is what ended an epoch, if this host has that.
func (h *host) ended(epoch consensus.Epoch) *consensus.Certificate {
	if int(epoch) >= len(h.app.ends) {
		return nil
	}
	return &h.app.ends[epoch].Cert
}

// late reports whether a message is a finalize vote that gets lost because it would end an epoch.
func (s *simulation) late(from *host, o simplex.Outbound) bool {
	if s.o.Epochs == nil || o.Vote == nil || o.Vote.Kind != consensus.Finalize {
		return false
	}
	h := from.node.Header(o.Vote.Block)
	return h != nil && h.Ends() && s.chance(s.o.Epochs.Late)
}

// foreign is what an engine does with a message of another epoch: who is behind is told what ended its epoch, once between two
// ticks, and who is behind itself asks.
func (s *simulation) foreign(from, to *host, epoch consensus.Epoch, cert bool) {
	behind, ahead := from, to
	if int(epoch) > to.era {
		behind, ahead = to, from
	} else if cert {
		return // who is on the same side repeats it
	}
	if to.told {
		return
	}
	to.told = true
	tell := func() {
		s.carry(ahead, behind, func() {
			if c := ahead.ended(consensus.Epoch(behind.era)); c != nil {
				behind.deliver(simplex.CertificateReceived{From: ahead.placeIn(behind.era), Cert: *c})
			}
		})
	}
	if behind == to {
		s.carry(to, from, tell)
	} else {
		tell()
	}
}

// epochOf is the epoch of a message.
func epochOf(o simplex.Outbound) consensus.Epoch {
	switch {
	case o.Proposal != nil:
		return o.Proposal.Vote.Epoch
	case o.Part != nil:
		return o.Part.Vote.Epoch
	case o.Vote != nil:
		return o.Vote.Epoch
	}
	return o.Cert.Epoch
}
