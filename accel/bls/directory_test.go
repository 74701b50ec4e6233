package bls

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// directory holds keys 0 to n-1 of a committee at indices 10 i.
func directory(t testing.TB, n int) ([]*SecretKey, []uint32, *Directory) {
	t.Helper()
	secrets, _ := committee(t, n)
	d, indices := NewDirectory(10*n), make([]uint32, n)
	for i, k := range secrets {
		indices[i] = uint32(10 * i)
		if err := d.AddTrusted(indices[i], k.Public()); err != nil {
			t.Fatal(err)
		}
	}
	return secrets, indices, d
}

func TestDirectoryErrors(t *testing.T) {
	secrets, _, d := directory(t, 3)
	newcomer := secret(t, "newcomer")
	pub, msg := newcomer.Public(), []byte("chain, account and key")
	proof := newcomer.ProvePossession(msg)
	outsideKey := array48(zeros("80", 48, "04"))
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"add with another's proof", d.Add(1, pub, msg, secrets[0].ProvePossession(msg)), ErrPossession},
		{"add with a vote as proof", d.Add(1, pub, msg, newcomer.Sign(msg)), ErrPossession},
		{"add a point outside the group", d.Add(1, outsideKey, msg, proof), ErrKey},
		{"trust a point outside the group", d.AddTrusted(1, outsideKey), ErrKey},
		{"trust infinity", d.AddTrusted(1, array48(zeros("c0", 48, ""))), ErrKey},
		{"trust the zero key", d.AddTrustedKey(1, PublicKey{}), ErrKey},
		{"add beyond the capacity", d.Add(30, pub, msg, proof), ErrCapacity},
		{"add far beyond the capacity", d.AddTrusted(1<<32-1, pub), ErrCapacity},
		{"add where there is one", d.Add(10, pub, msg, proof), ErrOccupied},
		{"trust where there is one", d.AddTrusted(10, pub), ErrOccupied},
		{"replace what is not there", d.Replace(1, pub, msg, proof), ErrUnknown},
		{"replace with a wrong proof", d.Replace(10, pub, nil, proof), ErrPossession},
		{"remove what is not there", d.Remove(1), ErrUnknown},
		{"remove beyond the capacity", d.Remove(30), ErrUnknown},
		{"add", d.Add(1, pub, msg, proof), nil},
		{"replace", d.Replace(10, pub, msg, proof), nil},
		{"remove", d.Remove(20), nil},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.name, tc.err, tc.want)
		}
	}
	if d.Len() != 3 || d.Capacity() != 30 {
		t.Errorf("%d keys of %d", d.Len(), d.Capacity())
	}
	for _, i := range []uint32{1, 10} {
		if k, err := d.Key(i); err != nil || k.Bytes() != pub {
			t.Errorf("key %d: %v", i, err)
		}
	}
	for _, i := range []uint32{2, 20, 30, 1 << 31} {
		if _, err := d.Key(i); !errors.Is(err, ErrUnknown) {
			t.Errorf("key %d: error %v", i, err)
		}
	}
	if d := NewDirectory(-1); d.Capacity() != 0 || d.AddTrusted(0, pub) == nil {
		t.Error("a directory below zero takes keys")
	}
}

func TestDirectorySum(t *testing.T) {
	secrets, indices, d := directory(t, 5)
	msg := []byte("a root")
	var shares []Share
	for _, k := range secrets {
		s, err := ParseShare(k.Sign(msg))
		if err != nil {
			t.Fatal(err)
		}
		shares = append(shares, s)
	}
	total, bad, err := d.CheckShares(indices, msg, shares)
	if err != nil || bad != nil {
		t.Fatal(bad, err)
	}
	key, err := d.Sum(indices)
	if err != nil || !key.Verify(msg, total) {
		t.Errorf("the sum does not verify: %v", err)
	}
	if key.Verify(append(msg, 0), total) || (PublicKey{}).Verify(msg, total) {
		t.Error("another message, or no key, verifies")
	}
	shares[3] = shares[2]
	if _, bad, err := d.CheckShares(indices, msg, shares); err != nil || !slices.Equal(bad, []int{3}) {
		t.Errorf("bad %v, error %v", bad, err)
	}
	if _, _, err := d.CheckShares([]uint32{0, 1, 2, 3, 4}, msg, shares); !errors.Is(err, ErrUnknown) {
		t.Errorf("shares of unknown indices: %v", err)
	}
	if _, _, err := d.CheckShares(indices[:4], msg, shares); err == nil {
		t.Error("fewer indices than shares: no error")
	}
	for _, tc := range []struct {
		name    string
		indices []uint32
		want    error
	}{
		{"nothing", nil, ErrNoSum},
		{"unknown", []uint32{0, 10, 11}, ErrUnknown},
		{"beyond the capacity", []uint32{0, 50}, ErrUnknown},
		{"a key twice", []uint32{0, 0}, nil},
	} {
		if _, err := d.Sum(tc.indices); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.want)
		}
	}
	twice, _ := d.Sum([]uint32{10, 10})
	if twice.Verify(msg, secrets[1].Sign(msg)) {
		t.Error("a key twice counts once")
	}
}

// TestDirectoryCancels has opposite keys.
func TestDirectoryCancels(t *testing.T) {
	d := NewDirectory(2)
	pub := secret(t, "a").Public()
	opposite := pub
	opposite[0] ^= flagLargest
	if err := errors.Join(d.AddTrusted(0, pub), d.AddTrusted(1, opposite)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sum([]uint32{0, 1}); !errors.Is(err, ErrNoSum) {
		t.Errorf("error %v, want ErrNoSum", err)
	}
	a, _ := d.Key(0)
	b, _ := d.Key(1)
	if _, err := a.Add(b); !errors.Is(err, ErrNoSum) {
		t.Errorf("opposite keys: error %v, want ErrNoSum", err)
	}
	if k, err := d.Sum([]uint32{0, 0}); err != nil {
		t.Error(err)
	} else if twice, err := a.Add(a); err != nil || twice != k {
		t.Errorf("a key and itself: error %v", err)
	}
	if k, err := d.Sum([]uint32{0, 1, 0}); err != nil || k.Bytes() != pub {
		t.Errorf("error %v", err)
	}
}

// flagLargest is the bit of an encoded point that tells which of the two y it has.
const flagLargest = 0x20

func TestDirectoryConcurrent(t *testing.T) {
	_, indices, d := directory(t, 8)
	want, err := d.Sum(indices[:4])
	if err != nil {
		t.Fatal(err)
	}
	pub := secret(t, "newcomer").Public()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20 {
				if got, err := d.Sum(indices[:4]); err != nil || got != want {
					t.Error("the sum changed", err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			if err := errors.Join(d.AddTrusted(uint32(i)*4+1, pub), d.Remove(uint32(i)*4+1)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}

func BenchmarkDirectorySum(b *testing.B) {
	keys := sumKeys()
	n := len(keys)
	d, indices := NewDirectory(n), make([]uint32, n)
	for i, k := range keys {
		indices[i] = uint32(i)
		if err := d.AddTrustedKey(indices[i], PublicKey{k}); err != nil {
			b.Fatal(err)
		}
	}
	for _, size := range []int{16, 512, n} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			for b.Loop() {
				if _, err := d.Sum(indices[:size]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/item")
		})
	}
}
