package stages

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"tutti/bench/report"
)

func TestStageOf(t *testing.T) {
	for _, c := range []struct{ stack, want string }{ // innermost first
		{"runtime.memmove tutti/state/ledger.(*Ledger).cellsAt tutti/appliance/node.(*app).Build", execute},
		{"runtime.cgocall github.com/supranational/blst/bindings/go._Cfunc tutti/accel/bls.Verify tutti/consensus/engine.(*Engine).run", agree},
		{"runtime.cgocall tutti/accel/bls.Verify tutti/accel/distill.(*Batch).Check tutti/consensus/engine.(*Engine).run", signatures},
		{"tutti/accel/ed25519/internal/lanes.double tutti/accel/ed25519.VerifyBatch tutti/state/pool.(*Pool).Add", signatures},
		{"internal/runtime/syscall/linux.Syscall6 os.(*File).Sync tutti/consensus/blocklog.(*Log).Append tutti/consensus/engine.(*Engine).run", disk},
		{"internal/runtime/syscall/linux.Syscall6 internal/poll.(*FD).Write github.com/libp2p/go-yamux/v5.(*Session).send", network},
		{"crypto/internal/fips140/sha256.blockSHANI tutti/state/store.(*Store).Write", disk},
		{"runtime.scanobject runtime.gcDrain runtime.gcBgMarkWorker", collect},
		{"runtime.futex runtime.findRunnable runtime.schedule runtime.mcall", schedule},
		{"runtime.mallocgc runtime.gcAssistAlloc tutti/state/pool.(*Pool).Add", collect},
		{"golang.org/x/crypto/scrypt.salsaXOR tutti/appliance/keys.open", other},
		{"", other},
	} {
		if got := stageOf(strings.Fields(c.stack)); got != c.want {
			t.Errorf("%s: %s, want %s", c.stack, got, c.want)
		}
	}
}

// made is a profile of samples of so many milliseconds, by stack.
func made(t testing.TB, stacks map[string]int64) []byte {
	t.Helper()
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 1,
	}
	for stack, ms := range stacks {
		s := &profile.Sample{Value: []int64{1, ms * 1e6}}
		for _, name := range strings.Fields(stack) {
			f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
			l := &profile.Location{ID: f.ID, Line: []profile.Line{{Function: f}}}
			p.Function, p.Location, s.Location = append(p.Function, f), append(p.Location, l), append(s.Location, l)
		}
		p.Sample = append(p.Sample, s)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOf(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := write("a.pprof", made(t, map[string]int64{"tutti/state/verify.f": 600, "tutti/netstack/p2p.g": 100}))
	two := write("b.pprof", made(t, map[string]int64{"runtime.memmove tutti/state/verify.f": 150, "main.main": 150}))
	got, err := Of(one, two)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]report.Stage{{Name: signatures, CPUS: 0.75, Percent: 75}, {Name: other, CPUS: 0.15, Percent: 15}, {Name: network, CPUS: 0.1, Percent: 10}}, got); d != "" {
		t.Error(d)
	}
	if _, err := Of(one, write("c.pprof", []byte("cut off"))); err == nil || !strings.Contains(err.Error(), "c.pprof") {
		t.Errorf("a damaged profile: %v", err)
	}
	if _, err := Of(filepath.Join(dir, "none.pprof")); err == nil {
		t.Error("a profile that is not there has stages")
	}
}

// TestReal reads what runtime/pprof writes.
func TestReal(t *testing.T) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		t.Fatal(err)
	}
	for begun, x := time.Now(), 1; time.Since(begun) < 100*time.Millisecond; x++ {
		_ = strings.Repeat("a", x%1000)
	}
	pprof.StopCPUProfile()
	if err := add(map[string]int64{}, &b); err != nil {
		t.Error(err)
	}
}

func FuzzAdd(f *testing.F) {
	f.Add(made(f, map[string]int64{"tutti/state/verify.f runtime.main": 600}))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = add(map[string]int64{}, bytes.NewReader(b)) })
}
