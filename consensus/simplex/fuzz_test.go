package simplex_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/shred/shredtest"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

var stepsSeed = flag.Uint64("seed", 0, "seed of TestRandomSteps; 0: a new one")

// FuzzStep plays a machine against three validators of four that lie at will: they hold a quorum, so certificates for
// anything exist. In half of the worlds their certificates do not contradict each other, which lasts longer. Own votes must not contradict each other over any number of crashes, nothing leaves before it is
// logged, and what is final is one chain of valid blocks (R8, R9, invariants).
func FuzzStep(f *testing.F) {
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 2))
		b := make([]byte, 600)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		w := newWorld(t, in)
		w.life(0)
		for len(w.in) > 0 && w.machine != nil {
			w.move()
		}
	})
}

// TestRandomSteps is the same on fresh random inputs.
func TestRandomSteps(t *testing.T) {
	seed := *stepsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test ./consensus/simplex -run TestRandomSteps -seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	var sent, final, lives int
	for range 400 {
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		w := newWorld(t, b)
		w.life(0)
		for len(w.in) > 0 && w.machine != nil {
			w.move()
		}
		sent, final, lives = sent+len(w.votes), final+len(w.chain)-1, lives+w.lives
	}
	t.Logf("%d votes, %d final blocks, %d lives", sent, final, lives)
	if sent == 0 || final == 0 {
		t.Error("nothing happens in this test")
	}
}

// world is what surrounds the machine: a pool of blocks of all kinds, a disk, an application.
type world struct {
	t       *testing.T
	in      []byte
	c       *consensus.Committee
	index   int
	machine *simplex.Machine
	ever    map[consensus.Hash]bool // judged valid in any life
	pool    []consensus.Block       // genesis first
	chain   []consensus.Block       // handed over as final
	valid   map[consensus.Hash]bool
	judge   []consensus.Block // Certify not answered yet
	builds  []simplex.Build
	rebuild []simplex.Rebuild // not answered yet
	sets    map[consensus.Hash]cutter
	sync    *consensus.Certificate // SyncNeeded not answered yet
	blocks  []consensus.Block
	log     []simplex.Record
	votes   map[string]consensus.Hash // own, ever sent, by kind and view
	voted   consensus.View            // highest of them
	floor   consensus.View            // of the last amnesia
	lives   int
	bodies  int

	tame  bool                                 // no contradicting certificates
	named map[consensus.View][4]consensus.Hash // what they certified, by kind
	good  map[consensus.Hash]bool              // blocks that are right all the way down
}

func newWorld(t *testing.T, in []byte) *world {
	c := simtest.Committee(1, 1, 1, 1, 1)
	w := &world{t: t, in: in, c: c, votes: make(map[string]consensus.Hash), sets: make(map[consensus.Hash]cutter)}
	w.pool = []consensus.Block{{Header: simtest.Genesis(c)}}
	w.chain = w.pool[:1:1]
	w.index, w.tame = w.pick(4), w.pick(2) == 0
	w.ever = map[consensus.Hash]bool{}
	w.named, w.good = make(map[consensus.View][4]consensus.Hash), map[consensus.Hash]bool{w.pool[0].Header.Hash(): true}
	return w
}

// pick is a number below n from the input.
func (w *world) pick(n int) int {
	if len(w.in) == 0 {
		return 0
	}
	b := w.in[0]
	w.in = w.in[1:]
	return int(b) % n
}

// life restarts from the disk, with the application lost bytes behind.
func (w *world) life(lost int) {
	if lost > 0 && len(w.chain) > 1 { // the last hand-over was not durable
		w.chain = w.chain[:len(w.chain)-1]
	}
	root := w.chain[len(w.chain)-1].Header
	w.lives++
	w.valid = map[consensus.Hash]bool{root.Hash(): true}
	w.judge, w.builds, w.rebuild, w.sync = nil, nil, nil, nil
	m, r, err := simplex.New(simplex.Config{
		Chain: simtest.Chain, Root: root, Committee: w.c, Keys: simtest.NewKeys(4), Signer: simtest.NewKeys(4).Signer(w.index), Index: w.index,
		Limits: simplex.Limits{Window: 4, Depth: 3, TailDepth: 6, TailBody: 4, Reach: 2}, Log: w.log, Blocks: w.blocks,
	})
	if w.machine = m; err != nil && strings.Contains(err.Error(), "certificate") && !w.tame {
		return // the liars' certificates contradict each other, and what showed it was dropped before: the end of this world
	} else if err != nil {
		w.t.Fatalf("life %d: %v", w.lives, err)
	}
	w.obey(r)
}

