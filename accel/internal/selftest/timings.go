package selftest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/cpuid/v2"
)

// Timings are the costs that an earlier process measured, for this machine and this program. They say nothing about
// whether a backend is right: known answers are given in every process.
//
// The file is one JSON object; an example is in testdata/timings.golden.
type Timings struct {
	Format     string  `json:"format"`
	Machine    string  `json:"machine"` // the CPU, its features and its microcode
	Code       string  `json:"code"`    // of the program
	Operations []Timed `json:"operations"`
}

// Timed are the costs of one operation.
type Timed struct {
	Name     string         `json:"name"`
	Backends []TimedBackend `json:"backends"`
}

// TimedBackend is the costs of one backend, sizes ascending.
type TimedBackend struct {
	Name  string `json:"name"`
	Costs []Cost `json:"costs"`
}

const (
	// TimingsFile is the name of the file in the folder that the caller names.
	TimingsFile   = "accel-timings.json"
	timingsFormat = "tutti-accel-timings 1"

	// edition is raised when a backend becomes faster or slower under an old name, so that old timings are dropped.
	edition = 1

	maxTimingsBytes = 64 << 10
	maxOperations   = 64
	maxBackends     = 32
	maxSizes        = 16
	maxNameBytes    = 100
	maxNs           = 1e12
)

// ErrElsewhere says that timings were taken on another CPU or by another program.
var ErrElsewhere = errors.New("taken on another CPU or by another build")

// machine tells CPUs apart, as far as a process can see.
func machine() string {
	c := &cpuid.CPU
	id := fmt.Sprintf("%s, family %d model %d stepping %d", c.BrandName, c.Family, c.Model, c.Stepping)
	features := sha256.Sum256([]byte(strings.Join(c.FeatureSet(), " ")))
	return fmt.Sprintf("%s %s, features %x, microcode %s", runtime.GOARCH, strings.TrimSpace(id), features[:8], microcode("/proc/cpuinfo"))
}

// microcode is the revision that Linux shows, or "unknown".
func microcode(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<10)) // the first CPU's entry is shorter
	if err != nil {
		return "unknown"
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "microcode" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// code tells programs apart: compiler, module versions and build options, and edition for what they don't show.
func code() string {
	text := runtime.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		text = info.String()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s", edition, text))
	return hex.EncodeToString(sum[:16])
}

// ReadTimings reads the file in a folder. The error wraps fs.ErrNotExist if there is none, is ErrElsewhere if it does
// not fit this process, and else says what is wrong with it.
func ReadTimings(dir string) (*Timings, error) {
	path := filepath.Join(dir, TimingsFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTimingsBytes+1))
	if err != nil {
		return nil, err
	}
	t, err := decodeTimings(b)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if t.Machine != machine() || t.Code != code() {
		return nil, ErrElsewhere
	}
	return t, nil
}

// decodeTimings accepts what encode writes, and nothing that could mislead or exhaust a reader.
func decodeTimings(b []byte) (*Timings, error) {
	if len(b) > maxTimingsBytes {
		return nil, fmt.Errorf("over %d bytes", maxTimingsBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	t := new(Timings)
	if err := d.Decode(t); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	if t.Format != timingsFormat {
		return nil, fmt.Errorf("format %.40q, want %q", t.Format, timingsFormat)
	}
	return t, t.valid()
}

// valid checks every bound of a decoded file.
func (t *Timings) valid() error {
	if len(t.Operations) > maxOperations {
		return fmt.Errorf("%d operations", len(t.Operations))
	}
	for i, op := range t.Operations {
		if badName(op.Name) || len(op.Backends) > maxBackends {
			return fmt.Errorf("operation %d: bad name or %d backends", i, len(op.Backends))
		}
		for j, b := range op.Backends {
			if badName(b.Name) || len(b.Costs) == 0 || len(b.Costs) > maxSizes {
				return fmt.Errorf("operation %d, backend %d: bad name or %d costs", i, j, len(b.Costs))
			}
			for k, c := range b.Costs {
				if c.Size < 1 || k > 0 && c.Size <= b.Costs[k-1].Size || !(c.Ns > 0 && c.Ns <= maxNs) {
					return fmt.Errorf("operation %d, backend %d: bad cost %d", i, j, k)
				}
			}
		}
	}
	return nil
}

func badName(s string) bool { return s == "" || len(s) > maxNameBytes }

// encode is the text of the file.
func (t *Timings) encode() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Collect makes the timings of this process from its verdicts. Of what old knew (nil for nothing), backends that were
// not measured this time are kept.
func Collect(verdicts []Verdict, old *Timings) *Timings {
	t := &Timings{Format: timingsFormat, Machine: machine(), Code: code(), Operations: []Timed{}}
	for _, v := range verdicts {
		n := len(t.Operations)
		if n == 0 || t.Operations[n-1].Name != v.Operation {
			t.Operations = append(t.Operations, Timed{Name: v.Operation, Backends: []TimedBackend{}})
			n++
		}
		costs := v.Costs
		if len(costs) == 0 {
			costs = old.costs(v.Operation, v.Backend)
		}
		if len(costs) > 0 {
			t.Operations[n-1].Backends = append(t.Operations[n-1].Backends, TimedBackend{v.Backend, costs})
		}
	}
	return t
}

// Write puts the timings into a folder, making the folder if need be and replacing a file from before.
func (t *Timings) Write(dir string) error {
	b, err := t.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, TimingsFile+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, TimingsFile))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// costs are those of one backend, nil if they are not known. t may be nil.
func (t *Timings) costs(operation, backend string) []Cost {
	if t == nil {
		return nil
	}
	for _, op := range t.Operations {
		for _, b := range op.Backends {
			if op.Name == operation && b.Name == backend {
				return b.Costs
			}
		}
	}
	return nil
}

// fill copies the costs of the eligible backends into their verdicts and reports whether all were known; if not, it
// changes nothing. t may be nil.
func (t *Timings) fill(operation string, sizes []int, verdicts []Verdict, eligible []int) bool {
	for _, i := range eligible {
		known := t.costs(operation, verdicts[i].Backend)
		if !slices.EqualFunc(known, sizes, func(c Cost, size int) bool { return c.Size == size }) {
			return false
		}
	}
	for _, i := range eligible {
		verdicts[i].Costs, verdicts[i].Cached = slices.Clone(t.costs(operation, verdicts[i].Backend)), true
	}
	return true
}

// current are the timings that choices in this process start from. They are written once, by Load, and not changed.
var current atomic.Pointer[Timings]

// Load makes t the timings that later choices in this process use. It counts once.
func Load(t *Timings) { current.CompareAndSwap(nil, t) }

// loaded are the timings of Load, or nil.
func loaded() *Timings { return current.Load() }
