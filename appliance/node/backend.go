package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/engine"
	"tutti/state/ledger"
	"tutti/state/pool"
	"tutti/state/tx"
)

// stalledAfter is how long without a final block a validator may be and still call itself ready: several heartbeats
// and a view timer.
const stalledAfter = 15 * time.Second

// backend is the node as the API sees it: it implements api.Backend.
type backend struct {
	n *Node
}

// Submit implements api.Backend.
func (b backend) Submit(ctx context.Context, source uint64, txs []tx.Signed) []error {
	n := b.n
	errs := n.pool.Submit(ctx, source, txs)
	now := time.Now()
	accepted := make([]tx.Signed, 0, len(txs))
	ids := make([]tx.Hash, 0, len(txs))
	for i, err := range errs {
		errs[i] = refusal(err)
		if err == nil {
			accepted = append(accepted, txs[i])
			ids = append(ids, txs[i].TxID(n.chain))
		}
	}
	if len(accepted) > 0 {
		n.history.admitted(now, ids)
		n.forward.add(accepted)
		n.app.nudge()
	}
	return errs
}

// batchSamples is how many transfers of a batch the time to finality is measured of.
const batchSamples = 16

// SubmitBatch implements api.Backend.
func (b backend) SubmitBatch(_ context.Context, source uint64, batch *distill.Batch) error {
	n, now := b.n, time.Now()
	if err := n.batches.Submit(source, batch); err != nil {
		return refusal(err)
	}
	some := make([]tx.Hash, min(batchSamples, batch.Count()))
	for i := range some {
		body := batch.Body(i * batch.Count() / len(some))
		some[i] = sha256.Sum256(distill.Chain(n.chain).AppendMessage(nil, body))
	}
	n.history.admitted(now, some)
	n.forward.addBatch(batch)
	n.app.nudge()
	return nil
}

// refusal turns a pool's verdict into the API's; the codes are the same words. A duplicate is no refusal.
func refusal(err error) error {
	var r *pool.Reject
	if !errors.As(err, &r) {
		return err
	}
	if r.Code == pool.Duplicate {
		return nil
	}
	return &api.Error{Code: api.Code(r.Code), Detail: r.Detail, RetryAfter: r.RetryAfter}
}

// Transaction implements api.Backend.
func (b backend) Transaction(ctx context.Context, id tx.Hash) (api.Transaction, error) {
	n := b.n
	t := api.Transaction{ID: proof.Digest(id), State: api.Unknown, Shard: n.shard}
	if p, ok := n.history.find(id); ok {
		t.State, t.Height, t.Success = api.Final, consensus.Height(p.height), &p.success
		if p.opened != 0 {
			t.Opened = &p.opened
		}
		if p.dest == n.shard {
			return t, nil
		}
		t.CrossShard = true
		if c := n.credits.lookup(ctx, p.dest, id); c != nil {
			t.State = api.Credited
			if c.Outcome != tx.Credited {
				t.State = api.Returned
			}
			t.Credit = &api.CreditPlace{Shard: p.dest, Height: c.Final.Header().Height}
		}
		return t, nil
	}
	if height, ok := n.app.included(id); ok {
		t.State, t.Height = api.Included, height
	} else if n.pool.Has(id) || n.batches.Has(id) {
		t.State = api.Pooled
	}
	return t, nil
}

// Proof implements api.Backend.
func (b backend) Proof(ctx context.Context, id tx.Hash) (*proof.Finality, error) {
	p, ok := b.n.history.find(id)
	if !ok {
		t, err := b.Transaction(ctx, id)
		if err == nil && t.State != api.Unknown {
			return nil, api.Refuse(api.NotFinal, "transaction %s is %s", id, t.State)
		}
		return nil, api.Refuse(api.NotFound, "transaction %s: this node has not seen it, or no longer remembers it", id)
	}
	contents, err := b.contents(consensus.Height(p.height))
	if err != nil {
		return nil, err
	}
	f := contents.Finality(int(p.index))
	if p.dest != b.n.shard {
		f.Credit = b.n.credits.lookup(ctx, p.dest, id)
	}
	return f, nil
}

// Credit implements api.Backend.
func (b backend) Credit(_ context.Context, id tx.Hash) (*proof.Credit, error) {
	p, ok := b.n.history.findConsumed(id)
	if !ok {
		return nil, api.Refuse(api.NotFinal, "no receipt of transaction %s was consumed by shard %d in the blocks that this node remembers", id, b.n.shard)
	}
	contents, err := b.contents(consensus.Height(p.height))
	if err != nil {
		return nil, err
	}
	return contents.Credit(int(p.index)), nil
}

