package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"tutti/consensus"
)

var update = flag.Bool("update", false, "rewrite golden files in testdata")

type part struct {
	kind    Kind
	content string
}

var small = []part{
	{Head, string((&Info{consensus.Hash{1, 2}, 3, 400, 402}).Append(nil))},
	{Final, "headers"},
	{Outline, "outline"},
	{Difference, ""},
	{Chunk, "one"},
	{Chunk, strings.Repeat("two", 100)},
	{Outbox, "receipts"},
	{Block, "401"},
	{Block, "402"},
}

func written(t testing.TB, parts []part) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if err := w.Add(p.kind, []byte(p.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil || w.Bytes() != int64(b.Len()) {
		t.Fatal(w.Bytes(), b.Len(), err)
	}
	return b.Bytes()
}

// read is the parts of a file up to the first error; io.EOF means all of it.
func read(b []byte) ([]part, error) {
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	var out []part
	for {
		k, content, err := r.Next()
		if err != nil {
			return out, err
		}
		out = append(out, part{k, string(content)})
	}
}

func TestFile(t *testing.T) {
	b := written(t, small)
	got, err := read(b)
	if !errors.Is(err, io.EOF) || len(got) != len(small)+1 || got[len(small)].kind != End {
		t.Fatal(len(got), err)
	}
	for i := range small {
		if got[i] != small[i] {
			t.Errorf("section %d is %v", i, got[i])
		}
	}
	info, err := DecodeInfo([]byte(got[0].content))
	if err != nil || info != (Info{consensus.Hash{1, 2}, 3, 400, 402}) {
		t.Error(info, err)
	}
	if _, err := DecodeInfo(make([]byte, headBytes+1)); err == nil {
		t.Error("a head that is too long")
	}
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/small.golden", []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/small.golden")
	if err != nil || strings.TrimSpace(string(want)) != hex.EncodeToString(b) {
		t.Errorf("differs from testdata/small.golden (%v); run with -update and review", err)
	}
}

// TestDamage changes every byte and cuts everywhere: the section is named where it begins.
func TestDamage(t *testing.T) {
	b := written(t, small)
	starts := []int64{int64(len(magic))}
	for _, p := range small {
		starts = append(starts, starts[len(starts)-1]+int64(5+len(p.content)+sha256.Size))
	}
	check := func(what string, at int, b []byte) {
		t.Helper()
		_, err := read(b)
		if at < len(magic) {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("%s at %d: %v", what, at, err)
			}
			return
		}
		section := 0
		for section+1 < len(starts) && starts[section+1] <= int64(at) {
			section++
		}
		var d *DamageError
		if !errors.As(err, &d) || d.Section != uint64(section) || d.Offset != starts[section] {
			t.Errorf("%s at %d, in section %d: %v", what, at, section, err)
		}
	}
	for i := range b {
		flipped := bytes.Clone(b)
		flipped[i] ^= 0x10
		check("flipped", i, flipped)
		check("cut", i, b[:i])
	}
	if _, err := read(append(bytes.Clone(b), 0)); !errors.As(err, new(*DamageError)) {
		t.Errorf("something follows: %v", err)
	}
	// A whole section that is missing, repeated or from another file.
	from, to := starts[5], starts[6]
	check("a section is missing", int(from), append(bytes.Clone(b[:from]), b[to:]...))
	check("a section is repeated", int(to), append(bytes.Clone(b[:to]), b[from:]...))
	if text := (&DamageError{4, Chunk, 99, "it does not have its digest"}).Error(); !strings.Contains(text, "byte 99") || !strings.Contains(text, "chunk") {
		t.Error(text)
	}
}

func TestOrder(t *testing.T) {
	for name, parts := range map[string][]part{
		"nothing":      nil,
		"no head":      small[1:],
		"no headers":   append([]part{small[0]}, small[2:]...),
		"no block":     small[:7],
		"two heads":    append([]part{small[0]}, small...),
		"out of order": {small[0], small[1], small[3], small[2], small[7]},
		"unknown":      {{99, ""}},
		"too long":     {{Head, strings.Repeat("x", headBytes+1)}},
	} {
		w, err := NewWriter(io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if err = w.Add(p.kind, []byte(p.content)); err != nil {
				break
			}
		}
		if err == nil {
			err = w.Finish()
		}
		if err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func FuzzReader(f *testing.F) {
	b := written(f, small)
	f.Add(b)
	f.Add(b[:len(b)-40])
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := read(b)
		if !errors.Is(err, io.EOF) {
			if !errors.Is(err, ErrFormat) && !errors.As(err, new(*DamageError)) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(written(t, parts[:len(parts)-1]), b) {
			t.Fatal("another file reads the same")
		}
	})
}
