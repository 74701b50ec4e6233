package simplex_test

import (
	"strings"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// bench4 is a committee of four and the configuration of its validator 0, which leads views 2 and 5.
func bench4() (*consensus.Committee, simplex.Config) {
	c := simtest.Committee(1, 1, 1, 1, 1)
	return c, simplex.Config{
		Chain: simtest.Chain, Root: simtest.Genesis(c), Committee: c, Keys: simtest.NewKeys(4), Signer: simtest.NewKeys(4).Signer(0),
	}
}

func statement(c *consensus.Committee, k consensus.Kind, v consensus.View, h consensus.Hash) consensus.Statement {
	return consensus.Statement{Kind: k, Shard: c.Shard, Epoch: c.Epoch, View: v, Block: h}
}

func proposal(c *consensus.Committee, b consensus.Block) *consensus.Proposal {
	return &consensus.Proposal{Block: b, Vote: sign(c, statement(c, consensus.Notarize, b.Header.View, b.Header.Hash()), c.Leader(b.Header.View), false)}
}

func votes(r simplex.Ready) (kinds []consensus.Kind) {
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil {
			kinds = append(kinds, rec.Vote.Kind)
		}
	}
	return kinds
}

func misbehaved(r simplex.Ready) string {
	for _, a := range r.Apply {
		if m, ok := a.(simplex.Misbehaved); ok {
			return m.Reason
		}
	}
	return ""
}

// TestHeaders: R3's list. A wrong header costs its leader its place and its view, whether proposed or certified.
func TestHeaders(t *testing.T) {
	for _, tc := range []struct{ wrong, reason string }{
		{"none", ""},
		{"version", "unknown version"},
		{"chain", "another chain"},
		{"height", "wrong height"},
		{"time", "no later than its parent"},
		{"body", "does not commit to"},
		{"committee", "wrong committee"},
		{"echo", "in an epoch that goes on"},
	} {
		t.Run(tc.wrong, func(t *testing.T) {
			c, config := bench4()
			b := simtest.Child(c, config.Root, 1, []byte("x"))
			if spoil(b.Header, tc.wrong); b.Header.IsEcho() {
				b.Body = nil
			}
			m, _, err := simplex.New(config)
			if err != nil {
				t.Fatal(err)
			}
			r := m.Step(simplex.ProposalReceived{From: 1, Proposal: proposal(c, b)})
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
			// The same, notarized by the others and fetched: judged without the application.
			if tc.wrong == "body" {
				return // a body that does not match its header is no answer to a Fetch
			}
			m, _, _ = simplex.New(config)
			m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, 1, b.Header.Hash()), []int{1, 2, 3})})
			r = m.Step(simplex.BlockFetched{From: 1, Block: b})
			if tc.reason == "" {
				if len(r.Persist.Records) != 0 || len(r.Apply) != 2 {
					t.Errorf("a good block: %+v", r)
				}
			} else if got := votes(r); len(got) != 1 || got[0] != consensus.Nullify {
				t.Errorf("votes %v on a notarized block with a wrong header, want nullify", got)
			}
		})
	}
}

// TestParents: a parent that is not certified gets no vote (R3), and a final fork no verdict.
func TestParents(t *testing.T) {
	c, config := bench4()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a := simtest.Child(c, config.Root, 1, []byte("a"))
	m.Step(simplex.ProposalReceived{From: 1, Proposal: proposal(c, a)})
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Nullify, 1, consensus.Hash{}), []int{1, 2, 3})})
	m.Step(simplex.TimerFired{View: 2})
	m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Nullify, 2, consensus.Hash{}), []int{1, 2, 3})})
	b := simtest.Child(c, a.Header, 3, []byte("b"))
	if r := m.Step(simplex.ProposalReceived{From: 3, Proposal: proposal(c, b)}); len(votes(r)) != 0 {
		t.Errorf("voted on a parent without verdict or notarization: %v", votes(r))
	}
	if r := m.Step(simplex.Judged{Block: a.Header.Hash(), Valid: true}); len(votes(r)) != 0 {
		t.Errorf("voted on a valid parent without notarization: %v", votes(r))
	}
	r := m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, 1, a.Header.Hash()), []int{1, 2, 3})})
	if got := votes(r); len(got) != 2 || got[0] != consensus.Finalize || got[1] != consensus.Notarize {
		t.Errorf("votes %v once the parent is certified, want finalize of it (nullify was not sent there) and notarize", got)
	}
}

