package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"tutti/appliance/host"
	"tutti/bench/child"
	"tutti/bench/openloop"
	"tutti/bench/report"
)

// Trials is how long trials are, and of what.
type Trials struct {
	Validators int
	TxBytes    int // of peers' transactions
	PerCall    int // peers' transactions in one call, at most
	WarmUp     time.Duration
	Duration   time.Duration // of the measurement
	Drain      time.Duration // to wait at the end for what has not come
	Dir        string        // existing folder for networks, each removed after its trial; empty: that for temporary files
}

// What a rate has to stand, as in `tutti bench --rate max`.
const (
	maxP99   = time.Second
	minShare = 0.97 // of the rate that is committed while the load runs
)

// Of the client.
const (
	tick        = 10 * time.Millisecond // between submissions; each goes to the next node
	workers     = 4                     // calls to one node at once
	outstanding = 200_000               // transactions not committed, at most
	queued      = 1024                  // ticks that wait for a node's workers, at most
	longest     = 10 * time.Minute      // a latency above it counts as this
	startWithin = 60 * time.Second      // until a new network commits
)

// Open is a contender that is an adapter's network under the open loop of this package.
func Open(a Adapter, t Trials) Contender { return &open{a, t} }

type open struct {
	Adapter
	Trials
}

func (o *open) TxBytes() int { return o.Trials.TxBytes }

