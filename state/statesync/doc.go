// Package statesync copies the ledger of a shard from the nodes that have it into an empty folder, while the chain goes on.
//
// In: a folder being filled (ledger.Restore), peers that answer requests (Network), verified final headers (Headers). Out:
// a folder that ledger.Open opens, final at a height that is a few blocks below the tip; the node catches up from there
// like one that was away. On the other side a Server answers from a ledger.
//
// # What is fetched
//
// An outline, which says what there is; chunks of up to 4,096 accounts, each as of whatever height its peer is at; the
// difference of every block since the outline; the directory of BLS keys in segments; and the receipts on their way to
// other shards. Each part is checked by itself against a verified header before it is kept, and durable before it counts.
//
// # Who is asked
//
// A Client has a bounded number of requests under way, with each peer and in all, and every part is asked of one peer at a
// time. A request has a limit that follows from how fast peers answer; what a slow or silent peer was asked for is taken
// again. Peers that are busy, behind or out of reach rest for a while, longer each time, and are asked again. A peer that
// sends a part that is wrong is dropped for the whole sync and named with the part (PeerStatus.Dropped). Slow, silent and
// refusing peers are not called liars: nobody can tell them from ones in trouble.
//
// Differences are fetched beside the chunks, so that peers may drop old ones however long the chunks take. Where a sync was
// interrupted for so long that nobody keeps the next difference, what is older than those kept is fetched again.
//
// # Bounds
//
// Answers have at most MaxAnswerBytes, requests MaxRequestBytes; a client holds at most Options.Requests answers. A Server
// answers a bounded number of requests at a time and a bounded number of bytes a second, which it shares evenly among the
// peers that ask, and tells the others when to come back.
//
// # Errors
//
// Run ends with its context, with ErrNobody, which names every peer and what it did, or with an error of the folder, which
// is fatal. Whatever came is kept in any case, and the next Run goes on from it. Nothing here logs: see Observer, Progress.
//
// Source: the design page "The system", 3.5. Peers answer at their own heights, so there is no pivot block and nothing to
// heal afterwards.
package statesync
