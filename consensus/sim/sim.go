// Package sim is the seeded simulator of a shard: the production machines (consensus/simplex) of a whole committee and
// an observer in one goroutine and virtual time, with a toy application, a network that drops, delays, reorders,
// duplicates and partitions, disks that are slow and lose what was not synced, or everything, crashes and restarts,
// drifting timers, and adversaries, one a file. One seed is one schedule, byte for byte.
//
// A run has two parts. In the first, faults happen as Faults says. Then the network settles: messages arrive within
// 100 ms, everybody is up, adversaries go on. What must hold is checked after every step (see checker) and, after
// settling, that of the first FinalViews views entered then one has a block that becomes final, and that every honest node
// finalises Goal more blocks within GoalViews views.
//
// Instead of faults, or beside them, the first part may play a Schedule in the manner of Twins, where honest machines share a
// key. With Above their power is more than a third, and what must hold is that a conflict convicts (conflict).
//
// The keys come from the caller: tests use the tags of simtest or the product's.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"tutti/consensus"
	"tutti/consensus/simplex"
	"tutti/consensus/trace"
)

// Options describe one run.
type Options struct {
	Seed        uint64
	Chain       consensus.Hash
	Committee   *consensus.Committee
	Genesis     *consensus.Header
	Keys        consensus.Keys
	Signers     []consensus.Signer
	Adversaries map[int]Maker // by validator; together at most a third of the power, or the checks may rightly fail
	Honest      Maker         // nil: simplex.New. Tests of the checker put broken machines here
	ForgetLog   bool          // restarts start from an empty vote log: only for tests of the checker
	Skip        string        // failures whose text has this in it are overlooked: only for tests of the checker
	Limits      simplex.Limits
	Faults      Faults
	Epochs      *Epochs                          // nil: one epoch that does not end. Not beside Lose, Schedule and Above
	Schedule    *Schedule                        // nil: none. Else its twins run and its partitions hold before the network settles
	Above       bool                             // the faulty have more than a third of the power: see Report.Conflict
	Safe        bool                             // only safety is checked: the faulty have a third of the power, and the others are no quorum
	Record      func(host int) *trace.Writer     // nil: none. Asked for the trace of each life of an honest host
	Trace       func(format string, args ...any) // nil: none
}

// Faults are what happens before the network settles. The zero value is a calm network from the start.
type Faults struct {
	For       time.Duration // how long they last, virtual
	Drop      float64       // share of messages lost
	Duplicate float64       // share of messages that come twice
	Delay     time.Duration // mean of the exponential part of the delay
	Partition time.Duration // mean time between partitions; 0: never
	Crash     time.Duration // mean time between crashes; 0: never
	Down      time.Duration // mean time before the restart
	Lose      time.Duration // mean time between losses of a whole disk; 0: never
	SlowDisk  float64       // share of syncs that take up to a second
	SlowApp   float64       // share of verdicts that take up to three seconds
}

// Goals of the second part.
const (
	Goal       = 5   // blocks
	FinalViews = 5   // views entered after settling, whoever leads them: a block of one of them becomes final
	GoalViews  = 40  // views until all have the goal, those who were far behind included
	settleFor  = 600 // seconds
)

// Report says what happened in a run.
type Report struct {
	Height   consensus.Height // finalised by all at the end
	View     consensus.View   // highest at the end
	Settled  consensus.View   // views the second part took
	Final    consensus.View   // the first final block of a view entered after settling is of the Final-th of them
	FinalIn  time.Duration    // the time that took, virtual
	GoalIn   time.Duration    // the time until all had the goal
	Events   int
	Messages map[string]int // sent, by what they are, one for each receiver
	Nullify  int            // votes to nullify sent by honest hosts
	Restarts int
	Fetches  int              // times a block was asked for by its hash
	Synced   int              // times block sync was used
	Lost     int              // disks lost
	Joined   int              // times that a validator without its disk voted again
	Evidence map[int]int      // pieces of evidence by validator
	Blamed   map[int][]string // reasons of Misbehaved by validator
	Took     time.Duration    // virtual
	Epochs   int              // that ended
	Echoes   int              // between the last blocks of epochs and what ended these
	Led      int              // views of the schedule that a twin led
	Conflict bool             // only with Above: two blocks became final of which neither descends from the other
	Guilty   []int            // only with Conflict: whom what the honest hold convicts (simplex.Contradictions)
	Clash    string           // only with Conflict: the kinds of the two certificates that convict (simplex.Clash)
}

type simulation struct {
	o       Options
	rng     *rand.Rand
	now     time.Duration
	seq     uint64
	queue   events
	hosts   []*host // the committee, or all who are ever in one, then one observer, then the second machines of twins
	eras    []Era
	highest consensus.View
	before  []consensus.View // by epoch: the views of those before it, up to the ones that ended them
	calm    bool
	groups  []int // partition by host; nil: none
	check   *checker
	report  Report
	blockNo int
	began   map[consensus.View]time.Duration // with a Schedule: when a view's first message was sent
}

