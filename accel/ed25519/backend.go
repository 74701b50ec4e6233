package ed25519

import (
	"sync"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tutti/accel/internal/selftest"
)

// Backend verifies many signatures by the ZIP-215 rule. Implementations are safe for concurrent use and do not start
// goroutines: parallelism is across batches.
type Backend interface {
	Name() string
	// VerifyMany sets ok[i] to the verdict on items[i]. The slices are equally long and not kept.
	VerifyMany(items []Item, ok []bool)
}

// SelfTest tells which backends gave the known answers in this process and which one is in use. The first call, or
// the first verification, does the work (tens of milliseconds).
func SelfTest() []selftest.Verdict { return choose().verdicts }

type choice struct {
	backend  Backend
	verdicts []selftest.Verdict
}

// choose runs the self-test once.
var choose = sync.OnceValue(func() choice {
	load := sampleItems(measuredItems)
	op := selftest.Operation[Backend]{
		Name: "ed25519 verify (ZIP-215)", Item: "signature", Items: measuredItems,
		Check: check,
		Work:  func(b Backend) { b.VerifyMany(load, make([]bool, len(load))) },
	}
	backend, verdicts, ok := selftest.Choose[Backend](op, voiBatch{}, voiSingle{})
	if !ok {
		backend = refuse{}
	}
	return choice{backend, verdicts}
})

const measuredItems = 64

// refuse stands in when no backend passes on this machine: it accepts nothing. SelfTest tells why and the node does
// not start.
type refuse struct{}

func (refuse) Name() string { return "none" }

func (refuse) VerifyMany(_ []Item, ok []bool) { clear(ok) }

// zip215 is the acceptance rule in curve25519-voi's words.
var zip215 = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

// voiSingle is curve25519-voi, one equation per signature.
type voiSingle struct{}

func (voiSingle) Name() string { return "voi single" }

func (voiSingle) VerifyMany(items []Item, ok []bool) {
	for i := range items {
		it := &items[i]
		ok[i] = voi.VerifyWithOptions(it.Key[:], it.Message, it.Signature[:], zip215)
	}
}

// voiBatch is curve25519-voi's batch verifier: one random linear combination for all signatures. If the combination
// fails, or an item does not decode, the library checks the decoded items one by one, so that the worst an attacker
// does to a batch is to make it cost about 1.4 times as much as single checks (BenchmarkVerifyMany/512-one-bad).
type voiBatch struct{}

const (
	batchLeast = 3    // below, single checks are as fast
	batchMost  = 1024 // bounds a verifier's scratch to about 0.5 MiB; the gain from longer batches is small
)

// verifiers holds *voi.BatchVerifier for reuse; an entry is owned by one VerifyMany at a time.
var verifiers = sync.Pool{New: func() any { return voi.NewBatchVerifier() }}

func (voiBatch) Name() string { return "voi batch" }

func (voiBatch) VerifyMany(items []Item, ok []bool) {
	if len(items) < batchLeast {
		voiSingle{}.VerifyMany(items, ok)
		return
	}
	v := verifiers.Get().(*voi.BatchVerifier)
	defer verifiers.Put(v)
	for len(items) > 0 {
		n := min(len(items), batchMost)
		// Expanded keys cost an allocation each and gain nothing for a key used once.
		v.Reset().ForceNoPublicKeyExpansion()
		for i := range items[:n] {
			it := &items[i]
			v.AddWithOptions(it.Key[:], it.Message, it.Signature[:], zip215)
		}
		_, verdicts := v.Verify(nil)
		copy(ok, verdicts)
		items, ok = items[n:], ok[n:]
	}
}
