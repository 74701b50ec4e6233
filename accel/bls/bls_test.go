package bls

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tutti/accel/bls/internal/curve"
	"tutti/accel/bls/internal/keysum"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is a test key made from a name.
func secret(t testing.TB, name string) *SecretKey {
	t.Helper()
	ikm := sha256.Sum256([]byte("bls test " + name))
	k, err := NewSecretKey(ikm[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// committee is n secret keys and their set.
func committee(t testing.TB, n int) ([]*SecretKey, *KeySet) {
	t.Helper()
	secrets, keys := make([]*SecretKey, n), make([][48]byte, n)
	for i := range secrets {
		secrets[i] = secret(t, fmt.Sprint(i))
		keys[i] = secrets[i].Public()
	}
	set, err := NewKeySet(keys)
	if err != nil {
		t.Fatal(err)
	}
	return secrets, set
}

func TestSelfTest(t *testing.T) {
	chosen := map[string]int{}
	for _, v := range SelfTest() {
		t.Logf("%+v", v)
		if v.Failed {
			t.Errorf("%s fails on this machine: %s", v.Backend, v.Reason)
		}
		if v.Chosen {
			chosen[v.Operation]++
		}
	}
	if len(chosen) != 2 || chosen["bls vote"] != 1 || chosen["bls key sum"] != 1 {
		t.Errorf("chosen: %v", chosen)
	}
}

// TestCheckCatches is the self-test's canary: with any answer changed it must fail and say where.
func TestCheckCatches(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(a *answers)
		reason string
	}{
		{"another seed", func(a *answers) { a.seed = strings.Repeat("01", 32) }, "EIP-2333"},
		{"keys in another order", func(a *answers) { a.keys[0], a.keys[1] = a.keys[1], a.keys[0] }, "public key 0"},
		{"signatures in another order", func(a *answers) { a.signatures[1], a.signatures[2] = a.signatures[2], a.signatures[1] }, "signature 1"},
		{"another message", func(a *answers) { a.message = []byte("other") }, "signature 0"},
		{"another aggregate", func(a *answers) { a.aggregate = a.signatures[0] }, "aggregate"},
		{"a good key among the bad", func(a *answers) { a.badKeys = a.keys[:1] }, "bad key"},
		{"a good signature among the bad", func(a *answers) { a.badSigs = a.signatures[:1] }, "bad signature"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := published
			tc.change(&a)
			for _, e := range curve.Engines() {
				if err := check(e, a); err == nil || !strings.Contains(err.Error(), tc.reason) {
					t.Errorf("%s: error %v, want one about %q", e.Name(), err, tc.reason)
				}
			}
		})
	}
}

// broken is an engine that computes wrongly.
type broken struct {
	curve.Engine
	what string
}

func (b broken) Name() string { return b.what }

func (b broken) Public(secret *[32]byte) curve.G1 {
	if b.what == "panics" {
		panic("index out of range")
	}
	p := b.Engine.Public(secret)
	if b.what == "wrong keys" {
		p.Neg(&p)
	}
	return p
}

func (b broken) InG2(p *curve.G2) bool { return b.what == "no group check" || b.Engine.InG2(p) }

// TestPick: an engine that is wrong is passed over with its reason; if none is left, nothing verifies.
func TestPick(t *testing.T) {
	good := curve.Portable{}
	for _, what := range []string{"panics", "wrong keys", "no group check"} {
		c := pick([]curve.Engine{broken{good, what}, good})
		if v := c.Verdicts(); c.For(1) != good || len(v) != 2 || v[0].Passed || !strings.HasPrefix(v[0].Reason, "disabled: ") || !v[1].Chosen {
			t.Errorf("%s: %+v", what, v)
		}
	}
	none := pick([]curve.Engine{broken{good, "wrong keys"}}).For(1)
	k := secret(t, "a")
	if verifyPossession(none, k.Public(), nil, k.ProvePossession(nil)) {
		t.Error("without an engine a proof passes")
	}
	if _, err := newKeySet(none, [][48]byte{k.Public()}); err == nil {
		t.Error("without an engine a key passes")
	}
	if _, err := newSecretKey(none, make([]byte, 32)); err == nil {
		t.Error("without an engine a secret is made")
	}
	if s := none.Sign(&k.scalar, nil, dstVote); !s.IsInfinity() {
		t.Error("without an engine something is signed")
	}
	d := newDirectory(none, keysum.Plain{Engine: none}, 1)
	p, _ := ParsePublicKey(k.Public())
	if err := d.AddTrustedKey(0, p); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sum([]uint32{0}); err == nil {
		t.Error("without an engine keys add up")
	}
}

// TestCheckAdderCatches is the same for sums.
func TestCheckAdderCatches(t *testing.T) {
	keys := sumKeys()
	for _, a := range keysum.Adders(engine()) {
		for i := range sumAnswers {
			wrong := slices.Clone(sumAnswers)
			wrong[i].sum = sumTwice
			if err := checkAdder(a, keys, wrong); err == nil || !strings.Contains(err.Error(), fmt.Sprint(wrong[i].n, " keys")) {
				t.Errorf("%s: error %v, want one about %d keys", a.Name(), err, wrong[i].n)
			}
		}
		if err := checkAdder(a, slices.Concat(keys[:1], keys[:1999]), nil); err == nil {
			t.Errorf("%s: other keys pass", a.Name())
		}
	}
}

// TestGolden pins down what the published vectors do not cover: possession proofs, shares that are not compressed and
// messages of other lengths.
func TestGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# Rewritten by go test ./accel/bls -update. Key material is SHA-256(\"bls test \" || name).")
	for _, name := range []string{"a", "b"} {
		k := secret(t, name)
		fmt.Fprintf(&out, "%s secret %x\n%s public %x\n", name, k.Bytes(), name, k.Public())
		for _, msg := range []string{"", "a message", strings.Repeat("long ", 100)} {
			fmt.Fprintf(&out, "%s sign %.10q %x\n%s possession %.10q %x\n", name, msg, k.Sign([]byte(msg)), name, msg, k.ProvePossession([]byte(msg)))
			fmt.Fprintf(&out, "%s share %.10q %x\n", name, msg, k.SignShare([]byte(msg)))
		}
	}
	path := filepath.Join("testdata", "bls.golden")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("keys or signatures changed; if that is meant, run with -update and review\ngot:\n%swant:\n%s", &out, want)
	}
}