// Run simulates. The error is the first check that failed.
func Run(o Options) (Report, error) {
	n := len(o.Committee.Validators)
	if o.Epochs != nil {
		n = len(o.Signers)
	}
	s := &simulation{o: o, eras: o.eras(), before: []consensus.View{0}, rng: rand.New(rand.NewPCG(o.Seed, 0x7475747469))}
	s.began = make(map[consensus.View]time.Duration)
	s.report.Evidence, s.report.Blamed, s.report.Messages = make(map[int]int), make(map[int][]string), make(map[string]int)
	add := func(index int) *host {
		h := &host{s: s, i: len(s.hosts), index: index, rate: 0.9 + 0.2*s.rng.Float64()}
		h.app.reset(o.Genesis)
		h.disk.nullified = make(map[slot]bool)
		s.hosts = append(s.hosts, h)
		return h
	}
	for i := range n {
		add(i).adversary = o.Adversaries[i] != nil
	}
	add(-1)
	if o.Schedule != nil {
		for _, i := range o.Schedule.Twins {
			s.hosts[i].twin, add(i).twin = true, true
		}
	}
	s.check = newChecker(s)
	for _, h := range s.hosts {
		h.start()
		h.tick()
	}
	s.calm = o.Faults.For == 0
	s.disturb()
	if err := s.until(func() bool { return s.now >= o.Faults.For && s.played() }); err != nil || s.report.Conflict || o.Above || o.Safe {
		return s.report, err
	}
	return s.settle()
}

// settle is the second part.
func (s *simulation) settle() (Report, error) {
	s.calm, s.groups, s.o.Schedule = true, nil, nil
	for _, h := range s.hosts {
		switch {
		case h.joining != nil && !h.joining.asking:
			h.ask(h.joining)
		case !h.up && h.joining == nil:
			h.start()
		}
	}
	s.trace("the network settles")
	start, from := s.view(), s.now
	goal := s.check.top() + Goal
	err := s.until(func() bool {
		s.settled(start, from)
		return s.lowest() >= goal && s.mute() < 0 || s.now > from+settleFor*time.Second || s.view() > start+GoalViews && s.now > from+GoalViews*time.Second
	})
	s.report.Height, s.report.View, s.report.Settled, s.report.Took = s.lowest(), s.view(), s.view()-start, s.now
	s.report.GoalIn = s.now - from
	if err == nil && s.lowest() < goal {
		err = fmt.Errorf("liveness: %d views and %v after settling, height %d of %d is final everywhere", s.view()-start, s.now-from, s.lowest(), goal)
	} else if i := s.mute(); err == nil && i >= 0 {
		err = fmt.Errorf("liveness: %d views and %v after settling, %d has not voted since it lost its disk", s.view()-start, s.now-from, i)
	}
	return s.report, err
}

// settled notes the first final block of a view that was entered after settling, and checks that it is of one of the first
// FinalViews of them.
func (s *simulation) settled(start consensus.View, from time.Duration) {
	at := len(s.check.chain) - 1
	view := func(at int) consensus.View {
		h := s.check.chain[at].Header
		return s.line(h.Epoch, h.View)
	}
	if s.report.Final != 0 || view(at) <= start {
		return
	}
	for view(at-1) > start {
		at--
	}
	s.report.Final, s.report.FinalIn = view(at)-start, s.now-from
	most := consensus.View(FinalViews)
	if s.o.Epochs != nil {
		most += FinalViews // the first of them may have made echoes final, and who comes next has to hear of it
	}
	if s.report.Final > most {
		s.check.fail("liveness: of the views after settling, the first with a final block is the %dth", s.report.Final)
	}
}

// until runs events until done or a check fails.
func (s *simulation) until(done func() bool) error {
	for s.check.err == nil && !s.report.Conflict && !done() {
		e := heap.Pop(&s.queue).(*event)
		s.now = e.at
		s.report.Events++
		e.do()
	}
	return s.check.err
}

func (s *simulation) trace(format string, args ...any) {
	if s.o.Trace != nil {
		s.o.Trace("%9.3fs "+format, append([]any{s.now.Seconds()}, args...)...)
	}
}

// view is the highest view of an honest host that there was, counted over all epochs.
func (s *simulation) view() consensus.View {
	for _, h := range s.hosts {
		if h.up && !h.adversary {
			s.highest = max(s.highest, s.line(consensus.Epoch(h.era), h.node.Status().View))
		}
	}
	return s.highest
}

// lowest is the lowest height that is final at an honest host.
func (s *simulation) lowest() consensus.Height {
	low := ^consensus.Height(0)
	for _, h := range s.hosts {
		if !h.adversary {
			low = min(low, h.app.final().Height)
		}
	}
	return low
}

// spread is a random duration of at most d, never 0.
func (s *simulation) spread(d time.Duration) time.Duration {
	return 1 + time.Duration(s.rng.Int64N(int64(d)))
}

func (s *simulation) chance(p float64) bool { return !s.calm && s.rng.Float64() < p }

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

// after schedules do.
func (s *simulation) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.queue, &event{s.now + d, s.seq, do})
}

// events is a heap by time, then by order of scheduling.
type events []*event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}
