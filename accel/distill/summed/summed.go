// Package summed makes distilled batches from the secrets of all signers at once: one signature under the sum of their
// keys, which gives the bytes that a broker gets by adding up theirs, for a hundredth of the work. Whoever can do that has
// everybody's secrets: it is for the made-up crowds of benchmarks and tests.
package summed

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
	n := round.Count()
	own := make([][64]byte, n)
	for i := range subs {
		if at, ok := round.Index(distill.Sender(&subs[i].Body)); ok {
			own[at] = subs[i].Signature
		}
	}
	keys, bodies := make([]*bls.SecretKey, 0, n), make([]byte, 0, n*distill.BodyBytes)
	var signatures []byte
	late := make([]byte, (n+7)/8)
	for i := range n {
		body := round.Body(i)
		bodies = append(bodies, body[:]...)
		if k := secret(distill.Sender(body)); k != nil {
			keys = append(keys, k)
			continue
		}
		late[i/8] |= 1 << (i % 8)
		signatures = append(signatures, own[i][:]...)
	}
	if len(keys) == 0 {
		return nil, errors.New("summed: nobody signs the batch")
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
