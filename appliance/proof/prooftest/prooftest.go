// Package prooftest makes small chains, signed by real committees, for tests of readers: proofs, the API, the client.
// There is no state behind them: outcomes, roots and receipts are what the test says they are. Only tests import it.
package prooftest

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/accel/merkle"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// Network is a few shards with a committee each. Not safe for concurrent use.
type Network struct {
	Genesis    consensus.Hash
	Committees []*consensus.Committee // of the genesis
	Trust      *proof.Trust           // knows the genesis, and what a test makes it learn
	State      consensus.Hash         // state root of the headers made from now on; zero: any

	tb     testing.TB
	shards []shard
}

type shard struct {
	epochs  []seats // from the genesis' on; blocks are made in the last one
	tip     *consensus.Header
	view    consensus.View
	pending []*proof.Block // without certificate
	sent    map[consensus.ShardID]uint64
}

// seats is a committee with its secrets.
type seats struct {
	committee *consensus.Committee
	secrets   []*bls.SecretKey
	keys      consensus.Keys
}

// New makes a network of shards with four validators each. The same seed gives the same network. The genesis has epoch 1.
func New(tb testing.TB, seed string, shards int) *Network { return NewOf(tb, seed, shards, 4) }

// NewOf is New with so many validators a shard, at most 256.
func NewOf(tb testing.TB, seed string, shards, size int) *Network {
	tb.Helper()
	n := &Network{Genesis: sha256.Sum256([]byte("genesis of " + seed)), tb: tb, shards: make([]shard, shards)}
	for s := range shards {
		var validators []consensus.Validator
		var keys []*bls.SecretKey
		for i := range size {
			ikm := sha256.Sum256([]byte{byte(s), byte(i), seed[0]})
			k, err := bls.NewSecretKey(ikm[:])
			if err != nil {
				tb.Fatal(err)
			}
			keys = append(keys, k)
			validators = append(validators, consensus.Validator{Key: k.Public(), Node: ikm, Power: consensus.Power(10 + i)})
		}
		c, err := consensus.NewCommittee(consensus.ShardID(s), 1, n.Genesis, validators)
		if err != nil {
			tb.Fatal(err)
		}
		n.Committees = append(n.Committees, c)
		n.shards[s] = shard{epochs: []seats{n.seats(c, keys)}, tip: n.genesisHeader(c), sent: map[consensus.ShardID]uint64{}}
	}
	n.Trust = n.NewTrust()
	return n
}

// NewTrust knows the genesis only.
func (n *Network) NewTrust() *proof.Trust {
	trust, err := proof.NewTrust(n.Genesis, n.Committees, n.ShardOf)
	if err != nil {
		n.tb.Fatal(err)
	}
	return trust
}

func (n *Network) seats(c *consensus.Committee, secrets []*bls.SecretKey) seats {
	n.tb.Helper()
	keys, err := consensus.NewKeys(c)
	if err != nil {
		n.tb.Fatal(err)
	}
	return seats{c, secrets, keys}
}

// Committee is a shard's committee of the epoch in which blocks are made now.
func (n *Network) Committee(s consensus.ShardID) *consensus.Committee {
	return n.shards[s].now().committee
}

func (sh *shard) now() seats { return sh.epochs[len(sh.epochs)-1] }

func (n *Network) genesisHeader(c *consensus.Committee) *consensus.Header {
	return &consensus.Header{
		Version: consensus.HeaderVersion, Chain: n.Genesis, Shard: c.Shard, Epoch: c.Epoch, TimeMs: 1_700_000_000_000,
		Committee: c.Hash(), NextCommittee: c.Hash(), State: consensus.Hash{1},
	}
}

// ShardOf gives partition p to shard p modulo the number of shards.
func (n *Network) ShardOf(id tx.ID) consensus.ShardID {
	return consensus.ShardID(int(id.Partition()) % len(n.shards))
}

// Account is the k-th account of a shard.
func (n *Network) Account(s consensus.ShardID, k uint32) tx.ID { return tx.MakeID(uint16(s), k) }