// amnesia is a life without the disk of those before, but with a floor no lower than any vote that left (R17).
func (w *world) amnesia() {
	f := simplex.Floor{Shard: w.c.Shard, Epoch: w.c.Epoch, View: w.voted + consensus.View(w.pick(3))}
	w.log, w.blocks = []simplex.Record{{Floor: &f}}, nil
	w.floor = f.View
	w.life(0)
}

// obey does what a Ready asks for. Now and then the machine dies halfway through the persisting.
func (w *world) obey(r simplex.Ready) {
	if len(r.Persist.Blocks)+len(r.Persist.Records) > 0 && len(w.in) > 0 && w.pick(32) == 0 {
		b := w.pick(len(r.Persist.Blocks) + 1)
		w.blocks = append(w.blocks, r.Persist.Blocks[:b]...)
		if b == len(r.Persist.Blocks) {
			w.log = append(w.log, r.Persist.Records[:w.pick(len(r.Persist.Records)+1)]...)
		}
		w.life(w.pick(2))
		return
	}
	w.blocks, w.log = append(w.blocks, r.Persist.Blocks...), append(w.log, r.Persist.Records...)
	for _, b := range r.Persist.Blocks {
		if _, known := w.good[b.Header.Hash()]; !known && b.Header.IsEcho() { // its own: it asked nobody
			w.pool, w.good[b.Header.Hash()] = append(w.pool, b), w.good[b.Header.Parent]
		}
	}
	for _, rec := range r.Persist.Records {
		if rec.Vote != nil && rec.Vote.Kind == consensus.Notarize {
			w.extends(rec.Vote)
			w.passedOn(rec.Vote, r.Send)
		}
	}
	for _, o := range r.Send {
		if o.Part != nil {
			w.partSent(o)
		}
		if o.Vote != nil {
			w.sent(o.Vote)
		}
		if o.Proposal != nil {
			w.sent(&o.Proposal.Vote)
			if !w.logged(o.Proposal.Block.Header.Hash()) {
				w.t.Fatal("a proposal that is not logged")
			}
		}
	}
	for _, a := range r.Apply {
		w.act(a)
	}
}

func (w *world) act(a simplex.Action) {
	switch a := a.(type) {
	case simplex.SyncNeeded:
		w.sync = &a.Cert
	case simplex.Build:
		w.builds = append(w.builds, a)
	case simplex.Rebuild:
		w.rebuild = append(w.rebuild, a)
	case simplex.Certify:
		if !w.valid[a.Block.Header.Parent] {
			w.t.Fatal("Certify on a parent that was not judged valid")
		}
		if !a.Block.Header.Body.Matches(a.Block.Body) {
			w.t.Fatal("Certify without the body")
		}
		w.judge = append(w.judge, a.Block)
	case simplex.Abandoned:
		if a.Block != w.chain[len(w.chain)-1].Header.Hash() {
			delete(w.valid, a.Block)
		}
	case simplex.Finalised:
		for _, b := range a.Blocks {
			if b.Header.IsEcho() {
				w.t.Fatalf("an echo handed over as height %d", b.Header.Height)
			}
			last := w.chain[len(w.chain)-1].Header
			if b.Header.Parent != last.Hash() || b.Header.Height != last.Height+1 || !w.valid[b.Header.Hash()] || bytes.HasPrefix(b.Body, []byte("x")) || !w.logged(b.Header.Hash()) {
				w.t.Fatalf("height %d final after %d", b.Header.Height, last.Height)
			}
			w.chain = append(w.chain, b)
		}
		if last := w.chain[len(w.chain)-1].Header; last.Ends() != w.machine.Status().Over {
			w.t.Fatalf("over: %v at height %d", !last.Ends(), last.Height)
		}
	case simplex.Evidence:
		if int(a.First.Validator) == w.index {
			w.t.Fatalf("evidence against itself: %+v", a)
		}
	case simplex.KeyElsewhere:
		w.t.Fatalf("its own vote is another's: %+v", a.Statement)
	}
}

