package replay

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"tutti/accel/bls"
	"tutti/accel/merkle"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/bench/openloop"
	"tutti/bench/report"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// world is a network with real committees and nothing behind it, whose clock is the test's.
type world struct {
	tb      testing.TB
	genesis *genesis.Genesis
	secrets []*bls.SecretKey // of every validator; those of shard s from 4s on
	epochs  [][]*consensus.Committee
	keys    []consensus.Keys // of the newest epoch, by shard
	tips    []*consensus.Header
	sent    map[[2]int]uint64
	trust   *proof.Trust
}

const genesisMs = 1_700_000_000_000

func newWorld(tb testing.TB, name string, shards int) *world {
	tb.Helper()
	w := &world{tb: tb, sent: map[[2]int]uint64{}}
	table, err := ledger.GenesisTable(uint16(shards))
	if err != nil {
		tb.Fatal(err)
	}
	w.genesis = &genesis.Genesis{
		Name: name, TimeMs: genesisMs, Seed: sha256.Sum256([]byte(name)), Table: table,
		Parameters: genesis.Parameters{
			Fees: []uint64{1}, OpenCap: 10, AccountLimit: 1000, ReceiptWindow: 1000, MaxBodyBytes: 1 << 20, MaxBlockTxs: 1000, BlockIntervalMs: 100, HeartbeatMs: 1000,
		},
		Accounts: genesis.Accounts{Count: 1000, Total: 1_000_000, SHA256: consensus.Hash{1}},
	}
	for s := range shards {
		var row genesis.Shard
		for i := range 4 {
			seed := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", name, s, i))
			k, err := bls.NewSecretKey(seed[:])
			if err != nil {
				tb.Fatal(err)
			}
			w.secrets = append(w.secrets, k)
			row.Validators = append(row.Validators, genesis.Validator{
				Name: fmt.Sprintf("s%dv%d", s, i), Key: k.Public(), Possession: consensus.Signature{1}, Node: seed, Power: consensus.Power(10 + i),
			})
		}
		w.genesis.Shards = append(w.genesis.Shards, row)
	}
	if err := w.genesis.Validate(); err != nil {
		tb.Fatal(err)
	}
	var first []*consensus.Committee
	for s := range consensus.ShardID(shards) {
		c, err := w.genesis.Committee(s)
		if err != nil {
			tb.Fatal(err)
		}
		h, err := w.genesis.Header(s, consensus.Hash{2})
		if err != nil {
			tb.Fatal(err)
		}
		first = append(first, c)
		w.epochs, w.keys, w.tips = append(w.epochs, []*consensus.Committee{c}), append(w.keys, w.keysOf(c)), append(w.tips, h)
	}
	if w.trust, err = proof.NewTrust(w.genesis.Hash(), first, func(tx.ID) consensus.ShardID { return 0 }); err != nil {
		tb.Fatal(err)
	}
	return w
}

func (w *world) keysOf(c *consensus.Committee) consensus.Keys {
	keys, err := consensus.NewKeys(c)
	if err != nil {
		w.tb.Fatal(err)
	}
	return keys
}

func (w *world) committee(s int) *consensus.Committee { return w.epochs[s][len(w.epochs[s])-1] }

func (w *world) id(t *tx.Signed) tx.Hash { return t.TxID(tx.Hash(w.genesis.Hash())) }

// transfer is number n, between shards.
func (w *world) transfer(from, to int, n uint64) tx.Signed {
	return tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: tx.MakeID(uint16(from), uint32(n)), To: tx.MakeID(uint16(to), uint32(n)), Amount: 5, Nonce: uint32(n), Expiry: 1000}}
}

// block is what a test wants in a block.
type block struct {
	txs      []tx.Signed
	failed   []int
	receipts []tx.Receipt // all of the other shard
	sends    int          // receipts that it makes for the other shard
	timeMs   int64
	shards   bool // the body travels in shards
	ends     bool // the epoch
}

