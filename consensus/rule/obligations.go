package rule

import (
	"fmt"
	"slices"
	"strings"
)

// Obligation is something to prove: that its claim holds wherever its premises do.
type Obligation struct {
	Name string
	Of   []int // the rules of package simplex that it is about
	Says string

	kind   kind
	acts   []string // of a step: the actions; nil: all
	keeps  string   // of a step: the invariant
	uses   []string // axioms, invariants, and consequences proved before
	values []symbol // of a consequence: constants that the premises and the claim are about; of arithmetic: all symbols
	given  []string // premises of its own
	claim  string
}

type kind int

const (
	ofPowers    kind = iota // arithmetic, without the model
	base                    // the invariants hold at the start
	step                    // an action keeps an invariant
	consequence             // the invariants imply the claim
)

// sums are the powers of a first few validators: of all, of two quorums, of what is in both, of the faulty ones, of the
// honest ones in both, and in the first. met and met-one say that an honest one in both, and in the first, was among them.
var sums = []string{"total", "first", "second", "both", "faulty", "honest-both", "honest-first"}

// added relates the sums: it holds of no validators, and after one more if it held before.
const added = `(and (>= both (- (+ first second) total)) (>= honest-both (- both faulty)) (>= honest-first (- first faulty))
	(=> (> honest-both 0) met) (=> (> honest-first 0) met-one))`

func sumSymbols() (all []symbol) {
	for _, s := range sums {
		all = append(all, symbol{name: s, sort: "Int"})
	}
	for _, s := range []string{"met", "met-one", "in-first", "in-second", "is-faulty"} {
		all = append(all, symbol{name: s, sort: "Bool"})
	}
	return append(all, symbol{name: "p", sort: "Int"})
}

// of is a formula about a power p with another one in its place.
func of(formula, p string) string {
	return parse(formula).rename(map[string]string{"p": p}).String()
}

// withOneMore is added after one more validator, of power p.
func withOneMore() string {
	in := map[string]string{
		"total": "true", "first": "in-first", "second": "in-second", "both": "(and in-first in-second)", "faulty": "is-faulty",
		"honest-both": "(and in-first in-second (not is-faulty))", "honest-first": "(and in-first (not is-faulty))",
	}
	next := map[string]string{"met": "(or met " + in["honest-both"] + ")", "met-one": "(or met-one " + in["honest-first"] + ")"}
	for _, s := range sums {
		next[s] = "(+ " + s + " (ite " + in[s] + " p 0))"
	}
	return parse(added).rename(next).String()
}

// withNone is added of no validators.
func withNone() string {
	none := map[string]string{"met": "false", "met-one": "false"}
	for _, s := range sums {
		none[s] = "0"
	}
	return parse(added).rename(none).String()
}

const (
	isAncestorAt = "(forall ((h View)) (= (ancestor %[1]s h) (ite (<= (height %[1]s) h) %[1]s (ancestor (parent %[1]s) h))))"
	descends     = "(and (>= (height %[1]s) (height f)) (= (ancestor %[1]s (height f)) f))"
	atF          = "(= (ancestor %[1]s (height f)) (ite (<= (height %[1]s) (height f)) %[1]s (ancestor (parent %[1]s) (height f))))"
	leadsDown    = "(= (last b) (ite (echo b) (last (parent b)) b))"
	above        = "(and (notarization (view c) c) (> (height c) (height f)) (= (ancestor c (height f)) f))"
	onlyEchoes   = "(and (ends %[1]s) (echo %[1]s) (= (last %[1]s) (last f)))"
	finalF       = "(and (> (view f) 0) (finalization (view f) f))"
)

