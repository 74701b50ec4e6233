package evidence_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tutti/accel/bls"
	"tutti/consensus"
	"tutti/consensus/evidence"
)

var update = flag.Bool("update", false, "rewrite the golden vectors in testdata/")

// world is a committee with real keys: powers 5, 1, 1, 2, 3, 8, 1, total 21, so a quorum is 15.
type world struct {
	chain     consensus.Hash
	committee *consensus.Committee
	keys      consensus.Keys
	secrets   []*bls.SecretKey
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{chain: consensus.Hash{0xc4}}
	var vs []consensus.Validator
	for i, power := range []consensus.Power{5, 1, 1, 2, 3, 8, 1} {
		k, err := bls.NewSecretKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		must(tb, err)
		w.secrets = append(w.secrets, k)
		vs = append(vs, consensus.Validator{Key: k.Public(), Node: [32]byte{byte(i)}, Power: power})
	}
	var err error
	w.committee, err = consensus.NewCommittee(7, 3, consensus.Hash{1}, vs)
	must(tb, err)
	w.keys, err = consensus.NewKeys(w.committee)
	must(tb, err)
	return w
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func statement(k consensus.Kind, view consensus.View, block byte) consensus.Statement {
	st := consensus.Statement{Kind: k, Shard: 7, Epoch: 3, View: view}
	if k != consensus.Nullify {
		st.Block = consensus.Hash{block, 0xbb}
	}
	return st
}

func (w *world) vote(i int, st consensus.Statement) consensus.Vote {
	return consensus.Vote{Statement: st, Validator: uint16(i), Signature: w.secrets[i].Sign(consensus.VoteMessage(w.chain, st))}
}

func (w *world) cert(st consensus.Statement, signers ...int) consensus.Certificate {
	c := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(len(w.secrets))}
	var sigs []consensus.Signature
	for _, i := range signers {
		c.Signers.Add(i)
		sigs = append(sigs, w.vote(i, st).Signature)
	}
	var err error
	if c.Signature, err = w.keys.Aggregate(sigs); err != nil {
		panic(err)
	}
	return c
}

// proofs are one of each kind of offence, by votes and by certificates.
func (w *world) proofs(tb testing.TB) map[string]*evidence.Proof {
	tb.Helper()
	out := map[string]*evidence.Proof{}
	for name, st := range map[string][2]consensus.Statement{
		"two notarize":         {statement(consensus.Notarize, 9, 2), statement(consensus.Notarize, 9, 1)},
		"two finalize":         {statement(consensus.Finalize, 10, 1), statement(consensus.Finalize, 10, 2)},
		"finalize and nullify": {statement(consensus.Finalize, 11, 1), statement(consensus.Nullify, 11, 0)},
	} {
		p, err := evidence.FromVotes(w.chain, w.committee, w.vote(4, st[0]), w.vote(4, st[1]))
		must(tb, err)
		out["votes: "+name] = p
		p, err = evidence.FromCertificates(w.chain, w.committee, w.cert(st[0], 0, 3, 5), w.cert(st[1], 0, 1, 2, 5, 6))
		must(tb, err)
		out["certificates: "+name] = p
	}
	return out
}

