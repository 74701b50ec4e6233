// Package stages divides the CPU of validators among the stages of a transaction's path, from profiles of runtime/pprof.
//
// A sample belongs to the stage of the innermost of its frames that has one: what a stage has others do for it, hashing, signing,
// copying, a system call, is its own, except signatures of transactions, which are a stage whoever asks. What no stage's frame is
// in is the runtime's: the garbage collector's, or scheduling; or it is other work, such as start and keys.
//
// A profile covers a process from its start to its end, so a short run shows mostly its start. The kernel's own work for a process
// (interrupts, softirqs on loopback) is in no profile.
package stages

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"tutti/bench/report"
)

// The stages, in the order of a transaction's path.
const (
	takeIn     = "take in"
	signatures = "check signatures"
	agree      = "consensus"
	execute    = "execute and hash"
	disk       = "disk"
	network    = "network"
	serve      = "answer clients"
	collect    = "garbage collection"
	schedule   = "runtime"
	other      = "other"
)

// owners say whose a function is, the first that its name begins with. Functions of none are their caller's.
var owners = []struct{ prefix, stage string }{
	{"tutti/accel/ed25519.", signatures},
	{"tutti/accel/ed25519/", signatures},
	{"tutti/accel/distill", signatures},
	{"tutti/state/verify.", signatures},
	{"tutti/state/pool.", takeIn},
	{"tutti/state/store", disk},
	{"tutti/state/", execute},
	{"tutti/consensus/blocklog", disk},
	{"tutti/consensus/durable", disk},
	{"tutti/consensus/shred", network},
	{"tutti/consensus", agree},
	{"tutti/netstack", network},
	{"tutti/appliance/api.(*Server).submit", takeIn},
	{"tutti/appliance/api", serve},
	{"tutti/appliance/metrics", serve},
	{"tutti/appliance/proof", serve},
	{"github.com/cockroachdb/pebble", disk},
	{"github.com/libp2p/", network},
	{"github.com/quic-go/", network},
	{"github.com/multiformats/", network},
	{"net/http.", serve},
	{"github.com/prometheus/", serve},
	{"runtime.gcBgMarkWorker", collect},
	{"runtime.bgsweep", collect},
	{"runtime.bgscavenge", collect},
	{"runtime.gcAssistAlloc", collect},
	{"runtime.gcStart", collect},
	{"runtime.schedule", schedule},
	{"runtime.findRunnable", schedule},
	{"runtime.sysmon", schedule},
	{"runtime.mcall", schedule},
	{"runtime.morestack", schedule},
	{"runtime.mstart", schedule},
}

// stageOf is the stage of a stack, given from the innermost frame outwards.
func stageOf(frames []string) string {
	for _, f := range frames {
		for _, o := range owners {
			if strings.HasPrefix(f, o.prefix) {
				return o.stage
			}
		}
	}
	return other
}

// maxProfile bounds a profile as it lies on the disk.
const maxProfile = 64 << 20

// Of reads profiles and says what their processes spent on what, most first.
func Of(paths ...string) ([]report.Stage, error) {
	spent := map[string]int64{}
	for _, path := range paths {
		if err := addFile(spent, path); err != nil {
			return nil, fmt.Errorf("stages: %s: %w", path, err)
		}
	}
	return sorted(spent), nil
}

func addFile(spent map[string]int64, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return add(spent, io.LimitReader(f, maxProfile))
}

// add adds the nanoseconds of a profile by stage.
func add(spent map[string]int64, r io.Reader) error {
	p, err := profile.Parse(r)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == "cpu" && t.Unit == "nanoseconds" })
	if at < 0 {
		return errors.New("it is no CPU profile")
	}
	var frames []string
	for _, s := range p.Sample {
		frames = frames[:0]
		for _, l := range s.Location {
			for _, line := range l.Line {
				if line.Function != nil {
					frames = append(frames, line.Function.Name)
				}
			}
		}
		spent[stageOf(frames)] += max(0, s.Value[at])
	}
	return nil
}

// sorted is the stages that took anything, most first.
func sorted(spent map[string]int64) (out []report.Stage) {
	total := 0.0
	for _, ns := range spent {
		total += float64(ns)
	}
	for name, ns := range spent {
		if ns > 0 {
			out = append(out, report.Stage{Name: name, CPUS: report.Round(float64(ns)/1e9, 2), Percent: report.Round(100*float64(ns)/total, 1)})
		}
	}
	slices.SortFunc(out, func(a, b report.Stage) int {
		return cmp.Or(cmp.Compare(b.Percent, a.Percent), cmp.Compare(a.Name, b.Name))
	})
	return out
}
