package keys

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func password(t testing.TB, text string) Password {
	t.Helper()
	p, err := NewPassword(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestVectors opens the standard's own test vectors, https://eips.ethereum.org/EIPS/eip-2335.
func TestVectors(t *testing.T) {
	const (
		fraktur = "𝔱𝔢𝔰𝔱𝔭𝔞𝔰𝔰𝔴𝔬𝔯𝔡🔑"
		secret  = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
	)
	if got := hex.EncodeToString(password(t, fraktur).normal()); got != "7465737470617373776f7264f09f9491" {
		t.Errorf("normal form %s", got)
	}
	for _, name := range []string{"scrypt", "pbkdf2"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "eip2335-"+name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			k, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if k.Type() != Voting || k.Weak() {
				t.Errorf("type %s, weak %v", k.Type(), k.Weak())
			}
			s, err := k.Open(password(t, fraktur))
			if err != nil {
				t.Fatal(err)
			}
			if seed := s.Seed(); hex.EncodeToString(seed[:]) != secret {
				t.Errorf("secret %x", seed)
			}
			// What we write of it is the same object.
			out, err := k.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var was, is map[string]any
			if err := errors.Join(json.Unmarshal(b, &was), json.Unmarshal(out, &is)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(was, is); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNormal(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"plain":           {"correct horse", "correct horse"},
		"control codes":   {"a\x00b\tc\x1f\x7fd\u0080\u009fe", "abcde"},
		"space stays":     {" a ", " a "},
		"composed":        {"\u00e9", "e\u0301"},
		"compatibility":   {"ﬁ²", "fi2"},
		"made by folding": {"\u00a0", " "},
	} {
		if got := string(password(t, c.in).normal()); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestGolden pins the files that we write, with salt, iv and uuid from a counter.
func TestGolden(t *testing.T) {
	for _, kind := range []Type{Voting, Node, Wallet} {
		t.Run(string(kind), func(t *testing.T) {
			s, err := FromBytes(kind, [32]byte{31: 7})
			if err != nil {
				t.Fatal(err)
			}
			random := bytes.NewReader(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 8))
			k, err := seal(s, password(t, "golden password"), CostDemo, kind.Title(), random)
			if err != nil {
				t.Fatal(err)
			}
			b, err := k.Encode()
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", string(kind)+".json")
			if *update {
				if err := os.WriteFile(golden, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			back, err := Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			opened, err := back.Open(password(t, "golden password"))
			if err != nil || opened.Seed() != s.Seed() || back.Type() != kind || !back.Weak() {
				t.Errorf("opened %v, %v", opened, err)
			}
			if _, err := back.Open(password(t, "golden passwore")); !errors.Is(err, ErrPassword) {
				t.Errorf("wrong password: %v", err)
			}
		})
	}
}

func TestNewKeysDiffer(t *testing.T) {
	for _, kind := range []Type{Voting, Node, Wallet} {
		a, err := New(kind)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(kind)
		if err != nil || bytes.Equal(a.Public(), b.Public()) || len(a.Public()) != kind.publicBytes() {
			t.Errorf("%s: %v %v %v", kind, a, b, err)
		}
		_, bls := a.BLS()
		_, ed := a.Ed25519()
		if (bls == nil) != (kind == Voting) || (ed == nil) == (kind == Voting) {
			t.Errorf("%s used as another type: %v, %v", kind, bls, ed)
		}
	}
	if _, err := New("rsa"); err == nil {
		t.Error("a key of an unknown type was made")
	}
	if _, err := FromBytes(Voting, [32]byte{}); err == nil {
		t.Error("the zero scalar was accepted")
	}
}

// TestTampered: a swapped public key is noticed although the checksum does not cover it.
func TestTampered(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "ed25519-wallet.json"))
	if err != nil {
		t.Fatal(err)
	}
	k, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	k, err = Decode(bytes.Replace(b, []byte(k.file.Pubkey[:8]), []byte("00000000"), 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Open(password(t, "golden password")); !errors.Is(err, ErrMalformed) {
		t.Errorf("opened with %v", err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := os.ReadFile(filepath.Join("testdata", "ed25519-node.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"version":          {`"version": 4`, `"version": 3`, "version 3"},
		"unknown type":     {`"ed25519-node"`, `"rsa"`, "update tutti"},
		"wrong length":     {`"ed25519-node"`, `"bls-voting"`, "pubkey: need 48 to 48"},
		"n not a power":    {`"n": 4096`, `"n": 4097`, "scrypt with n=4097"},
		"n one":            {`"n": 4096`, `"n": 1`, "scrypt with n=1"},
		"n huge":           {`"n": 4096`, `"n": 1073741824`, "scrypt with"},
		"n negative":       {`"n": 4096`, `"n": -4096`, "scrypt with"},
		"r huge":           {`"r": 8`, `"r": 33`, "scrypt with"},
		"p huge":           {`"p": 1`, `"p": 17`, "scrypt with"},
		"memory":           {`"n": 4096`, `"n": 1048576`, "scrypt with"},
		"kdf":              {`"scrypt"`, `"argon2"`, `kdf "argon2"`},
		"pbkdf2 no prf":    {`"scrypt"`, `"pbkdf2"`, "need hmac-sha256"},
		"cipher":           {"aes-128-ctr", "rot13", `cipher "rot13"`},
		"dklen":            {`"dklen": 32`, `"dklen": 64`, "dklen 64"},
		"short iv":         {`"iv": "01`, `"iv": "`, "iv: need 16"},
		"not hex":          {`"salt": "01`, `"salt": "zz`, "salt: need"},
		"long description": {"Ed25519 node key", strings.Repeat("x", 1025), "over 1024"},
		"not JSON":         {"{", "[", "not a keystore"},
		"trailing":         {"}\n", "}\n{}", "follows"},
		"too long":         {"}\n", "}" + strings.Repeat(" ", MaxFileBytes), "limit 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			text := string(good)
			at := strings.Index(text, c.from)
			if c.from == "}\n" {
				at = strings.LastIndex(text, c.from)
			}
			if at < 0 {
				t.Fatalf("%s is not in the file", c.from)
			}
			_, err := Decode([]byte(text[:at] + c.to + text[at+len(c.from):]))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestNothingLeaks: no way of printing shows a secret or a password.
func TestNothingLeaks(t *testing.T) {
	const word = "hunter2hunter2"
	p := password(t, word)
	s, err := FromBytes(Wallet, [32]byte(bytes.Repeat([]byte{0xab}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	holder := struct {
		p Password
		s *Secret
		P Password
		S *Secret
	}{p, s, p, s}
	var out bytes.Buffer
	for _, v := range []any{p, s, &p, holder, &holder, []Password{p}} {
		fmt.Fprintf(&out, "%v %+v %#v %s\n", v, v, v, v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	k, err := Seal(s, p, CostDemo, "x")
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := k.Open(password(t, word+word))
	fmt.Fprintln(&out, wrong, p.ForNew(), password(t, "short").ForNew())
	for _, leak := range []string{word, hex.EncodeToString([]byte(word)), "abababab", "171 171", "0xab, 0xab", "short\""} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in\n%s", leak, &out)
		}
	}
}

// FuzzDecode: any bytes are refused, or make a keystore within the limits that decodes to itself.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil || len(files) != 5 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := Decode(b)
		if err != nil {
			return
		}
		if p := k.file.Crypto.KDF.Params; 128*p.N*p.R > maxMemory || p.N*p.R*p.P > maxWork || p.C > maxC && k.file.Crypto.KDF.Function == "pbkdf2" {
			t.Fatalf("over the limits: %+v", p)
		}
		out, err := k.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > MaxFileBytes {
			return // indentation and escapes can grow a file that is near the limit
		}
		again, err := Decode(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if again.Type() != k.Type() || !bytes.Equal(again.Public(), k.Public()) || again.Description() != k.Description() {
			t.Errorf("%s is not %s", out, b)
		}
	})
}

// BenchmarkOpen says what one keystore costs at the start of a node.
func BenchmarkOpen(b *testing.B) {
	for _, cost := range []Cost{CostDemo, CostStandard} {
		b.Run(fmt.Sprintf("n=%d", cost), func(b *testing.B) {
			s, err := New(Node)
			if err != nil {
				b.Fatal(err)
			}
			k, err := Seal(s, password(b, "benchmark"), cost, "")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Open(password(b, "benchmark")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
