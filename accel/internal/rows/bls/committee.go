package bls

import (
	"math/big"
	"sync"

	"tutti/accel/bls"
	"tutti/accel/internal/rows"
)

const committeeSize = 400

// committee is 400 keys with their secrets.
type committee struct {
	secrets []*bls.SecretKey
	keys    [][48]byte
	set     *bls.KeySet
}

var theCommittee = sync.OnceValues(func() (c committee, err error) {
	for i := range committeeSize {
		k, err := signer(secret(i))
		if err != nil {
			return c, err
		}
		c.secrets, c.keys = append(c.secrets, k), append(c.keys, k.Public())
	}
	c.set, err = bls.NewKeySet(c.keys)
	return c, err
})

// certificate is the aggregate on a message of the committee but for every missing-th member; 0 for all of them.
func certificate(missing int, msg []byte) (signers []byte, sig [96]byte, err error) {
	sum := new(big.Int)
	signers = make([]byte, committeeSize/8)
	for i := range committeeSize {
		if missing == 0 || i%missing != 0 {
			sum.Add(sum, secret(i))
			signers[i/8] |= 1 << (i % 8)
		}
	}
	k, err := signer(sum)
	if err != nil {
		return nil, sig, err
	}
	return signers, k.Sign(msg), nil
}

func committeeRows() []rows.Row {
	e := engine()
	return []rows.Row{
		{Name: "bls-certificate/all/400/" + e, Items: 1, Setup: certificates(0)},
		{Name: "bls-certificate/10-percent-missing/400/" + e, Items: 1, Setup: certificates(10)},
		{Name: "bls-certificate/third-missing/400/" + e, Items: 1, Setup: certificates(3)},
		row("bls-votes/decoded", committeeSize, e, votes(0)),
		row("bls-votes/decoded-1-bad", committeeSize, e, votes(committeeSize)),
		row("bls-votes/decoded-1-percent-bad", committeeSize, e, votes(100)),
		row("bls-votes/decoded-10-percent-bad", committeeSize, e, votes(10)),
		row("bls-votes/wire", committeeSize, e, wireVotes),
		{Name: "bls-verify/single/1/" + e, Items: 1, Setup: singles},
	}
}

func certificates(missing int) func() (func(), error) {
	return func() (func(), error) {
		c, err := theCommittee()
		if err != nil {
			return nil, err
		}
		var sigs [manyMessages][96]byte
		var signers []byte
		for i := range sigs {
			if signers, sigs[i], err = certificate(missing, message(i)); err != nil {
				return nil, err
			}
		}
		return turns(len(sigs), func(i int) { must(c.set.VerifyAggregate(signers, message(i), sigs[i])) }), nil
	}
}

// wire are the committee's votes on one message, those of every bad-th member on another message.
func (c *committee) wire(bad int) (sigs [][96]byte) {
	for i, k := range c.secrets {
		msg := message(0)
		if bad != 0 && i%bad == bad/2 {
			msg = message(1)
		}
		sigs = append(sigs, k.Sign(msg))
	}
	return sigs
}

func everybody() (signers []int) {
	for i := range committeeSize {
		signers = append(signers, i)
	}
	return signers
}

func votes(bad int) func() (func(), error) {
	return func() (func(), error) {
		c, err := theCommittee()
		if err != nil {
			return nil, err
		}
		var sigs []bls.Signature
		for _, b := range c.wire(bad) {
			s, err := bls.ParseSignature(b)
			if err != nil {
				return nil, err
			}
			sigs = append(sigs, s)
		}
		signers, ok := everybody(), make([]bool, committeeSize)
		return func() {
			c.set.VerifySameMessage(signers, message(0), sigs, ok)
			for i := range ok {
				must(ok[i] == (bad == 0 || i%bad != bad/2))
			}
		}, nil
	}
}

func wireVotes() (func(), error) {
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	signers, ok := everybody(), make([]bool, committeeSize)
	wire, sigs := c.wire(0), make([]bls.Signature, committeeSize)
	return func() {
		for i := range wire {
			var err error
			sigs[i], err = bls.ParseSignature(wire[i])
			must(err == nil)
		}
		c.set.VerifySameMessage(signers, message(0), sigs, ok)
		must(ok[0] && ok[committeeSize-1])
	}, nil
}

func singles() (func(), error) {
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	var sigs [manyMessages][96]byte
	for i := range sigs {
		sigs[i] = c.secrets[i].Sign(message(i))
	}
	return turns(len(sigs), func(i int) { must(c.set.Verify(i, message(i), sigs[i])) }), nil
}
