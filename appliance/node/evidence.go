package node

import (
	"fmt"
	"log/slog"

	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/evidence"
)

// evidenceQueue is how many proofs may wait for the disk. A contradiction costs its sender its place, so that even in an
// attack there are a few a second at most; what is over this is dropped and said.
const evidenceQueue = 256

// evidenceKeeper makes proofs of what the engine sees and keeps them. The engine's goroutine calls offer; a goroutine of its
// own writes, so that the engine never waits for this file. A failed write is said and costs the proof only: whoever else
// saw it has it too.
type evidenceKeeper struct {
	chain     consensus.Hash
	committee func(consensus.Epoch) (*consensus.Committee, error)
	store     *evidence.Store
	log       *slog.Logger
	queue     chan *evidence.Proof
	done      chan struct{} // closed when run has ended
}

// openEvidence opens the store and starts the keeper, which Close of the node ends after the engine.
func (n *Node) openEvidence() error {
	store, err := evidence.OpenStore(disk(), n.home.Evidence(), consensus.Hash(n.chain))
	if err != nil {
		return err
	}
	n.evidence = &evidenceKeeper{
		chain: consensus.Hash(n.chain), committee: n.committeeOf, store: store, log: n.log,
		queue: make(chan *evidence.Proof, evidenceQueue), done: make(chan struct{}),
	}
	go n.evidence.run()
	n.closers = append(n.closers, n.evidence)
	return nil
}

// committeeOf is the own shard's committee of an epoch.
func (n *Node) committeeOf(epoch consensus.Epoch) (*consensus.Committee, error) {
	t, err := n.epochs.Term(epoch)
	return t.Committee, err
}

// offer takes a proof in; err is of making it.
func (k *evidenceKeeper) offer(p *evidence.Proof, err error) {
	if err != nil {
		k.log.Error("contradicting messages make no proof", "err", err) // the machine has checked them
		return
	}
	select {
	case k.queue <- p:
	default:
		k.log.Error("a proof of slashable votes was dropped: too many wait for the disk", "proof", p.ID().Short())
	}
}

func (k *evidenceKeeper) run() {
	defer close(k.done)
	for p := range k.queue {
		st := p.Statements()
		outcome, err := k.store.Add(p)
		switch {
		case err != nil:
			k.log.Error("a proof of slashable votes could not be kept", "proof", p.ID().Short(), "err", err)
		case outcome == evidence.Full:
			k.log.Warn("a proof of slashable votes was not kept: there are enough against whom it names", "proof", p.ID().Short())
		case outcome == evidence.Added:
			k.log.Error("validators signed a contradiction: 'tutti evidence export' writes the proof", "proof", p.ID().Short(),
				"validators", fmt.Sprint(p.Accused()), "first", evidence.Describe(st[0]), "second", evidence.Describe(st[1]))
		}
	}
}

// Close keeps what waits, and closes the store. The engine has ended.
func (k *evidenceKeeper) Close() error {
	close(k.queue)
	<-k.done
	return k.store.Close()
}

// Evidence of two votes (engine.Observer).
func (o observer) Evidence(first, second consensus.Vote) {
	o.n.metrics.Consensus.Evidence.Inc()
	k := o.n.evidence
	c, err := k.committee(first.Epoch)
	if err != nil {
		k.offer(nil, err)
		return
	}
	k.offer(evidence.FromVotes(k.chain, c, first, second))
}

// Conflict of two certificates (engine.Observer).
func (o observer) Conflict(first, second consensus.Certificate) {
	st := [2]consensus.Statement{first.Statement, second.Statement}
	if !consensus.Contradict(st[0], st[1]) {
		return // it takes a third certificate to tell who lied
	}
	o.n.metrics.Consensus.Evidence.Inc()
	k := o.n.evidence
	c, err := k.committee(first.Epoch)
	if err != nil {
		k.offer(nil, err)
		return
	}
	k.offer(evidence.FromCertificates(k.chain, c, first, second))
}

// Evidence implements api.Backend.
func (b backend) Evidence(from, limit int) api.Evidence {
	proofs, total := b.n.evidence.store.Proofs(from, limit)
	out := api.Evidence{Total: total, From: from, Proofs: make([]api.EvidenceProof, len(proofs))}
	for i, p := range proofs {
		st := p.Statements()
		e := api.EvidenceProof{
			ID: proof.Digest(p.ID()), Shard: st[0].Shard, Epoch: st[0].Epoch, View: st[0].View,
			First: evidence.Describe(st[0]), Second: evidence.Describe(st[1]), Proof: p.Append(nil),
		}
		if c, err := b.n.committeeOf(st[0].Epoch); err == nil {
			for _, v := range p.Accused() {
				if v < len(c.Validators) {
					e.Validators = append(e.Validators, api.AccusedValidator{Index: v, Name: b.n.nameOf(c.Validators[v].Key), Power: c.Validators[v].Power})
				}
			}
		}
		out.Proofs[i] = e
	}
	return out
}
