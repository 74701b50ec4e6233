package distill

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tutti/accel/bls"
	"tutti/accel/ed25519"
	"tutti/accel/merkle"
)

// Keys tells where the keys of senders are, in the state by which signatures are judged: the parent's. A batch does
// not say which keys it was signed with, so one that was signed with a key that has been changed since is wrong.
// Both methods fill in places or keys up to the first sender without one and return that sender's index, or
// len(senders). They are called on the caller's goroutine.
type Keys interface {
	// Slots sets slots[i] to the index of the BLS key of senders[i] in the directory.
	Slots(senders []uint64, slots []uint32) int
	// Ed25519 sets keys[i] to the Ed25519 key of senders[i].
	Ed25519(senders []uint64, keys [][32]byte) int
}

// Verify checks the whole batch: root, the signers' signature of it under the sum of their keys in the directory, and
// the stragglers' own signatures. On success ids are the transfers' ids, in order. The error wraps ErrRoot, ErrNoKey,
// ErrInfinity, ErrAggregate or ErrStraggler; which one does not depend on the machine.
func (b *Batch) Verify(chain Chain, directory *bls.Directory, keys Keys) (ids [][32]byte, err error) {
	ids = make([][32]byte, b.Count())
	chain.ids(ids, b.bodies)
	if merkle.Top(ids, treeDepth) != b.root {
		return nil, fmt.Errorf("distill: %w", ErrRoot)
	}
	if err := b.verifySigners(chain, directory, keys); err != nil {
		return nil, err
	}
	if err := b.verifyStragglers(chain, keys); err != nil {
		return nil, err
	}
	return ids, nil
}

func (b *Batch) verifySigners(chain Chain, directory *bls.Directory, keys Keys) error {
	slots, err := slotsOf(keys, b.senders(false))
	if err != nil {
		return err
	}
	sum, err := directory.Sum(slots)
	switch {
	case errors.Is(err, bls.ErrNoSum):
		return fmt.Errorf("distill: %w", ErrInfinity)
	case err != nil:
		return fmt.Errorf("distill: %w: BLS: %w", ErrNoKey, err)
	}
	if !sum.Verify(chain.RootMessage(b.root, b.Count()), b.aggregate) {
		return fmt.Errorf("distill: %w", ErrAggregate)
	}
	return nil
}

// senders are those of the stragglers' transfers, or of the others.
func (b *Batch) senders(stragglers bool) []uint64 {
	n := b.Stragglers()
	flip := byte(0)
	if !stragglers {
		n, flip = b.Count()-n, 0xFF
	}
	senders := make([]uint64, 0, n)
	for at := 0; at < len(b.bodies); at += 8 * BodyBytes {
		wanted := b.stragglers[at/(8*BodyBytes)] ^ flip
		for i := at; i < min(at+8*BodyBytes, len(b.bodies)); i += BodyBytes {
			if wanted&1 == 1 {
				senders = append(senders, binary.BigEndian.Uint64(b.bodies[i:])>>16)
			}
			wanted >>= 1
		}
	}
	return senders
}

func slotsOf(keys Keys, senders []uint64) ([]uint32, error) {
	slots := make([]uint32, len(senders))
	if i := keys.Slots(senders, slots); i < len(senders) {
		return nil, fmt.Errorf("distill: %w: BLS, sender %d", ErrNoKey, senders[i])
	}
	return slots, nil
}

// stragglersPerRound bounds what is kept at a time, and fills every verifier's lanes.
const stragglersPerRound = 512

func (b *Batch) verifyStragglers(chain Chain, keys Keys) error {
	senders := b.senders(true)
	var at [stragglersPerRound]int // the transfers of this round
	next := 0
	for first := 0; first < len(senders); first += stragglersPerRound {
		n := min(stragglersPerRound, len(senders)-first)
		for i := range n {
			for !b.Straggler(next) {
				next++
			}
			at[i] = next
			next++
		}
		var ok [stragglersPerRound]bool
		public := make([][32]byte, n)
		if i := keys.Ed25519(senders[first:first+n], public); i < n {
			return fmt.Errorf("distill: %w: Ed25519, sender %d", ErrNoKey, senders[first+i])
		}
		chain.judge(public, ok[:n], func(i int) (*[BodyBytes]byte, [64]byte) {
			return b.Body(at[i]), [64]byte(b.signatures[(first+i)*signatureBytes:])
		})
		for i := range n {
			if !ok[i] {
				return fmt.Errorf("distill: %w: transfer %d, sender %d", ErrStraggler, at[i], senders[first+i])
			}
		}
	}
	return nil
}

// judge sets ok[i] to whether a transfer's signature is public[i]'s.
func (c Chain) judge(public [][32]byte, ok []bool, at func(i int) (*[BodyBytes]byte, [64]byte)) {
	items := make([]ed25519.Item, len(public))
	messages := make([]byte, 0, len(public)*messageBytes)
	for i := range items {
		start := len(messages)
		body, signature := at(i)
		messages = c.AppendMessage(messages, body)
		items[i] = ed25519.Item{Key: public[i], Message: messages[start:], Signature: signature}
	}
	ed25519.VerifyMany(items, ok)
}