// add makes a final block on a shard's tip and opens it as a client does.
func (w *world) add(s int, b block) *proof.Contents {
	w.tb.Helper()
	other := 1 - s
	body := tx.Body{Txs: b.txs, Outcomes: make([]bool, len(b.txs))}
	for i := range body.Outcomes {
		body.Outcomes[i] = true
	}
	for _, i := range b.failed {
		body.Outcomes[i] = false
	}
	h := *w.tips[s]
	h.Links = append([]consensus.Link(nil), h.Links...)
	var credits []tx.CreditOutcome
	if n := len(b.receipts); n > 0 {
		body.Bundles = []tx.Bundle{{Source: uint16(other), First: h.Links[0].Received, Receipts: b.receipts}}
		for range n {
			credits = append(credits, tx.Credited)
		}
		h.Links[0].Received += uint64(n)
	}
	if len(h.Links) > 0 {
		h.Links[0].Sent += uint64(b.sends)
	}
	var leaves [][32]byte
	for i := range b.txs {
		leaves = append(leaves, tx.TxLeaf(w.id(&b.txs[i]), body.Outcomes[i]))
	}
	for _, u := range body.Bundles {
		for k := range u.Receipts {
			leaves = append(leaves, tx.CreditLeaf(u.Receipts[k].Leaf(u.Source, uint16(s), u.First+uint64(k)), tx.Credited))
		}
	}
	c := w.committee(s)
	enc := body.Append(nil)
	h.Epoch, h.View, h.Height, h.TimeMs, h.Parent = c.Epoch, h.View+1, h.Height+1, b.timeMs, w.tips[s].Hash()
	h.Body, h.Outcomes, h.State = consensus.NewBodyRef(enc), merkle.ListRoot(leaves), sha256.Sum256([]byte{byte(h.Height)})
	h.Committee, h.NextCommittee = c.Hash(), c.Hash()
	if b.shards {
		h.Body = c.ShardsRef(enc)
	}
	var next *consensus.Committee
	if b.ends {
		var err error
		if next, err = consensus.NewCommittee(c.Shard, c.Epoch+1, consensus.Hash{7}, c.Validators); err != nil {
			w.tb.Fatal(err)
		}
		h.NextCommittee = next.Hash()
	}
	w.tips[s] = &h
	full := proof.Block{Final: proof.Final{Headers: []*consensus.Header{&h}, Cert: w.certify(s, &h)}, Body: enc, Credits: credits}
	if next != nil {
		if err := w.trust.Advance(&proof.Handover{End: &consensus.EpochEnd{Last: &h, Cert: full.Final.Cert}, Next: next}); err != nil {
			w.tb.Fatal(err)
		}
		w.epochs[s] = append(w.epochs[s], next)
		w.keys[s] = w.keysOf(next)
	}
	out, err := full.Verify(w.trust)
	if err != nil {
		w.tb.Fatal(err)
	}
	return out
}

// certify makes a finalize certificate with all keys of a shard.
func (w *world) certify(s int, h *consensus.Header) consensus.Certificate {
	st := consensus.Statement{Kind: consensus.Finalize, Shard: h.Shard, Epoch: h.Epoch, View: h.View, Block: h.Hash()}
	cert := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(4)}
	var sigs []consensus.Signature
	for i := range 4 {
		cert.Signers.Add(i)
		sigs = append(sigs, w.secrets[4*s+i].Sign(consensus.VoteMessage(h.Chain, st)))
	}
	var err error
	if cert.Signature, err = w.keys[s].Aggregate(sigs); err != nil {
		w.tb.Fatal(err)
	}
	return cert
}

// The run that run makes: two shards, a fifth of the transfers between them, in each block one of somebody else that fails; some
// of the schedule do not settle. Blocks are made every 100 ms and verified 30 ms later or more; the last ones settle what was due.
const (
	runRate   = 400
	runWarm   = 100 * time.Millisecond
	runLength = time.Second
	runBlocks = 14
	runStart  = 77 * time.Second // by the client's clock
	runSlow   = 9                // this block of shard 0 is verified so much later:
	runDelay  = 25 * time.Millisecond
)

// plan is what a run is to be like.
type plan struct {
	phase    Phase
	every    time.Duration // between blocks
	blocks   int
	slow     int              // block of shard 0 that is verified later
	stall    [2]time.Duration // blocks that are made within are verified after it
	handover int              // block with which an epoch ends
}

type pending struct {
	n    uint64
	due  time.Duration
	t    tx.Signed
	dest int
}

// sim is one run.
type sim struct {
	*world
	plan
	rec     *Recorder
	sched   openloop.Schedule
	marks   []Marks
	waiting [2][]pending
	way     [2][]pending // by destination: debited, and on the way
	spans   []span       // by stretch
}

// span is what becomes of a stretch.
type span struct {
	due     uint64
	missed  [Reasons]uint64
	latency []time.Duration
	seconds [][2]uint64 // due, and in time
	perSpan [3]uint64   // settled, blocks and successes between the marks
}

var runReasons = map[uint64]Reason{61: Rejected, 62: Lost, 63: Expired, 64: Unsent, 65: Returned, 66: InvalidAccepted, 7: Rejected}

