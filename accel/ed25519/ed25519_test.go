package ed25519

import (
	"bytes"
	"compress/gzip"
	std "crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"tutti/accel/ed25519/internal/reference"
	"tutti/accel/internal/selftest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var backends = judges()

func TestSelfTest(t *testing.T) {
	var chosen int
	for _, v := range SelfTest() {
		t.Logf("%+v", v)
		if v.Failed {
			t.Errorf("%s fails on this machine: %s", v.Backend, v.Reason)
		}
		if v.Chosen {
			chosen++
		}
	}
	if chosen == 0 {
		t.Error("no backend chosen")
	}
}

// ruled is a backend with another acceptance rule, or none.
type ruled struct {
	name   string
	accept func(it Item) bool
}

func (r ruled) Name() string { return r.name }

func (r ruled) VerifyMany(items []Item, ok []bool) {
	for i, it := range items {
		ok[i] = r.accept(it)
	}
}

func stdlibAccepts(it Item) bool { return std.Verify(it.Key[:], it.Message, it.Signature[:]) }

// allOrNothing gives the batch's verdict to each of its items.
type allOrNothing struct{}

func (allOrNothing) Name() string { return "all or nothing" }

func (allOrNothing) VerifyMany(items []Item, ok []bool) {
	voiSingle{}.VerifyMany(items, ok)
	for _, v := range ok {
		if !v {
			clear(ok)
			return
		}
	}
}

// TestCheckCatches is the self-test's canary: libraries with other rules and broken backends must fail it.
func TestCheckCatches(t *testing.T) {
	for _, tc := range []struct {
		backend Backend
		reason  string
	}{
		{ruled{"crypto/ed25519", stdlibAccepts}, `"mixed key": got false`},
		{ruled{"voi default", func(it Item) bool { return voi.Verify(it.Key[:], it.Message, it.Signature[:]) }}, "of small order"},
		{ruled{"yes", func(Item) bool { return true }}, "another message"},
		{refuse{}, "RFC 8032 test 1"},
		{allOrNothing{}, "of a batch"},
		{ruled{"panics", func(Item) bool { panic("lane 9") }}, "panic: lane 9"},
	} {
		t.Run(tc.backend.Name(), func(t *testing.T) {
			op := selftest.Operation[Backend]{Check: check, Work: func(Backend, int) {}}
			table := selftest.Choose[Backend](op, tc.backend, voiSingle{})
			if v := table.Verdicts()[0]; table.For(1) != (voiSingle{}) || !strings.Contains(v.Reason, tc.reason) {
				t.Errorf("%+v, want it disabled because of %s", v, tc.reason)
			}
		})
	}
}

// vectors reads a file of vectors in JSON.
func vectors(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(unpack(t, name), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// unpack reads a file where it comes with curve25519-voi, in the module cache: the version in go.mod pins it.
func unpack(t *testing.T, name string) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/oasisprotocol/curve25519-voi").Output()
	if err != nil {
		t.Fatalf("where is curve25519-voi? %v", err)
	}
	packed, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "primitives/ed25519/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return text
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newItem(t *testing.T, key, message, signature []byte) Item {
	t.Helper()
	if len(key) != 32 || len(signature) != 64 {
		t.Fatalf("key of %d bytes, signature of %d", len(key), len(signature))
	}
	return Item{[32]byte(key), message, [64]byte(signature)}
}

// TestVectors counts what each rule accepts of the published edge cases: every backend, alone and in batches, gives
// the ZIP-215 counts. The counts of the other rules show that the vectors tell the rules apart.
func TestVectors(t *testing.T) {
	var cctv []struct{ A, R, S, M string }
	var zip215Set [][2]string
	var speccheck []struct {
		Message   string
		PubKey    string `json:"pub_key"`
		Signature string
	}
	type testGroup struct {
		Key, PublicKey struct{ Pk string } // the first in the older format
		Tests          []struct{ Msg, Sig, Result string }
	}
	var old, current struct{ TestGroups []testGroup }
	vectors(t, "ed25519vectors.json.gz", &cctv)
	vectors(t, "zip215.json.gz", &zip215Set)
	vectors(t, "speccheck_cases.json.gz", &speccheck)
	vectors(t, "eddsa_test.json.gz", &old)
	packed, err := fs.ReadFile(wycheproof.TestVectors, "ed25519_test.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(packed, &current); err != nil {
		t.Fatal(err)
	}
	sets := []struct {
		name                      string
		items                     []Item
		n, stdlib, voiDefault, us int
	}{
		{name: "CCTV", n: 768, stdlib: 198, voiDefault: 212, us: 768},
		{name: "zip215", n: 196, stdlib: 12, voiDefault: 0, us: 196},
		{name: "speccheck", n: 12, stdlib: 5, voiDefault: 4, us: 9},
		{name: "Wycheproof 0.8rc16", n: 133, stdlib: 84, voiDefault: 84, us: 84},
		{name: "Wycheproof 2026", n: 139, stdlib: 88, voiDefault: 88, us: 89},
		{name: "RFC 8032 authors' sign.input", n: 256, stdlib: 128, voiDefault: 128, us: 128},
	}
	for _, v := range cctv {
		sets[0].items = append(sets[0].items, newItem(t, unhex(t, v.A), []byte(v.M), append(unhex(t, v.R), unhex(t, v.S)...)))
	}
	for _, v := range zip215Set {
		sets[1].items = append(sets[1].items, newItem(t, unhex(t, v[0]), []byte("Zcash"), unhex(t, v[1])))
	}
	for _, v := range speccheck {
		sets[2].items = append(sets[2].items, newItem(t, unhex(t, v.PubKey), unhex(t, v.Message), unhex(t, v.Signature)))
	}
	for k, groups := range [][]testGroup{old.TestGroups, current.TestGroups} {
		set := &sets[3+k]
		for _, g := range groups {
			for _, v := range g.Tests {
				sig := unhex(t, v.Sig)
				if len(sig) != 64 { // can't be put into an Item
					continue
				}
				it := newItem(t, unhex(t, g.Key.Pk+g.PublicKey.Pk), unhex(t, v.Msg), sig)
				// The file refuses an R with x = 0 and its sign set, as RFC 8032 does; ZIP-215 accepts it.
				lenient := sig[0] == 1 && sig[31] == 0x80 && bytes.Count(sig[:32], []byte{0}) == 30
				if got := Verify(it); got != (v.Result == "valid" || lenient) {
					t.Errorf("%s: %x is %s, we say %v", set.name, sig, v.Result, got)
				}
				set.items = append(set.items, it)
			}
		}
	}
	// Each line is secret and public key, public key, message, signature and message. Each signature is given once more
	// with a bit of S turned.
	for i, line := range strings.Split(strings.TrimSpace(string(unpack(t, "sign.input.gz"))), "\n") {
		f := strings.Split(line, ":")
		it := newItem(t, unhex(t, f[1]), unhex(t, f[2]), unhex(t, f[3])[:64])
		spoilt := it
		spoilt.Signature[32+i%28] ^= 1 << (i % 8)
		sets[5].items = append(sets[5].items, it, spoilt)
	}
	for _, s := range sets {
		t.Run(s.name, func(t *testing.T) {
			var n, us, stdlib, voiDefault int
			for _, it := range s.items {
				n++
				if Verify(it) {
					us++
				}
				if stdlibAccepts(it) {
					stdlib++
				}
				if voi.Verify(it.Key[:], it.Message, it.Signature[:]) {
					voiDefault++
				}
			}
			t.Logf("%d vectors, accepted by us %d, crypto/ed25519 %d, voi's default %d", n, us, stdlib, voiDefault)
			if n != s.n || us != s.us || stdlib != s.stdlib || voiDefault != s.voiDefault {
				t.Errorf("want %d vectors, accepted by us %d, crypto/ed25519 %d, voi's default %d", s.n, s.us, s.stdlib, s.voiDefault)
			}
			sameVerdicts(t, s.items)
		})
	}
}

// sameVerdicts checks that every backend gives single verdicts in batches of any length.
func sameVerdicts(t *testing.T, items []Item) {
	t.Helper()
	want := make([]bool, len(items))
	for i := range items {
		want[i] = reference.Verify(&items[i].Key, items[i].Message, &items[i].Signature)
	}
	got := make([]bool, len(items))
	sizes := []int{1, 2, 3, 8, 64, 257, len(items)}
	if len(items) > 300 {
		sizes = []int{1, 13, 150, len(items)}
	}
	for _, b := range backends {
		for _, size := range sizes {
			for from := 0; from < len(items); from += size {
				to := min(from+size, len(items))
				b.VerifyMany(items[from:to], got[from:to])
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("%s in batches of %d: verdict %d is %v, alone %v", b.Name(), size, i, got[i], want[i])
				}
			}
		}
	}
}

// TestBackendsAgree mutates good and edge-case signatures at random and wants the same verdicts from all backends.
func TestBackendsAgree(t *testing.T) {
	var pool []Item
	for _, a := range answers() {
		pool = append(pool, a.item)
	}
	pool = append(pool, sampleItems(32)...)
	rapid.Check(t, func(rt *rapid.T) {
		items := make([]Item, rapid.IntRange(1, 24).Draw(rt, "n"))
		for i := range items {
			items[i] = rapid.SampledFrom(pool).Draw(rt, "item")
			switch bit := rapid.IntRange(0, 255).Draw(rt, "bit"); rapid.IntRange(0, 5).Draw(rt, "where") {
			case 0:
				items[i].Key[bit/8] ^= 1 << (bit % 8)
			case 1:
				items[i].Signature[bit/8] ^= 1 << (bit % 8)
			case 2:
				items[i].Signature[32+bit/8] ^= 1 << (bit % 8)
			}
		}
		want, got := make([]bool, len(items)), make([]bool, len(items))
		voiSingle{}.VerifyMany(items, want)
		for i, it := range items {
			if stdlibAccepts(it) && !want[i] {
				rt.Fatalf("crypto/ed25519 accepts and we refuse %x %x %x", it.Key, it.Message, it.Signature)
			}
		}
		for _, b := range backends {
			if b.VerifyMany(items, got); !bytes.Equal(bits(got), bits(want)) {
				rt.Fatalf("%s: %v, want %v", b.Name(), got, want)
			}
		}
	})
}

// FuzzBackends hides any key, message and signature in a batch of good ones: all backends say what the reference says,
// which is yes wherever crypto/ed25519's is.
func FuzzBackends(f *testing.F) {
	for _, a := range answers() {
		f.Add(a.item.Key[:], a.item.Message, a.item.Signature[:], uint8(2))
	}
	good := sampleItems(9)
	f.Fuzz(func(t *testing.T, key, message, signature []byte, at uint8) {
		it := Item{Message: message}
		copy(it.Key[:], key)
		copy(it.Signature[:], signature)
		batch := append([]Item{}, good...)
		lane := int(at) % len(batch)
		batch[lane] = it
		want := reference.Verify(&it.Key, it.Message, &it.Signature)
		if !want && stdlibAccepts(it) {
			t.Error("crypto/ed25519 accepts it")
		}
		ok := make([]bool, len(batch))
		for _, b := range backends {
			b.VerifyMany(batch, ok)
			for i := range ok {
				if ok[i] != (i != lane || want) {
					t.Errorf("%s with it at %d: %v, want %v there and true elsewhere", b.Name(), lane, ok, want)
				}
			}
		}
	})
}

func bits(ok []bool) []byte {
	b := make([]byte, len(ok))
	for i := range ok {
		if ok[i] {
			b[i] = 1
		}
	}
	return b
}

// TestLongBatches goes over the limit of one combination, with bad ones at its edges.
func TestLongBatches(t *testing.T) {
	items := sampleItems(batchMost + 2)
	bad := map[int]bool{0: true, batchMost - 1: true, batchMost + 1: true}
	for i := range bad {
		items[i].Signature[40] ^= 1
	}
	ok := make([]bool, len(items))
	VerifyMany(items, ok)
	for i := range ok {
		if ok[i] == bad[i] {
			t.Errorf("verdict %d is %v", i, ok[i])
		}
	}
}

func TestPrivateKey(t *testing.T) {
	var seed [32]byte
	copy(seed[:], unhex(t, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")) // RFC 8032 test 1
	k := NewPrivateKey(seed)
	want := answers()[0].item
	if k.Public() != want.Key || k.Sign(nil) != want.Signature {
		t.Errorf("public key %x, signature %x", k.Public(), k.Sign(nil))
	}
	if !Verify(Item{k.Public(), []byte("m"), k.Sign([]byte("m"))}) {
		t.Error("own signature refused")
	}
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if s := fmt.Sprintf(format, k); s != "ed25519 private key" {
			t.Errorf("%s prints %q", format, s)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	k := NewPrivateKey([32]byte{1})
	msg := make([]byte, 80)
	var sig [64]byte
	for b.Loop() {
		sig = k.Sign(msg)
	}
	if !Verify(Item{k.Public(), msg, sig}) {
		b.Fatal("wrong signature")
	}
}
