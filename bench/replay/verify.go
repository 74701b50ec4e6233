package replay

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/bench/report"
	"tutti/consensus"
	"tutti/state/tx"
)

// How far clocks may be apart.
const (
	LoopbackSkew = 100 * time.Millisecond // of processes on one machine, while one of them is set
	NetworkSkew  = time.Second
	MarkDelay    = 2 * time.Second // by which counts may be taken late
)

// Standing is what a Finding's figures rest on.
type Standing string

// The standings.
const (
	Proven  Standing = "proven"  // by certificates of the network whose genesis is named
	Agrees  Standing = "agrees"  // follows from what is proven and the client's own word, which can be true
	Claimed Standing = "claimed" // nothing shows it
	Refused Standing = "REFUSED"
)

// Finding is one thing that was checked, or could not be.
type Finding struct {
	Standing Standing `json:"standing"`
	Name     string   `json:"name"`
	Detail   string   `json:"detail"`
}

// Verdict is all that was found in a report.
type Verdict struct {
	Genesis  string    `json:"genesis"` // hash of the network's genesis; empty if the evidence could not be read
	OK       bool      `json:"ok"`
	Findings []Finding `json:"findings"`
}

// Refused is the first thing that was refused, or "".
func (v *Verdict) Refused() string {
	for _, f := range v.Findings {
		if f.Standing == Refused {
			return f.Name + ": " + f.Detail
		}
	}
	return ""
}

// Options of Verify.
type Options struct {
	Genesis *genesis.Genesis // the network that the report has to be of; nil: any
}

// Verify checks a report against its evidence. A check whose ground another one has taken away is not made: the last
// finding then is what was refused.
func Verify(r *report.Report, o Options) *Verdict {
	v := &verifier{report: r}
	for _, step := range []struct {
		name string
		run  func(Options) (Standing, string, error)
	}{
		{"evidence", v.read},
		{"network", v.network},
		{"blocks", v.chains},
		{"outcomes", v.outcomes},
		{"clocks", v.clocks},
		{"schedule", v.schedule},
		{"settled", v.settled},
		{"throughput", v.throughput},
		{"counts", v.counts},
		{"finality_ms", v.quantiles},
		{"blocks_per_s", v.pace},
		{"stretches", v.stretches},
		{"checks", v.checks},
		{"the rest", v.rest},
	} {
		standing, detail, err := step.run(o)
		if err != nil {
			v.out.Findings = append(v.out.Findings, Finding{Refused, step.name, strings.TrimPrefix(err.Error(), "replay: ")})
			if !v.figures {
				return &v.out
			}
			continue
		}
		v.out.Findings = append(v.out.Findings, Finding{standing, step.name, detail})
	}
	v.out.OK = !slices.ContainsFunc(v.out.Findings, func(f Finding) bool { return f.Standing == Refused })
	return &v.out
}

// verifier is one Verify.
type verifier struct {
	report  *report.Report
	e       *Evidence
	out     Verdict
	figures bool // what follows are figures that do not rest on one another

	shown    [][]outcomes // by shard and block
	received [][]uint64   // receipts that each block consumed
}

func (v *verifier) read(Options) (_ Standing, _ string, err error) {
	if v.e, err = Of(v.report); err != nil {
		return "", "", err
	}
	v.out.Genesis = v.report.Evidence.Genesis
	blocks := 0
	for i := range v.e.Shards {
		blocks += len(v.e.Shards[i].Blocks)
	}
	return Agrees, fmt.Sprintf("%s compressed, %s blocks", size(len(v.report.Evidence.Data)), report.Number(float64(blocks))), nil
}

func size(n int) string { return report.Number(float64(n)/1024) + " KiB" }

