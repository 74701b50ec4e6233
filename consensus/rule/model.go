package rule

import (
	"fmt"
	"strings"
)

// symbol is a relation or function of the model. If it is part of the state, next is its value after the action; it
// uses the symbols before the action and the action's parameters. If not, next is "".
type symbol struct {
	name, parameters, sort string // parameters as in SMT-LIB: "(i Validator) (v View)"
	next                   string
}

// act is what can happen. Which it is, is (= act NAME); its parameters are the constants a.i and a.j (validators), a.v (a
// view), a.b and a.c (blocks), a.q (a quorum), a.x (an answer) and a.logged (whether the vote is in the log when it leaves).
var acts = []string{
	"notarizes", "nullifies", "finalizes", // a.i votes in view a.v for block a.b
	"makes-notarization", "makes-nullification", "makes-finalization", // out of the votes of a.q
	"counts",        // a.b counts as notarized
	"judges",        // a.i judges a.b valid
	"learns",        // a.i takes in a certificate of view a.v
	"loses-its-log", // a.i
	"answers",       // a.j answers a.x to a.i
	"joins",         // a.i, with a floor at view a.v that the answers of a.q are the reason for
}

const votes = "(or (= act notarizes) (= act nullifies) (= act finalizes))"

// fixed are facts that no action changes.
var fixed = []symbol{
	{name: "honest", parameters: "(i Validator)", sort: "Bool"},
	{name: "power", parameters: "(i Validator)", sort: "Int"},
	{name: "member", parameters: "(q Quorum) (i Validator)", sort: "Bool"},
	{name: "view", parameters: "(b Block)", sort: "Int"},
	{name: "height", parameters: "(b Block)", sort: "Int"},
	{name: "time", parameters: "(b Block)", sort: "Int"},
	{name: "parent", parameters: "(b Block)", sort: "Block"},
	{name: "right", parameters: "(b Block)", sort: "Bool"},
	{name: "valid", parameters: "(b Block)", sort: "Bool"},
	{name: "ancestor", parameters: "(b Block) (h View)", sort: "Block"}, // the ancestor of b, or b, at height h
	{name: "ends", parameters: "(b Block)", sort: "Bool"},
	{name: "echo", parameters: "(b Block)", sort: "Bool"},
	{name: "last", parameters: "(b Block)", sort: "Block"},
	// What validators base a choice on that no obligation depends on: it may be anything at any time.
	{name: "reason", parameters: "(i Validator) (v View)", sort: "Bool"},
	{name: "decided", parameters: "(i Validator)", sort: "Int"},
}

// state is all that changes. notarize, nullify and finalize are the votes that were ever sent; voted is all of them.
// The recall relations are what is left of them in the vote log. A certificate comes with the quorum that it is from:
// by-notarize, by-nullify, by-finalize. top is the highest view of a certificate, 0 if there is none, and by-top its
// quorum. For who lost its log, lost-top and lost-by are what these were then; (answered i j) and (answer i j) is what
// it has heard from j since.
var state = []symbol{
	voteSymbol("notarize", "notarizes", "(i Validator) (v View) (b Block)"),
	voteSymbol("nullify", "nullifies", "(i Validator) (v View)"),
	voteSymbol("finalize", "finalizes", "(i Validator) (v View) (b Block)"),
	{"voted", "(i Validator) (v View)", "Bool", "(or (voted i v) (and " + votes + " (= i a.i) (= v a.v)))"},
	logSymbol("recall-notarize", "(= act notarizes) a.logged", "(i Validator) (v View) (b Block)"),
	logSymbol("recall-nullify", "(= act nullifies) a.logged", "(i Validator) (v View)"),
	logSymbol("recall-finalize", "(= act finalizes) a.logged", "(i Validator) (v View) (b Block)"),
	logSymbol("recall", votes+" a.logged", "(i Validator) (v View)"),
	certSymbol("notarization", "makes-notarization", "(v View) (b Block)"),
	certSymbol("nullification", "makes-nullification", "(v View)"),
	certSymbol("finalization", "makes-finalization", "(v View) (b Block)"),
	quorumSymbol("by-notarize", "notarization", "makes-notarization", "(v View) (b Block)"),
	quorumSymbol("by-nullify", "nullification", "makes-nullification", "(v View)"),
	quorumSymbol("by-finalize", "finalization", "makes-finalization", "(v View) (b Block)"),
	{"top", "", "Int", "(ite (and " + makes + " (> a.v top)) a.v top)"},
	{"by-top", "", "Quorum", "(ite (and " + makes + " (> a.v top)) a.q by-top)"},
	{"counted", "(b Block)", "Bool", "(or (counted b) (and (= act counts) (= b a.b)))"},
	{"judged", "(i Validator) (b Block)", "Bool", "(or (judged i b) (and (= act judges) (= i a.i) (= b a.b)))"},
	{"leading", "(i Validator)", "Int", `(ite (and (= act loses-its-log) (= i a.i)) 0
		(ite (and (= act learns) (= i a.i) (> a.v (leading i))) a.v (leading i)))`},
	{"lost", "(i Validator)", "Bool", `(or (and (lost i) (not (and (= act joins) (= i a.i))))
		(and (= act loses-its-log) (= i a.i)))`},
	{"floor", "(i Validator)", "Int", "(ite (and (= act joins) (= i a.i)) a.v (floor i))"},
	{"lost-top", "(i Validator)", "Int", "(ite (and (= act loses-its-log) (= i a.i)) top (lost-top i))"},
	{"lost-by", "(i Validator)", "Quorum", "(ite (and (= act loses-its-log) (= i a.i)) by-top (lost-by i))"},
	{"answered", "(i Validator) (j Validator)", "Bool", `(or (and (answered i j) (not (and (= act loses-its-log) (= i a.i))))
		(and (= act answers) (= i a.i) (= j a.j)))`},
	{"answer", "(i Validator) (j Validator)", "Int", "(ite (and (= act answers) (= i a.i) (= j a.j)) a.x (answer i j))"},
}