// Trial measures one rate on a new network.
func (o *open) Trial(ctx context.Context, rate float64) (_ Figures, err error) {
	dir, err := os.MkdirTemp(o.Dir, "tutti-peer-")
	if err != nil {
		return Figures{}, fmt.Errorf("peers: %w", err)
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w; the network's files are kept in %s", err, dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	starting, cancel := context.WithTimeoutCause(ctx, startWithin, fmt.Errorf("peers: %s did not commit a block within %s", o.Name(), startWithin))
	defer cancel()
	n, err := o.Start(starting, dir, o.Validators)
	if err != nil {
		return Figures{}, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	running, end := context.WithCancelCause(ctx)
	defer end(nil)
	t := &trial{Trials: o.Trials, network: n, rate: rate, end: end, came: make(chan struct{}, 1), latency: hdrhistogram.New(1, longest.Microseconds(), 3)}
	if err := t.run(running); err != nil {
		return Figures{}, err
	}
	return t.figures(), nil
}

// trial is one stretch of load on a network.
type trial struct {
	Trials
	network     Network
	rate        float64
	schedule    openloop.Schedule
	start       time.Time
	end         context.CancelCauseFunc // of the trial, when it can not go on
	queues      []chan span             // by node
	came        chan struct{}           // poked at each block
	begin, over moment                  // of the measurement; written and read by the trial's goroutine
	rss         float64
	drain       time.Duration // that it took

	mu        sync.Mutex // guards what follows
	settled   []bool     // by number: committed, refused or not sent
	live      int        // sent and not settled
	committed uint64     // transactions of this trial in blocks
	blocks    uint64
	refused   uint64 // measured or not, and the rest likewise
	why       string // of one that was refused
	unsent    uint64
	latency   *hdrhistogram.Histogram // of those that were due in the measurement, microseconds
}

// span is the transactions of a tick, first to next-1.
type span struct{ first, next uint64 }

// moment is what was read at one end of the measurement.
type moment struct {
	at                time.Time
	machine           host.Sample
	own               float64 // CPU seconds of this process
	committed, blocks uint64
}

func (t *trial) moment() (m moment, err error) {
	t.mu.Lock()
	m.committed, m.blocks = t.committed, t.blocks
	t.mu.Unlock()
	m.at = time.Now()
	if m.own, err = ownCPU(); err != nil {
		return m, err
	}
	m.machine, err = host.ReadSample(t.network.Processes()...)
	return m, err
}

// ownCPU is the CPU time of this process in seconds, without its children.
func ownCPU() (float64, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("peers: %w", err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, nil
}

// run loads the network and waits for what is under way.
func (t *trial) run(ctx context.Context) error {
	length := t.WarmUp + t.Duration
	t.schedule = openloop.New(0, openloop.Stretch{Rate: t.rate})
	t.settled = make([]bool, t.schedule.DueBy(length-1))
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() {
		if err := t.network.Follow(ctx, t.block); err != nil {
			t.end(err)
		}
	})
	for node := range t.Validators {
		queue := make(chan span, queued)
		t.queues = append(t.queues, queue)
		for range workers {
			group.Go(func() { t.work(ctx, node, queue) })
		}
	}
	t.start = time.Now()
	var marks sync.WaitGroup
	var errs [2]error
	mark := func(at time.Duration, into *moment, err *error) {
		marks.Go(func() {
			if openloop.Wait(ctx, time.Until(t.start.Add(at))) {
				*into, *err = t.moment()
			}
		})
	}
	mark(t.WarmUp, &t.begin, &errs[0])
	mark(length, &t.over, &errs[1])
	turn := 0
	err := t.schedule.Run(ctx, t.start, length, tick, func(first, next uint64) {
		t.emit(turn%t.Validators, span{first, next})
		turn++
	})
	marks.Wait()
	for _, pid := range t.network.Processes() {
		mib, err := child.ResidentMiB(pid)
		if err != nil {
			errs[1] = errors.Join(errs[1], err)
		}
		t.rss += mib / float64(t.Validators)
	}
	if err == nil {
		t.awaitDrained(ctx)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.Join(err, errs[0], errs[1])
}

// emit gives a tick's transactions to a node's workers.
func (t *trial) emit(node int, s span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := int(s.next - s.first)
	if t.live+n <= outstanding {
		select {
		case t.queues[node] <- s:
			t.live += n
			return
		default:
		}
	}
	for k := s.first; k < s.next; k++ {
		t.settled[k] = true
	}
	t.unsent += uint64(n)
}

// work submits what comes for a node.
func (t *trial) work(ctx context.Context, node int, queue <-chan span) {
	for {
		select {
		case s := <-queue:
			for first := s.first; first < s.next && ctx.Err() == nil; first += uint64(t.PerCall) {
				t.submit(ctx, node, span{first, min(first+uint64(t.PerCall), s.next)})
			}
		case <-ctx.Done():
			return
		}
	}
}

func (t *trial) submit(ctx context.Context, node int, s span) {
	txs := make([][]byte, 0, s.next-s.first)
	for n := s.first; n < s.next; n++ {
		txs = append(txs, t.network.Transaction(n, t.TxBytes))
	}
	err := t.network.Submit(ctx, node, txs)
	if err == nil || ctx.Err() != nil {
		return
	}
	refused := &Refused{Count: len(txs), Why: err.Error()}
	errors.As(err, &refused)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused += uint64(refused.Count)
	t.why = refused.Why
}

// block counts a committed block.
func (t *trial) block(txs [][]byte) {
	now := time.Since(t.start)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks++
	for _, tx := range txs {
		n, ok := t.network.Number(tx)
		if !ok || n >= uint64(len(t.settled)) || t.settled[n] {
			continue
		}
		t.settled[n] = true
		t.committed++
		t.record(n, now)
		t.live--
	}
	select {
	case t.came <- struct{}{}:
	default:
	}
}

// record enters the latency of a transaction that came, or was waited for, until a time after the start. mu is held.
func (t *trial) record(n uint64, at time.Duration) {
	if due := t.schedule.Due(n); due >= t.WarmUp {
		_ = t.latency.RecordValue(min(max((at-due).Microseconds(), 1), longest.Microseconds())) // in range by the bounds
	}
}

// awaitDrained waits until nothing is under way, at most for the drain, and counts what is missing as being that late.
func (t *trial) awaitDrained(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.Drain)
	defer cancel()
	began := time.Now()
	for {
		t.mu.Lock()
		left := t.live - int(t.refused)
		t.mu.Unlock()
		if left <= 0 {
			break
		}
		select {
		case <-t.came:
			continue
		case <-ctx.Done():
		}
		break
	}
	t.drain = time.Since(began)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Since(t.start)
	for n, settled := range t.settled {
		if !settled {
			t.record(uint64(n), now)
		}
	}
}

// figures puts the measurement together.
func (t *trial) figures() Figures {
	t.mu.Lock()
	defer t.mu.Unlock()
	span := t.over.at.Sub(t.begin.at).Seconds()
	q := report.QuantilesOf(t.latency)
	committed := float64(t.over.committed - t.begin.committed)
	own := t.over.own - t.begin.own
	machine := host.Between(t.begin.machine, t.over.machine)
	f := Figures{
		Rate: t.rate, TPS: committed / span, P50: q.P50, P90: q.P90, P99: q.P99, Max: q.Max, RSSMiB: t.rss,
		BlocksPerS: float64(t.over.blocks-t.begin.blocks) / span, Generator: own / span, Foreign: machine.Foreign, Steal: machine.Steal,
	}
	if committed > 0 {
		f.CPUUs = max(0, t.over.machine.Own-t.begin.machine.Own-own) / committed * 1e6
	}
	f.Why = t.verdict(&f)
	return f
}

// verdict says why a rate does not count as held. mu is held.
func (t *trial) verdict(f *Figures) string {
	missing := uint64(len(t.settled)) - t.committed - t.unsent
	switch {
	case t.refused > 0:
		return fmt.Sprintf("%d refused: %s", t.refused, t.why)
	case t.unsent > 0:
		return fmt.Sprintf("%d could not be sent", t.unsent)
	case missing > 0:
		return fmt.Sprintf("%d not committed %s after the load", missing, t.drain.Round(time.Second))
	}
	return tooMuch(f)
}

// tooMuch is what is wrong with figures of which nothing is missing.
func tooMuch(f *Figures) string {
	switch {
	case f.P99 > float64(maxP99.Milliseconds()):
		return fmt.Sprintf("p99 %.0f ms", f.P99)
	case f.TPS < minShare*f.Rate:
		return fmt.Sprintf("committed %.0f tx/s", f.TPS)
	}
	return ""
}

// say writes a line of progress.
func say(out io.Writer, format string, args ...any) {
	if out != nil {
		fmt.Fprintf(out, format+"\n", args...)
	}
}