// Obligations are all that is to be proved of a rule. Those about powers come first; they are what the axioms of the
// others are taken from: overlap from quorums-overlap, some-honest from quorum-has-an-honest-member.
//
// Where the claims about chains use no axiom but some-honest, they hold with up to two thirds faulty, given
// one-notarized-block and nullified-or-final. So if two final blocks are ever not on one chain, then two certificates
// of one view contradict each other, and by evidence-is-a-third more than a third of the power has signed both.
func Obligations(r Rule) []Obligation {
	all := []Obligation{
		{
			Name: "powers-add-up", Of: []int{10},
			Says:  "sums over the validators, one by one, relate as the next three need it, for any number of them",
			given: []string{r.Power}, claim: "(and " + withNone() + " (=> " + added + " " + withOneMore() + "))",
		},
		{
			Name: "quorums-overlap", Of: []int{4, 10}, Says: "two quorums share an honest validator, if the faulty power is as bounded",
			given: []string{added, of(r.Quorum, "first"), of(r.Quorum, "second"), of(r.Faulty, "faulty")},
			claim: "met",
		},
		{
			Name: "quorum-has-an-honest-member", Of: []int{4, 10}, Says: "a quorum has an honest member while no more than two thirds are faulty",
			given: []string{added, of(r.Quorum, "first"), "(<= (* 3 faulty) (* 2 total))"}, claim: "met-one",
		},
		{
			Name: "evidence-is-a-third", Of: []int{10, 16}, Says: "more than a third of the power is in two quorums at once",
			given: []string{added, of(r.Quorum, "first"), of(r.Quorum, "second")}, claim: "(> (* 3 both) total)",
		},
	}
	for i := range all {
		all[i].values = sumSymbols()
	}
	all = append(all, Obligation{Name: "start", Of: []int{1, 8}, Says: "the invariants hold before anything is sent", kind: base})
	for _, inv := range invariants(r) {
		o := Obligation{Name: inv.name, Of: inv.of, Says: "kept by every action", kind: step, keeps: inv.name, uses: inv.with}
		if inv.name == "memory" {
			o.Says = "kept by every action but the making of a floor"
			o.acts = slices.DeleteFunc(slices.Clone(acts), func(a string) bool { return a == "joins" })
		}
		all = append(all, o)
	}
	return append(all,
		Obligation{
			Name: "floor-is-high-enough", Of: []int{17}, Says: "the floor is not below any view voted in before the log was lost",
			kind: step, keeps: "memory", acts: []string{"joins"}, uses: []string{"overlap", "answers-are-high", "view-follows-certificate"},
		},
		Obligation{
			Name: "one-notarized-block", Of: []int{4, 16}, Says: "at most one block of a view is notarized",
			kind: consequence, uses: []string{"overlap", "certificate-stands", "one-notarize"},
			claim: "(forall ((v View) (b Block) (c Block)) (=> (and (notarization v b) (notarization v c)) (= b c)))",
		},
		Obligation{
			Name: "nullified-or-final", Of: []int{8, 16}, Says: "no view is both nullified and final",
			kind: consequence, uses: []string{"overlap", "certificate-stands", "never-both"},
			claim: "(forall ((v View) (b Block)) (not (and (nullification v) (finalization v b))))",
		},
		Obligation{
			Name: "block-of-its-view", Of: []int{3, 6, 16}, Says: "a certificate is about a block of its own view",
			kind: consequence, uses: []string{"some-honest", "certificate-stands", "notarize-stands", "finalize-stands"},
			claim: "(forall ((v View) (b Block)) (=> (or (notarization v b) (finalization v b)) (= v (view b))))",
		},
		Obligation{
			Name: "final-is-notarized", Of: []int{6, 9}, Says: "a finalised block is notarized",
			kind: consequence, uses: []string{"some-honest", "certificate-stands", "finalize-stands", "counted-is-notarized", "genesis"},
			claim: "(forall ((v View) (b Block)) (=> (and (> v 0) (finalization v b)) (notarization v b)))",
		},
		Obligation{
			Name: "later-descends", Of: []int{2, 3, 9},
			Says: "a block notarized in a view above a final block's descends from it, if those of views between do",
			kind: consequence, values: []symbol{{name: "f", sort: "Block"}, {name: "b", sort: "Block"}},
			uses: []string{
				"genesis", "some-honest", "certificate-stands", "notarize-stands", "counted-is-notarized",
				"one-notarized-block", "nullified-or-final", "final-is-notarized",
			},
			given: []string{
				finalF, "(notarization (view b) b)", "(>= (view b) (view f))", fmt.Sprintf(isAncestorAt, "b"), fmt.Sprintf(isAncestorAt, "f"),
				"(forall ((c Block)) (=> (and (notarization (view c) c) (>= (view c) (view f)) (< (view c) (view b))) " +
					fmt.Sprintf(descends, "c") + "))",
			},
			claim: fmt.Sprintf(descends, "b"),
		},
		Obligation{
			Name: "one-chain", Of: []int{9, 16}, Says: "of two final blocks the one of the later view descends from the other",
			kind: consequence, values: []symbol{{name: "f", sort: "Block"}, {name: "g", sort: "Block"}},
			uses: []string{
				"some-honest", "certificate-stands", "notarize-stands", "finalize-stands",
				"final-is-notarized", "block-of-its-view", "later-descends",
			},
			given: []string{
				finalF, "(finalization (view g) g)", "(>= (view g) (view f))", fmt.Sprintf(isAncestorAt, "g"), fmt.Sprintf(isAncestorAt, "f"),
			},
			claim: fmt.Sprintf(descends, "g"),
		},
		Obligation{
			Name: "echoes-follow", Of: []int{21},
			Says: "above a final block that ends the epoch nothing is notarized but echoes of the same last block, if that holds of lower heights",
			kind: consequence, values: []symbol{{name: "f", sort: "Block"}, {name: "b", sort: "Block"}},
			uses: []string{
				"genesis", "some-honest", "certificate-stands", "notarize-stands", "counted-is-notarized", "final-is-notarized",
			},
			given: []string{
				finalF, "(ends f)", "(>= (height f) 0)", leadsDown, fmt.Sprintf(atF, "b"), fmt.Sprintf(atF, "(parent b)"), fmt.Sprintf(atF, "genesis"),
				strings.ReplaceAll(above, " c", " b"),
				"(forall ((c Block)) (=> (and " + above + " (< (height c) (height b))) " + fmt.Sprintf(onlyEchoes, "c") + "))",
			},
			claim: fmt.Sprintf(onlyEchoes, "b"),
		},
		Obligation{
			Name: "one-last-block", Of: []int{20, 22},
			Says: "whatever is final from the end of an epoch on leads down to one last block",
			kind: consequence, values: []symbol{{name: "f", sort: "Block"}, {name: "g", sort: "Block"}},
			uses: []string{"some-honest", "certificate-stands", "final-is-notarized", "one-chain", "echoes-follow"},
			given: []string{
				finalF, "(ends f)", "(>= (height f) 0)",
				"(finalization (view g) g)", "(>= (view g) (view f))", fmt.Sprintf(isAncestorAt, "g"), fmt.Sprintf(isAncestorAt, "f"),
			},
			claim: "(and (ends g) (= (last g) (last f)))",
		},
		Obligation{
			Name: "final-is-certified", Of: []int{5, 6, 9, 16},
			Says: "some honest validator judged a finalised block valid, and before it its parent, if that was not final",
			kind: consequence, values: []symbol{{name: "f", sort: "Block"}},
			uses:  []string{"some-honest", "certificate-stands", "finalize-stands", "verdict-stands"},
			given: []string{finalF},
			claim: `(exists ((i Validator)) (and (honest i) (judged i f) (or (= f genesis)
				(and (valid f) (or (judged i (parent f)) (finalization (view (parent f)) (parent f)))))))`,
		},
	)
}

