package consensus_test

import (
	"errors"
	"testing"

	"tutti/consensus"
	"tutti/consensus/sim/simtest"
)

// TestVerifyEnd: what ends an epoch is its last block, the exact echoes above it, and a finalization of the topmost.
func TestVerifyEnd(t *testing.T) {
	c := simtest.Committee(1, 1, 1, 1, 1)
	keys := simtest.NewKeys(4)
	last := simtest.Child(c, simtest.Genesis(c), 1, []byte("last")).Header
	last.NextCommittee = consensus.Hash{9}
	end := func(change func(*consensus.EpochEnd), views ...consensus.View) *consensus.EpochEnd {
		e := &consensus.EpochEnd{Last: last}
		top := last
		for _, v := range views {
			top = consensus.Echo(top, v)
			e.Echoes = append(e.Echoes, top)
		}
		if change != nil {
			change(e)
		}
		if n := len(e.Echoes); n > 0 {
			top = e.Echoes[n-1]
		}
		e.Cert.Statement = consensus.Statement{Kind: consensus.Finalize, Shard: c.Shard, Epoch: c.Epoch, View: top.View, Block: top.Hash()}
		e.Cert.Signers = consensus.NewSigners(4)
		var sigs []consensus.Signature
		for i := range 3 {
			e.Cert.Signers.Add(i)
			sigs = append(sigs, keys.Signer(i).Sign(consensus.VoteMessage(simtest.Chain, e.Cert.Statement)))
		}
		e.Cert.Signature = must(keys.Aggregate(sigs))
		return e
	}
	other := end(nil, 2)
	other.Cert.Statement.View++
	forged := end(nil)
	forged.Cert.Signature[3]++
	for _, tc := range []struct {
		name string
		end  *consensus.EpochEnd
		want error
	}{
		{"no echo", end(nil), nil},
		{"echoes", end(nil, 2, 3, 7), nil},
		{"a block that does not end its epoch", end(func(e *consensus.EpochEnd) {
			e.Last = simtest.Child(c, simtest.Genesis(c), 1, nil).Header
		}), consensus.ErrEnd},
		{"an echo as the last block", end(func(e *consensus.EpochEnd) { e.Last, e.Echoes = e.Echoes[0], e.Echoes[1:] }, 2, 3), consensus.ErrEnd},
		{"an echo left out", end(func(e *consensus.EpochEnd) { e.Echoes = e.Echoes[1:] }, 2, 3), consensus.ErrEnd},
		{"a view that does not rise", end(nil, 2, 2), consensus.ErrEnd},
		{"an echo with another time", end(func(e *consensus.EpochEnd) { e.Echoes[0].TimeMs++ }, 2), consensus.ErrEnd},
		{"an echo with other content", end(func(e *consensus.EpochEnd) { e.Echoes[0].State[0]++ }, 2), consensus.ErrEnd},
		{"a block with a body as an echo", end(func(e *consensus.EpochEnd) { e.Echoes[0].Body = consensus.NewBodyRef(nil) }, 2), consensus.ErrEnd},
		{"a certificate of something else", other, consensus.ErrEnd},
		{"a forged certificate", forged, consensus.ErrBadSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := c.VerifyEnd(simtest.Chain, keys, tc.end); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	if err := c.VerifyEnd(consensus.Hash{1}, keys, end(nil)); !errors.Is(err, consensus.ErrEnd) {
		t.Errorf("of another chain: %v", err)
	}
}
