package merkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// numbered are the leaves of the golden lists: leaf j is SHA-256(u64be(j)).
func numbered(n int) [][32]byte {
	leaves := make([][32]byte, n)
	for j := range leaves {
		leaves[j] = sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(j)))
	}
	return leaves
}

// naive is the definition of the root in the package comment, word by word.
func naive(leaves [][32]byte) [32]byte {
	width := 1
	for width < len(leaves) {
		width *= 2
	}
	level := make([][32]byte, width)
	copy(level, leaves)
	for len(level) > 1 {
		var up [][32]byte
		for i := 0; i < len(level); i += 2 {
			up = append(up, sha256.Sum256(append(level[i][:], level[i+1][:]...)))
		}
		level = up
	}
	b := append([]byte("tutti/list/1"), 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(len(leaves)))
	return sha256.Sum256(append(b, level[0][:]...))
}

func TestListRootGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# leaves root; leaf j is SHA-256(u64be(j)). Rewritten by go test ./accel/merkle -update")
	for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 100, 1000, 4096, 65537} {
		root := ListRoot(numbered(n))
		if root != naive(numbered(n)) {
			t.Errorf("root of %d leaves differs from the definition", n)
		}
		fmt.Fprintf(&out, "%d %x\n", n, root)
	}
	path := filepath.Join("testdata", "list.golden")
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
		t.Errorf("roots changed; if that is meant, run with -update and review\ngot:\n%swant:\n%s", &out, want)
	}
}

// TestListProofs checks every index of every short list, and that nothing else verifies.
func TestListProofs(t *testing.T) {
	for n := 1; n <= 20; n++ {
		leaves := numbered(n)
		root := ListRoot(leaves)
		for i := range leaves {
			proof := ListProof(leaves, i)
			if !VerifyList(root, uint64(n), uint64(i), leaves[i], proof) {
				t.Errorf("proof of leaf %d of %d refused", i, n)
			}
			for j := range uint64(32) {
				if j != uint64(i) && VerifyList(root, uint64(n), j, leaves[i], proof) {
					t.Errorf("leaf %d of %d passes as leaf %d", i, n, j)
				}
				if j != uint64(n) && VerifyList(root, j, uint64(i), leaves[i], proof) {
					t.Errorf("leaf %d of %d passes in a list of %d", i, n, j)
				}
			}
			if VerifyList(root, uint64(n), uint64(i), leaves[i], append(proof, [32]byte{})) {
				t.Errorf("leaf %d of %d: a longer proof passes", i, n)
			}
			if len(proof) > 0 && VerifyList(root, uint64(n), uint64(i), leaves[i], proof[1:]) {
				t.Errorf("leaf %d of %d: a shorter proof passes", i, n)
			}
		}
	}
	if VerifyList(ListRoot(nil), 0, 0, [32]byte{}, nil) {
		t.Error("a leaf of the empty list passes")
	}
	for n := 2; n <= 5; n++ { // padding is not a leaf of the list with one leaf less
		leaves := append(numbered(n-1), [32]byte{})
		if ListRoot(leaves) == ListRoot(leaves[:n-1]) {
			t.Errorf("%d leaves and a zero leaf have the root of %d leaves", n-1, n-1)
		}
	}
}

func TestListProofProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		leaves := numbered(n)
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		root, proof := ListRoot(leaves), ListProof(leaves, i)
		if !VerifyList(root, uint64(n), uint64(i), leaves[i], proof) {
			t.Fatal("proof refused")
		}
		if root != naive(leaves) {
			t.Fatal("root differs from the definition")
		}
		bit := rapid.IntRange(0, 255).Draw(t, "bit")
		if at := rapid.IntRange(-1, len(proof)-1).Draw(t, "level"); at < 0 {
			leaves[i][bit/8] ^= 1 << (bit % 8)
		} else {
			proof[at][bit/8] ^= 1 << (bit % 8)
		}
		if VerifyList(root, uint64(n), uint64(i), leaves[i], proof) {
			t.Fatal("a changed bit passes")
		}
	})
}

func TestListProofPanicsOutOfRange(t *testing.T) {
	for _, i := range []int{-1, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("index %d of 3 leaves: no panic", i)
				}
			}()
			ListProof(numbered(3), i)
		}()
	}
}

func FuzzVerifyList(f *testing.F) {
	leaves := numbered(5)
	var flat []byte
	for _, p := range ListProof(leaves, 3) {
		flat = append(flat, p[:]...)
	}
	root := ListRoot(leaves)
	f.Add(root[:], uint64(5), uint64(3), leaves[3][:], flat)
	f.Add([]byte{}, uint64(1)<<63, uint64(7), []byte{}, make([]byte, 32*63))
	f.Add([]byte{}, ^uint64(0), ^uint64(0)-1, []byte{}, make([]byte, 32*64))
	f.Fuzz(func(t *testing.T, rootBytes []byte, n, i uint64, leafBytes, flat []byte) {
		var root, leaf [32]byte
		copy(root[:], rootBytes)
		copy(leaf[:], leafBytes)
		proof := make([][32]byte, len(flat)/32)
		for k := range proof {
			proof[k] = [32]byte(flat[32*k:])
		}
		if VerifyList(root, n, i, leaf, proof) && (i >= n || len(proof) > 64) {
			t.Error("accepted outside the list")
		}
	})
}

func BenchmarkListRoot(b *testing.B) {
	for _, n := range []int{1, 16, 1024, 65536} {
		leaves := numbered(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var sum [32]byte
			for b.Loop() {
				sum = ListRoot(leaves)
			}
			if sum != naive(leaves) {
				b.Fatal("wrong root")
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/item")
		})
	}
}
