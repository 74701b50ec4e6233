package explore

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
)

// Options say which world is explored, and how far.
type Options struct {
	Chain     consensus.Hash
	Committee *consensus.Committee
	Genesis   *consensus.Header
	Keys      consensus.Keys
	Signers   []consensus.Signer // of all validators
	Byzantine []int              // at most a third of the power, or the checks may rightly fail
	Views     consensus.View     // nothing happens in views above
	Modest    bool               // the adversary proposes only on blocks that have a certificate: others win no vote anyway
	Restarts  int                // of each honest validator, at most
	ByVotes   bool               // a certificate comes as the votes it is made of
	Reduced   bool               // what may be taken at once, with no loss to the checks, is: see favour
	Fair      int                // from one state in so many a fair run is made; 0: none
	FairViews consensus.View     // what a fair run may take
	Limits    simplex.Limits     // zero: DefaultLimits

	// Where to stop before the end. Zero: never.
	States   int
	Deadline time.Time
	Memory   uint64 // bytes
}

// Report says what was seen.
type Report struct {
	States      int // of the world
	Transitions int
	Depth       int // events on the longest of the shortest ways to a state
	Places      int // of single machines
	Steps       int // of the production machine
	Fair        int // fair runs
	FairViews   consensus.View
	Memory      uint64 // bytes taken from the system
	Took        time.Duration
	Whole       bool // every state was seen
}

// Failure is a check that did not hold, and a shortest schedule to it. Validators that nothing tells apart may change
// names on the way.
type Failure struct {
	Err      error
	States   int // seen until then
	Schedule []string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("after %d states: %v\n  %s", f.States, f.Err, strings.Join(f.Schedule, "\n  "))
}

func (f *Failure) Unwrap() error { return f.Err }

type explorer struct {
	*universe
	o        *Options
	faulty   []bool
	evil     consensus.Power
	kins     []*kin
	of       []int // kin by position
	who      []int // validator by position
	power    []consensus.Power
	states   *states
	report   Report
	scratch  []byte
	began    time.Time
	compiled bool // no machine has to be stepped any more

	// the world being looked at
	heard   set   // messages that honest validators sent
	certs   []int // messages of which there is a certificate
	offered []int // events: proposals
}

// Explore visits every state of a world, nearest first, until a check fails or a bound is reached. The error is a
// *Failure unless the options cannot be.
func Explore(o Options) (Report, error) {
	x, first, err := begin(&o)
	if err != nil {
		return Report{}, err
	}
	if o.Reduced {
		x.compile()
	}
	if x.states.add(first, -1); x.compiled || !o.Reduced {
		err = x.visit()
	}
	x.report.States, x.report.Took = x.states.n, time.Since(x.began)
	x.measure()
	return x.report, err
}

func begin(o *Options) (*explorer, []uint32, error) {
	x := &explorer{universe: newUniverse(o), o: o, faulty: make([]bool, len(o.Signers)), began: time.Now()}
	for _, i := range o.Byzantine {
		x.faulty[i] = true
		x.evil += o.Committee.Validators[i].Power
	}
	leads := make([]bool, len(o.Signers))
	for v := consensus.View(1); v <= o.Views; v++ {
		leads[o.Committee.Leader(v)] = true
	}
	byPower := make(map[consensus.Power]int)
	for i, v := range o.Committee.Validators {
		if x.faulty[i] {
			continue
		}
		k, shared := byPower[v.Power]
		if leads[i] || !shared {
			k = len(x.kins)
			x.kins = append(x.kins, &kin{byKey: make(map[key]int)})
			if !leads[i] {
				byPower[v.Power] = k
			}
		}
		x.kins[k].validators = append(x.kins[k].validators, i)
	}
	var first []uint32
	for k, kin := range x.kins {
		l, err := x.start(kin.validators[0])
		if err != nil {
			return nil, nil, err
		}
		kin.places = []*local{l}
		kin.byKey[x.key(l)] = 0
		for _, i := range kin.validators {
			x.of, x.who, x.power = append(x.of, k), append(x.who, i), append(x.power, o.Committee.Validators[i].Power)
			first = append(first, 0)
		}
	}
	if err := x.quorumsAreMade(); err != nil {
		return nil, nil, err
	}
	x.states = newStates(len(first))
	return x, first, nil
}

// quorumsAreMade makes sure that a machine which is told certificates and no votes makes none of its own: what it
// counts is then its own vote, and its leader's.
func (x *explorer) quorumsAreMade() error {
	for _, p := range x.o.Committee.Validators {
		for _, q := range x.o.Committee.Validators {
			if 3*(p.Power+q.Power) > 2*x.o.Committee.Total() {
				return errors.New("explore: two validators are a quorum: take a committee in which they are not")
			}
		}
	}
	if 3*x.evil > x.o.Committee.Total() {
		return errors.New("explore: more than a third of the power is faulty")
	}
	return nil
}

