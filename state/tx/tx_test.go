package tx

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"tutti/accel/distill"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fill makes n bytes that count up from start.
func fill(dst []byte, start byte) {
	for i := range dst {
		dst[i] = start + byte(i)
	}
}

func sampleTransfer() Signed {
	s := Signed{Tx: Tx{
		Kind: Transfer, From: MakeID(0x0102, 0x03040506), To: MakeID(0x1112, 0x13141516),
		Amount: 0x2122232425262728, Nonce: 0x31323334, Expiry: 0x41424344, FeeClass: 0x5152,
	}}
	fill(s.Signature[:], 0x60)
	return s
}

func sampleOpen() Signed {
	s := sampleTransfer()
	s.Kind, s.To = Open, 0
	fill(s.Key[:], 0xa0)
	return s
}

func sampleOpenBLS() Signed {
	s := sampleOpen()
	s.BLS = new(BLSKey)
	fill(s.BLS.Key[:], 0x01)
	fill(s.BLS.Possession[:], 0x80)
	return s
}

func sampleReceipt(ret bool) Receipt {
	r := Receipt{From: MakeID(1, 2), To: MakeID(3, 4), Amount: 5, Return: ret}
	fill(r.Tx[:], 0x40)
	return r
}

func sampleBundle(source uint16) Bundle {
	return Bundle{Source: source, Proof: []byte("proof"), First: 77, Receipts: []Receipt{sampleReceipt(false), sampleReceipt(true)}}
}

func sampleBody() Body {
	return Body{
		Txs:      []Signed{sampleTransfer(), sampleOpen(), sampleOpenBLS()},
		Bundles:  []Bundle{sampleBundle(1), {Source: 9, Proof: []byte{1}, First: 3, Receipts: []Receipt{}}},
		Outcomes: []bool{true, false, true},
	}
}

// batchOf is the encoding of a batch of transfers, those with a signature stragglers'. It is well-formed, no more.
func batchOf(txs ...Signed) []byte {
	b := []byte{1, 0, 0, 0, byte(len(txs))}
	b = append(b, bytes.Repeat([]byte{0xa0}, 32+96)...)
	late := make([]byte, (len(txs)+7)/8)
	for i := range txs {
		b = append(b, txs[i].AppendBody(nil)[1:]...)
		if txs[i].Signature != [64]byte{} {
			late[i/8] |= 1 << (i % 8)
		}
	}
	b = append(b, late...)
	for i := range txs {
		if txs[i].Signature != [64]byte{} {
			b = append(b, txs[i].Signature[:]...)
		}
	}
	return b
}

// sampleBatch has two transfers, the second of them a straggler's.
func sampleBatch() []byte {
	one, two := sampleTransfer(), sampleTransfer()
	one.Signature = [64]byte{}
	two.From++
	return batchOf(one, two)
}

// distilledBody is sampleBody with sampleBatch.
func distilledBody() *Body {
	y := sampleBody()
	batch, err := distill.Decode(sampleBatch())
	if err != nil {
		panic(err)
	}
	z, err := NewBody(y.Txs, []*distill.Batch{batch})
	if err != nil {
		panic(err)
	}
	z.Bundles, z.Outcomes = y.Bundles, append(y.Outcomes, false, true)
	return z
}

func genesis() (h Hash) {
	fill(h[:], 0xe0)
	return h
}

// TestGolden pins every encoding and digest of the package.
func TestGolden(t *testing.T) {
	var out bytes.Buffer
	put := func(name string, b []byte) { fmt.Fprintf(&out, "%s %s\n", name, hex.EncodeToString(b)) }
	hash := func(name string, h Hash) { put(name, h[:]) }
	for _, c := range []struct {
		name string
		tx   Signed
	}{{"transfer", sampleTransfer()}, {"open", sampleOpen()}, {"open-bls", sampleOpenBLS()}} {
		put(c.name, c.tx.Append(nil))
		put(c.name+"-message", c.tx.Message(genesis()))
		hash(c.name+"-id", c.tx.TxID(genesis()))
	}
	bls := sampleOpenBLS()
	put("possession-message", PossessionMessage(genesis(), bls.Key, bls.BLS.Key))
	r, ret := sampleReceipt(false), sampleReceipt(true)
	put("receipt", r.Append(nil))
	put("receipt-return", ret.Append(nil))
	hash("receipt-leaf", r.Leaf(1, 2, 3))
	b := sampleBundle(7)
	put("bundle", b.Append(nil))
	put("body-empty", (&Body{}).Append(nil))
	y := sampleBody()
	put("body", y.Append(nil))
	put("body-distilled", distilledBody().Append(nil))
	id := bls.TxID(genesis())
	hash("tx-leaf-success", TxLeaf(id, true))
	hash("tx-leaf-failure", TxLeaf(id, false))
	for _, o := range []CreditOutcome{Credited, Returned, Treasury} {
		hash("credit-leaf-"+o.String(), CreditLeaf(r.Leaf(1, 2, 3), o))
	}
	for _, id := range []ID{0, 1, MakeID(0, 4095), MakeID(255, 0), MakeID(0x0102, 0x03040506), 1<<48 - 1} {
		fmt.Fprintf(&out, "id-%012x %s\n", uint64(id), id)
	}

	const file = "testdata/golden.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("encodings changed (-golden +now); if that is meant, run with -update and review:\n%s", diff)
	}
}