// passedOn checks a vote to notarize a body in shards: with it goes the own part, unless the body is here.
func (w *world) passedOn(v *consensus.Vote, sent []simplex.Outbound) {
	h := w.machine.Header(v.Block)
	if h == nil || h.Body.Codec != consensus.CodecShards {
		return
	}
	if _, _, here := w.machine.Block(v.Block); here {
		return
	}
	for _, o := range sent {
		if o.Part != nil && int(o.Part.Validator) == w.index && o.Part.Vote.Block == v.Block {
			return
		}
	}
	w.t.Fatalf("votes in view %d with neither the body nor the own part", v.View)
}

// partSent checks a part that leaves: it is right, and either the own one or one of an own proposal, which is logged.
func (w *world) partSent(o simplex.Outbound) {
	leader := w.c.Leader(o.Part.Header.View)
	if err := shred.Check(w.c, o.Part); err != nil || int(o.Part.Vote.Validator) != leader ||
		!simtest.NewKeys(4).Verify(leader, consensus.VoteMessage(simtest.Chain, o.Part.Vote.Statement), o.Part.Vote.Signature) {
		w.t.Fatalf("sends a bad part: %v", err)
	}
	if leader != w.index && (int(o.Part.Validator) != w.index || o.To == leader) {
		w.t.Fatalf("passes the part of %d on to %d", o.Part.Validator, o.To)
	}
	if leader == w.index {
		w.sent(&o.Part.Vote)
		if !w.logged(o.Part.Vote.Block) || o.To != int(o.Part.Validator) {
			w.t.Fatal("a part of a proposal that is not logged, or another's")
		}
	}
}

func (w *world) logged(h consensus.Hash) bool {
	for _, b := range w.blocks {
		if b.Header.Hash() == h {
			return true
		}
	}
	return false
}

// sent checks an own vote against the log and all own votes before.
func (w *world) sent(v *consensus.Vote) {
	if w.chain[len(w.chain)-1].Header.Ends() {
		w.t.Fatalf("sends %+v when the epoch is over", v.Statement)
	}
	found := false
	for _, r := range w.log {
		found = found || (r.Vote != nil && *r.Vote == *v)
	}
	if !found || int(v.Validator) != w.index {
		w.t.Fatalf("sends %+v, which it has not logged", v.Statement)
	}
	key := func(k consensus.Kind) string { return fmt.Sprint(k, v.View) }
	if old, ok := w.votes[key(v.Kind)]; ok && old != v.Block {
		w.t.Fatalf("sends two %s in view %d", v.Kind, v.View)
	}
	w.votes[key(v.Kind)] = v.Block
	if w.voted = max(w.voted, v.View); v.View <= w.floor {
		w.t.Fatalf("sends %s in view %d with a floor at %d", v.Kind, v.View, w.floor)
	}
	_, n := w.votes[key(consensus.Nullify)]
	if _, f := w.votes[key(consensus.Finalize)]; n && f {
		w.t.Fatalf("sends nullify and finalize in view %d", v.View)
	}
}

// extends checks what R3 wants of a parent. Every certificate that a vote stands on is logged before it.
func (w *world) extends(v *consensus.Vote) {
	known := make(map[consensus.Hash]*consensus.Header)
	for i := range w.pool {
		known[w.pool[i].Header.Hash()] = w.pool[i].Header
	}
	p := known[known[v.Block].Parent]
	if p.Ends() && consensus.Echo(p, v.View).Hash() != v.Block {
		w.t.Fatalf("votes in view %d for no echo on the end of the epoch", v.View)
	}
	judged, is := p, w.valid
	for judged.IsEcho() { // valid by itself, on a last block that may have been dropped since
		judged, is = known[judged.Parent], w.ever
	}
	if !is[judged.Hash()] {
		w.t.Fatalf("votes in view %d on a parent without a verdict", v.View)
	}
	null, notarized := make(map[consensus.View]bool), map[consensus.Hash]bool{w.chain[len(w.chain)-1].Header.Hash(): true}
	for _, r := range w.log {
		if r.Cert == nil {
			continue
		}
		null[r.Cert.View] = null[r.Cert.View] || r.Cert.Kind == consensus.Nullify
		for h := known[r.Cert.Block]; h != nil; h = known[h.Parent] { // and its ancestors (R4)
			notarized[h.Hash()] = true
		}
	}
	if !notarized[p.Hash()] {
		w.t.Fatalf("votes in view %d on a parent without a notarization", v.View)
	}
	for u := p.View + 1; u < v.View; u++ {
		if !null[u] {
			w.t.Fatalf("votes in view %d on view %d without a nullification of view %d", v.View, p.View, u)
		}
	}
}

