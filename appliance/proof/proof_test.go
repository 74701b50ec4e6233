package proof_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/state/tx"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// story is a network of two shards with a transfer inside shard 0, a failed one, and one to shard 1 with its credit.
type story struct {
	net                  *prooftest.Network
	local, lost, across  tx.Signed
	localBlock           *proof.Block // height 1 of shard 0, finalised by height 2
	debit, credit        *proof.Block
	localProof, fullFlow *proof.Finality
}

func tell(tb testing.TB) *story {
	n := prooftest.New(tb, "story", 2)
	s := &story{net: n}
	a, b, c := n.Account(0, 1), n.Account(0, 2), n.Account(1, 7)
	s.local, s.lost, s.across = n.Transfer(a, b, 50, 0), n.Transfer(b, a, 1<<60, 3), n.Transfer(a, c, 25, 1)
	n.Add(0, []tx.Signed{s.local, s.lost, n.Transfer(b, a, 5, 4)}, nil, 1)
	n.Add(0, nil, nil)
	s.localBlock = n.Finalise(0)[0]
	s.debit, s.credit = n.Send(s.across)
	s.localProof = contents(tb, s.localBlock).Finality(0)
	s.fullFlow = contents(tb, s.debit).Finality(0)
	s.fullFlow.Credit = contents(tb, s.credit).Credit(0)
	return s
}

