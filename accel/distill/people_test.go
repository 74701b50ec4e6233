package distill

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
	"sync"
	"testing"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
)

// groupOrder is the order of the groups of BLS12-381.
var groupOrder, _ = new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)

// person is an account with its secrets.
type person struct {
	sender uint64
	bls    *bls.SecretKey
	ed     ed25519.PrivateKey
}

// people are accounts at positions 1000, 1010, 1020 ..., whose BLS keys are in the directory at 3, 4, 5 ... They
// implement Keys, as a state would.
type people struct {
	all       []person
	directory *bls.Directory
	noBLS     map[uint64]bool
	noEd      map[uint64]bool
}

func seed(what string, i int) [32]byte {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte(what), uint64(i)))
}

// newPeople makes n accounts; secret gives the BLS key of each, or is nil for keys of their own.
func newPeople(t testing.TB, n int, secret func(i int) *bls.SecretKey) *people {
	t.Helper()
	p := &people{directory: bls.NewDirectory(n + 3), noBLS: map[uint64]bool{}, noEd: map[uint64]bool{}}
	for i := range n {
		who := person{sender: 1000 + 10*uint64(i), ed: ed25519.NewPrivateKey(seed("ed", i))}
		if secret != nil {
			who.bls = secret(i)
		} else {
			ikm := seed("bls", i)
			key, err := bls.NewSecretKey(ikm[:])
			if err != nil {
				t.Fatal(err)
			}
			who.bls = key
		}
		if err := p.directory.AddTrusted(uint32(3+i), who.bls.Public()); err != nil {
			t.Fatal(err)
		}
		p.all = append(p.all, who)
	}
	return p
}

// crowd are 40 accounts that tests only read.
var crowd = sync.OnceValue(func() *people { return newPeople(&testing.T{}, 40, nil) })

func (p *people) index(sender uint64) (int, bool) {
	i := int(sender-1000) / 10
	return i, sender >= 1000 && sender%10 == 0 && i < len(p.all)
}

func (p *people) Slots(senders []uint64, slots []uint32) int {
	for j, s := range senders {
		i, ok := p.index(s)
		if !ok || p.noBLS[s] {
			return j
		}
		slots[j] = uint32(3 + i)
	}
	return len(senders)
}

func (p *people) Ed25519(senders []uint64, keys [][32]byte) int {
	for j, s := range senders {
		i, ok := p.index(s)
		if !ok || p.noEd[s] {
			return j
		}
		keys[j] = p.all[i].ed.Public()
	}
	return len(senders)
}

var mainChain = Chain(sha256.Sum256([]byte("genesis")))

// body is a transfer of a sender's, different for each what.
func body(sender uint64, what uint32) *[BodyBytes]byte {
	var b [BodyBytes]byte
	binary.BigEndian.PutUint64(b[:], sender<<16)
	binary.BigEndian.PutUint32(b[16:], what)
	b[31] = byte(sender)
	return &b
}

func (p *people) submit(chain Chain, i int, what uint32) Submission {
	b := body(p.all[i].sender, what)
	return Submission{Body: *b, Signature: p.all[i].ed.Sign(chain.AppendMessage(nil, b))}
}

// round is a round with a transfer of everyone's.
func (p *people) round(t testing.TB, chain Chain) *Round {
	t.Helper()
	var subs []Submission
	for i := range p.all {
		subs = append(subs, p.submit(chain, len(p.all)-1-i, 7))
	}
	r, err := chain.NewRound(subs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// answer lets the sender of transfer i answer rightly.
func (p *people) answer(t testing.TB, r *Round, i int) {
	t.Helper()
	share, err := r.chain.Answer(p.all[i].bls, r.Body(i), r.Offer(i))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Answer(i, share); err != nil {
		t.Fatal(err)
	}
}

// batch is the batch that everyone but the late ones has answered for.
func (p *people) batch(t testing.TB, chain Chain, late ...int) *Batch {
	t.Helper()
	r := p.round(t, chain)
	isLate := map[int]bool{}
	for _, i := range late {
		isLate[i] = true
	}
	for i := range p.all {
		if !isLate[i] {
			p.answer(t, r, i)
		}
	}
	b, wrong, err := r.Finish(p.directory, p)
	if err != nil || len(wrong) != 0 {
		t.Fatal(wrong, err)
	}
	return b
}

// sign makes a batch's signature anew: all who are not stragglers, on any message.
func (p *people) sign(t testing.TB, b *Batch, msg []byte) {
	t.Helper()
	sum := new(big.Int)
	for i := range p.all {
		if !b.Straggler(i) {
			s := p.all[i].bls.Bytes()
			sum.Add(sum, new(big.Int).SetBytes(s[:]))
		}
	}
	var scalar [32]byte
	sum.Mod(sum, groupOrder).FillBytes(scalar[:])
	key, err := bls.SecretKeyFromBytes(scalar)
	if err != nil {
		t.Fatal(err)
	}
	b.aggregate = key.Sign(msg)
}

// copied is a batch that shares nothing with another.
func copied(t testing.TB, b *Batch) *Batch {
	t.Helper()
	c, err := Decode(b.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