// visit takes states in the order they were found.
func (x *explorer) visit() error {
	end, world, next := x.states.n, make([]uint32, len(x.of)), make([]uint32, len(x.of))
	for i := 0; i < x.states.n; i++ {
		if i == end {
			end = x.states.n
			x.report.Depth++
		}
		if x.enough(i) {
			return nil
		}
		x.states.get(i, world)
		if x.o.Fair > 0 && i%x.o.Fair == 0 {
			if err := x.fair(world); err != nil {
				return x.failure(i, err)
			}
		}
		var failed error
		x.moves(world, func(j, e int) bool {
			x.report.Transitions++
			copy(next, world)
			if err := x.move(next, j, e, nil); err != nil {
				failed = x.failure(i, err, x.moveName(j, e))
				return false
			}
			x.states.add(next, i)
			return true
		})
		if failed != nil {
			return failed
		}
	}
	x.report.Whole = true
	return nil
}

// moves calls do with everything that may come next in a world and changes it, until it returns false.
func (x *explorer) moves(world []uint32, do func(j, e int) bool) {
	x.look(world)
	for j, at := range world {
		if j > 0 && x.of[j] == x.of[j-1] && world[j-1] == at {
			continue // the same again
		}
		l, on := x.kins[x.of[j]].places[at], true
		x.enabled(l, func(e int) bool {
			if to, _ := x.follow(x.of[j], l, int(at), e); to != int(at) && !l.vain.has(e) {
				on = do(j, e)
			}
			return on
		})
		if !on {
			return
		}
	}
}

// move makes a world the one that an event at a machine leads to, with all that may follow at once if Reduced, and
// checks it. It notes in way, if that is not nil, what followed.
func (x *explorer) move(world []uint32, j, e int, way *[]string) error {
	changed := false
	for {
		l := x.kins[x.of[j]].places[world[j]]
		to, err := x.follow(x.of[j], l, int(world[j]), e)
		if err != nil {
			return fmt.Errorf("validator %d: %w", x.who[j], err)
		}
		world[j] = uint32(to)
		n := x.kins[x.of[j]].places[to]
		changed = changed || n.sent != l.sent || n.root != l.root
		if j, e = x.favoured(world); j < 0 {
			break
		}
		if way != nil {
			*way = append(*way, x.moveName(j, e))
		}
	}
	if changed {
		if err := x.check(world); err != nil {
			return err
		}
	}
	x.order(world)
	return nil
}

// favoured is an event that may be taken at once in a world, j -1 if there is none.
func (x *explorer) favoured(world []uint32) (j, e int) {
	if !x.o.Reduced {
		return -1, 0
	}
	heard, known := set{}, false
	for j, at := range world {
		for _, e := range x.kins[x.of[j]].places[at].eager {
			ev := x.events[e]
			switch ev.what {
			case certificate:
				if !x.quorum(world, ev.of) {
					continue
				}
			case proposal, fetched:
				if !known {
					heard, known = x.said(world), true
				}
				if !x.exists(ev.of, &heard) {
					continue
				}
			}
			return j, e
		}
	}
	return -1, 0
}

// enough reports whether a bound is reached.
func (x *explorer) enough(i int) bool {
	if x.o.States > 0 && x.states.n >= x.o.States {
		return true
	}
	if i&(1<<14-1) != 0 {
		return false
	}
	if !x.o.Deadline.IsZero() && time.Now().After(x.o.Deadline) {
		return true
	}
	x.measure()
	return x.o.Memory > 0 && x.report.Memory > x.o.Memory
}

func (x *explorer) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	x.report.Memory = max(x.report.Memory, m.Sys-m.HeapReleased)
	x.report.Places = 0
	for _, k := range x.kins {
		x.report.Places += len(k.places)
	}
}

// look finds what all machines of a world can be told.
func (x *explorer) look(world []uint32) {
	x.heard = x.said(world)
	x.offer(func(m int) bool { return x.quorum(world, m) })
}

// said is all that honest validators said in a world.
func (x *explorer) said(world []uint32) (all set) {
	for j, at := range world {
		all.join(&x.kins[x.of[j]].places[at].sent)
	}
	return all
}