func genSigned(t *rapid.T) Signed {
	u48 := func(name string) ID { return ID(rapid.Uint64Max(1<<48-1).Draw(t, name)) }
	fillRandom := func(b []byte, name string) { copy(b, rapid.SliceOfN(rapid.Byte(), len(b), len(b)).Draw(t, name)) }
	s := Signed{Tx: Tx{
		Kind: rapid.SampledFrom([]Kind{Transfer, Open}).Draw(t, "kind"), From: u48("from"),
		Amount: rapid.Uint64().Draw(t, "amount"), Nonce: rapid.Uint32().Draw(t, "nonce"),
		Expiry: rapid.Uint32().Draw(t, "expiry"), FeeClass: rapid.Uint16().Draw(t, "class"),
	}}
	if s.Kind == Transfer {
		s.To = u48("to")
	} else {
		fillRandom(s.Key[:], "key")
		if rapid.Bool().Draw(t, "bls") {
			s.BLS = new(BLSKey)
			fillRandom(s.BLS.Key[:], "bls key")
			fillRandom(s.BLS.Possession[:], "bls proof")
		}
	}
	fillRandom(s.Signature[:], "signature")
	return s
}

func genReceipt(t *rapid.T) Receipt {
	r := Receipt{From: genID(t), To: genID(t), Amount: rapid.Uint64().Draw(t, "amount"), Return: rapid.Bool().Draw(t, "return")}
	copy(r.Tx[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "tx"))
	return r
}

func TestBodyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var txs, all []Signed
		for range rapid.IntRange(0, 20).Draw(t, "txs") {
			s := genSigned(t)
			if b := s.Append(nil); len(b) != s.WireBytes() {
				t.Fatalf("%d wire bytes, WireBytes says %d", len(b), s.WireBytes())
			}
			txs = append(txs, s)
		}
		all = slices.Clone(txs)
		var batches []*distill.Batch
		for range rapid.IntRange(0, 3).Draw(t, "batches") {
			var in []Signed
			for i := range rapid.IntRange(1, 20).Draw(t, "transfers") {
				s := genSigned(t)
				s.Tx = Tx{Kind: Transfer, From: ID(i), To: s.From, Amount: s.Amount, Nonce: s.Nonce, Expiry: s.Expiry, FeeClass: s.FeeClass}
				if i == 0 || rapid.Bool().Draw(t, "in time") {
					s.Signature = [64]byte{}
				}
				in = append(in, s)
			}
			batch, err := distill.Decode(batchOf(in...))
			if err != nil {
				t.Fatal(err)
			}
			batches, all = append(batches, batch), append(all, in...)
		}
		y, err := NewBody(txs, batches)
		if err != nil || y.Len() != len(all) {
			t.Fatal(y.Len(), len(all), err)
		}
		y.Outcomes = []bool{}
		for i := range all {
			y.Outcomes = append(y.Outcomes, rapid.Bool().Draw(t, "outcome"))
			if *y.Tx(i) != all[i].Tx || y.Signed(i) != all[i] {
				t.Fatalf("transaction %d is %+v, want %+v", i, y.Signed(i), all[i])
			}
		}
		source := uint16(0)
		for range rapid.IntRange(0, 3).Draw(t, "bundles") {
			source += uint16(rapid.IntRange(1, 100).Draw(t, "step"))
			y.Bundles = append(y.Bundles, Bundle{
				Source: source, Proof: rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "proof"),
				First: rapid.Uint64().Draw(t, "first"), Receipts: rapid.SliceOfN(rapid.Custom(genReceipt), 0, 3).Draw(t, "receipts"),
			})
		}
		b := y.Append(nil)
		back, err := DecodeBody(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(y, back, cmp.AllowUnexported(Body{}, distill.Batch{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("round trip (-in +out):\n%s", diff)
		}
		// Every shorter prefix is refused, or is itself a body that ends at a section's boundary.
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if p, err := DecodeBody(b[:cut]); err == nil && !bytes.Equal(p.Append(nil), b[:cut]) {
			t.Fatalf("prefix of %d bytes has a second encoding", cut)
		}
	})
}

