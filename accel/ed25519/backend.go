package ed25519

import (
	"slices"
	"sync"
	"time"

	"tutti/accel/internal/cpu"
	"tutti/accel/internal/selftest"
)

// Backend verifies many signatures by the ZIP-215 rule. Implementations are safe for concurrent use and do not start
// goroutines: parallelism is across batches.
type Backend interface {
	Name() string
	// VerifyMany sets ok[i] to the verdict on items[i]. The slices are equally long and not kept.
	VerifyMany(items []Item, ok []bool)
}

// SelfTest tells which backends gave the known answers in this process and which one is in use for how many items.
// The first call, or the first verification, does the work (about 0.2 s; less where timings are known).
func SelfTest() []selftest.Verdict { return choose().Verdicts() }

// choose runs the self-test once.
var choose = sync.OnceValue(func() *selftest.Table[Backend] {
	load := measuredLoad(slices.Max(selftest.DefaultSizes()))
	ok := make([]bool, len(load))
	op := selftest.Operation[Backend]{
		Name: "ed25519 verify", Item: "signature", Budget: 100 * time.Millisecond,
		Check: check,
		Work:  func(b Backend, n int) { b.VerifyMany(load[:n], ok[:n]) },
		None:  refuse{},
	}
	return selftest.Choose(op, candidates()...)
})

// backendFor is the one to use for n items.
func backendFor(n int) Backend { return choose().For(n) }

// Backends are those of this build that this machine can run, whether they pass the self-test or not: for measurements
// and tests.
func Backends() []Backend {
	return slices.DeleteFunc(candidates(), func(b Backend) bool {
		n, ok := b.(selftest.Needs)
		return ok && !cpu.Has(n.Needs()...)
	})
}

// candidates are all backends of this build, the preferred one first.
func candidates() []Backend { return append(laneBackends(), newVoiBatch(), voiSingle{}) }

// measuredLoad is n valid items; to make that many would take longer than to measure them, so a few come again and
// again.
func measuredLoad(n int) []Item {
	items := make([]Item, 0, n)
	for some := sampleItems(64); len(items) < n; {
		items = append(items, some[:min(len(some), n-len(items))]...)
	}
	return items
}

// refuse stands in when no backend passes on this machine: it accepts nothing. SelfTest tells why and the node does
// not start.
type refuse struct{}

func (refuse) Name() string { return "none" }

func (refuse) VerifyMany(_ []Item, ok []bool) { clear(ok) }