// TestNotarizedParent: a notarization without a verdict is not enough of a parent (R3).
func TestNotarizedParent(t *testing.T) {
	c, config := bench4()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a := simtest.Child(c, config.Root, 1, []byte("a"))
	m.Step(simplex.ProposalReceived{From: 1, Proposal: proposal(c, a)})
	for _, st := range []consensus.Statement{
		statement(c, consensus.Notarize, 1, a.Header.Hash()),
		statement(c, consensus.Nullify, 1, consensus.Hash{}), statement(c, consensus.Nullify, 2, consensus.Hash{}),
	} {
		m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, st, []int{1, 2, 3})})
	}
	if r := m.Step(simplex.ProposalReceived{From: 3, Proposal: proposal(c, simtest.Child(c, a.Header, 3, []byte("b")))}); len(votes(r)) != 0 {
		t.Errorf("voted on a parent without a verdict: %v", votes(r))
	}
}

// TestBounds: a long time without finality leaves one small record a view, and no bodies below the window.
func TestBounds(t *testing.T) {
	c, config := bench4()
	config.Limits = simplex.DefaultLimits()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	const views = 500
	for v := consensus.View(1); v <= views; v++ {
		for _, far := range []consensus.View{v, v + 7} {
			if l := c.Leader(far); l != 0 {
				m.Step(simplex.ProposalReceived{From: l, Proposal: proposal(c, simtest.Child(c, config.Root, far, []byte{byte(v)}))})
			}
			m.Step(simplex.VoteReceived{From: 2, Vote: sign(c, statement(c, consensus.Finalize, far, consensus.Hash{1}), 2, false)})
		}
		m.Step(simplex.TimerFired{View: v})
		m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Nullify, v, consensus.Hash{}), []int{1, 2, 3})})
	}
	s := m.Status()
	if most := 2*int(config.Limits.Window) + 1; s.View != views+1 || s.Blocks > most || s.Rounds > views+most {
		t.Errorf("view %d, %d blocks, %d rounds", s.View, s.Blocks, s.Rounds)
	}
	// What is beyond the window leaves nothing.
	before := m.Status()
	m.Step(simplex.VoteReceived{From: 2, Vote: sign(c, statement(c, consensus.Nullify, views+100, consensus.Hash{}), 2, false)})
	m.Step(simplex.ProposalReceived{From: 1, Proposal: proposal(c, simtest.Child(c, config.Root, views+100, nil))})
	if m.Status() != before {
		t.Errorf("%+v became %+v", before, m.Status())
	}
}

// TestSyncBounds: while block sync runs, hundreds of views go by and leave nothing, for all that is said about them.
func TestSyncBounds(t *testing.T) {
	c, config := bench4()
	config.Limits = simplex.DefaultLimits()
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	parent := simtest.Child(c, config.Root, 99, nil).Header
	for v := consensus.View(100); v < 600; v++ {
		b := simtest.Child(c, parent, v, nil)
		name := b.Header.Hash()
		m.Step(simplex.ProposalReceived{From: c.Leader(v), Proposal: proposal(c, b)})
		for _, k := range []consensus.Kind{consensus.Notarize, consensus.Finalize} {
			m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, k, v, name), []int{1, 2, 3})})
		}
		m.Step(simplex.CertificateReceived{From: 1, Cert: cert(c, statement(c, consensus.Notarize, 50+v/4, name), []int{1, 2, 3})})
		m.Step(simplex.VoteReceived{From: 2, Vote: sign(c, statement(c, consensus.Finalize, v-1, name), 2, false)})
		m.Step(simplex.TimerFired{View: m.Status().View})
		parent = b.Header
	}
	if s := m.Status(); !s.Syncing || s.View != 600 || s.Rounds > 3 || s.Blocks > 2 || s.Fetches != 0 {
		t.Errorf("%+v", s)
	}
}

