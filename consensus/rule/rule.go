// Package rule has the voting rule of consensus/simplex as data, proves from it with the solver z3 that validators agree,
// and checks the machine against it. The rule is in this file only, as formulas in the language of SMT-LIB. Three things
// read it:
//
//   - Obligations make questions for z3 out of it (model.go, obligations.go). Each asks for a counterexample among any
//     number of validators with any powers, any blocks and any number of views; the answer "unsat" says that there is none.
//   - Twins are the rule with one thing left out. For each obligation there is one that z3 must find a counterexample to:
//     so the obligation says something, and what was left out is needed.
//   - Broken evaluates the same formulas in a World made of what a running machine has received and sent. The tests hold
//     every vote of the machine in consensus/simplex against them.
//
// Beside that the tests hold the package comment of simplex against what covers its rules, and try every pattern in which
// a few rounds of messages can be lost, for the one rule that is about that (R14).
//
// # What is proved, and how
//
// The state is all votes that were ever sent, the certificates made from them, and what each validator remembers (model.go).
// It changes one action at a time: an honest validator acts as the rule allows, a faulty one sends any vote at any time.
// Messages are lost, delayed and repeated at will: that a certificate exists is all that it takes to act on it. The
// invariants hold at the start and each action keeps them: that is induction over the length of the run. What is claimed
// of blocks and certificates follows from the invariants; "every later block descends from a final one" is induction over
// views, and its obligation is the step. Powers come in by one fact only, that two quorums share an honest validator; it
// is proved by arithmetic, by induction over the validators.
//
// The model is of one epoch. What it says of the next is that there is one block to start from: whatever is proven final at the
// end of an epoch, of the last block or of an echo, leads down to the same last block (one-last-block), which the machines of the
// next epoch have for genesis. So the chains of all epochs are one.
//
// Not in the model: time, and so liveness; signatures, which are taken as unforgeable; the encodings.
// A certificate that a machine acts on is taken to exist, which R10 has checked. Bodies are valid or not, the same for
// everybody (R5). A synced or adopted root is taken as a parent because it is final.
//
// # Words in the formulas
//
// The parameters i, v and b are a validator, a view and a block. Sorts: Validator, View (integers), Block, Quorum. Of a
// block: (view b), (height b), (time b), (parent b), (right b) for R3's header, (valid b) for R5's body; genesis is in view 0.
// (ends b): its header ends the epoch; (echo b): it is an echo; (last b): b itself, or of an echo the block that it leads down to.
// Of a validator: (recall-notarize i v b), (recall-nullify i v), (recall-finalize i v b) are its own votes by its vote log;
// (judged i b): its verdict on b is valid; (leading i): the highest view it holds a certificate of, 0 for none;
// (decided i): the highest view it holds a finalization of; (floor i), R17; (lost i): it lost its vote log and has no floor
// yet; (reason i v): it has a reason of R7 to give v up; logged: the vote in question is in the vote log before it leaves.
// Of all: (notarization v b), (nullification v), (finalization v b): that certificate exists; (counted b): b counts as
// notarized (R4). In the evaluation "exists" means that the machine has received it, or the votes it is made of, in any
// of its lives.
package rule

import (
	"strconv"

	"tutti/consensus/simplex"
)

// Clause is one condition of the rule.
type Clause struct {
	Name string // for people, and for twins to leave it out
	Of   int    // the rule's number in package simplex
	Text string
	// Lasting says that it stays true once it is. What was lasting when a vote was sent can be relied on ever after.
	Lasting bool
}

// Rule is what an honest validator may do and when: for each act its clauses, which all must hold.
type Rule struct {
	// Of numbers: Quorum and Faulty are about the power p of a set of validators out of total, Power about one's own p.
	Quorum, Faulty, Power string

	Start []Clause // what holds before anything is sent

	Vote        []Clause // every vote of validator i in view v
	Notarize    []Clause // besides, a notarize vote for block b
	Nullify     []Clause // besides, a nullify vote
	Finalize    []Clause // besides, a finalize vote for block b
	Judge       []Clause // the verdict "valid" of i on b
	Count       []Clause // counting b as notarized, for a certificate of view v or for c, which counts already
	Certificate []Clause // making a certificate with the signers q of a statement, where (vote j) is j's vote for it
	Answer      []Clause // telling x, the view of the highest certificate that j holds, to one that has to make a floor
	Join        []Clause // making v the floor of i, that lost its log, from the answers of quorum q
}

// certifiedParent is what makes a parent certified: the own verdict, or that it is final, as after a block sync.
const certifiedParent = "(or (judged i (parent b)) (finalization (view (parent b)) (parent b)))"

// lists are all clauses.
func (r *Rule) lists() []*[]Clause {
	return []*[]Clause{&r.Start, &r.Vote, &r.Notarize, &r.Nullify, &r.Finalize, &r.Judge, &r.Count, &r.Certificate, &r.Answer, &r.Join}
}

