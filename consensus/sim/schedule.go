package sim

import (
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Schedule is a run in the manner of Twins (Bano et al. 2021, "Twins: BFT Systems Made Robust"): the keys of some
// validators are run by two honest machines each, both of which believe that they are the only one, and in every view of
// the schedule the machines are parted into groups that do not hear each other. Whatever a Byzantine validator could say
// to two parts of a committee, its two machines say. Who leads is the committee's seed to choose.
//
// Deviations from the paper: each view has two phases, the proposal with its notarize votes and all that follows, with
// groups of their own; a view's partition may end a while after it began, so that what was held back comes late and not
// never; a message belongs to the view that it is about or, BySender, to the one its sender is in.
type Schedule struct {
	Twins    []int           // validators that two machines run
	Views    []Split         // from view 1 on
	BySender bool            // by which view a message is held back
	Lasts    time.Duration   // the schedule ends after this time, if not earlier because all machines are beyond its views
	Heal     []time.Duration // by view: the partition's end, from the view's first message on; 0 or missing: never
}

// Split is a view's groups in its two phases, by machine: the committee, the observer, the second machines of the twins.
type Split [2][]int

// played reports whether the schedule has been played to its end.
func (s *simulation) played() bool {
	o := s.o.Schedule
	if o == nil || s.now >= o.Lasts {
		return true
	}
	for _, h := range s.hosts {
		if !h.adversary && h.up && int(h.node.Status().View) <= len(o.Views) {
			return false
		}
	}
	return true
}

// parted reports whether the schedule holds a message back. view and phase are what it is about.
func (s *simulation) parted(from, to *host, view consensus.View, phase int) bool {
	o := s.o.Schedule
	if o == nil {
		return false
	}
	if o.BySender {
		view = from.node.Status().View
	}
	if view == 0 || int(view) > len(o.Views) {
		return false
	}
	began, ok := s.began[view]
	if !ok {
		began, s.began[view] = s.now, s.now
		if s.hosts[s.o.Committee.Leader(view)].twin {
			s.report.Led++
		}
	}
	if at := int(view) - 1; at < len(o.Heal) && o.Heal[at] > 0 && s.now >= began+o.Heal[at] {
		return false
	}
	groups := o.Views[view-1][phase]
	return groups[from.i] != groups[to.i]
}

// about is the view of a message and its phase in it.
func about(o simplex.Outbound) (consensus.View, int) {
	switch {
	case o.Proposal != nil:
		return o.Proposal.Vote.View, 0
	case o.Part != nil:
		return o.Part.Vote.View, 0
	case o.Vote != nil && o.Vote.Kind == consensus.Notarize:
		return o.Vote.View, 0
	case o.Vote != nil:
		return o.Vote.View, 1
	default:
		return o.Cert.View, 1
	}
}
