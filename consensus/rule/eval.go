package rule

import (
	"fmt"
	"strconv"
)

// Value is an int64, a bool, or what a World uses for blocks and validators.
type Value any

// World gives the symbols of a rule their meaning at one moment.
type World interface {
	// Look is the value of a symbol on these arguments; ok is false for one that it does not know.
	Look(symbol string, args []Value) (v Value, ok bool)
	// Elements are all of a sort that a quantifier is about: View or Block.
	Elements(sort string) []Value
}

// Broken are the clauses that do not hold in a world, with these values of the rule's parameters. The error says that a
// clause uses a symbol that the world does not know.
func Broken(clauses []Clause, w World, parameters map[string]Value) (broken []Clause, err error) {
	for _, c := range clauses {
		v, err := evaluate(parse(c.Text), w, parameters)
		if err != nil {
			return nil, fmt.Errorf("rule: clause %s: %w", c.Name, err)
		}
		if v != true {
			broken = append(broken, c)
		}
	}
	return broken, nil
}

func evaluate(t term, w World, env map[string]Value) (Value, error) {
	if t.list == nil {
		if v, ok := env[t.word]; ok {
			return v, nil
		}
		if n, err := strconv.ParseInt(t.word, 10, 64); err == nil {
			return n, nil
		}
		return look(w, t.word, nil)
	}
	if variables, body, ok := t.quantified(); ok {
		return quantify(t.list[0].word == "forall", variables, body, w, env)
	}
	op := t.list[0].word
	args := make([]Value, len(t.list)-1)
	for i, a := range t.list[1:] {
		v, err := evaluate(a, w, env)
		if err != nil {
			return nil, err
		}
		args[i] = v
		if b, isBool := v.(bool); isBool && (op == "and" && !b || op == "or" && b || op == "=>" && i == 0 && !b) {
			return op != "and", nil // the rest does not count, and need not make sense
		}
	}
	if v, ok := logic(op, args); ok {
		return v, nil
	}
	if v, ok := arithmetic(op, args); ok {
		return v, nil
	}
	return look(w, op, args)
}

func look(w World, symbol string, args []Value) (Value, error) {
	if v, ok := w.Look(symbol, args); ok {
		return v, nil
	}
	return nil, fmt.Errorf("no meaning for %s of %v", symbol, args)
}

func quantify(every bool, variables []term, body term, w World, env map[string]Value) (Value, error) {
	if len(variables) == 0 {
		return evaluate(body, w, env)
	}
	inner := make(map[string]Value, len(env)+1)
	for k, v := range env {
		inner[k] = v
	}
	for _, e := range w.Elements(variables[0].list[1].word) {
		inner[variables[0].list[0].word] = e
		if v, err := quantify(every, variables[1:], body, w, inner); err != nil || v != every {
			return v, err
		}
	}
	return every, nil
}

// logic is the value of an operator on truths, or of = on anything.
func logic(op string, args []Value) (v bool, ok bool) {
	switch op {
	case "and":
		return true, true // none is false
	case "or":
		return false, true // none is true
	case "=>":
		return args[1] == true, true
	case "not":
		return args[0] != true, true
	case "=":
		return args[0] == args[1], true
	}
	return false, false
}

// arithmetic is the value of an operator on two integers.
func arithmetic(op string, args []Value) (v Value, ok bool) {
	if len(args) != 2 {
		return nil, false
	}
	a, isA := args[0].(int64)
	b, isB := args[1].(int64)
	if !isA || !isB {
		return nil, false
	}
	switch op {
	case "+":
		return a + b, true
	case "-":
		return a - b, true
	case "*":
		return a * b, true
	case "<":
		return a < b, true
	case "<=":
		return a <= b, true
	case ">":
		return a > b, true
	case ">=":
		return a >= b, true
	}
	return nil, false
}
