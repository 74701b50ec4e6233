package committee

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"tutti/accel/bls"
	"tutti/consensus"
)

// Costs is CPU time of one core.
type Costs struct {
	Sign      time.Duration // one vote
	Verify    time.Duration // one signature by one validator
	Add       time.Duration // decode, check and add one signature to a sum
	Aggregate time.Duration // check a sum by all validators
	Missing   time.Duration // more for each validator that is not in the sum
	Receive   time.Duration // a message, from the socket to the machine
	Send      time.Duration // a message, to the socket
	Tx        time.Duration // check and execute one transaction, and write it to the log
	Byte      time.Duration // a byte of a body: hash and copy
	Code      time.Duration // a byte of a body: cut up, or rebuild and encode again
	Rebuild   time.Duration // and a body, however short
}

// Shares of a box that are not measured here. A message on loopback costs two cores about 10 us at each end, most of it the
// kernel's and the cipher's; a transaction costs a validator 20.9 us in all (see ARCHITECTURE.md), the pool's
// part with it, which does not delay blocks.
const (
	receive = 12 * time.Microsecond
	send    = 8 * time.Microsecond
	execute = 20 * time.Microsecond
	perByte = 2 * time.Nanosecond
	perCode = 6 * time.Nanosecond    // three bodies hashed, the shards that came hashed again, and the code
	rebuild = 600 * time.Microsecond // a code over GF(2^16) takes half a millisecond (accel/erasure)
)

// Measure times the product's keys for a committee of n.
func Measure(n int) (c Costs, err error) {
	secret := make([]*bls.SecretKey, n)
	all := consensus.NewSigners(n)
	validators := make([]consensus.Validator, n)
	for i := range n {
		seed := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("committee benchmark"), uint64(i)))
		if secret[i], err = bls.NewSecretKey(seed[:]); err != nil {
			return c, err
		}
		validators[i] = consensus.Validator{Key: secret[i].Public(), Power: 1}
		all.Add(i)
	}
	committee, err := consensus.NewCommittee(0, 0, consensus.Hash{}, validators)
	if err != nil {
		return c, err
	}
	keys, err := consensus.NewKeys(committee)
	if err != nil {
		return c, err
	}
	msg := consensus.VoteMessage(consensus.Hash{1}, consensus.Statement{Kind: consensus.Nullify, View: 1})
	sigs := make([]consensus.Signature, n)
	for i := range sigs {
		sigs[i] = consensus.NewSigner(secret[i]).Sign(msg)
	}
	sum, err := keys.Aggregate(sigs)
	if err != nil {
		return c, err
	}
	third := (n - 1) / 3
	most := consensus.NewSigners(n)
	for i := third; i < n; i++ {
		most.Add(i)
	}
	part, err := keys.Aggregate(sigs[third:])
	if err != nil {
		return c, err
	}
	ok := true
	c = Costs{Receive: receive, Send: send, Tx: execute, Byte: perByte, Code: perCode, Rebuild: rebuild}
	c.Sign = timed(func() { consensus.NewSigner(secret[0]).Sign(msg) })
	c.Verify = timed(func() { ok = keys.Verify(0, msg, sigs[0]) && ok })
	c.Add = timed(func() { _, err = keys.Aggregate(sigs) }) / time.Duration(n)
	c.Aggregate = timed(func() { ok = keys.VerifyAggregate(all, msg, sum) && ok })
	if third > 0 {
		c.Missing = max(0, timed(func() { ok = keys.VerifyAggregate(most, msg, part) && ok })-c.Aggregate) / time.Duration(third)
	}
	if !ok || err != nil {
		return c, fmt.Errorf("committee: the keys do not verify what they signed: %v", err)
	}
	return c, nil
}

// timed is the CPU time of one call: the fastest of several rounds, for other work only adds to it.
func timed(call func()) time.Duration {
	best := time.Duration(1 << 62)
	for range 5 {
		const calls = 8
		began := cpu()
		for range calls {
			call()
		}
		best = min(best, (cpu()-began)/calls)
	}
	return best
}

func cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
