// Package scaling measures how the cost of a transaction grows with the number of shards, of validators, of accounts and of
// cores. `make bench-scaling` runs it; the table is bench/results/scaling.tsv, the drawing scaling.svg beside it.
//
// # Points
//
// There is one base: 1 shard of 4 validators, 100,000 accounts, all cores. Each axis varies one of the four and leaves the
// others at the base. Each point is one `tutti bench` for each kind: signed transfers; signed transfers of which a fifth
// goes to another shard; distilled batches; and the highest rate of signed transfers at a p99 of 1 s. All but the last
// have the same modest rate in each shard, far below what the base stands, so that what is seen is the cost and not a queue:
// CPU, bytes and memory of a validator, and the latency. At such a rate the work that is done once a block, whatever is in it,
// is spread over few transactions: bench/results has figures under full load.
//
// All validators and the client share one machine, and the cores of a point are those of all of them. A point that the
// machine can not hold, for its memory or its time, gets a line that says why; so does a rate that did not hold.
//
// # Results
//
// One line for each run, with the commit, the machine, the cores and what other work there was. Lines are only appended. A
// run goes on with what has no line yet at this commit, on this machine and of these rates, or only lines with more other
// work than was allowed. Lines of other machines stay, and are drawn where their machine is asked for.
//
// Nothing here is fatal. One goroutine at a time may use a Campaign.
package scaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"tutti/appliance/host"
	"tutti/bench/child"
	"tutti/bench/report"
)

// Kind is what a point's load consists of.
type Kind string

// The kinds.
const (
	Signed    Kind = "signed"
	Cross     Kind = "cross-shard"
	Distilled Kind = "distilled"
	Highest   Kind = "highest rate"
)

// Kinds are all of them.
var Kinds = []Kind{Signed, Cross, Distilled, Highest}

// crossShare is the share of transfers between shards of kind Cross.
const crossShare = 0.2

// Point is one run.
type Point struct {
	Kind       Kind   `column:"kind"`
	Shards     int    `column:"shards"`
	Validators int    `column:"validators"` // of each shard
	Accounts   uint64 `column:"accounts"`
	Cores      int    `column:"cores"`
}

// Plan is what to measure.
type Plan struct {
	Kinds      []Kind
	Shards     []int
	Validators []int
	Accounts   []uint64
	Cores      []int // the last is the base's
	Base       Point // its kind has no meaning
}

// Standard is the plan for a machine with so many cores.
func Standard(cores int) Plan {
	p := Plan{
		Kinds: Kinds, Shards: []int{1, 2, 4}, Validators: []int{4, 7, 10, 16}, Accounts: []uint64{10_000, 100_000, 1_000_000, 10_000_000},
		Base: Point{Shards: 1, Validators: 4, Accounts: 100_000, Cores: cores},
	}
	for c := 1; c < cores; c *= 2 {
		p.Cores = append(p.Cores, c)
	}
	p.Cores = append(p.Cores, cores)
	return p
}

// Axis is what is varied.
type Axis struct {
	Name string
	X    []float64
	At   func(p Point, x float64) Point // p moved along it
}

// axes are those of a plan.
func (p *Plan) axes() []Axis {
	return []Axis{
		{"shards", numbers(p.Shards), func(p Point, x float64) Point { p.Shards = int(x); return p }},
		{"validators of a shard", numbers(p.Validators), func(p Point, x float64) Point { p.Validators = int(x); return p }},
		{"accounts", numbers(p.Accounts), func(p Point, x float64) Point { p.Accounts = uint64(x); return p }},
		{"cores", numbers(p.Cores), func(p Point, x float64) Point { p.Cores = int(x); return p }},
	}
}

func numbers[T int | uint64](v []T) (out []float64) {
	for _, x := range v {
		out = append(out, float64(x))
	}
	return out
}

// Points are all points of a plan, each once, cheap ones first.
func (p *Plan) Points() (all []Point) {
	for _, kind := range p.Kinds {
		for _, a := range p.axes() {
			for _, x := range a.X {
				at := a.At(p.Base, x)
				at.Kind = kind
				if (kind != Cross || at.Shards > 1) && !slices.Contains(all, at) {
					all = append(all, at)
				}
			}
		}
	}
	return all
}

// Campaign is one go at a plan.
type Campaign struct {
	Plan
	Results    Results
	Commit     string
	Machine    host.Machine
	Rate       float64 // of Signed and Cross, transactions a second in each shard
	Distilled  float64 // of Distilled, likewise
	WarmUp     time.Duration
	Duration   time.Duration
	Limit      time.Duration // on one run, with all that comes before and after
	Quiet      float64       // cores of other work above which a run does not count
	Out        io.Writer     // progress
	Bench      func(ctx context.Context, args []string, cores int, limit time.Duration) (*report.Report, error)
	FreeMemory func() (uint64, error)
}

