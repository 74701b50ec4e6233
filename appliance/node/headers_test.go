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
	j := judging(net, 0, f)
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
	if _, err := f.Verify(2, ledger.Known{}, good.Append(nil)); err == nil {
		t.Error("a shard that there is not")
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
		"bytes that are no header":         {[]byte("header"), nil},
		"bytes behind":                     {append(good.Append(nil), 1), consensus.ErrMalformed},
		"certificate of another one":       {(&consensus.FinalHeader{Header: good.Header, Cert: forged.Cert}).Append(nil), consensus.ErrMalformed},
		"good header, other shard's votes": {crossed(net).Append(nil), nil},
		"another committee in the header":  {recommitteed(net).Append(nil), nil},
		"an echo":                          {echoed(net).Append(nil), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := j.check(c.proof); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("judged %v", err)
			}
			if _, err := f.Verify(1, ledger.Known{}, c.proof); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("in a block judged %v", err)
			}
		})
	}
	if len(f.good) != 1 || len(f.order) != 1 {
		t.Errorf("%d verdicts are remembered, %d in order: only the good one should be", len(f.good), len(f.order))
	}
	if _, err := j.check(good.Append(nil)); err != nil || len(f.order) != 1 {
		t.Errorf("checked again: %v", err)
	}
}

// crossed is a header of shard 1 with the votes of shard 0's committee.
func crossed(n *prooftest.Network) *consensus.FinalHeader {
	h := n.Add(1, nil, nil)
	return &consensus.FinalHeader{Header: h, Cert: n.Certify(0, h)}
}

// recommitteed is a header of shard 1 that names another committee than its epoch's, and is certified by that.
func recommitteed(n *prooftest.Network) *consensus.FinalHeader {
	h := n.Add(1, nil, nil)
	h.Committee, h.NextCommittee = consensus.Hash{1}, consensus.Hash{1}
	return &consensus.FinalHeader{Header: h, Cert: n.Certify(1, h)}
}

// echoed is a final echo of shard 1.
func echoed(n *prooftest.Network) *consensus.FinalHeader {
	h := *n.Add(1, nil, nil)
	h.NextCommittee = consensus.Hash{1}
	echo := consensus.Echo(&h, h.View+1)
	return &consensus.FinalHeader{Header: echo, Cert: n.Certify(1, echo)}
}

func TestFinalHeadersAreBounded(t *testing.T) {
	f := &finalHeaders{good: map[[32]byte]bool{}}
	id := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxVerdicts + 10 {
		f.remember(id(i))
		f.remember(id(i)) // twice at the same time
	}
	if len(f.good) != maxVerdicts || len(f.order) != maxVerdicts {
		t.Errorf("%d known, %d in order", len(f.good), len(f.order))
	}
	if f.good[id(9)] || !f.good[id(10)] {
		t.Error("the oldest should have gone, and no other")
	}
	net := prooftest.NewOf(t, "many", 1, 40)
	for range 30 {
		net.HandOver(0, 0)
		if _, err := f.member(net.Committee(0), nil); err != nil {
			t.Fatal(err)
		}
		last := &f.members[len(f.members)-1] // as if it were larger
		large := *last.Committee
		large.Validators = append(large.Validators, make([]consensus.Validator, maxDecodedSeats/20)...)
		last.Committee, f.seats = &large, f.seats+maxDecodedSeats/20
	}
	if len(f.members) < 10 || len(f.members) > 20 || f.seats-maxDecodedSeats/20 > maxDecodedSeats || f.members[len(f.members)-1].Hash() != net.Committee(0).Hash() {
		t.Errorf("%d committees with %d seats are held", len(f.members), f.seats)
	}
	before := len(f.members)
	if m, err := f.member(net.Committee(0), nil); err != nil || m.keys == nil || len(f.members) != before {
		t.Errorf("decoded again: %d, %v", len(f.members), err)
	}
}
