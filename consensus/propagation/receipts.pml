/* Receipts from one shard to another: R of them, with a cursor on each side and the acknowledgement back.
 *
 * The source shard has a final block and at most one above it, the destination at most two. Blocks above the final one may
 * be abandoned, and what was in them proposed again. Two validators of the destination fetch and lead. Each asks two
 * validators of the source in turn, of which one is honest and the other says what it likes, or nothing. Leaders of the
 * destination may be faulty. The votes that make blocks final are not here: the other models and the proofs are about them.
 *
 * "as FILE: TEXT" is Go code that a step stands for; a test fails when FILE does not have TEXT any more. */

#ifndef R
#define R 2
#endif

bool stable;     /* nothing is lost any more, nobody crashes, no block is abandoned */

/* The source: receipts are numbered from 0. */
byte sent;       /* in final blocks */
byte acked;      /* by the last header used in a final block */
byte dropped;    /* receipts below are not kept any more */
bool open;       /* there is a block above the final one: */
bool more;       /* it sends a receipt */
byte told;       /* it has a header that acknowledges so many; as many as acked if none */
byte heard;      /* what the newest final header of the destination that is known here has received */

/* The destination: its cursor, and the bundles of the blocks above the final one, the lower first. */
byte received;   /* the cursor of the final block */
byte credited;   /* receipts credited in final blocks */
byte low_first, low_end, high_first, high_end;
bool low_bad, high_bad; /* the receipts are not those under the root */
byte above;      /* blocks above the final one */
#define TIP (above == 0 -> received : (above == 1 -> low_end : high_end))

/* What the destination's validators hold. */
byte held_first[2], held_end[2]; /* the same: nothing */
bool held_bad[2];
byte known[2];   /* receipts sent as of the newest final header of the source that is known */
byte peer[2];    /* who is asked next: 0 is honest */
byte first[2];   /* who was asked first since a bundle was refused */

#define HONEST 0
#define FAULTY 1

/* Every receipt of a final block is credited, acknowledged and dropped, in the end. */
ltl delivered { <> [] (credited == sent && dropped == sent) }

/* What a validator of the destination demands of the bundle [first, end) in a block above one with the cursor at.
 * as state/ledger/bundle.go: if u.First != ch.Received.Count() || link.Sent < u.First || link.Sent-u.First != uint64(len(u.Receipts)) {
 * as state/ledger/bundle.go: if grown.Root() != link.Root {
 * as state/ledger/bundle.go: header, err := l.o.Headers.Verify(u.Source, ch.Known, u.Proof)
 */
#if defined(TWIN_NO_CURSOR_CHECK)
#define FITS(f, at) true
#elif defined(TWIN_CURSOR_OF_FINAL_BLOCK)
#define FITS(f, at) (f == received)
#else
#define FITS(f, at) (f == at)
#endif
#ifdef TWIN_NO_ROOT_CHECK
#define MATCHES(b) true
#else
#define MATCHES(b) (!(b))
#endif
#ifdef TWIN_PROOF_NOT_FINAL
#define PROVABLE (sent + (open && more))
#else
#define PROVABLE sent
#endif
#define VALID(f, t, b) (FITS(f, TIP) && f < t && t <= PROVABLE && MATCHES(b))

/* What the destination has received, as far as its headers are taken for an acknowledgement.
 * as state/ledger/bundle.go: if link.Received < ch.Acked || link.Received > ch.Sent.Count() {
 */
#ifdef TWIN_ACK_NOT_FINAL
#define ACKNOWLEDGED TIP
#else
#define ACKNOWLEDGED received
#endif

inline forget(i) { held_first[i] = 0; held_end[i] = 0; held_bad[i] = false }

/* extend puts a block with a bundle on the tip. */
inline extend(from, to, wrong) {
	if
	:: above == 0 -> low_first = from; low_end = to; low_bad = wrong
	:: above == 1 -> high_first = from; high_end = to; high_bad = wrong
	fi;
	above++
}

