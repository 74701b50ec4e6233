package replay

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tutti/appliance/proof"
	"tutti/bench/report"
	"tutti/consensus"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func evidence(tb testing.TB, r *report.Report) *Evidence {
	tb.Helper()
	e, err := Of(r)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func put(tb testing.TB, r *report.Report, e *Evidence) {
	tb.Helper()
	var err error
	if r.Evidence, err = e.Encode(); err != nil {
		tb.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	for name, run := range map[string]func() *report.Report{
		"one epoch":              func() *report.Report { return run(t, "verify", false) },
		"epochs end":             func() *report.Report { return run(t, "verify", true) },
		"stretches, with bursts": func() *report.Report { return stretched(t, "verify") },
	} {
		t.Run(name, func(t *testing.T) {
			r := copied(t, run())
			v := Verify(r, Options{Genesis: evidence(t, r).Genesis})
			if !v.OK || len(v.Findings) != 14 {
				t.Errorf("%+v", v)
			}
			for _, f := range v.Findings {
				t.Logf("%-8s %-14s %s", f.Standing, f.Name, f.Detail)
			}
		})
	}
}

// tampering is a change, and the check that refuses it, and why.
type tampering struct {
	name, check, why string
	change           func(t *testing.T, r *report.Report, e *Evidence)
}

// TestTampering is the attacker's: each change is refused, by the check that is meant to.
func TestTampering(t *testing.T) {
	honest, other := run(t, "honest", false), run(t, "another", false)
	forger := newWorld(t, "forger", 2)
	tamper(t, honest, []tampering{
		{"more throughput", "throughput", "tx/s", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.TPS += 0.1 }},
		{"more finalised", "counts", "says 395 finalised", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.Finalised++ }},
		{"more submitted", "counts", "submitted", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.Submitted++ }},
		{"fewer lost", "counts", "says 0 lost", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.Lost = 0 }},
		{"fewer rejected", "counts", "says 0 rejected", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.Rejected = 0 }},
		{"rejected by code", "counts", "rejected by code", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Details.RejectedByCode = map[string]uint64{"a": 1 << 63, "b": 1 << 63, "no_answer": 1}
		}},
		{"fewer expired", "counts", "expired", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Details.Expired = 0 }},
		{"more skipped than failed", "counts", "skipped", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Details.Skipped = 29 }},
		{"lower median", "finality_ms", "p50", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.FinalityMs.P50 -= 2 }},
		{"lower p99", "finality_ms", "p99", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Result.FinalityMs.P99 -= 2 }},
		{"lower maximum", "finality_ms", "max", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Result.FinalityMs.Max = r.Result.FinalityMs.P99 - 2
		}},
		{"more blocks a second", "blocks_per_s", "blocks of 2 shards", func(_ *testing.T, r *report.Report, _ *Evidence) { r.BlocksPerS++ }},
		{"more transactions seen", "blocks_per_s", "in the blocks of the measurement", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Details.TransactionsSeen++ }},
		{"a higher rate", "schedule", "evidence is of a schedule of 400", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Rate = 800 }},
		{"a higher rate in both", "schedule", "the schedule of 800 tx/s", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Scenario.Rate, e.Phase.Stretches[0].Rate = 800, 800
		}},
		{"a longer run", "schedule", "says 2 s", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.DurationS = 2 }},
		{"a longer run in both", "schedule", "counts were taken", func(_ *testing.T, r *report.Report, e *Evidence) {
			r.Scenario.DurationS, e.Phase.Stretches[0].Duration = 2, 2*time.Second
		}},
		{"a shorter warm-up", "schedule", "of warm-up", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Details.WarmUpS = 0 }},
		{"counted over a short time", "schedule", "counts were taken", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Phase.Stretches[0].End -= 500 * time.Millisecond
		}},
		{"the slow block dropped at the end", "schedule", "0 transactions are accounted for", func(_ *testing.T, _ *report.Report, e *Evidence) {
			for i := range e.Shards {
				b := e.Shards[i].Blocks
				e.Shards[i].Blocks = b[:len(b)-4]
			}
		}},
		{"a block dropped in the middle", "blocks", "does not follow block 7", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks = slices.Delete(e.Shards[0].Blocks, 6, 7)
		}},
		{"the first block dropped", "blocks", "does not follow block 1", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[1].Blocks = e.Shards[1].Blocks[1:]
		}},
		{"a block twice", "blocks", "does not follow", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks = slices.Insert(e.Shards[0].Blocks, 3, e.Shards[0].Blocks[2])
		}},
		{"an outcome bit of a whole body", "outcomes", "the end of the body is not the header's", func(_ *testing.T, _ *report.Report, e *Evidence) {
			p := e.Shards[0].Blocks[2].Opening.Pieces[0].Bytes
			p[len(p)-1] ^= 1
		}},
		{"an outcome bit of a body in shards", "outcomes", "of the body is not the header's", func(_ *testing.T, _ *report.Report, e *Evidence) {
			pieces := e.Shards[0].Blocks[3].Opening.Pieces
			pieces[len(pieces)-1].Bytes[0] ^= 1
		}},
		{"another state before the outcomes", "outcomes", "the end of the body is not the header's", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[2].Opening.Pieces[0].State[5] ^= 1
		}},
		{"more leaves", "outcomes", "another number of leaves", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Shards[0].Blocks[2].Opening.Leaves += 8 }},
		{"the opening of another block", "outcomes", "leaves", func(_ *testing.T, _ *report.Report, e *Evidence) {
			b := e.Shards[0].Blocks
			b[2].Opening = b[4].Opening
		}},
		{"the transactions left out", "outcomes", "whole body has one piece", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Shards[0].Blocks[2].Opening.Pieces = nil }},
		{"clocks before the blocks", "clocks", "before it was made", func(_ *testing.T, _ *report.Report, e *Evidence) {
			for k := range e.Shards[0].Blocks {
				e.Shards[0].Blocks[k].At, e.Shards[0].Blocks[k].Settled = max(0, e.Shards[0].Blocks[k].At-200*time.Millisecond), nil
			}
		}},
		{"a clock before the transactions", "clocks", "before transactions were due", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[6].At -= 60 * time.Millisecond
		}},
		{"a clock that goes back", "clocks", "before the one before it", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[8].At = e.Shards[0].Blocks[7].At - 1
		}},
		{"the slow block verified sooner", "finality_ms", "the evidence", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[runSlow-1].At -= runDelay
		}},
		{"the run begun later", "clocks", "was made", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Phase.Start += int64(150 * time.Millisecond) }},
		{"the run begun earlier", "clocks", "verified", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Phase.Start -= int64(150 * time.Millisecond) }},
		{"slow ones dropped", "schedule", "the schedule of 400 tx/s for 1s has 1", func(_ *testing.T, _ *report.Report, e *Evidence) {
			s := &e.Shards[0].Blocks[runSlow-1].Settled
			*s = (*s)[1:]
		}},
		{"slow ones said to be lost", "counts", "lost", func(_ *testing.T, r *report.Report, e *Evidence) {
			s := &e.Shards[0].Blocks[runSlow-1].Settled
			e.Missed[Lost] = append(e.Missed[Lost], (*s)[0])
			*s = (*s)[1:]
			r.Result.Finalised--
			r.Result.TPS = 393
		}},
		{"due later than they were", "schedule", "accounted for", func(_ *testing.T, _ *report.Report, e *Evidence) {
			for i, s := range e.Shards[0].Blocks[runSlow-1].Settled {
				e.Shards[0].Blocks[runSlow-1].Settled[i].Slot = s.Slot + 1
			}
		}},
		{"due times exchanged", "clocks", "before transactions were due", func(_ *testing.T, _ *report.Report, e *Evidence) {
			a, b := &e.Shards[0].Blocks[2].Settled, &e.Shards[0].Blocks[runSlow-1].Settled
			*a, *b = *b, *a
		}},
		{"more settled than succeeded", "settled", "in which 20 succeeded", func(_ *testing.T, _ *report.Report, e *Evidence) {
			a, b := &e.Shards[0].Blocks[7], &e.Shards[0].Blocks[8]
			b.Settled = append(b.Settled, a.Settled...)
			slices.SortFunc(b.Settled, func(x, y Count) int { return int(x.Slot) - int(y.Slot) })
			a.Settled, a.Credits = nil, 0
		}},
		{"settled by receipts that did not come", "settled", "with a receipt", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Shards[0].Blocks[7].Credits += 2 }},
		{"shards exchanged", "blocks", "is of shard 1", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Shards[0], e.Shards[1] = e.Shards[1], e.Shards[0] }},
		{"counts exchanged between shards", "clocks", "before transactions were due", func(_ *testing.T, _ *report.Report, e *Evidence) {
			for k := range e.Shards[0].Blocks[1:] {
				a, b := &e.Shards[0].Blocks[k], &e.Shards[1].Blocks[k+1]
				a.Settled, b.Settled, a.Credits, b.Credits = b.Settled, a.Settled, b.Credits, a.Credits
			}
		}},
		{"a changed header", "blocks", "certificate does not verify", func(_ *testing.T, _ *report.Report, e *Evidence) { e.Shards[0].Blocks[4].Final.Headers[0].TimeMs-- }},
		{"a changed last header", "blocks", "certificate", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[runBlocks-1].Final.Headers[0].TimeMs--
		}},
		{"another state root", "blocks", "certificate", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[runBlocks-1].Final.Headers[0].State[0]++
		}},
		{"a certificate of another block", "blocks", "certificate does not verify", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[4].Final.Cert = e.Shards[0].Blocks[5].Final.Cert
		}},
		{"a certificate without a quorum", "blocks", "no more than two thirds", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[4].Final.Cert.Signers = consensus.Signers{3}
		}},
		{"a certificate with a changed signature", "blocks", "certificate does not verify", func(_ *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Blocks[4].Final.Cert.Signature[7] ^= 1
		}},
		{"a forged committee", "evidence", "that of the genesis in it is", func(t *testing.T, r *report.Report, e *Evidence) {
			named := e.Genesis.Hash().String()
			forge(t, forger, e)
			put(t, r, e)
			r.Evidence.Genesis = named
		}},
		{"a forged committee under its own hash", "blocks", "another network", func(t *testing.T, r *report.Report, e *Evidence) {
			forge(t, forger, e)
			for i := range e.Shards { // the old chain's name, which is what would have to be signed
				f := &e.Shards[i].Base
				f.Cert = forger.certify(i, f.Header())
			}
		}},
		{"blocks of another run", "blocks", "another network", func(t *testing.T, _ *report.Report, e *Evidence) { e.Shards = evidence(t, other).Shards }},
		{"the end of another run", "blocks", "does not follow", func(t *testing.T, _ *report.Report, e *Evidence) {
			copy(e.Shards[0].Blocks[8:], evidence(t, other).Shards[0].Blocks[8:])
		}},
		{"a whole other run", "network", "is of the network with genesis", func(t *testing.T, r *report.Report, e *Evidence) { *e = *evidence(t, other) }},
		{"more validators", "network", "says 40 validators", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Validators = 40 }},
		{"more shards", "network", "says 4 shards", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Shards = 4 }},
		{"more accounts", "network", "says 1000000 accounts", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Scenario.Accounts = 1_000_000 }},
		{"a failed check", "checks", "supply_conserved did not hold", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Checks[1].OK = false }},
		{"a check left out", "checks", "was not checked", func(_ *testing.T, r *report.Report, _ *Evidence) { r.Checks = r.Checks[:1] }},
		{"lost ones under a check that says none", "checks", "says that none_lost held", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Checks = append(r.Checks, report.Check{Name: "none_lost", OK: true})
		}},
		{"a committee too many", "blocks", "none of the blocks begins", func(t *testing.T, _ *report.Report, e *Evidence) {
			e.Shards[0].Committees = append(e.Shards[0].Committees, forger.committee(0))
		}},
		{"stretches that were none", "stretches", "has 2 stretches", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches = make([]report.Stretch, 2)
		}},
		{"one stretch more of the same", "stretches", "has 1 stretches", func(_ *testing.T, r *report.Report, _ *Evidence) {
			r.Stretches = make([]report.Stretch, 1)
		}},
	})
}

