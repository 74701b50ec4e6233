// Package distill has the benchmark rows of package distill. An item is a transfer, but where a row says otherwise.
//
// Every account has BLS and Ed25519 keys of its own, chosen at random: sums of related keys would meet equal points.
// The accounts of a batch are spread over the whole directory. "verify-95" is a batch that 95 in 100 senders have
// answered for, from its encoding to the verdict, everything included; "ids-and-root" is that part of it alone.
// References: "verify-0" is every transfer signed on its own, checked by accel/ed25519; the backend "blst+stdlib" is
// the same batch checked with crypto/sha256, blst's own sum and pairing, and crypto/ed25519.
//
// The broker's rows: "broker-round" sorts and builds the tree, "broker-all" goes on to take every answer and make the
// batch, "broker-all-8-wrong" with eight answers wrong. The sender's rows have one item.
package distill

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/ed25519"
	"tutti/accel/internal/rows"
)

// Rows are the rows of package distill. The first one's Setup takes ten seconds, for keys.
func Rows() []rows.Row { return RowsFor(65536, 16384) }

// RowsFor are the rows for batches of the given sizes.
func RowsFor(sizes ...int) []rows.Row {
	shared := sync.OnceValues(func() (*world, error) { return newWorld(slices.Max(sizes)) })
	row := func(name string, n int, setup func(*world) (func(), error)) rows.Row {
		return rows.Row{Name: name, Items: n, Setup: func() (func(), error) {
			w, err := shared()
			if err != nil {
				return nil, err
			}
			return setup(w)
		}}
	}
	var all []rows.Row
	for _, n := range sizes {
		for _, percent := range []int{100, 99, 95} {
			name := fmt.Sprintf("distill/verify-%d/%d/", percent, n)
			all = append(all, row(name+"accel", n, func(w *world) (func(), error) { return w.verify(n, percent) }))
			for _, ref := range references {
				all = append(all, row(name+ref.name, n, func(w *world) (func(), error) { return w.reference(n, percent, ref.verify) }))
			}
		}
		all = append(all,
			row(fmt.Sprintf("distill/verify-0/%d/accel", n), n, func(w *world) (func(), error) { return w.individual(n) }),
			row(fmt.Sprintf("distill/ids-and-root/%d/accel", n), n, func(w *world) (func(), error) { return w.root(n) }))
	}
	n := slices.Min(sizes)
	return append(all,
		row(fmt.Sprintf("distill/broker-round/%d/accel", n), n, func(w *world) (func(), error) { return w.round(n) }),
		row(fmt.Sprintf("distill/broker-all/%d/accel", n), n, func(w *world) (func(), error) { return w.broker(n, 0) }),
		row(fmt.Sprintf("distill/broker-all-8-wrong/%d/accel", n), n, func(w *world) (func(), error) { return w.broker(n, 8) }),
		row("distill/sender-root/1/accel", 1, func(w *world) (func(), error) { return w.sender(false) }),
		row("distill/sender-answer/1/accel", 1, func(w *world) (func(), error) { return w.sender(true) }))
}

// world is accounts with their keys. Account i is at position 16*i, its BLS key at i in the directory.
type world struct {
	chain     distill.Chain
	directory *bls.Directory
	secrets   []*bls.SecretKey
	private   []ed25519.PrivateKey
	public    [][32]byte
	shares    [][distill.ShareBytes]byte // answers for the broker's rows, once they are wanted
}

const stride = 16

func newWorld(n int) (*world, error) {
	w := &world{chain: sha256.Sum256([]byte("rows")), directory: bls.NewDirectory(n)}
	for i := range n {
		seed := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		key, err := bls.NewSecretKey(seed[:])
		if err != nil {
			return nil, err
		}
		if err := w.directory.AddTrusted(uint32(i), key.Public()); err != nil {
			return nil, err
		}
		private := ed25519.NewPrivateKey(seed)
		w.secrets = append(w.secrets, key)
		w.private = append(w.private, private)
		w.public = append(w.public, private.Public())
	}
	return w, nil
}

// Slots makes world the Keys of package distill.
func (w *world) Slots(senders []uint64, slots []uint32) int {
	for i, s := range senders {
		slots[i] = uint32(s / stride)
	}
	return len(senders)
}

// Ed25519 makes world the Keys of package distill.
func (w *world) Ed25519(senders []uint64, keys [][32]byte) int {
	for i, s := range senders {
		keys[i] = w.public[s/stride]
	}
	return len(senders)
}

// submissions are transfers of n accounts all over the directory.
func (w *world) submissions(n int) []distill.Submission {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	subs := make([]distill.Submission, n)
	for at, i := range rng.Perm(len(w.secrets))[:n] {
		b := &subs[at].Body
		binary.BigEndian.PutUint64(b[:], uint64(i)*stride<<16)
		binary.BigEndian.PutUint64(b[8:], rng.Uint64())
		binary.BigEndian.PutUint64(b[16:], rng.Uint64())
		subs[at].Signature = w.private[i].Sign(w.chain.AppendMessage(nil, b))
	}
	return subs
}

func account(body *[distill.BodyBytes]byte) int { return int(distill.Sender(body) / stride) }

// groupOrder is the order of the groups of BLS12-381.
var groupOrder, _ = new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)