func (v *verifier) network(o Options) (Standing, string, error) {
	g, s := v.e.Genesis, &v.report.Scenario
	if o.Genesis != nil && o.Genesis.Hash() != g.Hash() {
		return "", "", fmt.Errorf("the report is of the network with genesis %s, not of %s", g.Hash(), o.Genesis.Hash())
	}
	if s.Shards != len(g.Shards) {
		return "", "", fmt.Errorf("the report says %d shards, the genesis has %d", s.Shards, len(g.Shards))
	}
	for i := range g.Shards {
		if n := len(g.Shards[i].Validators); s.Validators != n {
			return "", "", fmt.Errorf("the report says %d validators a shard, the genesis has %d in shard %d", s.Validators, n, i)
		}
	}
	if s.Accounts > g.Accounts.Count {
		return "", "", fmt.Errorf("the report says %d accounts, the genesis has %d", s.Accounts, g.Accounts.Count)
	}
	known := "compare it with that of a network that you know, or give --genesis"
	if o.Genesis != nil {
		known = "the one that was given"
	}
	return Proven, fmt.Sprintf("genesis %s (%s): %d × %d validators, %s accounts", g.Hash(), known, s.Shards, s.Validators, report.Number(float64(g.Accounts.Count))), nil
}

// chains checks links and certificates of all blocks.
func (v *verifier) chains(Options) (Standing, string, error) {
	var committees []*consensus.Committee
	for i := range v.e.Genesis.Shards {
		c, err := v.e.Genesis.Committee(consensus.ShardID(i))
		if err != nil {
			return "", "", err
		}
		committees = append(committees, c)
	}
	trust, err := proof.NewTrust(v.e.Genesis.Hash(), committees, func(id tx.ID) consensus.ShardID {
		shard, _ := v.e.Genesis.Table.ShardOf(id.Partition())
		return consensus.ShardID(shard)
	})
	if err != nil {
		return "", "", err
	}
	var heights []string
	certificates := uint64(0)
	for i := range v.e.Shards {
		s := &v.e.Shards[i]
		if err := s.verify(trust, consensus.ShardID(i)); err != nil {
			return "", "", fmt.Errorf("shard %d: %w", i, err)
		}
		first := s.Base.Header().Height
		heights = append(heights, fmt.Sprintf("%d to %d", first, first+consensus.Height(len(s.Blocks))))
		certificates += uint64(len(s.Blocks)) + 1
	}
	return Proven, fmt.Sprintf("%s headers, linked, each certified by a quorum of its committee: heights %s; each carries a state root, so a quorum has signed one at every height",
		report.Number(float64(certificates)), strings.Join(heights, ", ")), nil
}

// verify checks that the blocks of a shard are one chain of final blocks.
func (s *Shard) verify(trust *proof.Trust, shard consensus.ShardID) error {
	finals, next := []*proof.Final{&s.Base}, s.Committees
	for k := range s.Blocks {
		finals = append(finals, &s.Blocks[k].Final)
	}
	for k, f := range finals {
		h := f.Header()
		if h.Shard != shard {
			return fmt.Errorf("block %d is of shard %d", h.Height, h.Shard)
		}
		if k > 0 {
			before := finals[k-1].Header()
			if h.Parent != before.Hash() || h.Height != before.Height+1 {
				return fmt.Errorf("block %d does not follow block %d, the one before", h.Height, before.Height)
			}
			if h.TimeMs <= before.TimeMs {
				return fmt.Errorf("block %d is not later than the one before", h.Height)
			}
			if before.Ends() {
				if len(next) == 0 {
					return fmt.Errorf("block %d ends its epoch, and the next committee is not there", before.Height)
				}
				end := &consensus.EpochEnd{Last: before, Echoes: finals[k-1].Headers[1:], Cert: finals[k-1].Cert}
				if err := trust.Advance(&proof.Handover{End: end, Next: next[0]}); err != nil {
					return err
				}
				next = next[1:]
			}
		}
		if _, err := f.Verify(trust); err != nil {
			return fmt.Errorf("block %d: %w", h.Height, err)
		}
	}
	if len(next) != 0 {
		return errors.New("a committee of an epoch that none of the blocks begins")
	}
	return nil
}

