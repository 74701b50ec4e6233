package tx

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genID(t *rapid.T) ID { return ID(rapid.Uint64Max(1<<48-1).Draw(t, "id")) }

func TestGeneratorHasItsRoots(t *testing.T) {
	for _, x := range []byte{2, 4, 8, 16} {
		v := byte(1) // the generator is monic
		for _, g := range textGenerator {
			v = gfMul(v, x) ^ g
		}
		if v != 0 {
			t.Errorf("generator at %d is %d", x, v)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := genID(t)
		s := id.String()
		if len(s) != TextBytes || strings.ContainsAny(s, "ilou") {
			t.Fatalf("text %q", s)
		}
		for _, form := range []string{s, strings.ToUpper(s)} {
			if back, err := ParseID(form); err != nil || back != id {
				t.Fatalf("%q: %d, %v", form, back, err)
			}
		}
		j, err := json.Marshal(map[string]ID{"id": id})
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]ID
		if err := json.Unmarshal(j, &m); err != nil || m["id"] != id {
			t.Fatalf("%s: %v", j, err)
		}
	})
}

// TestTextSingleErrors changes every character to every other one: refused, and corrected.
func TestTextSingleErrors(t *testing.T) {
	for _, id := range []ID{0, 1, MakeID(255, 4095), 1<<48 - 1, 0x123456789abc} {
		s := id.String()
		for at := range s {
			for _, c := range textDigits + "ilou-" {
				if byte(c) == s[at] {
					continue
				}
				typo := s[:at] + string(c) + s[at+1:]
				_, err := ParseID(typo)
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s taken for an id: %v", typo, err)
				}
				if !strings.Contains(err.Error(), "did you mean "+s) {
					t.Fatalf("%s: %v, meant %s", typo, err, s)
				}
			}
		}
	}
}

// TestTextDoubleErrors changes every pair of characters in every way, which covers every transposition.
func TestTextDoubleErrors(t *testing.T) {
	id := ID(rand.Uint64N(1 << 48))
	s := id.String()
	var w textWord
	for i := range w {
		w[i] = byte(strings.IndexByte(textDigits, s[i]))
	}
	for i := range w {
		for j := range i {
			for e := 1; e < 32; e++ {
				for f := 1; f < 32; f++ {
					c := w
					c[i] ^= byte(e)
					c[j] ^= byte(f)
					if c.valid() {
						t.Fatalf("%s and %s are both ids", s, c.String())
					}
				}
			}
		}
	}
}

// TestTextDistance checks that up to four wrong characters are noticed.
func TestTextDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(genID(t).String())
		orig := string(b)
		at := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}).Draw(t, "at")
		for _, i := range at[:rapid.IntRange(1, 4).Draw(t, "n")] {
			b[i] = textDigits[rapid.IntRange(0, 31).Draw(t, "c")]
		}
		if _, err := ParseID(string(b)); err == nil && string(b) != orig {
			t.Fatalf("%s taken for an id; written was %s", b, orig)
		}
	})
}

func TestTextRefusals(t *testing.T) {
	good := MakeID(7, 9).String()
	for name, c := range map[string]struct{ in, want string }{
		"empty":            {"", "0 characters"},
		"short":            {good[:13], "13 characters"},
		"long":             {good + "0", "15 characters"},
		"zeros":            {"00000000000000", "account id"},
		"two foreign":      {"l" + good[1:13] + "o", "characters 1 and 14"},
		"foreign and typo": {"u" + good[1:8] + "zzz" + good[11:], "character 1 is not used"},
		"scrambled":        {"zyxwvtsrqpnmkj", "copy the id again"},
		"not ascii":        {strings.Repeat("é", 7), "not used"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseID(c.in)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("ParseID(%q): %v, want %q", c.in, err, c.want)
			}
		})
	}
	if s := ID(1 << 48).String(); s != "no-account-id" {
		t.Errorf("text of a value over 48 bits: %q", s)
	}
	if _, err := ID(1 << 48).MarshalText(); !errors.Is(err, ErrMalformed) {
		t.Errorf("MarshalText of a value over 48 bits: %v", err)
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", MakeID(1, 2).String(), strings.ToUpper(ID(1<<48 - 1).String()), "00000000000000", "oil"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if id.String() != strings.ToLower(s) {
			t.Fatalf("%q is %d, whose text is %s", s, id, id)
		}
	})
}

func BenchmarkParseID(b *testing.B) {
	good := MakeID(7, 9).String()
	for name, s := range map[string]string{"good": good, "typo": "z" + good[1:], "scrambled": "zyxwvtsrqpnmkj"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = ParseID(s)
			}
		})
	}
}
