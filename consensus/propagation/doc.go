// Package propagation has models, in Promela, of how things come to everybody who needs them, and has spin visit all their states:
// the body of a block (bodies.pml), receipts from one shard to another (receipts.pml), and the end of an epoch
// (epochs.pml). What a quorum may decide is proved in consensus/rule, and consensus/explore visits the states of the real
// machine; here the question is whether what is decided arrives, once and unspoilt, though messages are lost and peers lie.
//
// There is no code here but that of the tests. Spin turns a model into a C program, gcc compiles it, and the program searches
// exhaustively: every state is stored in full, no hash stands for it, no order of steps is left out as equivalent. The tests
// fail if a search was cut short.
//
// # The world
//
// A model has one process for each honest validator, or for each shard, one for luck, and in some one for time. Luck is all that
// may happen and need not: messages that come in whatever order, timers, crashes, and what the faulty third does. A message is
// not kept anywhere: it can be received for as long as its sender may have sent it, which is delay, reordering, duplication and loss
// together. At some moment the network becomes stable, and luck ends. From then on the honest do what their rules have them do
// and repeat, and fairness is weak: what a process can do all the time, it does at some time. Nothing else is
// known of when and in which order. Whatever luck might do later, it might as well do before that moment, with the steps of the
// honest before it, so it loses nothing.
//
// # What is checked
//
// Bodies: one block, its leader honest or not, four validators of equal and unequal power. The honest never get different
// verdicts; that on a codeword is its body, and that on anything else is invalid. If the block is notarized, every honest
// validator gets a verdict, unless the view is nullified and no honest validator has the body. Powers, quorum, shards and
// threshold are taken from the committees of the Go code. With -full there is a committee more.
//
// Receipts: two receipts, blocks that are abandoned and made again, leaders that take turns, of which some are faulty. Each receipt
// of a final block of the source is credited in one final block of the destination, after the one before it, and with its content;
// none that is not in a final block there. The source drops no receipt that is not final at the destination. In the end all are
// credited and dropped, if one validator of the source that is asked is honest; the other lies or is silent for ever. With
// -full there are three.
//
// Epochs: three honest validators and a silent or helping faulty one over two hand-overs. None is in an epoch before the one
// below has its finalization, and all come to the last.
//
// Each model has twins, each broken in one way, in which spin has to find the fault that the table in the test names:
// an assertion, or an endless run in which the thing never comes.
//
// # How model and code are held together
//
// Not by a proof. The steps of a model name the Go code that they stand for, as text that a test looks for, so a change of one
// of those lines is noticed. TestVerifyParts lets consensus/shred rebuild from the parts of every set of validators and
// compares with what the model says of that set.
//
// # Limits
//
//   - Sizes: four validators, one block; two shards, two validators of each, one direction; two epochs' ends.
//   - Bodies: certificates, and that a block is on a certified parent, are known to all at once. No crashes, and the
//     application finds every body valid. Two blocks of one view are two runs of the model.
//   - Receipts: the source's blocks carry one receipt; amounts, returns and the limits of a bundle are left out, as is that
//     receipts are kept for some blocks after the acknowledgement. Acknowledgements are heard of directly, not from peers
//     that lie.
//   - Epochs: nobody prunes what another still needs (engine.ErrBehind tells that at run time). Within an epoch in which
//     all honest validators are, agreement goes on.
//   - Liveness is for runs in which the network becomes stable, without a bound on how long anything takes.
package propagation
