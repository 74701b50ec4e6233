package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"tutti/state/tx"
)

func ascending(ids []tx.ID) []tx.ID {
	slices.Sort(ids)
	return slices.Compact(ids)
}

// proveAll makes a proof, sends it through its encoding, and returns what it shows under root.
func proveAll(l *Ledger, root tx.Hash, ids []tx.ID) ([]Record, []byte, error) {
	p, err := l.AccountsProof(ids)
	if err != nil {
		return nil, nil, err
	}
	b := p.Append(nil)
	q, err := DecodeAccountsProof(b, ids)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(q.Append(nil), b) || q.Height != p.Height {
		return nil, nil, errors.New("it decodes to another proof")
	}
	records, err := VerifyAccountsProof(root, ids, q)
	return records, b, err
}

// fourPartitions is a ledger with two chunks in each of four partitions, some blocks after genesis.
func fourPartitions(t testing.TB) *Ledger {
	const accounts = 20_000
	p := testParams(t, 0, 1, accounts)
	p.Table = PartitionTable{{First: 4, Log2: 2}}
	p.AccountLimit = 2 * accounts
	o := testOptions(p, accounts)
	o.Verifier = trusting{}
	l := mustOpen(t, o)
	g := &load{&p, rand.New(rand.NewPCG(3, 4)), make([]uint32, accounts)}
	parent := p.GenesisBlock
	for h := uint64(1); h <= 4; h++ {
		step(t, l, parent, h, blockName(h), g.txs(300))
		if h < 4 {
			finalise(t, l, blockName(h))
		}
		parent = blockName(h)
	}
	return l
}

// TestAccountsProof compares proofs of many accounts with the proofs of each.
func TestAccountsProof(t *testing.T) {
	l := fourPartitions(t)
	root := l.base.root
	near := rapid.Uint32Range(0, 40)
	index := rapid.OneOf(near, rapid.Map(near, func(i uint32) uint32 { return 4080 + i }), rapid.Map(near, func(i uint32) uint32 { return 4980 + i }),
		rapid.Uint32Range(0, 1<<13), rapid.Uint32Range(0, AccountsPerPartition-1), rapid.Just(uint32(AccountsPerPartition-1)))
	id := rapid.Custom(func(t *rapid.T) tx.ID {
		return tx.MakeID(rapid.Uint16Range(4, 7).Draw(t, "partition"), index.Draw(t, "index"))
	})
	rapid.Check(t, func(t *rapid.T) {
		ids := ascending(rapid.SliceOfN(id, 1, 60).Draw(t, "ids"))
		records, b, err := proveAll(l, root, ids)
		if err != nil {
			t.Fatal(err)
		}
		singles := 0
		for i, id := range ids {
			p, err := l.AccountProof(id)
			if err != nil {
				t.Fatal(err)
			}
			r, exists, err := VerifyAccountProof(root, id, p)
			if err != nil || r != records[i] || exists != (records[i].Kind != KindNone) {
				t.Fatalf("account %s: %+v alone (%v), %+v among others", id, r, err, records[i])
			}
			singles += len(p.Append(nil))
		}
		if len(b) > singles+1 { // the bitmap also has a bit for the record
			t.Fatalf("%d bytes, %d single proofs have %d", len(b), len(ids), singles)
		}
		if ProofChunks(ids) > len(ids) {
			t.Fatal("more chunks than accounts")
		}
		// The proof is of these accounts and no others.
		other := slices.Clone(ids)
		switch i := rapid.IntRange(0, len(ids)-1).Draw(t, "other"); rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			other[i] ^= 1 << rapid.IntRange(0, 23).Draw(t, "bit")
		case 1:
			other = slices.Delete(other, i, i+1)
		case 2:
			other = append(other, id.Draw(t, "more"))
		}
		if other = ascending(other); slices.Equal(other, ids) {
			return
		}
		if q, err := DecodeAccountsProof(b, other); err == nil {
			if got, err := VerifyAccountsProof(root, other, q); err == nil {
				for i, id := range other {
					p, _ := l.AccountProof(id)
					if r, _, _ := VerifyAccountProof(root, id, p); r != got[i] {
						t.Fatalf("it shows %+v of %s, which has %+v", got[i], id, r)
					}
				}
			}
		}
		p, _ := DecodeAccountsProof(b, ids)
		if _, err := VerifyAccountsProof(root, other, p); len(other) != len(ids) && !errors.Is(err, ErrProof) && !errors.Is(err, ErrIDs) {
			t.Fatalf("a proof of %d accounts verifies for %d: %v", len(ids), len(other), err)
		}
	})
}