// Transfer makes a transfer. Nobody checks its signature.
func (n *Network) Transfer(from, to tx.ID, amount uint64, nonce uint32) tx.Signed {
	t := tx.Signed{Tx: tx.Tx{Kind: tx.Transfer, From: from, To: to, Amount: amount, Nonce: nonce, Expiry: 1000}}
	for i := range t.Signature {
		t.Signature[i] = byte(i)
	}
	return t
}

// ID is the id of a transaction on this network.
func (n *Network) ID(t tx.Signed) tx.Hash { return t.TxID(tx.Hash(n.Genesis)) }

// Receipt is the receipt of a transfer.
func (n *Network) Receipt(t tx.Signed) tx.Receipt {
	return tx.Receipt{From: t.From, To: t.To, Amount: t.Amount, Tx: n.ID(t)}
}

// Add puts a block on top of a shard's chain, not final yet. All transactions succeed but those in failed; all
// receipts of the bundles are credited.
func (n *Network) Add(s consensus.ShardID, txs []tx.Signed, bundles []tx.Bundle, failed ...int) *consensus.Header {
	return n.AddBatches(s, txs, nil, bundles, failed...)
}

// AddBatches is Add with distilled batches, whose transfers are numbered after txs.
func (n *Network) AddBatches(s consensus.ShardID, txs []tx.Signed, batches []*distill.Batch, bundles []tx.Bundle, failed ...int) *consensus.Header {
	return n.add(s, n.Committee(s).Hash(), txs, batches, bundles, failed...)
}

func (n *Network) add(s consensus.ShardID, next consensus.Hash, txs []tx.Signed, batches []*distill.Batch, bundles []tx.Bundle, failed ...int) *consensus.Header {
	body, err := tx.NewBody(txs, batches)
	if err != nil {
		n.tb.Fatal(err)
	}
	body.Bundles, body.Outcomes = bundles, make([]bool, body.Len())
	for i := range body.Outcomes {
		body.Outcomes[i] = true
	}
	for _, i := range failed {
		body.Outcomes[i] = false
	}
	var leaves [][32]byte
	for i, id := range body.IDs(tx.Hash(n.Genesis)) {
		leaves = append(leaves, tx.TxLeaf(id, body.Outcomes[i]))
	}
	var credits []tx.CreditOutcome
	for _, u := range bundles {
		for k := range u.Receipts {
			leaf := u.Receipts[k].Leaf(u.Source, uint16(s), u.First+uint64(k))
			leaves = append(leaves, tx.CreditLeaf(leaf, tx.Credited))
			credits = append(credits, tx.Credited)
		}
	}
	sh := &n.shards[s]
	sh.view += 1 + sh.view%3 // some views end without a block
	enc := body.Append(nil)
	h := *sh.tip
	h.View, h.Height, h.TimeMs, h.Parent = sh.view, sh.tip.Height+1, sh.tip.TimeMs+200, sh.tip.Hash()
	h.Epoch, h.Committee, h.NextCommittee = n.Committee(s).Epoch, n.Committee(s).Hash(), next
	h.Body, h.Outcomes = consensus.NewBodyRef(enc), merkle.ListRoot(leaves)
	if h.State = n.State; h.State.IsZero() {
		h.State = sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(h.Height)))
	}
	for d := range n.shards {
		if dest := consensus.ShardID(d); len(h.Links) < len(n.shards)-1 && dest != s {
			h.Links = append(h.Links, consensus.Link{Shard: dest})
		}
	}
	sh.tip = &h
	sh.pending = append(sh.pending, &proof.Block{Final: proof.Final{Headers: []*consensus.Header{&h}}, Body: enc, Credits: credits})
	return &h
}

// Finalise makes the tip of a shard final and returns the blocks that became final with it, lowest first.
func (n *Network) Finalise(s consensus.ShardID) []*proof.Block { return n.finalise(s, nil) }