// outcomes opens all blocks.
func (v *verifier) outcomes(Options) (Standing, string, error) {
	txs, successes, receipts := uint64(0), uint64(0), uint64(0)
	for i := range v.e.Shards {
		s := &v.e.Shards[i]
		shown, received, before := make([]outcomes, len(s.Blocks)), make([]uint64, len(s.Blocks)), s.Base.Header()
		for k := range s.Blocks {
			x, h := &s.Blocks[k], s.Blocks[k].Final.Header()
			n, err := consumed(before, h)
			if err == nil {
				shown[k], err = x.Opening.verify(h, n)
			}
			if err != nil {
				return "", "", fmt.Errorf("block %d of shard %d: %w", h.Height, i, err)
			}
			received[k], before = n, h
			txs, successes, receipts = txs+shown[k].txs, successes+shown[k].successes, receipts+n
		}
		v.shown, v.received = append(v.shown, shown), append(v.received, received)
	}
	return Proven, fmt.Sprintf("%s transactions, %s with success, %s receipts consumed, by the headers' roots of bodies and outcomes",
		report.Number(float64(txs)), report.Number(float64(successes)), report.Number(float64(receipts))), nil
}

// consumed is how many receipts a block consumed: the cursors are in the headers.
func consumed(parent, h *consensus.Header) (n uint64, err error) {
	if len(h.Links) != len(parent.Links) {
		return 0, fmt.Errorf("%d links after %d", len(h.Links), len(parent.Links))
	}
	for i, l := range h.Links {
		p := parent.Links[i]
		if l.Shard != p.Shard || l.Received < p.Received || l.Received-p.Received > tx.MaxBundles*tx.MaxBundleCount {
			return 0, fmt.Errorf("received %d from shard %d, after %d from shard %d", l.Received, l.Shard, p.Received, p.Shard)
		}
		n += l.Received - p.Received
	}
	return n, nil
}

// skew is how far clocks may be apart.
func (v *verifier) skew() time.Duration {
	if v.report.Scenario.Link == report.Network {
		return NetworkSkew
	}
	return LoopbackSkew
}

// made is when a block was made by its header, since the phase began by the client's clock.
func (v *verifier) made(h *consensus.Header) time.Duration {
	return time.Duration(h.TimeMs)*time.Millisecond - time.Duration(v.e.Phase.Start)
}

// maxTimeMs is 2^62 nanoseconds: later headers can not be compared with the client's clock.
const maxTimeMs = 1 << 62 / int64(time.Millisecond)

