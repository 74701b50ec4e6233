package blocklog

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"tutti/consensus"
)

// TestSpoiled flips a bit, blanks a disk block or cuts the end of a random file, many times. Either Open or a read says
// that it is damage, or what is held is what was written, without gaps from the oldest block on.
func TestSpoiled(t *testing.T) {
	refused, shorter := 0, 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 5))
		fs, chain, _ := twoSegments(t)
		names, err := fs.List("home/log")
		must(t, err)
		names = slices.DeleteFunc(names, func(n string) bool { return n == "LOCK" })
		slices.Sort(names)
		name := names[rng.IntN(len(names))]
		rewrite(t, fs, "home/log/"+name, func(b []byte) []byte {
			at := rng.IntN(len(b))
			switch rng.IntN(3) {
			case 0:
				b[at] ^= 1 << rng.IntN(8)
			case 1:
				block := at &^ 511
				clear(b[block:min(len(b), block+512)])
			case 2:
				b = b[:at]
			}
			return b
		})
		l, err := Open(options(fs))
		if err != nil {
			if !errors.As(err, new(*CorruptionError)) && !errors.Is(err, ErrVersion) && !errors.Is(err, ErrOtherChain) {
				t.Errorf("seed %d, %s: not said as damage: %v", seed, name, err)
			}
			refused++
			continue
		}
		held := 0
		for i, b := range chain {
			got, err := l.Block(b.Header.Hash())
			switch {
			case err == nil && (got.Header.Hash() != b.Header.Hash() || !slices.Equal(got.Body, b.Body)):
				t.Errorf("seed %d, %s: block %d is another", seed, name, i+1)
			case err == nil && held != i:
				t.Errorf("seed %d, %s: block %d is held, the one before is not", seed, name, i+1)
			case err != nil && !errors.Is(err, ErrNotFound) && !errors.As(err, new(*CorruptionError)):
				t.Errorf("seed %d, %s: block %d: %v", seed, name, i+1, err)
			}
			if !errors.Is(err, ErrNotFound) {
				held++
			}
		}
		if held < len(chain) {
			shorter++
		}
		if l.Stats().Blocks != held {
			t.Errorf("seed %d, %s: %d blocks in the index, %d of the chain", seed, name, l.Stats().Blocks, held)
		}
		for _, r := range l.Records() {
			if r.Vote == nil || r.Vote.View == 0 || r.Vote.View > consensus.View(len(chain)) {
				t.Errorf("seed %d, %s: a vote that was never cast: %+v", seed, name, r)
			}
		}
		must(t, l.Close())
	}
	if refused < 50 || shorter == 0 {
		t.Errorf("%d of 400 refused, %d shorter: the test does no harm", refused, shorter)
	}
	t.Logf("%d refused, %d without their last blocks", refused, shorter)
}