func run(tb testing.TB, name string, handover bool) *report.Report {
	tb.Helper()
	p := plan{
		phase: Phase{WarmUp: runWarm, Stretches: []Stretch{{Rate: runRate, Duration: runLength}}}, every: 100 * time.Millisecond, blocks: runBlocks, slow: runSlow,
	}
	if handover {
		p.handover = 6
	}
	return simulate(tb, name, p)
}

// stretched is a run with bursts in three stretches, the second of them an overload during which the client sees nothing for a while.
func stretched(tb testing.TB, name string) *report.Report {
	tb.Helper()
	return simulate(tb, name, plan{
		phase: Phase{Burst: Burst, Stretches: []Stretch{{Rate: 60, Duration: time.Second}, {Rate: 90.5, Duration: 2 * time.Second}, {Rate: 60, Duration: time.Second}}},
		every: 300 * time.Millisecond, blocks: 15, stall: [2]time.Duration{2 * time.Second, 3050 * time.Millisecond},
	})
}

func simulate(tb testing.TB, name string, p plan) *report.Report {
	tb.Helper()
	w := newWorld(tb, name, 2)
	s := &sim{world: w, plan: p, sched: p.phase.Schedule(), spans: make([]span, len(p.phase.Stretches))}
	wall := time.UnixMilli(genesisMs + 60_000)
	var bases []*proof.Final
	for shard := range 2 {
		c := w.add(shard, block{timeMs: wall.UnixMilli() - 50})
		bases = append(bases, &c.Block.Final)
	}
	for k := range p.phase.Stretches {
		s.marks = append(s.marks, Marks{runStart + p.phase.from(k) + 200*time.Microsecond, runStart + p.phase.from(k+1) + 300*time.Microsecond})
	}
	var err error
	if s.rec, err = NewRecorder(s.phase, runStart, wall, w.trust, bases); err != nil {
		tb.Fatal(err)
	}
	for n := range s.sched.DueBy(p.phase.from(len(p.phase.Stretches)) - 1) {
		s.due(n)
	}
	for k := 1; k <= p.blocks; k++ {
		for shard := range 2 {
			s.block(k, shard, wall)
		}
	}
	e, err := s.rec.Finish(s.marks...)
	if err != nil {
		tb.Fatal(err)
	}
	e.Genesis = w.genesis
	r := s.report()
	if r.Evidence, err = e.Encode(); err != nil {
		tb.Fatal(err)
	}
	return r
}

// span is that of a transaction; nil in the warm-up.
func (s *sim) span(n uint64) *span {
	if k := s.sched.Stretch(n); k > 0 {
		return &s.spans[k-1]
	}
	return nil
}

// second is the one of its stretch that a transaction is due in.
func (s *sim) second(n uint64) *[2]uint64 {
	p, k := s.span(n), int((s.sched.Due(n)-s.phase.from(s.sched.Stretch(n)-1))/time.Second)
	for len(p.seconds) <= k {
		p.seconds = append(p.seconds, [2]uint64{})
	}
	return &p.seconds[k]
}

// due enters a transaction into the schedule.
func (s *sim) due(n uint64) {
	due := s.sched.Due(n)
	why, missed := runReasons[n]
	if p := s.span(n); p != nil {
		p.due++
		s.second(n)[0]++
		if missed {
			p.missed[why]++
		}
	}
	if missed {
		if why != Rejected || n == 7 { // the other one is left to Finish
			s.rec.Missed(why, runStart+due)
		}
		return
	}
	from := int(n % 2)
	p := pending{n: n, due: due, dest: from}
	if n%5 == 0 {
		p.dest = 1 - from
	}
	p.t = s.transfer(from, p.dest, n)
	s.waiting[from] = append(s.waiting[from], p)
}

// verified is when a block is that was made then.
func (s *sim) verified(k, shard int, made time.Duration) time.Duration {
	at := made + 30*time.Millisecond + time.Duration(k%4)*3*time.Millisecond + 123*time.Microsecond
	if k == s.slow && shard == 0 {
		at += runDelay - 10*time.Millisecond
	}
	if made >= s.stall[0] && made < s.stall[1] {
		at = s.stall[1] + time.Duration(2*k+shard)*time.Millisecond
	}
	return at
}

