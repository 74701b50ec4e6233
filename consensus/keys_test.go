package consensus_test

import (
	"bytes"
	"errors"
	"testing"

	"tutti/accel/bls"
	"tutti/consensus"
)

// blsCommittee makes validators 0..len(powers)-1 with real keys.
func blsCommittee(tb testing.TB, powers ...consensus.Power) (*consensus.Committee, []consensus.Signer) {
	tb.Helper()
	var vs []consensus.Validator
	var signers []consensus.Signer
	for i, p := range powers {
		k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			tb.Fatal(err)
		}
		vs = append(vs, consensus.Validator{Key: k.Public(), Power: p})
		signers = append(signers, consensus.NewSigner(k))
	}
	c, err := consensus.NewCommittee(7, 3, consensus.Hash{}, vs)
	if err != nil {
		tb.Fatal(err)
	}
	return c, signers
}

// TestCertificateFromVotes makes a real certificate from real votes and spoils it in every way that matters.
func TestCertificateFromVotes(t *testing.T) {
	c, signers := blsCommittee(t, 5, 1, 1, 2, 3)
	keys, err := consensus.NewKeys(c)
	if err != nil {
		t.Fatal(err)
	}
	chain := consensus.Hash{1}
	st := sampleStatement(consensus.Finalize)
	msg := consensus.VoteMessage(chain, st)
	cert := &consensus.Certificate{Statement: st, Signers: consensus.NewSigners(5)}
	var sigs []consensus.Signature
	for _, i := range []int{0, 3, 4} { // 10 of 12
		sig := signers[i].Sign(msg)
		if !keys.Verify(i, msg, sig) || keys.Verify(1, msg, sig) || keys.Verify(i, consensus.VoteMessage(consensus.Hash{2}, st), sig) {
			t.Fatalf("vote of %d", i)
		}
		sigs = append(sigs, sig)
		cert.Signers.Add(i)
	}
	if cert.Signature, err = keys.Aggregate(sigs); err != nil {
		t.Fatal(err)
	}
	if err := c.VerifyCertificate(chain, keys, cert); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		chain consensus.Hash
		spoil func(*consensus.Certificate)
	}{
		{"other chain", consensus.Hash{2}, func(*consensus.Certificate) {}},
		{"other kind", chain, func(c *consensus.Certificate) { c.Kind = consensus.Notarize }},
		{"other view", chain, func(c *consensus.Certificate) { c.View++ }},
		{"other block", chain, func(c *consensus.Certificate) { c.Block[0]++ }},
		{"one signer more", chain, func(c *consensus.Certificate) { c.Signers.Add(1) }},
		{"another signer", chain, func(c *consensus.Certificate) { c.Signers = consensus.Signers{0b00111} }},
		{"signature of one", chain, func(c *consensus.Certificate) { c.Signature = sigs[0] }},
		{"no signature", chain, func(c *consensus.Certificate) { c.Signature = consensus.Signature{} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bad := *cert
			bad.Signers = append(consensus.Signers(nil), cert.Signers...)
			tc.spoil(&bad)
			if err := c.VerifyCertificate(tc.chain, keys, &bad); !errors.Is(err, consensus.ErrBadSignature) && !errors.Is(err, consensus.ErrNoQuorum) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := keys.Aggregate([]consensus.Signature{sigs[0], {1, 2, 3}}); err == nil {
		t.Error("aggregated something that is not a point")
	}
}

func TestNewKeysRefuses(t *testing.T) {
	if _, err := consensus.NewKeys(sampleCommittee(t, 1, 1)); err == nil {
		t.Error("accepted keys that are not points of the group")
	}
}
