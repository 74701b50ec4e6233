package bls

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"tutti/accel/bls/internal/curve"
)

// answers are known answers. Points and numbers are hex.
type answers struct {
	seed, master string    // EIP-2333: a seed and its master key
	secrets      [3]string // of three signers
	keys         [3]string // theirs
	message      []byte    // that all three sign
	signatures   [3]string
	aggregate    string
	badKeys      []string // must be refused as keys
	badSigs      []string // must be refused as signatures
}

// published are test case 0 of EIP-2333, and the sign, aggregate and fast_aggregate_verify cases over the message
// 0xabab... of ethereum/bls12-381-tests; the bad points are our own (x = 4 on the curve of G1 and x = 2 on that of G2
// are points outside the groups).
var published = answers{
	seed: "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141" +
		"630c7a3c4ab7c81b2f001698e7463b04",
	master: "0d7359d57963ab8fbbde1852dcf553fedbc31f464d80ee7d40ae683122b45070",
	secrets: [3]string{
		"263dbd792f5b1be47ed85f8938c0f29586af0d3ac7b977f21c278fe1462040e3",
		"47b8192d77bf871b62e87859d653922725724a5c031afeabc60bcef5ff665138",
		"328388aff0d4a5b7dc9205abd374e7e98f3cd9f3418edb4eafda5fb16473d216",
	},
	keys: [3]string{
		"a491d1b0ecd9bb917989f0e74f0dea0422eac4a873e5e2644f368dffb9a6e20fd6e10c1b77654d067c0618f6e5a7f79a",
		"b301803f8b5ac4a1133581fc676dfedc60d891dd5fa99028805e5ea5b08d3491af75d0707adab3b70c6a6a580217bf81",
		"b53d21a4cfd562c469cc81514d4ce5a6b577d8403d32a394dc265dd190b47fa9f829fdd7963afdf972e5e77854051f6f",
	},
	message: bytes.Repeat([]byte{0xab}, 32),
	signatures: [3]string{
		"91347bccf740d859038fcdcaf233eeceb2a436bcaaee9b2aa3bfb70efe29dfb2677562ccbea1c8e061fb9971b0753c24" +
			"0622fab78489ce96768259fc01360346da5b9f579e5da0d941e4c6ba18a0e64906082375394f337fa1af2b7127b0d121",
		"9674e2228034527f4c083206032b020310face156d4a4685e2fcaec2f6f3665aa635d90347b6ce124eb879266b1e801d" +
			"185de36a0a289b85e9039662634f2eea1e02e670bc7ab849d006a70b2f93b84597558a05b879c8d445f387a5d5b653df",
		"ae82747ddeefe4fd64cf9cedb9b04ae3e8a43420cd255e3c7cd06a8d88b7c7f8638543719981c5d16fa3527c468c25f0" +
			"026704a6951bde891360c7e8d12ddee0559004ccdbe6046b55bae1b257ee97f7cdb955773d7cf29adf3ccbb9975e4eb9",
	},
	aggregate: "9712c3edd73a209c742b8250759db12549b3eaf43b5ca61376d9f30e2747dbcf842d8b2ac0901d2a093713e20284a767" +
		"0fcf6954e9ab93de991bb9b313e664785a075fc285806fa5224c82bde146561b446ccfc706a64b8579513cfc4ff1d930",
	badKeys: []string{
		zeros("c0", 48, ""),   // infinity
		zeros("c0", 48, "01"), // infinity and more
		zeros("80", 48, "04"), // on the curve, not in the group
		zeros("80", 48, "01"), // not on the curve
		zeros("00", 48, "04"), // not marked as compressed
		// x = p
		"9a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab",
	},
	badSigs: []string{
		zeros("c0", 96, ""), zeros("c0", 96, "01"), zeros("80", 96, "02"), zeros("80", 96, "01"), zeros("00", 96, "02"),
		"9a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab" + zeros("", 48, ""),
	},
}

// zeros is size bytes in hex: first, zeros, last.
func zeros(first string, size int, last string) string {
	return first + string(bytes.Repeat([]byte("0"), 2*size-len(first)-len(last))) + last
}

func array48(s string) (b [48]byte) { fill(b[:], s); return b }
func array96(s string) (b [96]byte) { fill(b[:], s); return b }

