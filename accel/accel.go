// Package accel tells what the CPU can do and whether the cryptographic kernels below it compute rightly on it.
//
// The kernels are in accel/ed25519 (transactions and node keys), accel/bls (votes) and accel/merkle (bulk SHA-256).
// Each of them gives embedded known answers to every backend it has before it uses one, and picks for each batch size
// the fastest that passed; what they found is in SelfTest. Detect reports the CPU and what the operating system lets a
// process use of it. Both are what `tutti doctor accel` prints. A node does not start while Ready returns an error.
//
// All of it works without being asked for. A process that wants a say, for an operator's setting or a folder where
// timings are kept, calls Configure before anything else here.
//
// Nothing here is fatal by itself. One fault cannot be reported from inside: blst's default build for x86 dies at
// start on a CPU without ADX; CPU.Notes says whether this is such a build.
package accel

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
	"tutti/accel/internal/cpu"
	"tutti/accel/internal/selftest"
	"tutti/accel/merkle"
)

// Verdict is what is known about one backend of one operation in this process.
type Verdict = selftest.Verdict

// Span is a range of batch sizes.
type Span = selftest.Span

// Cost is what one item costs in a batch of some size.
type Cost = selftest.Cost

// SelfTest runs the known-answer tests of all backends and tells which are in use for how many items and why. The work
// (some tenths of a second of CPU time, of which at most 0.3 s for timings) is done once per process; later calls
// return the same verdicts. Those of one operation follow each other.
func SelfTest() []Verdict {
	return slices.Concat(ed25519.SelfTest(), bls.SelfTest(), merkle.SelfTest())
}

// Ready is nil if every operation has a backend that gives the right answers on this machine; else it names the
// operations that have none, and a remedy.
func Ready(verdicts []Verdict) error {
	var broken []string
	for at := 0; at < len(verdicts); {
		end, chosen := at, false
		for ; end < len(verdicts) && verdicts[end].Operation == verdicts[at].Operation; end++ {
			chosen = chosen || verdicts[end].Chosen
		}
		if !chosen {
			broken = append(broken, fmt.Sprintf("%s (%s: %s)", verdicts[at].Operation, verdicts[at].Backend, verdicts[at].Reason))
		}
		at = end
	}
	if broken == nil {
		return nil
	}
	return fmt.Errorf("accel: no working backend for %s: test the memory and CPU of this machine, or run a build made for it",
		strings.Join(broken, "; "))
}

// CPU is what this process runs on.
type CPU struct {
	Name     string   `json:"name"`     // as the CPU gives it, or its architecture
	Arch     string   `json:"arch"`     // as Go names it
	Cores    int      `json:"cores"`    // physical cores of the CPU; 0 if it doesn't say (virtual machines may show what the host has)
	Usable   int      `json:"usable"`   // hardware threads that this process may use at a time (affinity and cgroup limits count)
	Features []string `json:"features"` // those of interest here that may be used: CPU and operating system support them, sorted
	Missing  []string `json:"missing"`  // those of interest here that are not supported, sorted
	Off      []string `json:"off"`      // those of interest here that are supported and switched off by the setting, sorted
	Setting  string   `json:"setting"`  // the operator's, see Configure
	Notes    []string `json:"notes"`    // what an operator should know, one line each
}

// Detect looks at the CPU. A feature counts only if the operating system saves the registers that it needs (on x86
// the bits of XCR0, on Linux/Arm the hardware capabilities in the auxiliary vector).
func Detect() CPU {
	info := &cpuid.CPU
	c := CPU{
		Name: info.BrandName, Arch: runtime.GOARCH,
		Cores: info.PhysicalCores, Usable: runtime.GOMAXPROCS(0),
		Features: []string{}, Missing: []string{}, Off: []string{},
		Setting: cpu.Current().String(),
		Notes:   notes(runtime.GOARCH, info.Has, needsADX()),
	}
	if c.Name == "" {
		c.Name = runtime.GOARCH
	}
	for _, f := range cpu.Known() {
		switch {
		case !info.Has(f):
			c.Missing = append(c.Missing, f.String())
		case cpu.Has(f):
			c.Features = append(c.Features, f.String())
		default:
			c.Off = append(c.Off, f.String())
		}
	}
	slices.Sort(c.Features)
	slices.Sort(c.Missing)
	slices.Sort(c.Off)
	if len(c.Off) > 0 {
		c.Notes = append(c.Notes, offNote)
	}
	return c
}

// offNote is said when features are switched off.
const offNote = "libraries and Go itself look at the CPU on their own: curve25519-voi and crypto/sha256 listen to GODEBUG " +
	"(as GODEBUG=cpu.avx2=off), others can only be left out as a whole, which is done where something else passes"

// notes says what the features mean for an operator.
func notes(arch string, has func(cpuid.FeatureID) bool, adxBuild bool) []string {
	lines := []string{}
	if adxBuild {
		lines = append(lines, "blst is built for the ADX instructions: on a CPU without them this program dies at start (SIGILL); for such a machine build with "+portableRemedy)
	}
	if arch == "amd64" && !has(cpuid.AVX2) {
		lines = append(lines, "no AVX2: checking transactions is slower")
	}
	if arch == "amd64" && !has(cpuid.SHA) || arch == "arm64" && !has(cpuid.SHA2) {
		lines = append(lines, "no SHA-256 instructions: state roots are slower")
	}
	return lines
}

const portableRemedy = `CGO_CFLAGS="-O2 -D__BLST_PORTABLE__"`

// needsADX reports whether this program was built with blst's default x86 kernels, which are not chosen at run time.
// Such a program executes ADX instructions as soon as it is loaded, before any check can run; on a CPU without them
// it prints "Caught SIGILL in blst_cgo_init" and exits with status 132. A build without cgo has no blst.
func needsADX() bool {
	if runtime.GOARCH != "amd64" {
		return false
	}
	info, ok := debug.ReadBuildInfo()
	return !ok || !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "CGO_ENABLED" && s.Value == "0" || s.Key == "CGO_CFLAGS" && strings.Contains(s.Value, "__BLST_PORTABLE__")
	})
}