// clocks holds the client's clock against those in the headers.
func (v *verifier) clocks(Options) (Standing, string, error) {
	p, skew := &v.e.Phase, v.skew()
	early, late := time.Duration(1<<62), time.Duration(1<<62) // the least that a block was verified, and its transactions due, before
	var most time.Duration
	for i := range v.e.Shards {
		last := time.Duration(0)
		for k := range v.e.Shards[i].Blocks {
			x := &v.e.Shards[i].Blocks[k]
			h := x.Final.Header()
			if h.TimeMs > maxTimeMs {
				return "", "", fmt.Errorf("block %d of shard %d is of %d ms after 1970", h.Height, i, h.TimeMs)
			}
			made := v.made(h)
			switch {
			case x.At < last:
				return "", "", fmt.Errorf("block %d of shard %d was verified before the one before it", h.Height, i)
			case x.At > 4*MaxLength:
				return "", "", fmt.Errorf("block %d of shard %d was verified %s after the run began", h.Height, i, x.At)
			case x.At+skew < made:
				return "", "", fmt.Errorf("block %d of shard %d was verified %s before it was made, by its header: clocks may be %s apart", h.Height, i, made-x.At, skew)
			}
			last, early, most = x.At, min(early, x.At-made), max(most, x.At-made)
			if len(x.Settled) == 0 {
				continue
			}
			due, _ := p.edges(x.Settled[len(x.Settled)-1].Slot)
			switch {
			case due > x.At:
				return "", "", fmt.Errorf("block %d of shard %d was verified before transactions were due that settled with it", h.Height, i)
			case due > made+skew:
				return "", "", fmt.Errorf("transactions settled with block %d of shard %d that were due %s after it was made, by its header: clocks may be %s apart", h.Height, i, due-made, skew)
			}
			late = min(late, made-due)
		}
	}
	if late == 1<<62 {
		return "", "", errors.New("nothing settled")
	}
	return Agrees, fmt.Sprintf("%s apart at most: by header times blocks were verified %s to %s after they were made, and made %s or more after the last of their transactions was due",
		skew, ms(early), ms(most), ms(late)), nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

// schedule checks that what settled and what did not is what was due, slot by slot.
func (v *verifier) schedule(Options) (Standing, string, error) {
	p, s, d := &v.e.Phase, &v.report.Scenario, &v.report.Details
	switch first := p.Stretches[0]; {
	case report.Round(first.Rate, 1) != s.Rate:
		return "", "", fmt.Errorf("the report says %v tx/s, the evidence is of a schedule of %v", s.Rate, first.Rate)
	case first.Duration.Seconds() != s.DurationS || p.WarmUp.Seconds() != d.WarmUpS:
		return "", "", fmt.Errorf("the report says %v s after %v s of warm-up, the evidence is of %v s after %v s", s.DurationS, d.WarmUpS, first.Duration.Seconds(), p.WarmUp.Seconds())
	case s.Burst != (p.Burst > 0) || s.Burst && p.Burst != Burst:
		return "", "", fmt.Errorf("the report says bursts: %t, in %s; the evidence is of a schedule with each second's in %s (0: evenly)", s.Burst, Burst, p.Burst)
	}
	for k, t := range p.Stretches {
		begin, end := p.from(k), p.from(k+1)
		if t.Begin < begin || t.Begin > begin+MarkDelay || t.End < end || t.End > end+MarkDelay {
			return "", "", fmt.Errorf("counts were taken at %s and %s, %s is from %s to %s", t.Begin, t.End, ofRun(k), begin, end)
		}
	}
	found := make([]uint64, p.slots())
	for s := range v.slots() {
		for _, c := range s {
			found[c.Slot] += uint64(c.N)
		}
	}
	total := uint64(0)
	for slot, want := range p.scheduled() {
		if found[slot] != uint64(want) {
			first, _ := p.edges(uint32(slot))
			return "", "", fmt.Errorf("%d transactions are accounted for that were due %s after the run began, the schedule of %s has %d", found[slot], first, p.rates(), want)
		}
		total += uint64(want)
	}
	return Agrees, fmt.Sprintf("%s after %s: every one of the %s transactions that were due in its %s slots is accounted for, in each slot",
		p.rates(), p.WarmUp, report.Number(float64(total)), report.Number(float64(p.slots()))), nil
}

// ofRun is a stretch in words.
func ofRun(k int) string {
	if k == 0 {
		return "the measurement"
	}
	return fmt.Sprintf("stretch %d", k+1)
}

// rates is what is due, in words.
func (p *Phase) rates() string {
	var parts []string
	for _, t := range p.Stretches {
		parts = append(parts, fmt.Sprintf("%s tx/s for %s", report.Number(t.Rate), t.Duration))
	}
	text := strings.Join(parts, ", then ")
	if p.Burst > 0 {
		text += fmt.Sprintf(", within %s of each second", p.Burst)
	}
	return text
}

// slots goes through all counts by slot.
func (v *verifier) slots() func(func(Slots) bool) {
	return func(yield func(Slots) bool) {
		for i := range v.e.Shards {
			for k := range v.e.Shards[i].Blocks {
				if !yield(v.e.Shards[i].Blocks[k].Settled) {
					return
				}
			}
		}
		for _, s := range v.e.Missed {
			if !yield(s) {
				return
			}
		}
	}
}

// settled holds what settled against what succeeded: in each block, and in all blocks up to each moment, since every transfer
// that settles has its own success bit, the ones between shards too.
func (v *verifier) settled(Options) (Standing, string, error) {
	type at struct {
		when               time.Duration
		settled, succeeded uint64
	}
	var all []at
	for i := range v.e.Shards {
		for k := range v.e.Shards[i].Blocks {
			x := &v.e.Shards[i].Blocks[k]
			n, height := x.Settled.Sum(), x.Final.Header().Height
			switch took := v.shown[i][k].successes; {
			case x.Credits > n || x.Credits > v.received[i][k]:
				return "", "", fmt.Errorf("%d transactions settled with a receipt in block %d of shard %d, of %d that settled and %d receipts", x.Credits, height, i, n, v.received[i][k])
			case n-x.Credits > took:
				return "", "", fmt.Errorf("%d transactions settled with block %d of shard %d, in which %d succeeded", n-x.Credits, height, i, took)
			default:
				all = append(all, at{x.At, n, took})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b at) int { return cmp.Compare(a.when, b.when) })
	settled, succeeded := uint64(0), uint64(0)
	for i, a := range all {
		settled, succeeded = settled+a.settled, succeeded+a.succeeded
		if settled > succeeded && (i+1 == len(all) || all[i+1].when > a.when) {
			return "", "", fmt.Errorf("%s after the run began %d transactions had settled, and %d had succeeded", a.when, settled, succeeded)
		}
	}
	v.figures = true
	return Agrees, fmt.Sprintf("%s transactions of this client among %s that succeeded, and never more", report.Number(float64(settled)), report.Number(float64(succeeded))), nil
}

// throughput counts what settled in the measurement.
func (v *verifier) throughput(Options) (Standing, string, error) {
	t := &v.e.Phase.Stretches[0]
	n := v.settledIn(t.Marks)
	first, last := time.Duration(1<<62), time.Duration(-1<<62)
	for i := range v.e.Shards {
		for k := range v.e.Shards[i].Blocks {
			if x := &v.e.Shards[i].Blocks[k]; t.has(x.At) {
				first, last = min(first, v.made(x.Final.Header())), max(last, v.made(x.Final.Header()))
			}
		}
	}
	if err := t.holds(v.report.Result.TPS, n); err != nil {
		return "", "", err
	}
	return Agrees, fmt.Sprintf("%v tx/s: %s settled in %s by the client's clock; the blocks' headers are of %s", v.report.Result.TPS, report.Number(float64(n)), t.End-t.Begin, last-first), nil
}

// has says whether what settled then is in the count.
func (m *Marks) has(at time.Duration) bool { return at > m.Begin && at <= m.End }

// holds says what is wrong with a throughput of n transactions.
func (m *Marks) holds(says float64, n uint64) error {
	if tps := report.Round(float64(n)/(m.End-m.Begin).Seconds(), 1); tps != says {
		return fmt.Errorf("the report says %v tx/s; %d transactions settled in %s, which is %v", says, n, m.End-m.Begin, tps)
	}
	return nil
}

// settledIn is how many transactions settled between marks.
func (v *verifier) settledIn(m Marks) (n uint64) {
	for i := range v.e.Shards {
		for k := range v.e.Shards[i].Blocks {
			if x := &v.e.Shards[i].Blocks[k]; m.has(x.At) {
				n += x.Settled.Sum()
			}
		}
	}
	return n
}

// counts adds up the transactions of the measurement.
func (v *verifier) counts(Options) (Standing, string, error) {
	x, d, t := &v.report.Result, &v.report.Details, v.tally(0)
	failed := uint64(0)
	for i := range v.shown {
		for _, o := range v.shown[i] {
			failed += o.txs - o.successes
		}
	}
	if err := compare([]figure{
		{"submitted", x.Submitted, t.due - t.missed[Unsent]},
		{"finalised", x.Finalised, t.settled},
		{"rejected", x.Rejected, t.missed[Rejected]},
		{"rejected by code", sum(d.RejectedByCode, t.due), t.missed[Rejected]},
		{"lost", x.Lost, t.missed[Lost]},
		{"returned", d.Returned, t.missed[Returned]},
		{"expired", d.Expired, t.missed[Expired]},
		{"unsent", d.Unsent, t.missed[Unsent]},
		{"accepted though invalid", d.InvalidAccepted, t.missed[InvalidAccepted]},
	}); err != nil {
		return "", "", err
	}
	if d.Skipped > failed {
		return "", "", fmt.Errorf("the report says %d skipped, %d failed in all blocks", d.Skipped, failed)
	}
	return Agrees, fmt.Sprintf("%s finalised of %s submitted, %s rejected, %s lost, %s expired, %s not sent", report.Number(float64(t.settled)), report.Number(float64(x.Submitted)),
		report.Number(float64(x.Rejected)), report.Number(float64(x.Lost)), report.Number(float64(d.Expired)), report.Number(float64(d.Unsent))), nil
}

// quantiles makes the latencies again.
func (v *verifier) quantiles(Options) (Standing, string, error) {
	says, t := v.report.Result.FinalityMs, v.tally(0)
	if err := t.holds(says); err != nil {
		return "", "", err
	}
	floor := report.QuantilesOf(t.made)
	return Agrees, fmt.Sprintf("p50 %v, p90 %v, p99 %v, max %v, to a millisecond; with the header times in place of the client's no lower than p50 %v, p99 %v, max %v",
		says.P50, says.P90, says.P99, says.Max, floor.P50, floor.P99, floor.Max), nil
}

// pace counts blocks and transactions of the measurement, whoever's.
func (v *verifier) pace(Options) (Standing, string, error) {
	p := &v.e.Phase.Stretches[0]
	blocks, successes := uint64(0), uint64(0)
	for i := range v.e.Shards {
		for k := range v.e.Shards[i].Blocks {
			if p.has(v.e.Shards[i].Blocks[k].At) {
				blocks++
				successes += v.shown[i][k].successes
			}
		}
	}
	rate := report.Round(float64(blocks)/(p.End-p.Begin).Seconds()/float64(len(v.e.Shards)), 2)
	if rate != v.report.BlocksPerS {
		return "", "", fmt.Errorf("the report says %v, %d blocks of %d shards in %s are %v", v.report.BlocksPerS, blocks, len(v.e.Shards), p.End-p.Begin, rate)
	}
	if successes != v.report.Details.TransactionsSeen {
		return "", "", fmt.Errorf("the report says that %d transactions were in the blocks of the measurement, the blocks have %d", v.report.Details.TransactionsSeen, successes)
	}
	return Agrees, fmt.Sprintf("%v of each shard, with %s transactions of whomever", rate, report.Number(float64(successes))), nil
}

// checks reads the checks of the run itself.
func (v *verifier) checks(Options) (Standing, string, error) {
	r := v.report
	if failed := r.Failed(); len(failed) > 0 {
		return "", "", fmt.Errorf("the run does not count: by its own report %s did not hold", strings.Join(failed, ", "))
	}
	var names []string
	for _, c := range r.Checks {
		names = append(names, c.Name)
	}
	for _, c := range []struct {
		name string
		says bool
	}{{"state_root_agrees", r.Result.StateRootAgrees}, {"supply_conserved", r.Result.SupplyConserved}} {
		if !c.says || !slices.Contains(names, c.name) {
			return "", "", fmt.Errorf("the run does not count: by its own report %s did not hold, or was not checked", c.name)
		}
	}
	for _, c := range []struct {
		name string
		why  Reason
	}{{"none_lost", Lost}, {"no_invalid_accepted", InvalidAccepted}} {
		if n := v.e.Missed[c.why].Sum(); n > 0 && slices.Contains(names, c.name) {
			return "", "", fmt.Errorf("the report says that %s held, and the evidence has %d %s, warm-up included", c.name, n, c.why)
		}
	}
	return Claimed, fmt.Sprintf("that these held: %s; of the state root, that all validators have the one that a quorum signed", strings.Join(names, ", ")), nil
}

func (v *verifier) rest(Options) (Standing, string, error) {
	return Claimed, "CPU, memory, traffic, disk and machine; commit and seed; who signed what where: workload, client_signing, brokers, distilled_measured, mean_batch; retries, skips, drain, search, account_proof_ms; latencies between shards, distribution, series; of stretches names, shares of wrong signatures, and memory", nil
}

// Bound is what a report that was accepted shows, and what it does not.
const Bound = `
proven   by signatures of a quorum of the network whose genesis hash is named. Whoever holds those keys can make any such
         chain: of a network that the reporter ran, all this shows that the figures follow from evidence that is complete
         and can be true, and no more; of one whose genesis you know (--genesis), that its validators signed the blocks
agrees   with what is proven, and rests on the client's word too: its clock, and which transactions were its own, within
         what the headers' times and the outcomes in the blocks leave open
claimed  is shown by nothing here: repeat the run`