// TestRestoredFinalize: an own finalize in the log vouches for its block, though the certificate is lost (R15).
func TestRestoredFinalize(t *testing.T) {
	c, config := bench4()
	a := simtest.Child(c, config.Root, 1, []byte("a"))
	v := sign(c, statement(c, consensus.Finalize, 1, a.Header.Hash()), 0, false)
	config.Log, config.Blocks = []simplex.Record{{Vote: &v}}, []consensus.Block{a}
	m, r, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	certify := false
	for _, x := range r.Apply {
		_, is := x.(simplex.Certify)
		certify = certify || is
	}
	if m.Step(simplex.Judged{Block: a.Header.Hash(), Valid: true}); !certify || m.Status().Highest.View != 1 {
		t.Errorf("verdict asked for: %t, highest certified view %d, want 1", certify, m.Status().Highest.View)
	}
}

// TestFloorMargin: what R17 argues with is reached: a validator may have voted FloorMargin views above anything that the
// others hold, and no further.
func TestFloorMargin(t *testing.T) {
	_, config := bench4()
	var machines []*simplex.Machine
	var timedOut []consensus.Vote
	for i := range 4 {
		config.Index, config.Signer = i, simtest.NewKeys(4).Signer(i)
		m, _, err := simplex.New(config)
		if err != nil {
			t.Fatal(err)
		}
		r := m.Step(simplex.TimerFired{View: 1})
		if len(r.Persist.Records) != 1 {
			t.Fatalf("validator %d at the timer: %+v", i, r)
		}
		machines, timedOut = append(machines, m), append(timedOut, *r.Persist.Records[0].Vote)
	}
	for i := 1; i < 4; i++ { // validator 0 alone hears the others
		machines[0].Step(simplex.VoteReceived{From: i, Vote: timedOut[i]})
	}
	machines[0].Step(simplex.TimerFired{View: 2})
	var told consensus.View
	for _, m := range machines[1:] {
		cert, ok := m.Leading()
		if !ok {
			t.Fatal("no answer")
		}
		told = max(told, cert.View)
	}
	if voted := machines[0].Status().View; voted != told+simplex.FloorMargin {
		t.Errorf("voted in view %d, the others tell of %d", voted, told)
	}
	if cert, ok := machines[0].Leading(); !ok || cert.View != 1 || cert.Kind != consensus.Nullify {
		t.Errorf("leading certificate %+v, %v", cert.Statement, ok)
	}
}

// TestBuiltWrong: the application's mistakes cost the view, not the promise.
func TestBuiltWrong(t *testing.T) {
	for _, wrong := range []string{"chain", "height", "parent", "time", "body", "committee", "view"} {
		t.Run(wrong, func(t *testing.T) {
			c, config := bench4()
			config.Index, config.Signer = 1, simtest.NewKeys(4).Signer(1)
			m, _, err := simplex.New(config)
			if err != nil {
				t.Fatal(err)
			}
			b := simtest.Child(c, config.Root, 1, []byte("x"))
			if spoil(b.Header, wrong); wrong == "view" {
				b.Header.View = 5
			}
			r := m.Step(simplex.Built{View: 1, Block: &b})
			if got := votes(r); len(got) != 1 || got[0] != consensus.Nullify || misbehaved(r) == "" {
				t.Errorf("votes %v, blamed for %q", got, misbehaved(r))
			}
		})
	}
}