func tamper(t *testing.T, honest *report.Report, all []tampering) {
	t.Helper()
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			r := copied(t, honest)
			e := evidence(t, r)
			o := Options{Genesis: e.Genesis}
			if strings.HasPrefix(c.name, "a forged committee") {
				o.Genesis = nil
			}
			before := r.Evidence
			c.change(t, r, e)
			if r.Evidence == before {
				put(t, r, e)
			}
			v := Verify(copied(t, r), o)
			i := slices.IndexFunc(v.Findings, func(f Finding) bool { return f.Standing == Refused })
			if v.OK || i < 0 || v.Findings[i].Name != c.check || !strings.Contains(v.Findings[i].Detail, c.why) {
				t.Errorf("want %s: ...%s...; got %+v", c.check, c.why, v.Findings)
			}
		})
	}
}

// forge puts another network's validators into the genesis.
func forge(t *testing.T, forger *world, e *Evidence) {
	t.Helper()
	g := *e.Genesis
	g.Shards = forger.genesis.Shards
	e.Genesis = &g
}

// TestUnknown: what can not be read is said to be that.
func TestUnknown(t *testing.T) {
	honest := run(t, "honest", false)
	for want, change := range map[string]func(r *report.Report){
		"carries no evidence":                func(r *report.Report) { r.Evidence = nil },
		`has schema "tutti-bench/2"`:         func(r *report.Report) { r.Schema = "tutti-bench/2" },
		`has format "tutti-bench-evidence/2`: func(r *report.Report) { r.Evidence.Format = "tutti-bench-evidence/2" },
		"1 bytes after it":                   func(r *report.Report) { r.Evidence.Data = append(r.Evidence.Data, 0) },
		"malformed evidence":                 func(r *report.Report) { r.Evidence.Data = r.Evidence.Data[:len(r.Evidence.Data)/2] },
	} {
		r := copied(t, honest)
		change(r)
		if v := Verify(r, Options{}); v.OK || !strings.Contains(v.Findings[0].Detail, want) || len(v.Findings) != 1 {
			t.Errorf("want %q, got %+v", want, v)
		}
	}
}