func names(m map[string]*evidence.Proof) (out []string) {
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// TestVerifyProofs: every kind of proof holds, names whom it should, and has one encoding whatever the order of its halves.
func TestVerifyProofs(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.proofs(t) {
		t.Run(name, func(t *testing.T) {
			f, err := evidence.Verify(p, w.chain, w.committee, w.keys)
			must(t, err)
			want, power := []int{4}, consensus.Power(3)
			if p.Certificates != nil {
				want, power = []int{0, 5}, 13
			}
			if !slices.Equal(f.Guilty, want) || f.Power != power || f.Total != 21 {
				t.Errorf("found %+v", f)
			}
			var again *evidence.Proof
			if p.Votes != nil {
				again, err = evidence.FromVotes(w.chain, w.committee, p.Votes[1], p.Votes[0])
			} else {
				again, err = evidence.FromCertificates(w.chain, w.committee, p.Certificates[1], p.Certificates[0])
			}
			must(t, err)
			enc := p.Append(nil)
			if !bytes.Equal(enc, again.Append(nil)) || p.ID() != again.ID() {
				t.Error("the order of the halves shows in the encoding")
			}
			got, err := evidence.Decode(enc)
			must(t, err)
			if d := cmp.Diff(p, got); d != "" {
				t.Errorf("decoded differs:\n%s", d)
			}
			for cut := range len(enc) {
				if _, err := evidence.Decode(enc[:cut]); !errors.Is(err, evidence.ErrMalformed) {
					t.Fatalf("cut to %d of %d bytes: %v", cut, len(enc), err)
				}
			}
			if _, err := evidence.Decode(append(enc, 0)); !errors.Is(err, evidence.ErrMalformed) {
				t.Errorf("trailing byte: %v", err)
			}
		})
	}
}

// TestVerifyRefusals: no change to a proof or to what it is checked against leaves it standing.
func TestVerifyRefusals(t *testing.T) {
	w := newWorld(t)
	stranger := newWorld(t)
	moved := slices.Clone(w.committee.Validators)
	moved[4], moved[3] = moved[3], moved[4]
	var err error
	stranger.committee, err = consensus.NewCommittee(7, 3, consensus.Hash{1}, moved)
	must(t, err)
	later, err := consensus.NewCommittee(7, 4, consensus.Hash{1}, w.committee.Validators)
	must(t, err)

	const votes, certs = "votes: two finalize", "certificates: finalize and nullify"
	for _, tc := range []struct {
		name, of  string
		change    func(p *evidence.Proof)
		chain     consensus.Hash
		committee *consensus.Committee
		want      error
	}{
		{name: "another chain", of: votes, chain: consensus.Hash{1}, want: evidence.ErrOtherChain},
		{name: "another chain than signed", of: votes, chain: consensus.Hash{1}, change: func(p *evidence.Proof) { p.Chain = consensus.Hash{1} }, want: evidence.ErrBadSignature},
		{name: "another committee", of: votes, committee: stranger.committee, want: evidence.ErrOtherCommittee},
		{name: "another epoch's committee", of: certs, committee: later, want: evidence.ErrOtherCommittee},
		{name: "another epoch than the committee's", of: votes, change: func(p *evidence.Proof) { p.Votes[0].Epoch, p.Votes[1].Epoch = 4, 4 }, want: evidence.ErrOtherCommittee},
		{name: "another validator", of: votes, change: func(p *evidence.Proof) { p.Votes[0].Validator, p.Votes[1].Validator = 3, 3 }, want: evidence.ErrOtherKey},
		{name: "another validator with its key", of: votes, change: func(p *evidence.Proof) {
			p.Votes[0].Validator, p.Votes[1].Validator, p.Key = 3, 3, w.committee.Validators[3].Key
		}, want: evidence.ErrBadSignature},
		{name: "two validators", of: votes, change: func(p *evidence.Proof) { p.Votes[1] = w.vote(3, p.Votes[1].Statement) }, want: evidence.ErrOtherKey},
		{name: "a seat that is none", of: votes, change: func(p *evidence.Proof) { p.Votes[0].Validator, p.Votes[1].Validator = 900, 900 }, want: evidence.ErrOtherKey},
		{name: "another key", of: votes, change: func(p *evidence.Proof) { p.Key[0]++ }, want: evidence.ErrOtherKey},
		{name: "first signature", of: votes, change: func(p *evidence.Proof) { p.Votes[0].Signature = p.Votes[1].Signature }, want: evidence.ErrBadSignature},
		{name: "second signature", of: votes, change: func(p *evidence.Proof) { p.Votes[1].Signature = p.Votes[0].Signature }, want: evidence.ErrBadSignature},
		{name: "another view", of: votes, change: func(p *evidence.Proof) { p.Votes[0].View, p.Votes[1].View = 12, 12 }, want: evidence.ErrBadSignature},
		{name: "two views", of: votes, change: func(p *evidence.Proof) { p.Votes[1] = w.vote(4, statement(consensus.Finalize, 12, 2)) }, want: evidence.ErrNotSlashable},
		{name: "one statement twice", of: votes, change: func(p *evidence.Proof) { p.Votes[1] = p.Votes[0] }, want: evidence.ErrNotSlashable},
		{name: "notarize and nullify", of: votes, change: func(p *evidence.Proof) {
			p.Votes[0], p.Votes[1] = w.vote(4, statement(consensus.Notarize, 9, 1)), w.vote(4, statement(consensus.Nullify, 9, 0))
		}, want: evidence.ErrNotSlashable},
		{name: "notarize and finalize of two blocks", of: votes, change: func(p *evidence.Proof) {
			p.Votes[0], p.Votes[1] = w.vote(4, statement(consensus.Notarize, 9, 1)), w.vote(4, statement(consensus.Finalize, 9, 2))
		}, want: evidence.ErrNotSlashable},
		{name: "the wrong order", of: votes, change: func(p *evidence.Proof) { p.Votes[0], p.Votes[1] = p.Votes[1], p.Votes[0] }, want: evidence.ErrNotSlashable},

		{name: "one signer more", of: certs, change: func(p *evidence.Proof) { p.Certificates[0].Signers.Add(3) }, want: consensus.ErrBadSignature},
		{name: "second aggregate", of: certs, change: func(p *evidence.Proof) { p.Certificates[1].Signature = p.Certificates[0].Signature }, want: consensus.ErrBadSignature},
		{name: "no quorum", of: certs, change: func(p *evidence.Proof) { p.Certificates[0] = w.cert(p.Certificates[0].Statement, 0, 5) }, want: consensus.ErrNoQuorum},
		{name: "a bitmap of another size", of: certs, change: func(p *evidence.Proof) {
			p.Certificates[0].Signers = append(p.Certificates[0].Signers, 0)
		}, want: consensus.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := w.proofs(t)[tc.of]
			if tc.change != nil {
				tc.change(p)
			}
			chain, committee := w.chain, w.committee
			if !tc.chain.IsZero() {
				chain = tc.chain
			}
			if tc.committee != nil {
				committee = tc.committee
			}
			f, err := evidence.Verify(p, chain, committee, w.keys)
			if !errors.Is(err, tc.want) || f != nil {
				t.Errorf("found %v, err %v, want %v", f, err, tc.want)
			}
		})
	}
}