// batch is an encoded batch for which percent of 100 senders have answered. It is written down by its format, with one
// signature under the sum of all signers' secrets, to spare tens of thousands of signatures.
func (w *world) batch(n, percent int) ([]byte, error) {
	r, err := w.chain.NewRound(w.submissions(n))
	if err != nil {
		return nil, err
	}
	late := make([]bool, n)
	for _, i := range rand.New(rand.NewPCG(2, uint64(n))).Perm(n)[:n*(100-percent)/100] {
		late[i] = true
	}
	var bodies, signatures []byte
	bits, sum := make([]byte, (n+7)/8), new(big.Int)
	for i := range n {
		who := account(r.Body(i))
		bodies = append(bodies, r.Body(i)[:]...)
		if late[i] {
			bits[i/8] |= 1 << (i % 8)
			s := w.private[who].Sign(w.chain.AppendMessage(nil, r.Body(i)))
			signatures = append(signatures, s[:]...)
		} else {
			s := w.secrets[who].Bytes()
			sum.Add(sum, new(big.Int).SetBytes(s[:]))
		}
	}
	root, err := w.chain.Root(r.Body(0), r.Offer(0))
	if err != nil {
		return nil, err
	}
	var scalar [32]byte
	key, err := bls.SecretKeyFromBytes([32]byte(sum.Mod(sum, groupOrder).FillBytes(scalar[:])))
	if err != nil {
		return nil, err
	}
	aggregate := key.Sign(w.chain.RootMessage(root, n))
	head := binary.BigEndian.AppendUint32([]byte{1}, uint32(n))
	return slices.Concat(head, root[:], aggregate[:], bodies, bits, signatures), nil
}

func (w *world) verify(n, percent int) (func(), error) {
	enc, err := w.batch(n, percent)
	if err != nil {
		return nil, err
	}
	return checked(func() error {
		b, err := distill.Decode(enc)
		if err != nil {
			return err
		}
		_, err = b.Verify(w.chain, w.directory, w)
		return err
	})
}

// root times a batch that is refused for its root, so after ids and root have been computed.
func (w *world) root(n int) (func(), error) {
	enc, err := w.batch(n, 100)
	if err != nil {
		return nil, err
	}
	enc[5] ^= 1
	return checked(func() error {
		b, err := distill.Decode(enc)
		if err != nil {
			return err
		}
		if _, err := b.Verify(w.chain, w.directory, w); !errors.Is(err, distill.ErrRoot) {
			return fmt.Errorf("not refused for its root: %w", err)
		}
		return nil
	})
}

// reference is a way to verify a batch, given what it has been decoded to: signers' keys, stragglers' items.
type reference struct {
	name   string
	verify func(w *world, b *distill.Batch) (func() error, error)
}

func (w *world) reference(n, percent int, verify func(*world, *distill.Batch) (func() error, error)) (func(), error) {
	enc, err := w.batch(n, percent)
	if err != nil {
		return nil, err
	}
	b, err := distill.Decode(enc)
	if err != nil {
		return nil, err
	}
	run, err := verify(w, b)
	if err != nil {
		return nil, err
	}
	return checked(run)
}

// individual checks every transfer's own signature.
func (w *world) individual(n int) (func(), error) {
	subs, ok := w.submissions(n), make([]bool, n)
	return checked(func() error {
		w.chain.Check(w, subs, ok)
		if slices.Contains(ok, false) {
			return errors.New("a good signature is refused")
		}
		return nil
	})
}

func (w *world) round(n int) (func(), error) {
	subs := w.submissions(n)
	return checked(func() error {
		_, err := w.chain.NewRound(subs)
		return err
	})
}

// broker takes n answers, some of them wrong, and makes the batch.
func (w *world) broker(n, wrong int) (func(), error) {
	subs := w.submissions(n)
	r, err := w.chain.NewRound(subs)
	if err != nil {
		return nil, err
	}
	if len(w.shares) != n { // both rows use the same, which takes a while
		w.shares = make([][distill.ShareBytes]byte, n)
		for i := range w.shares {
			if w.shares[i], err = w.chain.Answer(w.secrets[account(r.Body(i))], r.Body(i), r.Offer(i)); err != nil {
				return nil, err
			}
		}
	}
	shares := slices.Clone(w.shares)
	for i := range wrong {
		shares[(2*i+1)*n/(2*wrong)] = shares[0]
	}
	return checked(func() error {
		r, err := w.chain.NewRound(subs)
		if err != nil {
			return err
		}
		for i := range shares {
			if err := r.Answer(i, shares[i]); err != nil {
				return err
			}
		}
		_, found, err := r.Finish(w.directory, w)
		if len(found) != wrong {
			return fmt.Errorf("found %d wrong answers of %d: %w", len(found), wrong, err)
		}
		return err
	})
}

func (w *world) sender(sign bool) (func(), error) {
	r, err := w.chain.NewRound(w.submissions(len(w.secrets)))
	if err != nil {
		return nil, err
	}
	body, offer := r.Body(3), r.Offer(3)
	return checked(func() error {
		if sign {
			_, err := w.chain.Answer(w.secrets[3], body, offer)
			return err
		}
		_, err := w.chain.Root(body, offer)
		return err
	})
}

// checked runs once, and turns what cannot fail after that into what a row runs: one that did would measure nothing.
func checked(run func() error) (func(), error) {
	return func() {
		if err := run(); err != nil {
			panic(err)
		}
	}, run()
}
