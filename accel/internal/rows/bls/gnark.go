package bls

import (
	gnark "github.com/consensys/gnark-crypto/ecc/bls12-381"

	"tutti/accel/internal/rows"
)

var dst = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")

// gnarkRows do by gnark-crypto what the rows of the same operation and variant do.
func gnarkRows() (all []rows.Row) {
	for _, n := range sumSizes {
		all = append(all, row("bls-key-sum/gathered", n, "raw-gnark", func() (func(), error) { return gnarkSum(n) }))
	}
	return append(all, rows.Row{Name: "bls-verify/single/1/raw-gnark", Items: 1, Setup: gnarkVerify})
}

// gnarkKeys are as many keys as the directory has.
func gnarkKeys() []gnark.G1Affine {
	_, _, g, _ := gnark.Generators()
	jac := make([]gnark.G1Jac, directorySize)
	jac[0].FromAffine(&g)
	for i := 1; i < len(jac); i++ {
		jac[i].Set(&jac[i-1])
		jac[i].AddMixed(&g)
	}
	return gnark.BatchJacobianToAffineG1(jac)
}

func gnarkSum(n int) (func(), error) {
	keys, work := gnarkKeys(), batches(n)
	return turns(len(work), func(i int) {
		var sum gnark.G1Jac
		for _, k := range work[i] {
			sum.AddMixed(&keys[k])
		}
		must(!sum.Z.IsZero())
	}), nil
}

func gnarkVerify() (func(), error) {
	c, err := theCommittee()
	if err != nil {
		return nil, err
	}
	var keys [manyMessages]gnark.G1Affine
	var sigs [manyMessages][96]byte
	for i := range sigs {
		if _, err := keys[i].SetBytes(c.keys[i][:]); err != nil {
			return nil, err
		}
		sigs[i] = c.secrets[i].Sign(message(i))
	}
	_, _, g, _ := gnark.Generators()
	g.Neg(&g)
	return turns(len(sigs), func(i int) {
		var sig gnark.G2Affine
		_, err := sig.SetBytes(sigs[i][:])
		must(err == nil)
		hash, err := gnark.HashToG2(message(i), dst)
		must(err == nil)
		ok, err := gnark.PairingCheck([]gnark.G1Affine{keys[i], g}, []gnark.G2Affine{hash, sig})
		must(err == nil && ok)
	}), nil
}
