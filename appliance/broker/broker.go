// Package broker collects transfers, has their senders sign them together, and gives the distilled batch to nodes
// (accel/distill): the server of `tutti broker`, and the client end that package client uses.
//
// # Who is trusted
//
// Nobody. A broker can leave a transfer out or delay it, and no more: a sender computes the root that it signs from its own
// transfer, and every validator checks the batch. A sender keeps its own Ed25519 signature, and sends the transfer on its own
// when the broker refuses, is silent, or its batch does not come into a block in time: the same bytes with the same id and
// nonce, so it is paid once. Nodes are not trusted either: what they say of accounts decides what goes into a batch, and a
// wrong word makes a batch that others refuse.
//
// # The protocol
//
// QUIC with TLS 1.3 and ALPN "tutti-broker/1". The broker shows a self-signed certificate of an Ed25519 key of its own; a
// client whose address for the broker names the key accepts no other. The client opens one bidirectional stream for as many
// senders as it likes; each end writes messages on end. Integers are big-endian; the first byte of a message is its type.
//
//	hello      1 || version 1 || genesis hash 32                    client, first and once
//	welcome    2 || version 1 || window u16 || patience u16         broker, its answer; milliseconds
//	submission 3 || number u32 || body 32 || Ed25519 signature 64   client
//	offer      4 || number u32 || round u32 || index u32 || count u32 || siblings of 32   broker
//	answer     5 || number u32 || round u32 || BLS share 192        client
//	verdict    6 || number u32 || code u8 || retry u32              broker, once for each submission; milliseconds
//
// number is the client's name for a submission on this connection, free again after its verdict. round is the broker's name for
// a batch in the making. The siblings of an offer are the lowest d of the 16 on the path, d the smallest with 2^d >= count; those
// above are of empty subtrees, which everybody knows. A submission gets at most 4 offers, and a verdict in any case while the
// connection lives. A client answers each offer within patience of its arrival, or its transfer keeps its Ed25519 signature in that
// batch. A message of another type, length or order ends the connection. Golden vectors are in testdata/.
//
// # How a batch comes about
//
// A submission is asked about at a node, in bulk with what came beside it: whether the account exists, has a BLS key, has this
// nonce next and can pay. Window after the first transfer came, or when MaxCount are there, the Ed25519 signatures are checked, all at
// once, but for those of senders that answered rightly lately and from the same source: should such a sender not answer, its
// signature is checked with the stragglers'. Then the batch is offered to its senders; when all have answered, or after Patience, it is finished and
// given to a node. If a straggler's signature turns out to be wrong, the batch is made again without it. Fewer than Least are
// sent on one by one, each with its own signature, which costs validators less than a pairing; so are those of a batch that nobody
// answered. A sender has one transfer in work at a time, further ones wait for it, up to maxBehind.
//
// # Who is kept out
//
// Everything has a bound, and a refusal a code and a time to come back: transfers in work, over all and of a source (an IPv4
// address or an IPv6 /64 network) and submissions a second of a source; connections, over all and of a source. A wrong signature, a wrong
// share or a straggler that spoils a round is a strike against its source, which after maxStrikes is refused for barFor. The broker can't
// know what else a sender spends: settleAfter after a batch was given to a node it asks for its senders' nonces again. If most of the
// batch took effect, those whose transfer did not are refused for barFor; if it did not, those whose nonce has moved all the
// same, since too many of them keep a batch out of blocks.
//
// # Goroutines
//
// For each connection one that reads and one that writes; for each shard one that asks nodes and checks, and one that cuts
// windows; one for each batch in the making, at most maxRounds. Nothing here is fatal to the process.
//
// Source: Camaioni et al., "Chop Chop: Byzantine Atomic Broadcast to the Network Limit" (OSDI 2024), whose brokers these are.
// Deviation: windows are cut by time first, since a second to finality is what is to be kept.
package broker

import (
	"errors"
	"fmt"
	"time"

	"tutti/accel/distill"
)

// ALPN names the protocol.
const ALPN = "tutti-broker/1"

// Code says what became of a submission.
type Code uint8

// The codes. From CodeBusy on they are refusals.
const (
	CodeBatched      Code = 0  // it is in a batch that a node holds
	CodeSingle       Code = 1  // a node holds it, with its own signature
	CodeBusy         Code = 2  // too much is in work
	CodeRate         Code = 3  // too much from this source
	CodeBarred       Code = 4  // this source or sender has spoiled batches lately
	CodeNoAccount    Code = 5  // no such account
	CodeNoKey        Code = 6  // the account has no BLS key, so it has no part in batches
	CodeSignature    Code = 7  // the Ed25519 signature is wrong
	CodeNonce        Code = 8  // the nonce is not the account's next
	CodeBalance      Code = 9  // the account can't pay it
	CodeExpiry       Code = 10 // it has expired, or expires too soon or too late for a batch
	CodeShard        Code = 11 // the account is of no shard that is served here
	CodeUnavailable  Code = 12 // no node answered, or none took it
	CodeShuttingDown Code = 13
	CodeTransfer     Code = 14 // no block would execute it: no receiver, amount or fee class, or payer and receiver are one
	codes                 = 15
)

var codeNames = [codes]string{
	"batched", "sent on its own", "busy", "rate limit", "barred", "no such account", "account without a BLS key", "wrong signature",
	"nonce is not the next", "balance too low", "expiry", "no such shard here", "no node took it", "shutting down",
	"no block would execute it",
}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Verdict is what became of a submission, and if it was refused in passing, when it may be worth to come again.
type Verdict struct {
	Code  Code
	Retry time.Duration // 0: never, as it is
}

// Taken reports whether a node holds the transfer.
func (v Verdict) Taken() bool { return v.Code < CodeBusy }

// Welcome is what a broker says of itself.
type Welcome struct {
	Window   time.Duration // from the first transfer of a batch until it is offered
	Patience time.Duration // until answers are there
}

// ErrMalformed wraps every error about bytes that are no message, or none that may come now.
var ErrMalformed = errors.New("broker: malformed message")

// Submission is a transfer as its sender signed it.
type Submission = distill.Submission
