package consensus_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/accel/erasure"
	"tutti/consensus"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

// fill makes n bytes that differ at every position and from call to call.
func fill[T ~[32]byte | ~[48]byte | ~[96]byte](seed byte) (out T) {
	for i := range len(out) {
		out[i] = seed + byte(i)*3
	}
	return out
}

func sampleHeader(links int) *consensus.Header {
	h := &consensus.Header{
		Version: consensus.HeaderVersion, Chain: fill[consensus.Hash](1), Shard: 7, Epoch: 3, View: 0x0102030405060708,
		Height: 99, TimeMs: 1_795_000_000_123, Parent: fill[consensus.Hash](2), Body: consensus.NewBodyRef([]byte("body")),
		Outcomes: fill[consensus.Hash](3), State: fill[consensus.Hash](4), Diff: fill[consensus.Hash](5),
		Committee: fill[consensus.Hash](6), NextCommittee: fill[consensus.Hash](7),
	}
	for i := range links {
		h.Links = append(h.Links, consensus.Link{
			Shard: consensus.ShardID(i), Sent: uint64(i) + 10, Received: uint64(i) + 20, Root: fill[consensus.Hash](byte(100 + i)),
		})
	}
	return h
}

// sampleShards is a block whose body travels in shards.
func sampleShards() consensus.Block {
	h := sampleHeader(2)
	set := must(must(erasure.New(3, 7)).Encode([]byte("body")))
	h.Body = consensus.BodyRef{Codec: consensus.CodecShards, Length: 4, K: 3, N: 7, Root: set.Commitment()}
	return consensus.Block{Header: h, Body: []byte("body")}
}

// sampleEcho is an echo of a block that ends its epoch.
func sampleEcho() consensus.Block {
	return consensus.Block{Header: consensus.Echo(sampleHeader(2), sampleHeader(2).View+3), Body: []byte{}}
}

