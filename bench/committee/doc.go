// Package committee runs committees of 4 to 400 validators in one process, in virtual time over a wide area network, and
// tells how finality, bytes and CPU grow with their number: `make bench-committee` prints the table and draws the plot.
//
// # What is real and what is modelled
//
// Each validator is the production machine (consensus/simplex) with the production limits, timers and leader schedule; its
// messages have the sizes of the wire formats. Modelled are:
//
//   - the network: ten regions, a latency from region to region, jitter, and an uplink that sends one byte after another;
//   - a box of two cores: one handles messages and votes one after another, the other builds and executes blocks. What an
//     operation takes is measured on this machine, with the product's keys, before the run (Measure): signing, checking
//     one signature, adding signatures up, checking a certificate. Signatures in the run are tags that cost nothing, for
//     which the measured time passes;
//   - bodies: they are a few bytes that stand for many, and travel in shards where the product's would; parts have the size
//     and cutting, checking and rebuilding take the time of the body that they stand for;
//   - execution, by a figure for each transaction, and a disk that takes a fixed time to sync;
//   - clients, who send to a validator of their own region and hear from it. A transaction is due evenly over time and
//     regions; its validator admits it, sends it on to coming leaders in batches, and a leader puts into a block all that has
//     arrived and is not in the block's ancestors. Finality is the time from due to the moment at which the client has
//     verified the certificate that its validator sent back.
//
// Not modelled: lost packets, other shards, clients' own links, and that a transaction has to be sent on again when the
// leaders that it went to are passed over.
package committee
