/* The body of one block, in parts: rules R3, R5, R6, R7, R13, R14 and R19 of consensus/simplex.
 *
 * Four validators; one of them, FAULTY, does what it likes. The test says who leads (LEADER), the power of each (P0 to P3),
 * what a quorum is (QUORUM), how many shards each has (S0 to S3) and how many make a body (K): all from the Go code.
 *
 * "as FILE: TEXT" is Go code that a step stands for; a test fails when FILE does not have TEXT any more. */

#define N 4
#define BIT(i) (1 << (i))
#define IN(m, i) (((m) >> (i)) & 1)
#define POWER(m) (IN(m, 0) * P0 + IN(m, 1) * P1 + IN(m, 2) * P2 + IN(m, 3) * P3)
#define SHARDS(m) (IN(m, 0) * S0 + IN(m, 1) * S1 + IN(m, 2) * S2 + IN(m, 3) * S3)
#define HONEST (15 - BIT(FAULTY))

/* Verdicts. Any other number is a body that is not the one under the root. */
#define UNKNOWN 0
#define INVALID 1
#define BODY 2
#define FORGED 3
#define REBUILT 16 /* and the parts that it was rebuilt from */

bool codeword;   /* the root in the header is that of an encoding */
bool stable;     /* nothing is lost any more, and the adversary has done what it wants */
bool notarized;  /* with what anybody can be shown */
bool nullified;
byte got[N];     /* whose parts a validator has; of a block that it has judged, only whether its own */
byte spoiled;    /* validators that hold a part which is not under the root */
byte verdict[N];
byte voted;      /* who sent notarize, */
byte gaveup;     /* and nullify */

#define HAS(i) (verdict[i] != UNKNOWN && verdict[i] != INVALID)
#define HOLDERS ((BIT(0) * HAS(0) | BIT(1) * HAS(1) | BIT(2) * HAS(2) | BIT(3) * HAS(3)) & HONEST)
#define SETTLED(i) (i == FAULTY || verdict[i] != UNKNOWN)
#define ALLSETTLED (SETTLED(0) && SETTLED(1) && SETTLED(2) && SETTLED(3))

/* A notarized block is judged by every honest validator. One exception: its view is nullified and no honest validator has
 * the body. Then none has certified the block, so none builds on it or votes it final, and the shard goes on without. */
ltl judged { [] (notarized -> <> (ALLSETTLED || (nullified && HOLDERS == 0))) }

/* What rebuilding from a set of parts gives.
 * as accel/erasure/assembly.go: if set.root != a.commitment {
 * as consensus/shred/assembly.go: func (a *Assembly) Ready() bool { return a.count >= a.c.Code().K() }
 */
#ifdef TWIN_TRUST_THE_DECODER
#define OF(i) ((SHARDS(got[i]) < K || IN(spoiled, i)) -> FORGED : (codeword -> BODY : REBUILT + got[i]))
#else
#define OF(i) ((SHARDS(got[i]) >= K && !IN(spoiled, i) && codeword) -> BODY : INVALID)
#endif
#if defined(TWIN_TOO_FEW_PARTS)
#define ENOUGH (K / 2)
#elif defined(TWIN_TOO_MANY_PARTS)
#define ENOUGH (K + SHARDS(BIT(FAULTY)))
#else
#define ENOUGH K
#endif

/* judge gives validator i its verdict, and checks that the honest ones agree. */
inline judge(i, what) {
	verdict[i] = what;
	assert((0 == FAULTY || verdict[0] == UNKNOWN || verdict[0] == verdict[i]) && (1 == FAULTY || verdict[1] == UNKNOWN || verdict[1] == verdict[i]) &&
		(2 == FAULTY || verdict[2] == UNKNOWN || verdict[2] == verdict[i]) && (3 == FAULTY || verdict[3] == UNKNOWN || verdict[3] == verdict[i]));
	assert(verdict[i] == (codeword -> BODY : INVALID));
	got[i] = got[i] & BIT(i);
	if
	/* R7, for the current view's proposal and for a notarized block. */
	:: verdict[i] == INVALID -> gaveup = gaveup | BIT(i)
	:: else
	fi
}

/* Who is not in the view any more (R1, R6). That a certificate is there is known to all at once.
 * as consensus/simplex/rules.go: m.enter(r.view + 1)
 */
#define LEFT(i) (nullified || (notarized && HAS(i)))

/* Who passes its part on: with its vote, and the leader only if it is heavy.
 * as consensus/simplex/rules.go: m.relay(r.proposal, func(int) bool { return true })
 * as consensus/simplex/parts.go: if c := m.c.Committee; 3*c.Validators[m.c.Index].Power >= c.Total() {
 */
#define PASSES(i) (i == FAULTY || (IN(voted, i) && (i != LEADER || HEAVY) && IN(got[i], i)))
/* Whose part is of use to k: a notarize vote or a header comes with it, and shards are checked by their paths.
 * as consensus/simplex/parts.go: err = b.parts.Add(p)
 */
#define WANTS(k, i) (k != FAULTY && verdict[k] == UNKNOWN && !IN(got[k], i))

/* Luck is all that may happen and need not, and the adversary: messages that come, timers, certificates out of any votes. What
 * it never delivers is lost, or withheld. It ends: each of its steps is taken once. */
