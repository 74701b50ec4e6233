package engine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/consensus"
	"tutti/consensus/shred"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

func wireHeader(h consensus.Height, parent consensus.Hash, body string) *consensus.Header {
	return &consensus.Header{
		Version: consensus.HeaderVersion, Chain: testChain, Shard: testShard, View: consensus.View(h) + 2, Height: h, TimeMs: 1000 * int64(h),
		Parent: parent, Body: consensus.NewBodyRef([]byte(body)),
	}
}

func wireCert(k consensus.Kind, h *consensus.Header) consensus.Certificate {
	st := consensus.Statement{Kind: k, Shard: testShard, View: h.View, Block: h.Hash()}
	return consensus.Certificate{Statement: st, Signers: consensus.Signers{0x07}, Signature: consensus.Signature{1, 2, 3}}
}

func wireSamples() (block consensus.Block, vote *consensus.Vote, r run) {
	h1 := wireHeader(1, consensus.Hash{9}, "one")
	h2 := wireHeader(2, h1.Hash(), "two")
	h3 := wireHeader(3, h2.Hash(), "three")
	block = consensus.Block{Header: h1, Body: []byte("one")}
	cert := wireCert(consensus.Notarize, h1)
	vote = &consensus.Vote{Statement: cert.Statement, Validator: 2, Signature: cert.Signature}
	r = run{blocks: []consensus.Block{block, {Header: h2, Body: []byte("two")}}, links: []*consensus.Header{h3}, cert: wireCert(consensus.Finalize, h3)}
	return block, vote, r
}

// wireEnd is a run up to the end of an epoch, with two echoes.
func wireEnd() run {
	_, _, r := wireSamples()
	last := *r.links[0]
	last.NextCommittee = consensus.Hash{4}
	echo := consensus.Echo(&last, last.View+1)
	r.links, r.echoes = []*consensus.Header{&last}, []*consensus.Header{echo, consensus.Echo(echo, echo.View+2)}
	r.cert = wireCert(consensus.Finalize, r.echoes[1])
	return r
}

// wirePart is a part of a committee of three.
func wirePart() *shred.Part {
	var vs []consensus.Validator
	for i := range 3 {
		vs = append(vs, consensus.Validator{Key: consensus.PublicKey{byte(i)}, Power: 1})
	}
	c, err := consensus.NewCommittee(testShard, 0, consensus.Hash{}, vs)
	if err != nil {
		panic(err)
	}
	set, err := shred.Cut(c, []byte("one"))
	if err != nil {
		panic(err)
	}
	h := wireHeader(1, consensus.Hash{9}, "one")
	h.Body = set.Ref()
	cert := wireCert(consensus.Notarize, h)
	return set.Part(2, h, consensus.Vote{Statement: cert.Statement, Validator: 1, Signature: cert.Signature})
}