// TestIDIgnoresSignature pins that a retry with another signature is the same transaction.
func TestIDIgnoresSignature(t *testing.T) {
	a, b := sampleTransfer(), sampleTransfer()
	b.Signature[0] ^= 1
	if a.TxID(genesis()) != b.TxID(genesis()) {
		t.Error("the id depends on the signature")
	}
	if a.TxID(genesis()) == a.TxID(Hash{}) {
		t.Error("the id does not depend on the chain")
	}
}

// section frames content as a body section.
func section(t SectionType, content []byte) []byte {
	n := len(content)
	return append([]byte{byte(t), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, content...)
}

func TestRefusals(t *testing.T) {
	edit := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	transfer, open, bls := sampleTransfer(), sampleOpen(), sampleOpenBLS()
	tw, ow, bw := transfer.Append(nil), open.Append(nil), bls.Append(nil)
	r := sampleReceipt(false)
	u1, u2 := sampleBundle(1), sampleBundle(2)
	y := sampleBody()
	body := y.Append(nil)
	one := func(b []byte) error { _, err := Decode(b); return err }
	many := func(b []byte) error { _, err := DecodeMany(b, 2); return err }
	receipt := func(b []byte) error { _, err := DecodeReceipt(b); return err }
	bundle := func(b []byte) error { _, err := DecodeBundle(b); return err }
	bodies := func(b []byte) error { _, err := DecodeBody(b); return err }
	v := []byte{BodyVersion}
	signed := section(SectionSigned, tw)
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		in     []byte
		want   string
	}{
		{"tx empty", one, nil, "empty"},
		{"tx kind 0", one, edit(tw, 0, 0), "unknown kind 0"},
		{"tx kind 3", one, edit(tw, 0, 3), "unknown kind 3"},
		{"tx trailing", one, append(bytes.Clone(tw), 0), "1 bytes too many"},
		{"tx cut", one, tw[:len(tw)-1], "too short for a transfer"},
		{"transfer flags", one, edit(tw, 32, FlagBLSByte), "unknown flags"},
		{"open flags", one, edit(ow, 26, 2), "unknown flags"},
		{"open padding", one, edit(ow, 60, 1), "padding"},
		{"open bls cut", one, bw[:150], "BLS key"},
		{"many over the limit", many, bytes.Repeat(tw, 3), "more than 2"},
		{"many with a bad one", many, append(bytes.Clone(tw), 9), "at transaction 1"},
		{"receipt flag", receipt, edit(r.Append(nil), 52, 2), "return flag"},
		{"receipt trailing", receipt, append(r.Append(nil), 0), "too many"},
		{"bundle count", bundle, edit(u1.Append(nil), 2+4+5+8, 0xff), "limit"},
		{"bundle proof length", bundle, edit(u1.Append(nil), 2, 0xff), "proof over"},
		{"bundle trailing", bundle, append(u1.Append(nil), 0), "too many"},
		{"body empty", bodies, nil, "version 0"},
		{"body version", bodies, []byte{2}, "version 2"},
		{"body section cut", bodies, append(v, 1, 0), "section header"},
		{"body empty section", bodies, append(v, 1, 0, 0, 0, 0), "empty section"},
		{"body distilled", bodies, append(v, section(SectionDistilled, []byte{1})...), "no batch"},
		{"body distilled cut", bodies, append(v, section(SectionDistilled, sampleBatch()[:200])...), "stragglers"},
		{"body distilled flags", bodies, append(v, section(SectionDistilled, edit(sampleBatch(), 133+31, 1))...), "batch 0, transfer 0"},
		{"body distilled order", bodies, append(v, section(SectionDistilled, edit(sampleBatch(), 133, 0xff))...), "strictly increasing"},
		{"body with too many batches", bodies, append(v, section(SectionDistilled, bytes.Repeat(sampleBatch(), MaxBatches+1))...), "more than 64 batches"},
		{"body distilled without outcomes", bodies, append(v, section(SectionDistilled, sampleBatch())...), "0 outcome bytes for 2"},
		{"body system", bodies, append(v, section(SectionSystem, []byte{1})...), "not known to this build"},
		{"body unknown section", bodies, append(v, section(6, []byte{1})...), "not known to this build"},
		{"body section twice", bodies, append(append(v, signed...), signed...), "section 1 after section 1"},
		{"body without outcomes", bodies, append(v, signed...), "0 outcome bytes for 1"},
		{"body outcome padding", bodies, edit(body, len(body)-1, 0x0d), "padding"},
		{"body bundle order", bodies, append(v, section(SectionReceipts, u1.Append(u2.Append(nil)))...), "not ascending"},
		{"body bundle twice", bodies, append(v, section(SectionReceipts, u1.Append(u1.Append(nil)))...), "not ascending"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.decode(c.in)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FlagBLSByte is the low byte of FlagBLS.
const FlagBLSByte = byte(FlagBLS)

func TestBundleLimit(t *testing.T) {
	var b []byte
	for i := range MaxBundles + 1 {
		u := Bundle{Source: uint16(i + 1)}
		b = u.Append(b)
	}
	_, err := DecodeBody(append([]byte{BodyVersion}, section(SectionReceipts, b)...))
	if err == nil || !strings.Contains(err.Error(), "more than 64 bundles") {
		t.Fatalf("got %v", err)
	}
}

// canonical decodes b and, if that works, requires that the value encodes to b again.
func canonical(t *testing.T, b []byte, decode func([]byte) (interface{ Append([]byte) []byte }, error)) {
	v, err := decode(b)
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Fatalf("error %v does not wrap ErrMalformed", err)
		}
		return
	}
	if got := v.Append(nil); !bytes.Equal(got, b) {
		t.Fatalf("decoded %x, encodes to %x", b, got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []Signed{sampleTransfer(), sampleOpen(), sampleOpenBLS()} {
		f.Add(s.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical(t, b, func(b []byte) (interface{ Append([]byte) []byte }, error) { return Decode(b) })
	})
}

func FuzzDecodeMany(f *testing.F) {
	y := sampleBody()
	var b []byte
	for i := range y.Txs {
		b = y.Txs[i].Append(b)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 5
		canonical(t, b, func(b []byte) (interface{ Append([]byte) []byte }, error) {
			txs, err := DecodeMany(b, limit)
			if len(txs) > limit {
				t.Fatalf("%d transactions", len(txs))
			}
			return many(txs), err
		})
	})
}

type many []Signed

func (m many) Append(b []byte) []byte {
	for i := range m {
		b = m[i].Append(b)
	}
	return b
}

func FuzzDecodeReceipt(f *testing.F) {
	r := sampleReceipt(true)
	f.Add(r.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical(t, b, func(b []byte) (interface{ Append([]byte) []byte }, error) { return DecodeReceipt(b) })
	})
}

func FuzzDecodeBundle(f *testing.F) {
	u := sampleBundle(3)
	f.Add(u.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical(t, b, func(b []byte) (interface{ Append([]byte) []byte }, error) { return DecodeBundle(b) })
	})
}

