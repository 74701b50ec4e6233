package sim

import (
	"slices"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// conflict ends a run above the fault bound: f makes another block final at a height than the one that is. It gathers what
// the honest hold and checks that this convicts more than a third of the power and nobody honest, and that the two
// certificates that simplex.Clash names are among it and are enough.
func (s *simulation) conflict(at consensus.Height, f simplex.Finalised) {
	c := s.check
	s.report.Conflict = true
	all := s.held()
	for i := range c.certs[1:] {
		all = append(all, simplex.Signed{Cert: &c.certs[i+1]})
	}
	all = append(all, simplex.Signed{Cert: &f.Cert})
	s.report.Guilty = s.convict("all that the honest hold", all)

	// The two blocks that certificates finalize, and the ancestors of both.
	headers := make(map[consensus.Hash]*consensus.Header)
	for _, h := range s.hosts {
		for _, b := range h.disk.blocks {
			headers[b.hash] = b.Header
		}
	}
	for _, b := range append(f.Blocks, c.chain...) {
		headers[b.Header.Hash()] = b.Header
	}
	low, high := headers[c.certs[at].Block], headers[f.Cert.Block]
	if low.View > high.View {
		low, high = high, low
	}
	var between []*consensus.Header
	for p := headers[high.Parent]; p != nil; p = headers[p.Parent] {
		between = append(between, p)
	}
	first, second, err := simplex.Clash(low, high, between)
	if err != nil {
		c.fail("accountability: views %d and %d: %v", low.View, high.View, err)
		return
	}
	var pair []simplex.Signed
	for _, st := range []consensus.Statement{first, second} {
		k := slices.IndexFunc(all, func(x simplex.Signed) bool { return x.Cert != nil && x.Cert.Statement == st })
		if k < 0 {
			c.fail("accountability: no honest machine holds the %s certificate of view %d that Clash names", st.Kind, st.View)
			return
		}
		pair = append(pair, all[k])
	}
	s.convict("the two certificates of a clash", pair)
	s.report.Clash = first.Kind.String() + " and " + second.Kind.String()
}

// held is what honest validators have synced: their own votes, and certificates.
func (s *simulation) held() (all []simplex.Signed) {
	for _, h := range s.hosts {
		if h.faulty() {
			continue
		}
		for _, r := range h.disk.records[:h.disk.syncedRecords] {
			if r.Vote != nil || r.Cert != nil {
				all = append(all, simplex.Signed{Vote: r.Vote, Cert: r.Cert})
			}
		}
	}
	return all
}

// convict checks whom a set of statements convicts.
func (s *simulation) convict(what string, all []simplex.Signed) (guilty []int) {
	var p consensus.Power
	for _, g := range simplex.Contradictions(s.o.Chain, s.o.Committee, s.o.Keys, all) {
		if !s.hosts[g.Validator].faulty() {
			s.check.fail("accountability: %s convicts the honest %d: %+v", what, g.Validator, g)
		}
		guilty = append(guilty, g.Validator)
		p += s.o.Committee.Validators[g.Validator].Power
	}
	if 3*p <= s.o.Committee.Total() {
		s.check.fail("accountability: %s convicts %v, %d of %d power", what, guilty, p, s.o.Committee.Total())
	}
	return guilty
}
