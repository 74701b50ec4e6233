// Package replay makes the figures of a benchmark checkable on another machine, from its report alone: what a run leaves
// behind as evidence (Recorder, Evidence), and who checks it (Verify, `tutti bench verify`).
//
// # What the evidence is
//
// The genesis of the network in its binary form, whose hash is the network's name; of each shard every final block of the
// run, from the one before its first transaction was due: header, certificate, committees of epochs that begin meanwhile, and
// an Opening, which shows from the header's own roots how many transactions the block has and which of them took effect; and
// what only the client can say: when it had verified each block, and in which slots of a millisecond the transactions were due
// that settled in it, or that never did, by reason. A block costs about 700 bytes, whatever is in it.
//
// # What checking it proves
//
// Three things are kept apart, and Verify says of each figure which it is.
//
//   - Proven: that a quorum of the committees that follow from the genesis signed these blocks as final, with these header
//     times, these state roots and so many successful transactions. Who has no keys of that network can not change a bit.
//   - Agrees: that every figure in the report follows from the blocks and the client's word, and that this word can be true:
//     the schedule is complete (each slot has exactly the transactions that were due in it, so that none was left out because
//     it was slow), no block settles more than succeeded in it, at no time had more settled than had succeeded, no transaction
//     was due after its block was made, and no block was verified before it was made, by the times in certified headers.
//   - Claimed: CPU, memory, traffic, the machine, what was signed how, and checks of validators against one another. Nothing
//     in the chain shows them. Where wrong signatures were sent, how many is claimed too: they are among what did not settle.
//
// A run may go through several stretches, each at its rate, and its transactions may come in bursts. The schedule is checked over
// all of it, and the figures of each stretch against its own slots; the first is the one that the report's result is of.
//
// # What it does not prove
//
// Whoever holds the keys of a quorum can make any chain, with any times. A report of one's own network is therefore
// consistent, complete and repeatable, and no more than its maker's word; one of a network whose genesis others know
// (Options.Genesis) binds that network's validators. The client's clocks are the reporter's word between two certified
// bounds: latencies can not be below what header times allow (Verify says how low that is), but within that someone who
// edits a report may lower them. A transaction is counted, not named: in a block with others' transactions, the reporter
// says which were theirs.
//
// # Precision
//
// Due times are known to a slot, so a quantile is known to a millisecond; a reported one has to lie between those of the
// earliest and the latest due times that the slots allow, each to the histogram's three digits and rounded to 0.1 ms, and the share
// of a second that was final in time likewise. Counts and rates have to be exact. Stretches are of whole milliseconds, with bursts of
// whole seconds, and so is the warm-up then: another run leaves no evidence. Clocks of different machines may differ by NetworkSkew, processes of one by LoopbackSkew.
//
// # Bounds
//
// A run of at most MaxLength and MaxStretches, MaxBlocks blocks of a shard, MaxBytes of evidence before compression. The Recorder belongs to
// the lock of who calls it. Errors are about the one report; nothing is fatal. Only tests and bench import this.
//
// # The form
//
// Evidence.Append has it, in big-endian integers and unsigned varints; Encode compresses it (DEFLATE) into the report's
// `evidence`. Golden vectors are in testdata/. SHA-256 of a body's end is shown by the hash's state before it (Opening): to find
// another end or another state with the same digest is as hard as a second preimage of the compression function with a free
// chaining value, for which nothing better than trying is known.
//
// Source: system.md section 5. No paper is followed.
package replay
