package ledger

import (
	"context"
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tutti/state/tx"
)

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// load makes blocks of random transfers, each account's nonces in order.
type load struct {
	params *Params
	rng    *rand.Rand
	nonces []uint32
}

func (g *load) txs(n int) []tx.Signed {
	out := make([]tx.Signed, n)
	for i := range out {
		from, to := g.rng.Uint64N(uint64(len(g.nonces))), g.rng.Uint64N(uint64(len(g.nonces)-1))
		if to >= from {
			to++
		}
		out[i] = tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: g.params.GenesisID(from), To: g.params.GenesisID(to), Amount: 1 + g.rng.Uint64N(10), Nonce: g.nonces[from], Expiry: 1 << 30}}
		g.nonces[from]++
	}
	return out
}

func benchmarkExecute(b *testing.B, accounts uint64, txs int) {
	p := testParams(b, 0, 1, accounts)
	o := testOptions(p, accounts)
	o.FS, o.Dir, o.Verifier = vfs.Default, b.TempDir()+"/ledger", trusting{}
	l := mustOpen(b, o)
	g := &load{&p, rand.New(rand.NewPCG(1, 2)), make([]uint32, accounts)}
	parent := p.GenesisBlock
	ctx := context.Background()
	var build, execute, final time.Duration
	for n := uint64(1); b.Loop(); n++ {
		b.StopTimer()
		candidates := g.txs(txs)
		b.StartTimer()
		c0 := cpuTime()
		built, err := l.Build(ctx, BuildInput{Parent: parent, Height: n, Candidates: candidates, MaxBytes: 8 << 20, MaxTxs: txs})
		if err != nil || built.Txs != txs {
			b.Fatal(err, built)
		}
		c1 := cpuTime()
		if _, err := l.Execute(ctx, ExecuteInput{Parent: parent, Block: blockName(n), Height: n, Body: built.Body, Want: built.Commitments}); err != nil {
			b.Fatal(err)
		}
		c2 := cpuTime()
		if err := l.Finalise(ctx, blockName(n)); err != nil {
			b.Fatal(err)
		}
		c3 := cpuTime()
		build, execute, final = build+c1-c0, execute+c2-c1, final+c3-c2
		parent = blockName(n)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 / float64(b.N) }
	b.ReportMetric(ms(build), "build_cpu_ms/block")
	b.ReportMetric(ms(execute), "execute_cpu_ms/block")
	b.ReportMetric(ms(final), "finalise_cpu_ms/block")
	b.Logf("root %v", l.Stats().Root)
}

var (
	benchAccounts = flag.Uint64("accounts", 1_000_000, "accounts in BenchmarkExecute")
	benchTxs      = flag.Int("txs", 20_000, "transfers a block in BenchmarkExecute, at most 65536")
)

func BenchmarkExecute2000(b *testing.B) { benchmarkExecute(b, 100_000, 2000) }
func BenchmarkExecute(b *testing.B)     { benchmarkExecute(b, *benchAccounts, *benchTxs) }

// TestBenchmark keeps the benchmarks from rotting: one small block through all of them.
func TestBenchmark(t *testing.T) {
	p := testParams(t, 0, 1, 100)
	g := &load{&p, rand.New(rand.NewPCG(1, 2)), make([]uint32, 100)}
	o := testOptions(p, 100)
	o.Verifier = trusting{}
	done := step(t, mustOpen(t, o), p.GenesisBlock, 1, blockName(1), g.txs(50))
	if got, want := done.Root.String()[:16], "313f441821b8b03d"; got != want {
		t.Errorf("root %s, want %s", got, want)
	}
}

func BenchmarkGenesis100k(b *testing.B) {
	p := testParams(b, 0, 1, 100_000)
	for b.Loop() {
		o := testOptions(p, 100_000)
		o.FS, o.Dir = vfs.Default, b.TempDir()+"/ledger"
		l, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAccountProof(b *testing.B) {
	p := testParams(b, 0, 1, 100_000)
	l := mustOpen(b, testOptions(p, 100_000))
	for b.Loop() {
		if _, err := l.AccountProof(p.GenesisID(77)); err != nil {
			b.Fatal(err)
		}
	}
}