// sampleEchoProposal is an echo as its leader proposes it.
func sampleEchoProposal() *consensus.Proposal {
	p := &consensus.Proposal{Block: sampleEcho(), Vote: *sampleVote(consensus.Notarize)}
	p.Vote.View, p.Vote.Block = p.Block.Header.View, p.Block.Header.Hash()
	return p
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func sampleBlock() consensus.Block {
	return consensus.Block{Header: sampleHeader(2), Body: []byte("body")}
}

func sampleStatement(k consensus.Kind) consensus.Statement {
	st := consensus.Statement{Kind: k, Shard: 7, Epoch: 3, View: 0x0102030405060708}
	if k != consensus.Nullify {
		st.Block = sampleHeader(2).Hash()
	}
	return st
}

func sampleVote(k consensus.Kind) *consensus.Vote {
	return &consensus.Vote{Statement: sampleStatement(k), Validator: 1023, Signature: fill[consensus.Signature](9)}
}

func sampleCertificate(k consensus.Kind) *consensus.Certificate {
	return &consensus.Certificate{Statement: sampleStatement(k), Signers: consensus.Signers{0xb7, 0x01}, Signature: fill[consensus.Signature](8)}
}

func sampleProposal() *consensus.Proposal {
	return &consensus.Proposal{Block: sampleBlock(), Vote: *sampleVote(consensus.Notarize)}
}

func sampleFinalHeader() *consensus.FinalHeader {
	return &consensus.FinalHeader{Header: sampleHeader(2), Cert: *sampleCertificate(consensus.Finalize)}
}

// sampleEnd ends an epoch by its second echo.
func sampleEnd() *consensus.EpochEnd {
	e := &consensus.EpochEnd{Last: sampleHeader(2), Cert: *sampleCertificate(consensus.Finalize)}
	first := consensus.Echo(e.Last, e.Last.View+1)
	e.Echoes = []*consensus.Header{first, consensus.Echo(first, first.View+4)}
	e.Cert.View, e.Cert.Block = e.Echoes[1].View, e.Echoes[1].Hash()
	return e
}

// sampleCommittee has n validators of powers 1..n.
func sampleCommittee(tb testing.TB, powers ...consensus.Power) *consensus.Committee {
	tb.Helper()
	var vs []consensus.Validator
	for i, p := range powers {
		v := consensus.Validator{Key: fill[consensus.PublicKey](byte(i)), Node: fill[[32]byte](byte(i + 50)), Power: p}
		binary.BigEndian.PutUint16(v.Key[:], uint16(i))
		vs = append(vs, v)
	}
	c, err := consensus.NewCommittee(7, 3, fill[consensus.Hash](77), vs)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// TestGolden pins every byte that goes on the wire, to disk or under a signature.
func TestGolden(t *testing.T) {
	seven := sampleCommittee(t, 5, 1, 1, 2, 3, 8, 1)
	var leaders strings.Builder
	for v := range consensus.View(64) {
		fmt.Fprintf(&leaders, "%02x", seven.Leader(v))
	}
	bare, ref := sampleHeader(0), consensus.NewBodyRef(nil)
	hash, committee := sampleHeader(2).Hash(), seven.Hash()
	vectors := []struct {
		name string
		enc  []byte
	}{
		{"header", sampleHeader(2).Append(nil)},
		{"header without links", bare.Append(nil)},
		{"header hash", hash[:]},
		{"body root", ref.Root[:]},
		{"block", sampleBlock().Append(nil)},
		{"block in shards", sampleShards().Append(nil)},
		{"echo", sampleEcho().Append(nil)},
		{"vote notarize", sampleVote(consensus.Notarize).Append(nil)},
		{"vote nullify", sampleVote(consensus.Nullify).Append(nil)},
		{"vote finalize", sampleVote(consensus.Finalize).Append(nil)},
		{"message notarize", consensus.VoteMessage(fill[consensus.Hash](1), sampleStatement(consensus.Notarize))},
		{"message nullify", consensus.VoteMessage(fill[consensus.Hash](1), sampleStatement(consensus.Nullify))},
		{"message finalize", consensus.VoteMessage(fill[consensus.Hash](1), sampleStatement(consensus.Finalize))},
		{"certificate", sampleCertificate(consensus.Finalize).Append(nil)},
		{"proposal", sampleProposal().Append(nil)},
		{"final header", sampleFinalHeader().Append(nil)},
		{"end of an epoch", sampleEnd().Append(nil)},
		{"committee", seven.Append(nil)},
		{"committee hash", committee[:]},
	}
	var got strings.Builder
	for _, v := range vectors {
		fmt.Fprintf(&got, "%s = %s\n", v.name, hex.EncodeToString(v.enc))
	}
	fmt.Fprintf(&got, "leaders = %s\n", leaders.String())

	const path = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("encodings changed (rewrite with -update only on purpose):\n%s", d)
	}
}

// codec is one type's encoding as a pair of functions, so that one test body serves all types.
type codec struct {
	name   string
	decode func([]byte) (appender, error)
	sample func() appender
}

type appender interface{ Append([]byte) []byte }

func lift[T appender](f func([]byte) (T, error)) func([]byte) (appender, error) {
	return func(b []byte) (appender, error) {
		v, err := f(b)
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

func codecs() []codec {
	return []codec{
		{"header", lift(consensus.DecodeHeader), func() appender { return sampleHeader(3) }},
		{"block", lift(consensus.DecodeBlock), func() appender { return sampleBlock() }},
		{"block in shards", lift(consensus.DecodeBlock), func() appender { return sampleShards() }},
		{"echo", lift(consensus.DecodeBlock), func() appender { return sampleEcho() }},
		{"echo proposal", lift(consensus.DecodeProposal), func() appender { return sampleEchoProposal() }},
		{"vote", lift(consensus.DecodeVote), func() appender { return sampleVote(consensus.Notarize) }},
		{"nullify vote", lift(consensus.DecodeVote), func() appender { return sampleVote(consensus.Nullify) }},
		{"certificate", lift(consensus.DecodeCertificate), func() appender { return sampleCertificate(consensus.Finalize) }},
		{"proposal", lift(consensus.DecodeProposal), func() appender { return sampleProposal() }},
		{"final header", lift(consensus.DecodeFinalHeader), func() appender { return sampleFinalHeader() }},
		{"end of an epoch", lift(consensus.DecodeEpochEnd), func() appender { return sampleEnd() }},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			want := c.sample()
			enc := want.Append([]byte("prefix"))[6:]
			got, err := c.decode(enc)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("decoded differs:\n%s", d)
			}
			for cut := range len(enc) { // every shorter input is refused
				if _, err := c.decode(enc[:cut]); !errors.Is(err, consensus.ErrMalformed) {
					t.Fatalf("cut to %d of %d bytes: %v", cut, len(enc), err)
				}
			}
			if _, err := c.decode(append(bytes.Clone(enc), 0)); !errors.Is(err, consensus.ErrMalformed) {
				t.Errorf("trailing byte: %v", err)
			}
		})
	}
}

