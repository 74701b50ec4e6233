package erasure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"tutti/accel/merkle"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func mustCode(t testing.TB, k, n int) *Code {
	t.Helper()
	c, err := New(k, n)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustEncode(t testing.TB, c *Code, body []byte) *Set {
	t.Helper()
	s, err := c.Encode(body)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counting is a body of bytes that anyone can make again: SHA-256(u64be(0)) || SHA-256(u64be(1)) || ... cut to length.
func counting(length int) []byte {
	var b []byte
	for i := uint64(0); len(b) < length; i++ {
		h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
		b = append(b, h[:]...)
	}
	return b[:length]
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s changed; if that is meant, run with -update and review\ngot:\n%s", name, got)
	}
}

// TestSetsGolden pins shards and commitments: they are what validators must agree on.
func TestSetsGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# k n length code shard-bytes SHA-256(all parity shards) commitment; the body is SHA-256(u64be(0)) || SHA-256(u64be(1)) ...")
	fmt.Fprintln(&out, "# cut to length. Rewritten by go test ./accel/erasure -update")
	for _, tc := range []struct{ k, n, length int }{
		{1, 2, 1},
		{1, 2, 64},
		{1, 2, 65},
		{2, 4, 1000},
		{32, 64, 1},
		{32, 64, 2048},
		{32, 64, 512 << 10},
		{22, 64, 30_000},
		{6, 16, 5000},
		{43, 128, 50_000},
		{64, 192, 64 * 1024},
		{128, 256, 100_000},
		{200, 210, 9999},
		{134, 400, 111_488},
		{86, 256, 70_000},
		{1366, 4096, 200_000},
	} {
		c := mustCode(t, tc.k, tc.n)
		s := mustEncode(t, c, counting(tc.length))
		h := sha256.New()
		for i := tc.k; i < tc.n; i++ {
			h.Write(s.Shard(i))
		}
		fmt.Fprintf(&out, "%d %d %d %s %d %x %x\n", tc.k, tc.n, tc.length, c.Field(), len(s.Shard(0)), h.Sum(nil), s.Commitment())
	}
	golden(t, "sets.golden", out.Bytes())
}

// TestCommitmentIsTheDefinition makes the commitment from the words of the package comment.
func TestCommitmentIsTheDefinition(t *testing.T) {
	c := mustCode(t, 5, 13)
	s := mustEncode(t, c, counting(700))
	leaves := make([][32]byte, 13)
	for i := range leaves {
		shard := sha256.Sum256(s.Shard(i))
		b := append([]byte("tutti/shard/1"), 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, 5)
		b = binary.BigEndian.AppendUint16(b, 13)
		b = binary.BigEndian.AppendUint32(b, 700)
		leaves[i] = sha256.Sum256(append(b, shard[:]...))
	}
	if s.Commitment() != merkle.ListRoot(leaves) {
		t.Fatal("not as defined")
	}
}

func TestNewTakesEveryCodeInRange(t *testing.T) {
	for n := 2; n <= 260; n++ {
		for k := 1; k < n; k += 1 + k/5 {
			mustCode(t, k, n)
		}
	}
	for _, tc := range []struct{ k, n int }{{0, 4}, {-1, 4}, {4, 4}, {5, 4}, {0, 0}, {1, MaxShards + 1}, {MaxShards, MaxShards}, {1, 1 << 62}, {-1 << 63, 1 << 62}} {
		if _, err := New(tc.k, tc.n); !errors.Is(err, ErrCode) {
			t.Errorf("%d of %d: %v", tc.k, tc.n, err)
		}
	}
	mustCode(t, 1, MaxShards)
	mustCode(t, MaxShards-1, MaxShards)
}

