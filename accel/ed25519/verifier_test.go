package ed25519

import (
	"fmt"
	"sync"
	"testing"
)

// TestVerifier gives a Verifier the same senders again and again, some spoilt: verdicts stay right, from several
// goroutines at once.
func TestVerifier(t *testing.T) {
	v, err := NewVerifier(64)
	if err != nil {
		t.Fatal(err)
	}
	items := sampleItems(40)
	var wait sync.WaitGroup
	for worker := range 3 {
		wait.Go(func() {
			own := append([]Item{}, items...)
			for i := worker; i < len(own); i += 7 {
				own[i].Signature[33] ^= 4
			}
			ok := make([]bool, len(own))
			for round := range 5 {
				v.VerifyMany(own, ok)
				for i := range ok {
					if want := i < worker || (i-worker)%7 != 0; ok[i] != want {
						t.Errorf("worker %d, round %d: verdict %d is %v", worker, round, i, ok[i])
					}
				}
			}
		})
	}
	wait.Wait()
}

// TestRemembering: keys come into a backend's memory at their second valid signature, and only so.
func TestRemembering(t *testing.T) {
	for _, b := range Backends() {
		r := Remembering(b, 10_000) // so many sets that none is full
		known, ok := r.(interface{ knows(key *[32]byte) bool })
		if !ok {
			continue
		}
		t.Run(b.Name(), func(t *testing.T) {
			items := sampleItems(48)
			for i := range 16 {
				items[i].Signature[40] ^= 1
			}
			count := func() (good, spoilt int) {
				for i := range items {
					switch {
					case !known.knows(&items[i].Key):
					case i < 16:
						spoilt++
					default:
						good++
					}
				}
				return good, spoilt
			}
			verdicts := make([]bool, len(items))
			for round, want := range []int{0, 32, 32} {
				r.VerifyMany(items, verdicts)
				for i := range verdicts {
					if verdicts[i] != (i >= 16) {
						t.Fatalf("round %d: verdict %d is %v", round, i, verdicts[i])
					}
				}
				if good, spoilt := count(); good != want || spoilt != 0 {
					t.Errorf("after round %d: %d keys known, want %d; %d without a valid signature", round, good, want, spoilt)
				}
			}
		})
	}
}

func TestVerifierLimits(t *testing.T) {
	for _, keys := range []int{-1, 1<<20 + 1} {
		if _, err := NewVerifier(keys); err == nil {
			t.Errorf("a memory of %d keys", keys)
		}
	}
	none, err := NewVerifier(0)
	if err != nil {
		t.Fatal(err)
	}
	items, ok := sampleItems(10), make([]bool, 12)
	none.VerifyMany(items, ok)
	if want := "[true true true true true true true true true true false false]"; fmt.Sprint(ok) != want {
		t.Errorf("%v, want %v", ok, want)
	}
}
