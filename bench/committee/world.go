package committee

import (
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
	"tutti/consensus/sim/simtest"
	"tutti/consensus/simplex"
)

// Profile is a network.
type Profile struct {
	Name     string
	Near     time.Duration // one way within a region
	From, To time.Duration // one way between regions: the next ones and those on the other side of the world
	Jitter   float64       // share of a latency by which it varies
	Uplink   float64       // bits a second, of each validator
}

const regions = 10

// WAN is ten regions, 50 to 100 ms one way, and boxes with a gigabit.
var WAN = Profile{Name: "50-100 ms", Near: 5 * time.Millisecond, From: 50 * time.Millisecond, To: 100 * time.Millisecond, Jitter: 0.05, Uplink: 1e9}

// Far is ten regions, 150 ms one way from each to each.
var Far = Profile{Name: "150 ms", Near: 5 * time.Millisecond, From: 150 * time.Millisecond, To: 150 * time.Millisecond, Jitter: 0.05, Uplink: 1e9}

// latency is one way, without jitter. Regions lie on a circle.
func (p *Profile) latency(a, b int) time.Duration {
	d := (a - b + regions) % regions
	if d = min(d, regions-d); d == 0 {
		return p.Near
	}
	return p.From + (p.To-p.From)*time.Duration(d-1)/(regions/2-1)
}

// Options describe one run.
type Options struct {
	Validators int
	Silent     int // that never say anything
	Profile    Profile
	Costs      Costs
	Rate       float64       // transactions a second
	WarmUp     time.Duration // virtual, before the measured span
	Span       time.Duration // virtual
	Seed       uint64
}

// What the genesis of a network and the product say.
const (
	interval     = 200 * time.Millisecond // between blocks
	forwardEvery = 25 * time.Millisecond  // a validator sends new transactions on to coming leaders
	admit        = 5 * time.Millisecond   // a client's transaction, at its validator
	clientLeg    = 2 * time.Millisecond   // between a client and its validator
	syncTime     = 3 * time.Millisecond   // of the disk
	makeFinal    = 8 * time.Millisecond   // a block, durable in the ledger
	tickEvery    = 250 * time.Millisecond
	txBytes      = 97
	maxTxs       = 20_000
	frameBytes   = 60 // of the packets around a message
)

// Result is what a run measured.
type Result struct {
	Options
	Blocks    int           // final in the span
	Views     int           // that the committee went through meanwhile
	Finality  []float64     // of a thousandth of the transactions each, ascending, in seconds, from due to verified proof
	CPU       float64       // cores, of the busiest validator that is not silent
	MeanCPU   float64       // cores, of a validator on the average
	UpBytes   float64       // a second, sent by a validator on the average
	MaxUp     float64       // a second, sent by the one that sends most
	Messages  float64       // a second, received by a validator on the average
	Final     float64       // transactions
	Took      time.Duration // CPU time of the simulation
	Committed float64       // transactions a second
}

// Quantile is a quantile of the finality, in seconds.
func (r *Result) Quantile(q float64) float64 {
	if len(r.Finality) == 0 {
		return 0
	}
	return r.Finality[min(len(r.Finality)-1, int(q*float64(len(r.Finality))))]
}

type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// content is what a block holds: the transactions of each region that were due up to cut and are not in its ancestors.
type content struct {
	parent consensus.Hash
	cut    [regions]time.Duration
	txs    [regions]float64
	total  float64
}

func (c *content) bytes() float64 { return c.total * txBytes }

type world struct {
	o         Options
	committee *consensus.Committee
	rng       *rand.Rand
	now       time.Duration
	seq       uint64
	queue     queue
	hosts     []*host
	contents  map[consensus.Hash]*content
	sets      map[consensus.Hash]*shred.Set // of bodies in shards
	told      [regions]*host                // the validator that a region's clients ask
	err       error

	from, to time.Duration // the measured span
	final    float64
	finality []sample
	blocks   int
	height   consensus.Height // final in the span, at the first region's validator
}

type sample struct {
	took time.Duration
	txs  float64
}

// Run simulates. The error says that the committee stood still or contradicted itself.
func Run(o Options) (Result, error) {
	began := cpu()
	powers := make([]consensus.Power, o.Validators)
	for i := range powers {
		powers[i] = 1
	}
	w := &world{
		o: o, committee: simtest.Committee(o.Seed, powers...), rng: rand.New(rand.NewPCG(o.Seed, 0xc0)),
		contents: map[consensus.Hash]*content{}, sets: map[consensus.Hash]*shred.Set{}, from: o.WarmUp, to: o.WarmUp + o.Span,
	}
	genesis := simtest.Genesis(w.committee)
	w.contents[genesis.Hash()] = &content{}
	keys := simtest.NewKeys(o.Validators)
	for i := range o.Validators {
		h := &host{w: w, i: i, region: i % regions, silent: i >= o.Validators-o.Silent}
		h.link = make([]time.Duration, o.Validators)
		w.hosts = append(w.hosts, h)
		if w.told[h.region] == nil && !h.silent {
			w.told[h.region] = h
		}
		if h.silent {
			continue
		}
		m, ready, err := simplex.New(simplex.Config{
			Chain: simtest.Chain, Root: genesis, Committee: w.committee, Keys: charged{keys, h}, Signer: signing{keys.Signer(i), h}, Index: i,
		})
		if err != nil {
			return Result{}, err
		}
		h.machine = m
		h.spend(0, ready)
		h.tick()
	}
	for region := range w.told { // where nobody sits, clients ask the next region
		for k := 0; w.told[region] == nil && k < regions; k++ {
			w.told[region] = w.told[(region+k)%regions]
		}
	}
	first := consensus.View(0)
	for w.err == nil && len(w.queue) > 0 && w.now < w.to+20*time.Second {
		e := heap.Pop(&w.queue).(event)
		if w.now < w.from && e.at >= w.from {
			first = w.measure()
		}
		w.now = e.at
		if w.now > w.to && w.height > 0 && w.settled() {
			break
		}
		e.do()
	}
	if w.err != nil {
		return Result{}, w.err
	}
	r := w.result(first)
	r.Took = cpu() - began
	if r.Final == 0 {
		return r, errors.New("committee: nothing became final in the measured span")
	}
	return r, nil
}

