package node

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/ledger"
	"tutti/state/tx"
)

// lineageOf is a shard's committees over some epochs, the hand-overs between them, and a final header of each epoch.
type lineageOf struct {
	net        *prooftest.Network
	committees []*consensus.Committee
	steps      []*proof.Handover // out of committees[i]
	finals     []*consensus.FinalHeader
}

// newLineage goes through as many epochs of shard 0 as there are echoes, so many at the end of each.
func newLineage(tb testing.TB, seed string, echoes ...int) *lineageOf {
	l := &lineageOf{net: prooftest.New(tb, seed, 2)}
	for _, n := range append(echoes, 0) {
		l.committees = append(l.committees, l.net.Committee(0))
		l.finals = append(l.finals, certified(l.net, 0, consensus.Link{Shard: 1, Sent: uint64(len(l.finals) + 1)}))
		h, _ := l.net.HandOver(0, n)
		l.steps = append(l.steps, h)
	}
	return l
}

// known is what a channel knows in an epoch, counted from the genesis'.
func (l *lineageOf) known(i int) ledger.Known {
	if i == 0 {
		return ledger.Known{}
	}
	return ledger.Known{Epoch: uint64(l.committees[i].Epoch), Committee: tx.Hash(l.committees[i].Hash())}
}

// proof leads from one epoch to another, and shows its header, or the last block of the one before.
func (l *lineageOf) proof(from, to int, final bool) *linkProof {
	p := &linkProof{steps: l.steps[from:to]}
	if from > 0 {
		p.known = l.committees[from]
	}
	if final {
		p.final = l.finals[to]
	}
	return p
}

func TestLinkProofs(t *testing.T) {
	l := newLineage(t, "links", 0, 2, 0, 1, 0, 0, 0, 0, 0, 0)
	f, err := newFinalHeaders(l.net.Genesis, l.net.Committees)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to int
		final    bool
	}{{0, 0, true}, {0, 1, true}, {0, 1, false}, {1, 1, true}, {1, 2, true}, {0, 8, true}, {0, 8, false}, {1, 9, true}, {2, 10, false}, {10, 10, true}} {
		p := l.proof(c.from, c.to, c.final)
		got, err := f.Verify(0, l.known(c.from), p.Append(nil))
		h := p.header()
		want := l.known(c.to)
		if c.to == 0 {
			want.Epoch = 1
		}
		if err != nil || got.Shard != 0 || got.Known != want || got.Height != uint64(h.Height) || len(got.Links) != len(h.Links) {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
		if bytes.Contains(p.Append(nil), consensus.Echo(h, h.View+1).Append(nil)) {
			t.Errorf("%+v: an echo is shown", c)
		}
	}
	other := newLineage(t, "another", 0, 0)
	forgedEnd := func(h *proof.Handover) *proof.Handover {
		end := *h.End
		end.Cert.Signature[7] ^= 1
		return &proof.Handover{End: &end, Next: h.Next}
	}
	forgedFinal := func(fh *consensus.FinalHeader) *consensus.FinalHeader {
		out := *fh
		out.Cert.Signature[7] ^= 1
		return &out
	}
	swapped := &proof.Handover{End: l.steps[0].End, Next: l.committees[2]}
	raw := func(p *linkProof) []byte { return p.Append(nil) }
	long := raw(l.proof(0, 8, true))
	long = append(append(append([]byte{}, long[:5]...), maxSteps+1), long[6:]...)
	for name, c := range map[string]struct {
		known ledger.Known
		proof []byte
	}{
		"nothing":                                  {l.known(0), nil},
		"later header alone":                       {l.known(0), raw(&linkProof{final: l.finals[1]})},
		"genesis header, later epoch known":        {l.known(1), raw(l.proof(0, 0, true))},
		"hand-over of the genesis again":           {l.known(1), raw(l.proof(0, 1, true))},
		"without the known committee":              {l.known(1), raw(&linkProof{steps: l.steps[1:2], final: l.finals[2]})},
		"a committee where the genesis' is known":  {l.known(0), raw(l.proof(1, 1, true))},
		"another committee than is known":          {l.known(2), raw(l.proof(1, 1, true))},
		"another committee of the same epoch":      {l.known(1), raw(other.proof(1, 1, true))},
		"another chain":                            {l.known(0), raw(other.proof(0, 1, true))},
		"an epoch is skipped":                      {l.known(0), raw(&linkProof{steps: []*proof.Handover{l.steps[0], l.steps[2]}, final: l.finals[3]})},
		"the header is an epoch later":             {l.known(0), raw(&linkProof{steps: l.steps[:1], final: l.finals[2]})},
		"the header is an epoch earlier":           {l.known(0), raw(&linkProof{steps: l.steps[:2], final: l.finals[1]})},
		"forged end":                               {l.known(0), raw(&linkProof{steps: []*proof.Handover{forgedEnd(l.steps[0])}, final: l.finals[1]})},
		"forged end by echoes":                     {l.known(1), raw(&linkProof{known: l.committees[1], steps: []*proof.Handover{forgedEnd(l.steps[1])}})},
		"forged header":                            {l.known(0), raw(&linkProof{steps: l.steps[:1], final: forgedFinal(l.finals[1])})},
		"another next committee":                   {l.known(0), raw(&linkProof{steps: []*proof.Handover{swapped}, final: l.finals[2]})},
		"more hand-overs than may be":              {l.known(0), long},
		"known committee alone":                    {l.known(1), raw(&linkProof{known: l.committees[1]})},
		"longer form of a genesis header":          {l.known(0), append([]byte{linkProofVersion, 0, 0, 0, 0, 0}, l.finals[0].Append(nil)...)},
		"another version":                          {l.known(0), append([]byte{2}, raw(l.proof(0, 1, true))[1:]...)},
		"cut short":                                {l.known(0), raw(l.proof(0, 1, true))[:700]},
		"a byte behind":                            {l.known(0), append(raw(l.proof(0, 1, false)), 0)},
		"too long":                                 {l.known(0), append(raw(l.proof(0, 1, true)), make([]byte, tx.MaxProofBytes)...)},
		"hand-overs of the other shard's, as ours": {l.known(0), raw(&linkProof{steps: l.steps[:1], final: certified(l.net, 1)})},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a bad verdict is not remembered as a good one
				if got, err := f.Verify(0, c.known, c.proof); err == nil {
					t.Errorf("verified: %+v", got)
				}
			}
		})
	}
	if _, err := f.Verify(1, l.known(0), raw(l.proof(0, 1, true))); err == nil {
		t.Error("hand-overs of shard 0 lead shard 1 on")
	}
}

