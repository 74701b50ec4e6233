package simplex

import (
	"time"

	"tutti/consensus"
	"tutti/consensus/shred"
)

// Event is one input of the machine. The concrete types below are all there are.
type Event interface{ event() }

type (
	// ProposalReceived: a leader's proposal, decoded, from anyone. Block and vote are not checked yet. From is as in
	// VoteReceived: a proposal with a bad signature costs its sender its place. A header whose time is too far from
	// the clock is not passed in: the verdicts that the machine asks for have no clock in them.
	ProposalReceived struct {
		From     int
		Proposal *consensus.Proposal
	}
	// PartReceived: a part of a proposal whose body travels in shards, decoded, from the leader or from the validator
	// whose part it is. Header, vote and shards are not checked yet. From and the header's time are as in
	// ProposalReceived.
	PartReceived struct {
		From int
		Part *shred.Part
	}
	// VoteReceived: a vote, decoded, not checked. From is the committee index of the peer that sent it (the
	// transport authenticates peers), or -1 when the sender is not a member.
	VoteReceived struct {
		From int
		Vote consensus.Vote
	}
	// CertificateReceived: a notarization, nullification or finalization, decoded, not checked.
	CertificateReceived struct {
		From int
		Cert consensus.Certificate
	}
	// BlockFetched: the answer to a Fetch: a block by hash, with the notarization of it if the peer still has one
	// (else zero). Not checked beyond decoding. From is as in VoteReceived.
	BlockFetched struct {
		From         int
		Block        consensus.Block
		Notarization consensus.Certificate
	}
	// Built: the answer to a Build. View, height, parent, time or committee set wrongly is a bug of the application:
	// the view is given up and Misbehaved names the machine's own validator. A nil Block means that the application
	// has nothing to propose and gives the view up. Shreds is the body cut up for the committee, if it is to travel in
	// shards; if it is nil then, the machine cuts it itself, which takes the time of a step.
	Built struct {
		View   consensus.View
		Block  *consensus.Block
		Shreds *shred.Set
	}
	// Rebuilt: the answer to a Rebuild. Shreds is nil if the header's root is no body's: a verdict for ever, and the same
	// for everybody.
	Rebuilt struct {
		Block  consensus.Hash
		Shreds *shred.Set
	}
	// Judged: the answer to a Certify. Valid false means invalid for ever: a pure function of body and parent state.
	Judged struct {
		Block consensus.Hash
		Valid bool
	}
	// TimerFired: the view timer that SetTimer armed, for that view.
	TimerFired struct{ View consensus.View }
	// Tick: a slow regular beat (about four a second). The machine repeats unanswered votes and fetches on it.
	Tick struct{}
	// Synced: the answer to SyncNeeded, always given in the end: block sync brought and executed a chain of blocks up
	// to Header, which Cert finalizes. The engine has checked certificate and links, logged the blocks and finalised
	// them in the application. A header no higher than the machine's says that the attempt is over: SyncNeeded comes
	// again if it is still needed. Header is never an echo: of the last block of the epoch, Cert may finalize an echo.
	Synced struct {
		Header *consensus.Header
		Cert   consensus.Certificate
	}
)

func (ProposalReceived) event()    {}
func (PartReceived) event()        {}
func (Rebuilt) event()             {}
func (VoteReceived) event()        {}
func (CertificateReceived) event() {}
func (BlockFetched) event()        {}
func (Built) event()               {}
func (Judged) event()              {}
func (TimerFired) event()          {}
func (Tick) event()                {}
func (Synced) event()              {}

// Ready is everything the machine wants done after one Step. The caller's duties, in this order:
//
//  1. Append Persist.Blocks to the block log and Persist.Records to the vote log; if anything was appended, sync
//     (blocks first, then votes). A failed append or sync is fatal: stop without sending.
//  2. Only then send Send. Delivery is best effort.
//  3. Start the Apply actions in order. Their answers come back as events, in any order and at any later time.
//
// Slices belong to the caller until the next Step.
type Ready struct {
	Persist Persist
	Send    []Outbound
	Apply   []Action
}

// Persist is what must be durable before Send.
type Persist struct {
	Blocks  []consensus.Block // own proposals, bodies about to be voted final or handed over as final, echoes; each once
	Records []Record
}

// Record is one entry of the vote log. Exactly one field is set.
type Record struct {
	Vote  *consensus.Vote        // an own vote about to leave
	Cert  *consensus.Certificate // a verified certificate worth keeping across a restart
	Floor *Floor                 // never from the machine: from who joins without the log of its earlier votes (R17)
}

