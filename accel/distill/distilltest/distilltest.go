// Package distilltest makes distilled batches from the secrets of all signers at once: one signature under the sum of their
// keys, which is what a broker gets by adding up theirs, for a hundredth of the work. Whoever can do that has everybody's
// secrets: only tests and benchmarks import it.
package distilltest

import (
	"encoding/binary"
	"errors"

	"tutti/accel/bls"
	"tutti/accel/distill"
)

// Batch makes a batch of transfers, in any order. secret is the BLS key of a sender, nil for one who does not sign the batch
// and is a straggler with the signature of its submission.
func Batch(chain distill.Chain, subs []distill.Submission, secret func(sender uint64) *bls.SecretKey) (*distill.Batch, error) {
	round, err := chain.NewRound(subs)
	if err != nil {
		return nil, err
	}
	root, err := chain.Root(round.Body(0), round.Offer(0))
	if err != nil {
		return nil, err
	}
	own := make(map[uint64][64]byte, len(subs))
	for i := range subs {
		own[distill.Sender(&subs[i].Body)] = subs[i].Signature
	}
	n := round.Count()
	var keys []*bls.SecretKey
	var bodies, signatures []byte
	late := make([]byte, (n+7)/8)
	for i := range n {
		body := round.Body(i)
		bodies = append(bodies, body[:]...)
		if k := secret(distill.Sender(body)); k != nil {
			keys = append(keys, k)
			continue
		}
		late[i/8] |= 1 << (i % 8)
		s := own[distill.Sender(body)]
		signatures = append(signatures, s[:]...)
	}
	if len(keys) == 0 {
		return nil, errors.New("distilltest: nobody signs the batch")
	}
	sum, err := bls.SumSecretKeys(keys)
	if err != nil {
		return nil, err
	}
	aggregate := sum.Sign(chain.RootMessage(root, n))
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(n))
	b = append(append(b, root[:]...), aggregate[:]...)
	return distill.Decode(append(append(append(b, bodies...), late...), signatures...))
}

// Unsigned makes a well-formed batch that nobody signed, of transfers by ascending sender. Its root begins with salt.
func Unsigned(salt byte, bodies ...[distill.BodyBytes]byte) (*distill.Batch, error) {
	b := binary.BigEndian.AppendUint32([]byte{1}, uint32(len(bodies)))
	b = append(b, make([]byte, 32+96)...)
	b[5] = salt
	for i := range bodies {
		b = append(b, bodies[i][:]...)
	}
	return distill.Decode(append(b, make([]byte, (len(bodies)+7)/8)...))
}
