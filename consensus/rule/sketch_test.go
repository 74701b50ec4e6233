package rule

import (
	"fmt"
	"slices"
	"strings"
)

// told is what a sketch of a counterexample tells of the model.
var told = []string{
	"power", "honest", "view", "height", "parent", "member", "notarize", "nullify", "finalize", "notarization", "nullification", "finalization",
	"counted", "judged", "leading", "floor", "lost", "answered", "answer",
}

// questions asks z3 for the values of a counterexample.
func (o *Obligation) questions() string {
	var terms []string
	if o.kind == step {
		terms = append(terms, "act", "a.i", "a.j", "a.v", "a.b", "a.q", "a.x")
	}
	for _, v := range o.values {
		terms = append(terms, v.name)
	}
	if o.kind != ofPowers {
		for _, s := range slices.Concat(fixed, state) {
			if slices.Contains(told, s.name) {
				terms = append(terms, points(s)...)
			}
		}
	}
	return "(get-value (" + strings.Join(terms, " ") + "))\n"
}

// points are all applications of a symbol in scope.
func points(s symbol) []string {
	all := []string{"(" + s.name}
	for _, p := range parse("(" + s.parameters + ")").list {
		var more []string
		for _, a := range all {
			for _, e := range scope[p.list[1].word] {
				more = append(more, a+" "+e)
			}
		}
		all = more
	}
	for i := range all {
		all[i] += ")"
	}
	return all
}

// sketch makes z3's values readable: what is true, and what is not zero.
func (o *Obligation) sketch(answer string) string {
	var lines []string
	of := map[string][]string{}
	var order []string
	for _, pair := range parse(answer).list {
		point, value := pair.list[0], pair.list[1].String()
		name, text := point.word, value
		if point.list != nil {
			name = point.list[0].word
			var args []string
			for _, a := range point.list[1:] {
				args = append(args, a.String())
			}
			text = strings.Join(args, ",")
			if value != "true" {
				text += "=" + value
			}
		}
		if point.list != nil && (value == "false" || value == "0") {
			continue
		}
		if of[name] == nil {
			order = append(order, name)
		}
		of[name] = append(of[name], text)
	}
	for _, name := range order {
		lines = append(lines, fmt.Sprintf("        %s: %s", name, strings.Join(of[name], " ")))
	}
	return strings.Join(lines, "\n")
}
