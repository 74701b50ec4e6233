package keysum

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	bls12381 "github.com/consensys/gnark-crypto/ecc/bls12-381"
	"golang.org/x/sys/unix"

	"tutti/accel/bls/internal/curve"
)

// chain are n multiples of the generator, from first on, in affine form.
func chain(first uint64, n int) []curve.G1 {
	g, _ := curve.Generator()
	jac := make([]curve.G1Jac, n)
	var at curve.G1Jac
	for bit := 63; bit >= 0; bit-- {
		at.DoubleAssign()
		if first>>bit&1 == 1 {
			at.AddMixed(&g)
		}
	}
	for i := range jac {
		jac[i] = at
		at.AddMixed(&g)
	}
	return bls12381.BatchJacobianToAffineG1(jac)
}

// reference adds one by one.
func reference(ps []curve.G1) curve.G1 {
	var sum curve.G1Jac
	for i := range ps {
		sum.AddMixed(&ps[i])
	}
	return affine(sum)
}

func affine(p curve.G1Jac) (a curve.G1) { a.FromJacobian(&p); return a }

// sum packs points and adds the rows up.
func sum(a Adder, ps []curve.G1) curve.G1 {
	rows := make([]Row, len(ps))
	for i := range ps {
		rows[i] = a.Pack(&ps[i])
	}
	return affine(a.Sum(len(rows), func(i int) *Row { return &rows[i] }))
}

// adders are all of this machine, over every engine of this build.
func adders() (all []Adder) {
	for _, e := range curve.Engines() {
		all = append(all, Adders(e)...)
	}
	return all
}

func TestPack(t *testing.T) {
	g, negative := curve.Generator()
	ps := append(chain(1, 20), g, negative)
	for _, a := range adders() {
		for i := range ps {
			r := a.Pack(&ps[i])
			if a.Unpack(&r) != ps[i] {
				t.Errorf("%s: point %d comes back changed", a.Name(), i)
			}
		}
	}
}

// TestSum has sums of all lengths around the sizes of lanes, groups and rounds.
func TestSum(t *testing.T) {
	ps := chain(1e15, 9000)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(ps), func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
	for _, n := range []int{0, 1, 7, 8, 9, 95, 96, 97, 103, 104, 128, 1000, 1023, 1024, 1025, 1032, 2047, 2048, 2056, 4095, 5000, 9000} {
		want := reference(ps[:n])
		for _, a := range adders() {
			if sum(a, ps[:n]) != want {
				t.Errorf("%s: wrong sum of %d", a.Name(), n)
			}
		}
	}
}

// TestRelated has points that the chord formula can't add: equal, opposite, and such that running sums meet.
func TestRelated(t *testing.T) {
	g, negative := curve.Generator()
	ordered := chain(1, 4096)
	same := make([]curve.G1, 3000)
	for i := range same {
		same[i] = g
	}
	cancel := make([]curve.G1, 2048)
	for i := range cancel {
		cancel[i] = g
		if i >= 1024 {
			cancel[i] = negative
		}
	}
	pairs := append(ordered[:1500:1500], ordered[:1500]...)
	last := append(chain(1e12, 3000), g, negative)
	for name, ps := range map[string][]curve.G1{
		"multiples in order": ordered, "one point again and again": same, "opposite halves": cancel,
		"twice the same": pairs, "opposite at the end": last, "to infinity": append(cancel[:1024:1024], cancel[1024:]...),
	} {
		want := reference(ps)
		for _, a := range adders() {
			if sum(a, ps) != want {
				t.Errorf("%s: wrong sum of %s", a.Name(), name)
			}
		}
	}
}

// FuzzSum builds a list of points with structure from the input: runs of multiples, repeats, opposites.
func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add(binary.LittleEndian.AppendUint64(nil, 1<<60))
	f.Fuzz(func(t *testing.T, b []byte) {
		var seed [32]byte
		copy(seed[:], b)
		r := rand.New(rand.NewChaCha8(seed))
		n := r.IntN(3000)
		ps := chain(r.Uint64N(1<<62)+1, n)
		r.Shuffle(n, func(i, j int) { ps[i], ps[j] = ps[j], ps[i] })
		for i := range ps {
			if r.IntN(20) != 0 { // about 5 % edge cases, if any
				continue
			}
			if len(b) > 0 && b[0]&1 == 0 {
				continue
			}
			switch j := r.IntN(n); r.IntN(3) {
			case 0:
				ps[i] = ps[j]
			case 1:
				ps[i].Neg(&ps[j])
			case 2:
				ps[i] = chain(uint64(j)+1, 1)[0]
			}
		}
		want := reference(ps)
		for _, a := range adders() {
			if sum(a, ps) != want {
				t.Errorf("%s: wrong sum of %d points", a.Name(), n)
			}
		}
	})
}

func cpuNs() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}

func BenchmarkSum(b *testing.B) {
	const directory = 1 << 19
	ps := chain(1e15, directory)
	for _, a := range Adders(curve.Engines()[0]) {
		rows := make([]Row, directory)
		for i := range ps {
			rows[i] = a.Pack(&ps[i])
		}
		for _, n := range []int{64, 128, 512, 4096, 16384, 65536} {
			ids := rand.New(rand.NewPCG(1, 2)).Perm(directory)[:n]
			b.Run(fmt.Sprintf("%d/%s", n, a.Name()), func(b *testing.B) {
				runtime.LockOSThread()
				start := cpuNs()
				for b.Loop() {
					a.Sum(n, func(i int) *Row { return &rows[ids[i]] })
				}
				b.ReportMetric(float64(cpuNs()-start)/float64(b.N)/float64(n), "cpu-ns/item")
			})
		}
	}
}