// TestOpening opens bodies of every small length, whole and in shards, and refuses them for other headers.
func TestOpening(t *testing.T) {
	w := newWorld(t, "opening", 2)
	for n := range 24 {
		for _, shards := range []bool{false, true} {
			b := block{timeMs: w.tips[0].TimeMs + 1, shards: shards}
			for i := range n * n {
				b.txs = append(b.txs, w.transfer(0, 0, uint64(i)))
				if i%3 == 0 {
					b.failed = append(b.failed, i)
				}
			}
			c := w.add(0, b)
			o, err := Open(c, w.committee(0))
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.verify(c.Header, 0)
			if err != nil || got.txs != uint64(n*n) || got.successes != uint64(n*n-len(b.failed)) {
				t.Fatalf("%d transactions, shards %t: %+v, %v", n*n, shards, got, err)
			}
			if _, err := o.verify(c.Header, 8); err == nil {
				t.Errorf("%d transactions: some of them pass for receipts", n*n)
			}
			if n == 0 {
				continue
			}
			h := *c.Header
			h.Body.Length--
			if _, err := o.verify(&h, 0); err == nil {
				t.Errorf("%d transactions: another length passes", n*n)
			}
		}
	}
}

// TestEvidenceGolden pins the form. The golden files also pin that this build's SHA-256 takes and gives its state.
func TestEvidenceGolden(t *testing.T) {
	for file, r := range map[string]*report.Report{"testdata/report.json": run(t, "golden", true), "testdata/stretches.json": stretched(t, "golden")} {
		type golden struct {
			Report   *report.Report `json:"report"`
			Evidence string         `json:"evidence_before_compression"`
		}
		got := golden{r, hex.EncodeToString(evidence(t, r).Append(nil))}
		if *update {
			b, err := json.MarshalIndent(got, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var want golden
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if want.Evidence != got.Evidence {
			t.Errorf("%s: the form changed; if that is meant, run with -update, and give it a new version", file)
		}
		if v := Verify(want.Report, Options{}); !v.OK {
			t.Errorf("%s: the golden report is refused: %+v", file, v)
		}
	}
}

// TestRead: a file that others may read otherwise is refused.
func TestRead(t *testing.T) {
	b, err := json.Marshal(run(t, "read", false))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Read(b); err != nil || !Verify(r, Options{}).OK {
		t.Error(err)
	}
	for want, change := range map[string][2]string{
		"unknown field":    {`"brokers":0`, `"brokers":0,"tpz":1`},
		`"tps" twice`:      {`"tps":`, `"tps":1e9,"tps":`},
		`"tpſ" twice`:      {`"p50":`, `"tps":1e9,"tpſ":1e9,"p50":`},
		`"result" twice`:   {`"result":`, `"result":{},"result":`},
		"schema":           {"tutti-bench/1", "tutti-bench/2"},
		"after the report": {`{"schema"`, `{} {"schema"`},
		"invalid":          {`{"schema"`, `{"schema`},
	} {
		if _, err := Read(bytes.Replace(b, []byte(change[0]), []byte(change[1]), 1)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// BenchmarkOpen is what recording a block of two thirds of a mebibyte costs, beside verifying it.
func BenchmarkOpen(b *testing.B) {
	w := newWorld(b, "open", 2)
	want := block{timeMs: w.tips[0].TimeMs + 1, shards: true}
	for i := range 6_700 {
		want.txs = append(want.txs, w.transfer(0, 0, uint64(i)))
	}
	c := w.add(0, want)
	for name, work := range map[string]func() error{
		"open":   func() error { _, err := Open(c, w.committee(0)); return err },
		"verify": func() error { _, err := c.Block.Verify(w.trust); return err },
	} {
		b.Run(name, func(b *testing.B) {
			before := cpu(b)
			for b.Loop() {
				if err := work(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpu(b)-before).Seconds()*1000/float64(b.N), "CPU-ms/op")
		})
	}
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func FuzzRead(f *testing.F) {
	b, err := json.Marshal(run(f, "fuzz", true))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if r, err := Read(b); err == nil {
			Verify(r, Options{}) // must not panic
		}
	})
}

func FuzzDecode(f *testing.F) {
	plain := evidence(f, run(f, "fuzz", true)).Append(nil)
	f.Add(plain)
	f.Add(plain[:len(plain)/2])
	f.Add(evidence(f, stretched(f, "fuzz")).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.Append(nil), b) {
			t.Error("another form was accepted")
		}
		r := &report.Report{Schema: report.Schema}
		if r.Evidence, err = e.Encode(); err == nil {
			Verify(r, Options{}) // must not panic
		}
	})
}

// TestRecorder: a phase without whole evidence leaves none, and says why.
func TestRecorder(t *testing.T) {
	w := newWorld(t, "recorder", 1)
	base := w.add(0, block{timeMs: genesisMs + 1})
	second := Phase{Stretches: []Stretch{{Rate: 1, Duration: time.Second}}}
	open := func(p Phase) (*Recorder, error) {
		return NewRecorder(p, 0, time.UnixMilli(genesisMs), w.trust, []*proof.Final{&base.Block.Final})
	}
	if _, err := open(Phase{Stretches: []Stretch{{Rate: 1, Duration: 3 * time.Hour}}}); err == nil {
		t.Error("a run of three hours")
	}
	if _, err := NewRecorder(second, 0, time.Now(), w.trust, []*proof.Final{nil}); err == nil {
		t.Error("a shard without a block")
	}
	r, err := open(second)
	if err != nil {
		t.Fatal(err)
	}
	w.add(0, block{timeMs: genesisMs + 2})
	r.Block(w.add(0, block{timeMs: genesisMs + 3}), 0)()
	if _, err := r.Finish(Marks{1, 2}); err == nil || !strings.Contains(err.Error(), "does not follow the last one") {
		t.Errorf("a gap: %v", err)
	}
	if r, err = open(second); err != nil {
		t.Fatal(err)
	}
	r.Missed(Lost, 0)
	r.Missed(Lost, 0)
	if _, err := r.Finish(Marks{1, 2}); err == nil || !strings.Contains(err.Error(), "than were due") {
		t.Errorf("one counted twice: %v", err)
	}
	for want, marks := range map[string][]Marks{"0 marks of 1 stretches": nil, "counts at 2ns and 1ns": {{2, 1}}} {
		if r, err = open(second); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Finish(marks...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	var none *Recorder
	none.Block(base, 0)()
	none.Settled(0, 0, false)
	none.Missed(Lost, 0)
}
