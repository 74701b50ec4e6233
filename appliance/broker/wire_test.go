package broker

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tutti/accel/distill"
	"tutti/accel/merkle"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// pattern fills an array with bytes that differ.
func pattern(b []byte, from byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
}

// samples are one message of each type.
func samples() map[string][]byte {
	var chain distill.Chain
	pattern(chain[:], 1)
	s := submission{number: 0x01020304}
	pattern(s.Body[:], 0x20)
	pattern(s.Signature[:], 0x40)
	leaves := make([][32]byte, 5)
	for i := range leaves {
		pattern(leaves[i][:], byte(0x60+i))
	}
	o := offer{number: 0x01020304, round: 7, Offer: distill.Offer{Index: 4, Count: 5}}
	o.Path = [pathNodes][32]byte(merkle.NewTree(leaves, pathNodes).Path(4))
	a := answer{number: 0x01020304, round: 7}
	pattern(a.share[:], 0x80)
	return map[string][]byte{
		"1 hello":      appendHello(nil, chain),
		"2 welcome":    (&Welcome{100 * time.Millisecond, 150 * time.Millisecond}).append(nil),
		"3 submission": s.append(nil),
		"4 offer":      o.append(nil),
		"5 answer":     a.append(nil),
		"6 verdict":    (&verdict{0x01020304, Verdict{CodeBusy, 200 * time.Millisecond}}).append(nil),
	}
}

// reread reads one message of whatever type and writes it again.
func reread(b []byte) ([]byte, error) {
	r := newReader(bytes.NewReader(b))
	kind, err := r.r.Peek(1)
	if err != nil {
		return nil, err
	}
	if kind[0] > typeWelcome {
		if _, err := r.kind(); err != nil {
			return nil, err
		}
	}
	switch kind[0] {
	case typeHello:
		m, err := r.hello()
		return appendHello(nil, m), err
	case typeWelcome:
		m, err := r.welcome()
		return m.append(nil), err
	case typeSubmission:
		m, err := r.submission()
		return m.append(nil), err
	case typeOffer:
		m, err := r.offer()
		return m.append(nil), err
	case typeAnswer:
		m, err := r.answer()
		return m.append(nil), err
	case typeVerdict:
		m, err := r.verdict()
		return m.append(nil), err
	}
	return nil, fmt.Errorf("%w: type %d", ErrMalformed, kind[0])
}

// TestGolden: the messages have the bytes that the package comment says, and are read as they were written.
func TestGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# Messages. Rewritten by go test ./appliance/broker -update")
	all := samples()
	for _, name := range []string{"1 hello", "2 welcome", "3 submission", "4 offer", "5 answer", "6 verdict"} {
		fmt.Fprintf(&out, "%s %x\n", name, all[name])
		if b, err := reread(all[name]); err != nil || !bytes.Equal(b, all[name]) {
			t.Errorf("%s: read as %x, %v", name, b, err)
		}
		for n := range all[name] {
			if _, err := reread(all[name][:n]); err == nil {
				t.Errorf("%s: %d bytes of it are read", name, n)
			}
		}
	}
	path := filepath.Join("testdata", "messages.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("formats changed; if that is meant, run with -update and review:\n%s", d)
	}
}

// TestOfferPath: an offer leaves out the siblings that are empty subtrees, and they are put back.
func TestOfferPath(t *testing.T) {
	for _, count := range []int{1, 2, 3, 16, 17, 1000} {
		leaves := make([][32]byte, count)
		for i := range leaves {
			pattern(leaves[i][:], byte(i))
		}
		tree := merkle.NewTree(leaves, pathNodes)
		for _, i := range []int{0, count / 2, count - 1} {
			o := offer{Offer: distill.Offer{Index: i, Count: count, Path: [pathNodes][32]byte(tree.Path(i))}}
			b := o.append(nil)
			if want := 1 + offerHeadBytes + 32*merkle.Depth(count); len(b) != want {
				t.Errorf("%d of %d: %d bytes, want %d", i, count, len(b), want)
			}
			r := newReader(bytes.NewReader(b[1:]))
			if got, err := r.offer(); err != nil || got.Path != o.Path {
				t.Errorf("%d of %d: another path: %v", i, count, err)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	all := samples()
	change := func(name string, at int, to byte) []byte {
		b := bytes.Clone(all[name])
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"hello of another version":   change("1 hello", 1, 2),
		"welcome of another version": change("2 welcome", 1, 2),
		"offer beyond the count":     change("4 offer", 12, 5),
		"offer of too many":          change("4 offer", 13, 1),
		"verdict of no code":         change("6 verdict", 5, codes),
		"unknown type":               {9},
	} {
		if _, err := reread(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := reread(b)
		if err == nil && !bytes.HasPrefix(b, got) {
			t.Errorf("%x is read as %x", b, got)
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}
