// Package accel tells what the CPU can do and whether the cryptographic kernels below it compute rightly on it.
//
// The kernels are in accel/ed25519 (transactions and node keys), accel/bls (votes) and accel/merkle (bulk SHA-256).
// Each of them gives embedded known answers to every backend it has before it uses one, and picks the fastest that
// passed; what they found is in SelfTest. Detect reports the CPU and what the operating system lets a process use of
// it. Both are what `tutti doctor` prints. A node does not start while Ready returns an error.
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

	"tutti/accel/ed25519"
	"tutti/accel/internal/selftest"
	"tutti/accel/merkle"
)

// Verdict is what is known about one backend of one operation in this process.
type Verdict = selftest.Verdict

// SelfTest runs the known-answer tests of all backends and tells which are in use and why. The work (about 0.1 s) is
// done once per process; later calls return the same verdicts.
func SelfTest() []Verdict {
	return slices.Concat(ed25519.SelfTest(), blsSelfTest(), merkle.SelfTest())
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
	Features []string `json:"features"` // those of interest here that CPU and operating system both support, sorted
	Missing  []string `json:"missing"`  // those of interest here that are not supported, sorted
	Notes    []string `json:"notes"`    // what an operator should know, one line each
}

// interest are the features that some backend makes use of, per architecture.
var interest = map[string][]cpuid.FeatureID{
	"amd64": {
		cpuid.ADX, cpuid.BMI2, // blst
		cpuid.AVX2,                                    // curve25519-voi, gohashtree
		cpuid.SHA,                                     // crypto/sha256, gohashtree
		cpuid.AVX512F, cpuid.AVX512VL, cpuid.AVX512BW, // gohashtree
		cpuid.AVX512IFMA,         // kept for eight-lane curve kernels
		cpuid.AESNI, cpuid.CLMUL, // AES-GCM of the transports
		cpuid.GFNI, cpuid.AVX512VBMI, // kept for erasure coding
	},
	"arm64": {cpuid.ASIMD, cpuid.SHA2, cpuid.SHA512, cpuid.AESARM, cpuid.PMULL},
}

// Detect looks at the CPU. A feature counts only if the operating system saves the registers that it needs (on x86
// the bits of XCR0, on Linux/Arm the hardware capabilities in the auxiliary vector).
func Detect() CPU {
	info := &cpuid.CPU
	c := CPU{
		Name: info.BrandName, Arch: runtime.GOARCH,
		Cores: info.PhysicalCores, Usable: runtime.GOMAXPROCS(0),
		Features: []string{}, Missing: []string{},
		Notes: notes(runtime.GOARCH, info.Has, needsADX()),
	}
	if c.Name == "" {
		c.Name = runtime.GOARCH
	}
	for _, f := range interest[runtime.GOARCH] {
		if info.Has(f) {
			c.Features = append(c.Features, f.String())
		} else {
			c.Missing = append(c.Missing, f.String())
		}
	}
	slices.Sort(c.Features)
	slices.Sort(c.Missing)
	return c
}

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
// it prints "Caught SIGILL in blst_cgo_init" and exits with status 132.
func needsADX() bool {
	if !blstBuilt || runtime.GOARCH != "amd64" {
		return false
	}
	info, ok := debug.ReadBuildInfo()
	return !ok || !slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "CGO_CFLAGS" && strings.Contains(s.Value, "__BLST_PORTABLE__")
	})
}