// synced answers a SyncNeeded: with the chain that was asked for if there is one, else with the end of the attempt.
func (w *world) synced() simplex.Event {
	cert := *w.sync
	w.sync = nil
	last := w.chain[len(w.chain)-1].Header
	known := make(map[consensus.Hash]consensus.Block)
	for _, b := range w.pool {
		known[b.Header.Hash()] = b
	}
	var more []consensus.Block
	for h := cert.Block; w.good[h] && known[cert.Block].Header.View == cert.View && h != last.Hash(); h = known[h].Header.Parent {
		if known[h].Header.Height <= last.Height {
			more = nil
			break
		}
		more = append(more, known[h])
	}
	for i := len(more) - 1; i >= 0; i-- {
		if w.blocks = append(w.blocks, more[i]); more[i].Header.IsEcho() {
			continue
		}
		w.chain = append(w.chain, more[i])
		w.valid[more[i].Header.Hash()], w.ever[more[i].Header.Hash()] = true, true
	}
	return simplex.Synced{Header: w.chain[len(w.chain)-1].Header, Cert: cert}
}

// view is near the current one.
func (w *world) view() consensus.View {
	if d := w.pick(40); d > 0 || w.tame {
		return max(2, w.machine.Status().View) + consensus.View(d%4) - 1
	}
	return ^consensus.View(0) - consensus.View(w.pick(4))
}

// block is one of the pool, most likely a recent one.
func (w *world) block() consensus.Block {
	if len(w.pool) > 6 && w.pick(4) > 0 {
		return w.pool[len(w.pool)-1-w.pick(6)]
	}
	return w.pool[w.pick(len(w.pool))]
}

// fresh makes a new block for the pool, at times invalid or malformed.
func (w *world) fresh(view consensus.View) consensus.Block {
	w.bodies++
	body := fmt.Appendf(nil, "%d", w.bodies)
	if w.pick(5) == 0 {
		body = append([]byte("x"), body...)
	}
	parent := w.block().Header
	if w.pick(4) > 0 {
		parent = w.machine.Status().Highest
	}
	b := simtest.Child(w.c, parent, view, body)
	right := w.good[b.Header.Parent] && body[0] != 'x' && view > parent.View
	switch {
	case parent.Ends() && w.pick(6) > 0:
		b = consensus.Block{Header: consensus.Echo(parent, view)}
		w.pool, w.good[b.Header.Hash()] = append(w.pool, b), w.good[b.Header.Parent] && view > parent.View
		return b
	case parent.Ends():
		right = false
	case w.pick(4) == 0:
		b.Header.NextCommittee[0]++
	}
	var set cutter
	switch w.pick(6) {
	case 0, 1:
		cut, err := shred.Cut(w.c, body)
		if err != nil {
			w.t.Fatal(err)
		}
		set, b.Header.Body = cut, cut.Ref()
	case 2:
		bad := shredtest.Spoil(w.c, body, w.pick(64))
		set, b.Header.Body, right = bad, bad.Ref, false
	}
	if w.pick(12) == 0 {
		spoil(b.Header, []string{"height", "time", "chain", "committee", "parent"}[w.pick(5)])
		right = false
	}
	w.pool, w.good[b.Header.Hash()] = append(w.pool, b), right
	if set != nil {
		w.sets[b.Header.Hash()] = set
	}
	return b
}

// part is a part of a block, at times with something wrong, from its validator, the leader or anybody.
func (w *world) part(b consensus.Block, i int) simplex.Event {
	leader := w.c.Leader(b.Header.View)
	vote := sign(w.c, statement(w.c, consensus.Notarize, b.Header.View, b.Header.Hash()), leader, w.pick(6) == 0)
	p := w.sets[b.Header.Hash()].Part(i, b.Header, vote).Clone()
	if w.pick(8) == 0 {
		p.Shards[w.pick(len(p.Shards))][0]++
	}
	from := i
	if i == w.index || w.pick(16) == 0 {
		from = leader
	}
	return simplex.PartReceived{From: from, Part: p}
}

// allowed reports whether a certificate contradicts none before, and notes it.
func (w *world) allowed(st consensus.Statement) bool {
	n := w.named[st.View]
	if st.Block == w.pool[0].Header.Hash() {
		return false // genesis has no view, so it can't be in this one
	}
	switch st.Kind {
	case consensus.Nullify:
		st.Block = consensus.Hash{1}
		if !n[consensus.Finalize].IsZero() {
			return false
		}
	case consensus.Finalize:
		if !n[consensus.Nullify].IsZero() || n[consensus.Notarize] != st.Block || !w.good[st.Block] {
			return false
		}
	case consensus.Notarize:
		if old := n[consensus.Notarize]; !old.IsZero() && old != st.Block {
			return false
		}
	}
	n[st.Kind] = st.Block
	w.named[st.View] = n
	return true
}

