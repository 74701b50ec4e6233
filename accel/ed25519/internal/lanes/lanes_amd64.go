//go:build amd64 && !purego

package lanes

import (
	"math/bits"
	"runtime"
	"slices"
	"unsafe"

	"github.com/klauspost/cpuid/v2"

	"tutti/accel/internal/cpu"
)

// Needs are the CPU features that the kernels use.
func Needs() []cpuid.FeatureID {
	return []cpuid.FeatureID{cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512BW, cpuid.AVX512VL, cpuid.AVX512IFMA}
}

// Supported reports whether this machine has what the kernels need.
func Supported() bool { return cpu.Has(Needs()...) }

// Item is one signature to verify, R || S.
type Item struct {
	Key       [32]byte
	Message   []byte
	Signature [64]byte
}

const (
	lanes = 8
	// Chunk is how many signatures Verify takes at most: enough to sort messages by length, to fill the lanes and
	// to keep what is known about each in the second-level cache.
	Chunk = 64
)

// Verifier is scratch memory for one goroutine at a time, about 90 KiB.
type Verifier struct {
	g      *group
	temp   *[12]element
	hasher *hasher
	// a and r are keys and R of each batch of lanes. A chunk makes one more batch than Chunk/lanes at most, because
	// known keys and others are not mixed. The last is where a decoding without a partner puts the other point.
	a, r   *[Chunk/lanes + 2]coded
	digest [8]vector
	k, s   [Chunk]scalar
	good   [Chunk]bool // S is below L
	tables [2]*[lanes]projectiveTable
	h      *halving
	terms  *terms
}

// New makes a Verifier, on a machine that is Supported.
func New() *Verifier {
	return &Verifier{
		g: aligned[group](), temp: aligned[[12]element](), hasher: &hasher{},
		a: aligned[[Chunk/lanes + 2]coded](), r: aligned[[Chunk/lanes + 2]coded](),
		tables: [2]*[lanes]projectiveTable{newProjectiveTables(), newProjectiveTables()},
		h:      aligned[halving](), terms: &terms{},
	}
}

// aligned allocates a T, which has no pointers, on a cache line boundary.
func aligned[T any]() *T {
	var t T
	b := make([]byte, unsafe.Sizeof(t)+63)
	at := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % 64
	return (*T)(unsafe.Pointer(&b[at]))
}

// Verify sets ok[i] to the verdict on items[i]. There are at most Chunk items, as many keys, and room in ok. keys[i] is
// the item's key expanded, or nil.
func (v *Verifier) Verify(items []*Item, keys []*Key, ok []bool) {
	if len(items) == 0 {
		return
	}
	v.scalars(items)
	var order [Chunk]int
	known := partition(order[:len(items)], keys)
	var onCurve [Chunk/lanes + 1]uint64
	batches := split(order[:known], order[known:len(items)])
	batches[0].prefetch(keys)
	v.decode(items, batches, onCurve[:])
	for b, batch := range batches {
		if b+1 < len(batches) {
			batches[b+1].prefetch(keys)
		}
		verdicts := onCurve[b]
		if batch.known {
			verdicts &= v.sumKnown(b, batch.items, keys)
		} else {
			verdicts &= v.sumUnknown(b, batch.items)
		}
		for lane, i := range batch.items {
			ok[i] = v.good[i] && verdicts>>lane&1 == 1
		}
	}
	runtime.KeepAlive(keys)
}

// scalars finds k = SHA-512(R || key || message) and S of each item.
func (v *Verifier) scalars(items []*Item) {
	var order [Chunk]uint64 // number of blocks above index
	sorted := order[:len(items)]
	for i, it := range items {
		sorted[i] = uint64(blocksOf(len(it.Message)))<<8 | uint64(i)
	}
	slices.Sort(sorted)
	for len(sorted) > 0 {
		n := min(lanes, len(sorted))
		var batch [lanes]*Item
		for l, o := range sorted[:n] {
			batch[l] = items[o&0xff]
		}
		v.hasher.sum(&v.digest, batch[:n])
		for l, o := range sorted[:n] {
			var x [8]uint64
			for w := range x {
				x[w] = bits.ReverseBytes64(v.digest[w][l])
			}
			v.k[o&0xff] = reduce(&x)
		}
		sorted = sorted[n:]
	}
	for i, it := range items {
		v.s[i] = scalarOf(it.Signature[32:])
		v.good[i] = v.s[i].reduced()
	}
}

// partition lists the indices of the items with an expanded key first and says how many these are. Those that would
// only make one batch more join the others: fewer than a batch, and the others' last batch has room for them.
func partition(order []int, keys []*Key) int {
	known, rest := 0, len(order)
	for i := range order {
		if keys[i] != nil {
			order[known] = i
			known++
		} else {
			rest--
			order[rest] = i
		}
	}
	others := len(order) - known
	if room := (lanes - others%lanes) % lanes; known%lanes <= room {
		known -= known % lanes
	}
	return known
}

// batch is up to eight signatures that are verified together, by their indices.
type batch struct {
	items []int
	known bool // their keys are expanded
}

// prefetch brings its expanded keys nearer: those of many senders do not fit into the second-level cache.
func (b batch) prefetch(keys []*Key) {
	if !b.known {
		return
	}
	for _, i := range b.items {
		t := keys[i].tables
		prefetch(unsafe.Pointer(t), uint64(unsafe.Sizeof(*t)/64))
	}
}

// split makes batches of both sorts.
func split(known, others []int) (batches []batch) {
	batches = make([]batch, 0, Chunk/lanes+1)
	for c := range slices.Chunk(known, lanes) {
		batches = append(batches, batch{c, true})
	}
	for c := range slices.Chunk(others, lanes) {
		batches = append(batches, batch{c, false})
	}
	return batches
}

// decode decodes R of all items and the keys that are not known, two batches of lanes at a time, and sets bit l of
// onCurve[b] if all that batch b's lane l needs is on the curve.
func (v *Verifier) decode(items []*Item, batches []batch, onCurve []uint64) {
	type job struct {
		point *coded
		at    int
	}
	spare := job{&v.r[len(v.r)-1], -1}
	waiting := spare
	do := func(first, second job) {
		bits := decode(v.temp, first.point, second.point)
		onCurve[first.at] &= bits
		if second.at >= 0 {
			onCurve[second.at] &= bits >> lanes
		}
	}
	add := func(j job) {
		if waiting.at < 0 {
			waiting = j
			return
		}
		do(waiting, j)
		waiting = spare
	}
	for b, batch := range batches {
		onCurve[b] = 1<<len(batch.items) - 1
		for l, i := range batch.items {
			v.r[b].set(l, items[i].Signature[:32])
			if !batch.known {
				v.a[b].set(l, items[i].Key[:])
			}
		}
		add(job{&v.r[b], b})
		if !batch.known {
			add(job{&v.a[b], b})
		}
	}
	if waiting.at >= 0 {
		do(waiting, spare)
	}
}

func (c *coded) set(lane int, encoding []byte) {
	for w, word := range scalarOf(encoding) {
		c.words[w][lane] = word
	}
}
