package bench

import (
	"fmt"
	"time"

	"tutti/appliance/api"
	"tutti/bench/load"
	"tutti/bench/report"
)

// # Overload
//
// Config.Overload times the rate follows the measurement, for as long, and then the rate again, for ten seconds at least. In the overload a client gives up
// what is refused with an answer that says when to try again, and what could not be sent within a second, as people do; else the
// backlog of the load generator would be offered on top of the rate afterwards (see bench/load). Given the highest rate as the rate, checks say:
//
//   - overload_rate: at least 90 % of the rate that was finalised before are finalised in the overload.
//   - overload_memory: no validator took more than half as much again as before, and 256 MiB.
//   - overload_answers: every refusal says that it is for now: rate_limited, busy, pool_full and such, with a Retry-After header
//     or, where a call was taken in part, a code whose remedy says when to send again.
//   - overload_recovery: from the fifth second after the overload on at the latest, three seconds follow one another in each of
//     which 99 % of what was due, sent or not, was final within a second.
//
// # Wrong signatures beside right ones
//
// Config.Alternate offers the rate of valid transfers in four stretches, the second and the fourth with Config.Invalid of all
// that is offered signed wrongly on top. Check invalid_throughput: of valid ones, those finalised a second are at least 85 % of
// what they are without. A network that is not at its limit passes easily: give the highest rate.

// What has to hold of stretches.
const (
	overloadShare   = 0.9 // of the finalised rate before
	overloadGrowth  = 1.5 // of the memory before
	overloadMoreMiB = 256
	overloadSettle  = 5 // seconds
	overloadCalm    = 3 // seconds in a row
	inTimeShare     = 0.99
	afterLeast      = 10 * time.Second
	alternateShare  = 0.85
)

// Names of stretches.
const (
	atLimit    = "limit"
	overloaded = "overload"
	afterwards = "after"
	withoutBad = "valid"
	withBad    = "mixed"
)

// stretches is what follows the measurement at a rate, and the names, that of the measurement first.
func (b *bench) stretches(rate float64) (then []load.Stretch, names []string) {
	switch {
	case b.Overload > 0:
		return []load.Stretch{
			{Rate: b.Overload * rate, Duration: b.Duration, Invalid: b.Invalid, GiveUp: true}, {Rate: rate, Duration: max(b.Duration, afterLeast), Invalid: b.Invalid},
		}, []string{atLimit, overloaded, afterwards}
	case b.Alternate:
		with, without := load.Stretch{Rate: rate / (1 - b.Invalid), Duration: b.Duration, Invalid: b.Invalid}, load.Stretch{Rate: rate, Duration: b.Duration}
		return []load.Stretch{with, without, with}, []string{withoutBad, withBad, withoutBad, withBad}
	}
	return nil, nil
}

// mixed is the share of wrong signatures in the measurement itself.
func (b *bench) mixed() float64 {
	if b.Alternate {
		return 0
	}
	return b.Invalid
}

// stretched is what became of every stretch; nothing of a run with one.
func (b *bench) stretched(m *measurement) (out []report.Stretch) {
	then, names := b.stretches(m.rate)
	if len(then) == 0 {
		return nil
	}
	all := append([]load.Stretch{{Rate: m.rate, Duration: b.Duration, Invalid: b.mixed()}}, then...)
	for i, o := range append([]*load.Outcome{m.outcome}, m.outcome.Then...) {
		s := report.Stretch{
			Name: names[i], Rate: report.Round(all[i].Rate, 1), DurationS: all[i].Duration.Seconds(), InvalidShare: all[i].Invalid,
			Due: o.Due, Finalised: o.Finalised, Unsent: o.Unsent, Rejected: o.Rejected, Retried: o.Retried, TPS: report.Round(o.TPS(), 1),
			FinalityMs: report.QuantilesOf(o.Latency), PeakRSSMiB: b.recorder.peakRSS(o.Begin.At, o.End.At),
		}
		for _, second := range o.Seconds {
			share := report.None
			if second.Due > 0 {
				share = report.Value(report.Round(float64(second.InTime)/float64(second.Due), 4))
			}
			s.InTime = append(s.InTime, share)
		}
		out = append(out, s)
	}
	return out
}

// judgeStretches makes the checks of stretches.
func judgeStretches(all []report.Stretch, add func(name string, bad error, good string)) {
	if len(all) == 0 {
		return
	}
	verdict := func(name string, ok bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if ok {
			add(name, nil, text)
		} else {
			add(name, fmt.Errorf("%s", text), "")
		}
	}
	if all[0].Name == withoutBad {
		without, with := (all[0].TPS+all[2].TPS)/2, (all[1].TPS+all[3].TPS)/2
		verdict("invalid_throughput", with >= alternateShare*without, "%s valid tx/s finalised with %g %% wrong signatures among all, %s without: %.1f %%",
			report.Number(with), 100*all[1].InvalidShare, report.Number(without), 100*with/max(without, 1))
		return
	}
	before, over, after := all[0], all[1], all[2]
	unsent := ""
	if over.Unsent > 0 {
		unsent = fmt.Sprintf("; %s of %s could not be sent within a second", report.Number(float64(over.Unsent)), report.Number(float64(over.Due)))
	}
	verdict("overload_rate", over.TPS >= overloadShare*before.TPS, "%s tx/s finalised while %s are offered, %s before: %.1f %%%s",
		report.Number(over.TPS), report.Number(over.Rate), report.Number(before.TPS), 100*over.TPS/max(before.TPS, 1), unsent)
	if before.PeakRSSMiB == nil || over.PeakRSSMiB == nil || after.PeakRSSMiB == nil {
		verdict("overload_memory", false, "no validator said how much it has")
	} else {
		most := max(*over.PeakRSSMiB, *after.PeakRSSMiB)
		verdict("overload_memory", most <= overloadGrowth**before.PeakRSSMiB+overloadMoreMiB, "at most %.0f MiB in a validator, before at most %.0f", most, *before.PeakRSSMiB)
	}
	clear, unclear := uint64(0), map[string]uint64{}
	for code, n := range over.Rejected {
		switch {
		case code == string(api.WrongSignature):
		case load.ForNow(code):
			clear += n
		default:
			unclear[code] = n
		}
	}
	if n := over.Retried[load.Unreachable]; n > 0 {
		unclear[load.Unreachable] = n
	}
	verdict("overload_answers", len(unclear) == 0, "%s refusals say when to try again; %s do not", report.Number(float64(clear)), orNone(report.Counts(unclear)))
	at := calmFrom(after.InTime)
	verdict("overload_recovery", at >= 0 && at <= overloadSettle, "%s", recovery(at, after.InTime))
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// calmFrom is the second from which some in a row are calm; below 0: none.
func calmFrom(inTime []report.Value) int {
	calm := 0
	for i, share := range inTime {
		if calm++; !(share >= inTimeShare) {
			calm = 0
		}
		if calm == overloadCalm {
			return i + 1 - overloadCalm
		}
	}
	return -1
}

func recovery(at int, inTime []report.Value) string {
	if at < 0 {
		return fmt.Sprintf("p99 does not come below 1 s for %d seconds in the %d after the overload", overloadCalm, len(inTime))
	}
	return fmt.Sprintf("p99 is below 1 s from %s after the overload on", time.Duration(at)*time.Second)
}
