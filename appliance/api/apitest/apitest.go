// Package apitest is a node behind the API for tests: it serves the chain of a prooftest.Network and does what the
// test tells it. Only tests import it.
package apitest

import (
	"context"
	"errors"
	"sync"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/appliance/proof/prooftest"
	"tutti/consensus"
	"tutti/consensus/evidence"
	"tutti/state/tx"
)

// Backend is a node of one shard. It implements api.Backend. Set the exported fields before it is used.
type Backend struct {
	Net   *prooftest.Network
	Shard consensus.ShardID
	Judge func(t tx.Signed) error // verdict on a submitted transaction; nil: accept

	JudgeBatch func(b *distill.Batch) error // verdict on a submitted batch; nil: accept
	Hold       chan struct{}                // if set, Submit sends on it once, then waits for it to close

	mu        sync.Mutex // guards what follows
	blocks    []*proof.Block
	submitted []tx.Signed
	accounts  map[tx.ID]*proof.Account
	signers   map[tx.ID]api.Signer
	several   *proof.Accounts
	states    map[tx.Hash]api.State
	ready     error
	apis      []api.NodeAPI
	evidence  []*evidence.Proof
	handovers []*proof.Handover
	keepBack  bool // all of them but shown
	shown     int
}

// New makes a node of a shard.
func New(n *prooftest.Network, shard consensus.ShardID) *Backend {
	return &Backend{Net: n, Shard: shard, accounts: map[tx.ID]*proof.Account{}, signers: map[tx.ID]api.Signer{}, states: map[tx.Hash]api.State{}}
}

// Params is what the node says about the chain.
func (b *Backend) Params() api.Params {
	return api.Params{
		Chain: "testnet", Genesis: proof.Digest(b.Net.Genesis), Shard: b.Shard, Shards: len(b.Net.Committees), Fees: []uint64{1},
	}
}

// Append makes the node know more final blocks, the next heights.
func (b *Backend) Append(blocks ...*proof.Block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocks = append(b.blocks, blocks...)
}

// Forget takes the block at a height away, as if it were pruned.
func (b *Backend) Forget(height consensus.Height) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blocks[height-1] = nil
}

// Spoil changes the block that the node shows at a height.
func (b *Backend) Spoil(height consensus.Height, change func(*proof.Block)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, err := proof.DecodeBlock(b.blocks[height-1].Append(nil))
	if err != nil {
		panic(err)
	}
	change(c)
	b.blocks[height-1] = c
}

// SetState makes the node say how far a transaction is that no block has.
func (b *Backend) SetState(id tx.Hash, s api.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states[id] = s
}

// SetReady makes the node say why it is not ready; nil: it is.
func (b *Backend) SetReady(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = err
}

// SetAPIs makes the node know other nodes' addresses.
func (b *Backend) SetAPIs(apis ...api.NodeAPI) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apis = apis
}

// AddEvidence gives the node more proofs of slashable votes.
func (b *Backend) AddEvidence(proofs ...*evidence.Proof) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evidence = append(b.evidence, proofs...)
}

// AddHandovers gives the node more hand-overs of its shard, out of the genesis' epoch and the following ones.
func (b *Backend) AddHandovers(list ...*proof.Handover) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handovers = append(b.handovers, list...)
}

// SpoilHandover makes the node show another hand-over as its i-th.
func (b *Backend) SpoilHandover(i int, change func(*proof.Handover)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := proof.DecodeHandover(b.handovers[i].Append(nil))
	if err != nil {
		panic(err)
	}
	change(h)
	b.handovers[i] = h
}

// KeepBack makes the node show only so many of its hand-overs; it still says how many there are.
func (b *Backend) KeepBack(show int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepBack, b.shown = true, show
}

// SetAccount gives the node the proof of an account.
func (b *Backend) SetAccount(p *proof.Account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts[p.ID] = p
}

// SetAccounts gives the node its answer to whoever asks for several accounts.
func (b *Backend) SetAccounts(p *proof.Accounts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.several = p
}

// SubmitBatch implements api.Backend.
func (b *Backend) SubmitBatch(_ context.Context, _ uint64, batch *distill.Batch) error {
	if b.JudgeBatch == nil {
		return nil
	}
	return b.JudgeBatch(batch)
}

// Submitted is what the node has accepted.
func (b *Backend) Submitted() []tx.Signed {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]tx.Signed(nil), b.submitted...)
}

// Submit implements api.Backend.
func (b *Backend) Submit(ctx context.Context, _ uint64, txs []tx.Signed) []error {
	if b.Hold != nil {
		select {
		case b.Hold <- struct{}{}:
		case <-ctx.Done():
		}
		select {
		case <-b.Hold:
		case <-ctx.Done():
		}
	}
	out := make([]error, len(txs))
	for i := range txs {
		if b.Judge != nil {
			out[i] = b.Judge(txs[i])
		}
		if out[i] == nil {
			b.mu.Lock()
			b.submitted = append(b.submitted, txs[i])
			b.mu.Unlock()
		}
	}
	return out
}

// Clear forgets what was submitted.
func (b *Backend) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.submitted = b.submitted[:0]
}

// find looks for a transaction, and for a receipt of it.
func (b *Backend) find(id tx.Hash) (in *proof.Contents, at int, got *proof.Contents, k int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, block := range b.blocks {
		if block == nil {
			continue
		}
		c, err := block.Open()
		if err != nil {
			continue
		}
		for i := range c.IDs {
			if c.IDs[i] == id {
				in, at = c, i
			}
		}
		for i := range c.Consumed {
			if c.Consumed[i].Receipt.Tx == id {
				got, k = c, i
			}
		}
	}
	return in, at, got, k
}

