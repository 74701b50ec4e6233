package cpu

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/klauspost/cpuid/v2"
)

// Variable names the environment variable that holds the setting.
const Variable = "TUTTI_ACCEL"

// maxSettingBytes bounds a setting.
const maxSettingBytes = 4096

// Setting is what an operator says about features and backends, as words with spaces or commas between:
//
//	-FEATURE              as -avx512ifma: no kernel uses it; -avx512 is all of AVX-512, -avx2 is AVX2 and AVX-512
//	OPERATION=BACKEND     as ed25519=voi-batch: it is used at all sizes, if it passes its self-test
//	OPERATION=-BACKEND    as merkle=-gohashtree: it is not used
//
// Names are in small letters with hyphens for spaces. An operation's first words stand for all that begin with them.
type Setting struct {
	text string
	off  []cpuid.FeatureID // sorted
	pins []Choice
}

// Choice is one word of a setting about a backend.
type Choice struct {
	Operation, Backend string
	Exclude            bool
}

// String is the choice as it stands in a setting.
func (c Choice) String() string {
	if c.Exclude {
		return c.Operation + "=-" + c.Backend
	}
	return c.Operation + "=" + c.Backend
}

// known are the features that kernels here and in the libraries make use of, per architecture. Those that need others
// come after them.
var known = map[string][]cpuid.FeatureID{
	"amd64": {
		cpuid.ADX, cpuid.BMI2, // blst
		cpuid.AVX2, // Ed25519, curve25519-voi, gohashtree, erasure coding
		cpuid.SHA,  // crypto/sha256, gohashtree, Merkle trees
		cpuid.AVX512F, cpuid.AVX512VL, cpuid.AVX512BW, cpuid.AVX512DQ,
		cpuid.AVX512IFMA, // Ed25519 and G1 in eight lanes
		cpuid.AVX512VBMI,
		cpuid.AESNI, cpuid.CLMUL, // AES-GCM of the transports
		cpuid.GFNI, // erasure coding
	},
	"arm64": {cpuid.ASIMD, cpuid.SHA2, cpuid.SHA512, cpuid.AESARM, cpuid.PMULL},
}

// Known are the features of interest on this architecture.
func Known() []cpuid.FeatureID { return slices.Clone(known[runtime.GOARCH]) }

// slug is a name as it is written in a setting.
func slug(name string) string {
	name, _, _ = strings.Cut(strings.ToLower(name), "(")
	return strings.Join(strings.Fields(name), "-")
}

// Parse reads a setting for an architecture as Go names it. Which operations and backends there are is not known here;
// see Unknown.
func Parse(text, arch string) (*Setting, error) {
	if len(text) > maxSettingBytes {
		return nil, fmt.Errorf("setting of %d bytes: at most %d make sense", len(text), maxSettingBytes)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
		_, n := utf8.DecodeRuneInString(text[i:])
		return nil, fmt.Errorf("%q at byte %d: names of features, operations and backends are plain ASCII", text[i:i+n], i)
	}
	s := &Setting{text: strings.TrimSpace(text)}
	for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		operation, backend, isChoice := strings.Cut(word, "=")
		switch {
		case isChoice:
			name, exclude := strings.CutPrefix(backend, "-")
			if operation == "" || name == "" {
				return nil, fmt.Errorf("%q: write OPERATION=BACKEND or OPERATION=-BACKEND, as merkle=-gohashtree", word)
			}
			s.pins = append(s.pins, Choice{operation, name, exclude})
		case strings.HasPrefix(word, "-"):
			features := group(word[1:], arch)
			if features == nil {
				return nil, fmt.Errorf("%q switches off a feature that nothing here uses: known are %s", word, strings.Join(featureNames(arch), ", "))
			}
			s.off = append(s.off, features...)
		default:
			return nil, fmt.Errorf("%q: write -FEATURE, OPERATION=BACKEND or OPERATION=-BACKEND, as -avx512ifma or ed25519=voi-batch", word)
		}
	}
	slices.Sort(s.off)
	s.off = slices.Compact(s.off)
	return s, nil
}

// group is the features that go with one that is switched off, nil if the name is not known.
func group(name, arch string) (features []cpuid.FeatureID) {
	for _, f := range known[arch] {
		own := strings.ToLower(f.String())
		wide := strings.HasPrefix(own, "avx512")
		switch {
		case name == own, wide && (name == "avx512" || name == "avx512f"), wide && name == "avx2" && arch == "amd64":
			features = append(features, f)
		}
	}
	return features
}