// TestGolden pins every payload.
func TestGolden(t *testing.T) {
	block, vote, r := wireSamples()
	cert := wireCert(consensus.Notarize, block.Header)
	var got strings.Builder
	for _, v := range []struct {
		name string
		enc  []byte
	}{
		{"vote", encodeVote(vote)},
		{"certificate", encodeCertificate(&cert)},
		{"proposal", encodeProposal(&consensus.Proposal{Block: block, Vote: *vote})},
		{"part", encodePart(wirePart())},
		{"get block", request{typ: typeGetBlock, hash: consensus.Hash{1, 2, 3}}.encode()},
		{"get run", request{typ: typeGetRun, from: 77}.encode()},
		{"get latest", request{typ: typeGetLatest, epoch: 5}.encode()},
		{"block", blockAnswer{block, cert}.encode()},
		{"block without notarization", blockAnswer{block: block}.encode()},
		{"run", r.encode()},
		{"run to the end of an epoch", wireEnd().encode()},
		{"get headers", request{typ: typeGetHeaders, hash: consensus.Hash{1, 2, 3}, most: 700}.encode()},
		{"get leading", request{typ: typeGetLeading, epoch: 5}.encode()},
		{"headers", encodeHeaders([]*consensus.Header{r.links[0], r.blocks[1].Header, r.blocks[0].Header})},
		{"leading", encodeLeading(&cert)},
		{"get own", request{typ: typeGetOwn, epoch: 5}.encode()},
		{"own", ownAnswer{vote: vote}.encode()},
		{"own, over", ownAnswer{over: true}.encode()},
		{"latest", encodeLatest(&consensus.FinalHeader{Header: r.links[0], Cert: r.cert})},
	} {
		fmt.Fprintf(&got, "%s = %s\n", v.name, hex.EncodeToString(v.enc))
	}
	const path = "testdata/golden.txt"
	if *update {
		must(t, os.WriteFile(path, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("wire format changed (rewrite with -update only on purpose):\n%s", d)
	}
}

// reencode decodes a payload of any kind and encodes it again.
func reencode(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, malformed("empty")
	}
	switch b[0] {
	case typeGetBlock, typeGetRun, typeGetLatest, typeGetHeaders, typeGetLeading, typeGetOwn:
		r, err := decodeRequest(b)
		if err != nil {
			return nil, err
		}
		return r.encode(), nil
	case typeBlock:
		a, err := decodeBlockAnswer(b)
		if err != nil {
			return nil, err
		}
		return a.encode(), nil
	case typeRun:
		r, err := decodeRun(b)
		if err != nil {
			return nil, err
		}
		return r.encode(), nil
	case typeLatest:
		f, err := decodeLatest(b)
		if err != nil {
			return nil, err
		}
		return encodeLatest(f), nil
	case typeHeaders:
		hs, err := decodeHeaders(b)
		if err != nil {
			return nil, err
		}
		return encodeHeaders(hs), nil
	case typeLeading:
		c, err := decodeLeading(b)
		if err != nil {
			return nil, err
		}
		return encodeLeading(c), nil
	case typeOwn:
		a, err := decodeOwn(b)
		if err != nil {
			return nil, err
		}
		return a.encode(), nil
	case typePart:
		m, err := decodeInbound(ClassProposal, b)
		if err != nil {
			return nil, err
		}
		return encodePart(m.part), nil
	case typeProposal:
		m, err := decodeInbound(ClassProposal, b)
		if err != nil {
			return nil, err
		}
		return encodeProposal(m.proposal), nil
	}
	m, err := decodeInbound(ClassVote, b)
	switch {
	case err != nil:
		return nil, err
	case m.vote != nil:
		return encodeVote(m.vote), nil
	}
	return encodeCertificate(m.cert), nil
}

func wirePayloads(tb testing.TB) (out [][]byte) {
	golden, err := os.ReadFile("testdata/golden.txt")
	must(tb, err)
	for line := range strings.Lines(string(golden)) {
		_, enc, _ := strings.Cut(strings.TrimSpace(line), " = ")
		b, err := hex.DecodeString(enc)
		must(tb, err)
		out = append(out, b)
	}
	return out
}

// TestWire: every golden payload round-trips, and every shorter or longer one is refused.
func TestWire(t *testing.T) {
	for _, b := range wirePayloads(t) {
		got, err := reencode(b)
		if err != nil || !bytes.Equal(got, b) {
			t.Fatalf("type %#x: %v", b[0], err)
		}
		for cut := range len(b) {
			if _, err := reencode(b[:cut]); !errors.Is(err, ErrWire) {
				t.Fatalf("type %#x cut to %d of %d bytes: %v", b[0], cut, len(b), err)
			}
		}
		if _, err := reencode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrWire) {
			t.Errorf("type %#x with a trailing byte: %v", b[0], err)
		}
	}
	empty := run{cert: wireCert(consensus.Finalize, wireHeader(1, consensus.Hash{}, ""))}
	if _, err := decodeRun(empty.encode()); !errors.Is(err, ErrWire) {
		t.Errorf("run without blocks: %v", err)
	}
	if _, err := decodeHeaders(encodeHeaders(nil)); !errors.Is(err, ErrWire) {
		t.Errorf("no headers: %v", err)
	}
	for _, most := range []int{0, maxAnswerHeaders + 1} {
		if _, err := decodeRequest(request{typ: typeGetHeaders, most: most}.encode()); !errors.Is(err, ErrWire) {
			t.Errorf("%d headers asked for: %v", most, err)
		}
	}
	block, _, _ := wireSamples()
	if _, err := decodeBlockAnswer(blockAnswer{block, wireCert(consensus.Finalize, block.Header)}.encode()); !errors.Is(err, ErrWire) {
		t.Errorf("block with a finalization: %v", err)
	}
}

// FuzzWire: whatever decodes encodes to exactly the same bytes.
func FuzzWire(f *testing.F) {
	for _, b := range wirePayloads(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := reencode(b)
		if err != nil {
			if !errors.Is(err, ErrWire) {
				t.Fatalf("not ErrWire: %v", err)
			}
			return
		}
		if !bytes.Equal(got, b) {
			t.Fatal("decodes but encodes differently")
		}
	})
}
