package rule

import (
	"flag"
	"fmt"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

var lossStride = flag.Uint64("loss-stride", 61, "TestVerifyRepeat: one in so many patterns of loss; 1: all")

// A run of TestVerifyRepeat is a few rounds of messages among three validators of four; the fourth is silent, so that
// every vote of the three counts. In two rounds that follow each other any of the links between them lose what they carry.
const (
	voters      = 3
	links       = voters * (voters - 1)
	patterns    = 1 << (2 * links)
	firstRounds = 7 // the first round with losses is one of so many
	healTicks   = 24
)

// loss is what goes wrong in a run.
type loss struct {
	from    int    // the first of the two rounds
	links   uint64 // a bit for each link in each of them
	timeout int    // the round before which all timers fire; -1: none
}

func (l loss) drops(round, from, to int) bool {
	if round < l.from || round > l.from+1 {
		return false
	}
	link := from*(voters-1) + to
	if to > from {
		link--
	}
	return l.links>>((round-l.from)*links+link)&1 == 1
}

// TestVerifyRepeat loses messages in every pattern (one in -loss-stride of them), and then lets nothing happen but ticks:
// no timer, no new block. Everybody has to get what one validator has (R14), and no vote may be lost for good.
func TestVerifyRepeat(t *testing.T) {
	var n, k uint64
	behind := 0
	for timeout := -1; timeout < 4; timeout++ {
		for from := range firstRounds {
			for p := range uint64(patterns) {
				if k++; k%*lossStride != 0 {
					continue
				}
				n++
				l := loss{from: from, links: p, timeout: timeout}
				was, err := newShard().run(l)
				if err != nil {
					t.Fatalf("pattern %d: %+v: %v", n, l, err)
				}
				behind += was
			}
		}
	}
	t.Logf("%d patterns of loss, one in %d; in %d somebody was behind", n, *lossStride, behind)
	if behind == 0 {
		t.Error("nobody was ever behind: nothing is tested")
	}
}

// shard is three machines, and the messages on their way.
type shard struct {
	c        *consensus.Committee
	machines [voters]*simplex.Machine
	flying   []letter
	timers   [voters]consensus.View
	blocks   map[consensus.Hash]consensus.Block
	building bool
	votes    map[consensus.Statement]int // how many have sent one
}

type letter struct {
	from, to int
	what     simplex.Outbound
}

func newShard() *shard {
	s := &shard{c: simtest.Committee(3, 1, 1, 1, 1), blocks: map[consensus.Hash]consensus.Block{}, votes: map[consensus.Statement]int{}, building: true}
	for i := range s.machines {
		m, r, err := simplex.New(simplex.Config{
			Chain: simtest.Chain, Root: simtest.Genesis(s.c), Committee: s.c, Keys: simtest.NewKeys(voters + 1),
			Signer: simtest.NewKeys(voters + 1).Signer(i), Index: i,
		})
		if err != nil {
			panic(err)
		}
		s.machines[i] = m
		s.obey(i, r)
	}
	return s
}

// obey puts messages on their way and answers for the application at once.
func (s *shard) obey(i int, r simplex.Ready) {
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil {
			s.votes[rec.Vote.Statement]++
		}
	}
	for _, o := range r.Send {
		for to := range voters {
			if to != i && (o.To == simplex.ToAll || o.To == to) {
				s.flying = append(s.flying, letter{i, to, o})
			}
		}
	}
	for _, a := range r.Apply {
		switch a := a.(type) {
		case simplex.SetTimer:
			s.timers[i] = a.View
		case simplex.Build:
			if s.building {
				b := simtest.Child(s.c, a.Parent, a.View, []byte{byte(a.View)})
				s.blocks[b.Header.Hash()] = b
				s.obey(i, s.machines[i].Step(simplex.Built{View: a.View, Block: &b}))
			}
		case simplex.Certify:
			s.obey(i, s.machines[i].Step(simplex.Judged{Block: a.Block.Header.Hash(), Valid: true}))
		case simplex.Fetch:
			s.answer(i, a.Block)
		}
	}
}

