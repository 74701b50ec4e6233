package node

// Stage is one step of a transaction's way through a node.
type Stage struct {
	Name       string // what happens
	Package    string // who does it
	Goroutines string // on what it runs
	Queue      string // what waits in front of it, and its bound
	Full       string // what happens when that is full
}

// Pipeline is the path of a transaction, from the packet to the proof, in order. ARCHITECTURE.md shows the same table; a
// test compares the two, and the numbers with the code.
var Pipeline = []Stage{
	{"take in from clients", "appliance/api", "one for each request, 128", "connections, 1,024", "connections wait; requests are refused, 503, and above the rates 429"},
	{"take in from validators", "netstack/p2p", "one for each peer and class", "128 batches", "oldest dropped; sent again by its owner"},
	{"verify signatures", "accel/ed25519", "one for each core", "16,384 signatures", "refused as busy, 503"},
	{"admit", "state/pool", "the caller's", "200,000 transactions, and what is final in about 1 s", "refused as pool_full, 503, with a time to come back, before the signature; lowest fee out"},
	{"check and hold batches", "state/pool", "the caller's", "1,000,000 transfers, 64 MiB", "refused as pool_full, 503, or over a quota 429"},
	{"forward to coming leaders", "appliance/node", "1, and one for each peer", "32,768 transactions, 64 distilled batches, 64 messages for each peer", "sent by the resend round, after 1 s"},
	{"build a block", "state/ledger", "1, and one for each core", "1 request", "the view passes to the next leader"},
	{"send the proposal", "netstack/p2p", "one for each peer", "16 bodies or parts of bodies, 32 MiB", "oldest dropped; repeated, or fetched by hash"},
	{"vote: log, sync, send", "consensus/engine", "1, owns the machine", "8,192 messages", "oldest dropped; votes are repeated"},
	{"rebuild the body from parts", "consensus/engine", "2", "one body for each view of the window", "the verdict waits"},
	{"certify: execute, hash", "state/ledger", "1, and one for each core", "256 calls", "no messages are taken in meanwhile"},
	{"finalise: one durable batch", "state/ledger", "1", "16 finalizations", "verdicts wait"},
	{"tell and prove", "appliance/api", "one for each subscriber, 64", "64 blocks or 64 MiB each", "subscriber cut off, resumes by height"},
}
