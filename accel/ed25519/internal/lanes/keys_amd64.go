//go:build amd64 && !purego

package lanes

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"unsafe"
)

// keyChunk is how many keys share one inversion.
const keyChunk = 256

// Keys makes public keys and other multiples of B. It is scratch memory for one goroutine at a time, about 200 KiB.
type Keys struct {
	g      *group
	state  *[8]vector
	blocks [lanes][blockBytes]byte
	digits [4]vector
	rows   *[keyChunk / lanes]row // X, Y, 0, Z of each batch of lanes
}

// NewKeys makes Keys, on a machine that is Supported.
func NewKeys() *Keys {
	return &Keys{g: aligned[group](), state: aligned[[8]vector](), rows: aligned[[keyChunk / lanes]row]()}
}

// Public sets keys[i] to the public key of seeds[i] (RFC 8032, section 5.1.5). keys is as long as seeds. It takes as
// long, and reads the same addresses, as the seeds have it: for seeds that are no secrets.
func (k *Keys) Public(seeds, keys [][32]byte) {
	k.all(seeds, keys, k.scalars)
}

// Multiples sets points[i] to the encoding of scalars[i] B. Scalars are little-endian and below L. points is as long as scalars.
// As to time and addresses the same holds as for Public.
func (k *Keys) Multiples(scalars, points [][32]byte) {
	k.all(scalars, points, func(scalars [][32]byte) {
		for l := range lanes {
			s := scalarOf(scalars[min(l, len(scalars)-1)][:])
			k.set(l, &s)
		}
	})
}

// all works in chunks. digits sets those of the lanes of up to eight of the numbers.
func (k *Keys) all(numbers, points [][32]byte, digits func([][32]byte)) {
	for len(numbers) > 0 {
		n := min(len(numbers), keyChunk)
		k.chunk(numbers[:n], points[:n], digits)
		numbers, points = numbers[n:], points[n:]
	}
}

func (k *Keys) chunk(numbers, points [][32]byte, digits func([][32]byte)) {
	batches := (len(numbers) + lanes - 1) / lanes
	for b := range batches {
		digits(numbers[b*lanes : min(len(numbers), (b+1)*lanes)])
		k.multiply()
		k.rows[b] = row{plus: k.g.sum.a, minus: k.g.sum.b, z: k.g.sum.z}
	}
	normalise(k.rows[:batches])
	for i := range points {
		r := &k.rows[i/lanes]
		points[i] = r.minus.encoded(i % lanes)
		x := r.plus.encoded(i % lanes)
		points[i][31] |= x[0] << 7
	}
}

// set sets the digits of a lane's scalar, which is below L.
func (k *Keys) set(lane int, s *scalar) {
	for w, word := range s.plus(signed8) {
		k.digits[w][lane] = word
	}
}

// scalars sets the digits of the lanes' secret scalars modulo L, which B does not tell from the scalars themselves.
// Lanes without a seed get the first one's.
func (k *Keys) scalars(seeds [][32]byte) {
	var blocks [lanes]unsafe.Pointer
	for l := range lanes {
		b := &k.blocks[l]
		clear(b[:])
		if l < len(seeds) {
			copy(b[:], seeds[l][:])
		} else {
			copy(b[:], seeds[0][:])
		}
		b[32] = 0x80
		binary.BigEndian.PutUint64(b[blockBytes-8:], 8*32)
		blocks[l] = unsafe.Pointer(b)
		for i, word := range sha512Initial {
			k.state[i][l] = word
		}
	}
	sha512Block(k.state, &blocks, 1<<lanes-1)
	for l := range lanes {
		var x [8]uint64
		for w := range 4 {
			x[w] = bits.ReverseBytes64(k.state[w][l])
		}
		x[0] &^= 7
		x[3] = x[3]&(1<<62-1) | 1<<62
		s := reduce(&x)
		k.set(l, &s)
	}
}

// multiply sets the sum to the scalars' multiples of B, X, Y and Z: one row of a table for each of the 32 digits.
func (k *Keys) multiply() {
	t := baseDigits()
	k.g.sum = neutral
	for d := range len(t) - 1 {
		addBaseNext(k.g, unsafe.Pointer(&t[d]), &k.digits[d/8], uint64(d%8)*8)
		k.g.check()
	}
	addBaseLast(k.g, unsafe.Pointer(&t[31]), &k.digits[3], 56)
	k.g.check()
}

// baseDigits has the multiples 0 to 128 of 2^(8 i) B for i = 0 to 31, 516 KiB, so that no doublings are needed.
var baseDigits = sync.OnceValue(func() *[32][baseRows]affineRow {
	t := aligned[[32][baseRows]affineRow]()
	for i := range base() {
		t[8*i] = base()[i]
	}
	// Eight lanes make eight multiples of a point at a time, as 2^8 times the sum of 0 to 127 times and once the point
	// before: 128 is no digit.
	g, rows := aligned[group](), aligned[[baseRows / lanes]row]()
	for i := range t {
		if i%8 == 0 {
			continue
		}
		for j := range rows {
			var digits, once vector // and 128
			for l := range lanes {
				digits[l], once[l] = uint64(j*lanes+l)+128, 1+128
			}
			g.sum = neutral
			addBaseNext(g, unsafe.Pointer(&t[i-1]), &digits, 0)
			g.check()
			addBaseLast(g, unsafe.Pointer(&t[i-1]), &once, 0)
			g.check()
			double(g, 8)
			g.check()
			rows[j].set(&g.sum)
		}
		normalise(rows[:])
		t[i][0].neutral()
		for j := range rows {
			first := unsafe.Pointer(&t[i][1+j*lanes])
			storeAffine(&rows[j], first, uint64(unsafe.Sizeof(t[i][0])))
		}
	}
	return t
})

// encoded is a lane's number, reduced modulo p, as 32 bytes. Limbs are below 2^52.
func (e *element) encoded(lane int) (out [32]byte) {
	const mask = 1<<51 - 1
	var l [5]uint64
	for i := range l {
		l[i] = e[i][lane]
	}
	// The number is below 2 p + 2^52, so it is reduced in two steps: 2^255 = 19, then p = 0.
	carry := func() {
		for i := range 4 {
			l[i+1] += l[i] >> 51
			l[i] &= mask
		}
		top := l[4] >> 51
		l[4] &= mask
		l[0] += 19 * top
	}
	carry()
	carry()
	// Now all limbs are below 2^51. It is p or more exactly if 19 more reach 2^255.
	q := (l[0] + 19) >> 51
	for _, limb := range l[1:] {
		q = (limb + q) >> 51
	}
	l[0] += 19 * q
	for i := range 4 {
		l[i+1] += l[i] >> 51
		l[i] &= mask
	}
	l[4] &= mask
	le := binary.LittleEndian
	le.PutUint64(out[0:], l[0]|l[1]<<51)
	le.PutUint64(out[8:], l[1]>>13|l[2]<<38)
	le.PutUint64(out[16:], l[2]>>26|l[3]<<25)
	le.PutUint64(out[24:], l[3]>>39|l[4]<<12)
	return out
}
