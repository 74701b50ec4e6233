// Package hash has the benchmark rows of bulk SHA-256: pairs of digests, Merkle roots, and messages of one size.
//
// Rows of a backend named tutti go through what package merkle chose for this machine. sha256-simd's server for sixteen
// lanes is here for comparison only: on messages of this length it is many times slower than anything else.
package hash

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"

	"tutti/accel/internal/cpu"
	"tutti/accel/internal/rows"
	"tutti/accel/internal/selftest"
	"tutti/accel/merkle"
)

// Rows are all rows, for batches of at most the given number of items.
func Rows(most int) (all []rows.Row) {
	for _, n := range []int{1, 8, 64, 512, 4096} {
		all = append(all, pairs(min(n, most))...)
	}
	for _, n := range []int{1024, 65536} {
		all = append(all, root(min(n, most))...)
	}
	for _, size := range []int{81, 128, 1200} { // a transfer under its tag, two whole blocks, a datagram
		for _, n := range []int{8, 512} {
			all = append(all, messages(size, min(n, most))...)
		}
	}
	return distinct(all)
}

// distinct drops rows whose batches a small bound has made the same.
func distinct(all []rows.Row) (out []rows.Row) {
	seen := map[string]bool{}
	for _, r := range all {
		if !seen[r.Name] {
			seen[r.Name] = true
			out = append(out, r)
		}
	}
	return out
}

// backend is a name as it stands in a row's.
func backend(name string) string { return strings.NewReplacer(" ", "-", "/", "-").Replace(name) }

// usable is rows.ErrAbsent for a backend that this machine can't run.
func usable(b any) error {
	if n, ok := b.(selftest.Needs); ok && !cpu.Has(n.Needs()...) {
		return rows.ErrAbsent
	}
	return nil
}

// pairFunc hashes pairs as merkle.HashPairs does.
type pairFunc struct {
	name string
	err  error
	hash func(dst, src [][32]byte)
}

func pairFuncs() []pairFunc {
	all := []pairFunc{{"tutti", nil, merkle.HashPairs}}
	for _, b := range merkle.Backends() {
		all = append(all, pairFunc{backend(b.Name()), usable(b), b.HashPairs})
	}
	return all
}

func pairs(n int) (all []rows.Row) {
	for _, f := range pairFuncs() {
		all = append(all, rows.Row{Name: fmt.Sprintf("hash/pairs/%d/%s", n, f.name), Items: n, Setup: func() (func(), error) {
			src, dst := digests(2*n), make([][32]byte, n)
			return func() { f.hash(dst, src) }, f.err
		}})
	}
	return all
}

// root rows hash all nodes of a tree, so an item is a node.
func root(leaves int) (all []rows.Row) {
	for _, f := range pairFuncs() {
		all = append(all, rows.Row{Name: fmt.Sprintf("merkle/root/%d/%s", leaves, f.name), Items: leaves - 1, Setup: func() (func(), error) {
			level, scratch := digests(leaves), make([][32]byte, leaves)
			return func() {
				from, to := level, scratch
				for n := leaves / 2; n > 0; n /= 2 {
					f.hash(to[:n], from[:2*n])
					from, to = to[:n], to[n:]
				}
			}, f.err
		}})
	}
	return all
}

// digests are n different ones.
func digests(n int) [][32]byte {
	out := make([][32]byte, n)
	for i := range out {
		out[i] = sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	return out
}

func messages(size, n int) (all []rows.Row) {
	add := func(name string, err error, hash func(dst [][32]byte, src []byte, size int)) {
		all = append(all, rows.Row{Name: fmt.Sprintf("hash/messages-%d/%d/%s", size, n, name), Items: n, Setup: func() (func(), error) {
			src, dst := bytes.Repeat([]byte{'m'}, n*size), make([][32]byte, n)
			return func() { hash(dst, src, size) }, err
		}})
	}
	add("tutti", nil, merkle.HashMany)
	for _, b := range merkle.ManyBackends() {
		add(backend(b.Name()), usable(b), b.HashMany)
	}
	return append(all, server(size, n)...)
}