// Run measures what has no line yet.
func (c *Campaign) Run(ctx context.Context) error {
	points := c.Points()
	for i, p := range points {
		had, err := c.Results.Read()
		if err != nil {
			return err
		}
		if c.done(had, p) {
			continue
		}
		fmt.Fprintf(c.Out, "%s  %d of %d: %s\n", time.Now().Format(time.TimeOnly), i+1, len(points), p)
		l, err := c.measure(ctx, p)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(had, func(old Line) bool { return old == l }) {
			continue // it can not be run still, for the same reason
		}
		if err := c.Results.Append(l); err != nil {
			return err
		}
		fmt.Fprintf(c.Out, "          %s\n", l.Outcome)
	}
	return nil
}

// done reports whether a point has a line that counts.
func (c *Campaign) done(had []Line, p Point) bool {
	want := c.line(p)
	return slices.ContainsFunc(had, func(l Line) bool {
		return l.Commit == want.Commit && l.CPU == want.CPU && l.MachineCores == want.MachineCores && l.Point == p && l.DurationS == want.DurationS &&
			(p.Kind == Highest || l.Rate == want.Rate) && l.ran() && l.ForeignCores <= c.Quiet
	})
}

// line is a point's without figures.
func (c *Campaign) line(p Point) Line {
	l := Line{Commit: c.Commit, CPU: c.Machine.CPU, MachineCores: c.Machine.Cores, MemoryGiB: int(c.Machine.Memory >> 30), Point: p, DurationS: c.Duration.Seconds()}
	switch p.Kind {
	case Highest:
	case Distilled:
		l.Rate = c.Distilled * float64(p.Shards)
	default:
		l.Rate = c.Rate * float64(p.Shards)
	}
	return l
}

func (p Point) String() string {
	return fmt.Sprintf("%s, %d x %d validators, %s accounts, %d cores", p.Kind, p.Shards, p.Validators, report.Number(float64(p.Accounts)), p.Cores)
}

// What a run needs in memory, about: for each process, for each account at each validator of its shard (77 and 213 MiB were
// measured at 5,000 and a million accounts, 78 and 493 MiB with distilled batches) and, estimated, at the client.
const (
	processBytes     = 120 << 20
	signedBytes      = 150
	distilledBytes   = 450
	clientBytes      = 250
	leaveFree        = 1 << 30
	notRun, ranBadly = "not run: ", "not held: "
	held             = "held"
)

// needs is about how many bytes of memory a point takes.
func (p Point) needs() uint64 {
	each := uint64(signedBytes)
	if p.Kind == Distilled {
		each = distilledBytes
	}
	return uint64(p.Shards*p.Validators+1)*processBytes + p.Accounts*(uint64(p.Validators)*each+clientBytes)
}

// measure runs one point. The error is the campaign's end; what the machine can not hold is a line that says so.
func (c *Campaign) measure(ctx context.Context, p Point) (Line, error) {
	l := c.line(p)
	free, err := c.FreeMemory()
	if err != nil {
		return l, err
	}
	if need := p.needs() + leaveFree; need > free {
		l.Outcome = fmt.Sprintf("%sneeds about %.0f GiB of memory, more than was free", notRun, float64(need)/(1<<30))
		return l, nil
	}
	r, err := c.Bench(ctx, c.args(p, l.Rate), p.Cores, c.Limit)
	switch {
	case ctx.Err() != nil:
		return l, context.Cause(ctx)
	case errors.Is(err, child.ErrTooLong):
		l.Outcome = fmt.Sprintf("%stook longer than %s", notRun, c.Limit)
	case err != nil:
		l.Outcome = notRun + err.Error()
	default:
		l.take(r)
	}
	return l, nil
}

func (c *Campaign) args(p Point, rate float64) []string {
	args := []string{
		"--shards", strconv.Itoa(p.Shards), "--validators", strconv.Itoa(p.Validators), "--accounts", strconv.FormatUint(p.Accounts, 10),
		"--warm-up", c.WarmUp.String(), "--duration", c.Duration.String(),
	}
	if p.Kind == Highest {
		return append(args, "--rate", "max")
	}
	args = append(args, "--rate", strconv.FormatFloat(rate, 'f', -1, 64))
	switch p.Kind {
	case Cross:
		args = append(args, "--cross-shard", strconv.FormatFloat(crossShare, 'f', -1, 64))
	case Distilled:
		args = append(args, "--distilled", "1")
	}
	return args
}