// lemma is what a proved consequence says, for the constants of a later one.
func (o *Obligation) lemma() string {
	if o.Name == "later-descends" {
		return "(forall ((c Block)) (=> (and (notarization (view c) c) (>= (view c) (view f))) " + fmt.Sprintf(descends, "c") + "))"
	}
	if o.Name == "echoes-follow" {
		return "(forall ((c Block)) (=> " + above + " " + fmt.Sprintf(onlyEchoes, "c") + "))"
	}
	return o.claim
}

// scope bounds the search for a counterexample: quantifiers are written out over these elements, so that z3 always
// comes to an end. Relations are false of views outside. A counterexample in it is one without it.
var scope = map[string][]string{
	"Validator": {"V1", "V2", "V3", "V4"},
	"Block":     {"genesis", "B1", "B2", "B3"},
	"Quorum":    {"Q1", "Q2"},
	"View":      {"0", "1", "2", "3"},
}

// script asks for a counterexample to an obligation of the rule r. Twins pass the rule that they were made from as
// whole, and what is proved of that only as unproved; all these are empty for r itself. With bounded the search is in
// scope; with premises only it is for anything at all that the premises allow.
func (o *Obligation) script(r, whole Rule, unproved []string, bounded, premises bool) string {
	s := &script{bounded: bounded}
	if o.kind == ofPowers {
		s.declare(o.values)
		s.assert(o.given...)
		if bounded { // numbers that are easy to read
			s.assert("(<= total 100)")
		}
	} else {
		s.sorts()
		s.declare(fixed)
		s.declare(state)
		s.declare(o.values)
		if bounded {
			s.bounds(r)
		}
		o.premises(s, r, whole, unproved)
	}
	if !premises {
		s.assert("(not " + o.goal(whole) + ")")
	}
	return s.text()
}

// premises states all that the claim may rely on.
func (o *Obligation) premises(s *script, r, whole Rule, unproved []string) {
	for _, a := range axioms {
		writtenOut := s.bounded && a.name != "genesis" // as powers
		if !writtenOut && (s.bounded || slices.Contains(o.uses, a.name)) {
			s.assert(a.text)
		}
	}
	switch o.kind {
	case base:
		s.assert(all2and(r.Start))
	case step:
		for _, f := range invariants(r) {
			if s.bounded || slices.Contains(o.uses, f.name) { // a counterexample is of a state in which all hold
				s.assert(f.text)
			}
		}
		s.assert(o.kept(whole).text, allowed(r))
		if o.acts != nil {
			s.assert("(or (= act " + strings.Join(o.acts, ") (= act ") + "))")
		}
		s.next()
	case consequence:
		for _, f := range invariants(r) {
			follows := strings.HasSuffix(f.name, "-stands") // from the rule as it is now
			if slices.Contains(o.uses, f.name) && (follows || !slices.Contains(unproved, f.name)) {
				s.assert(f.text)
			}
		}
		for _, l := range Obligations(r) {
			if l.kind == consequence && slices.Contains(o.uses, l.Name) && !slices.Contains(unproved, l.Name) {
				s.assert(l.lemma())
			}
		}
		s.assert(o.given...)
	}
}