// TestOneEncoding flips every bit of every sample: what still decodes must encode to exactly the flipped bytes.
func TestOneEncoding(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.name, func(t *testing.T) {
			enc := c.sample().Append(nil)
			for i := range len(enc) * 8 {
				b := bytes.Clone(enc)
				b[i/8] ^= 1 << (i % 8)
				if v, err := c.decode(b); err == nil && !bytes.Equal(v.Append(nil), b) {
					t.Fatalf("bit %d: decodes but encodes differently", i)
				}
			}
		})
	}
}

func TestDecodersRefuse(t *testing.T) {
	header := func(change func(*consensus.Header)) []byte {
		h := sampleHeader(2)
		change(h)
		return h.Append(nil)
	}
	vote := func(change func(*consensus.Vote)) []byte {
		v := sampleVote(consensus.Notarize)
		change(v)
		return v.Append(nil)
	}
	otherView := sampleProposal()
	otherView.Vote.View++
	finalizeVote := sampleProposal()
	finalizeVote.Vote.Kind = consensus.Finalize
	wrongBody := sampleProposal()
	wrongBody.Block.Body = []byte("bodY")
	inShards := sampleProposal()
	inShards.Block = sampleShards()
	inShards.Vote.Block = inShards.Block.Header.Hash()
	shards := func(change func(*consensus.BodyRef)) []byte {
		h := sampleShards().Header
		change(&h.Body)
		return h.Append(nil)
	}
	notFinal := sampleFinalHeader()
	notFinal.Cert.Kind = consensus.Notarize
	otherBlock := sampleFinalHeader()
	otherBlock.Cert.Block[0]++
	end := func(change func(*consensus.EpochEnd)) []byte {
		e := sampleEnd()
		change(e)
		return e.Append(nil)
	}
	bigSigners := sampleCertificate(consensus.Notarize)
	bigSigners.Signers = make(consensus.Signers, consensus.MaxCommittee/8+1)

	d := map[string]func([]byte) (appender, error){}
	for _, c := range codecs() {
		d[c.name] = c.decode
	}
	for _, tc := range []struct {
		name, codec string
		enc         []byte
	}{
		{"unknown header version", "header", header(func(h *consensus.Header) { h.Version++ })},
		{"body over the limit", "header", header(func(h *consensus.Header) { h.Body.Length = consensus.MaxBodyBytes + 1 })},
		{"empty body in shards", "header", shards(func(r *consensus.BodyRef) { r.Length = 0 })},
		{"no shards enough", "header", shards(func(r *consensus.BodyRef) { r.K = 0 })},
		{"all shards needed", "header", shards(func(r *consensus.BodyRef) { r.N = r.K })},
		{"too many shards", "header", shards(func(r *consensus.BodyRef) { r.K, r.N = 2000, 4097 })},
		{"too many shards for few", "header", shards(func(r *consensus.BodyRef) { r.N = 8*r.K + 1 })},
		{"echo with a length", "header", header(func(h *consensus.Header) { h.Body = consensus.BodyRef{Codec: consensus.CodecNone, Length: 1} })},
		{"echo with a root", "header", header(func(h *consensus.Header) {
			h.Body = consensus.BodyRef{Codec: consensus.CodecNone, Root: consensus.Hash{1}}
		})},
		{"echo with a body", "echo", append(sampleEcho().Append(nil), 0)},
		{"proposal with a body in shards", "proposal", inShards.Append(nil)},
		{"time before 1970", "header", header(func(h *consensus.Header) { h.TimeMs = -1 })},
		{"links out of order", "header", header(func(h *consensus.Header) { h.Links[0].Shard = 2 })},
		{"links repeated", "header", header(func(h *consensus.Header) { h.Links[0].Shard = 1 })},
		{"too many links", "header", sampleHeader(consensus.MaxShards + 1).Append(nil)},
		{"kind zero", "vote", vote(func(v *consensus.Vote) { v.Kind = 0 })},
		{"kind unknown", "vote", vote(func(v *consensus.Vote) { v.Kind = 4 })},
		{"notarize without block", "vote", vote(func(v *consensus.Vote) { v.Block = consensus.Hash{} })},
		{"nullify with block", "vote", vote(func(v *consensus.Vote) { v.Kind = consensus.Nullify })},
		{"validator over the limit", "vote", vote(func(v *consensus.Vote) { v.Validator = consensus.MaxCommittee })},
		{"too many signers", "certificate", bigSigners.Append(nil)},
		{"proposal with another view's vote", "proposal", otherView.Append(nil)},
		{"proposal with a finalize", "proposal", finalizeVote.Append(nil)},
		{"proposal with another body", "proposal", wrongBody.Append(nil)},
		{"final header with a notarization", "final header", notFinal.Append(nil)},
		{"final header of another block", "final header", otherBlock.Append(nil)},
		{"end of an epoch that goes on", "end of an epoch", end(func(e *consensus.EpochEnd) { e.Last.NextCommittee = e.Last.Committee })},
		{"end of an epoch by an echo alone", "end of an epoch", end(func(e *consensus.EpochEnd) { e.Last, e.Echoes = e.Echoes[0], e.Echoes[1:] })},
		{"end of an epoch with a view twice", "end of an epoch", end(func(e *consensus.EpochEnd) { e.Echoes = append(e.Echoes, e.Echoes[1]) })},
		{"end of an epoch that is not final", "end of an epoch", end(func(e *consensus.EpochEnd) { e.Echoes = e.Echoes[:1] })},
		{"end of an epoch with too many echoes", "end of an epoch", end(func(e *consensus.EpochEnd) {
			e.Echoes = nil
			for i := range consensus.MaxEchoes + 1 {
				e.Echoes = append(e.Echoes, &consensus.Header{View: e.Last.View + 1 + consensus.View(i)})
			}
		})},
		{"block with a huge header", "block", []byte{0xff, 0xff, 0xff, 0xff, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := d[tc.codec](tc.enc); !errors.Is(err, consensus.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	h := sampleShards().Header
	h.Links = sampleHeader(consensus.MaxShards).Links
	if got := len(h.Append(nil)); got != consensus.MaxHeaderBytes {
		t.Errorf("largest header has %d bytes, MaxHeaderBytes is %d", got, consensus.MaxHeaderBytes)
	}
	if got := len(sampleVote(consensus.Notarize).Append(nil)); got != consensus.VoteBytes {
		t.Errorf("vote has %d bytes, VoteBytes is %d", got, consensus.VoteBytes)
	}
	c := sampleCertificate(consensus.Notarize)
	c.Signers = make(consensus.Signers, consensus.MaxCommittee/8)
	if got := len(c.Append(nil)); got != consensus.MaxCertificateBytes {
		t.Errorf("largest certificate has %d bytes, MaxCertificateBytes is %d", got, consensus.MaxCertificateBytes)
	}
	e := sampleEnd()
	e.Last, e.Cert.Signers = h, c.Signers
	if got := len(e.Append(nil)) + 8*(consensus.MaxEchoes-len(e.Echoes)); got != consensus.MaxEpochEndBytes {
		t.Errorf("largest end of an epoch has %d bytes, MaxEpochEndBytes is %d", got, consensus.MaxEpochEndBytes)
	}
	p := sampleProposal()
	p.Block.Header = h
	if got := len(p.Append(nil)) + consensus.MaxBodyBytes - len(p.Block.Body); got != consensus.MaxProposalBytes {
		t.Errorf("largest proposal has %d bytes, MaxProposalBytes is %d", got, consensus.MaxProposalBytes)
	}
}

func TestBodyRef(t *testing.T) {
	r := consensus.NewBodyRef([]byte("body"))
	later := r
	later.Codec = 3
	none, long := consensus.BodyRef{Codec: consensus.CodecNone}, consensus.BodyRef{Codec: consensus.CodecNone, Length: 1}
	shards := sampleShards().Header.Body
	otherCode, noCode, tooMany := shards, shards, shards
	otherCode.N++
	noCode.K = noCode.N
	tooMany.K, tooMany.N = 1, 4097
	for _, tc := range []struct {
		name string
		ref  consensus.BodyRef
		body string
		want bool
	}{
		{"same", r, "body", true},
		{"other bytes", r, "bode", false},
		{"longer", r, "body!", false},
		{"unknown codec", later, "body", false},
		{"empty", consensus.NewBodyRef(nil), "", true},
		{"shards, same", shards, "body", true},
		{"shards, other bytes", shards, "bode", false},
		{"shards, longer", shards, "body!", false},
		{"shards of another code", otherCode, "body", false},
		{"shards of no code", noCode, "body", false},
		{"too many shards", tooMany, "body", false},
		{"none", none, "", true},
		{"none, with a body", none, "b", false},
		{"none, with a length", long, "b", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.ref.Matches([]byte(tc.body)); got != tc.want {
				t.Errorf("Matches = %v", got)
			}
		})
	}
}

// TestCommitteeBodyRef: what a leader makes of a body is what the others accept, and nothing else is.
func TestCommitteeBodyRef(t *testing.T) {
	c, other := sampleCommittee(t, 5, 1, 1, 2, 3, 8, 1), sampleCommittee(t, 1, 1, 1, 1)
	small, large := make([]byte, c.WholeBytes()), make([]byte, c.WholeBytes()+1)
	for _, tc := range []struct {
		name  string
		ref   consensus.BodyRef
		body  []byte
		wrong string
	}{
		{"empty", c.BodyRef(nil), nil, ""},
		{"small", c.BodyRef(small), small, ""},
		{"large", c.BodyRef(large), large, ""},
		{"in shards", c.ShardsRef(large), large, ""},
		{"small in shards", c.ShardsRef([]byte{1}), []byte{1}, ""},
		{"another committee's code", other.ShardsRef(large), large, "another code"},
		{"unknown codec", consensus.BodyRef{Codec: 3}, nil, "unknown codec"},
		{"none", consensus.BodyRef{Codec: consensus.CodecNone}, []byte{}, ""},
		{"none, with a root", consensus.BodyRef{Codec: consensus.CodecNone, Root: consensus.Hash{1}}, nil, "with a body"},
		{"too long to travel whole", consensus.BodyRef{Length: uint32(c.WholeBytes()) + 1}, nil, "too long"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := c.CheckBodyRef(tc.ref); !strings.Contains(got, tc.wrong) || (tc.wrong == "") != (got == "") {
				t.Errorf("CheckBodyRef says %q, want %q", got, tc.wrong)
			}
			if tc.body != nil && !tc.ref.Matches(tc.body) {
				t.Error("the reference does not match its own body")
			}
		})
	}
	if c.BodyRef(small).Codec != consensus.CodecWhole || c.BodyRef(large).Codec != consensus.CodecShards {
		t.Errorf("bodies of %d and %d bytes under codecs %d and %d", len(small), len(large), c.BodyRef(small).Codec, c.BodyRef(large).Codec)
	}
}

// TestMessagesDiffer: no two statements, and no two chains, share the bytes that are signed.
func TestMessagesDiffer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		gen := func(label string) (consensus.Hash, consensus.Statement) {
			st := consensus.Statement{
				Kind:  consensus.Kind(rapid.IntRange(1, 3).Draw(rt, label+"kind")),
				Shard: consensus.ShardID(rapid.IntRange(0, 1).Draw(rt, label+"shard")),
				Epoch: consensus.Epoch(rapid.IntRange(0, 1).Draw(rt, label+"epoch")),
				View:  consensus.View(rapid.IntRange(0, 1).Draw(rt, label+"view")),
			}
			if st.Kind != consensus.Nullify {
				st.Block[31] = byte(rapid.IntRange(1, 2).Draw(rt, label+"block"))
			}
			return consensus.Hash{byte(rapid.IntRange(0, 1).Draw(rt, label+"chain"))}, st
		}
		g1, s1 := gen("a")
		g2, s2 := gen("b")
		same := bytes.Equal(consensus.VoteMessage(g1, s1), consensus.VoteMessage(g2, s2))
		if same != (g1 == g2 && s1 == s2) {
			rt.Fatalf("messages equal: %v for %v %v and %v %v", same, g1, s1, g2, s2)
		}
	})
}