inline drop(upto) {
	dropped = upto;
	assert(dropped <= received) /* the source keeps what is not final at the destination */
}

/* trim drops what a new final block of the destination has consumed.
 * as appliance/node/crosslink.go: rest := append([]tx.Receipt(nil), s.bundle.Receipts[l.Received-s.bundle.First:]...)
 */
inline trim(i) {
	if
	:: held_end[i] <= received -> forget(i)
	:: held_end[i] > received && held_first[i] < received -> held_first[i] = received
	:: else
	fi
}

/* What a validator of the destination lacks, and how it finds out. It asks also when it knows of nothing.
 * as appliance/node/crosslink.go: return ok && l.Sent > s.end()
 */
#define END(i) (held_end[i] > held_first[i] -> held_end[i] : received)
#ifdef TWIN_NO_POLL
#define ASKS(i) (END(i) < known[i])
#define NEWS !stable /* gossip, while it lasts */
#else
#define ASKS(i) (END(i) < sent)
#define NEWS true
#endif
#ifdef TWIN_ASK_ONE_PEER
#define NEXT(i) skip
#else
#define NEXT(i) peer[i] = 1 - peer[i]
#endif
/* as appliance/node/crosslink.go: case err != nil || !grew || c.lacks(s): // unreachable, wrong, without news, behind, or sparing: ask the next one next time */
#ifdef TWIN_STAY_WITHOUT_NEWS
#define ROTATES(i) (END(i) < known[i])
#else
#define ROTATES(i) (!grew || END(i) < known[i])
#endif
/* as appliance/node/crosslink.go: s.nextPeer = s.refused */
#ifdef TWIN_ROTATE_TWICE
#define AFTER_REFUSAL(i) NEXT(i)
#else
#define AFTER_REFUSAL(i) first[i] = 1 - first[i]; peer[i] = first[i]
#endif

/* take joins receipts up to a number, proven by a header that has sent so many, to what i holds. */
inline take(i, to, wrong) {
	grew = END(i) < to;
	if
	:: grew && held_end[i] > held_first[i] -> held_end[i] = to; held_bad[i] = held_bad[i] || wrong
	:: grew && held_end[i] <= held_first[i] -> held_first[i] = received; held_end[i] = to; held_bad[i] = wrong
	:: else
	fi;
	if
	:: known[i] < to -> known[i] = to
	:: else
	fi
}

/* A validator of the destination fetches, and proposes when it leads. */
proctype Destination(byte i) {
	byte e;
	bool grew;
	do
	/* as appliance/node/crosslink.go: grew, err = c.take(s, from, answer) */
	:: atomic { ASKS(i) -> e = END(i);
		if
		:: peer[i] == HONEST ->
			/* as appliance/node/crosslink.go: receipts, err := c.outbox.Receipts(dest, from, sent) */
			assert(e >= dropped);
			e = sent;
#ifdef TWIN_DROP_WHEN_SERVED
			drop(sent);
#endif
			take(i, e, false)
		:: peer[i] == FAULTY                 /* nothing, or what is refused */
		:: peer[i] == FAULTY ->              /* by the newest header, or an old one: right receipts, or wrong ones */
			do
			:: e < PROVABLE -> e++
			:: break
			od;
			if
			:: take(i, e, false)
			:: take(i, e, true)
			fi
		:: !stable                           /* the answer is lost */
		fi;
		if
		:: ROTATES(i) -> NEXT(i)
		:: else
		fi;
		grew = false;
		e = 0 }
	/* as appliance/node/crosslink.go: out.Receipts = s.bundle.Receipts[received-s.bundle.First : theirs.Sent-s.bundle.First]
	 * as appliance/node/app.go: a.cross.refused(bundles[i].Source)
	 */
	:: atomic { above < 2 && held_first[i] <= TIP && TIP < held_end[i] ->
		e = TIP;
		if
		:: VALID(e, held_end[i], held_bad[i]) -> extend(e, held_end[i], held_bad[i])
#ifndef TWIN_KEEP_REFUSED
		:: else -> forget(i); AFTER_REFUSAL(i)
#else
		:: else
#endif
		fi;
		e = 0 }
	od
}

