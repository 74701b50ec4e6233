//go:build cgo

package bls

import (
	"crypto/rand"

	blst "github.com/supranational/blst/bindings/go"

	"tutti/accel/internal/rows"
)

// blstRows do by blst's binding what the rows of the same operation and variant do, each by the call that its
// documentation suggests, but the sum by the fastest that it has.
func blstRows() (all []rows.Row) {
	for _, n := range sumSizes {
		all = append(all, row("bls-key-sum/gathered", n, "raw-blst", func() (func(), error) { return blstSum(n) }))
	}
	return append(all,
		rows.Row{Name: "bls-certificate/all/400/raw-blst", Items: 1, Setup: blstCertificate},
		row("bls-votes/wire", committeeSize, "raw-blst-each", blstVotes),
		rows.Row{Name: "bls-verify/single/1/raw-blst", Items: 1, Setup: blstVerify},
		row("bls-many/distinct-messages", manyCount, "raw-blst", blstMany),
	)
}

func blstSum(n int) (func(), error) {
	keys, at := make(blst.P1Affines, 0, directorySize), new(blst.P1)
	step := blst.P1Generator().ToAffine()
	for len(keys) < directorySize {
		points := make([]*blst.P1, 1<<12)
		for i := range points {
			p := *at.AddAssign(step)
			points[i] = &p
		}
		keys = append(keys, blst.P1sToAffine(points)...)
	}
	work := batches(n)
	pointers := make([]*blst.P1Affine, n)
	return turns(len(work), func(i int) {
		for j, k := range work[i] {
			pointers[j] = &keys[k]
		}
		must(!blst.P1AffinesAdd(pointers).Equals(new(blst.P1)))
	}), nil
}

func blstKeys() (keys []*blst.P1Affine, err error) {
	c, err := theCommittee()
	for i := range c.keys {
		keys = append(keys, new(blst.P1Affine).Uncompress(c.keys[i][:]))
	}
	return keys, err
}

func blstCertificate() (func(), error) {
	keys, err := blstKeys()
	if err != nil {
		return nil, err
	}
	var sigs [manyMessages][96]byte
	for i := range sigs {
		if _, sigs[i], err = certificate(0, message(i)); err != nil {
			return nil, err
		}
	}
	return turns(len(sigs), func(i int) {
		sig := new(blst.P2Affine).Uncompress(sigs[i][:])
		must(sig != nil && sig.FastAggregateVerify(true, keys, message(i), dst))
	}), nil
}

func blstVotes() (func(), error) {
	keys, err := blstKeys()
	if err != nil {
		return nil, err
	}
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	wire := c.wire(0)
	return func() {
		for i := range wire {
			must(new(blst.P2Affine).Uncompress(wire[i][:]).Verify(true, keys[i], false, message(0), dst))
		}
	}, nil
}

func blstVerify() (func(), error) {
	keys, err := blstKeys()
	if err != nil {
		return nil, err
	}
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	var sigs [manyMessages][96]byte
	for i := range sigs {
		sigs[i] = c.secrets[i].Sign(message(i))
	}
	return turns(len(sigs), func(i int) {
		must(new(blst.P2Affine).Uncompress(sigs[i][:]).Verify(true, keys[i], false, message(i), dst))
	}), nil
}

func blstMany() (func(), error) {
	keys, err := blstKeys()
	if err != nil {
		return nil, err
	}
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	var sigs []*blst.P2Affine
	var msgs []blst.Message
	for i := range manyCount {
		b := c.secrets[i].Sign(message(i))
		sigs, msgs = append(sigs, new(blst.P2Affine).Uncompress(b[:])), append(msgs, message(i))
	}
	factor := func(s *blst.Scalar) {
		var b [32]byte
		_, _ = rand.Read(b[24:])
		s.FromBEndian(b[:])
	}
	return func() {
		must(new(blst.P2Affine).MultipleAggregateVerify(sigs, false, keys[:manyCount], false, msgs, dst, factor, 64))
	}, nil
}
