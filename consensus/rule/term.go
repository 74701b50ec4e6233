package rule

import (
	"fmt"
	"strings"
)

// term is a formula or an expression: a symbol or number, or an operator with its arguments, as in SMT-LIB.
type term struct {
	word string // if it is a symbol or number
	list []term // else
}

// parse reads one term of SMT-LIB text. The texts are constants of this package: a bad one is a bug, and panics.
func parse(text string) term {
	words := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text))
	t, rest := parseWords(words)
	if len(rest) > 0 {
		panic(fmt.Sprintf("rule: %q goes on after the first term", text))
	}
	return t
}

func parseWords(words []string) (term, []string) {
	if len(words) == 0 {
		panic("rule: a term ends too early: a parenthesis is missing")
	}
	if words[0] != "(" {
		return term{word: words[0]}, words[1:]
	}
	t := term{list: []term{}}
	for words = words[1:]; len(words) > 0 && words[0] != ")"; {
		var arg term
		arg, words = parseWords(words)
		t.list = append(t.list, arg)
	}
	if len(words) == 0 {
		panic("rule: a term ends too early: a parenthesis is missing")
	}
	return t, words[1:]
}

func (t term) String() string {
	if t.list == nil {
		return t.word
	}
	parts := make([]string, len(t.list))
	for i, a := range t.list {
		parts[i] = a.String()
	}
	return "(" + strings.Join(parts, " ") + ")"
}

// quantified reports whether t is (forall (variables) body) or (exists ...), and takes it apart.
func (t term) quantified() (variables []term, body term, ok bool) {
	if len(t.list) == 3 && (t.list[0].word == "forall" || t.list[0].word == "exists") {
		return t.list[1].list, t.list[2], true
	}
	return nil, term{}, false
}

// rename is t with every word replaced that names has a replacement for.
func (t term) rename(names map[string]string) term {
	if t.list == nil {
		if to, ok := names[t.word]; ok {
			return term{word: to}
		}
		return t
	}
	list := make([]term, len(t.list))
	for i, a := range t.list {
		list[i] = a.rename(names)
	}
	return term{list: list}
}

// expand is t with every quantifier written out over the elements of its sort.
func (t term) expand(elements map[string][]string) term {
	if t.list == nil {
		return t
	}
	variables, body, ok := t.quantified()
	if !ok {
		list := make([]term, len(t.list))
		for i, a := range t.list {
			list[i] = a.expand(elements)
		}
		return term{list: list}
	}
	all := []term{body.expand(elements)}
	for _, v := range variables {
		var more []term
		for _, b := range all {
			for _, e := range elements[v.list[1].word] {
				more = append(more, b.rename(map[string]string{v.list[0].word: e}))
			}
		}
		all = more
	}
	op := "and"
	if t.list[0].word == "exists" {
		op = "or"
	}
	return term{list: append([]term{{word: op}}, all...)}
}