// goal is what is to be shown.
func (o *Obligation) goal(whole Rule) string {
	switch o.kind {
	case ofPowers, consequence:
		return o.claim
	case step:
		return rebind(parse(o.kept(whole).text), nextNames()).String()
	}
	text := "(and"
	for _, f := range invariants(whole) {
		text += " " + f.text
	}
	return text + ")"
}

// kept is the invariant of a step.
func (o *Obligation) kept(r Rule) fact {
	all := invariants(r)
	return all[slices.IndexFunc(all, func(f fact) bool { return f.name == o.keeps })]
}

func nextNames() map[string]string {
	to := map[string]string{}
	for _, s := range state {
		to[s.name] = s.name + ".next"
	}
	return to
}

// script is SMT-LIB text in the making.
type script struct {
	bounded bool
	lines   []string
}

func (s *script) text() string { return strings.Join(s.lines, "\n") + "\n(check-sat)\n" }

func (s *script) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *script) assert(texts ...string) {
	for _, text := range texts {
		t := parse(text)
		if s.bounded {
			t = t.expand(scope)
		}
		s.add("(assert %s)", t)
	}
}

func (s *script) sorts() {
	s.add("(define-sort View () Int)")
	s.add("(declare-datatypes () ((Act %s)))", strings.Join(acts, " "))
	for _, sort := range []string{"Validator", "Block", "Quorum"} {
		if s.bounded {
			s.add("(declare-datatypes () ((%s %s)))", sort, strings.Join(scope[sort], " "))
		} else {
			s.add("(declare-sort %s 0)", sort)
		}
	}
	if !s.bounded {
		s.add("(declare-const genesis Block)")
	}
	s.add("(declare-const act Act)")
	s.declare([]symbol{
		{name: "a.i", sort: "Validator"},
		{name: "a.j", sort: "Validator"},
		{name: "a.v", sort: "Int"},
		{name: "a.x", sort: "Int"},
		{name: "a.logged", sort: "Bool"},
		{name: "a.b", sort: "Block"},
		{name: "a.c", sort: "Block"},
		{name: "a.q", sort: "Quorum"},
	})
}

func (s *script) declare(symbols []symbol) {
	for _, x := range symbols {
		var sorts []string
		if x.parameters != "" {
			for _, p := range parse("(" + x.parameters + ")").list {
				sorts = append(sorts, p.list[1].word)
			}
		}
		s.add("(declare-fun %s (%s) %s)", x.name, strings.Join(sorts, " "), x.sort)
	}
}

// next defines the state after the action.
func (s *script) next() {
	for _, x := range state {
		s.add("(define-fun %s.next (%s) %s %s)", x.name, x.parameters, x.sort, parse(x.next))
	}
}

// bounds keeps numbers within scope, and makes quorums of powers.
func (s *script) bounds(r Rule) {
	sum := func(of string) string {
		text := "(+"
		for _, v := range scope["Validator"] {
			text += fmt.Sprintf(" (ite %s (power %s) 0)", parse(of).rename(map[string]string{"i": v}), v)
		}
		return text + ")"
	}
	within := func(formula, power string) string {
		return parse(formula).rename(map[string]string{"p": power, "total": sum("true")}).String()
	}
	s.assert("(forall ((i Validator)) (and (> (power i) 0) (< (power i) 10)))")
	s.assert(within(r.Faulty, sum("(not (honest i))")))
	for _, q := range scope["Quorum"] {
		s.assert(within(r.Quorum, sum("(member "+q+" i)")))
	}
	const most = 3 // view and height
	s.assert(fmt.Sprintf(`(and (<= 0 a.v) (or (= act joins) (<= a.v %[1]d)) (<= 0 top %[1]d)
		(forall ((b Block)) (and (<= 0 (view b) %[1]d) (<= 0 (height b) %[1]d)))
		(forall ((i Validator)) (and (<= 0 (lost-top i) %[1]d) (<= 0 (leading i) 9) (<= 0 (floor i) 9) (<= 0 (decided i) 9))))`, most))
}
