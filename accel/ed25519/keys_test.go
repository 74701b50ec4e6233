package ed25519

import (
	"math/rand/v2"
	"testing"
)

// TestPublicKeys compares every backend, and the chosen one, with crypto/ed25519.
func TestPublicKeys(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	seeds := make([][32]byte, 300)
	for i := range seeds {
		_, _ = random.Read(seeds[i][:])
	}
	seeds[1], seeds[2] = [32]byte{}, seeds[0]
	for i := range seeds[3] {
		seeds[3][i] = 0xff
	}
	check := func(name string, derive func(seeds, keys [][32]byte)) {
		keys := make([][32]byte, len(seeds)+1)
		derive(seeds, keys[:len(seeds)])
		for i := range seeds {
			if want := NewPrivateKey(seeds[i]).Public(); keys[i] != want {
				t.Fatalf("%s: seed %x has key %x, want %x", name, seeds[i], keys[i], want)
			}
		}
		if keys[len(seeds)] != [32]byte{} {
			t.Fatalf("%s wrote past the seeds", name)
		}
	}
	for _, b := range KeyBackends() {
		if err := checkKeys(b); err != nil {
			t.Errorf("%s: %v", b.Name(), err)
		}
		check(b.Name(), b.PublicKeys)
	}
	check("chosen", PublicKeysVartime)
	PublicKeysVartime(nil, nil)
}

// wrongKeys makes keys of which one lane is wrong.
type wrongKeys struct{ voiKeys }

func (w wrongKeys) PublicKeys(seeds, keys [][32]byte) {
	w.voiKeys.PublicKeys(seeds, keys)
	keys[5][0] ^= 1
}

// TestCheckKeys makes sure that the known answers find a backend out.
func TestCheckKeys(t *testing.T) {
	if checkKeys(wrongKeys{}) == nil {
		t.Error("a wrong lane passed")
	}
}