// TestOneEncoding flips every bit: what still decodes encodes to the flipped bytes, and proves nothing.
func TestOneEncoding(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.proofs(t) {
		t.Run(name, func(t *testing.T) {
			enc := p.Append(nil)
			checked := 0
			for i := range len(enc) * 8 {
				b := bytes.Clone(enc)
				b[i/8] ^= 1 << (i % 8)
				got, err := evidence.Decode(b)
				if err != nil {
					continue
				}
				if !bytes.Equal(got.Append(nil), b) {
					t.Fatalf("bit %d: decodes but encodes differently", i)
				}
				if i%29 != 0 { // pairings cost a millisecond each
					continue
				}
				checked++
				if _, err := evidence.Verify(got, w.chain, w.committee, w.keys); err == nil {
					t.Errorf("bit %d: the changed proof still proves", i)
				}
			}
			if checked < 20 {
				t.Errorf("only %d changed proofs were checked", checked)
			}
		})
	}
}

func TestNotSlashable(t *testing.T) {
	w := newWorld(t)
	notarize, nullify := statement(consensus.Notarize, 9, 1), statement(consensus.Nullify, 9, 0)
	if _, err := evidence.FromVotes(w.chain, w.committee, w.vote(1, notarize), w.vote(1, nullify)); !errors.Is(err, evidence.ErrNotSlashable) {
		t.Errorf("notarize and nullify: %v", err)
	}
	other := statement(consensus.Notarize, 9, 2)
	if _, err := evidence.FromVotes(w.chain, w.committee, w.vote(1, notarize), w.vote(2, other)); !errors.Is(err, evidence.ErrNotSlashable) {
		t.Errorf("two validators: %v", err)
	}
	other.Shard = 8
	if _, err := evidence.FromVotes(w.chain, w.committee, w.vote(1, notarize), w.vote(1, other)); !errors.Is(err, evidence.ErrNotSlashable) {
		t.Errorf("two shards: %v", err)
	}
	elsewhere := [2]consensus.Statement{statement(consensus.Notarize, 9, 1), statement(consensus.Notarize, 9, 2)}
	elsewhere[0].Shard, elsewhere[1].Shard = 8, 8
	if _, err := evidence.FromVotes(w.chain, w.committee, w.vote(1, elsewhere[0]), w.vote(1, elsewhere[1])); !errors.Is(err, evidence.ErrOtherCommittee) {
		t.Errorf("another shard: %v", err)
	}
	finalization := w.cert(statement(consensus.Finalize, 9, 2), 0, 3, 5)
	if _, err := evidence.FromCertificates(w.chain, w.committee, w.cert(notarize, 0, 3, 5), finalization); !errors.Is(err, evidence.ErrNotSlashable) {
		t.Errorf("a notarization and a finalization of another block prove nothing of their signers by themselves: %v", err)
	}
}