// Transaction implements api.Backend.
func (b *Backend) Transaction(_ context.Context, id tx.Hash) (api.Transaction, error) {
	c, i, _, _ := b.find(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	t := api.Transaction{ID: proof.Digest(id), State: api.Unknown, Shard: b.Shard}
	if s, ok := b.states[id]; ok {
		t.State = s
	}
	if c != nil {
		t.State, t.Height, t.Success = api.Final, c.Header.Height, &c.Body.Outcomes[i]
	}
	return t, nil
}

// Proof implements api.Backend.
func (b *Backend) Proof(_ context.Context, id tx.Hash) (*proof.Finality, error) {
	c, i, _, _ := b.find(id)
	if c == nil {
		return nil, api.Refuse(api.NotFound, "transaction %s", id)
	}
	return c.Finality(i), nil
}

// Credit implements api.Backend.
func (b *Backend) Credit(_ context.Context, id tx.Hash) (*proof.Credit, error) {
	_, _, c, k := b.find(id)
	if c == nil {
		return nil, api.Refuse(api.NotFinal, "receipt of %s", id)
	}
	return c.Credit(k), nil
}

// Account implements api.Backend: every account has its index as balance.
func (b *Backend) Account(_ context.Context, id tx.ID) (api.Account, error) {
	if b.Net.ShardOf(id) != b.Shard {
		return api.Account{}, api.Refuse(api.WrongShard, "account %s is kept by shard %d", id, b.Net.ShardOf(id))
	}
	return api.Account{ID: id, Shard: b.Shard, Height: b.FinalHeight(), Balance: uint64(id.Index()), Nonce: 4}, nil
}

// Signers implements api.Backend: what SetSigner said.
func (b *Backend) Signers(ids []tx.ID) (*api.Signers, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &api.Signers{Height: consensus.Height(len(b.blocks)), Accounts: make([]api.Signer, len(ids))}
	for i, id := range ids {
		if b.Net.ShardOf(id) != b.Shard {
			return nil, api.Refuse(api.WrongShard, "account %s is kept by shard %d", id, b.Net.ShardOf(id))
		}
		out.Accounts[i] = b.signers[id]
	}
	return out, nil
}

// SetSigner makes the node tell brokers of an account.
func (b *Backend) SetSigner(id tx.ID, s api.Signer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signers[id] = s
}

// AccountProof implements api.Backend.
func (b *Backend) AccountProof(_ context.Context, id tx.ID) (*proof.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.accounts[id]; ok {
		return p, nil
	}
	return nil, errors.New("the disk is on fire") // internal: not for the client's eyes
}

// AccountsProof implements api.Backend.
func (b *Backend) AccountsProof(_ context.Context, ids []tx.ID) (*proof.Accounts, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.several != nil {
		return b.several, nil
	}
	return nil, api.Refuse(api.NotFinal, "%d accounts", len(ids))
}

// Block implements api.Backend.
func (b *Backend) Block(_ context.Context, height consensus.Height) (*proof.Block, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case height == 0:
		return nil, api.Refuse(api.NotFound, "the genesis block has no body")
	case height > consensus.Height(len(b.blocks)):
		return nil, api.Refuse(api.NotFinal, "height %d", height)
	case b.blocks[height-1] == nil:
		return nil, api.Refuse(api.Pruned, "height %d", height)
	}
	return b.blocks[height-1], nil
}

// FinalHeight implements api.Backend.
func (b *Backend) FinalHeight() consensus.Height {
	b.mu.Lock()
	defer b.mu.Unlock()
	return consensus.Height(len(b.blocks))
}

// Evidence implements api.Backend.
func (b *Backend) Evidence(from, limit int) api.Evidence {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Evidence(b.evidence, from, limit)
}

// Evidence is a page of proofs.
func Evidence(all []*evidence.Proof, from, limit int) api.Evidence {
	e := api.Evidence{Total: len(all), From: from}
	for _, p := range all[min(from, len(all)):min(from+limit, len(all))] {
		st := p.Statements()
		x := api.EvidenceProof{
			ID: proof.Digest(p.ID()), Shard: st[0].Shard, Epoch: st[0].Epoch, View: st[0].View,
			First: evidence.Describe(st[0]), Second: evidence.Describe(st[1]), Proof: p.Append(nil),
		}
		for _, i := range p.Accused() {
			x.Validators = append(x.Validators, api.AccusedValidator{Index: i, Name: "somebody", Power: 1})
		}
		e.Proofs = append(e.Proofs, x)
	}
	return e
}

// Handovers implements api.Backend.
func (b *Backend) Handovers(_ context.Context, shard consensus.ShardID, from consensus.Epoch, limit int) (consensus.Epoch, []*proof.Handover, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if shard != b.Shard {
		return 0, nil, api.Refuse(api.WrongShard, "this node is of shard %d", b.Shard)
	}
	first, n := b.Net.Committees[shard].Epoch, len(b.handovers)
	show := n
	if b.keepBack {
		show = min(n, b.shown)
	}
	at := min(int(max(from, first)-first), show)
	return first + consensus.Epoch(n), b.handovers[at:min(at+limit, show)], nil
}

// Status implements api.Backend.
func (b *Backend) Status() api.Status {
	return api.Status{
		Chain: "testnet", Genesis: proof.Digest(b.Net.Genesis), Shard: b.Shard, FinalHeight: b.FinalHeight(),
		Memory: api.Memory{Kinds: []api.MemoryKind{{Kind: "records", Bytes: 640, PerAccount: 64}}},
	}
}

// Network implements api.Backend.
func (b *Backend) Network(context.Context) (api.Network, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.Network{Shards: []api.ShardStatus{{Shard: b.Shard}}, APIs: append([]api.NodeAPI{}, b.apis...)}, nil
}

// Ready implements api.Backend.
func (b *Backend) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready
}
