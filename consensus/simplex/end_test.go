package simplex_test

import (
	"strings"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// lastBlock is a block of view 1 that ends the epoch of a committee.
func lastBlock(c *consensus.Committee, parent *consensus.Header) consensus.Block {
	b := simtest.Child(c, parent, 1, []byte("last"))
	b.Header.NextCommittee = consensus.Hash{9}
	return b
}

// certify has a machine certify a block of view 1, and leave that view.
func certify(t *testing.T, m *simplex.Machine, c *consensus.Committee, b consensus.Block) {
	t.Helper()
	m.Step(simplex.ProposalReceived{From: c.Leader(1), Proposal: proposal(c, b)})
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, 1, b.Header.Hash()), []int{1, 2, 3})})
	m.Step(simplex.Judged{Block: b.Header.Hash(), Valid: true})
	if high := m.Status().Highest; high.Hash() != b.Header.Hash() {
		t.Fatalf("height %d is the highest certified", high.Height)
	}
}

// TestEchoes: on a block that ends the epoch nothing but the exact echo gets a vote (R21), whatever is wrong with it.
func TestEchoes(t *testing.T) {
	c, config := bench4()
	config.Index = 2 // which does not lead view 2
	config.Signer = simtest.NewKeys(4).Signer(2)
	for _, tc := range []struct {
		name   string
		change func(*consensus.Block)
		reason string
	}{
		{"the echo", func(*consensus.Block) {}, ""},
		{"outcomes", func(b *consensus.Block) { b.Header.Outcomes[0]++ }, "no echo on"},
		{"links", func(b *consensus.Block) { b.Header.Links = []consensus.Link{{Shard: 1}} }, "no echo on"},
		{"state", func(b *consensus.Block) { b.Header.State[0]++ }, "no echo on"},
		{"diff", func(b *consensus.Block) { b.Header.Diff[0]++ }, "no echo on"},
		{"time", func(b *consensus.Block) { b.Header.TimeMs++ }, "no echo on"},
		{"next committee", func(b *consensus.Block) { b.Header.NextCommittee[0]++ }, "no echo on"},
		{"a block that ends the epoch again", func(b *consensus.Block) { b.Header.Body = consensus.NewBodyRef(nil) }, "no echo on"},
		{"a block of an epoch that goes on", func(b *consensus.Block) {
			b.Header.Body, b.Header.NextCommittee = consensus.NewBodyRef(nil), b.Header.Committee
		}, "no echo on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, _, err := simplex.New(config)
			if err != nil {
				t.Fatal(err)
			}
			last := lastBlock(c, config.Root)
			certify(t, m, c, last)
			b := consensus.Block{Header: consensus.Echo(last.Header, 2)}
			tc.change(&b)
			r := m.Step(simplex.ProposalReceived{From: c.Leader(2), Proposal: proposal(c, b)})
			want := consensus.Nullify
			if tc.reason == "" {
				want = consensus.Notarize
			}
			if got := votes(r); len(got) != 1 || got[0] != want {
				t.Errorf("votes %v, want %s", got, want)
			}
			if got := misbehaved(r); !strings.Contains(got, tc.reason) || (tc.reason == "") != (got == "") {
				t.Errorf("blamed for %q, want %q", got, tc.reason)
			}
		})
	}
	t.Run("an echo of a block that does not end the epoch", func(t *testing.T) {
		m, _, err := simplex.New(config)
		if err != nil {
			t.Fatal(err)
		}
		a := simtest.Child(c, config.Root, 1, []byte("a"))
		certify(t, m, c, a)
		b := consensus.Block{Header: consensus.Echo(a.Header, 2)}
		b.Header.NextCommittee = consensus.Hash{9}
		r := m.Step(simplex.ProposalReceived{From: c.Leader(2), Proposal: proposal(c, b)})
		if got := misbehaved(r); !strings.Contains(got, "does not end") || len(votes(r)) != 1 || votes(r)[0] != consensus.Nullify {
			t.Errorf("votes %v, blamed for %q", votes(r), got)
		}
	})
	t.Run("an echo from the application", func(t *testing.T) {
		config.Index, config.Signer = 1, simtest.NewKeys(4).Signer(1) // which leads view 1
		m, _, err := simplex.New(config)
		if err != nil {
			t.Fatal(err)
		}
		b := consensus.Block{Header: consensus.Echo(config.Root, 1)}
		b.Header.NextCommittee = consensus.Hash{9}
		if r := m.Step(simplex.Built{View: 1, Block: &b}); !strings.Contains(misbehaved(r), "never makes") {
			t.Errorf("taken: %+v", r)
		}
	})
}