// TestLinkProofFits: one hand-over fits, however large committees, headers and echoes are.
func TestLinkProofFits(t *testing.T) {
	l := newLineage(t, "fits", 0)
	p := l.proof(0, 1, true)
	p.known = l.committees[0]
	size := func(p *linkProof, kept []step) int { return linkProofBytes(p.known, kept, len(p.final.Append(nil))) }
	if n := len(p.Append(nil)); size(p, []step{{p.steps[0], len(p.steps[0].Append(nil))}}) != n {
		t.Errorf("the encoding has %d bytes, linkProofBytes says otherwise", n)
	}
	if most := 1 + 4 + consensus.MaxCommitteeBytes + 1 + 4 + proof.MaxHandoverBytes + 4 + consensus.MaxHeaderBytes + consensus.MaxCertificateBytes; most > tx.MaxProofBytes {
		t.Errorf("one hand-over may take %d bytes, a proof %d", most, tx.MaxProofBytes)
	}
}

func TestGoldenLinkProofs(t *testing.T) {
	l := newLineage(t, "golden", 0, 2)
	var b strings.Builder
	for _, c := range []struct {
		name string
		p    *linkProof
	}{
		{"genesis", l.proof(0, 0, true)},
		{"genesis, one hand-over", l.proof(0, 1, true)},
		{"one hand-over alone", l.proof(0, 1, false)},
		{"known", l.proof(1, 1, true)},
		{"known, hand-over by echoes", l.proof(1, 2, true)},
	} {
		fmt.Fprintf(&b, "%s: %s\n", c.name, hex.EncodeToString(c.p.Append(nil)))
	}
	const file = "testdata/linkproofs.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != b.String() {
		t.Errorf("differs from %s, %v; run with -update and review", file, err)
	}
}

func FuzzDecodeLinkProof(f *testing.F) {
	l := newLineage(f, "fuzz", 0, 2)
	for _, p := range []*linkProof{l.proof(0, 0, true), l.proof(0, 1, true), l.proof(0, 2, false), l.proof(1, 1, true), l.proof(1, 2, false)} {
		f.Add(p.Append(nil))
	}
	headers, err := newFinalHeaders(l.net.Genesis, l.net.Committees)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeLinkProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Error("another encoding of the same proof")
		}
		for i := range l.committees { // whatever is shown was signed
			got, err := headers.Verify(0, l.known(i), b)
			if err != nil {
				continue
			}
			h := p.header()
			signed := false
			for k := range l.finals {
				signed = signed || h.Hash() == l.finals[k].Header.Hash() || h.Hash() == l.steps[k].End.Last.Hash()
			}
			if !signed || got.Height != uint64(h.Height) {
				t.Errorf("shown: %+v", got)
			}
		}
	})
}