// TestGolden pins the encodings.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	proofs := w.proofs(t)
	var got strings.Builder
	for _, name := range names(proofs) {
		fmt.Fprintf(&got, "%s = %s\n", name, hex.EncodeToString(proofs[name].Append(nil)))
		id := proofs[name].ID()
		fmt.Fprintf(&got, "%s, id = %s\n", name, id)
	}
	golden(t, "testdata/golden.txt", []byte(got.String()))
	file, err := evidence.EncodeFile([]*evidence.Proof{proofs["votes: two notarize"], proofs["certificates: two finalize"]})
	must(t, err)
	golden(t, "testdata/evidence.json", file)
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s changed (rewrite with -update only on purpose):\n%s", path, d)
	}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	p := w.proofs(t)["certificates: two finalize"]
	for i := range p.Certificates {
		p.Certificates[i].Signers = make(consensus.Signers, consensus.MaxCommittee/8)
	}
	if got := len(p.Append(nil)); got != evidence.MaxBytes {
		t.Errorf("the largest proof has %d bytes, MaxBytes is %d", got, evidence.MaxBytes)
	}
	file, err := evidence.EncodeFile([]*evidence.Proof{p, p, p, p})
	must(t, err)
	if each := len(file) / 4; each > evidence.MaxFileBytes/evidence.MaxFileProofs {
		t.Errorf("a proof takes %d bytes of a file", each)
	}
}

func TestFile(t *testing.T) {
	w := newWorld(t)
	var all []*evidence.Proof
	proofs := w.proofs(t)
	for _, name := range names(proofs) {
		all = append(all, proofs[name])
	}
	b, err := evidence.EncodeFile(all)
	must(t, err)
	got, err := evidence.DecodeFile(b)
	must(t, err)
	if d := cmp.Diff(all, got); d != "" {
		t.Errorf("decoded differs:\n%s", d)
	}
	if got, err := evidence.DecodeFile(all[0].Append(nil)); err != nil || len(got) != 1 || got[0].ID() != all[0].ID() {
		t.Errorf("one proof in binary: %v", err)
	}
	change := func(old, with string) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) }
	for name, bad := range map[string][]byte{
		"empty":          nil,
		"trailing":       append(bytes.Clone(b), '{'),
		"unknown field":  change(`"format"`, `"formats"`),
		"another format": change("tutti-evidence/1", "tutti-evidence/2"),
		"another view":   change(`"view": 11`, `"view": 12`),
		"another text":   change("nullify of view", "notarize of view"),
		"not hex":        change(`"proof": "`, `"proof": "x`),
		"not a proof":    change(`"proof": "74`, `"proof": "75`),
		"version":        change(`"proof": "74757474692f65766964656e63650001`, `"proof": "74757474692f65766964656e63650002`),
	} {
		if _, err := evidence.DecodeFile(bad); !errors.Is(err, evidence.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: an error, or a proof that encodes to exactly the input.
func FuzzDecode(f *testing.F) {
	w := newWorld(f)
	for _, p := range w.proofs(f) {
		f.Add(p.Append(nil))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := evidence.Decode(b)
		if err != nil {
			if !errors.Is(err, evidence.ErrMalformed) || p != nil {
				t.Fatalf("error is not ErrMalformed, or comes with a value: %v", err)
			}
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatal("decodes but encodes differently")
		}
	})
}

// FuzzFile: an error, or proofs that make a file again.
func FuzzFile(f *testing.F) {
	w := newWorld(f)
	var all []*evidence.Proof
	for _, p := range w.proofs(f) {
		all = append(all, p)
	}
	b, err := evidence.EncodeFile(all)
	must(f, err)
	f.Add(b)
	f.Add([]byte(`{"format":"tutti-evidence/1","proofs":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		proofs, err := evidence.DecodeFile(b)
		if err != nil {
			return
		}
		again, err := evidence.EncodeFile(proofs)
		must(t, err)
		back, err := evidence.DecodeFile(again)
		must(t, err)
		if len(back) != len(proofs) {
			t.Fatalf("%d proofs became %d", len(proofs), len(back))
		}
	})
}