func TestLengths(t *testing.T) {
	c := mustCode(t, 3, 8)
	for _, length := range []int{-1, 0, MaxLength + 1, 1 << 62} {
		if _, err := c.ShardBytes(length); !errors.Is(err, ErrLength) {
			t.Errorf("%d bytes: %v", length, err)
		}
		if _, err := c.NewAssembly([32]byte{}, length); !errors.Is(err, ErrLength) {
			t.Errorf("assembly of %d bytes: %v", length, err)
		}
	}
	if _, err := c.Encode(nil); !errors.Is(err, ErrLength) {
		t.Errorf("empty body: %v", err)
	}
	wide := mustCode(t, 1, MaxShards)
	if size, err := wide.ShardBytes(MaxBytes / MaxShards); err != nil || size != MaxBytes/MaxShards {
		t.Errorf("the widest code's largest shard has %d bytes, %v", size, err)
	}
	if _, err := wide.ShardBytes(MaxBytes/MaxShards + 1); !errors.Is(err, ErrLength) {
		t.Errorf("one byte more: %v", err)
	}
	if got := wide.Capacity(1 << 40); got != MaxBytes/MaxShards {
		t.Errorf("the widest code's capacity is %d", got)
	}
	for _, tc := range []struct{ length, size int }{{1, 64}, {192, 64}, {193, 128}, {MaxLength, 5592448}} {
		if size, err := c.ShardBytes(tc.length); err != nil || size != tc.size {
			t.Errorf("%d bytes: shards of %d, %v; want %d", tc.length, size, err, tc.size)
		}
	}
	for _, tc := range []struct{ room, capacity int }{{-5, 0}, {0, 0}, {96 + 63, 0}, {96 + 64, 192}, {1200, 3 * 1088}, {1 << 40, MaxLength}} {
		if got := c.Capacity(tc.room); got != tc.capacity {
			t.Errorf("capacity in %d bytes is %d, want %d", tc.room, got, tc.capacity)
		}
	}
}

// TestAnyKRebuild: any k shards rebuild the body and the very set; k-1 do not.
func TestAnyKRebuild(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(2, 40), rapid.IntRange(2, 300)).Draw(t, "n")
		k := rapid.IntRange(1, n-1).Draw(t, "k")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c, err := New(k, n)
		if err != nil {
			t.Fatal(err)
		}
		body := random(rng, rapid.IntRange(1, 200*k).Draw(t, "length"))
		s, err := c.Encode(body)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.Body(), body) || s.Length() != len(body) {
			t.Fatal("the set has another body")
		}
		a, err := c.NewAssembly(s.Commitment(), len(body))
		if err != nil {
			t.Fatal(err)
		}
		order := rng.Perm(n)
		more := rapid.IntRange(0, n-k).Draw(t, "more than k")
		for at, i := range order[:k+more] {
			if at < k && a.Ready() {
				t.Fatal("ready too early")
			}
			if at < k {
				if _, err := a.Rebuild(); !errors.Is(err, ErrTooFew) {
					t.Fatalf("%d of %d: %v", at, k, err)
				}
			}
			if err := a.Add(i, s.Shard(i), s.Path(i)); err != nil {
				t.Fatal(err)
			}
			if err := a.Add(i, s.Shard(i), s.Path(i)); !errors.Is(err, ErrDuplicate) {
				t.Fatalf("same shard again: %v", err)
			}
		}
		again, err := a.Rebuild()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Body(), body) || again.Commitment() != s.Commitment() {
			t.Fatal("rebuilt another body")
		}
		for i := range n {
			if !bytes.Equal(again.Shard(i), s.Shard(i)) || c.Verify(s.Commitment(), len(body), i, again.Shard(i), again.Path(i)) != nil {
				t.Fatalf("rebuilt another shard %d", i)
			}
		}
		if last, err := a.Rebuild(); err != nil || last != again {
			t.Fatal("the verdict changed")
		}
	})
}