const makes = "(or (= act makes-notarization) (= act makes-nullification) (= act makes-finalization))"

// names are the names of parameters.
func names(parameters string) (list []string) {
	for _, p := range parse("(" + parameters + ")").list {
		list = append(list, p.list[0].word)
	}
	return list
}

// apply is a symbol on its own parameters.
func apply(name, parameters string) string {
	return strings.TrimSuffix("("+name+" "+strings.Join(names(parameters), " "), " ") + ")"
}

// isActed says that the parameters, except i's, are the action's.
func isActed(parameters string) string {
	var all []string
	for _, n := range names(parameters) {
		all = append(all, fmt.Sprintf("(= %s a.%s)", n, n))
	}
	return strings.Join(all, " ")
}

func voteSymbol(name, act, parameters string) symbol {
	return certSymbol(name, act, parameters) // both are there once they were made
}

func logSymbol(name, acted, parameters string) symbol {
	return symbol{name, parameters, "Bool", fmt.Sprintf("(or (and %s (not (and (= act loses-its-log) (= i a.i)))) (and %s %s))",
		apply(name, parameters), acted, isActed(parameters))}
}

func certSymbol(name, act, parameters string) symbol {
	return symbol{name, parameters, "Bool", fmt.Sprintf("(or %s (and (= act %s) %s))", apply(name, parameters), act, isActed(parameters))}
}

func quorumSymbol(name, cert, act, parameters string) symbol {
	return symbol{name, parameters, "Quorum", fmt.Sprintf("(ite (and (= act %s) %s (not %s)) a.q %s)",
		act, isActed(parameters), apply(cert, parameters), apply(name, parameters))}
}

// fact is a formula with a name and the rules that it is about.
type fact struct {
	name string
	of   []int
	text string
	with []string // an invariant is kept because of these, and of itself
}

// axioms are about what no action changes. The last two are what obligations of their own get from the powers.
var axioms = []fact{
	{name: "genesis", of: []int{1}, text: "(and (= (view genesis) 0) (= (height genesis) 0) (forall ((b Block)) (>= (view b) 0)))"},
	{name: "overlap", of: []int{10}, text: "(forall ((q Quorum) (r Quorum)) (exists ((i Validator)) (and (honest i) (member q i) (member r i))))"},
	{name: "some-honest", of: []int{10}, text: "(forall ((q Quorum)) (exists ((i Validator)) (and (honest i) (member q i))))"},
}