func (w *world) other() int {
	if i := w.pick(3); i < w.index {
		return i
	} else {
		return i + 1
	}
}

// statement is any that the liars may sign, about blocks in their own views mostly.
func (w *world) statement() consensus.Statement {
	k, b := consensus.Kind(1+w.pick(3)), w.block().Header
	if w.tame && k == consensus.Finalize && w.pick(2) == 0 {
		b = w.machine.Status().Highest
	}
	if k == consensus.Nullify {
		return statement(w.c, k, w.view(), consensus.Hash{})
	}
	if !w.tame && w.pick(20) == 0 {
		return statement(w.c, k, w.view(), b.Hash())
	}
	return statement(w.c, k, max(1, b.View), b.Hash())
}

// move makes one event.
func (w *world) move() {
	var e simplex.Event
	switch w.pick(15) {
	case 12, 13:
		b := w.block()
		if w.pick(2) == 0 {
			b = w.pool[len(w.pool)-1]
		}
		if w.sets[b.Header.Hash()] == nil || w.c.Leader(b.Header.View) == w.index {
			return
		}
		e = w.part(b, w.pick(4))
	case 14:
		if len(w.rebuild) == 0 {
			return
		}
		r := w.rebuild[0]
		w.rebuild = w.rebuild[1:]
		set, err := r.Parts.Rebuild()
		if bad := errors.Is(err, shred.ErrMalformed); err != nil && !bad {
			w.t.Fatal(err)
		}
		e = simplex.Rebuilt{Block: r.Block, Shreds: set}
	case 0:
		e = simplex.TimerFired{View: w.machine.Status().View}
	case 1:
		e = simplex.Tick{}
	case 2, 3:
		b := w.fresh(w.view())
		if w.c.Leader(b.Header.View) == w.index {
			return // they do not have its key
		}
		if e = (simplex.ProposalReceived{From: w.other(), Proposal: proposal(w.c, b)}); w.sets[b.Header.Hash()] != nil && w.pick(16) > 0 {
			e = w.part(b, w.pick(4))
		}
	case 4, 5:
		i, st := w.other(), w.statement()
		if w.tame && !w.allowed(st) {
			return // three such votes are a certificate
		}
		e = simplex.VoteReceived{From: i, Vote: sign(w.c, st, i, w.pick(12) == 0)}
	case 6:
		liars := []int{}
		for i := range 4 {
			if i != w.index {
				liars = append(liars, i)
			}
		}
		st := w.statement()
		if w.tame && !w.allowed(st) {
			return
		}
		e = simplex.CertificateReceived{From: w.other(), Cert: cert(w.c, st, liars)}
	case 7:
		e = simplex.BlockFetched{From: w.other(), Block: w.block()}
	case 8, 9:
		if len(w.judge) == 0 {
			return
		}
		b := w.judge[0]
		w.judge = w.judge[1:]
		good := !bytes.HasPrefix(b.Body, []byte("x"))
		if good {
			w.valid[b.Header.Hash()], w.ever[b.Header.Hash()] = true, true
		}
		e = simplex.Judged{Block: b.Header.Hash(), Valid: good}
	case 10:
		if len(w.builds) == 0 {
			return
		}
		b := w.builds[0]
		w.builds = w.builds[1:]
		w.bodies++
		bl := simtest.Child(w.c, b.Parent, b.View, fmt.Appendf(nil, "%d", w.bodies))
		built := simplex.Built{View: b.View, Block: &bl}
		if w.pick(3) == 0 {
			if bl.Header.Body = w.c.ShardsRef(bl.Body); w.pick(2) == 0 {
				built.Shreds, _ = shred.Cut(w.c, bl.Body)
			}
		}
		w.pool, w.good[bl.Header.Hash()] = append(w.pool, bl), w.good[bl.Header.Parent]
		e = built
	default:
		if w.sync != nil {
			e = w.synced()
			break
		}
		switch w.pick(16) {
		case 0:
			w.life(w.pick(2))
		case 1:
			w.amnesia()
		}
		return
	}
	w.obey(w.machine.Step(e))
}