/* Both shards go on. */
proctype Shards() {
	do
	/* The source's leaders learn of the destination's final headers, and put the acknowledgement into a block.
	 * as appliance/node/crosslink.go: return c.lacks(s) || time.Since(s.heard) >= headPoll
	 * as appliance/node/crosslink.go: theirs, ok := linkTo(p.header(), c.self)
	 */
	:: atomic { NEWS && heard < ACKNOWLEDGED -> heard = ACKNOWLEDGED }
	:: atomic { !open && heard > acked && heard <= sent -> open = true; told = heard }
	/* A block of the source becomes final. Receipts are dropped when the block that acknowledges them is final.
	 * as state/ledger/finalise.go: if err := s.DropReceipts(c.Shard, c.Acked); err != nil {
	 */
	:: atomic { open -> sent = sent + more; acked = told; open = false; more = false; told = 0;
		if
		:: acked > dropped -> drop(acked)
		:: else
		fi }
	/* A block of the destination becomes final. The cursor is part of the state that the block makes, with the credits.
	 * as state/ledger/bundle.go: ch.Received, ch.Acked, ch.Known, ch.HeaderHeight = grown, link.Received, header.Known, header.Height
	 */
	:: atomic { above > 0 ->
		assert(low_first == credited);         /* each once, and in order */
		assert(low_end <= sent && !low_bad);   /* as the source's final blocks have them */
		received = low_end;
#ifdef TWIN_CURSOR_FIRST
		if
		:: !stable -> skip                     /* power fails between the two */
		:: credited = low_end
		fi;
#else
		credited = low_end;
#endif
		low_first = high_first; low_end = high_end; low_bad = high_bad;
		high_first = 0; high_end = 0; high_bad = false;
		above--;
		trim(0);
		trim(1) }
	od
}

/* What may happen and need not. All of it is over when the network is stable: whatever of it comes later, with the steps that come
 * before it, may as well come while it is not. */
proctype Luck() {
	byte f, e;
	do
	/* Users send receipts, in a block with an acknowledgement or without. */
	:: atomic { !stable && !open && sent < R -> open = true; more = true;
		if
		:: heard > acked && heard <= sent -> told = heard
		:: told = acked
		fi }
	/* A faulty leader of the destination proposes what the others let pass. */
	:: atomic { !stable && above < 2 -> select(f : 0 .. R - 1); select(e : 1 .. R);
		if
		:: VALID(f, e, false) -> extend(f, e, false)
		:: VALID(f, e, true) -> extend(f, e, true)
		:: else
		fi;
		f = 0; e = 0 }
	/* Blocks are abandoned. */
	:: atomic { !stable && above == 2 -> high_first = 0; high_end = 0; high_bad = false; above = 1 }
	:: atomic { !stable && above == 1 -> low_first = 0; low_end = 0; low_bad = false; above = 0 }
	:: atomic { !stable && open -> open = false; more = false; told = 0 }
	/* Crashes: what is not in the final state is lost. */
	:: atomic { !stable -> forget(0); known[0] = 0 }
	:: atomic { !stable -> forget(1); known[1] = 0 }
	:: atomic { !stable -> heard = 0 }
	/* Gossip. */
	:: atomic { !stable && known[0] < sent -> known[0] = sent }
	:: atomic { !stable && known[1] < sent -> known[1] = sent }
	:: stable -> break
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
		if
		:: peer[0] = HONEST
		:: peer[0] = FAULTY; first[0] = FAULTY
		fi;
		if
		:: peer[1] = HONEST
		:: peer[1] = FAULTY; first[1] = FAULTY
		fi;
		run Shards();
		run Destination(0);
		run Destination(1);
		run Luck();
		run Time()
	}
}
