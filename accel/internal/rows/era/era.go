// Package era has the benchmark rows of package erasure.
//
// The size reads k-of-n x bytes of a shard; an item is one set, whatever its size. "parity" and "recover" are the bare
// code; "encode" and "receive" are what a leader and a validator do with a body, hashing and commitment included:
// "receive" checks k shards by their paths ("add" is that part alone), rebuilds, encodes again and compares.
// References are other codes of the same library, which give other parity and could only be had instead.
package era

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/klauspost/reedsolomon"

	"tutti/accel/erasure"
	"tutti/accel/internal/rows"
)

// shape is a code at a size.
type shape struct {
	variant string // what it stands for
	code    *erasure.Code
	length  int // of the body
}

// datagram is what a shard and its path may take of a 1,200-byte datagram, beside the 72 bytes of a header and a MAC.
const datagram = 1200 - 72

// Rows are the rows of package erasure.
func Rows() []rows.Row {
	var all []rows.Row
	shapes, err := shapes()
	if err != nil {
		return []rows.Row{{Name: "erasure/none/0/none", Items: 1, Setup: func() (func(), error) { return nil, err }}}
	}
	for _, s := range shapes {
		all = append(all, s.rows()...)
	}
	return all
}

func shapes() ([]shape, error) {
	half, err := erasure.New(32, 64)
	if err != nil {
		return nil, err
	}
	all := []shape{{"k+k", half, 32 * 16384}, {"k+k-shreds", half, half.Capacity(datagram)}}
	for _, members := range []int{4, 16, 64, 128, 400} {
		powers := make([]uint64, members)
		for i := range powers {
			powers[i] = 1
		}
		c, err := erasure.ForCommittee(powers)
		if err != nil {
			return nil, err
		}
		all = append(all,
			shape{fmt.Sprintf("committee-%d", members), c.Code, 512 << 10},
			shape{fmt.Sprintf("committee-%d-shreds", members), c.Code, c.Capacity(datagram)})
	}
	powers := make([]uint64, 400)
	for i := range powers {
		powers[i] = uint64(i + 1)
	}
	c, err := erasure.ForCommittee(powers)
	if err != nil {
		return nil, err
	}
	return append(all, shape{"uneven-committee-400-shreds", c.Code, c.Capacity(datagram)}), nil
}

func (s shape) rows() []rows.Row {
	name := func(operation, backend string) string {
		size, _ := s.code.ShardBytes(s.length) // lengths above are all in range
		return fmt.Sprintf("erasure-%s/%s/%d-of-%dx%d/%s", operation, s.variant, s.code.K(), s.code.N(), size, backend)
	}
	field := s.code.Field()
	all := []rows.Row{
		{Name: name("parity", field), Items: 1, Setup: func() (func(), error) { return s.parity(s.code.Parity) }},
		{Name: name("recover", field), Items: 1, Setup: func() (func(), error) { return s.recover(s.code.Parity, s.code.Recover) }},
	}
	for _, ref := range []struct {
		backend string
		option  reedsolomon.Option
	}{
		{"vandermonde-gf8", reedsolomon.WithLeopardGF(false)}, {"leopard-gf16", reedsolomon.WithLeopardGF16(true)},
	} {
		if s.code.N() > 256 {
			continue
		}
		other := func() (reedsolomon.Encoder, error) {
			return reedsolomon.New(s.code.K(), s.code.N()-s.code.K(), ref.option,
				reedsolomon.WithInversionCache(false), reedsolomon.WithMaxGoroutines(1))
		}
		all = append(all, rows.Row{Name: name("parity", ref.backend), Items: 1, Setup: func() (func(), error) {
			enc, err := other()
			if err != nil {
				return nil, err
			}
			return s.parity(enc.Encode)
		}}, rows.Row{Name: name("recover", ref.backend), Items: 1, Setup: func() (func(), error) {
			enc, err := other()
			if err != nil {
				return nil, err
			}
			return s.recover(enc.Encode, enc.ReconstructData)
		}})
	}
	return append(all,
		rows.Row{Name: name("encode", field), Items: 1, Setup: s.encode},
		rows.Row{Name: name("add", field), Items: 1, Setup: func() (func(), error) { return s.assemble(false) }},
		rows.Row{Name: name("receive", field), Items: 1, Setup: func() (func(), error) { return s.assemble(true) }})
}

// shards are n shards of which k are random.
func (s shape) shards() ([][]byte, error) {
	size, err := s.code.ShardBytes(s.length)
	if err != nil {
		return nil, err
	}
	shards := reedsolomon.AllocAligned(s.code.N(), size)
	for i := range shards[:s.code.K()] {
		copy(shards[i], body(size))
	}
	return shards, nil
}

func body(length int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(length)})
	b := make([]byte, length)
	_, _ = rng.Read(b) // never fails
	return b
}

func (s shape) parity(encode func([][]byte) error) (func(), error) {
	shards, err := s.shards()
	if err != nil {
		return nil, err
	}
	return func() { must(encode(shards)) }, encode(shards)
}

// order is the order in which shards arrive: any.
func (s shape) order() []int { return rand.New(rand.NewPCG(5, 6)).Perm(s.code.N()) }

// recover decodes from k shards, any of them, so about two thirds of the data are missing in a committee's code.
func (s shape) recover(encode, decode func([][]byte) error) (func(), error) {
	shards, err := s.shards()
	if err != nil {
		return nil, err
	}
	if err := encode(shards); err != nil {
		return nil, err
	}
	want := bytes.Join(shards[:s.code.K()], nil)
	view, order := make([][]byte, s.code.N()), s.order()
	run := func() {
		for i := range view {
			view[i] = shards[i][:0]
		}
		for _, i := range order[:s.code.K()] {
			view[i] = shards[i]
		}
		must(decode(view))
	}
	run()
	if !bytes.Equal(bytes.Join(shards[:s.code.K()], nil), want) {
		return nil, errors.New("decoded something else")
	}
	return run, nil
}

func (s shape) encode() (func(), error) {
	b := body(s.length)
	run := func() {
		_, err := s.code.Encode(b)
		must(err)
	}
	return run, nil
}

// assemble takes k shards and, if rebuild says so, does what comes after.
func (s shape) assemble(rebuild bool) (func(), error) {
	set, err := s.code.Encode(body(s.length))
	if err != nil {
		return nil, err
	}
	paths, order := make([][][32]byte, s.code.N()), s.order()[:s.code.K()]
	for _, i := range order {
		paths[i] = set.Path(i)
	}
	return func() {
		a, err := s.code.NewAssembly(set.Commitment(), s.length)
		must(err)
		for _, i := range order {
			must(a.Add(i, set.Shard(i), paths[i]))
		}
		if !rebuild {
			return
		}
		again, err := a.Rebuild()
		must(err)
		if again.Commitment() != set.Commitment() {
			panic("another commitment")
		}
	}, nil
}

// must is for what cannot fail once Setup has passed; a row that did would measure nothing.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
