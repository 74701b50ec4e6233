package explore

import "tutti/consensus"

// compile steps the machines. It finds every place that a validator could come to if all that any honest validator may
// ever say were there from the start; what a world's validators come to is among them. From then on a world is numbers.
func (x *explorer) compile() {
	for grown := true; grown; {
		x.suppose()
		grown = false
		for j, k := range x.kins {
			for at := 0; at < len(k.places); at++ {
				if at%1024 == 0 && x.enough(0) {
					return
				}
				l := k.places[at]
				x.enabled(l, func(e int) bool {
					if (len(l.next) <= e || l.next[e] == unknown) && x.possible(l, e) {
						_, _ = x.follow(j, l, at, e) // what fails counts when a world comes to it
						grown = true
					}
					return true
				})
				l.m = nil
			}
		}
	}
	for _, k := range x.kins {
		if x.enough(0) {
			return
		}
		x.favour(k)
	}
	x.compiled = true
}

// possible is false for a certificate that cannot be in one world with what a place was told: check would say so. That it
// would makes this sound: the first world that shows the contrary is reached through what was compiled, and fails there.
func (x *explorer) possible(l *local, e int) bool {
	if x.events[e].what != certificate {
		return true
	}
	text := x.messages[x.events[e].of]
	if l.root != 0 && x.excludes(message{consensus.Finalize, x.blocks[l.root].view, l.root}, text) != "" {
		return false
	}
	for m, told := range x.messages {
		if l.told.has(m) && x.excludes(told, text) != "" {
			return false
		}
	}
	return true
}

// suppose makes everything available that could ever be.
func (x *explorer) suppose() {
	x.heard = set{}
	var power [setSize]consensus.Power
	for _, k := range x.kins {
		var by set
		for _, l := range k.places {
			by.join(&l.sent)
		}
		for m := range x.messages {
			if by.has(m) {
				power[m] += x.o.Committee.Validators[k.validators[0]].Power * consensus.Power(len(k.validators))
			}
		}
		x.heard.join(&by)
	}
	x.offer(func(m int) bool { return x.o.Committee.IsQuorum(power[m] + x.evil) })
}

// pair asks whether place b is as good as place a: whatever can be reached from a world with a, something as telling can
// be reached from the same world with b instead.
type pair struct{ a, b int }

// favour finds, for every place, the events that can be taken at once, with all others left for later: those that lead
// to a place that is as good; and those that need not be taken at all: where they lead, nothing is as good as here. As
// good means: there it has said at least as much, its final block is the same or above,
// and each event that can come leads from it (or, if it is none any more, leaves it) to a place that is as good as the
// one where it leads otherwise; to a failed check if it does so otherwise. This is the largest relation that is so
// (a simulation), computed on the machine's own steps; so it holds for a broken machine just as well. It is all that is
// needed because events only ever become possible as more is said, and because all checks of a world are of the kind
// that no further word mends.
func (x *explorer) favour(k *kin) {
	f := &favours{x: x, k: k, number: make(map[pair]int32)}
	for a, l := range k.places {
		for _, b := range l.next {
			if b >= 0 && int(b) != a {
				f.ask(pair{a, int(b)})
				f.ask(pair{int(b), a})
			}
		}
	}
	for i := 0; i < len(f.pairs); i++ {
		f.need(int32(i))
	}
	for len(f.refuted) > 0 {
		last := len(f.refuted) - 1
		i := f.refuted[last]
		f.refuted = f.refuted[:last]
		for _, above := range f.usedBy[i] {
			f.refute(above)
		}
	}
	for a, l := range k.places {
		for e, b := range l.next {
			switch {
			case b < 0 || int(b) == a:
			case !f.wrong[f.number[pair{a, int(b)}]]:
				l.eager = append(l.eager, e)
			case !f.wrong[f.number[pair{int(b), a}]]:
				l.vain.add(e)
			}
		}
	}
}

type favours struct {
	x       *explorer
	k       *kin
	number  map[pair]int32
	pairs   []pair
	wrong   []bool
	usedBy  [][]int32
	refuted []int32 // whose users are to be told
}

func (f *favours) ask(p pair) int32 {
	if i, ok := f.number[p]; ok {
		return i
	}
	i := int32(len(f.pairs))
	f.number[p] = i
	f.pairs, f.wrong, f.usedBy = append(f.pairs, p), append(f.wrong, false), append(f.usedBy, nil)
	a, b := f.k.places[p.a], f.k.places[p.b]
	if !a.sent.within(&b.sent) || !f.x.descends(b.root, a.root) || a.restarts != b.restarts {
		f.refute(i)
	}
	return i
}

func (f *favours) refute(i int32) {
	if !f.wrong[i] {
		f.wrong[i] = true
		f.refuted = append(f.refuted, i)
	}
}

// need finds what a pair rests on.
func (f *favours) need(i int32) {
	if f.wrong[i] {
		return
	}
	p := f.pairs[i]
	a, b := f.k.places[p.a], f.k.places[p.b]
	for e, m := range a.next {
		n := int32(p.b)
		if e < len(b.next) && b.next[e] != unknown {
			n = b.next[e]
		} else if m != unknown && !f.x.possible(b, e) {
			continue // a world with both fails
		}
		switch {
		case m == unknown || m == n || n == broken:
		case m == broken:
			f.refute(i)
			return
		default:
			j := f.ask(pair{int(m), int(n)})
			if f.wrong[j] {
				f.refute(i)
				return
			}
			f.usedBy[j] = append(f.usedBy[j], i)
		}
	}
}
