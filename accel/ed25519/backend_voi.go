package ed25519

import (
	"crypto/rand"
	"crypto/sha512"
	"sync"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tutti/accel/ed25519/internal/keycache"
)

// zip215 is the acceptance rule in curve25519-voi's words.
var zip215 = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

// voiSingle is curve25519-voi, one equation per signature.
type voiSingle struct{}

func (voiSingle) Name() string { return "voi single" }

func (voiSingle) VerifyMany(items []Item, ok []bool) {
	for i := range items {
		it := &items[i]
		ok[i] = voi.VerifyWithOptions(it.Key[:], it.Message, it.Signature[:], zip215)
	}
}

// voiBatch checks one random linear combination of the equations of many signatures, with curve25519-voi's arithmetic
// (AVX2 where there is):
//
//	[8](sum z S B - sum z R - sum z k A) = 0, z random of 128 bits each.
//
// What does not decode is refused before and spoils nothing for the others. If the combination fails, parts of the
// batch are checked, of 32 signatures, of these parts of 8, of these each signature; what is found out about the share
// of bad ones on the way decides which sizes are worth it for what is left. A check costs, per signature,
// 5 microseconds in a batch of 512, 7.5 in one of 32, 10 in one of 8 and 20 alone, on top of about 7 for decoding and
// hashing, so a batch of 512 with bad signatures costs between 1.9 times (one) and 3 times (one in ten) as much as a
// good one; rows ed25519/one-bad, 1%-bad and 10%-bad of the benchmarks.
//
// A batch says nothing about the next: it may come from someone else, who must not pay for it.
type voiBatch struct {
	scratch *sync.Pool // of *voiScratch; an entry is owned by one VerifyMany at a time
	memory  *keycache.Cache[*curve.EdwardsPoint]
}

func newVoiBatch() voiBatch {
	return voiBatch{scratch: &sync.Pool{New: func() any { return new(voiScratch) }}}
}

const (
	batchLeast = 3    // below, single checks are as fast
	batchMost  = 1024 // bounds the scratch to about 1 MiB; the gain from longer batches is small
)

func (voiBatch) Name() string { return "voi batch" }

// remembering keeps the keys decoded, 0.2 KiB each: decoding them is a fifth of the work.
func (b voiBatch) remembering(n int) Backend {
	b.memory = keycache.New[*curve.EdwardsPoint](n, 1)
	return b
}

// knows tells of a key whether it is in the memory.
func (b voiBatch) knows(key *[32]byte) bool {
	if b.memory == nil {
		return false
	}
	_, known := b.memory.Get(key)
	return known
}

func (b voiBatch) VerifyMany(items []Item, ok []bool) {
	if len(items) < batchLeast {
		voiSingle{}.VerifyMany(items, ok)
		return
	}
	s := b.scratch.Get().(*voiScratch)
	defer b.scratch.Put(s)
	for len(items) > 0 {
		n := min(len(items), batchMost)
		clear(ok[:n])
		s.equations = s.store[:0]
		for i := range items[:n] {
			b.decode(s, &items[i], i)
		}
		s.judge(ok)
		if b.memory != nil {
			b.remember(s, items, ok)
		}
		items, ok = items[n:], ok[n:]
	}
}

// decode appends the item's equation, if all of it decodes.
func (b voiBatch) decode(s *voiScratch, it *Item, at int) {
	if !scalar.ScMinimalVartime(it.Signature[32:]) {
		return
	}
	s.equations = s.equations[:len(s.equations)+1]
	e := &s.equations[len(s.equations)-1]
	e.at, e.known = at, false
	if b.memory != nil {
		var minusA *curve.EdwardsPoint
		if minusA, e.known = b.memory.Get(&it.Key); e.known {
			e.minusA = *minusA
		}
	}
	h := sha512.New()
	h.Write(it.Signature[:32])
	h.Write(it.Key[:])
	h.Write(it.Message)
	var digest [sha512.Size]byte
	_, errK := e.k.SetBytesModOrderWide(h.Sum(digest[:0]))
	_, errS := e.s.SetBytesModOrder(it.Signature[32:])
	if errK != nil || errS != nil || !e.known && !decodeNegative(&e.minusA, it.Key[:]) || !decodeNegative(&e.minusR, it.Signature[:32]) {
		s.equations = s.equations[:len(s.equations)-1]
	}
}