// TestWrongShards: what is not the shard at its place under the commitment is refused by name.
func TestWrongShards(t *testing.T) {
	c := mustCode(t, 4, 11)
	body := counting(1000)
	s := mustEncode(t, c, body)
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 4; return b }
	path := s.Path(3)
	badPath := append([][32]byte{}, path...)
	badPath[2][9] ^= 1
	for _, tc := range []struct {
		name   string
		root   [32]byte
		length int
		i      int
		shard  []byte
		path   [][32]byte
		want   error
	}{
		{"the shard", s.Commitment(), 1000, 3, s.Shard(3), path, nil},
		{"a changed shard", s.Commitment(), 1000, 3, flip(s.Shard(3), 255), path, ErrPath},
		{"another index", s.Commitment(), 1000, 4, s.Shard(3), path, ErrPath},
		{"another commitment", sha256.Sum256(body), 1000, 3, s.Shard(3), path, ErrPath},
		{"another length of the same size", s.Commitment(), 1001, 3, s.Shard(3), path, ErrPath},
		{"another length", s.Commitment(), 2000, 3, s.Shard(3), path, ErrSize},
		{"no length", s.Commitment(), 0, 3, s.Shard(3), path, ErrLength},
		{"a changed path", s.Commitment(), 1000, 3, s.Shard(3), badPath, ErrPath},
		{"a short path", s.Commitment(), 1000, 3, s.Shard(3), path[:3], ErrPath},
		{"a long path", s.Commitment(), 1000, 3, s.Shard(3), append(badPath, badPath...), ErrPath},
		{"a short shard", s.Commitment(), 1000, 3, s.Shard(3)[:192], path, ErrSize},
		{"no shard", s.Commitment(), 1000, 3, nil, nil, ErrSize},
		{"index below", s.Commitment(), 1000, -1, s.Shard(3), path, ErrIndex},
		{"index above", s.Commitment(), 1000, 11, s.Shard(3), path, ErrIndex},
		{"padding's index", s.Commitment(), 1000, 15, s.Shard(3), path, ErrIndex},
	} {
		if err := c.Verify(tc.root, tc.length, tc.i, tc.shard, tc.path); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if tc.length == 1000 {
			a, err := c.NewAssembly(tc.root, tc.length)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Add(tc.i, tc.shard, tc.path); !errors.Is(err, tc.want) || a.Has(tc.i) != (tc.want == nil) || (a.buf != nil) != (tc.want == nil) {
				t.Errorf("%s: add: %v, want %v", tc.name, err, tc.want)
			}
		}
	}
	if other := mustCode(t, 4, 12); !errors.Is(other.Verify(s.Commitment(), 1000, 3, s.Shard(3), path), ErrPath) {
		t.Error("a shard of another code passes")
	}
}

// TestMalformedForEveryone: a commitment to shards that are not one body's is refused by whoever has k of them,
// whichever they are.
func TestMalformedForEveryone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 24).Draw(t, "n")
		k := rapid.IntRange(1, n-1).Draw(t, "k")
		c, err := New(k, n)
		if err != nil {
			t.Fatal(err)
		}
		length := rapid.IntRange(1, 150*k).Draw(t, "length")
		honest, err := c.Encode(counting(length))
		if err != nil {
			t.Fatal(err)
		}
		size := len(honest.Shard(0))
		buf := bytes.Clone(honest.buf)
		shards := c.cut(buf, size)
		what := rapid.SampledFrom([]string{"a bit", "padding", "a wrong decoder"}).Draw(t, "what")
		switch what {
		case "padding": // a codeword, but of a longer body
			if length == k*size {
				t.Skip("no padding")
			}
			buf[rapid.IntRange(length, k*size-1).Draw(t, "at")] = 1
			if err := c.Parity(shards); err != nil {
				t.Fatal(err)
			}
		case "a bit":
			buf[rapid.IntRange(0, len(buf)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "a wrong decoder": // what a decoder that takes more than k shards makes of one wrong among them
			if n-k < 2 {
				t.Skip("only one shard to spare")
			}
			shards[n-1][0] ^= 1
			missing := append([][]byte{}, shards...)
			missing[0] = missing[0][:0]
			if err := c.Recover(missing); err != nil {
				t.Fatal(err)
			}
		}
		bad := c.commit(buf, shards, length)
		if bad.Commitment() == honest.Commitment() {
			t.Fatal("nothing is wrong with it")
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 6 {
			a, err := c.NewAssembly(bad.Commitment(), length)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range rng.Perm(n)[:k+rng.IntN(n-k+1)] {
				if err := a.Add(i, bad.Shard(i), bad.Path(i)); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if _, err := a.Rebuild(); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s wrong: %v", what, err)
				}
			}
		}
	})
}

