package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files in testdata")

func leavesOf(from, n uint64) [][32]byte {
	out := make([][32]byte, n)
	for i := range out {
		out[i] = sha256.Sum256(binary.BigEndian.AppendUint64([]byte("leaf"), from+uint64(i)))
	}
	return out
}

// naiveTree is the top of a perfect tree, by definition.
func naiveTree(leaves [][32]byte) [32]byte {
	if len(leaves) == 1 {
		return leaves[0]
	}
	l, r := naiveTree(leaves[:len(leaves)/2]), naiveTree(leaves[len(leaves)/2:])
	return sha256.Sum256(append(l[:], r[:]...))
}

// naiveRoot is the root of a range, by definition.
func naiveRoot(leaves [][32]byte) [32]byte {
	b := append([]byte("tutti/mmr/1\x00\x00\x00\x00\x00"), binary.BigEndian.AppendUint64(nil, uint64(len(leaves)))...)
	for bit := 62; bit >= 0; bit-- {
		if n := 1 << bit; len(leaves)&n != 0 {
			done := len(leaves) &^ (2*n - 1)
			top := naiveTree(leaves[done : done+n])
			b = append(b, top[:]...)
		}
	}
	return sha256.Sum256(b)
}

func TestRootIsTheDefinition(t *testing.T) {
	all := leavesOf(0, 70)
	var r Range
	for n := range uint64(70) {
		if got, want := r.Root(), naiveRoot(all[:n]); got != want {
			t.Fatalf("%d leaves: root %x, want %x", n, got, want)
		}
		r = r.Append(all[n : n+1])
	}
}

func TestAppendInAnyPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.Uint64Range(0, 300), 0, 8).Draw(t, "pieces")
		var r Range
		var before []Range
		total := uint64(0)
		for _, n := range pieces {
			before = append(before, r)
			r = r.Append(leavesOf(total, n))
			total += n
		}
		if r.Count() != total || r.Root() != naiveRoot(leavesOf(0, total)) {
			t.Fatalf("%v: count %d, want %d; or the root is wrong", pieces, r.Count(), total)
		}
		// Earlier values are untouched by what was appended to them.
		for _, b := range before {
			if b.Root() != naiveRoot(leavesOf(0, b.Count())) {
				t.Fatalf("%v: the range of %d leaves changed", pieces, b.Count())
			}
		}
	})
}

func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(0, 300).Draw(t, "n")
		height := rapid.IntRange(0, 10).Draw(t, "height")
		all := leavesOf(0, n)
		var tops [][32]byte
		for rest := all; len(rest) >= 1<<height; rest = rest[1<<height:] {
			tops = append(tops, naiveTree(rest[:1<<height]))
		}
		high, low := Range{}.Append(all).Split(height)
		if high.Root() != naiveRoot(tops) || low.Root() != naiveRoot(all[len(tops)<<height:]) {
			t.Fatalf("%d leaves at height %d: %d and %d", n, height, high.Count(), low.Count())
		}
		for _, height := range []int{62, 63, 64, 100} {
			if high, low := (Range{}.Append(all).Split(height)); high.Count() != 0 || low.Root() != naiveRoot(all) {
				t.Fatalf("at height %d: %d and %d", height, high.Count(), low.Count())
			}
		}
	})
}

func TestProofs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Uint64Range(0, 200).Draw(t, "base")
		n := rapid.Uint64Range(1, 200).Draw(t, "n")
		i := base + rapid.Uint64Range(0, n-1).Draw(t, "i")
		old := Range{}.Append(leavesOf(0, base))
		leaves := leavesOf(base, n)
		root, count := old.Append(leaves).Root(), base+n
		proof, err := Prove(old, leaves, i)
		if err != nil {
			t.Fatal(err)
		}
		leaf := leaves[i-base]
		if !Verify(root, count, i, leaf, proof) {
			t.Fatalf("proof of %d in %d+%d does not verify", i, base, n)
		}
		if Verify(root, count, i^1, leaf, proof) || Verify(root, count+1, i, leaf, proof) || Verify(root, count, i, [32]byte{}, proof) {
			t.Fatal("proof verifies for another position, count or leaf")
		}
		if Verify(root, count, i, leaf, append(proof[:len(proof):len(proof)], [32]byte{})) {
			t.Fatal("a longer proof verifies")
		}
		if len(proof) > 0 {
			if Verify(root, count, i, leaf, proof[:len(proof)-1]) {
				t.Fatal("a shorter proof verifies")
			}
			k := rapid.IntRange(0, len(proof)-1).Draw(t, "k")
			proof[k][0] ^= 1
			if Verify(root, count, i, leaf, proof) {
				t.Fatal("a changed proof verifies")
			}
		}
	})
	if _, err := Prove(Range{}.Append(leavesOf(0, 3)), leavesOf(3, 2), 2); !errors.Is(err, ErrPosition) {
		t.Errorf("proving a leaf below the base: %v", err)
	}
	if _, err := Prove(Range{}, leavesOf(0, 2), 2); !errors.Is(err, ErrPosition) {
		t.Errorf("proving a leaf above the range: %v", err)
	}
	if Verify([32]byte{}, MaxLeaves+1, 0, [32]byte{}, nil) || Verify([32]byte{}, 0, 0, [32]byte{}, nil) {
		t.Error("a proof in an impossible range verifies")
	}
}

// TestGolden pins roots and encodings of small ranges.
func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, n := range []uint64{0, 1, 2, 3, 4, 7, 8, 1000, 65537} {
		r := Range{}.Append(leavesOf(0, n))
		fmt.Fprintf(&b, "%d leaves\nroot %x\nencoding %x\n", n, r.Root(), r.AppendBytes(nil))
	}
	const name = "testdata/range.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("differs from %s; run with -update and review:\n%s", name, b.String())
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Range{}.Append(leavesOf(0, 5)).AppendBytes(nil)
	for name, b := range map[string][]byte{
		"nothing":   nil,
		"no peaks":  good[:8],
		"cut":       good[:len(good)-1],
		"too long":  append(append([]byte{}, good...), 0),
		"too large": bytes.Repeat([]byte{0xff}, 8+64*32),
	} {
		if _, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, n := range []uint64{0, 1, 5, 64} {
		f.Add(Range{}.Append(leavesOf(0, n)).AppendBytes(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		if again := r.AppendBytes(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %x", b, again)
		}
	})
}

func BenchmarkAppend1000(b *testing.B) {
	leaves := leavesOf(0, 1000)
	var r Range
	for b.Loop() {
		r = r.Append(leaves)
	}
	b.Logf("root %x", r.Root())
}
