/* The hand-over from epoch to epoch: rules R14, R20, R21 and R22 of consensus/simplex and what the engines add.
 *
 * Three honest validators and a faulty one, of equal power, over ENDS epochs and into one more. The faulty one votes when it
 * likes and answers nothing. That an epoch has one last block, and its finalization one meaning, is proved in consensus/rule;
 * here the question is whether everybody learns of it, once some have left the old epoch.
 *
 * "as FILE: TEXT" is Go code that a step stands for; a test fails when FILE does not have TEXT any more. */

#define N 3
#define ENDS 2
#define BIT(i) (1 << (i))
#define IN(m, i) (((m) >> (i)) & 1)
#define COUNT(m) (IN(m, 0) + IN(m, 1) + IN(m, 2))

bool stable;        /* nothing is lost any more, nobody crashes */
byte epoch[N];
bool knows[N];      /* holds the finalization that ended its epoch, but not all blocks and echoes that it is about */
byte finals[ENDS];  /* who voted the last block final, or an echo of it */
bool ended[ENDS];   /* with the faulty vote or without, there was a quorum */
bool begun[ENDS + 1]; /* something is final in the epoch */

#define THERE(e) ((epoch[0] == e) * BIT(0) | (epoch[1] == e) * BIT(1) | (epoch[2] == e) * BIT(2))
#define ABOVE(e) ((epoch[0] > e) * BIT(0) | (epoch[1] > e) * BIT(1) | (epoch[2] > e) * BIT(2))
#define NEXTTO(e) ((epoch[0] == e + 1) * BIT(0) | (epoch[1] == e + 1) * BIT(1) | (epoch[2] == e + 1) * BIT(2))

/* Who tells what ended an epoch: a validator that has left it, however long ago.
 * as consensus/engine/epoch.go: end, err = e.c.Ends(epoch)
 */
#if defined(TWIN_OWN_EPOCH_ONLY)
#define TELLERS(e) 0
#elif defined(TWIN_FORGET_ENDS)
#define TELLERS(e) NEXTTO(e)
#else
#define TELLERS(e) ABOVE(e)
#endif
/* Who has the blocks and echoes.
 * as consensus/engine/serve.go: bl, err := e.c.Log.Block(hash)
 * as consensus/engine/serve.go: if err := e.addEchoes(&r, epoch); err != nil || len(r.echoes) > maxRunEchoes {
 */
#ifdef TWIN_DROP_ECHOES
#define KEEPERS(e) 0
#else
#define KEEPERS(e) ABOVE(e)
#endif

/* Everybody comes to the last epoch. */
ltl arrive { <> (epoch[0] == ENDS && epoch[1] == ENDS && epoch[2] == ENDS) }

/* enter is the start of the next epoch's machine.
 * as consensus/engine/epoch.go: if !h.Ends() {
 */
inline enter(i) {
	assert(ended[epoch[i]]); /* nobody is in an epoch before the one below has its finalization */
	epoch[i] = epoch[i] + 1;
	knows[i] = false
}

proctype Validator(byte i) {
	do
	/* R22. All are in one epoch: agreement goes on without the faulty one, as explored and simulated elsewhere. */
	:: atomic { stable && epoch[i] < ENDS && COUNT(THERE(epoch[i])) == N -> finals[epoch[i]] = BIT(N) - 1; ended[epoch[i]] = true; enter(i) }
#ifdef TWIN_ENTER_ON_NOTARIZATION
	:: atomic { epoch[i] < ENDS && IN(finals[epoch[i]], i) -> enter(i) }
#endif
	/* R14: who is in the next epoch repeats what ended the one before, until something is final there.
	 * as consensus/simplex/repeat.go: m.send(Outbound{To: ToAll, Cert: &final})
	 */
	:: atomic { stable && epoch[i] < ENDS && !knows[i] && NEXTTO(epoch[i]) != 0 && !begun[epoch[i] + 1] -> knows[i] = true }
	/* Who hears nothing, or of a later epoch, asks peers in turn; and who sends a vote of an old epoch is answered.
	 * as consensus/engine/loop.go: if e.ahead.Swap(false) || e.sinceFinal%pollTicks == 0 {
	 * as consensus/engine/serve.go: if f, err = e.endOf(epoch); err != nil {
	 * as consensus/engine/epoch.go: e.c.Network.Send(from, ClassVote, encodeCertificate(&f.Cert))
	 */
	:: atomic { stable && epoch[i] < ENDS && !knows[i] && TELLERS(epoch[i]) != 0 -> knows[i] = true }
	/* R13: what it finalizes is fetched by its hash, or in runs.
	 * as consensus/engine/epoch.go: if e.ended, err = e.c.Log.EpochEnd(h.Epoch); err != nil {
	 */
	:: atomic { stable && knows[i] && KEEPERS(epoch[i]) != 0 -> enter(i) }
	od
}

/* What may happen and need not, until the network is stable. */
#define LUCK(i) \
	/* i votes for the last block of its epoch. It has it, then. */ \
	:: atomic { epoch[i] < ENDS && !IN(finals[epoch[i]], i) -> finals[epoch[i]] = finals[epoch[i]] | BIT(i) } \
	/* i sees a quorum of the votes. */ \
	:: atomic { epoch[i] < ENDS && ended[epoch[i]] && IN(finals[epoch[i]], i) -> enter(i) } \
	:: atomic { epoch[i] < ENDS && ended[epoch[i]] && !knows[i] -> knows[i] = true } \
	:: atomic { knows[i] && KEEPERS(epoch[i]) != 0 -> enter(i) } \
	/* i crashes. What it has logged it has still. */ \
	:: atomic { knows[i] -> knows[i] = false }

#define QUORUM(e) (COUNT(finals[e]) + 1 >= 3)

proctype Luck() {
	do
	:: stable -> break
	:: else ->
		if
		LUCK(0)
		LUCK(1)
		LUCK(2)
		:: atomic { !ended[0] && QUORUM(0) -> ended[0] = true }
		:: atomic { !ended[1] && QUORUM(1) -> ended[1] = true }
		:: atomic { !begun[1] && COUNT(ABOVE(0)) + 1 >= 3 -> begun[1] = true }
		:: atomic { !begun[2] && COUNT(ABOVE(1)) + 1 >= 3 -> begun[2] = true }
		:: stable
		fi
	od
}

/* Time goes on, also when nothing else does. */
proctype Time() {
	stable = true;
	do
	:: stable
	od
}

init {
	atomic {
		run Validator(0);
		run Validator(1);
		run Validator(2);
		run Luck();
		run Time()
	}
}