func contents(tb testing.TB, b *proof.Block) *proof.Contents {
	tb.Helper()
	c, err := b.Open()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func clone(tb testing.TB, f *proof.Finality) *proof.Finality {
	tb.Helper()
	b, err := json.Marshal(f)
	if err != nil {
		tb.Fatal(err)
	}
	out, err := proof.DecodeFinality(b)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestFinality(t *testing.T) {
	s := tell(t)
	failed := contents(t, s.localBlock).Finality(1)
	debitOnly := clone(t, s.fullFlow)
	debitOnly.Credit = nil
	for name, tc := range map[string]struct {
		proof                      *proof.Finality
		success, crossing, settled bool
		height, creditHeight       consensus.Height
	}{
		"inside a shard, by a descendant": {s.localProof, true, false, true, 1, 0},
		"failed":                          {failed, false, false, true, 1, 0},
		"between shards, debit only":      {debitOnly, true, true, false, 3, 0},
		"between shards, with credit":     {s.fullFlow, true, true, true, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := clone(t, tc.proof).Verify(s.net.Trust)
			if err != nil {
				t.Fatal(err)
			}
			if p.Success != tc.success || p.CrossShard != tc.crossing || p.Settled != tc.settled || p.Where.Height != tc.height {
				t.Errorf("proven %+v", p)
			}
			if (p.Credit != nil) != (tc.creditHeight > 0) || p.Credit != nil && (p.Credit.Where.Height != tc.creditHeight || p.Credit.Outcome != "credited") {
				t.Errorf("credit %+v", p.Credit)
			}
			if want := (proof.Quorum{Signers: 3, Of: 4, Power: 33, Total: 46}); p.Quorum != want {
				t.Errorf("quorum %+v", p.Quorum)
			}
		})
	}
}

func TestFinalityRefused(t *testing.T) {
	s := tell(t)
	trust := func(committees []*consensus.Committee, shardOf func(tx.ID) consensus.ShardID) *proof.Trust {
		tr, err := proof.NewTrust(s.net.Genesis, committees, shardOf)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	other := prooftest.New(t, "other", 2)
	shard1 := trust(s.net.Committees[1:], s.net.ShardOf)
	impostors := trust(other.Committees[:1], s.net.ShardOf)
	moved := trust(s.net.Committees, func(tx.ID) consensus.ShardID { return 1 })
	swapped := consensus.Signers{0b1011}

	for name, tc := range map[string]struct {
		from  *proof.Finality
		trust *proof.Trust
		spoil func(*proof.Finality)
		want  error
	}{
		"other network":               {s.localProof, other.Trust, nil, proof.ErrGenesis},
		"unknown shard":               {s.localProof, shard1, nil, proof.ErrShard},
		"impostors":                   {s.localProof, impostors, nil, proof.ErrCommittee},
		"payer elsewhere":             {s.localProof, moved, nil, proof.ErrShard},
		"other epoch":                 {s.localProof, nil, func(f *proof.Finality) { f.Final.Headers[0].Epoch++ }, proof.ErrEpoch},
		"other chain in a link":       {s.localProof, nil, func(f *proof.Finality) { f.Final.Headers[1].Chain[0]++ }, proof.ErrChain},
		"header changed under a link": {s.localProof, nil, func(f *proof.Finality) { f.Final.Headers[0].TimeMs++ }, proof.ErrChain},
		"link skips a height":         {s.localProof, nil, func(f *proof.Finality) { f.Final.Headers[1].Height++ }, proof.ErrChain},
		"header changed":              {s.fullFlow, nil, func(f *proof.Finality) { f.Final.Headers[0].TimeMs++ }, proof.ErrCertificate},
		"link missing":                {s.localProof, nil, func(f *proof.Finality) { f.Final.Headers = f.Final.Headers[:1] }, proof.ErrCertificate},
		"notarized only":              {s.fullFlow, nil, func(f *proof.Finality) { f.Final.Cert.Kind = consensus.Notarize }, proof.ErrCertificate},
		"no quorum":                   {s.fullFlow, nil, func(f *proof.Finality) { f.Final.Cert.Signers[0] = 0b11 }, consensus.ErrNoQuorum},
		"other signers":               {s.fullFlow, nil, func(f *proof.Finality) { f.Final.Cert.Signers = swapped }, consensus.ErrBadSignature},
		"signature changed":           {s.fullFlow, nil, func(f *proof.Finality) { f.Final.Cert.Signature[50]++ }, proof.ErrCertificate},
		"outcome turned":              {s.localProof, nil, func(f *proof.Finality) { f.Success = false }, proof.ErrOutcome},
		"amount changed":              {s.localProof, nil, func(f *proof.Finality) { f.Tx.Amount++ }, proof.ErrOutcome},
		"index changed":               {s.localProof, nil, func(f *proof.Finality) { f.Inclusion.Index++ }, proof.ErrOutcome},
		"count changed":               {s.localProof, nil, func(f *proof.Finality) { f.Inclusion.Count++ }, proof.ErrOutcome},
		"path changed":                {s.localProof, nil, func(f *proof.Finality) { f.Inclusion.Path[1][0]++ }, proof.ErrOutcome},
		"path too long":               {s.localProof, nil, func(f *proof.Finality) { f.Inclusion.Path = append(f.Inclusion.Path, [32]byte{}) }, proof.ErrOutcome},
		"credit inside a shard":       {s.localProof, nil, func(f *proof.Finality) { f.Credit = s.fullFlow.Credit }, proof.ErrReceipt},
		"credit of a failure":         {s.fullFlow, nil, func(f *proof.Finality) { f.Success = false }, proof.ErrOutcome},
		"credit of less":              {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Receipt.Amount-- }, proof.ErrReceipt},
		"credit to another":           {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Receipt.To++ }, proof.ErrReceipt},
		"credit coming back":          {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Receipt.Return = true }, proof.ErrReceipt},
		"credit of another":           {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Receipt.Tx[0]++ }, proof.ErrReceipt},
		"credit from shard 1":         {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Source = 1 }, proof.ErrReceipt},
		"credit out of order":         {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Sequence++ }, proof.ErrOutcome},
		"credit returned":             {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Outcome = tx.Returned }, proof.ErrOutcome},
		"credit not final":            {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Final.Cert.Signers[0] = 1 }, proof.ErrCertificate},
		"credit by the payer's shard": {s.fullFlow, nil, func(f *proof.Finality) { f.Credit.Final = f.Final }, proof.ErrShard},
	} {
		t.Run(name, func(t *testing.T) {
			f := clone(t, tc.from)
			if tc.spoil != nil {
				tc.spoil(f)
			}
			if tc.trust == nil {
				tc.trust = s.net.Trust
			}
			if p, err := f.Verify(tc.trust); !errors.Is(err, tc.want) {
				t.Fatalf("got %+v, %v; want %v", p, err, tc.want)
			}
		})
	}
	resigned := clone(t, s.localProof)
	resigned.Tx.Signature[0]++
	if _, err := resigned.Verify(s.net.Trust); err != nil {
		t.Errorf("the client's signature is carried, not proven: %v", err)
	}
}