// Floor says that in views up to View of this epoch no own vote and no proposal leaves (R17).
type Floor struct {
	Shard consensus.ShardID
	Epoch consensus.Epoch
	View  consensus.View
}

// FloorMargin is how far a floor lies above the highest certificate that a quorum's members know of (R17).
const FloorMargin = 2

// Outbound is one message. To is a committee index, or ToAll.
type Outbound struct {
	To int
	// exactly one of:
	Proposal *consensus.Proposal // its body travels whole
	Part     *shred.Part         // of a proposal; one that goes to several is the same pointer
	Vote     *consensus.Vote
	Cert     *consensus.Certificate
}

// ToAll addresses every other member of the committee.
const ToAll = -1

// Action is one wish of the machine that is not a message. The concrete types below are all there are.
type Action interface{ action() }

type (
	// SetTimer arms the single view timer; it replaces the one before.
	SetTimer struct {
		View  consensus.View
		After time.Duration
	}
	// Build asks the application for a block on Parent for a view that this validator leads; answer: Built. The
	// answer may wait for transactions up to the application's block interval, but never past the view's timer.
	// MaxBody is the largest body, in bytes, that the machines will vote for at this moment.
	Build struct {
		Epoch   consensus.Epoch
		View    consensus.View
		Parent  *consensus.Header
		MaxBody int
	}
	// Certify asks for the verdict on a block whose parent was judged valid; answer: Judged. It may come again for a
	// block that was abandoned in between.
	Certify struct{ Block consensus.Block }
	// Rebuild asks for a body out of its parts, by Parts.Rebuild; answer: Rebuilt. Parts are the caller's from now on.
	Rebuild struct {
		Block consensus.Hash
		Parts *shred.Assembly
	}
	// Fetch asks a peer, each time another one, for a block by hash, with its notarization; answer: BlockFetched. The
	// machine repeats it on Tick until the block comes. View is 0 if it is not known.
	Fetch struct {
		Block consensus.Hash
		View  consensus.View
	}
	// CancelFetch ends the interest in a block, be it that it came.
	CancelFetch struct{ Block consensus.Hash }
	// SyncNeeded says that a verified finalization is out of reach of Fetch: Cert finalizes Cert.Block, whose height
	// is unknown or far above ours. Answer: Synced.
	SyncNeeded struct{ Cert consensus.Certificate }
	// Finalised: these blocks, in height order, are final; all are certified. Cert finalizes the last one or, if that ends
	// the epoch, the last of Echoes, which are headers from its child on. The machine is over then (R22).
	Finalised struct {
		Blocks []consensus.Block
		Echoes []*consensus.Header
		Cert   consensus.Certificate
	}
	// Abandoned: a block that was judged valid is dropped; the application may forget its state. From SyncNeeded on it
	// may name a block that sync makes final, and then means no more than that the machine will not ask for it.
	Abandoned struct{ Block consensus.Hash }
	// Evidence: two messages of one validator that together are slashable.
	Evidence struct {
		First, Second consensus.Vote
	}
	// Misbehaved: a peer sent something that no correct one sends (bad signature, malformed content). It loses its place.
	Misbehaved struct {
		Validator int
		Reason    string
	}
	// Halted is fatal: this node's verdict contradicts a finalised block, or verified certificates contradict each
	// other, which a third of the power must have lied for. The machine takes no further part. The node resyncs, or a
	// person decides. Cert is the certificate that showed it; Own says that it is this node's verdict it contradicts.
	// Against, if set, is a certificate that together with Cert is slashable: who signed both is guilty.
	Halted struct {
		Cert    consensus.Certificate
		Against *consensus.Certificate
		Own     bool
		Reason  string
	}
	// KeyElsewhere: a good signature by this validator's key was received, alone or in a certificate, under a vote that
	// this machine did not cast and its log would hold: another process votes with the key, or the log is an old copy (R18).
	// The caller stops without doing anything else that this Ready asks for.
	KeyElsewhere struct{ Statement consensus.Statement }
)

func (SetTimer) action()     {}
func (Build) action()        {}
func (Certify) action()      {}
func (Rebuild) action()      {}
func (Fetch) action()        {}
func (CancelFetch) action()  {}
func (SyncNeeded) action()   {}
func (Finalised) action()    {}
func (Abandoned) action()    {}
func (Evidence) action()     {}
func (Misbehaved) action()   {}
func (Halted) action()       {}
func (KeyElsewhere) action() {}
