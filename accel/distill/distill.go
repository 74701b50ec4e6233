// Package distill makes, signs and verifies distilled batches: many transfers under one BLS signature.
//
// A broker collects transfers that are signed with Ed25519 as ever, sorts them by sender and builds a Merkle tree over
// their ids (Round). Each sender is offered its place in the tree, computes the root from its own transfer and signs it
// with BLS (Chain.Answer). The broker adds the signatures up; those who do not answer in time, or not rightly, are
// stragglers and keep their Ed25519 signature. A validator computes ids and root again, adds up the signers' BLS keys
// and checks one pairing and the stragglers' signatures (Batch.Verify). Brokers are trusted with nothing: they can
// leave a transfer out, but not change or invent one.
//
// # Formats
//
// Integers are big-endian. A body is 32 bytes, of which the first six are the sender's account position; what the
// others say does not matter here. What a sender signs with Ed25519 is
//
//	"tutti/tx/1" padded with zeros to 16 bytes || genesis hash 32 || 1 || body 32
//
// as for a transfer sent on its own (package state/tx); its SHA-256 is the transfer's id, and the leaf of the tree. The
// tree always has 16 levels above the leaves; an inner node is SHA-256(left || right); leaves that are not there are
// zero. What senders sign with BLS is
//
//	"tutti/batch/1" padded with zeros to 16 bytes || genesis hash 32 || root 32 || count u32
//
// A batch is, for 1 to 65,536 bodies with strictly increasing senders,
//
//	version 1 (one byte) || count u32 || root 32 || BLS signature 96 || count bodies of 32 ||
//	ceil(count/8) bytes of straggler bits || 64 bytes of Ed25519 signature for each straggler, in order
//
// where bit i%8, least significant first, of byte i/8 tells that transfer i is a straggler's; bits beyond count are
// zero, and at least one transfer is no straggler's. A section is one or more batches on end. An offer is
// index u32 || count u32 || the 16 siblings from the leaf's up. Golden vectors are in testdata/.
//
// Why the sum proves what each signer meant: a root has one leaf for each index, the verifier has seen that leaf i is
// the id of body i and that no sender occurs twice, and each signer has signed a root that it computed from the id of
// its own transfer. So the leaf of that signer's only body is the one it put there. Keys are added up plainly, which
// is sound for keys with proof of possession under one message. Genesis is in leaf and message, so that neither means
// anything on another chain; the signed count makes padding no leaf.
//
// Batches are immutable and safe for concurrent use; a Round belongs to one goroutine. Work is done on the calling
// goroutine, about 0.2 microseconds per transfer and 10 more per straggler. Nothing here is fatal; every refusal wraps
// one of the errors below.
//
// Source: Camaioni et al., "Chop Chop: Byzantine Atomic Broadcast to the Network Limit" (OSDI 2024). Deviations: keys
// are in G1, which makes adding them up half as dear; leaves are transaction ids, which a validator needs anyway.
package distill

import (
	"encoding/binary"
	"errors"

	"tutti/accel/merkle"
)

// Sizes in bytes, and limits.
const (
	MaxCount    = 1 << treeDepth // transfers of one batch
	BodyBytes   = 32
	ShareBytes  = 192 // a BLS signature as senders give it to brokers, not compressed
	senderBytes = 6
	treeDepth   = 16
)

// Why something is refused.
var (
	ErrMalformed = errors.New("malformed encoding")
	ErrOrder     = errors.New("senders are not strictly increasing")      // a duplicate or unsorted sender
	ErrRoot      = errors.New("root is not that of the bodies")           // or of the bodies on another chain
	ErrNoKey     = errors.New("sender has no key")                        // of the kind that is asked of it
	ErrInfinity  = errors.New("signers' keys add up to infinity")         // there is nothing to verify under
	ErrAggregate = errors.New("signature of the root is wrong")           // a bad share, a changed key, another count or chain
	ErrStraggler = errors.New("straggler's signature is wrong")           // by the rule of accel/ed25519
	ErrDuplicate = errors.New("sender is there already")                  // two transfers or two answers
	ErrCount     = errors.New("wrong number of transfers")                // none, or too many
	ErrIndex     = errors.New("no such transfer")                         // outside the batch
	ErrShare     = errors.New("share is not a signature")                 // not a point; whether it is the right one is seen later
	ErrNoSigners = errors.New("no sender has answered rightly: no batch") // send the transfers on their own
)

// Chain is the chain that transfers are made for: the hash of its genesis.
type Chain [32]byte

// Domain tags, 16 bytes each, padded with zeros.
var (
	tagTransfer = [16]byte{'t', 'u', 't', 't', 'i', '/', 't', 'x', '/', '1'}
	tagRoot     = [16]byte{'t', 'u', 't', 't', 'i', '/', 'b', 'a', 't', 'c', 'h', '/', '1'}
)

// kindTransfer stands for transfers in what is signed.
const kindTransfer = 1

const (
	prefixBytes  = 16 + 32 + 1
	messageBytes = prefixBytes + BodyBytes
)

// AppendMessage appends what the sender of a transfer signs with Ed25519.
func (c Chain) AppendMessage(b []byte, body *[BodyBytes]byte) []byte {
	return append(c.appendPrefix(b), body[:]...)
}

func (c Chain) appendPrefix(b []byte) []byte {
	b = append(b, tagTransfer[:]...)
	b = append(b, c[:]...)
	return append(b, kindTransfer)
}

// RootMessage is what senders sign with BLS.
func (c Chain) RootMessage(root [32]byte, count int) []byte {
	b := make([]byte, 0, 16+32+32+4)
	b = append(b, tagRoot[:]...)
	b = append(b, c[:]...)
	b = append(b, root[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(count))
}

// Sender is the account position of a body's sender.
func Sender(body *[BodyBytes]byte) uint64 { return binary.BigEndian.Uint64(body[:]) >> 16 }

// idsPerRound is how many messages are written out before they are hashed: few enough to stay in the caches, 41 KiB.
const idsPerRound = 512

// ids sets ids[i] to the id of the i-th of the bodies, which lie end to end.
func (c Chain) ids(ids [][32]byte, bodies []byte) {
	buf := make([]byte, min(len(ids), idsPerRound)*messageBytes)
	prefix := c.appendPrefix(nil)
	for i := 0; i < len(buf); i += messageBytes {
		copy(buf[i:], prefix)
	}
	for len(ids) > 0 {
		n := min(len(ids), idsPerRound)
		for i := range n {
			copy(buf[i*messageBytes+prefixBytes:][:BodyBytes], bodies[i*BodyBytes:][:BodyBytes])
		}
		merkle.HashMany(ids[:n], buf[:n*messageBytes], messageBytes)
		ids, bodies = ids[n:], bodies[n*BodyBytes:]
	}
}
