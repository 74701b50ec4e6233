package distill

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tutti/accel/bls"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// naiveRoot is the root by the words of the package comment.
func naiveRoot(chain Chain, bodies [][BodyBytes]byte) [32]byte {
	level := make([][32]byte, MaxCount)
	for i, b := range bodies {
		m := append([]byte("tutti/tx/1"), 0, 0, 0, 0, 0, 0)
		m = append(m, chain[:]...)
		m = append(m, 1)
		level[i] = sha256.Sum256(append(m, b[:]...))
	}
	for len(level) > 1 {
		for i := range len(level) / 2 {
			level[i] = sha256.Sum256(slices.Concat(level[2*i][:], level[2*i+1][:]))
		}
		level = level[:len(level)/2]
	}
	return level[0]
}

func TestGolden(t *testing.T) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "# What is signed, and encodings. Rewritten by go test ./accel/distill -update")
	// The same body and genesis as in the golden vectors of package state/tx: a transfer's message is the same there.
	var chain Chain
	for i := range chain {
		chain[i] = 0xE0 + byte(i)
	}
	b := [BodyBytes]byte(unhex(t, "0102030405061112131415162122232425262728313233344142434451520000"))
	m := chain.AppendMessage(nil, &b)
	fmt.Fprintf(&out, "transfer-message %x\ntransfer-id %x\n", m, sha256.Sum256(m))
	fmt.Fprintf(&out, "root-message %x\n", chain.RootMessage(sha256.Sum256(nil), 65536))
	p := newPeople(t, 9, nil)
	r := p.round(t, mainChain)
	o := r.Offer(5)
	fmt.Fprintf(&out, "offer-5-of-9 %x\n", o.Append(nil))
	share, err := mainChain.Answer(p.all[5].bls, r.Body(5), o)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "answer-5-of-9 %x\n", share)
	fmt.Fprintf(&out, "batch-none-late %x\n", p.batch(t, mainChain).Append(nil))
	fmt.Fprintf(&out, "batch-2-and-8-late %x\n", p.batch(t, mainChain, 2, 8).Append(nil))
	path := filepath.Join("testdata", "formats.golden")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("formats changed; if that is meant, run with -update and review\ngot:\n%s", &out)
	}
	const messageInStateTx = "74757474692f74782f31000000000000e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff010102030405061112131415162122232425262728313233344142434451520000"
	if hex.EncodeToString(m) != messageInStateTx {
		t.Error("a transfer's message is not that of package state/tx")
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBatches: whoever answers, the batch is true, says who was late, and survives its encoding.
func TestBatches(t *testing.T) {
	p := crowd()
	everyoneElse := make([]int, 39)
	for i := range everyoneElse {
		everyoneElse[i] = i
	}
	for _, late := range [][]int{nil, {0}, {39}, {3, 4, 17, 31}, everyoneElse} {
		b := p.batch(t, mainChain, late...)
		enc := b.Append(nil)
		if len(enc) != b.Bytes() {
			t.Errorf("%d bytes, said %d", len(enc), b.Bytes())
		}
		if b.Digest() != sha256.Sum256(enc) {
			t.Error("the digest is not that of the encoding")
		}
		again, err := Decode(enc)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := again.Verify(mainChain, p.directory, p)
		if err != nil {
			t.Fatalf("late %v: %v", late, err)
		}
		var bodies [][BodyBytes]byte
		for i := range again.Count() {
			bodies = append(bodies, *again.Body(i))
			if again.Straggler(i) != slices.Contains(late, i) {
				t.Errorf("late %v: transfer %d: %v", late, i, again.Straggler(i))
			}
			if ids[i] != sha256.Sum256(mainChain.AppendMessage(nil, body(p.all[i].sender, 7))) {
				t.Errorf("id of transfer %d", i)
			}
		}
		if again.Stragglers() != len(late) || again.Root() != naiveRoot(mainChain, bodies) {
			t.Errorf("late %v: %d stragglers, root %x", late, again.Stragglers(), again.Root())
		}
	}
}

// TestOffers: every sender comes to the root of the whole tree, and to another one from another transfer or place.
func TestOffers(t *testing.T) {
	p := crowd()
	r := p.round(t, mainChain)
	var bodies [][BodyBytes]byte
	for i := range r.Count() {
		bodies = append(bodies, *r.Body(i))
	}
	want := naiveRoot(mainChain, bodies)
	for i := range r.Count() {
		o, err := DecodeOffer(r.Offer(i).Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := mainChain.Root(r.Body(i), o); err != nil || got != want {
			t.Fatalf("transfer %d: root %x, %v, want %x", i, got, err, want)
		}
		if j, ok := r.Index(p.all[i].sender); !ok || j != i {
			t.Fatalf("sender of transfer %d is at %d, %v", i, j, ok)
		}
		if got, _ := mainChain.Root(body(p.all[i].sender, 8), o); got == want {
			t.Fatalf("transfer %d: another transfer has the same root", i)
		}
		o.Index ^= 1
		if got, _ := mainChain.Root(r.Body(i), o); got == want {
			t.Fatalf("transfer %d: another place has the same root", i)
		}
	}
	if _, ok := r.Index(1005); ok {
		t.Error("found a sender that is not there")
	}
	for _, o := range []Offer{{Index: 0, Count: 0}, {Index: 3, Count: 3}, {Index: -1, Count: 3}, {Index: 0, Count: MaxCount + 1}} {
		_, err := mainChain.Answer(p.all[0].bls, r.Body(0), &o)
		wantError(t, fmt.Sprintf("offer of %d of %d", o.Index, o.Count), err, ErrIndex)
	}
}

// TestRoundRefuses: what a broker can be given that is no part of a batch.
func TestRoundRefuses(t *testing.T) {
	p := crowd()
	_, err := mainChain.NewRound(nil)
	wantError(t, "no transfers", err, ErrCount)
	_, err = mainChain.NewRound(make([]Submission, MaxCount+1))
	wantError(t, "too many transfers", err, ErrCount)
	_, err = mainChain.NewRound([]Submission{p.submit(mainChain, 5, 1), p.submit(mainChain, 2, 1), p.submit(mainChain, 5, 2)})
	wantError(t, "two transfers of one sender", err, ErrDuplicate)
	r := p.round(t, mainChain)
	p.answer(t, r, 3)
	share, err := mainChain.Answer(p.all[3].bls, r.Body(3), r.Offer(3))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, "a second answer", r.Answer(3, share), ErrDuplicate)
	wantError(t, "index below", r.Answer(-1, share), ErrIndex)
	wantError(t, "index above", r.Answer(40, share), ErrIndex)
	share[100] ^= 1
	wantError(t, "no point", r.Answer(4, share), ErrShare)
	wantError(t, "zeros", r.Answer(4, [ShareBytes]byte{}), ErrShare)
	if r.Answers() != 1 {
		t.Errorf("%d answers", r.Answers())
	}
	silent := p.round(t, mainChain)
	_, _, err = silent.Finish(p.directory, p)
	wantError(t, "nobody answers", err, ErrNoSigners)
	p.answer(t, silent, 1)
	silent.shares[1] = r.shares[3]
	_, wrong, err := silent.Finish(p.directory, p)
	wantError(t, "the only answer is wrong", err, ErrNoSigners)
	if !slices.Equal(wrong, []int{1}) {
		t.Errorf("wrong %v", wrong)
	}
	unchecked := p.submit(mainChain, 1, 7)
	unchecked.Signature[3] ^= 1
	r, err = mainChain.NewRound([]Submission{p.submit(mainChain, 0, 7), unchecked})
	if err != nil {
		t.Fatal(err)
	}
	p.answer(t, r, 0)
	_, _, err = r.Finish(p.directory, p)
	wantError(t, "a transfer that was not checked", err, ErrStraggler)
}

// TestBadShares: wrong shares are found, their owners become stragglers, and the batch is true without them.
func TestBadShares(t *testing.T) {
	p := crowd()
	other := Chain(sha256.Sum256([]byte("another chain")))
	for name, spoil := range map[string]func(r *Round) (at []int, share [ShareBytes]byte){
		"signature of another root": func(r *Round) ([]int, [ShareBytes]byte) {
			o := r.Offer(7)
			o.Path[3][0] ^= 1
			s, _ := r.chain.Answer(p.all[7].bls, r.Body(7), o)
			return []int{7}, s
		},
		"signature of another count": func(r *Round) ([]int, [ShareBytes]byte) {
			o := r.Offer(0)
			o.Count++
			s, _ := r.chain.Answer(p.all[0].bls, r.Body(0), o)
			return []int{0}, s
		},
		"signature for another chain": func(r *Round) ([]int, [ShareBytes]byte) {
			s, _ := other.Answer(p.all[39].bls, r.Body(39), r.Offer(39))
			return []int{39}, s
		},
		"another's signature, often": func(r *Round) ([]int, [ShareBytes]byte) {
			s, _ := r.chain.Answer(p.all[1].bls, r.Body(1), r.Offer(1))
			return []int{2, 3, 20, 38}, s
		},
	} {
		r := p.round(t, mainChain)
		at, share := spoil(r)
		for i := range p.all {
			if slices.Contains(at, i) {
				if err := r.Answer(i, share); err != nil {
					t.Fatal(err)
				}
			} else if i != 11 { // who is late
				p.answer(t, r, i)
			}
		}
		b, wrong, err := r.Finish(p.directory, p)
		if err != nil || !slices.Equal(wrong, at) {
			t.Fatalf("%s: wrong %v, want %v; %v", name, wrong, at, err)
		}
		if b.Stragglers() != len(at)+1 {
			t.Errorf("%s: %d stragglers", name, b.Stragglers())
		}
		if _, err := b.Verify(mainChain, p.directory, p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoKeys: a sender without a BLS key is a straggler; one without the key that its signature needs is refused.
func TestNoKeys(t *testing.T) {
	p := newPeople(t, 5, nil)
	r := p.round(t, mainChain)
	for i := range p.all {
		p.answer(t, r, i)
	}
	p.noBLS[1000], p.noBLS[1010], p.noBLS[1040] = true, true, true
	b, wrong, err := r.Finish(p.directory, p)
	if err != nil || wrong != nil || b.Stragglers() != 3 || b.Straggler(2) || b.Straggler(3) {
		t.Fatalf("%v, wrong %v, %d stragglers", err, wrong, b.Stragglers())
	}
	if _, err := b.Verify(mainChain, p.directory, p); err != nil {
		t.Fatal(err)
	}
	p.noBLS[1020] = true
	_, err = b.Verify(mainChain, p.directory, p)
	wantError(t, "signer without a BLS key", err, ErrNoKey)
	delete(p.noBLS, 1020)
	p.noEd[1010] = true
	_, err = b.Verify(mainChain, p.directory, p)
	wantError(t, "straggler without an Ed25519 key", err, ErrNoKey)
	_, _, err = r.Finish(p.directory, p)
	wantError(t, "the same at the broker", err, ErrNoKey)
	delete(p.noEd, 1010)
	if err := p.directory.Remove(5); err != nil {
		t.Fatal(err)
	}
	_, err = b.Verify(mainChain, p.directory, p)
	wantError(t, "signer whose key is not in the directory", err, ErrNoKey)
	_, _, err = r.Finish(p.directory, p)
	wantError(t, "the same at the broker", err, ErrNoKey)
}

// TestRefusals: each thing that makes a batch untrue has its reason.
func TestRefusals(t *testing.T) {
	p := newPeople(t, 12, nil)
	good := p.batch(t, mainChain, 4, 9)
	other := Chain(sha256.Sum256([]byte("another chain")))
	abroad := p.batch(t, other, 4, 9)
	unsorted, twice := good.Append(nil), good.Append(nil)
	at := headBytes + 5*BodyBytes
	copy(unsorted[at:], good.Append(nil)[at+BodyBytes:at+2*BodyBytes])
	copy(unsorted[at+BodyBytes:], good.Append(nil)[at:at+BodyBytes])
	copy(twice[at:], twice[at-BodyBytes:at])
	_, err := Decode(unsorted)
	wantError(t, "unsorted senders", err, ErrOrder)
	_, err = Decode(twice)
	wantError(t, "a sender twice", err, ErrOrder)
	otherCount := good.Append(nil)
	otherCount[4]++
	_, err = Decode(otherCount)
	wantError(t, "another count than there are bodies", err, ErrMalformed)
	for _, tc := range []struct {
		name  string
		spoil func(b *Batch)
		want  error
	}{
		{"nothing", func(*Batch) {}, nil},
		{"an amount changed", func(b *Batch) { b.bodies[20] ^= 1 }, ErrRoot},
		{"a straggler's amount changed", func(b *Batch) { b.bodies[4*BodyBytes+20] ^= 1 }, ErrRoot},
		{"another root", func(b *Batch) { b.root[0] ^= 1 }, ErrRoot},
		{"the same bodies, signed for another chain", func(b *Batch) { *b = *copied(t, abroad) }, ErrRoot},
		{"the right root, signed for another chain", func(b *Batch) { p.sign(t, b, other.RootMessage(b.root, b.Count())) }, ErrAggregate},
		{"another count signed", func(b *Batch) { p.sign(t, b, mainChain.RootMessage(b.root, b.Count()+1)) }, ErrAggregate},
		{"another root signed", func(b *Batch) { p.sign(t, b, mainChain.RootMessage([32]byte{}, b.Count())) }, ErrAggregate},
		{"the right message signed again", func(b *Batch) { p.sign(t, b, mainChain.RootMessage(b.root, b.Count())) }, nil},
		{"a transfer taken off", func(b *Batch) {
			b.bodies = b.bodies[:11*BodyBytes]
			b.stragglers[1] &= 7
			b.root = naiveRootOf(b)
		}, ErrAggregate},
		{"no point", func(b *Batch) { b.aggregate[50] ^= 1 }, ErrAggregate},
		{"infinity for a signature", func(b *Batch) { b.aggregate = [96]byte{0xC0} }, ErrAggregate},
		{"negated signature", func(b *Batch) { b.aggregate[0] ^= 0x20 }, ErrAggregate},
		{"a signer who did not sign", func(b *Batch) {
			b.stragglers[0] &^= 1 << 4
			b.signatures = b.signatures[signatureBytes:]
		}, ErrAggregate},
		{"a straggler who did sign", func(b *Batch) {
			b.stragglers[0] |= 1
			s := p.submit(mainChain, 0, 7).Signature
			b.signatures = slices.Concat(s[:], b.signatures)
		}, ErrAggregate},
		{"a straggler's wrong signature", func(b *Batch) { b.signatures[64+40] ^= 1 }, ErrStraggler},
		{"a straggler's signature for another chain", func(b *Batch) {
			s := p.submit(other, 4, 7).Signature
			copy(b.signatures, s[:])
		}, ErrStraggler},
		{"stragglers' signatures exchanged", func(b *Batch) {
			b.signatures = slices.Concat(b.signatures[64:], b.signatures[:64])
		}, ErrStraggler},
	} {
		b := copied(t, good)
		tc.spoil(b)
		b = copied(t, b) // what is refused is well-formed
		_, err := b.Verify(mainChain, p.directory, p)
		wantError(t, tc.name, err, tc.want)
	}
	_, err = good.Verify(other, p.directory, p)
	wantError(t, "judged for another chain", err, ErrRoot)
	rotated, err := bls.NewSecretKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	msg := rotated.Public()
	if err := p.directory.Replace(3+7, msg, msg[:], rotated.ProvePossession(msg[:])); err != nil {
		t.Fatal(err)
	}
	_, err = good.Verify(mainChain, p.directory, p)
	wantError(t, "a signer's key changed since", err, ErrAggregate)
}

// naiveRootOf is the root of a batch's bodies on mainChain.
func naiveRootOf(b *Batch) [32]byte {
	var bodies [][BodyBytes]byte
	for i := range b.Count() {
		bodies = append(bodies, *b.Body(i))
	}
	return naiveRoot(mainChain, bodies)
}

// TestKeysThatCancel: two opposite keys add up to infinity, under which nothing is signed; with a third they do no
// harm. Equal keys count twice.
func TestKeysThatCancel(t *testing.T) {
	ikm := seed("bls", 77)
	key, err := bls.NewSecretKey(ikm[:])
	if err != nil {
		t.Fatal(err)
	}
	s := key.Bytes()
	var negative [32]byte
	new(big.Int).Sub(groupOrder, new(big.Int).SetBytes(s[:])).FillBytes(negative[:])
	opposite, err := bls.SecretKeyFromBytes(negative)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeople(t, 4, func(i int) *bls.SecretKey {
		return []*bls.SecretKey{key, opposite, key, key}[i]
	})
	b := p.batch(t, mainChain) // key + opposite + key + key
	if _, err := b.Verify(mainChain, p.directory, p); err != nil {
		t.Fatal(err)
	}
	b.stragglers[0] = 0b1100
	for i := 2; i < 4; i++ {
		s := p.submit(mainChain, i, 7).Signature
		b.signatures = append(b.signatures, s[:]...)
	}
	for name, aggregate := range map[string][96]byte{"infinity": {0xC0}, "some signature": b.aggregate} {
		b.aggregate = aggregate
		_, err := b.Verify(mainChain, p.directory, p)
		wantError(t, name, err, ErrInfinity)
	}
	r := p.round(t, mainChain)
	p.answer(t, r, 0)
	p.answer(t, r, 1)
	_, _, err = r.Finish(p.directory, p)
	wantError(t, "answers that cancel out", err, ErrNoSigners)
}

// TestEveryByteCounts changes any byte of a true batch: no such batch is true.
func TestEveryByteCounts(t *testing.T) {
	p := newPeople(t, 6, nil)
	good := p.batch(t, mainChain, 1).Append(nil)
	rapid.Check(t, func(t *rapid.T) {
		enc := bytes.Clone(good)
		at := rapid.IntRange(0, len(enc)-1).Draw(t, "at")
		enc[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "change"))
		b, err := Decode(enc)
		if err == nil {
			_, err = b.Verify(mainChain, p.directory, p)
		}
		if err == nil {
			t.Fatal("the changed batch is true")
		}
	})
}

func TestCheck(t *testing.T) {
	p := newPeople(t, 30, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	var subs []Submission
	var want []bool
	for range 1200 {
		i := rng.IntN(30)
		s := p.submit(mainChain, i, rng.Uint32())
		ok := true
		switch rng.IntN(8) {
		case 0:
			s.Signature[rng.IntN(64)] ^= 1
			ok = false
		case 1:
			binary.BigEndian.PutUint64(s.Body[:], 5<<16) // nobody's
			ok = false
		}
		subs, want = append(subs, s), append(want, ok)
	}
	got := make([]bool, len(subs))
	for i := range got {
		got[i] = rng.IntN(2) == 0 // whatever was there before
	}
	mainChain.Check(p, subs, got)
	if !slices.Equal(got, want) {
		t.Error("wrong verdicts")
	}
}

// fewKeys map every sender to one of few accounts.
type fewKeys struct{ *people }

func (k fewKeys) Slots(senders []uint64, slots []uint32) int {
	for j, s := range senders {
		slots[j] = uint32(3 + s%uint64(len(k.all)))
	}
	return len(senders)
}

// TestLargestBatch takes MaxCount transfers through everything, with few distinct keys.
func TestLargestBatch(t *testing.T) {
	p := newPeople(t, 16, nil)
	subs := make([]Submission, MaxCount)
	for i := range subs {
		subs[i].Body = *body(uint64(i), 3)
	}
	r, err := mainChain.NewRound(subs)
	if err != nil {
		t.Fatal(err)
	}
	var shares [16][ShareBytes]byte
	for i := range shares {
		if shares[i], err = mainChain.Answer(p.all[i].bls, r.Body(i), r.Offer(i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range subs {
		if err := r.Answer(i, shares[i%16]); err != nil {
			t.Fatal(err)
		}
	}
	b, wrong, err := r.Finish(p.directory, fewKeys{p})
	if err != nil || wrong != nil {
		t.Fatal(wrong, err)
	}
	again := copied(t, b)
	if ids, err := again.Verify(mainChain, p.directory, fewKeys{p}); err != nil || len(ids) != MaxCount {
		t.Fatal(err)
	}
	all := b.Append(nil)
	all[headBytes+MaxCount*BodyBytes] = 0xFE // all but the first are stragglers
	for i := 1; i < MaxCount/8; i++ {
		all[headBytes+MaxCount*BodyBytes+i] = 0xFF
	}
	all = append(all, make([]byte, (MaxCount-1)*signatureBytes)...)
	if len(all) != MaxBatchBytes {
		t.Errorf("longest batch has %d bytes", len(all))
	}
	if _, err := Decode(all); err != nil {
		t.Error(err)
	}
}

func TestMalformed(t *testing.T) {
	good := crowd().batch(t, mainChain, 2).Append(nil)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	bitmap := headBytes + 40*BodyBytes
	for name, enc := range map[string][]byte{
		"empty":     {},
		"short":     good[:headBytes-1],
		"no bodies": good[:headBytes],
		"version":   edit(func(b []byte) []byte { b[0] = 2; return b }),
		"count 0":   edit(func(b []byte) []byte { b[4] = 0; return b }),
		"too many":  edit(func(b []byte) []byte { b[2], b[4] = 1, 1; return b }),
		"huge":      edit(func(b []byte) []byte { b[1] = 0xFF; return b }),
		"cut":       good[:len(good)-1],
		"longer":    append(bytes.Clone(good), 0),
		"all late": edit(func(b []byte) []byte {
			for i := range 5 {
				b[bitmap+i] = 0xFF
			}
			return append(b, make([]byte, 39*64)...)
		}),
		"one late too many": edit(func(b []byte) []byte { b[bitmap] |= 1; return b }),
		"one late too few":  edit(func(b []byte) []byte { b[bitmap] = 0; return b }),
	} {
		if _, err := Decode(enc); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := newPeople(t, 3, nil)
	odd := p.batch(t, mainChain).Append(nil)
	odd[headBytes+3*BodyBytes] |= 1 << 3
	if _, err := Decode(append(odd, make([]byte, 64)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("bits beyond the last transfer: %v", err)
	}
	small := p.batch(t, mainChain, 1).Append(nil)
	section := slices.Concat(small, good, small)
	batches, err := DecodeSection(section, 3)
	if err != nil || len(batches) != 3 || batches[1].Count() != 40 || !bytes.Equal(batches[2].Append(nil), small) {
		t.Errorf("section: %d batches, %v", len(batches), err)
	}
	for name, f := range map[string]func() ([]*Batch, error){
		"empty section":    func() ([]*Batch, error) { return DecodeSection(nil, 3) },
		"too many batches": func() ([]*Batch, error) { return DecodeSection(section, 2) },
		"rest":             func() ([]*Batch, error) { return DecodeSection(append(section, 1), 9) },
	} {
		if _, err := f(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	offer := crowd().round(t, mainChain).Offer(3).Append(nil)
	for name, enc := range map[string][]byte{
		"empty": {}, "short": offer[1:], "long": append(bytes.Clone(offer), 0),
		"index": append([]byte{0, 0, 0, 40}, offer[4:]...), "count": slices.Concat(offer[:4], []byte{0, 1, 0, 1}, offer[8:]),
	} {
		if _, err := DecodeOffer(enc); !errors.Is(err, ErrMalformed) {
			t.Errorf("offer, %s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	p := newPeople(f, 9, nil)
	f.Add(p.batch(f, mainChain).Append(nil))
	f.Add(p.batch(f, mainChain, 2, 8).Append(nil))
	f.Add(slices.Concat(p.batch(f, mainChain, 8).Append(nil), p.batch(f, mainChain).Append(nil)))
	f.Fuzz(func(t *testing.T, enc []byte) {
		batches, err := DecodeSection(enc, 4)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrOrder) {
				t.Fatal(err)
			}
			return
		}
		var back []byte
		for _, b := range batches {
			back = b.Append(back)
			if b.Count() < 1 || b.Count() > MaxCount || b.Stragglers() >= b.Count() {
				t.Fatalf("%d stragglers of %d", b.Stragglers(), b.Count())
			}
			for i := 1; i < b.Count(); i++ {
				if Sender(b.Body(i)) <= Sender(b.Body(i-1)) {
					t.Fatal("senders out of order")
				}
			}
			if len(b.senders(true)) != b.Stragglers() || len(b.senders(false)) != b.Count()-b.Stragglers() {
				t.Fatal("the bits are counted in two ways")
			}
			_, _ = b.Verify(mainChain, p.directory, p)
		}
		if !bytes.Equal(back, enc) {
			t.Fatal("two encodings of one section")
		}
	})
}

func FuzzDecodeOffer(f *testing.F) {
	f.Add(crowd().round(f, mainChain).Offer(3).Append(nil))
	f.Fuzz(func(t *testing.T, enc []byte) {
		o, err := DecodeOffer(enc)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Append(nil), enc) {
			t.Fatal("two encodings of one offer")
		}
		if _, err := mainChain.Root(body(1, 2), o); err != nil {
			t.Fatal(err)
		}
	})
}