// answer is what the others know of a block: each is asked, since Fetch asks another one each time.
func (s *shard) answer(i int, h consensus.Hash) {
	for j, m := range s.machines {
		if b, cert, ok := m.Block(h); ok && j != i {
			s.obey(i, s.machines[i].Step(simplex.BlockFetched{From: j, Block: b, Notarization: cert}))
			return
		}
	}
	if b, ok := s.blocks[h]; ok { // from a block log, where it is final
		s.obey(i, s.machines[i].Step(simplex.BlockFetched{From: (i + 1) % voters, Block: b}))
	}
}

// round delivers what is on its way, but for what is lost.
func (s *shard) round(lost func(from, to int) bool) {
	now := s.flying
	s.flying = nil
	for _, l := range now {
		if lost(l.from, l.to) {
			continue
		}
		var e simplex.Event
		switch {
		case l.what.Proposal != nil:
			e = simplex.ProposalReceived{From: l.from, Proposal: l.what.Proposal}
		case l.what.Vote != nil:
			e = simplex.VoteReceived{From: l.from, Vote: *l.what.Vote}
		default:
			e = simplex.CertificateReceived{From: l.from, Cert: *l.what.Cert}
		}
		s.obey(l.to, s.machines[l.to].Step(e))
	}
}

// run is one run; was is 1 if somebody was behind when the losses ended.
func (s *shard) run(l loss) (was int, err error) {
	for round := range l.from + 2 {
		if round == l.timeout {
			for i, m := range s.machines {
				s.obey(i, m.Step(simplex.TimerFired{View: s.timers[i]}))
			}
		}
		s.round(func(from, to int) bool { return l.drops(round, from, to) })
	}
	s.building = false
	best, same := s.best()
	for range healTicks {
		for i, m := range s.machines {
			s.obey(i, m.Step(simplex.Tick{}))
		}
		for len(s.flying) > 0 {
			s.round(func(int, int) bool { return false })
		}
	}
	if !same {
		was = 1
	}
	after, same := s.best()
	best = best.and(s.owed(after.view))
	if !same || after != after.and(best) {
		var all []string
		for _, m := range s.machines {
			all = append(all, fmt.Sprintf("%+v", standing(m)))
		}
		return was, fmt.Errorf("after %d ticks: %v, not %+v", healTicks, all, best)
	}
	return was, nil
}

// stand is how far a validator is.
type stand struct{ view, highest, final consensus.View }

// and is the higher of each.
func (s stand) and(o stand) stand {
	return stand{max(s.view, o.view), max(s.highest, o.highest), max(s.final, o.final)}
}

func standing(m *simplex.Machine) stand {
	st := m.Status()
	return stand{st.View, st.Highest.View, st.Final.View}
}

// best is the most that any has of each; same, that all have it.
func (s *shard) best() (b stand, same bool) {
	same = true
	for _, m := range s.machines {
		st := standing(m)
		b = b.and(st)
	}
	for _, m := range s.machines {
		same = same && standing(m) == b
	}
	return b, same
}

// owed is what the votes that were sent have to bring about when all arrive: what all have voted for, and a block of the
// last view that its leader has proposed and nobody has given up.
func (s *shard) owed(last consensus.View) (b stand) {
	for st, n := range s.votes {
		switch {
		case n == voters && st.Kind == consensus.Nullify:
			b = b.and(stand{view: st.View + 1})
		case n == voters && st.Kind == consensus.Finalize:
			b = b.and(stand{final: st.View})
		case st.Kind == consensus.Notarize && (n == voters || st.View == last && s.votes[s.nullify(last)] == 0):
			b = b.and(stand{highest: st.View})
		}
	}
	return b
}

func (s *shard) nullify(v consensus.View) consensus.Statement {
	return consensus.Statement{Kind: consensus.Nullify, Shard: s.c.Shard, Epoch: s.c.Epoch, View: v}
}