// fill decodes a constant of this file.
func fill(b []byte, s string) {
	if hex.DecodedLen(len(s)) != len(b) {
		panic("bls: bad constant " + s)
	}
	if _, err := hex.Decode(b, []byte(s)); err != nil {
		panic("bls: bad constant " + s)
	}
}

// check runs the operations of an engine against known answers.
func check(e curve.Engine, a answers) error {
	seed := make([]byte, len(a.seed)/2)
	fill(seed, a.seed)
	master, err := newSecretKey(e, seed)
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", master.Bytes()); got != a.master {
		return errors.New("master key of EIP-2333 differs")
	}
	var keys [][48]byte
	var sigs [][96]byte
	for i := range a.secrets {
		var b [32]byte
		fill(b[:], a.secrets[i])
		secret, err := SecretKeyFromBytes(b)
		if err != nil {
			return err
		}
		public := secret.public(e)
		if public != array48(a.keys[i]) {
			return fmt.Errorf("known answer: public key %d is %x", i, public)
		}
		if sig := e.Sign(&b, a.message, dstVote); sig.Bytes() != array96(a.signatures[i]) {
			return fmt.Errorf("known answer: signature %d is %x", i, sig.Bytes())
		}
		if proof := e.Sign(&b, a.message, dstPossession); !verifyPossession(e, public, a.message, proof.Bytes()) {
			return fmt.Errorf("proof of possession %d refused", i)
		}
		keys, sigs = append(keys, public), append(sigs, array96(a.signatures[i]))
	}
	if verifyPossession(e, keys[0], a.message, sigs[0]) {
		return errors.New("a vote passes as proof of possession")
	}
	if err := checkBatches(e, a, keys, sigs); err != nil {
		return err
	}
	return checkSet(e, a, keys, sigs)
}

// checkSet is check's second half: verification and aggregation over the three keys.
func checkSet(e curve.Engine, a answers, keys [][48]byte, sigs [][96]byte) error {
	set, err := newKeySet(e, keys)
	if err != nil {
		return err
	}
	sum, err := set.Aggregate(sigs)
	if err != nil {
		return err
	}
	if sum != array96(a.aggregate) {
		return fmt.Errorf("known answer: aggregate is %x", sum)
	}
	other := append([]byte{1}, a.message...)
	for i := range keys {
		if !set.Verify(i, a.message, sigs[i]) {
			return fmt.Errorf("known answer: signature %d refused", i)
		}
		if set.Verify(i, other, sigs[i]) || set.Verify(i, a.message, sigs[(i+1)%3]) {
			return fmt.Errorf("a wrong signature passes under key %d", i)
		}
	}
	for signers := range byte(16) {
		if set.VerifyAggregate([]byte{signers}, a.message, sum) != (signers == 0b111) {
			return fmt.Errorf("known answer: aggregate by %03b", signers)
		}
	}
	for _, s := range a.badKeys {
		if _, err := newKeySet(e, [][48]byte{array48(s)}); err == nil {
			return fmt.Errorf("bad key %s accepted", s)
		}
	}
	for _, s := range a.badSigs {
		if _, err := set.Aggregate([][96]byte{array96(s)}); err == nil || set.Verify(0, a.message, array96(s)) {
			return fmt.Errorf("bad signature %s accepted", s)
		}
	}
	return nil
}

// checkBatches puts the three votes through what batches use: sums and combinations under factors. The last one is
// wrong in a second round.
func checkBatches(e curve.Engine, a answers, keys [][48]byte, sigs [][96]byte) error {
	set, err := newKeySet(e, keys)
	if err != nil {
		return err
	}
	parsed := make([]Signature, len(sigs))
	for i := range sigs {
		p, ok := parse(e, sigs[i][:])
		if !ok {
			return fmt.Errorf("known answer: signature %d not decoded", i)
		}
		raw := p.RawBytes()
		if q, ok := e.DecodeG2(raw[:]); !ok || q != p {
			return fmt.Errorf("signature %d not decoded when uncompressed", i)
		}
		parsed[i] = Signature{p}
	}
	ok := make([]bool, len(parsed))
	for _, right := range []bool{true, false} {
		if !right {
			parsed[2] = parsed[1]
		}
		set.VerifySameMessage([]int{0, 1, 2}, a.message, parsed, ok)
		if !ok[0] || !ok[1] || ok[2] != right {
			return fmt.Errorf("votes, the last one %v: verdicts %v", right, ok)
		}
	}
	return nil
}
