// Package prooftest makes small chains, signed by real committees, for tests of readers: proofs, the API, the client.
// There is no state behind them: outcomes, roots and receipts are what the test says they are. Only tests import it.
package prooftest

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"tutti/accel/bls"
	"tutti/accel/merkle"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// Network is a few shards with a committee each. Not safe for concurrent use.
type Network struct {
	Genesis    consensus.Hash
	Committees []*consensus.Committee
	Trust      *proof.Trust
	State      consensus.Hash // state root of the headers made from now on; zero: any

	tb     testing.TB
	keys   [][]*bls.SecretKey
	shards []shard
}

type shard struct {
	tip     *consensus.Header
	view    consensus.View
	pending []*proof.Block // without certificate
	sent    map[consensus.ShardID]uint64
}

// New makes a network of shards with four validators each. The same seed gives the same network.
func New(tb testing.TB, seed string, shards int) *Network {
	tb.Helper()
	n := &Network{Genesis: sha256.Sum256([]byte("genesis of " + seed)), tb: tb, shards: make([]shard, shards)}
	for s := range shards {
		var validators []consensus.Validator
		var keys []*bls.SecretKey
		for i := range 4 {
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
		n.Committees, n.keys = append(n.Committees, c), append(n.keys, keys)
		n.shards[s] = shard{tip: n.genesisHeader(c), sent: map[consensus.ShardID]uint64{}}
	}
	trust, err := proof.NewTrust(n.Genesis, n.Committees, n.ShardOf)
	if err != nil {
		tb.Fatal(err)
	}
	n.Trust = trust
	return n
}

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
	body := tx.Body{Txs: txs, Bundles: bundles, Outcomes: make([]bool, len(txs))}
	for i := range body.Outcomes {
		body.Outcomes[i] = true
	}
	for _, i := range failed {
		body.Outcomes[i] = false
	}
	var leaves [][32]byte
	for i := range txs {
		leaves = append(leaves, tx.TxLeaf(n.ID(txs[i]), body.Outcomes[i]))
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
func (n *Network) Finalise(s consensus.ShardID) []*proof.Block {
	sh := &n.shards[s]
	out := sh.pending
	sh.pending = nil
	var headers []*consensus.Header
	for _, b := range out {
		headers = append(headers, b.Final.Headers[0])
	}
	cert := n.Certify(s, sh.tip)
	for i, b := range out {
		b.Final = proof.Final{Headers: headers[i:], Cert: cert}
	}
	return out
}

// Certify makes a finalize certificate for h by validators 0 to 2.
func (n *Network) Certify(s consensus.ShardID, h *consensus.Header) consensus.Certificate {
	c := n.Committees[s]
	st := consensus.Statement{Kind: consensus.Finalize, Shard: s, Epoch: h.Epoch, View: h.View, Block: h.Hash()}
	cert := consensus.Certificate{Statement: st, Signers: consensus.NewSigners(len(c.Validators))}
	var sigs [][96]byte
	var pubs [][48]byte
	for i, k := range n.keys[s] {
		pubs = append(pubs, k.Public())
		if i < 3 {
			cert.Signers.Add(i)
			sigs = append(sigs, k.Sign(consensus.VoteMessage(n.Genesis, st)))
		}
	}
	set, err := bls.NewKeySet(pubs)
	if err != nil {
		n.tb.Fatal(err)
	}
	sum, err := set.Aggregate(sigs)
	if err != nil {
		n.tb.Fatal(err)
	}
	cert.Signature = sum
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