// TestCommitteeEncoding: what is decoded is the same committee, and nothing that NewCommittee refuses is decoded.
func TestCommitteeEncoding(t *testing.T) {
	want := sampleCommittee(t, 5, 1, 1, 2, 3, 8, 1)
	enc := want.Append([]byte("prefix"))[6:]
	got, err := consensus.DecodeCommittee(enc)
	if err != nil || got.Hash() != want.Hash() || got.Shard != 7 || got.Epoch != 3 || got.Total() != want.Total() {
		t.Fatalf("decoded as %+v, %v", got, err)
	}
	for v := range consensus.View(100) {
		if got.Leader(v) != want.Leader(v) {
			t.Fatalf("another leader of view %d", v)
		}
	}
	largest := must(consensus.DecodeCommittee(ofSize(consensus.MaxCommittee)))
	if n := len(largest.Append(nil)); n != consensus.MaxCommitteeBytes {
		t.Errorf("the largest has %d bytes, MaxCommitteeBytes is %d", n, consensus.MaxCommitteeBytes)
	}
	refused := map[string][]byte{
		"too long":   append(bytes.Clone(enc), 0),
		"nobody":     ofSize(0),
		"too many":   ofSize(consensus.MaxCommittee + 1),
		"no power":   func() []byte { b := bytes.Clone(enc); clear(b[len(b)-8:]); return b }(),
		"key twice":  append(bytes.Clone(enc[:44+88]), append(bytes.Clone(enc[44:44+88]), enc[44+2*88:]...)...),
		"over total": func() []byte { b := bytes.Clone(enc); b[len(b)-8] = 0x10; return b }(),
	}
	for cut := range len(enc) {
		refused[fmt.Sprintf("cut at %d", cut)] = enc[:cut]
	}
	for name, b := range refused {
		if c, err := consensus.DecodeCommittee(b); !errors.Is(err, consensus.ErrMalformed) || c != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// ofSize is an encoding with n seats of power 1.
func ofSize(n int) []byte {
	b := append(make([]byte, 42), byte(n>>8), byte(n))
	for i := range n {
		seat := make([]byte, 88)
		seat[0], seat[1], seat[87] = byte(i>>8), byte(i), 1
		b = append(b, seat...)
	}
	return b
}

func FuzzCommittee(f *testing.F) {
	f.Add(sampleCommittee(f, 5, 1, 1, 2, 3, 8, 1).Append(nil))
	f.Add(ofSize(2))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := consensus.DecodeCommittee(b)
		if err != nil {
			if !errors.Is(err, consensus.ErrMalformed) || c != nil {
				t.Fatalf("error is not ErrMalformed, or comes with a value: %v", err)
			}
			return
		}
		if !bytes.Equal(c.Append(nil), b) {
			t.Fatal("decodes but encodes differently")
		}
	})
}

