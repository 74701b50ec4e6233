package bls

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"tutti/accel/bls/internal/curve"
)

// load reads a file of vectors.
func load(t *testing.T, files fs.FS, name string, into any) {
	t.Helper()
	b, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHashToCurve runs RFC 9380's vectors for G2.
func TestHashToCurve(t *testing.T) {
	var file struct {
		Dst     string
		Vectors []struct {
			Msg string
			P   struct{ X, Y string }
		}
	}
	load(t, os.DirFS("testdata/rfc9380"), "BLS12381G2_XMD_SHA-256_SSWU_RO_.json", &file)
	if len(file.Vectors) != 5 {
		t.Fatalf("%d vectors, want 5", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		// "c0,c1" for each coordinate; uncompressed points have c1 first.
		var want []byte
		for _, c := range []string{v.P.X, v.P.Y} {
			c0, c1, _ := strings.Cut(c, ",")
			want = append(append(want, unhex(t, c1)...), unhex(t, c0)...)
		}
		for _, e := range curve.Engines() {
			if p := e.HashToG2([]byte(v.Msg), []byte(file.Dst)); p.RawBytes() != [192]byte(want) {
				t.Errorf("%s: hash of %.20q is %x", e.Name(), v.Msg, p.RawBytes())
			}
		}
	}
}

// TestEIP2333 has the master keys of the EIP's four test cases; children are not this package's.
func TestEIP2333(t *testing.T) {
	for _, tc := range []struct{ seed, master string }{
		{published.seed, "6083874454709270928345386274498605044986640685124978867557563392430687146096"},
		{"3141592653589793238462643383279502884197169399375105820974944592", "29757020647961307431480504535336562678282505419141012933316116377660817309383"},
		{"0099ff991111002299dd7744ee3355bbdd8844115566cc55663355668888cc00", "27580842291869792442942448775674722299803720648445448686099262467207037398656"},
		{"d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3", "19022158461524446591288038168518313374041767046816487870552872741050760015818"},
	} {
		want, _ := new(big.Int).SetString(tc.master, 10)
		for _, e := range curve.Engines() {
			k, err := newSecretKey(e, unhex(t, tc.seed))
			if err != nil {
				t.Fatal(err)
			}
			if b := k.Bytes(); new(big.Int).SetBytes(b[:]).Cmp(want) != 0 {
				t.Errorf("%s: seed %s gives %x", e.Name(), tc.seed, b)
			}
		}
	}
}

// wycheproofTest is one case of any of the files.
type wycheproofTest struct {
	TcID               int
	Comment, Result    string
	Msg, Sig, Expected string
	Pubkeys, Messages  []string
}

type wycheproofFile struct {
	NumberOfTests int
	TestGroups    []struct {
		Dst, Ciphersuite string
		PublicKey        struct{ Pk string }
		Tests            []wycheproofTest
	}
}

// each calls f for every case of a file and counts them.
func (w *wycheproofFile) each(t *testing.T, name string, tests int, f func(e curve.Engine, dst []byte, key string, tc wycheproofTest) bool) {
	t.Helper()
	load(t, wycheproof.TestVectors, name, w)
	for _, e := range curve.Engines() {
		done := 0
		for _, g := range w.TestGroups {
			for _, tc := range g.Tests {
				done++
				if got := f(e, []byte(g.Dst+g.Ciphersuite), g.PublicKey.Pk, tc); got != (tc.Result == "valid") {
					t.Errorf("%s, %s %d (%s): %v", e.Name(), name, tc.TcID, tc.Comment, got)
				}
			}
		}
		if done != tests || done != w.NumberOfTests {
			t.Errorf("%s: %d cases of %d, want %d", name, done, w.NumberOfTests, tests)
		}
	}
}

// verifyBytes is verification under any tag of inputs of any length.
func verifyBytes(e curve.Engine, keys, msgs [][]byte, sig, dst []byte) bool {
	if len(keys) == 0 || len(keys) != len(msgs) || len(sig) != 96 {
		return false
	}
	s, ok := parse(e, sig)
	if !ok {
		return false
	}
	_, negative := curve.Generator()
	ps, qs := []curve.G1{negative}, []curve.G2{s}
	for i := range keys {
		if len(keys[i]) != 48 {
			return false
		}
		k, ok := e.DecodeG1((*[48]byte)(keys[i]))
		if !ok {
			return false
		}
		ps, qs = append(ps, k), append(qs, e.HashToG2(msgs[i], dst))
	}
	v := e.Pairing(ps, qs)
	return v.IsOne()
}

func TestWycheproof(t *testing.T) {
	for name, tests := range map[string]int{"bls_sig_g2_basic_verify_test.json": 88, "bls_sig_g2_pop_verify_test.json": 26} {
		new(wycheproofFile).each(t, name, tests, func(e curve.Engine, dst []byte, key string, tc wycheproofTest) bool {
			k, msg, sig := unhex(t, key), unhex(t, tc.Msg), unhex(t, tc.Sig)
			got := verifyBytes(e, [][]byte{k}, [][]byte{msg}, sig, dst)
			if string(dst) == string(dstVote) && len(k) == 48 && len(sig) == 96 {
				p, err := ParsePublicKey([48]byte(k))
				if public := err == nil && p.Verify(msg, [96]byte(sig)); public != got {
					t.Errorf("%s %d: PublicKey.Verify %v, %s %v", name, tc.TcID, public, e.Name(), got)
				}
			}
			return got
		})
	}
	new(wycheproofFile).each(t, "bls_sig_g2_aggregate_verify_test.json", 19, func(e curve.Engine, dst []byte, _ string, tc wycheproofTest) bool {
		var keys, msgs [][]byte
		for _, k := range tc.Pubkeys {
			keys = append(keys, unhex(t, k))
		}
		for _, m := range tc.Messages {
			msgs = append(msgs, unhex(t, m))
		}
		return verifyBytes(e, keys, msgs, unhex(t, tc.Sig), dst)
	})
	new(wycheproofFile).each(t, "bls_hash_to_g2_test.json", 34, func(e curve.Engine, dst []byte, _ string, tc wycheproofTest) bool {
		p := e.HashToG2(unhex(t, tc.Msg), dst)
		b := p.Bytes()
		return hex.EncodeToString(b[:]) == tc.Expected
	})
}
