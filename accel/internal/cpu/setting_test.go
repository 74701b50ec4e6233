package cpu

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

var pairs = [][2]string{
	{"ed25519 verify", "voi batch"},
	{"ed25519 verify", "ifma"},
	{"bls key sum", "blst"},
	{"bls vote", "blst"},
	{"merkle pairs", "gohashtree"},
	{"merkle pairs", "crypto/sha256"},
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		text, arch string
		off        string // features that are off
		want       string // in the error; empty for none
	}{
		{"", "amd64", "", ""},
		{" ,, \n", "amd64", "", ""},
		{"-avx512ifma", "amd64", "AVX512IFMA", ""},
		{"-AVX512IFMA,-sha", "amd64", "AVX512IFMA SHA", ""},
		{"-avx512", "amd64", "AVX512BW AVX512DQ AVX512F AVX512IFMA AVX512VBMI AVX512VL", ""},
		{"-avx512f", "amd64", "AVX512BW AVX512DQ AVX512F AVX512IFMA AVX512VBMI AVX512VL", ""},
		{"-avx2 -avx2", "amd64", "AVX2 AVX512BW AVX512DQ AVX512F AVX512IFMA AVX512VBMI AVX512VL", ""},
		{"-sha2", "arm64", "SHA2", ""},
		{"-avx2", "arm64", "", `"-avx2" switches off a feature that nothing here uses: known are aesarm, asimd,`},
		{"-avx512er", "amd64", "", "known are adx, aesni, avx2, avx512, avx512bw"},
		{"-", "amd64", "", `"-" switches off`},
		{"-x87", "riscv64", "", "known are"},
		{"merkle=-gohashtree, ed25519=voi-batch", "amd64", "", ""},
		{"avx2", "amd64", "", `"avx2": write -FEATURE`},
		{"merkle=", "amd64", "", `"merkle=": write OPERATION=BACKEND`},
		{"=x", "amd64", "", "write OPERATION=BACKEND"},
		{"merkle=-", "amd64", "", "write OPERATION=BACKEND"},
		{strings.Repeat("-sha ", 1000), "amd64", "", "5000 bytes"},
		{"-sha merkle=Ⱥ", "amd64", "", `"Ⱥ" at byte 12`},
		{"merkle=\x9c", "amd64", "", `"\x9c" at byte 7`},
	} {
		s, err := Parse(tc.text, tc.arch)
		if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q on %s: error %v, want %q", tc.text, tc.arch, err, tc.want)
		}
		if err != nil {
			continue
		}
		var off []string
		for _, f := range []cpuid.FeatureID{
			cpuid.AVX2, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512F, cpuid.AVX512IFMA, cpuid.AVX512VBMI, cpuid.AVX512VL, cpuid.SHA, cpuid.SHA2,
		} {
			if s.SwitchedOff(f) != "" {
				off = append(off, f.String())
			}
		}
		if got := strings.Join(off, " "); got != tc.off || len(s.Off()) != len(off) {
			t.Errorf("%q switches off %s, want %s", tc.text, got, tc.off)
		}
	}
}

func TestUnknown(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"-avx2":                        "",
		"merkle=gohashtree":            "",
		"merkle-pairs=-crypto/sha256":  "",
		"bls=blst bls-vote=-blst":      "",
		"ED25519=-Voi-Batch":           "",
		"merkl=gohashtree":             `"merkl=gohashtree" names no operation: known are ed25519-verify, bls-key-sum, bls-vote, merkle-pairs`,
		"merkle-pairs-x=gohashtree":    "names no operation",
		"ed25519=gohashtree":           `"ed25519=gohashtree" names no backend: known for ed25519 are voi-batch, ifma`,
		"merkle=gohashtree bls=-gnark": `"bls=-gnark" names no backend: known for bls are blst`,
	} {
		s, err := Parse(text, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Unknown(pairs); (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

// TestNames: every word that Names gives is one that a setting may have.
func TestNames(t *testing.T) {
	for arch := range known {
		features, backends := Names(arch, pairs)
		if len(features) < 5 || len(backends) != len(pairs) {
			t.Errorf("%s: %v, %v", arch, features, backends)
		}
		s, err := Parse(strings.Join(append(features, backends...), ","), arch)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Unknown(pairs); err != nil {
			t.Error(err)
		}
		for _, p := range pairs {
			if !s.Pins(p[0], p[1]) || s.Excludes(p[0], p[1]) != "" {
				t.Errorf("%v is not pinned", p)
			}
		}
	}
}

// TestOnce runs in processes of its own: whoever comes first decides the setting.
func TestOnce(t *testing.T) {
	if mode, ok := os.LookupEnv("TUTTI_ACCEL_TEST"); ok {
		once(t, mode)
		return
	}
	for _, mode := range []string{"fix first", "ask first", "garbage"} {
		c := exec.Command(os.Args[0], "-test.run=^TestOnce$", "-test.v")
		c.Env = append(os.Environ(), "TUTTI_ACCEL_TEST="+mode, Variable+"=-sse2,")
		if mode == "ask first" {
			c.Env = append(c.Env, Variable+"=merkle=stdlib")
		}
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestOnce") {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}

func once(t *testing.T, mode string) {
	other := &Setting{text: "other"}
	switch mode {
	case "fix first":
		if err := Fix(other); err != nil || Current() != other {
			t.Errorf("Fix: %v, then Current is %q", err, Current())
		}
	case "ask first":
		if got := Current(); got.String() != "merkle=stdlib" || !got.Pins("merkle", "stdlib") {
			t.Errorf("Current is %q, not what the environment says", got)
		}
	case "garbage":
		if got := Current(); got.String() != "" {
			t.Errorf("Current is %q, from an environment that can't be read", got)
		}
	}
	before := Current()
	if err := Fix(&Setting{text: "late"}); err != ErrInUse || Current() != before {
		t.Errorf("Fix afterwards: %v", err)
	}
}

// FuzzParse: any text is refused, or means something that can be said again.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "-avx512ifma", "-avx2,merkle=-gohashtree", "bls=blst ed25519=voi-batch", "a==b", "-=-", "s=" + strings.Repeat("\x9c", 4000)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for arch := range known {
			s, err := Parse(text, arch)
			if err != nil {
				continue
			}
			var words []string
			for _, f := range s.off {
				words = append(words, "-"+f.String())
			}
			for _, c := range s.pins {
				words = append(words, c.String())
			}
			said := strings.Join(words, " ")
			if len(said) > maxSettingBytes {
				continue // a family of features is said again by its members, which takes longer
			}
			again, err := Parse(said, arch)
			if err != nil {
				t.Fatalf("%q, said again as %q: %v", text, words, err)
			}
			if len(again.off) < len(s.off) || len(again.pins) != len(s.pins) {
				t.Errorf("%q, said again as %q, is %+v", text, words, again)
			}
			s.Unknown(pairs)
		}
	})
}
