package bls

import (
	"bytes"
	"crypto/sha256"
	"math/big"
	"testing"
)

// TestPublicKeysVartime: as one by one, for secrets of many kinds: few digits, many zero digits, next to the group order.
func TestPublicKeysVartime(t *testing.T) {
	r := new(big.Int)
	for _, limb := range order {
		r.Lsh(r, 64).Or(r, new(big.Int).SetUint64(limb))
	}
	var secrets []*SecretKey
	add := func(v *big.Int) {
		if v.Sign() <= 0 || v.Cmp(r) >= 0 {
			return
		}
		var b [32]byte
		k, err := SecretKeyFromBytes([32]byte(v.FillBytes(b[:])))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, k)
	}
	for i := range int64(3) {
		add(big.NewInt(i + 1))
		add(new(big.Int).Sub(r, big.NewInt(i+1)))
		for w := range uint(255) {
			if p := new(big.Int).Lsh(big.NewInt(1), w); w%8 == 0 || w%8 == 7 {
				add(p.Add(p, big.NewInt(i-1)))
			}
		}
	}
	for i := range 1500 {
		h := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		k, err := NewSecretKey(h[:])
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, k)
	}
	keys := make([]PublicKey, len(secrets))
	PublicKeysVartime(secrets, keys)
	for i, k := range secrets {
		if i%5 == 0 || i < 300 {
			if want := k.Public(); keys[i].Bytes() != want {
				t.Errorf("key %d, of %x: %x, want %x", i, k.Bytes(), keys[i].Bytes(), want)
			}
		}
	}
}

// TestParseChecked: a key with its ordinate, and with any other.
func TestParseChecked(t *testing.T) {
	for i := range 20 {
		k, err := NewSecretKey(append(make([]byte, 31), byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		b := k.Public()
		key, err := ParsePublicKey(b)
		if err != nil {
			t.Fatal(err)
		}
		y := key.Ordinate()
		if got, err := ParseChecked(b, y); err != nil || got != key {
			t.Errorf("%v, %v", got, err)
		}
		negative := PublicKey{key.point}
		negative.point.Neg(&negative.point)
		wrong := map[string][2][48]byte{
			"the opposite point": {b, negative.Ordinate()}, "no ordinate": {b, {}}, "no key": {{}, y}, "infinity": {{0xc0}, {}},
		}
		y[47] ^= 1
		wrong["not on the curve"] = [2][48]byte{b, y}
		wrong["not below the modulus"] = [2][48]byte{b, [48]byte(bytes.Repeat([]byte{0xff}, 48))}
		for name, w := range wrong {
			if _, err := ParseChecked(w[0], w[1]); err == nil {
				t.Errorf("%s is a key", name)
			}
		}
	}
}

// TestSumSecretKeys: one signature under the sum is the sum of the signatures.
func TestSumSecretKeys(t *testing.T) {
	var keys []*SecretKey
	var publics [][48]byte
	var sigs [][96]byte
	msg := []byte("a root")
	for i := range 9 {
		k, err := NewSecretKey(append(make([]byte, 31), byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		keys, publics, sigs = append(keys, k), append(publics, k.Public()), append(sigs, k.Sign(msg))
	}
	set, err := NewKeySet(publics)
	if err != nil {
		t.Fatal(err)
	}
	want, err := set.Aggregate(sigs)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := SumSecretKeys(keys)
	if err != nil || sum.Sign(msg) != want {
		t.Errorf("the signature under the sum is another (%v)", err)
	}
	last := new(big.Int).SetBytes([]byte{1})
	var b [32]byte
	one, err := SecretKeyFromBytes([32]byte(last.FillBytes(b[:])))
	if err != nil {
		t.Fatal(err)
	}
	r := new(big.Int)
	for _, limb := range order {
		r.Lsh(r, 64).Or(r, new(big.Int).SetUint64(limb))
	}
	minus, err := SecretKeyFromBytes([32]byte(r.Sub(r, last).FillBytes(b[:])))
	if err != nil {
		t.Fatal(err)
	}
	for _, none := range [][]*SecretKey{nil, {one, minus}} {
		if _, err := SumSecretKeys(none); err == nil {
			t.Error("zero is a key")
		}
	}
}

func BenchmarkParseChecked(b *testing.B) {
	k, err := NewSecretKey(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	key := k.Public()
	p, err := ParsePublicKey(key)
	if err != nil {
		b.Fatal(err)
	}
	for y := p.Ordinate(); b.Loop(); {
		if _, err := ParseChecked(key, y); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublicKeysVartime(b *testing.B) {
	const n = 4096
	secrets, keys := make([]*SecretKey, n), make([]PublicKey, n)
	for i := range secrets {
		h := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		var err error
		if secrets[i], err = NewSecretKey(h[:]); err != nil {
			b.Fatal(err)
		}
	}
	PublicKeysVartime(secrets[:1], keys) // the table
	for b.Loop() {
		PublicKeysVartime(secrets, keys)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
}