// TestNew: logs that cannot be this validator's are refused.
func TestNew(t *testing.T) {
	c, good := bench4()
	b := simtest.Child(c, good.Root, 1, []byte("x")).Header.Hash()
	vote := func(k consensus.Kind, h consensus.Hash, i int) simplex.Record {
		v := sign(c, statement(c, k, 1, h), i, false)
		return simplex.Record{Vote: &v}
	}
	final := cert(c, statement(c, consensus.Finalize, 1, b), []int{0, 1, 2})
	null := cert(c, statement(c, consensus.Nullify, 1, consensus.Hash{}), []int{0, 1, 2})
	for _, tc := range []struct {
		name, wants string
		set         func(*simplex.Config)
	}{
		{"good", "", func(*simplex.Config) {}},
		{"no root", "no root", func(c *simplex.Config) { c.Root = nil }},
		{"index too high", "index 4 of 4", func(c *simplex.Config) { c.Index = 4 }},
		{"no signer", "without a signer", func(c *simplex.Config) { c.Signer = nil }},
		{"repeated vote", "", func(c *simplex.Config) {
			c.Log = []simplex.Record{vote(consensus.Notarize, b, 0), vote(consensus.Notarize, b, 0)}
		}},
		{"two notarize", "used twice", func(c *simplex.Config) {
			c.Log = []simplex.Record{vote(consensus.Notarize, b, 0), vote(consensus.Notarize, consensus.Hash{1}, 0)}
		}},
		{"finalize and nullify", "used twice", func(c *simplex.Config) {
			c.Log = []simplex.Record{vote(consensus.Finalize, b, 0), vote(consensus.Nullify, consensus.Hash{}, 0)}
		}},
		{"another validator's", "another node", func(c *simplex.Config) { c.Log = []simplex.Record{vote(consensus.Notarize, b, 2)} }},
		{"certificates contradict", "contradicts", func(c *simplex.Config) { c.Log = []simplex.Record{{Cert: &final}, {Cert: &null}} }},
		{"a vote below the floor", "not above the floor", func(c *simplex.Config) {
			c.Log = []simplex.Record{{Floor: &simplex.Floor{Shard: 3, View: 1}}, vote(consensus.Notarize, b, 0)}
		}},
		{"a floor of another epoch", "", func(c *simplex.Config) {
			c.Log = []simplex.Record{{Floor: &simplex.Floor{Shard: 3, Epoch: 9, View: 1}}, vote(consensus.Notarize, b, 0)}
		}},
		{"another epoch", "", func(c *simplex.Config) {
			v := sign(c.Committee, consensus.Statement{Kind: consensus.Nullify, Shard: 3, Epoch: 9, View: 1}, 2, false)
			c.Log = []simplex.Record{{Vote: &v}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := good
			tc.set(&config)
			_, _, err := simplex.New(config)
			if (err == nil) != (tc.wants == "") || (err != nil && !strings.Contains(err.Error(), tc.wants)) {
				t.Errorf("error %v, want %q", err, tc.wants)
			}
		})
	}
}

// dull keys find every single signature good and every sum bad.
type dull struct{ simtest.Keys }

func (dull) VerifyAggregate(consensus.Signers, []byte, consensus.Signature) bool { return false }

// TestBrokenKeys: the search for bad votes ends, and blames nobody, when the keys contradict themselves.
func TestBrokenKeys(t *testing.T) {
	c, config := bench4()
	config.Keys = dull{simtest.NewKeys(4)}
	m, _, err := simplex.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 4; i++ {
		r := m.Step(simplex.VoteReceived{From: i, Vote: sign(c, statement(c, consensus.Nullify, 1, consensus.Hash{}), i, false)})
		if misbehaved(r) != "" || m.Status().View != 1 {
			t.Errorf("vote %d: %+v", i, r)
		}
	}
}
