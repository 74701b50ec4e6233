//go:build cgo

package distill

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"

	blst "github.com/supranational/blst/bindings/go"

	"tutti/accel/distill"
)

// references need blst, so cgo.
var references = []reference{{"blst+stdlib", blstAndStdlib}}

// blstAndStdlib checks a batch as one would without this module: hashes one at a time, blst's sum of decoded keys and
// its pairing, crypto/ed25519 one at a time.
func blstAndStdlib(w *world, b *distill.Batch) (func() error, error) {
	keys := make([]*blst.P1Affine, 0, b.Count())
	for i := range b.Count() {
		if !b.Straggler(i) {
			public := w.secrets[account(b.Body(i))].Public()
			keys = append(keys, new(blst.P1Affine).Uncompress(public[:]))
		}
	}
	enc := b.Append(nil)
	aggregate, signatures := enc[37:37+96], enc[len(enc)-64*b.Stragglers():]
	return func() error {
		width := 1
		for width < b.Count() {
			width *= 2
		}
		level := make([][32]byte, width)
		var msg []byte
		late := 0
		for i := range b.Count() {
			msg = w.chain.AppendMessage(msg[:0], b.Body(i))
			level[i] = sha256.Sum256(msg)
			if b.Straggler(i) {
				key := w.public[account(b.Body(i))]
				if !ed25519.Verify(key[:], msg, signatures[64*late:][:64]) {
					return errors.New("a good signature is refused")
				}
				late++
			}
		}
		var padding [32]byte
		for n := distill.MaxCount; n > 1; n, width = n/2, (width+1)/2 {
			for i := range width / 2 {
				level[i] = node(level[2*i], level[2*i+1])
			}
			if width == 1 {
				level[0] = node(level[0], padding)
			}
			padding = node(padding, padding)
		}
		if level[0] != b.Root() {
			return errors.New("another root")
		}
		signature := new(blst.P2Affine).Uncompress(aggregate)
		sum := blst.P1AffinesAdd(keys).ToAffine()
		if signature == nil || !signature.Verify(true, sum, false, blst.Message(w.chain.RootMessage(level[0], b.Count())), dst) {
			return errors.New("a good batch is refused")
		}
		return nil
	}, nil
}

func node(left, right [32]byte) [32]byte {
	var pair [64]byte
	copy(pair[:32], left[:])
	copy(pair[32:], right[:])
	return sha256.Sum256(pair[:])
}

// dst is what package bls hashes votes and batches under.
var dst = []byte("BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_")