// fuzzCodec states the property of every decoder: an error, or a value that encodes to exactly the input.
func fuzzCodec(f *testing.F, name string) {
	var c codec
	for _, have := range codecs() {
		if have.name == name {
			c = have
			f.Add(have.sample().Append(nil))
		}
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := c.decode(b)
		if err != nil {
			if !errors.Is(err, consensus.ErrMalformed) || v != nil {
				t.Fatalf("error is not ErrMalformed, or comes with a value: %v", err)
			}
			return
		}
		if !bytes.Equal(v.Append(nil), b) {
			t.Fatal("decodes but encodes differently")
		}
	})
}

func FuzzHeader(f *testing.F)       { fuzzCodec(f, "header") }
func FuzzBlock(f *testing.F)        { fuzzCodec(f, "block") }
func FuzzShardsBlock(f *testing.F)  { fuzzCodec(f, "block in shards") }
func FuzzEcho(f *testing.F)         { fuzzCodec(f, "echo") }
func FuzzVote(f *testing.F)         { fuzzCodec(f, "vote") }
func FuzzCertificate(f *testing.F)  { fuzzCodec(f, "certificate") }
func FuzzProposal(f *testing.F)     { fuzzCodec(f, "proposal") }
func FuzzEchoProposal(f *testing.F) { fuzzCodec(f, "echo proposal") }
func FuzzFinalHeader(f *testing.F)  { fuzzCodec(f, "final header") }
func FuzzEpochEnd(f *testing.F)     { fuzzCodec(f, "end of an epoch") }
