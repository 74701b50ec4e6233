package bls

import "tutti/accel/bls/internal/curve"

// VerifySameMessage sets ok[i] to whether sigs[i] is the signature on msg of key signers[i]; false for a number that is
// no key's. Every verdict is one signature's own, except that a wrong signature is accepted with a chance of less than
// 2^-63 times the number of votes: all are checked together under random factors (see factor), and if that fails the
// bad ones are found by halving, at most one pairing check per vote in all. A signer may occur more than once.
//
// A signature's encoding and group were checked when it was parsed; the combination never stands in for that. If the
// three slices differ in length, every verdict is false. For 400 votes it takes about 12 microseconds a vote.
func (s *KeySet) VerifySameMessage(signers []int, msg []byte, sigs []Signature, ok []bool) {
	clear(ok)
	if len(signers) != len(sigs) || len(ok) != len(sigs) {
		return
	}
	// Items that can't be right are left out; at[j] is where item j of those left came from.
	at := make([]int, 0, len(sigs))
	for i, k := range signers {
		if k >= 0 && k < len(s.keys) && !sigs[i].point.IsInfinity() {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return
	}
	hash, fs := s.hash(msg), draw(len(at))
	if len(at) == 1 {
		fs[0] = factor{1}
	}
	evaluate := func(lo, hi int) verdict {
		key := combineG1(fs[lo:hi], func(j int) *curve.G1 { return &s.keys[signers[at[lo+j]]] })
		sig := combineG2(fs[lo:hi], func(j int) *curve.G2 { return &sigs[at[lo+j]].point })
		return verdict{quotient(s.engine, &key, hash, &sig), true}
	}
	judge(at, ok, evaluate)
}

// VerifyMany sets ok[i] to whether sigs[i] is the signature of keys[i] on msgs[i], as if by Verify but for a chance of
// less than 2^-63 times the number of items: the equations are combined under random factors, and if that fails the
// bad ones are found by halving. Messages may repeat. If the four slices differ in length, every verdict is false. It
// takes about half of what single checks take.
func VerifyMany(keys []PublicKey, msgs [][]byte, sigs []Signature, ok []bool) {
	clear(ok)
	n := len(sigs)
	if len(keys) != n || len(msgs) != n || len(ok) != n {
		return
	}
	e := engine()
	at := make([]int, 0, n)
	for i := range sigs {
		if !keys[i].point.IsInfinity() && !sigs[i].point.IsInfinity() {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return
	}
	fs := draw(len(at))
	hashes := make([]curve.G2, len(at))
	blinded := make([]curve.G1, len(at)) // keys times factors
	for j, i := range at {
		hashes[j] = e.HashToG2(msgs[i], dstVote)
		blinded[j] = combineG1(fs[j:j+1], func(int) *curve.G1 { return &keys[i].point })
	}
	_, negative := curve.Generator()
	evaluate := func(lo, hi int) verdict {
		sig := combineG2(fs[lo:hi], func(j int) *curve.G2 { return &sigs[at[lo+j]].point })
		ps := append(append(make([]curve.G1, 0, hi-lo+1), blinded[lo:hi]...), negative)
		qs := append(append(make([]curve.G2, 0, hi-lo+1), hashes[lo:hi]...), sig)
		return verdict{e.Pairing(ps, qs), true}
	}
	judge(at, ok, evaluate)
}

// judge searches all items and sets ok[at[j]] for the good ones j.
func judge(at []int, ok []bool, evaluate func(lo, hi int) verdict) {
	for _, i := range at {
		ok[i] = true
	}
	search(0, len(at), evaluate(0, len(at)), evaluate, func(j int) { ok[at[j]] = false })
}
