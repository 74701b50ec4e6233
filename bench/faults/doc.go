// Package faults does to a network of real processes what machines do to them, under load, and checks from outside that
// no client was ever told anything that did not stay true.
//
// # Black box
//
// A Witness holds what clients were told: blocks that the client package has verified down to the committee's signatures,
// nothing else. It keeps the books of every account from genesis on by reading these blocks, in a few lines that share no
// code with state/ledger. Nodes are asked over their public API only. The rules that are checked:
//
//   - Two proofs never contradict one another: there is one block at each height, and each follows the one before.
//   - What was proven is kept: every node still has, and can prove, every block that any client was told of, and every
//     finality proof that a client holds.
//   - Balances are linearisable: a nonce is used once and in order, nobody spends what is not there, and a proven account
//     holds exactly what the books say at the height of the proof.
//   - Money between shards arrives once: receipts come in order, each for one debit, with its receiver and amount.
//   - Supply is conserved, on every node and over all shards.
//   - The state root that a node shows is the one in the certified header.
//   - No process ends by itself, and none writes to standard error; one whose disk is full may, and says so.
//   - No node has evidence against a validator: ours sign no contradiction, however they are stopped and started.
//   - Once the last fault has ended every node finalises with the others within settleBound.
//
// # Campaigns
//
// Faults (scenario.go) is the fault scenario: one validator killed and restarted, the node that accepted transactions
// killed, two of four stopped, everything killed, in an order drawn from the seed. Crashes (crash.go) kills everything at
// moments spread over the stages of a commit, again and again. Both run in `go test` once or a few times, and as often as
// wanted by `make soak-faults` and `make soak-crash`, which append a line for each run to a file in bench/results and go
// on from there when they were interrupted.
//
// BlackBox gives each validator a network namespace of its own on a switch of ours (package lan, which stands in for a
// bridge with netem: that is not in every kernel, and knows no pairs), a disk of its own (a tmpfs, which is made as small as
// what is on it), and a wall clock that can be set (a build with another package time). Nemeses are drawn from the seed and
// overlap (nemesis.go): partitions, one-way loss, loss, delay with jitter, reordering and doubling, rates, kill -9, SIGSTOP,
// clocks, full and slow disks, cuts of the power of all. A quarter of the runs cuts the power alone, again and again, at the
// moments when a vote or a body that left too early shows (power.go). A third of the mixed ones runs the product as it is,
// the others the unsynced build, in which kill -9 is a cut of power. A run has a process of its own in namespaces of its
// own, so nothing is left of it however it ends. `make soak-blackbox` is the campaign; clients reach every node at all
// times. In a third of the mixed runs of one shard epochs end. The seed draws the nemeses and their times; which packet is lost,
// and how far a node is at a time, differs.
//
// kill -9 leaves the page cache to the kernel, so Crashes runs a build of tutti with the tag tutti_unsynced, whose files
// lose what was not synced (appliance/node/disk_unsynced.go). With the tag tutti_skipsync one sync is skipped, and the
// campaign must find out.
//
// Kills (kills.go) runs a build with the tag tutti_kills as well, in which a validator kills itself while it sends a chosen
// kind of message, before, in the midst or after which of its copies (consensus/killpoint); every vote that anybody heard is
// compared with its sender's others. `make soak-kills` does the bulk in consensus/engine's tests, in one process.
//
// Away (away.go) has a validator come back under load from an absence of a block, of a minute, of a million blocks that nobody
// keeps any more, from a fork of its own and from a state that contradicts a final block, without any help. The homes of the
// million are made by bench/endless. `make bench-away` prints the times.
//
// # Canaries
//
// check_test.go plants each kind of contradiction in records and nodes and demands that it is reported. The black-box
// campaign builds programs that send a vote before it is synced, or before the body is, and must notice.
//
// Not played: a quorum of clocks that are far ahead at once and are set back. Its chain is in the future, and proposals on
// it are refused until that has come.
//
// Source: design page on consensus, "black-box checker on the real binary".
package faults