// TestEchoRoom: however many views the last block waits for its finality, there is room for an echo in the next (R12, R21).
func TestEchoRoom(t *testing.T) {
	c, config := bench4()
	config.Limits = simplex.Limits{Window: 3, Depth: 1, TailDepth: 2, TailBody: 0, Reach: 2}
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	last := lastBlock(c, config.Root)
	certify(t, m, c, last)
	at := last.Header
	for v := consensus.View(2); v < 40; v++ {
		h := consensus.Echo(at, v)
		if c.Leader(v) != config.Index {
			r := m.Step(simplex.ProposalReceived{From: c.Leader(v), Proposal: proposal(c, consensus.Block{Header: h})})
			if got := votes(r); len(got) != 1 || got[0] != consensus.Notarize {
				t.Fatalf("view %d: votes %v", v, got)
			}
		}
		m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, v, h.Hash()), []int{1, 2, 3})})
		if m.Status().View != v+1 {
			t.Fatalf("still in view %d: an echo was not certified", v)
		}
		at = h
	}
	r := m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Finalize, 39, at.Hash()), []int{1, 2, 3})})
	f, ok := r.Apply[0].(simplex.Finalised)
	if !ok || len(f.Blocks) != 1 || len(f.Echoes) != 38 || !m.Status().Over {
		t.Fatalf("over %v: %+v", m.Status().Over, r.Apply)
	}
	end := consensus.EpochEnd{Last: f.Blocks[0].Header, Echoes: f.Echoes, Cert: f.Cert}
	if err := c.VerifyEnd(simtest.Chain, config.Keys, &end); err != nil {
		t.Error(err)
	}
}

// TestRoots: an epoch starts from the last block of the one before, which names its committee, and from nothing else.
func TestRoots(t *testing.T) {
	c, config := bench4()
	next := simtest.Members(1, 5, []int{0, 2, 3, 4}, []consensus.Power{1, 2, 1, 1})
	last := lastBlock(c, config.Root).Header
	last.NextCommittee = next.Hash()
	config.Committee, config.Keys = next, simtest.KeysOf([]int{0, 2, 3, 4})
	other := *last
	other.NextCommittee[0]++
	early := *last
	early.Epoch, early.NextCommittee = 5, next.Hash()
	for _, tc := range []struct {
		name string
		root *consensus.Header
		good bool
	}{
		{"the last block", last, true},
		{"a block that does not end its epoch", config.Root, false},
		{"a block that names another committee", &other, false},
		{"an echo", consensus.Echo(last, 2), false},
		{"of another epoch", &early, false},
	} {
		config.Root = tc.root
		m, _, err := simplex.New(config)
		if (err == nil) != tc.good {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err == nil && (m.Status().View != 1 || m.Status().Over) {
			t.Errorf("%s: starts as %+v", tc.name, m.Status())
		}
	}
}

// TestNobodyAnswersAtTheEnd: while the epoch may be over a machine does not say how far it is (R17): who lost its log may have
// voted in the next epoch already, and must not take the answer for all there is.
func TestNobodyAnswersAtTheEnd(t *testing.T) {
	c, config := bench4()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	answers := func(want bool, when string) {
		t.Helper()
		if _, ok := m.Leading(); ok != want {
			t.Errorf("%s: answers %v", when, ok)
		}
	}
	answers(true, "at the start")
	last := lastBlock(c, config.Root)
	h := last.Header.Hash()
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, 1, h), []int{1, 2, 3})})
	answers(false, "a notarized block is not here")
	m.Step(simplex.BlockFetched{From: 1, Block: last})
	answers(false, "a notarized block ends the epoch")
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Finalize, 4, consensus.Hash{7}), []int{1, 2, 3})})
	answers(false, "views between are not known")
	if m, _, err = simplex.New(config); err != nil {
		t.Fatal(err)
	}
	certify(t, m, c, last)
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Finalize, 1, h), []int{1, 2, 3})})
	answers(false, "the epoch is over")
	if !m.Status().Over {
		t.Error("it is not over")
	}
}
