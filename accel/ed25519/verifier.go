package ed25519

import "fmt"

// Verifier verifies like VerifyMany and remembers the keys of repeat senders, expanded, for the backends that gain from
// it. A key enters at its second valid signature. With IFMA a signature under a known key then costs 0.7 times as much
// while the keys fit into the second-level cache, some 200 of them, and hardly less beyond; with voi's batches, which
// keep less of a key, 0.75 times (rows ed25519/verdict-each-warm of the benchmarks). The verdicts are the same ones.
// Safe for concurrent use.
type Verifier struct{ memories []memory }

// memory is a backend's copy with a memory of its own.
type memory struct {
	of      string
	backend Backend
}

// rememberer is a backend that gains from expanded keys.
type rememberer interface {
	Backend
	// remembering is the backend with a memory of n expanded keys.
	remembering(n int) Backend
}

// KeyBytes is about what a remembered key takes at most.
const KeyBytes = 5000

// NewVerifier makes a Verifier that remembers up to keys keys, and somewhat more than that to fill its sets; 0 means
// none. Memory is taken as keys come, KeyBytes each.
func NewVerifier(keys int) (*Verifier, error) {
	const most = 1 << 20
	if keys < 0 || keys > most {
		return nil, fmt.Errorf("ed25519: memory of %d keys: need 0 to %d", keys, most)
	}
	v := &Verifier{}
	if keys == 0 {
		return v, nil
	}
	for _, b := range Backends() {
		v.memories = append(v.memories, memory{b.Name(), Remembering(b, keys)})
	}
	return v, nil
}

// Remembering is the backend with a memory of its own for that many expanded keys, or the backend itself if it does not
// gain from one.
func Remembering(b Backend, keys int) Backend {
	if r, ok := b.(rememberer); ok {
		return r.remembering(keys)
	}
	return b
}

// VerifyMany sets ok[i] to the verdict on items[i] with the chosen backend, on the calling goroutine. ok must be at
// least as long as items.
func (v *Verifier) VerifyMany(items []Item, ok []bool) {
	v.backend(len(items)).VerifyMany(items, ok[:len(items)])
}

// backend is the chosen one for n items, with its memory if it has one.
func (v *Verifier) backend(n int) Backend {
	chosen := backendFor(n)
	for _, m := range v.memories {
		if m.of == chosen.Name() {
			return m.backend
		}
	}
	return chosen
}
