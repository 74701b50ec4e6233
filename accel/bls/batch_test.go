package bls

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tutti/accel/bls/internal/curve"
)

// parsed are a committee's signatures on msg.
func parsed(t testing.TB, secrets []*SecretKey, msg []byte) []Signature {
	t.Helper()
	sigs := make([]Signature, len(secrets))
	for i, k := range secrets {
		var err error
		if sigs[i], err = ParseSignatureUncompressed(k.SignShare(msg)); err != nil {
			t.Fatal(err)
		}
	}
	return sigs
}

// outside is a signature-like point of the curve that is not in the group.
func outside(t testing.TB) Share {
	t.Helper()
	s, err := ParseShare(array96(zeros("80", 96, "02")))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// negative is the opposite point.
func negative(p curve.G2) curve.G2 { p.Neg(&p); return p }

// sum is a + b.
func sum(a, b curve.G2) curve.G2 {
	var j curve.G2Jac
	j.FromAffine(&a)
	j.AddMixed(&b)
	return affineG2(j)
}

// patterns are sets of bad items among n to find.
func patterns(n int) map[string][]int {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	some := r.Perm(n)[:n/3]
	slices.Sort(some)
	return map[string][]int{"none": nil, "first": {0}, "last": {n - 1}, "two neighbours": {n / 2, n/2 + 1}, "a third": some, "all": all}
}

func TestVerifySameMessage(t *testing.T) {
	const n = 13
	secrets, set := committee(t, n)
	msg := []byte("a vote")
	good, other := parsed(t, secrets, msg), parsed(t, secrets, []byte("another vote"))
	signers, ok := make([]int, n), make([]bool, n)
	for i := range signers {
		signers[i] = i
	}
	for name, bad := range patterns(n) {
		sigs := slices.Clone(good)
		for _, i := range bad {
			sigs[i] = other[i]
		}
		set.VerifySameMessage(signers, msg, sigs, ok)
		for i := range ok {
			if ok[i] == slices.Contains(bad, i) {
				t.Errorf("%s: vote %d is %v", name, i, ok[i])
			}
		}
	}
	// What a plain sum would not see.
	sigs := slices.Clone(good)
	sigs[3].point, sigs[4].point = good[4].point, good[3].point
	set.VerifySameMessage(signers, msg, sigs, ok)
	if ok[3] || ok[4] || !ok[0] || !ok[12] {
		t.Errorf("two votes exchanged: %v", ok)
	}
	sigs[3].point = sum(good[3].point, other[0].point)
	sigs[4].point = sum(good[4].point, negative(other[0].point))
	set.VerifySameMessage(signers, msg, sigs, ok)
	if ok[3] || ok[4] || !ok[5] {
		t.Errorf("two votes whose errors cancel: %v", ok)
	}
}

func TestVerifySameMessageEdges(t *testing.T) {
	secrets, set := committee(t, 3)
	msg := []byte("a vote")
	sigs := parsed(t, secrets, msg)
	for _, tc := range []struct {
		name    string
		signers []int
		sigs    []Signature
		want    []bool
	}{
		{"none", nil, nil, []bool{}},
		{"one", []int{1}, sigs[1:2], []bool{true}},
		{"one wrong", []int{1}, sigs[2:3], []bool{false}},
		{"no such signer", []int{-1, 1, 3}, sigs, []bool{false, true, false}},
		{"only no such signer", []int{7}, sigs[:1], []bool{false}},
		{"zero signature", []int{0, 1}, []Signature{{}, sigs[1]}, []bool{false, true}},
		{"the same vote twice", []int{0, 0, 1}, []Signature{sigs[0], sigs[0], sigs[1]}, []bool{true, true, true}},
		{"fewer signers", []int{0}, sigs[:2], []bool{false, false}},
		{"fewer verdicts", []int{0, 1}, sigs[:2], []bool{false}},
	} {
		ok := make([]bool, len(tc.want))
		for i := range ok {
			ok[i] = true // must not stay
		}
		set.VerifySameMessage(tc.signers, msg, tc.sigs, ok)
		if !slices.Equal(ok, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, ok, tc.want)
		}
	}
}