// Simplex is the rule of package simplex.
func Simplex() Rule {
	return Rule{
		Quorum: "(> (* 3 p) (* 2 total))",
		Faulty: "(<= (* 3 p) total)",
		Power:  "(> p 0)",
		Start: []Clause{
			{Name: "no-votes", Of: 15, Text: `(forall ((i Validator) (v View) (b Block)) (and
				(not (notarize i v b)) (not (nullify i v)) (not (finalize i v b)) (not (voted i v))
				(not (recall-notarize i v b)) (not (recall-nullify i v)) (not (recall-finalize i v b)) (not (recall i v))))`},
			{Name: "no-certificates", Of: 10, Text: `(and (= top 0) (forall ((v View) (b Block))
				(and (not (notarization v b)) (not (nullification v)) (not (finalization v b)))))`},
			{Name: "all-on-genesis", Of: 1, Text: `(forall ((i Validator) (b Block))
				(and (= (counted b) (= b genesis)) (= (judged i b) (= b genesis))))`},
			{Name: "nothing-lost", Of: 17, Text: "(forall ((i Validator)) (and (= (leading i) 0) (= (floor i) 0) (not (lost i))))"},
		},
		Vote: []Clause{
			{Name: "logged-before-sent", Of: 8, Text: "logged"},
			{Name: "has-its-log", Of: 17, Text: "(not (lost i))"},
			{Name: "above-the-floor", Of: 17, Text: "(> v (floor i))"},
			{Name: "view-was-reached", Of: 1, Text: "(<= v (+ (leading i) 1))"},
			{Name: "not-decided", Of: 8, Text: "(> v (decided i))"},
		},
		Notarize: []Clause{
			{Name: "one-notarize", Of: 8, Text: "(forall ((c Block)) (not (recall-notarize i v c)))"},
			{Name: "notarize-before-nullify", Of: 3, Text: "(not (recall-nullify i v))"},
			{Name: "view-of-the-block", Of: 3, Text: "(= v (view b))", Lasting: true},
			{Name: "right-header", Of: 3, Text: "(right b)", Lasting: true},
			{Name: "view-above-parent", Of: 3, Text: "(> v (view (parent b)))", Lasting: true},
			{Name: "height-above-parent", Of: 3, Text: "(= (height b) (+ (height (parent b)) 1))", Lasting: true},
			{Name: "time-above-parent", Of: 3, Text: "(> (time b) (time (parent b)))", Lasting: true},
			{Name: "echo-where-due", Of: 21, Text: "(and (= (echo b) (ends (parent b))) (=> (echo b) (ends b)))", Lasting: true},
			{Name: "parent-notarized", Of: 3, Text: "(counted (parent b))", Lasting: true},
			{Name: "parent-certified", Of: 3, Text: certifiedParent, Lasting: true},
			{
				Name: "nullified-between", Of: 3, Lasting: true,
				Text: "(forall ((u View)) (=> (and (< (view (parent b)) u) (< u v)) (nullification u)))",
			},
		},
		Nullify: []Clause{
			{Name: "one-nullify", Of: 8, Text: "(not (recall-nullify i v))"},
			{Name: "nullify-without-finalize", Of: 7, Text: "(forall ((c Block)) (not (recall-finalize i v c)))"},
			{Name: "reason-to-nullify", Of: 7, Text: "(reason i v)"},
		},
		Finalize: []Clause{
			{Name: "one-finalize", Of: 8, Text: "(forall ((c Block)) (not (recall-finalize i v c)))"},
			{Name: "finalize-without-nullify", Of: 6, Text: "(not (recall-nullify i v))"},
			{Name: "view-of-the-final-block", Of: 6, Text: "(= v (view b))", Lasting: true},
			{Name: "final-notarized", Of: 6, Text: "(counted b)", Lasting: true},
			{Name: "final-certified", Of: 6, Text: "(judged i b)", Lasting: true},
		},
		Judge: []Clause{
			{Name: "judged-on-its-parent", Of: 5, Text: certifiedParent, Lasting: true},
			{Name: "judged-right", Of: 5, Text: "(right b)", Lasting: true},
			{Name: "judged-valid", Of: 5, Text: "(valid b)", Lasting: true},
		},
		Count: []Clause{
			{
				Name: "counted-for-a-reason", Of: 4,
				Text: `(or (and (= v (view b)) (or (notarization v b) (finalization v b)))
				           (and (counted c) (= b (parent c)) (not (= c genesis))))`,
			},
		},
		Certificate: []Clause{
			{Name: "signers-voted", Of: 10, Text: "(forall ((j Validator)) (=> (member q j) (vote j)))"},
		},
		Answer: []Clause{
			{Name: "answers-from-its-log", Of: 17, Text: "(not (lost j))"},
			{Name: "answers-above-its-floor", Of: 17, Text: "(>= (leading j) (floor j))"},
			{Name: "answers-the-highest", Of: 17, Text: "(= x (leading j))"},
		},
		Join: []Clause{
			{Name: "quorum-answered", Of: 17, Text: "(forall ((j Validator)) (=> (member q j) (answered i j)))"},
			{
				Name: "margin", Of: 17,
				Text: "(forall ((j Validator)) (=> (member q j) (>= v (+ (answer i j) " + strconv.Itoa(simplex.FloorMargin) + "))))",
			},
		},
	}
}
