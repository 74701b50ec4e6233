// Package ed has the measurements of accel/ed25519, beside the standard library's and curve25519-voi's own.
package ed

import (
	std "crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"

	"tutti/accel/ed25519"
	"tutti/accel/internal/rows"
)

// load is what a row verifies: n signatures under distinct keys on messages of the size of a transfer, bad of them
// spoilt in S.
type load struct {
	variant string
	n       int
	bad     []int
	rounds  int // how often all of it was verified before, by a backend with a memory; 0 means by one without
}

func (l load) items() []ed25519.Item {
	items := make([]ed25519.Item, l.n)
	for i := range items {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], uint64(i))
		key := ed25519.NewPrivateKey(seed)
		message := make([]byte, 80)
		copy(message, seed[:])
		items[i] = ed25519.Item{Key: key.Public(), Message: message, Signature: key.Sign(message)}
	}
	for _, i := range l.bad {
		items[i].Signature[40] ^= 1
	}
	return items
}

// Rows are the measurements of every backend that this machine can run, and of the references.
func Rows() (all []rows.Row) {
	loads := []load{
		{variant: "verdict-each", n: 1},
		{variant: "verdict-each", n: 8},
		{variant: "verdict-each", n: 64},
		{variant: "verdict-each", n: 512},
		{variant: "verdict-each", n: 4096},
		{variant: "verdict-each-warm", n: 64, rounds: 3},
		{variant: "verdict-each-warm", n: 512, rounds: 3},
		{variant: "one-bad", n: 512, bad: []int{300}},
		{variant: "1%-bad-spread", n: 512, bad: every(100, 50, 512)},
		{variant: "1%-bad-worst", n: 512, bad: every(64, 255, 512)},
		{variant: "10%-bad-spread", n: 512, bad: every(10, 5, 512)},
		{variant: "10%-bad-worst", n: 512, bad: append(every(8, 260, 512), every(16, 266, 512)...)},
	}
	for _, l := range loads {
		for _, b := range ed25519.Backends() {
			if l.rounds > 0 && ed25519.Remembering(b, l.n) == b {
				continue
			}
			all = append(all, l.row(b))
		}
	}
	for _, n := range []int{1, 512} {
		all = append(all, reference("crypto-ed25519", n, stdlib), reference("voi-verify", n, voiVerify))
	}
	for _, n := range []int{64, 512} {
		all = append(all, reference("voi-batch-verifier", n, voiBatchVerifier))
	}
	return append(all, sign("crypto-ed25519"))
}

// every is the indices from first on, step apart, below n. With 1 in 64 and 1 in 8 from the middle on, each part that
// the batch verifier looks at has its bad one, and what it saw before makes it expect none.
func every(step, first, n int) (at []int) {
	for i := first; i < n; i += step {
		at = append(at, i)
	}
	return at
}

func name(variant string, n int, backend string) string {
	return fmt.Sprintf("ed25519/%s/%d/%s", variant, n, strings.ReplaceAll(backend, " ", "-"))
}

func (l load) row(b ed25519.Backend) rows.Row {
	return rows.Row{Name: name(l.variant, l.n, b.Name()), Items: l.n, Setup: func() (func(), error) {
		items, ok := l.items(), make([]bool, l.n)
		if l.rounds > 0 {
			b = ed25519.Remembering(b, 4*l.n)
			for range l.rounds {
				b.VerifyMany(items, ok)
			}
		}
		b.VerifyMany(items, ok)
		var refused int
		for i := range ok {
			if !ok[i] {
				refused++
			}
		}
		if refused != len(l.bad) {
			return nil, fmt.Errorf("%d of %d refused, want %d", refused, l.n, len(l.bad))
		}
		return func() { b.VerifyMany(items, ok) }, nil
	}}
}

var errRefused = errors.New("a good signature is refused")

// reference is a row of other people's code, all signatures good.
func reference(backend string, n int, verify func(items []ed25519.Item) bool) rows.Row {
	return rows.Row{Name: name("verdict-each", n, backend), Items: n, Setup: func() (func(), error) {
		items := load{n: n}.items()
		if !verify(items) {
			return nil, errRefused
		}
		return func() { verify(items) }, nil
	}}
}

func stdlib(items []ed25519.Item) bool {
	all := true
	for i := range items {
		it := &items[i]
		all = std.Verify(it.Key[:], it.Message, it.Signature[:]) && all
	}
	return all
}

var zip215 = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

func voiVerify(items []ed25519.Item) bool {
	all := true
	for i := range items {
		it := &items[i]
		all = voi.VerifyWithOptions(it.Key[:], it.Message, it.Signature[:], zip215) && all
	}
	return all
}

func voiBatchVerifier(items []ed25519.Item) bool {
	v := voi.NewBatchVerifier().ForceNoPublicKeyExpansion()
	for i := range items {
		it := &items[i]
		v.AddWithOptions(it.Key[:], it.Message, it.Signature[:], zip215)
	}
	ok, _ := v.Verify(nil)
	return ok
}

// sign is not a backend's affair, but what a client pays.
func sign(backend string) rows.Row {
	return rows.Row{Name: name("sign", 1, backend), Items: 1, Setup: func() (func(), error) {
		key, message := ed25519.NewPrivateKey([32]byte{1}), make([]byte, 80)
		return func() { key.Sign(message) }, nil
	}}
}