func TestVerifyMany(t *testing.T) {
	const n = 11
	secrets, _ := committee(t, n)
	keys, msgs, sigs := make([]PublicKey, n), make([][]byte, n), make([]Signature, n)
	for i, k := range secrets {
		var err error
		if keys[i], err = ParsePublicKey(k.Public()); err != nil {
			t.Fatal(err)
		}
		msgs[i] = []byte(fmt.Sprint("message ", i/2))
		sigs[i] = parsed(t, secrets[i:i+1], msgs[i])[0]
	}
	for name, bad := range patterns(n) {
		mixed, ok := slices.Clone(sigs), make([]bool, n)
		for _, i := range bad {
			mixed[i] = sigs[(i+1)%n]
		}
		VerifyMany(keys, msgs, mixed, ok)
		for i := range ok {
			if ok[i] == slices.Contains(bad, i) || ok[i] != keys[i].Verify(msgs[i], mixed[i].Bytes()) {
				t.Errorf("%s: signature %d is %v", name, i, ok[i])
			}
		}
	}
	ok := []bool{true, true, true}
	VerifyMany([]PublicKey{keys[0], {}, keys[2]}, msgs[:3], []Signature{sigs[0], sigs[1], {}}, ok)
	if !slices.Equal(ok, []bool{true, false, false}) {
		t.Errorf("with a zero key and a zero signature: %v", ok)
	}
	ok = []bool{true}
	if VerifyMany(keys[:2], msgs[:1], sigs[:1], ok); ok[0] {
		t.Error("more keys than signatures: accepted")
	}
	VerifyMany(nil, nil, nil, nil)
}

func TestCheckShares(t *testing.T) {
	const n = 13
	secrets, _ := committee(t, n)
	msg := []byte("a root")
	keys, good := make([]PublicKey, n), make([]Share, n)
	for i, k := range secrets {
		keys[i], _ = ParsePublicKey(k.Public())
		var err error
		if good[i], err = ParseShareUncompressed(k.SignShare(msg)); err != nil {
			t.Fatal(err)
		}
	}
	wrong, torsion := parsed(t, secrets, []byte("another root")), outside(t)
	check := func(name string, shares []Share, want []int) {
		t.Helper()
		total, bad, err := CheckShares(keys, msg, shares)
		if !slices.Equal(bad, want) {
			t.Errorf("%s: bad %v, want %v", name, bad, want)
		}
		if len(want) == n {
			if !errors.Is(err, ErrNoShares) {
				t.Errorf("%s: error %v, want ErrNoShares", name, err)
			}
			return
		}
		var left []curve.G1
		for i := range keys {
			if !slices.Contains(want, i) {
				left = append(left, keys[i].point)
			}
		}
		key := PublicKey{affineG1(engine().SumG1(left))}
		if err != nil || !key.Verify(msg, total) {
			t.Errorf("%s: the sum does not verify, error %v", name, err)
		}
	}
	for name, bad := range patterns(n) {
		for kind, point := range map[string]func(i int) curve.G2{
			"wrong message":       func(i int) curve.G2 { return wrong[i].point },
			"outside the group":   func(int) curve.G2 { return torsion.point },
			"partly in the group": func(i int) curve.G2 { return sum(good[i].point, torsion.point) },
			"nothing":             func(int) curve.G2 { return curve.G2{} },
			"wrong and outside, by turns": func(i int) curve.G2 {
				if i%2 == 0 {
					return torsion.point
				}
				return wrong[i].point
			},
		} {
			shares := slices.Clone(good)
			for _, i := range bad {
				shares[i].point = point(i)
			}
			check(name+", "+kind, shares, bad)
		}
	}
	// Shares that cancel out stay, and the sum is valid.
	shares := slices.Clone(good)
	shares[0].point, shares[1].point = sum(good[0].point, torsion.point), sum(good[1].point, negative(torsion.point))
	check("cancelling", shares, nil)
	// With another one bad they may still stay, if they are together; apart they are found.
	shares[5].point = wrong[5].point
	if _, bad, _ := CheckShares(keys, msg, shares); !slices.Contains(bad, 5) || slices.Contains(bad, 2) {
		t.Errorf("cancelling, and one more: bad %v", bad)
	}
	if _, _, err := CheckShares(keys[:2], msg, shares[:3]); err == nil {
		t.Error("fewer keys than shares: no error")
	}
	if _, _, err := CheckShares(nil, msg, nil); !errors.Is(err, ErrNoShares) {
		t.Errorf("no shares: error %v", err)
	}
}

// TestSearchCost bounds the evaluations: one a level for one bad item, never more than one per item after the first.
func TestSearchCost(t *testing.T) {
	e := curve.Portable{}
	g, _ := curve.Generator()
	unit := e.Pairing([]curve.G1{g}, []curve.G2{e.HashToG2(nil, dstVote)})
	for _, n := range []int{1, 2, 64, 100} {
		for name, bad := range patterns(max(n, 3)) {
			count, found := 0, []int(nil)
			evaluate := func(lo, hi int) verdict {
				count++
				v := verdict{curve.One(), true}
				for _, i := range bad {
					if lo <= i && i < hi {
						v.quotient.Mul(&v.quotient, &unit)
					}
				}
				return v
			}
			bad = slices.DeleteFunc(bad, func(i int) bool { return i >= n })
			search(0, n, evaluate(0, n), evaluate, func(i int) { found = append(found, i) })
			if !slices.Equal(found, bad) {
				t.Errorf("%d items, %s: found %v, want %v", n, name, found, bad)
			}
			if count > n || len(bad) == 1 && n == 64 && count != 7 {
				t.Errorf("%d items, %s: %d evaluations", n, name, count)
			}
		}
	}
}