#define PART(i, k) :: atomic { k != i && WANTS(k, i) && PASSES(i) -> got[k] = got[k] | BIT(i) }
#define LUCK(i) \
	/* The leader's part for i. A faulty leader gives it to whom it likes. */ \
	:: atomic { WANTS(i, i) -> got[i] = got[i] | BIT(i) } \
	PART(i, 0) PART(i, 1) PART(i, 2) PART(i, 3) \
	/* A timer. */ \
	:: atomic { i != FAULTY && !LEFT(i) && !IN(gaveup, i) -> gaveup = gaveup | BIT(i) } \
	/* A block that was asked for, from an honest validator. */ \
	:: atomic { i != FAULTY && notarized && verdict[i] == UNKNOWN && HOLDERS != 0 -> judge(i, BODY) }

proctype Luck() {
	do
	LUCK(0)
	LUCK(1)
	LUCK(2)
	LUCK(3)
	:: atomic { !notarized && POWER(voted | BIT(FAULTY)) >= QUORUM -> notarized = true }
	:: atomic { !nullified && POWER(gaveup | BIT(FAULTY)) >= QUORUM -> nullified = true }
#ifdef TWIN_UNCHECKED_PART
	:: atomic { WANTS(0, FAULTY) -> got[0] = got[0] | BIT(FAULTY); spoiled = spoiled | BIT(0) }
#endif
#ifdef TWIN_UNCHECKED_FETCH
	/* as consensus/simplex/repeat.go: m.blame(e.From, "block with another body") */
	:: atomic { notarized && verdict[0] == UNKNOWN -> judge(0, FORGED) }
#endif
	:: stable = true; break
	od;
	do
	:: stable /* time goes on, also when nothing else does */
	od
}

#ifdef TWIN_VOTE_WITHOUT_PART
#define HASPART(i) true
#else
#define HASPART(i) (IN(got[i], i) || HAS(i))
#endif
#define LACKS(k, i) ((k != i && WANTS(k, i)) * BIT(k))
#define LACKING(i) (LACKS(0, i) | LACKS(1, i) | LACKS(2, i) | LACKS(3, i))
#define NOPART(k) ((k != LEADER && !IN(voted, k) && WANTS(k, k)) * BIT(k))
#define UNSENT (NOPART(0) | NOPART(1) | NOPART(2) | NOPART(3))

/* What validator i does by itself, and, once the network is stable, what it repeats until it is there. */
proctype Validator(byte i) {
	byte k, to;
	do
	/* R3. as consensus/simplex/rules.go: !m.room(b) || !(b.here || b.own != nil) { */
	:: atomic { !IN(voted | gaveup, i) && !LEFT(i) && verdict[i] != INVALID && HASPART(i) -> voted = voted | BIT(i) }
	/* R19. as consensus/simplex/parts.go: if missing && b.parts.Ready() { */
	:: atomic { verdict[i] == UNKNOWN && SHARDS(got[i]) >= ENOUGH -> judge(i, OF(i)); got[i] = got[i] | (HAS(i) -> BIT(i) : 0) }
	/* Votes come through, also without those of the faulty. */
	:: atomic { stable && !notarized && POWER(voted) >= QUORUM -> notarized = true }
	:: atomic { stable && !nullified && POWER(gaveup) >= QUORUM -> nullified = true }
#ifndef TWIN_NO_REPEAT
	/* R14: the own part, as long as the view lasts. as consensus/simplex/repeat.go: m.relay(r.proposal, lacks(finalize)) */
	:: atomic { stable && PASSES(i) && !LEFT(i) && LACKING(i) != 0 -> to = LACKING(i);
		for (k : 0 .. N - 1) { got[k] = got[k] | (IN(to, k) -> BIT(i) : 0) } k = 0; to = 0 }
	/* R14: the leader's proposal. as consensus/simplex/repeat.go: if i != m.c.Index && lacks(notarize)(i) { */
	:: atomic { stable && i == LEADER && !LEFT(i) && UNSENT != 0 -> to = UNSENT;
		for (k : 0 .. N - 1) { got[k] = got[k] | (IN(to, k) -> BIT(k) : 0) } k = 0; to = 0 }
#endif
#ifndef TWIN_NO_FETCH
	/* R13: peers are asked in turn, and an honest one that has the body gives it.
	 * as consensus/simplex/repeat.go: if !b.here && !b.rebuilding && b.verdict == unknown {
	 * as consensus/engine/fetch.go: for _, to := range peers {
	 */
	:: atomic { stable && notarized && verdict[i] == UNKNOWN && HOLDERS != 0 -> judge(i, BODY) }
#endif
	od
}

init {
	atomic {
		codeword = true;
		if
		:: LEADER == FAULTY -> codeword = false
		:: true
		fi;
		if
		:: LEADER != FAULTY -> got[LEADER] = BIT(LEADER); verdict[LEADER] = BODY; voted = BIT(LEADER)
		:: else
		fi;
		if :: FAULTY != 0 -> run Validator(0) :: else fi;
		if :: FAULTY != 1 -> run Validator(1) :: else fi;
		if :: FAULTY != 2 -> run Validator(2) :: else fi;
		if :: FAULTY != 3 -> run Validator(3) :: else fi;
		run Luck()
	}
}