func TestTrust(t *testing.T) {
	n := prooftest.New(t, "trust", 1)
	twice := []*consensus.Committee{n.Committees[0], n.Committees[0]}
	if _, err := proof.NewTrust(n.Genesis, twice, n.ShardOf); err == nil {
		t.Error("two committees for one shard are taken")
	}
	bad := append([]consensus.Validator(nil), n.Committees[0].Validators...)
	bad[0].Key[5]++
	c, err := consensus.NewCommittee(0, 1, n.Genesis, bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := proof.NewTrust(n.Genesis, []*consensus.Committee{c}, n.ShardOf); err == nil {
		t.Error("a key that is no point is taken")
	}
}

func TestBlock(t *testing.T) {
	s := tell(t)
	for name, b := range map[string]*proof.Block{"transactions": s.localBlock, "receipt": s.credit} {
		t.Run(name, func(t *testing.T) {
			enc := b.Append(nil)
			got, err := proof.DecodeBlock(enc)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Append(nil), enc) {
				t.Error("encoding is not stable")
			}
			if _, err := got.Verify(s.net.Trust); err != nil {
				t.Error(err)
			}
			for cut := range len(enc) {
				if _, err := proof.DecodeBlock(enc[:cut]); !errors.Is(err, proof.ErrMalformed) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
			}
			if _, err := proof.DecodeBlock(append(enc, 1)); !errors.Is(err, proof.ErrMalformed) {
				t.Errorf("with a byte too many: %v", err)
			}
		})
	}
	c := contents(t, s.credit)
	if want := (proof.Consumed{Source: 0, Sequence: 0, Receipt: s.net.Receipt(s.across), Outcome: tx.Credited}); len(c.Consumed) != 1 || c.Consumed[0] != want {
		t.Errorf("consumed %+v", c.Consumed)
	}
	for name, tc := range map[string]struct {
		spoil func(*proof.Block)
		want  error
	}{
		"body changed":     {func(b *proof.Block) { b.Body[len(b.Body)-1] ^= 1 }, proof.ErrBody},
		"credit missing":   {func(b *proof.Block) { b.Credits = nil }, proof.ErrOutcome},
		"credit too many":  {func(b *proof.Block) { b.Credits = append(b.Credits, tx.Credited) }, proof.ErrOutcome},
		"credit changed":   {func(b *proof.Block) { b.Credits[0] = tx.Returned }, proof.ErrOutcome},
		"not final at all": {func(b *proof.Block) { b.Final.Cert.Signature[9]++ }, proof.ErrCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := proof.DecodeBlock(s.credit.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			tc.spoil(b)
			if _, err := b.Verify(s.net.Trust); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// TestEveryPlace proves each transaction and receipt of random blocks.
func TestEveryPlace(t *testing.T) {
	n := prooftest.New(t, "places", 2)
	height := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		var txs []tx.Signed
		var failed []int
		for i := range rapid.IntRange(0, 40).Draw(rt, "transactions") {
			txs = append(txs, n.Transfer(n.Account(1, uint32(i)), n.Account(1, 99), height, uint32(i)))
			if rapid.Bool().Draw(rt, "fails") {
				failed = append(failed, i)
			}
		}
		u := tx.Bundle{Source: 0, First: rapid.Uint64Range(0, 1<<40).Draw(rt, "first")}
		for i := range rapid.IntRange(0, 20).Draw(rt, "receipts") {
			u.Receipts = append(u.Receipts, n.Receipt(n.Transfer(n.Account(0, uint32(i)), n.Account(1, 3), 1, uint32(i))))
		}
		height++
		n.Add(1, txs, []tx.Bundle{u}, failed...)
		c, err := n.Finalise(1)[0].Verify(n.Trust)
		if err != nil {
			rt.Fatal(err)
		}
		for i := range txs {
			f := c.Finality(i)
			p, err := f.Verify(n.Trust)
			if err != nil || tx.Hash(p.ID) != c.IDs[i] || p.Success != c.Body.Outcomes[i] {
				rt.Fatalf("transaction %d: %+v, %v", i, p, err)
			}
		}
		for k := range u.Receipts {
			if err := c.Credit(k).Verify(n.Trust); err != nil {
				rt.Fatalf("receipt %d: %v", k, err)
			}
		}
	})
}

// golden holds got to a file in testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s changed (-update rewrites it): %s", name, diff)
	}
}