func (s *sim) block(k, shard int, wall time.Time) {
	made := time.Duration(k)*s.every + time.Duration(shard)*20*time.Millisecond
	at := s.verified(k, shard, made)
	b := block{timeMs: wall.UnixMilli() + made.Milliseconds(), shards: k%2 == 0, ends: k == s.handover}
	var took, rest []pending
	for _, p := range s.waiting[shard] {
		if p.due > made {
			rest = append(rest, p)
			continue
		}
		took = append(took, p)
		b.txs = append(b.txs, p.t)
		if p.dest != shard {
			b.sends++
		}
	}
	s.waiting[shard] = rest
	b.failed = []int{len(b.txs)}
	b.txs = append(b.txs, s.transfer(shard, shard, uint64(500+k)))
	credited := s.way[shard]
	s.way[shard] = nil
	for _, p := range credited {
		b.receipts = append(b.receipts, tx.Receipt{From: p.t.From, To: p.t.To, Amount: p.t.Amount, Tx: s.id(&p.t)})
	}
	c := s.add(shard, b)
	open := s.rec.Block(c, runStart+at)
	settle := func(p pending, credit bool) {
		s.rec.Settled(consensus.ShardID(shard), runStart+p.due, credit)
		if of := s.span(p.n); of != nil {
			of.latency = append(of.latency, at-p.due)
			if at-p.due <= time.Second {
				s.second(p.n)[1]++
			}
		}
	}
	settled := len(credited)
	for _, p := range took {
		if p.dest == shard {
			settled++
			settle(p, false)
		} else {
			s.way[p.dest] = append(s.way[p.dest], p)
		}
	}
	for _, p := range credited {
		settle(p, true)
	}
	for i, m := range s.marks {
		if m.has(runStart + at) {
			x := &s.spans[i].perSpan
			x[0], x[1], x[2] = x[0]+uint64(settled), x[1]+1, x[2]+uint64(len(took))
		}
	}
	open()
}

// report is what a benchmark would say, from the latencies themselves.
func (s *sim) report() *report.Report {
	quantiles := func(x *span) report.Quantiles {
		h := NewHistogram()
		for _, l := range x.latency {
			Record(h, l, 1)
		}
		return report.QuantilesOf(h)
	}
	rate := func(k int, n uint64, decimals int) float64 {
		return report.Round(float64(n)/(s.marks[k].End-s.marks[k].Begin).Seconds(), decimals)
	}
	x, first := &s.spans[0], &s.phase.Stretches[0]
	r := &report.Report{
		Schema: report.Schema,
		Scenario: report.Scenario{
			Name: "uniform-2x4", Shards: 2, Validators: 4, Accounts: 1000, Workload: "uniform", CrossShardShare: 0.2, Rate: first.Rate, DurationS: first.Duration.Seconds(),
			Link: report.Loopback, Burst: s.phase.Burst > 0,
		},
		Result: report.Result{
			Submitted: x.due - x.missed[Unsent], Finalised: uint64(len(x.latency)), Rejected: x.missed[Rejected], Lost: x.missed[Lost], TPS: rate(0, x.perSpan[0], 1),
			FinalityMs: quantiles(x), StateRootAgrees: true, SupplyConserved: true,
		},
		ClientSigning: report.Online, BlocksPerS: report.Round(float64(x.perSpan[1])/(s.marks[0].End-s.marks[0].Begin).Seconds()/2, 2),
		Checks: []report.Check{{Name: "state_root_agrees", OK: true}, {Name: "supply_conserved", OK: true}},
		Details: report.Details{
			WarmUpS: s.phase.WarmUp.Seconds(), RejectedByCode: map[string]uint64{"no_answer": x.missed[Rejected]}, Returned: x.missed[Returned], Expired: x.missed[Expired],
			Unsent: x.missed[Unsent], InvalidAccepted: x.missed[InvalidAccepted], Skipped: 1, TransactionsSeen: x.perSpan[2],
		},
	}
	for k, t := range s.phase.Stretches {
		if len(s.spans) == 1 {
			break
		}
		x := &s.spans[k]
		out := report.Stretch{
			Name: fmt.Sprintf("part %d", k), Rate: t.Rate, DurationS: t.Duration.Seconds(), Due: x.due, Finalised: uint64(len(x.latency)), Unsent: x.missed[Unsent],
			Rejected: map[string]uint64{"no_answer": x.missed[Rejected]}, TPS: rate(k, x.perSpan[0], 1), FinalityMs: quantiles(x),
		}
		for _, n := range x.seconds {
			out.InTime = append(out.InTime, report.Value(report.Round(float64(n[1])/float64(n[0]), 4)))
		}
		r.Stretches = append(r.Stretches, out)
	}
	return r
}

// copied is a report as its reader gets it.
func copied(tb testing.TB, r *report.Report) *report.Report {
	tb.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		tb.Fatal(err)
	}
	out := &report.Report{}
	if err := json.Unmarshal(b, out); err != nil {
		tb.Fatal(err)
	}
	return out
}
