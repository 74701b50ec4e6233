package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"tutti/appliance/config"
	"tutti/consensus/engine"
)

// A node mends itself where nothing can be lost by it: its votes stay, and it votes on no state but one that was proven to it
// part by part.
//
//   - The others no longer keep the blocks that it lacks, or its own log does not: the state is copied from them. The old one
//     is of the same chain, and removed.
//   - Its state contradicts a final block: as the design says it halts and resyncs. The old state is kept beside the new one as
//     evidence of what went wrong. If that happens again before the process ends, or if there are maxKept old states already,
//     copying does not help, as with a program or a machine that computes wrongly, and a person has to look.
//
// Certificates that contradict each other (engine.ErrHalted), damaged files and a key that is used elsewhere are never mended
// without a person.

// maxKept is how many states that contradicted a final block are kept before a person has to look.
const maxKept = 3

// mend prepares the data for a copy of the state, if that is what helps against an error, and reports whether to start again.
// mended is how often this process did so before.
func mend(err error, home config.Home, mended int, log *slog.Logger) (again bool, worse error) {
	contradicts := errors.Is(err, engine.ErrContradiction)
	switch {
	case err == nil, errors.Is(err, engine.ErrHalted), errors.Is(err, engine.ErrKeyElsewhere):
		return false, nil
	case contradicts && (mended > 0 || len(keptStates(home)) >= maxKept):
		return false, nil
	case !contradicts && !errors.Is(err, engine.ErrBehind) && !errors.Is(err, engine.ErrPruned):
		return false, nil
	}
	// The mark comes first: with it and the old state the next start finds out the same again.
	if !marked(home) {
		if err := mark(home); err != nil {
			return false, err
		}
	}
	kept, worse := moveAside(home.State())
	if worse != nil {
		return false, worse
	}
	if !contradicts {
		log.Info("this node was away for long: it copies the state from the other validators", "reason", err)
		if err := os.RemoveAll(kept); err != nil {
			log.Warn("the old state could not be removed", "folder", kept, "err", err)
		}
		return true, nil
	}
	log.Error("the state of this node contradicts a final block: it is kept aside, and copied anew from the other validators; this validator's votes stay", "kept", kept, "reason", err)
	return true, nil
}

// keptStates are the states that were moved aside.
func keptStates(home config.Home) []string {
	all, _ := filepath.Glob(home.State() + ".damaged-*") // the pattern is good
	return all
}