// offer finds the certificates and proposals that there are with what was heard.
func (x *explorer) offer(quorum func(m int) bool) {
	x.certs, x.offered = x.certs[:0], x.offered[:0]
	for m, text := range x.messages {
		switch {
		case !x.heard.has(m):
		case text.kind == proposed:
			x.offered = append(x.offered, x.event(proposal, text.block))
		case quorum(m):
			x.certs = append(x.certs, x.event(certificate, m))
		}
	}
	for v := consensus.View(1); v <= x.o.Views; v++ {
		if !x.faulty[x.o.Committee.Leader(v)] {
			continue
		}
		for p := 0; p < len(x.blocks); p++ {
			if x.blocks[p].view < v && x.exists(p, &x.heard) && (!x.o.Modest || x.vouched(p)) {
				for _, kind := range forged {
					x.offered = append(x.offered, x.event(proposal, x.child(child{p, v, kind})))
				}
			}
		}
	}
}

// vouched reports whether one of the certificates offered is for a block.
func (x *explorer) vouched(b int) bool {
	return b == 0 || slices.ContainsFunc(x.certs, func(e int) bool { return x.messages[x.events[e].of].block == b })
}

// quorum reports whether a certificate of a message can be had, with the help of all faulty validators.
func (x *explorer) quorum(world []uint32, m int) bool {
	p := x.evil
	for j, at := range world {
		if x.kins[x.of[j]].places[at].sent.has(m) {
			p += x.power[j]
		}
	}
	return x.o.Committee.IsQuorum(p)
}

// enabled calls do with every event that may come next at a place, until it returns false.
func (x *explorer) enabled(l *local, do func(e int) bool) {
	for _, e := range x.certs {
		if !do(e) {
			return
		}
	}
	for _, e := range x.offered {
		if v := x.blocks[x.events[e].of].view; v >= l.view && !do(e) {
			return
		}
	}
	for _, b := range l.pending {
		if !do(x.event(judged, b)) {
			return
		}
	}
	if l.build != 0 && !do(x.event(built, l.build)) {
		return
	}
	if l.view <= x.o.Views && !do(x.event(timer, int(l.view))) {
		return
	}
	for _, b := range l.wanted {
		if x.exists(b, &x.heard) && !do(x.event(fetched, b)) {
			return
		}
	}
	if l.restarts < x.o.Restarts {
		do(x.event(restart, 0))
	}
}

// follow is the place that an event leads to from one. The machine is stepped only the first time.
func (x *explorer) follow(kin int, l *local, at, e int) (to int, err error) {
	for len(l.next) <= e {
		l.next = append(l.next, unknown)
	}
	if to = int(l.next[e]); to >= 0 {
		return to, nil
	}
	if to == broken {
		return broken, l.why[e]
	}
	if x.compiled {
		return broken, fmt.Errorf("explore: %s was left out when the places were made", x.eventName(x.events[e]))
	}
	k := x.kins[kin]
	if l.m == nil {
		again, err := x.replay(k, k.validators[0], at)
		if err != nil {
			return broken, fmt.Errorf("explore: replay: %w", err)
		}
		l.m = again.m
	}
	n, err := x.step(l, k.validators[0], x.events[e])
	x.report.Steps++
	if err != nil {
		if l.why == nil {
			l.why = make(map[int]error)
		}
		l.next[e], l.why[e] = broken, err
		return broken, err
	}
	name := x.key(n)
	to, seen := k.byKey[name]
	if !seen {
		n.from, n.by = at, e
		to = len(k.places)
		k.places = append(k.places, n)
		k.byKey[name] = to
	}
	l.next[e] = int32(to)
	return to, nil
}

// order sorts the places of validators that nothing tells apart.
func (x *explorer) order(world []uint32) {
	for j := 0; j < len(world); {
		k := j + 1
		for k < len(world) && x.of[k] == x.of[j] {
			k++
		}
		if k-j > 1 {
			slices.Sort(world[j:k])
		}
		j = k
	}
}

func (x *explorer) moveName(j, e int) string {
	return fmt.Sprintf("%d: %s", x.who[j], x.eventName(x.events[e]))
}

// failure tells the schedule to a state, and what came then.
func (x *explorer) failure(i int, err error, then ...string) error {
	f := &Failure{Err: err, States: x.states.n, Schedule: then}
	from, to := make([]uint32, len(x.of)), make([]uint32, len(x.of))
	for p := x.states.parent(i); p >= 0; i, p = p, x.states.parent(p) {
		x.states.get(p, from)
		x.states.get(i, to)
		f.Schedule = append(x.between(from, to), f.Schedule...)
	}
	return f
}

// between is what leads from one world to the next.
func (x *explorer) between(from, to []uint32) (way []string) {
	next := make([]uint32, len(x.of))
	x.moves(from, func(j, e int) bool {
		copy(next, from)
		way = append(way[:0], x.moveName(j, e))
		return x.move(next, j, e, &way) != nil || !slices.Equal(next, to)
	})
	return way
}
