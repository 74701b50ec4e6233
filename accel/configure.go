package accel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"tutti/accel/internal/cpu"
	"tutti/accel/internal/selftest"
)

// Variable names the environment variable that holds the operator's setting.
const Variable = cpu.Variable

// Settings are what a process may decide about accel.
type Settings struct {
	// Use switches CPU features and backends off, or pins backends: words with spaces or commas between.
	//
	//	-FEATURE              as -avx512ifma: no kernel uses it; -avx512 is all of AVX-512, -avx2 is AVX2 and AVX-512
	//	OPERATION=BACKEND     as ed25519=voi-batch: used at all sizes, if it passes its self-test
	//	OPERATION=-BACKEND    as merkle=-gohashtree: not used
	//
	// If the environment variable is set, it takes the place of Use.
	Use string
	// Dir is the folder that keeps timings from one process to the next. They are dropped when CPU, microcode or
	// program change. Empty: every process measures, and nothing is written.
	Dir string
}

// CheckUse is an error if a Settings.Use cannot be read or names a feature that nothing here uses. Names of operations
// and backends are for Configure to judge.
func CheckUse(use string) error {
	_, err := cpu.Parse(use, runtime.GOARCH)
	return err
}

// Configure puts the settings into force, does what SelfTest does, and keeps the timings if they are new. It works once,
// and before anything else here is used. An error means that the setting can't be read or names something unknown; a
// file of timings that can't be used is never an error, but a note of one line for the operator.
func Configure(s Settings) (notes []string, err error) {
	source, use := "setting", s.Use
	if env := os.Getenv(Variable); env != "" {
		source, use = Variable, env
	}
	setting, err := cpu.Parse(use, runtime.GOARCH)
	if err != nil {
		return nil, fmt.Errorf("accel: %s: %w", source, err)
	}
	if err := cpu.Fix(setting); err != nil {
		return nil, fmt.Errorf("accel: configured too late: %w", err)
	}
	var old *selftest.Timings
	if s.Dir != "" {
		switch old, err = selftest.ReadTimings(s.Dir); {
		case err == nil:
			selftest.Load(old)
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, selftest.ErrElsewhere): // as is to be expected
		default:
			notes = append(notes, fmt.Sprintf("timings are measured anew: %v", err))
		}
	}
	verdicts := SelfTest()
	if err := setting.Unknown(pairs(verdicts)); err != nil {
		return notes, fmt.Errorf("accel: %s: %w", source, err)
	}
	measured := slices.ContainsFunc(verdicts, func(v Verdict) bool { return len(v.Costs) > 0 && !v.Cached })
	if s.Dir != "" && measured {
		if err := selftest.Collect(verdicts, old).Write(s.Dir); err != nil {
			notes = append(notes, fmt.Sprintf("timings are not kept: %v", err))
		}
	}
	return notes, nil
}

// pairs are the operations and backends of verdicts.
func pairs(verdicts []Verdict) (names [][2]string) {
	for _, v := range verdicts {
		names = append(names, [2]string{v.Operation, v.Backend})
	}
	return names
}

// Names are the names that a setting may use, as words: features as "-avx2", backends as "merkle-pairs=gohashtree".
func Names() (features, backends []string) {
	return cpu.Names(runtime.GOARCH, pairs(SelfTest()))
}