// invariants hold at the start, and every action keeps them. That what a vote stood on lasts is taken from the rule.
func invariants(r Rule) []fact {
	return []fact{
		// A vote is in the log, or not above the floor, or its log is lost and no floor is made yet.
		{"memory", []int{8, 15, 17}, `(forall ((i Validator) (v View) (b Block)) (and
			(=> (or (notarize i v b) (nullify i v) (finalize i v b)) (voted i v))
			(=> (honest i) (and
				(=> (notarize i v b) (or (recall-notarize i v b) (<= v (floor i)) (lost i)))
				(=> (nullify i v) (or (recall-nullify i v) (<= v (floor i)) (lost i)))
				(=> (finalize i v b) (or (recall-finalize i v b) (<= v (floor i)) (lost i)))
				(=> (voted i v) (or (recall i v) (<= v (floor i)) (lost i)))))))`, nil},
		{"one-notarize", []int{3, 8}, `(forall ((i Validator) (v View) (b Block) (c Block))
			(=> (and (honest i) (notarize i v b) (notarize i v c)) (= b c)))`, []string{"memory"}},
		{"one-finalize", []int{6, 8}, `(forall ((i Validator) (v View) (b Block) (c Block))
			(=> (and (honest i) (finalize i v b) (finalize i v c)) (= b c)))`, []string{"memory"}},
		{"never-both", []int{6, 7, 8}, `(forall ((i Validator) (v View) (b Block))
			(=> (honest i) (not (and (nullify i v) (finalize i v b)))))`, []string{"memory"}},
		{"notarize-stands", []int{3}, `(forall ((i Validator) (v View) (b Block))
			(=> (and (honest i) (notarize i v b)) ` + lasting(r.Notarize) + "))", nil},
		{"finalize-stands", []int{6}, `(forall ((i Validator) (v View) (b Block))
			(=> (and (honest i) (finalize i v b)) ` + lasting(r.Finalize) + "))", nil},
		{"verdict-stands", []int{5}, `(forall ((i Validator) (b Block))
			(=> (and (honest i) (judged i b) (not (= b genesis))) ` + lasting(r.Judge) + "))", nil},
		// A certificate has a quorum of votes behind it.
		{"certificate-stands", []int{10}, `(forall ((v View) (b Block) (i Validator)) (and
			(=> (and (notarization v b) (member (by-notarize v b) i)) (notarize i v b))
			(=> (and (nullification v) (member (by-nullify v) i)) (nullify i v))
			(=> (and (finalization v b) (member (by-finalize v b) i)) (finalize i v b))))`, nil},
		// What counts as notarized is notarized.
		{
			"counted-is-notarized",
			[]int{4},
			`(forall ((b Block))
			(=> (counted b) (or (= b genesis) (notarization (view b) b))))`,
			[]string{"some-honest", "notarize-stands", "finalize-stands", "certificate-stands"},
		},
		// Nobody votes more than a view above the highest certificate: its own, hence of all.
		{"view-follows-certificate", []int{1, 17}, `(and (>= top 0)
			(forall ((i Validator)) (=> (> top 0) (member by-top i) (voted i top)))
			(forall ((i Validator) (v View)) (=> (honest i) (and (<= (leading i) top) (>= (leading i) 0) (>= (floor i) 0)
				(=> (recall i v) (<= v (+ (leading i) 1)))
				(=> (voted i v) (<= v (+ top 1)))))))`, []string{"memory"}},
		// Who lost its log had not voted more than a view above what a quorum had voted in, and who of that quorum answers
		// tells a view no more than one below that.
		{"answers-are-high", []int{17}, `(forall ((i Validator)) (=> (honest i) (lost i) (and
			(forall ((v View)) (=> (voted i v) (<= v (+ (lost-top i) 1))))
			(forall ((j Validator)) (and
				(=> (and (> (lost-top i) 0) (member (lost-by i) j)) (voted j (lost-top i)))
				(=> (answered i j) (>= (answer i j) 0))
				(=> (and (answered i j) (honest j) (> (lost-top i) 0) (member (lost-by i) j))
					(>= (answer i j) (- (lost-top i) 1))))))))`, []string{"memory", "view-follows-certificate"}},
	}
}

// lasting is the conjunction of the lasting clauses.
func lasting(clauses []Clause) string {
	var all []Clause
	for _, c := range clauses {
		if c.Lasting {
			all = append(all, c)
		}
	}
	return all2and(all)
}

func all2and(clauses []Clause) string {
	text := "(and true"
	for _, c := range clauses {
		text += " " + c.Text
	}
	return text + ")"
}

// allowed says, for each act, when it can happen.
func allowed(r Rule) string {
	made := func(vote string) string { return strings.ReplaceAll(acted(r.Certificate), "(vote j)", vote) }
	guards := []string{
		"(=> (honest a.i) " + acted(r.Vote, r.Notarize) + ")",
		"(=> (honest a.i) " + acted(r.Vote, r.Nullify) + ")",
		"(=> (honest a.i) " + acted(r.Vote, r.Finalize) + ")",
		made("(notarize j a.v a.b)"),
		made("(nullify j a.v)"),
		made("(finalize j a.v a.b)"),
		acted(r.Count),
		"(=> (honest a.i) " + acted(r.Judge) + ")",
		"(<= a.v top)",
		"true",
		"(and (lost a.i) (>= a.x 0) (=> (honest a.j) " + acted(r.Answer) + "))",
		"(and (lost a.i) (>= a.v 0) (=> (honest a.i) " + acted(r.Join) + "))",
	}
	text := "(and (>= a.v 0)"
	for k, g := range guards {
		text += fmt.Sprintf("\n\t(=> (= act %s) %s)", acts[k], g)
	}
	return text + ")"
}

// acted is the conjunction of clauses about the action's parameters.
func acted(groups ...[]Clause) string {
	var all []Clause
	for _, g := range groups {
		all = append(all, g...)
	}
	parameters := map[string]string{}
	for _, p := range []string{"i", "j", "v", "b", "c", "q", "x", "logged"} {
		parameters[p] = "a." + p
	}
	return rebind(parse(all2and(all)), parameters).String()
}

// rebind is rename for free variables only.
func rebind(t term, to map[string]string) term {
	variables, body, ok := t.quantified()
	switch {
	case t.list == nil:
		return t.rename(to)
	case !ok:
		list := make([]term, len(t.list))
		for i, a := range t.list {
			list[i] = rebind(a, to)
		}
		return term{list: list}
	}
	inner := map[string]string{}
	for k, v := range to {
		inner[k] = v
	}
	for _, v := range variables {
		delete(inner, v.list[0].word)
	}
	return term{list: []term{t.list[0], t.list[1], rebind(body, inner)}}
}