func (b backend) contents(height consensus.Height) (*proof.Contents, error) {
	if c := b.n.opened.get(height); c != nil {
		return c, nil
	}
	block, err := b.n.history.block(height)
	if err != nil {
		return nil, err
	}
	c, err := block.Open()
	if err == nil {
		b.n.opened.put(c)
	}
	return c, err
}

// openedBlocks are the final blocks that proofs were last made from: opening one hashes all that is in it.
// Safe for concurrent use.
type openedBlocks struct {
	mu   sync.Mutex // guards what follows
	all  [4]*proof.Contents
	next int // the oldest
}

func (o *openedBlocks) get(height consensus.Height) *proof.Contents {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.all {
		if c != nil && c.Header.Height == height {
			return c
		}
	}
	return nil
}

func (o *openedBlocks) put(c *proof.Contents) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all[o.next] = c
	o.next = (o.next + 1) % len(o.all)
}

// Account implements api.Backend.
func (b backend) Account(_ context.Context, id tx.ID) (api.Account, error) {
	if err := b.here(id); err != nil {
		return api.Account{}, err
	}
	height, _ := b.n.ledger.Final()
	r, ok := b.n.ledger.Account(id)
	if !ok {
		return api.Account{}, api.Refuse(api.NotFound, "account %s does not exist", id)
	}
	_, hasBLS, err := b.n.ledger.BLSKey(id)
	return api.Account{
		ID: id, Shard: b.n.shard, Height: consensus.Height(height), Balance: r.Balance, Nonce: r.Nonce, Key: r.Key, HasBLS: hasBLS,
	}, err
}

// Signers implements api.Backend.
func (b backend) Signers(ids []tx.ID) (*api.Signers, error) {
	height, _ := b.n.ledger.Final()
	out := &api.Signers{Height: consensus.Height(height), Accounts: make([]api.Signer, len(ids))}
	for i, id := range ids {
		if err := b.here(id); err != nil {
			return nil, err
		}
		r, key, known, signs := b.n.ledger.Signer(id)
		if !known {
			continue
		}
		out.Accounts[i] = api.Signer{Known: true, Nonce: r.Nonce, Balance: r.Balance, Key: r.Key}
		if signs {
			out.Accounts[i].BLS = &key
		}
	}
	return out, nil
}

// AccountProof implements api.Backend.
func (b backend) AccountProof(ctx context.Context, id tx.ID) (*proof.Account, error) {
	if err := b.here(id); err != nil {
		return nil, err
	}
	if err := b.n.takeTurn(ctx, 1); err != nil {
		return nil, err
	}
	path, err := b.n.ledger.AccountProof(id)
	if err != nil {
		return nil, err
	}
	f, err := b.n.history.logged(consensus.Height(path.Height) + consensus.StateLag)
	if err != nil {
		return nil, err
	}
	return &proof.Account{ID: id, Final: f, Path: path}, nil
}

// AccountsProof implements api.Backend.
func (b backend) AccountsProof(ctx context.Context, ids []tx.ID) (*proof.Accounts, error) {
	for _, id := range ids {
		if err := b.here(id); err != nil {
			return nil, err
		}
	}
	if err := b.n.takeTurn(ctx, ledger.ProofChunks(ids)); err != nil {
		return nil, err
	}
	path, err := b.n.ledger.AccountsProof(ids)
	switch {
	case errors.Is(err, ledger.ErrBehind):
		return nil, &api.Error{Code: api.Busy, Detail: err.Error(), RetryAfter: time.Second}
	case err != nil:
		return nil, err
	}
	f, err := b.n.history.logged(consensus.Height(path.Height) + consensus.StateLag)
	if err != nil {
		return nil, err
	}
	return &proof.Accounts{IDs: ids, Final: f, Path: path}, nil
}

// takeTurn waits a little for its turn to hash some chunks for account proofs, at most api.MaxProofChunks.
func (n *Node) takeTurn(ctx context.Context, chunks int) error {
	turn := n.accountChunks.ReserveN(time.Now(), chunks)
	wait := turn.Delay()
	if wait > accountProofWait {
		turn.Cancel()
		return &api.Error{Code: api.Busy, Detail: "too many account proofs at once", RetryAfter: wait}
	}
	if err := sleepUntil(ctx, wait); err != nil {
		turn.Cancel()
		return err
	}
	return nil
}

