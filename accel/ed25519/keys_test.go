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

// TestSignMany compares every backend, and the chosen one, with crypto/ed25519, for messages of all lengths around those of
// SHA-512's blocks.
func TestSignMany(t *testing.T) {
	random := rand.NewChaCha8([32]byte{2})
	const n = 517
	seeds, keys, messages := make([][32]byte, n), make([][32]byte, n), make([][]byte, n)
	for i := range seeds {
		_, _ = random.Read(seeds[i][:])
		messages[i] = make([]byte, i)
		_, _ = random.Read(messages[i])
	}
	PublicKeysVartime(seeds, keys)
	check := func(name string, sign func(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte)) {
		for _, n := range []int{0, 1, 8, n} {
			signatures := make([][64]byte, n)
			sign(seeds[:n], keys[:n], messages[:n], signatures)
			for i := range signatures {
				if want := NewPrivateKey(seeds[i]).Sign(messages[i]); signatures[i] != want {
					t.Fatalf("%s: signature %d of %d is %x, want %x", name, i, n, signatures[i], want)
				}
			}
		}
	}
	for _, b := range KeyBackends() {
		check(b.Name(), b.Sign)
	}
	check("chosen", SignManyVartime)
}

// BenchmarkSignMany is of 512 messages of the length of a transfer's.
func BenchmarkSignMany(b *testing.B) {
	const n = 512
	seeds, keys, messages, signatures := make([][32]byte, n), make([][32]byte, n), make([][]byte, n), make([][64]byte, n)
	for i := range seeds {
		seeds[i][0], seeds[i][1], messages[i] = byte(i), byte(i>>8), make([]byte, 82)
	}
	PublicKeysVartime(seeds, keys)
	for _, k := range KeyBackends() {
		b.Run(k.Name(), func(b *testing.B) {
			for b.Loop() {
				k.Sign(seeds, keys, messages, signatures)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/signature")
		})
	}
}

// wrongKeys makes keys of which one lane is wrong.
type wrongKeys struct{ voiKeys }

func (w wrongKeys) PublicKeys(seeds, keys [][32]byte) {
	w.voiKeys.PublicKeys(seeds, keys)
	keys[5][0] ^= 1
}

// wrongSignatures likewise.
type wrongSignatures struct{ voiKeys }

func (w wrongSignatures) Sign(seeds, keys [][32]byte, messages [][]byte, signatures [][64]byte) {
	w.voiKeys.Sign(seeds, keys, messages, signatures)
	signatures[6][40] ^= 1
}

// TestCheckKeys makes sure that the known answers find a backend out.
func TestCheckKeys(t *testing.T) {
	if checkKeys(wrongKeys{}) == nil || checkKeys(wrongSignatures{}) == nil {
		t.Error("a wrong lane passed")
	}
}