// TestGolden holds the formats to the files in testdata, which -update rewrites.
func TestGolden(t *testing.T) {
	s := tell(t)
	indent := func(v any) []byte {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return append(b, '\n')
	}
	for name, got := range map[string][]byte{
		"local.json":  indent(s.localProof),
		"across.json": indent(s.fullFlow),
		"credit.json": indent(s.fullFlow.Credit),
		"block.hex":   []byte(hex.EncodeToString(s.credit.Append(nil)) + "\n"),
	} {
		golden(t, name, got)
	}
	b, err := os.ReadFile("testdata/across.json")
	if err != nil {
		t.Fatal(err)
	}
	f, err := proof.DecodeFinality(b)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := f.Verify(s.net.Trust); err != nil || !p.Settled {
		t.Errorf("the golden file proves %+v, %v", p, err)
	}
}

func TestFileRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/across.json")
	if err != nil {
		t.Fatal(err)
	}
	swap := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the golden file has no %q", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	for name, b := range map[string][]byte{
		"empty":              nil,
		"other format":       swap("tutti-finality/1", "tutti-finality/2"),
		"unknown field":      swap(`"success"`, `"luck": 1, "success"`),
		"trailing data":      append(bytes.Clone(good), "{}"...),
		"statement lies":     swap(`"amount": "25"`, `"amount": "26"`),
		"place lies":         swap(`"height": 3`, `"height": 4`),
		"credit lies":        swap(`"outcome": "credited"`, `"outcome": "returned"`),
		"no headers":         swap(`"headers": [`, `"headers": [], "was": [`),
		"upper-case hex":     bytes.ReplaceAll(good, []byte(`"receipt": "`), []byte(`"receipt": "AA`)),
		"cut envelope":       swap(`"transaction": "01`, `"transaction": "`),
		"unknown outcome":    bytes.ReplaceAll(good, []byte(`"outcome": "credited"`), []byte(`"outcome": "kept"`)),
		"too long":           append(bytes.Clone(good), bytes.Repeat([]byte(" "), proof.MaxFileBytes)...),
		"a credit by itself": []byte(`{"format":"tutti-credit/1"}`),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := proof.DecodeFinality(b); !errors.Is(err, proof.ErrMalformed) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzDecodeFinality(f *testing.F) {
	s := tell(f)
	for _, p := range []*proof.Finality{s.localProof, s.fullFlow} {
		b, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.DecodeFinality(b)
		if err != nil {
			return
		}
		if again := clone(t, p); !cmp.Equal(again.Statement(), p.Statement()) {
			t.Errorf("%+v became %+v", p.Statement(), again.Statement())
		}
		_, _ = p.Verify(s.net.Trust) // must not panic
	})
}

func FuzzDecodeBlock(f *testing.F) {
	s := tell(f)
	for _, b := range []*proof.Block{s.localBlock, s.debit, s.credit} {
		f.Add(b.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		block, err := proof.DecodeBlock(b)
		if err != nil {
			return
		}
		if !bytes.Equal(block.Append(nil), b) {
			t.Error("a second encoding of the same block")
		}
		_, _ = block.Open() // must not panic
		final := block.Final.Append(nil)
		if again, err := proof.DecodeFinal(final); err != nil || !bytes.Equal(again.Append(nil), final) {
			t.Errorf("final: %v", err)
		}
	})
}

// BenchmarkVerifyBlock is a reader's cost of one full block: certificate, body, ids and outcomes root.
func BenchmarkVerifyBlock(b *testing.B) {
	const count = 10_000
	n := prooftest.New(b, "benchmark", 1)
	txs := make([]tx.Signed, count)
	for i := range txs {
		txs[i] = n.Transfer(n.Account(0, 1), n.Account(0, 2), 1, uint32(i))
	}
	n.Add(0, txs, nil)
	enc := n.Finalise(0)[0].Append(nil)
	b.SetBytes(int64(len(enc)))
	for b.Loop() {
		block, err := proof.DecodeBlock(enc)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := block.Verify(n.Trust); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/tx")
}
