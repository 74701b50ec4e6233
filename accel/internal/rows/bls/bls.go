// Package bls has the benchmark rows of accel/bls, each beside raw blst (in builds that have it) and gnark-crypto.
//
// Keys and messages are distinct and used in turn, so that neither the keys' memory nor the hashes of messages are in
// a cache when they are used again: sums of keys go through a directory of 64 MiB.
package bls

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"

	"tutti/accel/bls"
	"tutti/accel/internal/rows"
)

// Rows are all rows.
func Rows() []rows.Row {
	return slices.Concat(sumRows(), committeeRows(), clientRows(), gnarkRows(), blstRows())
}

// chosen is the backend in use of an operation that bls.SelfTest lists.
func chosen(operation string) string {
	for _, v := range bls.SelfTest() {
		if v.Operation == operation && v.Chosen {
			return v.Backend
		}
	}
	return "none"
}

func engine() string { return chosen("bls vote") }

func row(name string, items int, backend string, setup func() (func(), error)) rows.Row {
	return rows.Row{Name: fmt.Sprintf("%s/%d/%s", name, items, backend), Items: items, Setup: setup}
}

// must is for the work of a row, whose answer is known.
func must(ok bool) {
	if !ok {
		panic("bls: a benchmark got a wrong answer")
	}
}

// turns calls f with 0, 1, ... n-1, 0, ...
func turns(n int, f func(i int)) func() {
	i := -1
	return func() { i = (i + 1) % n; f(i) }
}

const directorySize = 1 << 19

// directory is full of keys whose secrets are nobody's business: multiples of one key, in an order that is not theirs.
var directory = sync.OnceValues(func() (*bls.Directory, error) {
	step, err := keyOf(1)
	if err != nil {
		return nil, err
	}
	d, at := bls.NewDirectory(directorySize), step
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(directorySize) {
		if at, err = at.Add(step); err != nil {
			return nil, err
		}
		if err := d.AddTrustedKey(uint32(i), at); err != nil {
			return nil, err
		}
	}
	return d, nil
})

// batches are the directory's indices, dealt out in batches of n, each in increasing order.
func batches(n int) [][]uint32 {
	indices := make([]uint32, directorySize)
	for i, k := range rand.New(rand.NewPCG(3, 4)).Perm(directorySize) {
		indices[i] = uint32(k)
	}
	var all [][]uint32
	for b := range slices.Chunk(indices, n) {
		slices.Sort(b)
		all = append(all, b)
	}
	return all
}

var sumSizes = []int{1024, 4096, 16384, 65536}

func sumRows() (all []rows.Row) {
	for _, n := range sumSizes {
		all = append(all, row("bls-key-sum/gathered", n, chosen("bls key sum"), func() (func(), error) {
			d, err := directory()
			if err != nil {
				return nil, err
			}
			work := batches(n)
			return turns(len(work), func(i int) {
				_, err := d.Sum(work[i])
				must(err == nil)
			}), nil
		}))
	}
	return all
}

// order is the group order.
var order, _ = new(big.Int).SetString("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001", 16)

// secret is key number i's, for a committee and for clients.
func secret(i int) *big.Int {
	s := new(big.Int).Exp(big.NewInt(7), big.NewInt(int64(1000+i)), order)
	return s.Add(s, big.NewInt(int64(i)))
}

// signer is the owner of a secret, or of a sum of secrets.
func signer(s *big.Int) (*bls.SecretKey, error) {
	var b [32]byte
	new(big.Int).Mod(s, order).FillBytes(b[:])
	return bls.SecretKeyFromBytes(b)
}

func keyOf(i int) (bls.PublicKey, error) {
	k, err := signer(secret(i))
	if err != nil {
		return bls.PublicKey{}, err
	}
	return bls.ParsePublicKey(k.Public())
}

// message is number i of more than a KeySet remembers.
func message(i int) []byte {
	return fmt.Appendf(nil, "a statement of about a hundred bytes, as votes are, with a number: %08d", i)
}

const manyMessages = 64