// featureNames are the names that -FEATURE may have.
func featureNames(arch string) (names []string) {
	for _, f := range known[arch] {
		names = append(names, strings.ToLower(f.String()))
	}
	if arch == "amd64" {
		names = append(names, "avx512")
	}
	slices.Sort(names)
	return names
}

// Names are the words that a setting may be made of, on an architecture and with given pairs of an operation and one of
// its backends.
func Names(arch string, pairs [][2]string) (features, backends []string) {
	for _, f := range featureNames(arch) {
		features = append(features, "-"+f)
	}
	for _, p := range pairs {
		backends = append(backends, Choice{Operation: slug(p[0]), Backend: slug(p[1])}.String())
	}
	return features, backends
}

// String is the setting as it was given.
func (s *Setting) String() string { return s.text }

// Off are the features that are switched off, whether this CPU has them or not.
func (s *Setting) Off() []cpuid.FeatureID { return slices.Clone(s.off) }

// has reports whether the CPU has a feature that is not switched off.
func (s *Setting) has(f cpuid.FeatureID) bool {
	return cpuid.CPU.Supports(f) && (len(s.off) == 0 || !slices.Contains(s.off, f))
}

// Lacks says which of the features may not be used and why, or "".
func (s *Setting) Lacks(features ...cpuid.FeatureID) string {
	var missing []string
	for _, f := range features {
		if !cpuid.CPU.Supports(f) {
			missing = append(missing, f.String())
		}
	}
	if missing != nil {
		return "this machine lacks " + strings.Join(missing, " ")
	}
	if off := s.SwitchedOff(features...); off != "" {
		return "the setting switches " + off + " off"
	}
	return ""
}

// SwitchedOff names those of the features that the setting switches off, or is "".
func (s *Setting) SwitchedOff(features ...cpuid.FeatureID) string {
	var names []string
	for _, f := range features {
		if slices.Contains(s.off, f) {
			names = append(names, f.String())
		}
	}
	return strings.Join(names, " ")
}

// about reports whether a choice is about an operation.
func (c Choice) about(operation string) bool {
	own := slug(operation)
	return own == c.Operation || strings.HasPrefix(own, c.Operation+"-")
}

// Excludes says why an operation must not use a backend, or is "".
func (s *Setting) Excludes(operation, backend string) string {
	for _, c := range s.pins {
		if c.Exclude && c.about(operation) && c.Backend == slug(backend) {
			return "switched off by " + c.String()
		}
	}
	return ""
}

// Pins reports whether an operation is to use a backend wherever it can.
func (s *Setting) Pins(operation, backend string) bool {
	return slices.ContainsFunc(s.pins, func(c Choice) bool {
		return !c.Exclude && c.about(operation) && c.Backend == slug(backend)
	})
}

// Unknown is an error if the setting names an operation or backend that is not among those given: pairs of an
// operation and one of its backends.
func (s *Setting) Unknown(pairs [][2]string) error {
	var operations []string
	for _, p := range pairs {
		operations = append(operations, slug(p[0]))
	}
	operations = slices.Compact(operations)
	for _, c := range s.pins {
		var backends []string
		for _, p := range pairs {
			if c.about(p[0]) && !slices.Contains(backends, slug(p[1])) {
				backends = append(backends, slug(p[1]))
			}
		}
		if backends == nil {
			return fmt.Errorf("%q names no operation: known are %s", c, strings.Join(operations, ", "))
		}
		if !slices.Contains(backends, c.Backend) {
			return fmt.Errorf("%q names no backend: known for %s are %s", c, c.Operation, strings.Join(backends, ", "))
		}
	}
	return nil
}

// current is the setting of this process. It is written once: by Fix, or by the first who asks.
var current atomic.Pointer[Setting]

// ErrInUse says that the setting has been looked at and can't be changed any more.
var ErrInUse = errors.New("kernels have been chosen in this process already")

// Fix makes s the setting of this process.
func Fix(s *Setting) error {
	if !current.CompareAndSwap(nil, s) {
		return ErrInUse
	}
	return nil
}

// Current is the setting of this process. Where nobody fixed one, the first call takes it from the environment; a
// setting there that can't be read counts as empty.
func Current() *Setting {
	if s := current.Load(); s != nil {
		return s
	}
	s, err := Parse(os.Getenv(Variable), runtime.GOARCH)
	if err != nil {
		s = new(Setting)
	}
	current.CompareAndSwap(nil, s)
	return current.Load()
}
