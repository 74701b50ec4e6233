// Package simplex is the consensus machine of one shard for one epoch: Simplex (Chan and Pass 2023) with a certify
// step between notarization and finality, over a committee with voting power as numbers. It is pure: Step takes one
// Event and returns a Ready of things to do; there is no goroutine, clock, map iteration, random source, I/O or logger
// inside. The node (consensus/engine), the simulator (consensus/sim) and the tests run this same code.
//
// This comment is the specification; code and tests refer to its rules by number.
//
// # Words
//
// A view is one attempt at a block with one leader, Committee.Leader. A quorum is strictly more than two thirds of the
// power, and at most a third is faulty. Three kinds of vote, notarize, nullify and finalize, become notarization,
// nullification and finalization by a quorum. A block is certified if it is notarized and its verdict is valid. The
// root is the highest block that this machine has handed over as final; it is certified, and so at first is genesis, or the
// last block of the epoch before, in view 0. A block ends its epoch if its header names a next committee that is not the
// present one; an echo is a header without a body on such a block or on another echo (R21). A part is one validator's shards of a body (consensus/shred).
//
// # Rules
//
// R1. View. The machine is in one view at a time, at first the one above the root's. It enters v+1, if that is higher,
// when it certifies a block of view v (R6) or holds a nullification or finalization of view v, for any v. Entering arms
// the timer.
//
// R2. Propose. The leader of the current view asks its application for a block (Build) on the highest certified block,
// once it holds a nullification for every view strictly between that block's and its own. The answer (Built) is
// checked like anybody's, logged, whole, with the leader's notarize vote, and sent: to each validator its part if the
// body travels in shards (R19), else whole to all; before it go the notarization of the parent and those
// nullifications, if this machine has not sent them to all before. No answer, or a wrong one: R7.
//
// R3. Notarize. In the current view, for the first proposal that carries its leader's good notarize vote, if this
// machine has sent neither notarize nor nullify there: the parent is certified, a nullification is held for every view
// strictly between, the header is right, and the body is here, or the own part of it if it travels in shards; that part
// then goes to all with the vote. Right is: version, chain, shard, epoch, committee; the body in shards of this
// committee's code, or whole, at most Committee.WholeBytes long, and the one that the header commits to; view above the parent's,
// height one above, time strictly above; an echo where one is due and nowhere else (R21). How far the time may be from the clock is judged by the caller before the event,
// all else by the application (R5).
//
// R4. Ancestors. The parent of a notarized block counts as notarized: some honest validator voted for the block, and so
// held the parent's notarization (R3). There is at most one notarized block in a view.
//
// R5. Certify. The verdict on a block is asked for (Certify) once its body is here, its parent is valid and it is
// notarized or this machine voted notarize for it. A wrong header (R3), an invalid parent, shards that are no body's (R19),
// or Judged with Valid false make it invalid.
// Until Judged comes the machine waits, whatever else it sends or enters in the meantime.
//
// R6. Certified. A notarized block with a valid verdict ends its view, whether it comes in time or late: finalize goes
// out if nullify was not sent in that view (R8), the block is a possible parent, and R1.
//
// R7. Nullify goes out, if finalize was not sent in that view: when the timer runs out in the current view; when the
// view's notarized block, or the current view's first proposal, is invalid; when the leader's own application has
// nothing to propose; at once, when the current view's leader is to be passed over: nothing at all has come from it while
// this machine handed over eight finalities, each of a view at most four below its own, or its proposals are dropped (R11). One message of any
// kind ends the silence, and a shard that stands still passes nobody over: so a silent third costs a round of votes each
// and not a timer, and nobody who speaks loses its turn.
//
// R8. Own votes. In a view at most one vote of each kind leaves, and never both nullify and finalize. A vote is in
// Persist of the Ready that sends it first; with finalize go the block and its ancestors above the root, with the
// leader's notarize its proposal. None leaves for a view that is not above the root's and above every view that a
// finalization is held of, nor for one up to the floor (R17): what is decided needs no vote. Function cast enforces all this.
//
// R9. Finality. A finalization, whose block and ancestors down to the root are all here and valid, makes them final:
// they are handed over in height order (Finalised), the root moves up, all at or below its view is dropped (Abandoned if
// it was valid).
//
// R10. Counting. A vote is taken only from the validator that cast it, in views from Window below the current one to
// Window above, above the root's; one for each kind, view and validator. Signatures are pooled unchecked; at a quorum the
// sum is checked once; if it is bad, halving finds the bad votes. A contradiction (two notarize, two finalize, finalize
// and nullify) is looked into once for each view and validator: both votes are checked by themselves, and if good they are
// Evidence. The first vote counts on. A certificate is checked unless it is held already or not above the root.
//
// R11. Blame. Who sends a bad signature, an impossible header, a bad part, or another's vote or part is Misbehaved. Its vote is struck, from
// then on its votes are checked as they come, and its proposals and certificates dropped. One bad message costs at most
// one check, then.
//
// R12. Room. Above the root: with Depth notarized blocks held, only bodies up to TailBody bytes are proposed and voted
// for, up to TailDepth heights. Finality ends it. Small bodies leave room for as many views as an asynchronous
// network can waste in hours, since a shard that could not extend an unfinalised chain would stand still for ever.
//
// R13. Missing blocks. A notarized block that is not here, or not its body, and the missing parent of one that is, are
// fetched, whole; what is on its way as a proposal or in parts gets a moment first. What does not come is asked for again, at
// distances that grow to eight Ticks. Blocks fetched need no signature: they are named by hash. If a finalization
// is more than Reach views ahead and its block not here, or more than Reach heights and its ancestors not here, block
// sync is asked for once (SyncNeeded); until Synced nothing is judged, fetched or handed over, and all below the highest
// finalization is dropped.
//
// R14. Repeat. While a view lasts, every second Tick repeats to all: the root's finalization, the highest certified block's
// notarization, some nullifications since, own votes that have not become certificates, and at growing distances the own
// proposal, or its parts, to those who did not vote for it, and the own part of another's to those who did not vote it
// final. A validator whose vote is of an earlier view is sent what leads out of
// it, once between Ticks. A certificate made from votes goes to all at once if this validator leads its view or the next;
// with the others it waits for need. So after any loss everybody gets what one honest validator has.
//
// R15. Restart. Own votes and certificates come back from the vote log: own votes bind as if just sent (R8), the view is
// the highest voted in or entered. Own proposals that were voted for are sent again, not made again. Certificates are
// logged with the next vote, not for themselves: losing the last ones loses no promise. A block is taken back if a
// certificate, an own finalize or a descendant vouches for it. Verdicts are asked for again.
//
// R16. Halt. A finalised block that is invalid here, two notarized blocks in a view, a view both nullified and final, or
// a certificate of one view for a block of another mean that more than a third of the power lied or that this node is broken: Halted, and no further step does anything.
//
// R17. Floor. A validator that has lost its vote log joins with a floor in a new one: in views up to it no own vote and no
// proposal leaves, and nothing is built; all else, views included, goes as ever. To make a floor it asks, after the loss,
// the other validators for the certificate of the highest view that they hold (Leading). One that is not above its own
// floor yet does not answer, nor does one for which the epoch may be over: its own machine is (R22), it does not hold a
// nullification for every view between its highest certified block and its own view, or it knows of a notarized block that
// ends the epoch, is an echo, or is not here. When a quorum has answered, itself not counted, the floor is FloorMargin above the highest
// view among the answers, and that certificate is logged with it.
//
// R18. Own key. A good signature by the own key, in a vote, a proposal or a certificate that comes in, under a statement
// that is not among the own votes, in a view above the root's, above every view that a finalization is held of and above
// the floor: KeyElsewhere. Own votes are logged before they leave and held above all these (R8, R15), so somebody else has
// signed it with the key, or this log is older than its validator's last vote. Of a Ready with KeyElsewhere nothing is done:
// no vote of this machine leaves any more.
//
// R19. Shards. Parts are taken from their validator, and the own one from the leader, for the first proposal of a view, to
// which they introduce it like the proposal itself, and for notarized blocks; one of each validator, and none but the own
// once there are enough. Each shard is checked by its path before it is kept. With enough the body is rebuilt (Rebuild),
// outside the machine, and the result encoded again: if the root is another, no shards under it ever make a body, so the
// block is invalid here and everywhere, and its leader is to blame. A body that is here gives the own part if that never
// came. So who holds the parts of more than a third of the power has the body, and behind every notarization is an honest
// third that sent them. A leader with a third of the power or more sends its own part along.
//
// R20. Last block. The application decides which block ends the epoch, by the next committee that it puts into a header
// (Build) and accepts (Certify): nothing else is special about that block. It is final like any other, by its own
// finalization or that of an echo above it. Finalised hands over no more than the blocks up to it, and the echoes as headers.
//
// R21. Echoes. On a block that ends the epoch, and on an echo, the only right child is the echo: version, chain, shard, epoch,
// committees, outcomes, links, state and diff of the parent, no body, time one millisecond above the parent's, and its own
// view, height and parent. Elsewhere an echo is wrong. So a leader whose highest certified block ends the epoch asks its
// application for nothing and proposes the echo; the verdict on an echo is the comparison, and valid at once on a valid
// parent. R12 does not bar echoes, which take no more room than the nullifications of their views would. All else, votes
// above all, is as for any block, but the application never sees one, not even as Abandoned.
//
// R22. Over. When the last block is the root, the machine is over: it drops all above, sends the finalization to all once,
// and from then on casts no vote, builds nothing, enters no view and sets no timer. A validator of the epoch that votes is
// sent the finalization, once between Ticks. The next epoch is another machine, whose root is that block, in view 0, and
// whose first block is the child of that block; echoes are no blocks of it. Till its first finality R14 repeats what ended
// the epoch before, for those who are still in that one. They fetch by hash what it finalizes, or need block sync (R13): so
// the caller keeps echoes where Fetch finds them, in whatever epoch it is.
//
// # Why the floor is high enough
//
// Let w be the highest view that the validator voted in before the loss. It was its current view or the view of a
// notarized block (R3, R6, R7), so by R1 and R4 a quorum had voted in a view from w-1 on. Let u be the highest such view
// that it could know of: w is at most u+1. Each honest validator of that quorum held, for the same reason, a certificate
// from view u-1 on when it voted in u. It logged that before the vote (R15), and what is dropped since lies below a
// finalization that is held (R9, R13), so it still holds one from u-1 on; or it has lost its log as well, and then it
// answers only above a floor that was, by this very argument, not below u. Let a be the share of the power that does not
// answer for this reason, with the validator itself. The quorum's honest rest is more than 2/3-1/3-a, the answers are
// more than 2/3, and both are among 1-a: they share an honest validator. So the highest answer is at least u-1, and
// FloorMargin above it is at least u+1, which is at least w. There is no clock in this and no bound on how far anybody is
// behind, and any number of validators may lose their logs at once.
//
// Nor had the validator voted in the next epoch, if a quorum answers in this one. Say that it had: then the last block, B, was
// final before the loss, by a finalization of view v of B or an echo. Each honest signer that has its log has left v, or is in v
// and has B, or that echo, as notarized. All that is certified from v on descends from B, and v is not nullified; so whoever
// is above v and holds nullifications up from its highest certified block has one that ends the epoch. Either way it does not
// answer. Who has lost its log and is above its floor is above v, too. So no answer is honest that comes from the quorum of
// the finalization, and the rest of the answers are no quorum.
//
// It costs no liveness: the shard has to leave FloorMargin+1 views without the validator, and the quorum that answers can.
// Who cuts a validator off from the committee, or keeps a third silent, delays its floor and cannot lower it, for the
// answers come from their own validators (the transport proves it) and are checked. Limits: with more than a third faulty
// the answers may all be too low; and nothing helps against an earlier process, or an old copy of the lost log, that goes
// on voting with the same key.
//
// # Invariants
//
// Within an epoch: at most one block of a view is notarized; no view has both a nullification and a finalization; hence every block that
// is notarized after the view of a final block descends from it, and final blocks form one chain. Whatever the events, even with
// every other validator faulty: R8 holds over restarts, and what is handed over is a chain of valid blocks above the root.
//
// Over epochs: an epoch has one final last block, for it is on the one chain, and all that the chain has above it are echoes
// (R21). The next epoch's chain begins with its child, and no vote of that epoch leaves before the voter holds what makes it
// final (R22). So final blocks form one chain over all epochs, as long as each has at most a third of faulty power.
//
// # Accountability
//
// Above a third of faulty power two blocks may become final of which neither descends from the other. Let B be the one of
// the lower view v, C the other. A quorum signed B's finalization. If C is of view v too, a quorum signed another one
// there. Else the chain of C has another block X in v, and then B and X are both notarized; or it skips v, from a block
// below to a child above, and then v has a nullification. Each time two quorums contradict each other (R8), and they have
// more than a third of the power in common, all of it guilty: a signer of both. No honest validator is in it, by R8.
//
// The first two certificates are the finalizations themselves. The others exist, and honest validators have logged them,
// as long as the faulty have no quorum of their own, at most two thirds that is: then there is an honest validator among
// those who notarized the child, and it held a nullification of v when it did (R3); and the first honest validator that
// took B, or X, for notarized did so on a certificate of its own view (R4), and logged it with the vote that let others
// follow (R15). Clash names the two certificates, Contradictions finds the guilty. Beyond two thirds a conflict may leave
// nothing but legal votes: nothing is promised there.
//
// # What covers each rule
//
// Obligations are proved by package rule, from the rule as formulas; its TestVerifyMachineFollowsRule holds this machine
// against the same formulas. Package propagation has models of what must arrive. Tests are named with their folder in
// consensus. TestVerifyEveryRuleIsCovered in rule fails if a rule is missing here or a name means nothing.
//
//	R1   proved: start, view-follows-certificate
//	     tested: simplex.TestTraces/jump, rule.TestVerifyMachineFollowsRule
//	R2   proved: later-descends
//	     tested: simplex.TestTraces/happy, simplex.TestTraces/nullify, simplex.TestBuiltWrong
//	R3   proved: one-notarize, notarize-stands, block-of-its-view, later-descends
//	     tested: simplex.TestHeaders, simplex.TestParents, simplex.TestNotarizedParent, rule.TestVerifyMachineFollowsRule
//	R4   proved: quorums-overlap, quorum-has-an-honest-member, counted-is-notarized, one-notarized-block
//	     tested: simplex.TestTraces/fetch, rule.TestVerifyMachineFollowsRule
//	R5   proved: verdict-stands, final-is-certified
//	     tested: simplex.TestTraces/invalid, simplex.TestTraces/latecertify, rule.TestVerifyMachineFollowsRule
//	R6   proved: one-finalize, never-both, finalize-stands, block-of-its-view, final-is-notarized, final-is-certified
//	     tested: simplex.TestTraces/happy, simplex.TestTraces/latecertify, rule.TestVerifyMachineFollowsRule
//	R7   proved: never-both
//	     tested: simplex.TestPassOver, simplex.TestTraces/nullify, simplex.TestTraces/invalid, rule.TestVerifyMachineFollowsRule
//	R8   proved: start, memory, one-notarize, one-finalize, never-both, nullified-or-final
//	     tested: simplex.TestRandomSteps, engine.TestDuties, engine.TestPowerLossOfAll, rule.TestVerifyMachineFollowsRule
//	R9   proved: final-is-notarized, later-descends, one-chain, final-is-certified
//	     tested: simplex.TestRandomSteps, simplex.TestTraces/happy, simplex.TestTraces/fetch, sim.TestVerifySeeds
//	R10  proved: powers-add-up, quorums-overlap, quorum-has-an-honest-member, evidence-is-a-third, certificate-stands
//	     tested: simplex.TestTraces/equivocation, simplex.TestBrokenKeys, sim.TestAdversaries, rule.TestVerifyPowers
//	R11  tested: simplex.TestTraces/equivocation, simplex.TestHeaders, sim.TestAdversaries, engine.TestLyingPeers
//	R12  tested: simplex.TestTraces/room, simplex.TestBounds
//	R13  tested: simplex.TestTraces/fetch, simplex.TestSyncBounds, sim.TestFarBehind, engine.TestLyingFetch,
//	     propagation.TestVerifyModels/bodies
//	R14  tested: simplex.TestTraces/repeat, sim.TestVerifySeeds, sim.TestAdversaries, rule.TestVerifyRepeat,
//	     propagation.TestVerifyModels/bodies, propagation.TestVerifyModels/epochs
//	R15  proved: memory
//	     tested: simplex.TestTraces/restart, simplex.TestNew, simplex.TestRestoredFinalize, engine.TestRestartOne
//	R16  proved: evidence-is-a-third, one-notarized-block, nullified-or-final, block-of-its-view, one-chain, final-is-certified
//	     tested: engine.TestContradictionWhileRunning, engine.TestContradictionInRun
//	R17  proved: memory, view-follows-certificate, answers-are-high, floor-is-high-enough
//	     tested: simplex.TestFloorMargin, simplex.TestTraces/floor, sim.TestVerifyLostDisks, engine.TestLostDisk, engine.TestSilentDoesNotTell,
//	     simplex.TestNobodyAnswersAtTheEnd, engine.TestFollowOverEpochs,
//	     rule.TestVerifyMachineFollowsRule
//	R18  tested: simplex.TestTraces/ownkey, engine.TestTwoProcessesOnOneKey, engine.TestKeyElsewhereSendsNothing, engine.TestListensFirst
//	R19  tested: simplex.TestTraces/shards, sim.TestVerifySeeds, sim.TestAdversaries, propagation.TestVerifyModels/bodies,
//	     propagation.TestVerifyParts
//	R20  proved: one-last-block
//	     tested: simplex.TestTraces/epoch, simplex.TestTraces/laggard, sim.TestVerifySeeds, engine.TestEpochs, engine.TestEchoesEndAnEpoch
//	R21  proved: echoes-follow
//	     tested: simplex.TestTraces/epoch, simplex.TestEchoes, simplex.TestEchoRoom, sim.TestVerifySeeds, engine.TestEchoesEndAnEpoch
//	R22  proved: one-last-block
//	     tested: simplex.TestTraces/epoch, simplex.TestTraces/laggard, simplex.TestRoots, sim.TestVerifySeeds, engine.TestMissedEpochs,
//	     engine.TestPowerLossOverEpochs, propagation.TestVerifyModels/epochs
//
// # Bounds
//
// Ballots: 2*Window+1 views, 3 kinds, one vote a validator. Proposals: one a view in those views; one whose body is not
// here yet holds at most its body's length in shards and one part more. The own part, and all parts of an own proposal,
// about three bodies, only until its view is left. Rebuilds: one at a time for each block whose body is not here.
// Notarized blocks above the root: as R12, and one echo, a header, for each view that the last block waits for its finality. Rounds (one small record a view): the views from the root's to Window above the current one that
// something is known of; between the highest certified block and the current view they are the nullifications that a
// leader needs, 300 bytes and at most one every timeout, made by a quorum. Wants: one for each round. Signature checks:
// R10 and R11 for members; for senders outside the committee (From -1) every certificate and proposal costs one, and the
// caller limits their rate.
//
// # Deviations from the design page, with reasons
//
//   - Bodies up to Committee.WholeBytes travel whole: in shards they would cost more messages and bytes than they save.
//   - A leader sends the others their parts and, as a rule, not its own: theirs are enough without it and without any
//     faulty third, and it would double what a leader sends.
//   - The verdict is asked for when the own notarize vote leaves and the body is here, not after the notarization:
//     execution and the round of votes overlap as far as the body's way allows. It counts only with the notarization,
//     except that an invalid body is nullified at once.
//   - A view is also nullified without waiting for the timer when its proposal has an impossible header, its own leader
//     has nothing to propose, or its leader has long been silent: the wait could bring nothing.
//   - No vote is sent for what is known to be final already: it would cost a sync and convince nobody.
//   - R4 and R12 to R14 fill what the page leaves open.
//   - The timer grows with each one that ran out since the last finality, rather than with consecutive nullified views:
//     a late certificate is progress but no sign that the timer was long enough.
//   - One machine is one epoch; the hand-over to the next is the caller's (R22). While the next committee is not known,
//     headers name the present one as the next, that is, the epoch is extended.
//   - The descendants of the last block are not empty blocks that the application makes, but echoes (R21), which nobody has
//     to execute or judge: a last block would else not be final where the application is slow, or holds it for the wrong one.
package simplex