// here refuses accounts that another shard keeps, and those that no shard can have.
func (b backend) here(id tx.ID) error {
	shard, ok := b.n.table.ShardOf(id.Partition())
	switch {
	case !ok:
		return api.Refuse(api.NotFound, "account %s: no shard keeps partition %d", id, id.Partition())
	case consensus.ShardID(shard) != b.n.shard:
		return api.Refuse(api.WrongShard, "account %s is kept by shard %d", id, shard)
	case id.Index() >= ledger.AccountsPerPartition:
		return api.Refuse(api.NotFound, "account %s: no partition has index %d", id, id.Index())
	}
	return nil
}

// Block implements api.Backend.
func (b backend) Block(_ context.Context, height consensus.Height) (*proof.Block, error) {
	return b.n.history.block(height)
}

// Handovers implements api.Backend.
func (b backend) Handovers(_ context.Context, shard consensus.ShardID, from consensus.Epoch, limit int) (consensus.Epoch, []*proof.Handover, error) {
	if shard != b.n.shard {
		return 0, nil, api.Refuse(api.WrongShard, "this node is of shard %d", b.n.shard)
	}
	newest := b.n.epochs.Newest().Committee.Epoch
	list, err := b.n.epochs.Handovers(from, limit, handoversBytes)
	return newest, list, err
}

// FinalHeight implements api.Backend.
func (b backend) FinalHeight() consensus.Height { return b.n.history.height() }

// Ready implements api.Backend.
func (b backend) Ready() error {
	if s := b.n.now().engine.Status(); s.Syncing {
		return &api.Error{Code: api.NotReady, Detail: fmt.Sprintf("catching up: final height %d", finalHeight(s)), RetryAfter: time.Second}
	}
	switch r := b.n.meter.read(time.Now()); {
	case r.blocks == 0:
		return &api.Error{Code: api.NotReady, Detail: "no final block since the start", RetryAfter: time.Second}
	case r.sinceBlock > stalledAfter:
		return &api.Error{Code: api.NotReady, Detail: fmt.Sprintf("no final block for %.0f s", r.sinceBlock.Seconds()), RetryAfter: time.Second}
	}
	return nil
}

// Status implements api.Backend.
func (b backend) Status() api.Status {
	n := b.n
	now := time.Now()
	at, r := n.now(), n.meter.read(now)
	e := at.engine.Status()
	s := api.Status{
		Version: n.build.Version, Commit: n.build.Commit, Chain: n.genesis.Name, Genesis: proof.Digest(n.chain),
		Node: proof.Digest(n.transport.Self()), Shard: n.shard, Shards: len(n.committees), ValidatorIndex: at.index, Role: "follower",
		Height: e.Height, View: e.View, TimeMs: now.UnixMilli(), TPS: r.tps, FinalityMs: r.quantiles,
		FinalityHistogram: r.histogram, Syncing: e.Syncing, Stalled: r.sinceBlock > stalledAfter,
		Validators: n.validators(at, now), Epoch: n.epochStatus(at), UptimeS: now.Sub(n.started).Seconds(),
		DiskMiB: n.disk.get(),
	}
	if at.index >= 0 {
		s.Role = "validator"
	}
	// Of the last block that a client can ask for, which the engine may already be one ahead of.
	h := n.history.latest()
	if h == nil {
		h = n.root
	}
	s.FinalHeight, s.StateRoot, s.StateHeight = h.Height, proof.Digest(h.State), proof.StateHeight(h)
	c := n.pool.Counters()
	s.Pool = api.PoolStatus{Txs: c.Txs, Bytes: int64(c.Bytes), Limit: n.cfg.Pool.MaxTransactions}
	batches := n.batches.Counters()
	s.Pool.Batches, s.Pool.Batched, s.Pool.BatchedLimit = batches.Batches, batches.Transfers, n.cfg.Pool.MaxBatched
	m, stats := n.ledger.Meta(), n.ledger.Stats()
	for tries := 0; m.Height != stats.Height && tries < 8; tries++ { // a block became final in between
		m, stats = n.ledger.Meta(), n.ledger.Stats()
	}
	s.Accounts, s.Supply = stats.Accounts, api.Supply{
		Balances: stats.Balances, Fees: stats.Fees, Deposits: stats.Deposits, Treasury: stats.Treasury, Genesis: n.supply,
	}
	for _, c := range m.Channels {
		s.Supply.Inflow += c.Inflow
		s.Supply.Outflow += c.Outflow
		s.Links = append(s.Links, api.LinkStatus{
			Shard: consensus.ShardID(c.Shard), Sent: c.Sent.Count(), Received: c.Received.Count(), Acked: c.Acked, Epoch: consensus.Epoch(c.Epoch),
		})
	}
	for _, p := range n.transport.Peers() {
		if p.Connected {
			s.PeersConnected++
		}
	}
	s.Memory = api.Memory{RSSMiB: residentMiB(), TableMiB: float64(stats.TableBytes) / (1 << 20), Kinds: n.memoryKinds(stats)}
	s.Writes = n.writes.status(n.written())
	s.CPUS = cpuSeconds()
	return s
}