// finalise makes the highest of the echoes of a shard's tip final, or the tip.
func (n *Network) finalise(s consensus.ShardID, echoes []*consensus.Header) []*proof.Block {
	sh := &n.shards[s]
	out := sh.pending
	sh.pending = nil
	var headers []*consensus.Header
	for _, b := range out {
		headers = append(headers, b.Final.Headers[0])
	}
	headers = append(headers, echoes...)
	if len(headers) == 0 {
		return nil
	}
	cert := n.Certify(s, headers[len(headers)-1])
	for i, b := range out {
		b.Final = proof.Final{Headers: headers[i:], Cert: cert}
	}
	return out
}

// HandOver ends a shard's epoch: it adds the last block and so many echoes, makes the highest final and goes on in the next
// epoch, in whose committee one seat has another key and another power. It also returns the blocks that became final, lowest
// first; the hand-over's is the last of them.
func (n *Network) HandOver(s consensus.ShardID, echoes int) (*proof.Handover, []*proof.Block) {
	n.tb.Helper()
	sh := &n.shards[s]
	next := n.successor(sh.now())
	n.add(s, next.committee.Hash(), nil, nil, nil)
	b := sh.tip
	chain := []*consensus.Header{b}
	for range echoes {
		top := chain[len(chain)-1]
		chain = append(chain, consensus.Echo(top, top.View+1))
	}
	blocks := n.finalise(s, chain[1:])
	sh.epochs, sh.view = append(sh.epochs, next), 0
	end := &consensus.EpochEnd{Last: b, Echoes: chain[1:], Cert: blocks[len(blocks)-1].Final.Cert}
	return &proof.Handover{End: end, Next: next.committee}, blocks
}

// successor is the next epoch's committee.
func (n *Network) successor(old seats) seats {
	n.tb.Helper()
	c := old.committee
	e := c.Epoch + 1
	validators, secrets := slices.Clone(c.Validators), slices.Clone(old.secrets)
	seed := sha256.Sum256(binary.BigEndian.AppendUint64(append(c.Seed[:], byte(c.Shard)), uint64(e)))
	k, err := bls.NewSecretKey(seed[:])
	if err != nil {
		n.tb.Fatal(err)
	}
	i := int(e) % len(validators)
	validators[i], secrets[i] = consensus.Validator{Key: k.Public(), Node: seed, Power: consensus.Power(10 + e%7)}, k
	next, err := consensus.NewCommittee(c.Shard, e, seed, validators)
	if err != nil {
		n.tb.Fatal(err)
	}
	return n.seats(next, secrets)
}

// Certify makes a finalize certificate for h by its epoch's committee, the first validators that are a quorum.
func (n *Network) Certify(s consensus.ShardID, h *consensus.Header) consensus.Certificate {
	n.tb.Helper()
	of := n.shards[s].epochs[h.Epoch-n.Committees[s].Epoch]
	st := consensus.Statement{Kind: consensus.Finalize, Shard: s, Epoch: h.Epoch, View: h.View, Block: h.Hash()}
	cert := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(len(of.secrets))}
	var sigs []consensus.Signature
	for i, k := range of.secrets {
		if !of.committee.IsQuorum(of.committee.PowerOf(cert.Signers)) {
			cert.Signers.Add(i)
			sigs = append(sigs, k.Sign(consensus.VoteMessage(n.Genesis, st)))
		}
	}
	var err error
	if cert.Signature, err = of.keys.Aggregate(sigs); err != nil {
		n.tb.Fatal(err)
	}
	return cert
}

// Send makes and finalises a block of each shard: one in the source with a transfer to another shard, then one in the
// destination that consumes its receipt.
func (n *Network) Send(t tx.Signed) (debit, credit *proof.Block) {
	from, to := n.ShardOf(t.From), n.ShardOf(t.To)
	n.Add(from, []tx.Signed{t}, nil)
	debit = n.Finalise(from)[0]
	first := n.shards[from].sent[to]
	n.shards[from].sent[to]++
	n.Add(to, nil, []tx.Bundle{{Source: uint16(from), First: first, Receipts: []tx.Receipt{n.Receipt(t)}}})
	return debit, n.Finalise(to)[0]
}