// TestPatternsDoNotMix rebuilds with loss patterns that differ in parity shards alone, one after the other. With the
// library's cache of patterns the second comes out wrong.
func TestPatternsDoNotMix(t *testing.T) {
	c := mustCode(t, 8, 16)
	s := mustEncode(t, c, counting(512))
	for _, lost := range [][]int{{0, 1, 8}, {0, 1, 9}, {0, 1}, {0, 1, 8, 9}} {
		shards := append([][]byte{}, s.shards...)
		for _, i := range lost {
			shards[i] = nil
		}
		if err := c.Recover(shards); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			if !bytes.Equal(shards[i], s.Shard(i)) {
				t.Fatalf("lost %v: shard %d is wrong", lost, i)
			}
		}
	}
}

// TestBareCodeRefuses: wrong numbers and sizes of shards are errors, not panics.
func TestBareCodeRefuses(t *testing.T) {
	for _, c := range []*Code{mustCode(t, 3, 7), mustCode(t, 134, 400)} {
		shards := func(n, size int) [][]byte {
			s := make([][]byte, n)
			for i := range s {
				s[i] = make([]byte, size)
			}
			return s
		}
		uneven := shards(c.N(), 64)
		uneven[1] = make([]byte, 128)
		for name, s := range map[string][][]byte{
			"none": nil, "one less": shards(c.N()-1, 64), "one more": shards(c.N()+1, 64), "empty": shards(c.N(), 0),
			"uneven": uneven, "not a multiple": shards(c.N(), 96),
		} {
			if err := c.Parity(s); !errors.Is(err, ErrSize) {
				t.Errorf("%d of %d: parity of %s: %v", c.K(), c.N(), name, err)
			}
			if len(s) > 0 && len(s[0]) > 0 {
				s[0] = nil
			}
			if err := c.Recover(s); !errors.Is(err, ErrSize) {
				t.Errorf("%d of %d: recover of %s: %v", c.K(), c.N(), name, err)
			}
		}
		few := shards(c.N(), 64)
		for i := range c.N() - c.K() + 1 {
			few[i] = nil
		}
		if err := c.Recover(few); !errors.Is(err, ErrSize) {
			t.Errorf("%d of %d: too few: %v", c.K(), c.N(), err)
		}
	}
}

// FuzzAssembly gives an assembly arbitrary shards, and real ones between them.
func FuzzAssembly(f *testing.F) {
	c := mustCode(f, 3, 7)
	s := mustEncode(f, c, counting(500))
	root := s.Commitment()
	var flat []byte
	for _, p := range s.Path(2) {
		flat = append(flat, p[:]...)
	}
	f.Add(root[:], 500, 2, s.Shard(2), flat, byte(0b1010100))
	f.Add(root[:], 1<<40, -3, []byte{}, []byte{1}, byte(0xFF))
	f.Fuzz(func(t *testing.T, rootBytes []byte, length, i int, shard, flat []byte, real byte) {
		var root [32]byte
		copy(root[:], rootBytes)
		a, err := c.NewAssembly(root, length)
		if err != nil {
			if length >= 1 && length <= MaxLength {
				t.Fatal(err)
			}
			return
		}
		path := make([][32]byte, len(flat)/32)
		for j := range path {
			path[j] = [32]byte(flat[32*j:])
		}
		err = a.Add(i, shard, path)
		if (err == nil) != a.Has(i) {
			t.Fatalf("shard %d: %v, but has it: %v", i, err, a.Has(i))
		}
		if err == nil && root == s.Commitment() && !bytes.Equal(shard, s.Shard(i)) {
			t.Fatal("a wrong shard passes")
		}
		for j := range 7 {
			if real>>j&1 == 1 {
				_ = a.Add(j, s.Shard(j), s.Path(j))
			}
		}
		set, err := a.Rebuild()
		if err == nil && (set.Commitment() != root || len(set.Body()) != length) {
			t.Fatal("rebuilt something else")
		}
		if err == nil && root == s.Commitment() && !bytes.Equal(set.Body(), s.Body()) {
			t.Fatal("rebuilt another body")
		}
	})
}