func FuzzDecodeBody(f *testing.F) {
	y := sampleBody()
	f.Add(y.Append(nil))
	f.Add(distilledBody().Append(nil))
	f.Add([]byte{BodyVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical(t, b, func(b []byte) (interface{ Append([]byte) []byte }, error) { return DecodeBody(b) })
	})
}

func BenchmarkDecodeMany(b *testing.B) {
	s := sampleTransfer()
	wire := bytes.Repeat(s.Append(nil), 10000)
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		if _, err := DecodeMany(wire, MaxBodyTx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10000, "ns/tx")
}

func BenchmarkTxID(b *testing.B) {
	s := sampleTransfer()
	b.ReportAllocs()
	for b.Loop() {
		s.TxID(genesis())
	}
}

func TestTxLeaves(t *testing.T) {
	for _, n := range []int{0, 1, 7, 100} {
		ids, ok, dst := make([]Hash, n), make([]bool, n), make([][32]byte, n+1)
		for i := range ids {
			ids[i], ok[i] = sha256.Sum256([]byte{byte(i)}), i%3 > 0
		}
		TxLeaves(dst, ids, ok)
		for i := range ids {
			if TxLeaf(ids[i], ok[i]) != Hash(dst[i]) {
				t.Errorf("leaf %d of %d differs", i, n)
			}
		}
	}
}
