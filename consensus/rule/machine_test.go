package rule

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

var (
	firstSeed = flag.Uint64("seed", 1, "TestVerifyMachineFollowsRule: the first seed")
	runs      = flag.Uint64("runs", 100, "TestVerifyMachineFollowsRule: how many")
)

// moves is the length of a run.
const moves = 500

// TestVerifyMachineFollowsRule drives the machine of consensus/simplex with random events, restarts and lost logs, and
// holds everything it does against the rule, evaluated over what the machine has received until then.
func TestVerifyMachineFollowsRule(t *testing.T) {
	var sent [4]int
	var finals, lives, losses, answers, ended int
	for seed := *firstSeed; seed < *firstSeed+*runs; seed++ {
		w := newWorld(seed)
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v\nagain: go test ./consensus/rule -run TestVerifyMachineFollowsRule -seed %d -runs 1", seed, err, seed)
		}
		for k, n := range w.sent {
			sent[k] += n
		}
		finals, lives, losses, answers = finals+len(w.chain)-1, lives+w.lives, losses+w.losses, answers+w.answers
		ended += w.ended
	}
	t.Logf("%d runs of %d moves: %d notarize, %d nullify and %d finalize votes by the rule, %d final blocks, %d lives, "+
		"%d lost logs, %d answers, %d epochs that ended",
		*runs, moves, sent[consensus.Notarize], sent[consensus.Nullify], sent[consensus.Finalize], finals, lives, losses, answers, ended)
	if min(sent[consensus.Notarize], sent[consensus.Nullify], sent[consensus.Finalize], finals, losses, answers) == 0 || *runs >= 100 && ended == 0 {
		t.Error("something never happens in this test")
	}
}

// TestVerifyPowers: the formulas about powers say what the committee computes.
func TestVerifyPowers(t *testing.T) {
	const largest = consensus.MaxTotalPower
	for _, total := range []consensus.Power{1, 2, 3, 4, 5, 6, 7, 100, 299, 300, 301, largest - 2, largest - 1, largest} {
		powers := []consensus.Power{total}
		if total > 1 {
			powers = []consensus.Power{total - total/2, total / 2}
		}
		w := &world{rule: Simplex(), c: simtest.Committee(1, powers...)}
		for d := consensus.Power(0); d < 5; d++ {
			third := total / 3
			for _, p := range []consensus.Power{d, total/2 + d, 2*third + d, total - min(total, d)} {
				p = min(p, total)
				if got := w.quorum(p); got != w.c.IsQuorum(p) {
					t.Errorf("power %d of %d: the rule says %v", p, total, got)
				}
			}
		}
	}
	if _, err := consensus.NewCommittee(1, 0, consensus.Hash{}, []consensus.Validator{{Power: 0}}); err == nil {
		t.Error("a validator without power, against Rule.Power")
	}
}

// world is what surrounds the machine: the other validators, who sign what they like as long as their certificates do
// not contradict each other, a disk, and an application. It remembers what the machine has received.
type world struct {
	rng     *rand.Rand
	rule    Rule
	c       *consensus.Committee
	index   int
	machine *simplex.Machine

	pool  []consensus.Block                     // made by anyone, genesis first
	named map[consensus.View]*[4]consensus.Hash // what the others' certificates are about, by kind; {1}: nullified
	fetch []consensus.Hash
	asked []consensus.Block // Certify not answered yet
	built []simplex.Build
	sync  *consensus.Certificate

	log   []simplex.Record
	disk  []consensus.Block
	chain []consensus.Block // final, genesis first
	tip   *consensus.Header // the last final one, that of a Ready in hand too

	received map[consensus.Hash]consensus.Block
	signed   map[consensus.Statement]map[int]bool // votes with good signatures, its own ones too
	certs    map[consensus.Statement]bool         // certificates, received or made of votes
	counted  map[consensus.Hash]bool              // what counts as notarized for them (R4)
	judged   map[consensus.Hash]bool
	gaveUp   map[consensus.View]bool // timers that fired, and nothing built
	unheard  map[int]int             // finalities of this life since anything came from a validator
	blamed   map[int]bool            // in this life
	floor    consensus.View
	voted    consensus.View // highest ever

	logged bool            // the vote in question is in the log
	tells  *consensus.View // the answer in question, else nil

	sent                   [4]int
	ended, after           int // epochs that ended, moves since
	lives, losses, answers int
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 5))
	powers := make([]consensus.Power, 4+rng.IntN(4))
	for i := range powers {
		powers[i] = consensus.Power(1 + rng.IntN(4))
	}
	w := &world{
		rng: rng, rule: Simplex(), c: simtest.Committee(seed, powers...), index: rng.IntN(len(powers)),
		named: map[consensus.View]*[4]consensus.Hash{}, received: map[consensus.Hash]consensus.Block{},
		signed: map[consensus.Statement]map[int]bool{}, certs: map[consensus.Statement]bool{}, counted: map[consensus.Hash]bool{},
		gaveUp: map[consensus.View]bool{},
	}
	genesis := consensus.Block{Header: simtest.Genesis(w.c)}
	w.pool, w.chain = []consensus.Block{genesis}, []consensus.Block{genesis}
	w.received[genesis.Header.Hash()], w.counted[genesis.Header.Hash()] = genesis, true
	return w
}