// finalHeight is the height of the last block that the application has made durable as final.
func finalHeight(e engine.Status) consensus.Height {
	if e.Final == nil {
		return 0
	}
	return e.Final.Height
}

// validators is the own shard's committee as this node sees it.
func (n *Node) validators(at *running, now time.Time) []api.ValidatorStatus {
	e, c := at.engine.Status(), at.Committee
	connected := map[[32]byte]bool{}
	for _, p := range n.transport.Peers() {
		connected[p.ID] = p.Connected
	}
	out := make([]api.ValidatorStatus, len(c.Validators))
	for i, v := range c.Validators {
		s := api.ValidatorStatus{
			Index: i, Name: n.nameOf(v.Key), Power: v.Power, Node: proof.Digest(v.Node),
			Connected: connected[v.Node] || i == at.index, Self: i == at.index, LastVoteMs: -1,
		}
		if seen := e.Validators[i]; !seen.Seen.IsZero() {
			s.LastHeight = seen.Height
			s.LastVoteMs = now.Sub(seen.Seen).Milliseconds()
		}
		if final := finalHeight(e); s.LastHeight < final {
			s.Lag = uint64(final - s.LastHeight)
		}
		out[i] = s
	}
	return out
}

// nameOf is the name of a validator of the own shard.
func (n *Node) nameOf(key consensus.PublicKey) string {
	for _, v := range n.genesis.Shards[n.shard].Validators {
		if v.Key == key {
			return v.Name
		}
	}
	return ""
}

// epochStatus is where in its epoch the shard is.
func (n *Node) epochStatus(at *running) api.EpochStatus {
	s := api.EpochStatus{Number: at.Committee.Epoch, After: at.Start, Seats: len(at.Committee.Validators), Committee: proof.Digest(at.Committee.Hash())}
	length := consensus.Height(n.genesis.Parameters.EpochBlocks)
	if length == 0 {
		return s
	}
	last := at.Start + length
	left := uint64(last - min(last, n.history.height()))
	s.Last, s.Left = last, &left
	if middle, ok := n.seats.middle(at.Term); ok {
		if next, err := n.seats.after(at.Term, middle); err == nil {
			d := proof.Digest(next.Hash())
			s.Next = &d
		}
	}
	return s
}

// handoversBytes bounds what is read of the store for one answer.
const handoversBytes = 2 << 20

// Network implements api.Backend.
func (b backend) Network(context.Context) (api.Network, error) { return b.n.overview.network(), nil }

// residentMiB is the resident memory of this process.
func residentMiB() float64 {
	stat, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64) // 0 where the system says nothing
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// memoryKinds says what the memory is for, by account as well.
func (n *Node) memoryKinds(s ledger.Stats) []api.MemoryKind {
	var kinds []api.MemoryKind
	add := func(kind string, bytes uint64) {
		kinds = append(kinds, api.MemoryKind{Kind: kind, Bytes: bytes, PerAccount: float64(bytes) / float64(max(s.Accounts, 1))})
	}
	add("records", s.Memory.Records)
	add("hashes", s.Memory.Hashes)
	add("room", s.Memory.Room)
	// Outside the heap, but not the table's.
	if m, err := n.ledger.Storage(); err == nil {
		add("storage_engine", m.MemoryBytes)
	}
	// The heap, and what of it is the ledger's.
	add("upper_tree", s.Memory.Upper)
	add("chunk_index", s.Memory.Chunks)
	add("blocks", s.Memory.Blocks)
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	if metrics.Read(heap); heap[0].Value.Kind() == metrics.KindUint64 {
		add("heap", heap[0].Value.Uint64())
	}
	return kinds
}

// cpuSeconds is the CPU time that this process has used.
func cpuSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
