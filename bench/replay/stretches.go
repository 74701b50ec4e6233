package replay

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tutti/bench/report"
)

// inTime is how soon a transaction has to be final for report.Stretch.InTime.
const inTime = time.Second

// tally is what became of the transactions that were due in a stretch, by the evidence. Latencies are from the latest and from the
// earliest due times that the slots allow, and with header times in place of the client's, below which they can not have been.
type tally struct {
	due, settled     uint64
	missed           [Reasons]uint64
	least, most      *hdrhistogram.Histogram
	made             *hdrhistogram.Histogram
	seconds          []second
	first, afterLast uint32 // slots
}

// second is what was due in a second of a stretch.
type second struct {
	due, unsent   uint64
	settled       uint64
	surely, maybe uint64 // of these, final within inTime by the earliest and by the latest due times
}

// tally makes one.
func (v *verifier) tally(k int) *tally {
	p := &v.e.Phase
	t := &tally{least: NewHistogram(), most: NewHistogram(), made: NewHistogram()}
	t.first, t.afterLast = p.bounds(k)
	t.seconds = make([]second, (p.Stretches[k].Duration+time.Second-1)/time.Second)
	at := func(slot uint32) *second { return &t.seconds[time.Duration(slot-t.first)*Slot/time.Second] }
	for why, slots := range v.e.Missed {
		for _, c := range slots.within(t.first, t.afterLast) {
			n := uint64(c.N)
			t.due, t.missed[why], at(c.Slot).due = t.due+n, t.missed[why]+n, at(c.Slot).due+n
			if Reason(why) == Unsent {
				at(c.Slot).unsent += n
			}
		}
	}
	for i := range v.e.Shards {
		for k := range v.e.Shards[i].Blocks {
			x := &v.e.Shards[i].Blocks[k]
			made := v.made(x.Final.Header())
			for _, c := range x.Settled.within(t.first, t.afterLast) {
				n, s := uint64(c.N), at(c.Slot)
				t.due, t.settled, s.due, s.settled = t.due+n, t.settled+n, s.due+n, s.settled+n
				first, last := p.edges(c.Slot)
				Record(t.least, x.At-last, int64(n))
				Record(t.most, x.At-first, int64(n))
				Record(t.made, made-last, int64(n))
				if x.At-first <= inTime {
					s.surely += n
				}
				if x.At-last <= inTime {
					s.maybe += n
				}
			}
		}
	}
	return t
}

// holds says what is wrong with reported latencies.
func (t *tally) holds(says report.Quantiles) error {
	if t.settled == 0 && says != (report.Quantiles{}) {
		return errors.New("the report has latencies, and nothing was finalised")
	}
	least, most := report.QuantilesOf(t.least), report.QuantilesOf(t.most)
	for _, q := range []struct {
		name              string
		says, least, most float64
	}{
		{"p50", says.P50, least.P50, most.P50},
		{"p90", says.P90, least.P90, most.P90},
		{"p99", says.P99, least.P99, most.P99},
		{"max", says.Max, least.Max, most.Max},
	} {
		if !(q.says >= q.least && q.says <= q.most) {
			return fmt.Errorf("the report says %s %v ms, the evidence %v to %v ms", q.name, q.says, q.least, q.most)
		}
	}
	return nil
}

// punctual says what is wrong with the reported shares of each second that were final in time. They are of the transactions with a
// right signature; wrong ones, if there are any, are among those that were sent and did not settle.
func (t *tally) punctual(says []report.Value, wrong bool) error {
	if len(says) > len(t.seconds) {
		return fmt.Errorf("the report has %d seconds, the evidence %d", len(says), len(t.seconds))
	}
	for i, s := range t.seconds {
		fewest := s.due // with a right signature
		if wrong {
			fewest = s.settled + s.unsent
		}
		if i >= len(says) || math.IsNaN(float64(says[i])) {
			if fewest > 0 {
				return fmt.Errorf("the report says nothing of second %d, in which %d were due", i+1, fewest)
			}
			continue
		}
		share := func(n, of uint64) float64 { return report.Round(float64(n)/float64(max(of, 1)), 4) }
		if least, most := share(s.surely, s.due), share(s.maybe, fewest); !(float64(says[i]) >= least && float64(says[i]) <= most) {
			return fmt.Errorf("the report says that a share of %v of second %d was final in time, the evidence %v to %v", says[i], i+1, least, most)
		}
	}
	return nil
}

// stretches holds what the report says of every stretch against its part of the evidence. Of a run with one it says nothing, as
// Result has that.
func (v *verifier) stretches(Options) (Standing, string, error) {
	p, all := &v.e.Phase, v.report.Stretches
	switch {
	case len(p.Stretches) == 1 && len(all) == 0:
		return Agrees, "one, the measurement", nil
	case len(p.Stretches) != len(all) || len(all) == 1:
		return "", "", fmt.Errorf("the report has %d stretches (0: the measurement alone), the evidence is of %d", len(all), len(p.Stretches))
	case all[0].InvalidShare != v.report.Scenario.InvalidShare:
		return "", "", fmt.Errorf("the report says that wrong signatures were %v of the measurement, and %v of its stretch", v.report.Scenario.InvalidShare, all[0].InvalidShare)
	}
	for k := range all {
		if err := v.stretch(k, &all[k]); err != nil {
			return "", "", fmt.Errorf("%s: %w", ofRun(k), err)
		}
	}
	return Agrees, fmt.Sprintf("%d, each with its rate, counts, throughput, latencies and the shares of its seconds that were final in time", len(all)), nil
}

func (v *verifier) stretch(k int, says *report.Stretch) error {
	of, t := &v.e.Phase.Stretches[k], v.tally(k)
	if says.Rate != report.Round(of.Rate, 1) || says.DurationS != of.Duration.Seconds() {
		return fmt.Errorf("the report says %v tx/s for %v s, the evidence is of %v for %v s", says.Rate, says.DurationS, of.Rate, of.Duration.Seconds())
	}
	if err := compare([]figure{
		{"due", says.Due, t.due},
		{"finalised", says.Finalised, t.settled},
		{"unsent", says.Unsent, t.missed[Unsent]},
		{"rejected by code", sum(says.Rejected, t.due), t.missed[Rejected]},
	}); err != nil {
		return err
	}
	if err := of.holds(says.TPS, v.settledIn(of.Marks)); err != nil {
		return err
	}
	if err := t.holds(says.FinalityMs); err != nil {
		return err
	}
	return t.punctual(says.InTime, says.InvalidShare > 0)
}

// figure is a count of the report, and what it has to be.
type figure struct {
	name      string
	says, has uint64
}

func compare(all []figure) error {
	for _, c := range all {
		if c.says != c.has {
			return fmt.Errorf("the report says %d %s, the evidence has %d", c.says, c.name, c.has)
		}
	}
	return nil
}

// sum adds counts up; one above a limit is as good as any other.
func sum(counts map[string]uint64, limit uint64) (total uint64) {
	for _, n := range counts {
		if total += min(n, limit+1); total > limit {
			return limit + 1 // no wrap
		}
	}
	return total
}