func (w *world) run() error {
	if err := w.life(); err != nil {
		return err
	}
	for range moves {
		if w.machine.Status().Over {
			w.after++
		}
		if w.after > 10 {
			return nil
		}
		if w.machine.Status().Halted {
			return nil // with the machine's own votes the others' certificates have contradicted each other after all
		}
		if err := w.move(); err != nil {
			return err
		}
		if err := w.answer(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) root() *consensus.Header { return w.chain[len(w.chain)-1].Header }

// life starts the machine from the disk.
func (w *world) life() error {
	w.lives++
	w.judged = map[consensus.Hash]bool{w.root().Hash(): true}
	w.asked, w.built, w.sync, w.fetch = nil, nil, nil, nil
	w.unheard, w.blamed = map[int]int{}, map[int]bool{}
	m, r, err := simplex.New(simplex.Config{
		Chain: simtest.Chain, Root: w.root(), Committee: w.c, Keys: simtest.NewKeys(len(w.c.Validators)), Index: w.index,
		Signer: simtest.NewKeys(len(w.c.Validators)).Signer(w.index), Log: w.log, Blocks: w.disk,
	})
	if err != nil {
		return fmt.Errorf("life %d: %w", w.lives, err)
	}
	w.machine, w.tip = m, w.root()
	return w.obey(r)
}

// lose takes the vote log away, and makes a floor no lower than any vote that left.
func (w *world) lose() error {
	w.losses++
	w.floor = w.voted + consensus.View(w.rng.IntN(3))
	w.log, w.disk = []simplex.Record{{Floor: &simplex.Floor{Shard: w.c.Shard, Epoch: w.c.Epoch, View: w.floor}}}, nil
	return w.life()
}

// obey does what a Ready asks for and checks it. Now and then the machine dies before all is persisted.
func (w *world) obey(r simplex.Ready) error {
	for _, a := range r.Apply {
		switch a := a.(type) {
		case simplex.Finalised:
			w.tip = a.Blocks[len(a.Blocks)-1].Header
			for i := range w.c.Validators {
				w.unheard[i]++
			}
		case simplex.Misbehaved:
			w.blamed[a.Validator] = true
		}
	}
	for _, b := range r.Persist.Blocks {
		if w.received[b.Header.Hash()].Header == nil { // its own echo: it asked nobody
			w.pool = append(w.pool, b)
			w.receive(b)
		}
	}
	if n := len(r.Persist.Records); n > 0 && w.rng.IntN(60) == 0 {
		w.disk = append(w.disk, r.Persist.Blocks...)
		if err := w.persist(r.Persist.Records[:w.rng.IntN(n+1)]); err != nil {
			return err
		}
		return w.life()
	}
	w.disk = append(w.disk, r.Persist.Blocks...)
	if err := w.persist(r.Persist.Records); err != nil {
		return err
	}
	for _, o := range r.Send {
		v := o.Vote
		if o.Proposal != nil {
			v = &o.Proposal.Vote
		}
		if v == nil {
			continue
		}
		w.voted = max(w.voted, v.View)
		if !w.recalls(v.Kind, v.View, v.Block) {
			if err := w.vote(v, false); err != nil {
				return err
			}
		}
	}
	for _, a := range r.Apply {
		if err := w.act(a); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) persist(records []simplex.Record) error {
	for _, rec := range records {
		if rec.Vote != nil {
			if err := w.vote(rec.Vote, true); err != nil {
				return err
			}
			w.voted = max(w.voted, rec.Vote.View)
		}
		w.log = append(w.log, rec)
	}
	return nil
}

// vote holds an own vote against the rule and counts it.
func (w *world) vote(v *consensus.Vote, logged bool) error {
	w.logged = logged
	w.sent[v.Kind]++
	if w.root().Ends() {
		return fmt.Errorf("%s in view %d after the end of the epoch", v.Kind, v.View)
	}
	clauses := map[consensus.Kind][]Clause{
		consensus.Notarize: w.rule.Notarize, consensus.Nullify: w.rule.Nullify, consensus.Finalize: w.rule.Finalize,
	}[v.Kind]
	what := fmt.Sprintf("%s in view %d", v.Kind, v.View)
	for _, list := range [][]Clause{w.rule.Vote, clauses} {
		if err := w.check(what, list, map[string]Value{"i": w.index, "v": int64(v.View), "b": v.Block}); err != nil {
			return err
		}
	}
	w.count(v.Statement, w.index)
	return nil
}

// check is an error that names the clauses that do not hold.
func (w *world) check(what string, clauses []Clause, parameters map[string]Value) error {
	broken, err := Broken(clauses, w, parameters)
	if err != nil || broken == nil {
		return err
	}
	return fmt.Errorf("%s breaks %s (R%d)", what, broken[0].Name, broken[0].Of)
}

// answer checks what the machine would tell one that has to make a floor.
func (w *world) answer() error {
	cert, ok := w.machine.Leading()
	if !ok {
		return nil
	}
	w.answers++
	w.tells = &cert.View
	defer func() { w.tells = nil }()
	return w.check("its answer", w.rule.Answer, map[string]Value{"j": w.index, "x": int64(cert.View)})
}

func (w *world) act(a simplex.Action) error {
	switch a := a.(type) {
	case simplex.SyncNeeded:
		w.sync = &a.Cert
	case simplex.Build:
		w.built = append(w.built, a)
	case simplex.Fetch:
		w.fetch = append(w.fetch, a.Block)
	case simplex.Certify:
		w.asked = append(w.asked, a.Block)
		before := []Clause{w.clause(w.rule.Judge, "judged-on-its-parent"), w.clause(w.rule.Judge, "judged-right")}
		return w.check("Certify", before, map[string]Value{"i": w.index, "b": a.Block.Header.Hash()})
	case simplex.Finalised:
		for _, b := range a.Blocks {
			what := []Clause{w.clause(w.rule.Finalize, "final-notarized"), w.clause(w.rule.Finalize, "final-certified")}
			if err := w.check("Finalised", what, map[string]Value{"i": w.index, "b": b.Header.Hash()}); err != nil {
				return err
			}
			if b.Header.IsEcho() {
				return fmt.Errorf("Finalised with the echo of view %d", b.Header.View)
			}
			w.chain = append(w.chain, b)
		}
		if w.root().Ends() {
			w.ended++
		}
	}
	return nil
}

func (w *world) clause(list []Clause, name string) Clause {
	for _, c := range list {
		if c.Name == name {
			return c
		}
	}
	panic("no clause " + name)
}

// Look gives the symbols of the rule their meaning for this machine, now.
func (w *world) Look(symbol string, args []Value) (Value, bool) {
	for _, a := range args {
		if h, ok := a.(consensus.Hash); ok && w.received[h].Header == nil {
			return w.unseen(symbol)
		}
	}
	block := func() consensus.Block { return w.received[args[len(args)-1].(consensus.Hash)] }
	switch symbol {
	case "logged":
		return w.logged, true
	case "lost":
		return false, true
	case "floor":
		return int64(w.floor), true
	case "leading":
		return w.highest(), true
	case "decided":
		return w.decided(), true
	case "reason":
		return w.reason(consensus.View(args[1].(int64))), true
	case "nullification":
		return w.certs[w.statement(consensus.Nullify, consensus.View(args[0].(int64)), consensus.Hash{})], true
	case "finalization":
		return w.certs[w.statement(consensus.Finalize, consensus.View(args[0].(int64)), args[1].(consensus.Hash))], true
	case "recall-nullify":
		return w.recalls(consensus.Nullify, consensus.View(args[1].(int64)), consensus.Hash{}), true
	case "recall-notarize":
		return w.recalls(consensus.Notarize, consensus.View(args[1].(int64)), args[2].(consensus.Hash)), true
	case "recall-finalize":
		return w.recalls(consensus.Finalize, consensus.View(args[1].(int64)), args[2].(consensus.Hash)), true
	case "view":
		return int64(block().Header.View), true
	case "height":
		return int64(block().Header.Height), true
	case "time":
		return int64(block().Header.TimeMs), true
	case "parent":
		return block().Header.Parent, true
	case "right":
		return w.right(block()), true
	case "ends":
		return block().Header.Ends(), true
	case "echo":
		return block().Header.IsEcho(), true
	case "counted":
		return w.counted[args[0].(consensus.Hash)], true
	case "judged":
		return w.certified(block()), true
	}
	return nil, false
}

// unseen is what holds of a block that the machine has never had: nothing.
func (w *world) unseen(symbol string) (Value, bool) {
	switch symbol {
	case "view", "height", "time":
		return int64(1) << 62, true
	case "parent":
		return consensus.Hash{}, true
	case "right", "ends", "echo", "counted", "judged", "finalization", "recall-notarize", "recall-finalize":
		return false, true
	}
	return nil, false
}

// Elements are the blocks that the machine has received, and the views up to the highest of them.
func (w *world) Elements(sort string) (all []Value) {
	switch sort {
	case "Block":
		for _, b := range w.pool {
			if h := b.Header.Hash(); w.received[h].Header != nil {
				all = append(all, h)
			}
		}
	case "View":
		for v := int64(0); v <= w.highest()+2; v++ {
			all = append(all, v)
		}
	}
	return all
}

// highest is the highest view of a certificate, or of the block that the machine began from.
func (w *world) highest() int64 {
	if w.tells != nil {
		return int64(*w.tells)
	}
	top := w.root().View
	for st := range w.certs {
		top = max(top, st.View)
	}
	return int64(top)
}

// decided is the highest view of a finalization in the log, from where a restart has it again.
func (w *world) decided() int64 {
	top := consensus.View(0)
	for _, rec := range w.log {
		if rec.Cert != nil && rec.Cert.Kind == consensus.Finalize {
			top = max(top, rec.Cert.View)
		}
	}
	return int64(top)
}

func (w *world) recalls(k consensus.Kind, v consensus.View, h consensus.Hash) bool {
	for _, rec := range w.log {
		if rec.Vote != nil && rec.Vote.Kind == k && rec.Vote.View == v && rec.Vote.Block == h {
			return true
		}
	}
	return false
}

// reason reports whether R7 lets the machine give view v up.
func (w *world) reason(v consensus.View) bool {
	const silence = 8 // finalities
	if l := w.c.Leader(v); w.gaveUp[v] || l != w.index && (w.blamed[l] || w.unheard[l] >= silence) {
		return true
	}
	for _, b := range w.received {
		if b.Header.View == v && w.bad(b) {
			return true
		}
	}
	return false
}

// bad reports whether a block is invalid as far as it and its ancestors here say: R5, and R3 of the header.
func (w *world) bad(b consensus.Block) bool {
	h := b.Header
	if !w.right(b) || bytes.HasPrefix(b.Body, []byte("x")) {
		return true
	}
	if h.Height <= w.tip.Height+1 && h.Parent != w.tip.Hash() {
		return true // beside the final chain
	}
	p, ok := w.received[h.Parent]
	return ok && (p.Header.Height+1 != h.Height || p.Header.TimeMs >= h.TimeMs || p.Header.View >= h.View || !echoes(b, p) || p.Header.View > 0 && w.bad(p))
}

func (w *world) right(b consensus.Block) bool {
	h := b.Header
	return h.Version == consensus.HeaderVersion && h.Chain == simtest.Chain && h.Shard == w.c.Shard && h.Epoch == w.c.Epoch &&
		h.Committee == w.c.Hash() && (h.Ends() || !h.IsEcho()) && h.Body.Matches(b.Body)
}

// certified reports whether the verdict on a block is valid here: of an echo, by itself.
func (w *world) certified(b consensus.Block) bool {
	p, ok := w.received[b.Header.Parent]
	if !b.Header.IsEcho() || !ok {
		return w.judged[b.Header.Hash()]
	}
	return w.right(b) && echoes(b, p) && w.certified(p)
}

// echoes reports whether a block is what R21 wants on its parent.
func echoes(b, p consensus.Block) bool {
	if !p.Header.Ends() {
		return !b.Header.IsEcho()
	}
	return consensus.Echo(p.Header, b.Header.View).Hash() == b.Header.Hash()
}

// quorum evaluates the rule's own formula.
func (w *world) quorum(power consensus.Power) bool {
	v, err := evaluate(parse(w.rule.Quorum), w, map[string]Value{"p": int64(power), "total": int64(w.c.Total())})
	return err == nil && v == true
}

// count notes a vote with a good signature, and the certificate that it may make.
func (w *world) count(st consensus.Statement, i int) {
	if w.signed[st] == nil {
		w.signed[st] = map[int]bool{}
	}
	w.signed[st][i] = true
	var power consensus.Power
	for j := range w.signed[st] {
		power += w.c.Validators[j].Power
	}
	if w.quorum(power) {
		w.certify(st)
	}
}

// certify notes a certificate.
func (w *world) certify(st consensus.Statement) {
	w.certs[st] = true
	w.connect()
}

// connect counts blocks as notarized (R4).
func (w *world) connect() {
	for changed := true; changed; {
		changed = false
		for h, b := range w.received {
			st := w.statement(consensus.Notarize, b.Header.View, h)
			fin := w.statement(consensus.Finalize, b.Header.View, h)
			if !w.counted[h] && (w.certs[st] || w.certs[fin]) {
				w.counted[h], changed = true, true
			}
			if w.counted[h] && !w.counted[b.Header.Parent] && b.Header.View > 0 {
				w.counted[b.Header.Parent], changed = true, true
			}
		}
	}
}

func (w *world) statement(k consensus.Kind, v consensus.View, h consensus.Hash) consensus.Statement {
	return consensus.Statement{Kind: k, Shard: w.c.Shard, Epoch: w.c.Epoch, View: v, Block: h}
}
