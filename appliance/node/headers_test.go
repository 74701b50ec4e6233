package node

import (
	"errors"
	"testing"

	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/ledger"
)

func TestFinalHeaders(t *testing.T) {
	net := prooftest.New(t, "headers", 2)
	f, err := newFinalHeaders(net.Genesis, net.Committees)
	if err != nil {
		t.Fatal(err)
	}
	good := certified(net, 1, consensus.Link{Shard: 0, Sent: 7, Received: 5, Root: consensus.Hash{3}})
	got, err := f.Verify(1, ledger.Known{}, good.Append(nil))
	want := ledger.ForeignHeader{
		Shard: 1, Known: ledger.Known{Epoch: 1}, Height: uint64(good.Header.Height), Links: []ledger.Link{{Sent: 7, Received: 5, Root: [32]byte{3}}},
	}
	if err != nil || got.Shard != want.Shard || got.Known != want.Known || got.Height != want.Height || len(got.Links) != 1 || got.Links[0] != want.Links[0] {
		t.Fatalf("%+v, want %+v: %v", got, want, err)
	}
	if back := consensusLinks(got.Links); len(back) != 1 || back[0] != good.Header.Links[0] {
		t.Errorf("links come back as %+v", back)
	}
	if _, err := f.Verify(0, ledger.Known{}, good.Append(nil)); err == nil {
		t.Error("a header of shard 1 passed for one of shard 0")
	}

	forged := certified(net, 1)
	forged.Cert.Signature[9] ^= 1
	few := certified(net, 1)
	few.Cert.Signers = consensus.NewSigners(4)
	few.Cert.Signers.Add(0)
	third := certified(prooftest.New(t, "headers", 3), 2)
	for name, c := range map[string]struct {
		proof []byte
		want  error
	}{
		"another chain":                    {certified(prooftest.New(t, "else", 2), 1).Append(nil), nil},
		"a shard that there is not":        {third.Append(nil), nil},
		"forged":                           {forged.Append(nil), consensus.ErrBadSignature},
		"no quorum":                        {few.Append(nil), consensus.ErrNoQuorum},
		"bytes that are no header":         {[]byte("header"), consensus.ErrMalformed},
		"bytes behind":                     {append(good.Append(nil), 1), consensus.ErrMalformed},
		"certificate of another one":       {(&consensus.FinalHeader{Header: good.Header, Cert: forged.Cert}).Append(nil), consensus.ErrMalformed},
		"good header, other shard's votes": {crossed(net).Append(nil), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := f.check(c.proof); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("judged %v", err)
			}
		})
	}
	if len(f.known) != 1 || len(f.order) != 1 || f.bytes != len(good.Append(nil)) {
		t.Errorf("%d verdicts are remembered, %d in order, %d bytes: only the good one should be", len(f.known), len(f.order), f.bytes)
	}
	if again, err := f.check(good.Append(nil)); err != nil || again != f.known[f.order[0].id] {
		t.Errorf("checked again: %v", err)
	}
}

// crossed is a header of shard 1 with the votes of shard 0's committee.
func crossed(n *prooftest.Network) *consensus.FinalHeader {
	h := n.Add(1, nil, nil)
	return &consensus.FinalHeader{Header: h, Cert: n.Certify(0, h)}
}

func TestFinalHeadersAreBounded(t *testing.T) {
	f := &finalHeaders{known: map[[32]byte]*consensus.FinalHeader{}}
	id := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8)} }
	fh := &consensus.FinalHeader{}
	for i := range maxVerifiedHeaders + 10 {
		f.remember(id(i), fh, 400)
		f.remember(id(i), fh, 400) // twice at the same time
	}
	if len(f.known) != maxVerifiedHeaders || len(f.order) != maxVerifiedHeaders || f.bytes != 400*maxVerifiedHeaders {
		t.Errorf("%d known, %d in order, %d bytes", len(f.known), len(f.order), f.bytes)
	}
	if f.known[id(9)] != nil || f.known[id(10)] == nil {
		t.Error("the oldest should have gone, and no other")
	}
	f.remember(id(-1), fh, maxVerifiedBytes-399)
	if len(f.known) != 1 || f.known[id(-1)] == nil {
		t.Errorf("%d known: large headers should push out more than one", len(f.known))
	}
}
