// Package explore visits every schedule of a small shard: the production machines (consensus/simplex.New and Step) of
// all honest validators, an adversary with the rest of the power, up to a number of views. It checks safety in every
// state, and from every state, or some, that the shard goes on once the network is fair.
//
// # The world
//
// A state is the place of each honest machine. A place is the machine's own state with what its node knows: what it ever
// said, its final block, its unanswered application, its logs. What was said stays available for ever: any machine may be
// told any of it at any time, in any order, or never. That is loss, delay, reordering and duplication. Next may come, at
// any honest machine:
//
//   - a certificate that a quorum's votes are there for, all votes of the faulty validators added: the adversary may put
//     one together from any and show it to anybody;
//   - a proposal, of honest leaders; and of faulty leaders two blocks and one with an invalid body on every block there is,
//     whether that is notarized or not;
//   - the answer of its application: the verdict on a block, or a block to propose;
//   - a block that it wants, from whoever has it;
//   - the end of its timer, in any view up to the last;
//   - a crash and a start with its logs, if asked for.
//
// Each machine is stepped once for each place and event, and the world is tuples of numbers from then on. Validators of
// equal power that lead no view are interchangeable, and their places are sorted.
//
// # What is checked
//
// At each machine: own votes never contradict, over restarts too, and are in the log of the step that sends them (R8);
// notarize is for a child of a certified block, told of the nullifications between (R3); finalize and finality are for
// blocks with a good verdict, one on top of the other; nobody honest is blamed or accused; no halt, no panic.
// In each state: of all certificates that can be had, no two exclude each other: two blocks notarized in a view, a view
// both nullified and final, two final blocks of which neither descends from the other, a notarized block above a final
// one that does not descend from it. No certificate makes an invalid block final. Final blocks are one chain.
// In fair runs: the faulty fall silent, all that was under way is lost, then nothing is; timers run out only when nothing
// else can be done; Ticks come. Every honest machine must have a new block final within FairViews views.
//
// # Reduction
//
// With Reduced, events that can as well be taken at once, or never, are not tried in every order. Which ones these are
// is not argued but computed, on the machine's own places (favour). All checks named above for machines and states hold
// for the whole world if they hold for the reduced one. Fair runs, however, then start from the reduced states only, and
// these do not stand for the others: one twin of TestVerifyExploreTwins gets stuck nowhere but between them. So liveness is
// shown for all states only where the world is not reduced, and by Walk, which never reduces.
//
// # Deviations from what one would expect, and limits
//
//   - Certificates come whole, or with ByVotes as all their votes one after another, not vote by vote: up to the quorum
//     a vote changes nothing but the ballot, and after it nothing that decides. The simulator plays votes one by one.
//   - Ticks come only in fair runs: they repeat what is available here anyhow.
//   - Block sync and floors (R13, R17) are left to the simulator.
//   - What places have in common is told by a hash of 16 bytes of their canonical encoding.
//   - Two validators must not be a quorum (Explore refuses), so that a machine's own ballots never matter.
package explore
