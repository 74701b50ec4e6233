package ledger

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkRehash brings the trees of a partition's ten chunks up to date after 760 accounts all over it changed, the
// share of one of 256 partitions when 100,000 uniform transfers come to 10 million accounts.
func BenchmarkRehash(b *testing.B) {
	var a arena
	var chunks []*chunk
	for range 10 {
		c, err := a.chunk()
		if err != nil {
			b.Fatal(err)
		}
		chunks = append(chunks, c)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	s := new(scratch)
	for b.Loop() {
		for range 760 {
			g := rng.IntN(chunkGroups)
			chunks[rng.IntN(10)].stale[g/64] |= 1 << (g % 64)
		}
		rehash(chunks, s)
	}
	if err := a.release(); err != nil {
		b.Fatal(err)
	}
}
