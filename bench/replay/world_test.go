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

type pending struct {
	n    uint64
	due  time.Duration
	t    tx.Signed
	dest int
}

// sim is one run.
type sim struct {
	*world
	rec     *Recorder
	phase   Phase
	waiting [2][]pending
	way     [2][]pending // by destination: debited, and on the way
	latency []time.Duration
	settled map[uint64]bool
	perSpan [3]uint64 // settled, blocks and successes in the measurement
	failed  uint64
}

var runReasons = map[uint64]Reason{61: Rejected, 62: Lost, 63: Expired, 64: Unsent, 65: Returned, 66: InvalidAccepted, 7: Rejected}

func run(tb testing.TB, name string, handover bool) *report.Report {
	tb.Helper()
	w := newWorld(tb, name, 2)
	s := &sim{world: w, settled: map[uint64]bool{}, phase: Phase{Rate: runRate, WarmUp: runWarm, Duration: runLength}}
	wall := time.UnixMilli(genesisMs + 60_000)
	var bases []*proof.Final
	for shard := range 2 {
		c := w.add(shard, block{timeMs: wall.UnixMilli() - 50})
		bases = append(bases, &c.Block.Final)
	}
	var err error
	if s.rec, err = NewRecorder(s.phase, runStart, wall, w.trust, bases); err != nil {
		tb.Fatal(err)
	}
	total := openloop.New(0, openloop.Stretch{Rate: runRate}).DueBy(runWarm + runLength - 1)
	for n := range total {
		due := openloop.New(0, openloop.Stretch{Rate: runRate}).Due(n)
		if why, missed := runReasons[n]; missed {
			if why != Rejected || n == 7 { // the other one is left to Finish
				s.rec.Missed(why, runStart+due)
			}
			continue
		}
		from := int(n % 2)
		p := pending{n: n, due: due, dest: from}
		if n%5 == 0 {
			p.dest = 1 - from
		}
		p.t = w.transfer(from, p.dest, n)
		s.waiting[from] = append(s.waiting[from], p)
	}
	for k := 1; k <= runBlocks; k++ {
		for shard := range 2 {
			s.block(k, shard, wall, handover && k == 6)
		}
	}
	begin, end := runStart+runWarm+200*time.Microsecond, runStart+runWarm+runLength+300*time.Microsecond
	e, err := s.rec.Finish(begin, end)
	if err != nil {
		tb.Fatal(err)
	}
	e.Genesis = w.genesis
	r := s.report((end - begin).Seconds())
	if r.Evidence, err = e.Encode(); err != nil {
		tb.Fatal(err)
	}
	return r
}

func (s *sim) block(k, shard int, wall time.Time, ends bool) {
	made := time.Duration(k)*100*time.Millisecond + time.Duration(shard)*20*time.Millisecond
	at := made + 30*time.Millisecond + time.Duration(k%4)*3*time.Millisecond + 123*time.Microsecond
	if k == runSlow && shard == 0 {
		at += runDelay - 10*time.Millisecond
	}
	b := block{timeMs: wall.UnixMilli() + made.Milliseconds(), shards: k%2 == 0, ends: ends}
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
	in := at > runWarm+200*time.Microsecond && at <= runWarm+runLength+300*time.Microsecond
	if in {
		s.perSpan[1]++
		s.perSpan[2] += uint64(len(took))
	}
	s.failed++
	settle := func(p pending, credit bool) {
		s.rec.Settled(consensus.ShardID(shard), runStart+p.due, credit)
		if p.due >= runWarm {
			s.latency = append(s.latency, at-p.due)
		}
		if in {
			s.perSpan[0]++
		}
	}
	for _, p := range took {
		if p.dest == shard {
			settle(p, false)
		} else {
			s.way[p.dest] = append(s.way[p.dest], p)
		}
	}
	for _, p := range credited {
		settle(p, true)
	}
	open()
}

// report is what a benchmark would say, from the latencies themselves.
func (s *sim) report(span float64) *report.Report {
	h := NewHistogram()
	for _, l := range s.latency {
		Record(h, l, 1)
	}
	return &report.Report{
		Schema: report.Schema,
		Scenario: report.Scenario{
			Name: "uniform-2x4", Shards: 2, Validators: 4, Accounts: 1000, Workload: "uniform", CrossShardShare: 0.2, Rate: runRate, DurationS: runLength.Seconds(), Link: report.Loopback,
		},
		Result: report.Result{
			Submitted: 399, Finalised: uint64(len(s.latency)), Rejected: 1, Lost: 1, TPS: report.Round(float64(s.perSpan[0])/span, 1),
			FinalityMs: report.QuantilesOf(h), StateRootAgrees: true, SupplyConserved: true,
		},
		ClientSigning: report.Online, BlocksPerS: report.Round(float64(s.perSpan[1])/span/2, 2),
		Checks: []report.Check{{Name: "state_root_agrees", OK: true}, {Name: "supply_conserved", OK: true}},
		Details: report.Details{
			WarmUpS: runWarm.Seconds(), RejectedByCode: map[string]uint64{"no_answer": 1}, Returned: 1, Expired: 1, Unsent: 1, InvalidAccepted: 1, Skipped: 1,
			TransactionsSeen: s.perSpan[2],
		},
	}
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