// TestAccountsProofRefuses changes every byte, and the parts.
func TestAccountsProofRefuses(t *testing.T) {
	s := newStory(t, 3)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	for range 3 {
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	root := l.base.root
	ids := []tx.ID{tx.MakeID(0, 3), tx.MakeID(0, 4), tx.MakeID(0, 5), tx.MakeID(0, 590), tx.MakeID(0, 9000)}
	records, good, err := proveAll(l, root, ids)
	if err != nil || records[0].Kind != KindSingle || records[4].Kind != KindNone {
		t.Fatal(records, err)
	}
	for i := 8; i < len(good); i++ {
		for _, bit := range []byte{1, 128} {
			b := slices.Clone(good)
			b[i] ^= bit
			q, err := DecodeAccountsProof(b, ids)
			if err == nil {
				_, err = VerifyAccountsProof(root, ids, q)
			}
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrProof) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "head": good[:40], "cut": good[:len(good)-1], "too long": append(slices.Clone(good), 0),
	} {
		if _, err := DecodeAccountsProof(b, ids); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string]func(p *AccountsProof){
		"a record more":     func(p *AccountsProof) { p.records = append(p.records, cell{}) },
		"a record less":     func(p *AccountsProof) { p.records = p.records[1:] },
		"a sum more":        func(p *AccountsProof) { p.sums = append(p.sums, 0) },
		"a sum less":        func(p *AccountsProof) { p.sums = p.sums[1:] },
		"a sibling more":    func(p *AccountsProof) { p.inner[3] = append(p.inner[3], [32]byte{}) },
		"a sibling less":    func(p *AccountsProof) { p.inner[3] = p.inner[3][1:] },
		"a node more":       func(p *AccountsProof) { p.upper[9] = append(p.upper[9], node{}) },
		"a node less":       func(p *AccountsProof) { p.upper[9] = p.upper[9][1:] },
		"overflow":          func(p *AccountsProof) { p.upper[20][0].sum = 1<<64 - 1 },
		"more than its sum": func(p *AccountsProof) { p.records[0].setBalance(1 << 62) },
		"sums overflow":     func(p *AccountsProof) { p.records[0].setBalance(1<<64 - 1); p.sums[0] = 1<<64 - 1 },
		"no record":         func(p *AccountsProof) { p.records[1][17] = 1 },
		"records swapped":   func(p *AccountsProof) { p.records[1], p.records[2] = p.records[2], p.records[1] },
	} {
		q, err := DecodeAccountsProof(good, ids)
		if err != nil {
			t.Fatal(err)
		}
		edit(q)
		if got, err := VerifyAccountsProof(root, ids, q); !errors.Is(err, ErrProof) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	q, _ := DecodeAccountsProof(good, ids)
	if _, err := VerifyAccountsProof(tx.Hash{}, ids, q); !errors.Is(err, ErrProof) {
		t.Errorf("under another root: %v", err)
	}
}

func TestAccountsProofLists(t *testing.T) {
	l := fourPartitions(t)
	for name, c := range map[string]struct {
		ids  []tx.ID
		want error
	}{
		"none":             {nil, ErrIDs},
		"twice":            {[]tx.ID{tx.MakeID(4, 1), tx.MakeID(4, 1)}, ErrIDs},
		"descending":       {[]tx.ID{tx.MakeID(4, 2), tx.MakeID(4, 1)}, ErrIDs},
		"no such place":    {[]tx.ID{tx.MakeID(4, AccountsPerPartition)}, ErrIDs},
		"no id":            {[]tx.ID{1<<48 | tx.MakeID(4, 1)}, ErrIDs},
		"too many":         {make([]tx.ID, MaxProofAccounts+1), ErrIDs},
		"kept by no shard": {[]tx.ID{tx.MakeID(4, 1), tx.MakeID(8, 1)}, ErrNotHere},
	} {
		if _, err := l.AccountsProof(c.ids); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want == ErrIDs {
			_, decode := DecodeAccountsProof(nil, c.ids)
			_, verify := VerifyAccountsProof(tx.Hash{}, c.ids, &AccountsProof{})
			if !errors.Is(decode, ErrIDs) || !errors.Is(verify, ErrIDs) {
				t.Errorf("%s: %v, %v", name, decode, verify)
			}
		}
	}
	all := make([]tx.ID, MaxProofAccounts)
	for i := range all {
		all[i] = tx.MakeID(5, uint32(i))
	}
	if _, b, err := proveAll(l, l.base.root, all); err != nil || len(b) > MaxProofAccounts*(RecordBytes+1) {
		t.Errorf("a whole chunk: %d bytes, %v", len(b), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.AccountsProof(all); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestPast reads as of a base while blocks become final above it.
func TestPast(t *testing.T) {
	s := newStory(t, 12)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	extend := func() {
		t.Helper()
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		extend()
	}
	var want, got, missed [storyAccounts + 12]cell
	then, late := &past{base: l.base}, &past{base: l.base}
	if !then.cellsAt(l, 0, 0, want[:]) || len(then.above) != StateLag {
		t.Fatal("the base itself can not be read")
	}
	for range 6 {
		extend()
		clear(got[:])
		if !then.cellsAt(l, 0, 0, got[:]) || got != want {
			t.Fatalf("at height %d, state %d reads differently", l.last.height, then.base.height)
		}
	}
	if late.cellsAt(l, 0, 0, missed[:]) {
		t.Error("it reads without the differences in between")
	}
	then.above = append(then.above, make([]passed, maxSteps-len(then.above))...)
	then.above[maxSteps-1].block = l.last
	extend()
	if then.follow(l) {
		t.Error("it holds more blocks than it may")
	}
}

// TestAccountsProofWhileFinal makes proofs while blocks become final.
func TestAccountsProofWhileFinal(t *testing.T) {
	const blocks = 40
	s := newStory(t, blocks)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	ids := make([]tx.ID, 0, 200)
	for i := range uint32(100) {
		ids = append(ids, tx.MakeID(0, i), tx.MakeID(0, i<<12|7))
	}
	ids = ascending(ids)
	done := make(chan error)
	go func() {
		var err error
		for range blocks {
			if err = s.extend(l); err != nil {
				break
			}
		}
		done <- err
	}()
	proven := map[uint64]bool{}
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		p, err := l.AccountsProof(ids)
		if errors.Is(err, ErrBehind) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m := s.models[p.Height]
		records, err := VerifyAccountsProof(m.root(), ids, p)
		if err != nil {
			t.Fatalf("state %d: %v", p.Height, err)
		}
		for i, id := range ids {
			if records[i] != m.accounts[id] {
				t.Fatalf("state %d: account %s has %+v", p.Height, id, records[i])
			}
		}
		proven[p.Height] = true
	}
	if !proven[blocks-StateLag] {
		t.Errorf("proven: %v", proven)
	}
}

// tenMillion is as much of a ledger of ten million accounts as the sizes of proofs depend on.
func tenMillion(t testing.TB) *Ledger {
	p := testParams(t, 0, 1, 10_000_000)
	l := &Ledger{table: newTable(&p)}
	l.view = newUpper(l.table.parts)
	for slot := range l.table.parts {
		var nodes []chunkNode
		for k := range uint32(10) { // 39,063 accounts in most
			nodes = append(nodes, chunkNode{k, node{sha256.Sum256([]byte{byte(slot), byte(k)}), 4_096_000_000}})
		}
		if err := l.view.set(slot, nodes); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.view.root(); err != nil {
		t.Fatal(err)
	}
	return l
}

// sizes are those of a single proof and of one for ids.
func (l *Ledger) sizes(ids []tx.ID) (single, together int) {
	one := AccountProof{record: cell{1}, upper: l.view.path(0, 3)}
	at, _ := positions(ids)
	p := &AccountsProof{records: make([]cell, len(ids)), sums: make([]uint64, ProofChunks(ids))}
	for i := range p.records {
		p.records[i][0] = 1
	}
	for level := range p.inner {
		at = lift(at, func(uint64) { p.inner[level] = append(p.inner[level], [32]byte{1}) })
	}
	for level := range p.upper {
		at = lift(at, func(x uint64) { p.upper[level] = append(p.upper[level], l.viewed(level, x^1)) })
	}
	return len(one.Append(nil)), len(p.Append(nil))
}

// TestProofSizes holds the sizes at ten million accounts in 256 partitions to what is promised.
func TestProofSizes(t *testing.T) {
	l := tenMillion(t)
	p := testParams(t, 0, 1, 10_000_000)
	rng := rand.New(rand.NewPCG(1, 2))
	lists := map[string][]tx.ID{}
	for len(lists["uniform"]) < 1000 {
		lists["uniform"] = ascending(append(lists["uniform"], p.GenesisID(rng.Uint64N(10_000_000))))
	}
	for i := range uint64(1000) {
		lists["neighbours"] = append(lists["neighbours"], tx.MakeID(77, 20_123+uint32(i)))
		lists["opened one after another"] = append(lists["opened one after another"], p.GenesisID(5_000_000+i))
	}
	for name, least := range map[string]float64{"uniform": 1.65, "neighbours": 10, "opened one after another": 1.65} {
		ids := ascending(lists[name])
		single, together := l.sizes(ids)
		times := float64(len(ids)*single) / float64(together)
		t.Logf("%d accounts, %s: %d bytes, %d single proofs of %d bytes: %.2f times as much", len(ids), name, together, len(ids), single, times)
		if single > 1024 || times < least {
			t.Errorf("%s: a single proof has %d bytes, together they are %.2f times smaller, want %.2f", name, single, times, least)
		}
	}
}

func TestGoldenAccountsProof(t *testing.T) {
	s := newStory(t, 4)
	l := mustOpen(t, s.options(vfs.NewMem(), true))
	for range 4 {
		if err := s.extend(l); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	for _, ids := range goldenLists {
		_, proof, err := proveAll(l, l.base.root, ids)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "proof of %v in %d chunks: %x\n", ids, ProofChunks(ids), proof)
	}
	golden(t, "accounts.golden", b.String())
}

var goldenLists = [][]tx.ID{
	{tx.MakeID(0, 3)},
	{tx.MakeID(0, 4), tx.MakeID(0, 5), tx.MakeID(0, 17)},
	{tx.MakeID(0, 603), tx.MakeID(0, 604), tx.MakeID(0, AccountsPerPartition-1)},
}

func FuzzAccountsProof(f *testing.F) {
	s := newStory(f, 0)
	l := mustOpen(f, s.options(vfs.NewMem(), true))
	root := l.base.root
	for i, ids := range goldenLists {
		p, err := l.AccountsProof(ids)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), p.Append(nil))
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		ids := goldenLists[int(which)%len(goldenLists)]
		p, err := DecodeAccountsProof(b, ids)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Append(nil), b) {
			t.Fatalf("%x is not the only encoding", b)
		}
		// Whatever verifies is true.
		records, err := VerifyAccountsProof(root, ids, p)
		for i := range records {
			if want := s.models[0].accounts[ids[i]]; records[i] != want {
				t.Fatalf("%x proves %+v (%v)", b, records[i], err)
			}
		}
	})
}

// benchLedger is one of -accounts accounts, on disk.
func benchLedger(b *testing.B) (*Ledger, *Params) {
	p := testParams(b, 0, 1, *benchAccounts)
	o := testOptions(p, *benchAccounts)
	o.FS, o.Dir = vfs.Default, b.TempDir()+"/ledger"
	return mustOpen(b, o), &p
}

// BenchmarkProofs times making and verifying proofs in CPU time: of one account, and of 1,000 at random and next to
// each other. -accounts says how many there are.
func BenchmarkProofs(b *testing.B) {
	l, p := benchLedger(b)
	rng := rand.New(rand.NewPCG(1, 2))
	perCall := func(b *testing.B, unit string, f func()) {
		c := cpuTime()
		for b.Loop() {
			f()
		}
		b.ReportMetric(float64((cpuTime()-c).Nanoseconds())/1e3/float64(b.N), unit)
	}
	id := p.GenesisID(*benchAccounts / 2)
	one, err := l.AccountProof(id)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("one/make", func(b *testing.B) {
		perCall(b, "cpu_us", func() {
			if _, err := l.AccountProof(id); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("one/verify", func(b *testing.B) {
		perCall(b, "cpu_us", func() {
			if _, exists, err := VerifyAccountProof(l.base.root, id, one); err != nil || !exists {
				b.Fatal(err)
			}
		})
		b.ReportMetric(float64(len(one.Append(nil))), "bytes")
	})
	var uniform, near []tx.ID
	for len(uniform) < 1000 {
		uniform = ascending(append(uniform, p.GenesisID(rng.Uint64N(*benchAccounts))))
	}
	for i := range uint32(1000) {
		near = append(near, tx.MakeID(77, 1000+i))
	}
	for name, ids := range map[string][]tx.ID{"uniform": uniform, "neighbours": near} {
		many, err := l.AccountsProof(ids)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/make", func(b *testing.B) {
			perCall(b, "cpu_us", func() {
				if _, err := l.AccountsProof(ids); err != nil {
					b.Fatal(err)
				}
			})
			b.ReportMetric(float64(ProofChunks(ids)), "chunks")
		})
		b.Run(name+"/verify", func(b *testing.B) {
			perCall(b, "cpu_us", func() {
				if _, err := VerifyAccountsProof(l.base.root, ids, many); err != nil {
					b.Fatal(err)
				}
			})
			size := len(many.Append(nil))
			b.ReportMetric(float64(size), "bytes")
			b.ReportMetric(float64(len(ids)*len(one.Append(nil)))/float64(size), "times_smaller")
		})
	}
}