// decodeNegative takes y of p or more and x = 0 with its sign set, as the rule says.
func decodeNegative(p *curve.EdwardsPoint, encoded []byte) bool {
	var y curve.CompressedEdwardsY
	if _, err := y.SetBytes(encoded); err != nil {
		return false
	}
	if _, err := p.SetCompressedY(&y); err != nil {
		return false
	}
	p.Neg(p)
	return true
}

// remember keeps keys that had a valid signature twice.
func (b voiBatch) remember(s *voiScratch, items []Item, ok []bool) {
	for i := range s.equations {
		e := &s.equations[i]
		if e.known || !ok[e.at] {
			continue
		}
		if due := b.memory.Seen(&items[e.at].Key); due != nil {
			minusA := e.minusA
			b.memory.Put(&items[e.at].Key, &minusA)
		}
	}
}

// equation is S B - k A - R, which must be of small order.
type equation struct {
	minusA, minusR curve.EdwardsPoint
	k, s           scalar.Scalar
	z, zk, zs      scalar.Scalar // the random factor and its products
	at             int           // of the item
	known          bool          // the key was remembered
}

// voiScratch is the memory of one VerifyMany.
type voiScratch struct {
	store     [batchMost]equation
	equations []equation // the first of store
	points    []*curve.EdwardsPoint
	scalars   []*scalar.Scalar
	random    [16 * batchMost]byte
}

// sizes are those of the parts that are checked together, and at which share of bad signatures the next size becomes
// cheaper, by the costs above.
var sizes = [...]struct {
	n     int
	share float64
}{{32, 0.01}, {8, 0.08}, {1, 1}}

// judge sets the verdicts of all equations; those of other items stay false.
func (s *voiScratch) judge(ok []bool) {
	s.randomize()
	j := judgement{s: s, ok: ok, bad: 0.1, seen: 16} // a weak guess, so that what is found decides soon
	if !j.accepted(s.equations) {
		j.parts(s.equations, 0)
	}
}

// judgement is what is known of a batch while its parts are judged.
type judgement struct {
	s         *voiScratch
	ok        []bool
	bad, seen float64
}

func (j *judgement) accepted(part []equation) bool {
	if !j.s.holds(part) {
		return false
	}
	for i := range part {
		j.ok[part[i].at] = true
	}
	j.seen += float64(len(part))
	return true
}

// parts judges equations of which at least one does not hold, in parts of the size or of a smaller one.
func (j *judgement) parts(rest []equation, size int) {
	before := j.bad
	for len(rest) > 0 {
		for size < len(sizes)-1 && j.bad > sizes[size].share*j.seen {
			size++
		}
		n := min(sizes[size].n, len(rest))
		// If none of the others was bad, one of the last part is.
		bad := n == len(rest) && j.bad == before
		switch {
		case !bad && j.accepted(rest[:n]):
		case n == 1:
			j.bad++
			j.seen++
		default:
			j.parts(rest[:n], min(size+1, len(sizes)-1))
		}
		rest = rest[n:]
	}
}

// randomize chooses z of each equation. The items are given before that and do not change, so the same z serve for
// the parts of a batch as well.
func (s *voiScratch) randomize() {
	random := s.random[:16*len(s.equations)]
	rand.Read(random)
	for i := range s.equations {
		e := &s.equations[i]
		var wide [scalar.ScalarSize]byte
		copy(wide[:], random[16*i:16*i+16])
		if _, err := e.z.SetBytesModOrder(wide[:]); err != nil {
			panic("ed25519: a scalar of another size: " + err.Error())
		}
		e.zk.Mul(&e.z, &e.k)
		e.zs.Mul(&e.z, &e.s)
	}
}

// holds checks the equations together, or the one alone.
func (s *voiScratch) holds(part []equation) bool {
	var sum curve.EdwardsPoint
	switch len(part) {
	case 0:
		return true
	case 1:
		e := &part[0]
		r := e.minusR
		return sum.TripleScalarMulBasepointVartime(&e.k, &e.minusA, &e.s, r.Neg(&r)).IsSmallOrder()
	}
	s.points, s.scalars = s.points[:0], s.scalars[:0]
	var base scalar.Scalar
	for i := range part {
		e := &part[i]
		s.points = append(s.points, &e.minusA, &e.minusR)
		s.scalars = append(s.scalars, &e.zk, &e.z)
		base.Add(&base, &e.zs)
	}
	s.points = append(s.points, curve.ED25519_BASEPOINT_POINT)
	s.scalars = append(s.scalars, &base)
	return sum.MultiscalarMulVartime(s.scalars, s.points).IsSmallOrder()
}