// measure begins the measured span.
func (w *world) measure() consensus.View {
	for _, h := range w.hosts {
		h.used, h.sent, h.received = 0, 0, 0
	}
	return w.told[0].machine.Status().View
}

// settled reports whether what was due in the span is final everywhere that clients ask.
func (w *world) settled() bool {
	for _, h := range w.told {
		if c := w.contents[h.top]; c == nil || slices.Min(c.cut[:]) < w.to {
			return false
		}
	}
	return true
}

func (w *world) result(first consensus.View) Result {
	r := Result{Options: w.o, Blocks: w.blocks, Final: w.final}
	span := (w.now - w.from).Seconds()
	n := 0.0
	for _, h := range w.hosts {
		if h.silent {
			continue
		}
		n++
		r.Views = max(r.Views, int(h.machine.Status().View-first))
		r.MeanCPU += h.used.Seconds() / span
		r.CPU = max(r.CPU, h.used.Seconds()/span)
		r.UpBytes += h.sent / span
		r.MaxUp = max(r.MaxUp, h.sent/span)
		r.Messages += float64(h.received) / span
	}
	r.MeanCPU, r.UpBytes, r.Messages = r.MeanCPU/n, r.UpBytes/n, r.Messages/n
	r.Committed = r.Final / w.o.Span.Seconds()
	slices.SortFunc(w.finality, func(a, b sample) int { return int(a.took - b.took) })
	var all, seen float64
	for _, s := range w.finality {
		all += s.txs
	}
	const points = 1000
	for _, s := range w.finality {
		seen += s.txs
		for len(r.Finality) < points && float64(len(r.Finality))*all < seen*points {
			r.Finality = append(r.Finality, s.took.Seconds())
		}
	}
	return r
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, do})
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("committee: at %v: "+format, append([]any{w.now}, args...)...)
	}
}

// fill makes the content of a block by a leader on a parent: what has arrived there by now.
func (w *world) fill(leader *host, parent consensus.Hash) *content {
	p := w.contents[parent]
	c := &content{parent: parent}
	each := w.o.Rate / regions
	room := float64(maxTxs) / regions
	for g := range regions {
		way := clientLeg + admit + w.o.Profile.latency(w.told[g].region, leader.region)
		if w.told[g] != leader {
			way += forwardEvery / 2 // on the average
		}
		c.cut[g] = min(max(p.cut[g], w.now-way), p.cut[g]+time.Duration(room/each*float64(time.Second)))
		c.txs[g] = (c.cut[g] - p.cut[g]).Seconds() * each
		c.total += c.txs[g]
	}
	return c
}

// tell notes that a region's clients hear of final blocks, in height order, at a time.
func (w *world) tell(h *host, blocks []consensus.Block, at time.Duration) {
	at += clientLeg + w.o.Costs.Aggregate + time.Duration(w.o.Validators/3)*w.o.Costs.Missing
	for _, b := range blocks {
		c := w.contents[b.Header.Hash()]
		if h == w.told[0] && at >= w.from && at < w.to {
			w.blocks, w.height = w.blocks+1, b.Header.Height
		}
		p := w.contents[c.parent]
		for g := range regions {
			if w.told[g] != h {
				continue
			}
			const pieces = 20
			for k := range pieces {
				due := p.cut[g] + (c.cut[g]-p.cut[g])*time.Duration(2*k+1)/(2*pieces)
				if due >= w.from && due < w.to && c.txs[g] > 0 {
					w.finality = append(w.finality, sample{at - due, c.txs[g] / pieces})
				}
			}
			if end := min(c.cut[g], w.to); end > max(p.cut[g], w.from) {
				w.final += (end - max(p.cut[g], w.from)).Seconds() * w.o.Rate / regions
			}
		}
	}
	h.top = blocks[len(blocks)-1].Header.Hash()
}

// share is how many bytes a part's shards of a real body would have.
func (w *world) share(p *shred.Part) float64 {
	return w.contents[p.Vote.Block].bytes() * float64(len(p.Shards)) / float64(p.Header.Body.K)
}

// name makes a body whose few bytes stand for those of a content.
func name(view consensus.View, leader int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(view)), uint32(leader))
}
