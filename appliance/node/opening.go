package node

import (
	"log/slog"
	"sync"
	"time"
)

// openingEvery is how often a long start says how far it is.
const openingEvery = 2 * time.Second

// opening tells the log how far the opening of the state is, if it takes long. Safe for concurrent use.
func opening(log *slog.Logger) func(stage string, done, total uint64) {
	var mu sync.Mutex // guards told
	told := time.Now()
	return func(stage string, done, total uint64) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(told) >= openingEvery {
			told = now
			log.Info("opening the state", "stage", stage, "done", done, "of", total)
		}
	}
}