func TestSecretKeyFromBytes(t *testing.T) {
	order, _ := new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)
	for _, tc := range []struct {
		name string
		n    *big.Int
		good bool
	}{
		{"zero", new(big.Int), false},
		{"one", big.NewInt(1), true},
		{"order less one", new(big.Int).Sub(order, big.NewInt(1)), true},
		{"order", order, false},
		{"all ones", new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)), false},
	} {
		var b [32]byte
		tc.n.FillBytes(b[:])
		k, err := SecretKeyFromBytes(b)
		if (err == nil) != tc.good {
			t.Errorf("%s: error %v", tc.name, err)
		}
		if err == nil && k.Bytes() != b {
			t.Errorf("%s comes back as %x", tc.name, k.Bytes())
		}
	}
	if _, err := NewSecretKey(make([]byte, 31)); err == nil {
		t.Error("31 bytes of key material accepted")
	}
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if s := fmt.Sprintf(format, secret(t, "a")); s != "bls secret key" {
			t.Errorf("%s prints %q", format, s)
		}
	}
}

func TestPossession(t *testing.T) {
	a, b := secret(t, "a"), secret(t, "b")
	pub := a.Public()
	msg := append([]byte("genesis and account"), pub[:]...)
	proof := a.ProvePossession(msg)
	for _, tc := range []struct {
		name  string
		pub   [48]byte
		msg   []byte
		proof [96]byte
		want  bool
	}{
		{"own proof", pub, msg, proof, true},
		{"another key", b.Public(), msg, proof, false},
		{"another message", pub, msg[1:], proof, false},
		{"another's proof", pub, msg, b.ProvePossession(msg), false},
		{"a vote on the message", pub, msg, a.Sign(msg), false},
		{"key at infinity, proof at infinity", array48(zeros("c0", 48, "")), msg, array96(zeros("c0", 96, "")), false},
		{"key outside the group", array48(zeros("80", 48, "04")), msg, proof, false},
		{"proof outside the group", pub, msg, array96(zeros("80", 96, "02")), false},
	} {
		if got := VerifyPossession(tc.pub, tc.msg, tc.proof); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func TestNewKeySetRefuses(t *testing.T) {
	if _, err := NewKeySet(nil); err == nil {
		t.Error("no keys accepted")
	}
	good := secret(t, "a").Public()
	for _, bad := range published.badKeys {
		if _, err := NewKeySet([][48]byte{good, array48(bad)}); err == nil || !strings.Contains(err.Error(), "key 1") {
			t.Errorf("%s: error %v, want one that names key 1", bad, err)
		}
	}
}

func TestVerify(t *testing.T) {
	secrets, set := committee(t, 4)
	msg := []byte("a vote")
	sig := secrets[2].Sign(msg)
	for _, tc := range []struct {
		name string
		i    int
		msg  []byte
		sig  [96]byte
		want bool
	}{
		{"own", 2, msg, sig, true},
		{"again, hashed already", 2, msg, sig, true},
		{"another's", 1, msg, sig, false},
		{"another message", 2, []byte("a vot"), sig, false},
		{"below the committee", -1, msg, sig, false},
		{"above the committee", 4, msg, sig, false},
		{"possession proof", 2, msg, secrets[2].ProvePossession(msg), false},
		{"a message too long for the memo", 2, bytes.Repeat([]byte("m"), memoBytes+1), secrets[2].Sign(bytes.Repeat([]byte("m"), memoBytes+1)), true},
		{"an empty message", 2, nil, secrets[2].Sign(nil), true},
	} {
		if got := set.Verify(tc.i, tc.msg, tc.sig); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestVerifyAggregate draws committees and signer sets, so that sums over few present and over few missing keys and
// the edges of the bitmap are met, and checks one right and several wrong statements about each.
func TestVerifyAggregate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(rt, "n")
		secrets, set := committee(t, n)
		msg := []byte("a statement")
		signers := make([]byte, (n+7)/8)
		var sigs [][96]byte
		for i, k := range secrets {
			if rapid.Bool().Draw(rt, "signs") {
				signers[i/8] |= 1 << (i % 8)
				sigs = append(sigs, k.Sign(msg))
			}
		}
		if len(sigs) == 0 {
			if set.VerifyAggregate(signers, msg, secrets[0].Sign(msg)) || set.VerifyAggregate(signers, msg, array96(zeros("c0", 96, ""))) {
				rt.Fatal("an aggregate of nobody passes")
			}
			return
		}
		sum, err := set.Aggregate(sigs)
		if err != nil {
			rt.Fatal(err)
		}
		if !set.VerifyAggregate(signers, msg, sum) {
			rt.Fatal("refused")
		}
		if set.VerifyAggregate(signers, []byte("another"), sum) {
			rt.Fatal("another message passes")
		}
		flip := rapid.IntRange(0, n-1).Draw(rt, "flip")
		signers[flip/8] ^= 1 << (flip % 8)
		if set.VerifyAggregate(signers, msg, sum) {
			rt.Fatal("one signer more or less passes")
		}
	})
}

func TestVerifyAggregateBitmap(t *testing.T) {
	secrets, set := committee(t, 9)
	msg := []byte("a statement")
	sum, err := set.Aggregate([][96]byte{secrets[0].Sign(msg), secrets[8].Sign(msg)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		signers []byte
		want    bool
	}{
		{"right", []byte{1, 1}, true},
		{"too short", []byte{1}, false},
		{"too long", []byte{1, 1, 0}, false},
		{"bit beyond the committee", []byte{1, 3}, false},
		{"nil", nil, false},
	} {
		if got := set.VerifyAggregate(tc.signers, msg, sum); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// TestRelatedKeys has equal and opposite keys in one set: sums double, cancel and pass through infinity.
func TestRelatedKeys(t *testing.T) {
	a, b := secret(t, "a"), secret(t, "b")
	opposite := func(k *SecretKey) *SecretKey {
		order, _ := new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)
		s := k.Bytes()
		var out [32]byte
		new(big.Int).Sub(order, new(big.Int).SetBytes(s[:])).FillBytes(out[:])
		neg, err := SecretKeyFromBytes(out)
		if err != nil {
			t.Fatal(err)
		}
		return neg
	}
	secrets := []*SecretKey{a, opposite(a), a, a, b, opposite(b), opposite(a), opposite(a)} // the total is infinity
	keys := make([][48]byte, len(secrets))
	msg := []byte("a statement")
	for i, k := range secrets {
		keys[i] = k.Public()
	}
	set, err := NewKeySet(keys)
	if err != nil {
		t.Fatal(err)
	}
	for signers := 0; signers < 256; signers += 1 {
		var sigs [][96]byte
		sum := map[*SecretKey]int{}
		for i, k := range secrets {
			if signers>>i&1 == 1 {
				sigs = append(sigs, k.Sign(msg))
				switch {
				case k == a || k == b:
					sum[k]++
				case i == 5:
					sum[b]--
				default:
					sum[a]--
				}
			}
		}
		infinite := sum[a] == 0 && sum[b] == 0
		total, err := set.Aggregate(sigs)
		if (err != nil) != infinite {
			t.Fatalf("signers %08b: aggregate error %v", signers, err)
		}
		if infinite {
			total = array96(zeros("c0", 96, ""))
		}
		if got := set.VerifyAggregate([]byte{byte(signers)}, msg, total); got == infinite {
			t.Fatalf("signers %08b: %v", signers, got)
		}
	}
}

// TestAggregateIsNotPoisoned: a point outside the group is refused, even where two of them would cancel out, and a
// wrong signature is seen by VerifyAggregate.
func TestAggregateIsNotPoisoned(t *testing.T) {
	secrets, set := committee(t, 3)
	msg := []byte("a statement")
	good := [][96]byte{secrets[0].Sign(msg), secrets[1].Sign(msg), secrets[2].Sign(msg)}
	outside := array96(zeros("80", 96, "02"))
	opposite := outside
	opposite[0] ^= 0x20 // the other y
	if _, err := set.Aggregate(append(good[:3:3], outside, opposite)); err == nil || !strings.Contains(err.Error(), "signature 3") {
		t.Errorf("error %v, want one that names signature 3", err)
	}
	sum, err := set.Aggregate([][96]byte{good[0], good[1], secrets[2].Sign([]byte("something else"))})
	if err != nil {
		t.Fatal(err)
	}
	if set.VerifyAggregate([]byte{7}, msg, sum) {
		t.Error("an aggregate with a wrong signature passes")
	}
	if _, err := set.Aggregate(nil); err == nil {
		t.Error("no signatures add up")
	}
}

func TestConcurrentUse(t *testing.T) {
	secrets, set := committee(t, 3)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() {
			for k := range 5 {
				msg := []byte{byte(k)}
				if !set.Verify(i, msg, secrets[i].Sign(msg)) {
					t.Errorf("signature %d of %d refused", k, i)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzPoints feeds any bytes to the parsers of keys and signatures: what they accept has exactly this encoding, and
// every engine of this build accepts the same.
func FuzzPoints(f *testing.F) {
	for _, s := range append(published.badKeys, published.keys[:]...) {
		b := array48(s)
		f.Add(b[:])
	}
	for _, s := range append(published.badSigs, published.signatures[:]...) {
		b := array96(s)
		f.Add(b[:])
		if sig, err := ParseSignature(b); err == nil {
			raw := sig.point.RawBytes()
			f.Add(raw[:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var k [48]byte
		copy(k[:], b)
		var s [96]byte
		copy(s[:], b)
		var u [192]byte
		copy(u[:], b)
		key, keyErr := ParsePublicKey(k)
		if keyErr == nil && key.Bytes() != k {
			t.Errorf("key %x accepted", k)
		}
		sig, sigErr := ParseSignature(s)
		if sigErr == nil && sig.Bytes() != s {
			t.Errorf("signature %x accepted", s)
		}
		share, shareErr := ParseShare(s)
		raw, rawErr := ParseShareUncompressed(u)
		if rawErr == nil && raw.point.RawBytes() != u {
			t.Errorf("share %x accepted", u)
		}
		for _, e := range curve.Engines() {
			if p, ok := e.DecodeG1(&k); ok != (keyErr == nil) || p != key.point {
				t.Errorf("%s on key %x: %v", e.Name(), k, ok)
			}
			if p, ok := parse(e, s[:]); ok != (sigErr == nil) || ok && p != sig.point {
				t.Errorf("%s on signature %x: %v", e.Name(), s, ok)
			}
			if p, ok := e.DecodeG2(s[:]); ok != (shareErr == nil) || p != share.point {
				t.Errorf("%s on share %x: %v", e.Name(), s, ok)
			}
			if p, ok := e.DecodeG2(u[:]); ok != (rawErr == nil) || p != raw.point {
				t.Errorf("%s on share %x: %v", e.Name(), u, ok)
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k := secret(b, "a")
	b.ReportAllocs()
	for b.Loop() {
		k.Sign([]byte("a vote"))
	}
}

func BenchmarkVerify(b *testing.B) {
	secrets, set := committee(b, 4)
	var votes [][96]byte
	var msgs [][]byte
	for i := range 64 {
		msgs = append(msgs, []byte(fmt.Sprint("vote ", i)))
		votes = append(votes, secrets[1].Sign(msgs[i]))
	}
	for _, distinct := range []int{1, len(votes)} {
		b.Run(map[int]string{1: "one-message", 64: "many-messages"}[distinct], func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i = (i + 1) % distinct {
				if !set.Verify(1, msgs[i], votes[i]) {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkAggregate(b *testing.B) {
	for _, n := range []int{4, 100, 1000} {
		secrets, set := committee(b, n)
		msg := []byte("a statement")
		signers := make([]byte, (n+7)/8)
		var sigs [][96]byte
		for i := range n - n/4 {
			signers[i/8] |= 1 << (i % 8)
			sigs = append(sigs, secrets[i].Sign(msg))
		}
		var sum [96]byte
		b.Run(fmt.Sprintf("add/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if sum, err = set.Aggregate(sigs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(sigs)), "ns/item")
		})
		b.Run(fmt.Sprintf("verify/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !set.VerifyAggregate(signers, msg, sum) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// decoding counts the keys that an engine decodes.
type decoding struct {
	curve.Engine
	keys int
}

func (d *decoding) DecodeG1(b *[48]byte) (curve.G1, bool) {
	d.keys++
	return d.Engine.DecodeG1(b)
}

// TestKeySetWith: a set made from another one is the same as a new one, and only what is new in it is decoded.
func TestKeySetWith(t *testing.T) {
	var secrets []*SecretKey
	var keys [][48]byte
	for i := range 6 {
		k, err := NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			t.Fatal(err)
		}
		secrets, keys = append(secrets, k), append(keys, k.Public())
	}
	e := &decoding{Engine: engine()}
	first, err := newKeySet(e, keys[:5])
	if err != nil {
		t.Fatal(err)
	}
	order := []int{3, 5, 0, 1} // one is new, one has gone, and others sit elsewhere
	var next [][48]byte
	var sigs [][96]byte
	msg := []byte("message")
	for _, i := range order {
		next, sigs = append(next, keys[i]), append(sigs, secrets[i].Sign(msg))
	}
	before := e.keys
	set, err := first.With(next)
	if err != nil || e.keys != before+1 {
		t.Fatalf("%d keys decoded, %v", e.keys-before, err)
	}
	for i := range order {
		if !set.Verify(i, msg, sigs[i]) || set.Verify((i+1)%4, msg, sigs[i]) {
			t.Errorf("signature %d", i)
		}
	}
	sum, err := set.Aggregate(sigs)
	if err != nil || !set.VerifyAggregate([]byte{0b1111}, msg, sum) || set.VerifyAggregate([]byte{0b111}, msg, sum) {
		t.Errorf("aggregate: %v", err)
	}
	bad := next[1]
	bad[7]++
	if _, err := first.With([][48]byte{keys[0], bad}); err == nil {
		t.Error("a key that is no point is taken")
	}
	if _, err := first.With(nil); err == nil {
		t.Error("no keys are taken")
	}
}
