package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"
	"golang.org/x/time/rate"

	"tutti/accel/bls"
	"tutti/accel/distill"
	"tutti/appliance/api"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/engine"
	"tutti/netstack"
	"tutti/state/pool"
	"tutti/state/tx"
)

// Trust is what a genesis lets a client verify with.
func Trust(v *genesis.Verified) (*proof.Trust, error) {
	var committees []*consensus.Committee
	for s := range v.Shards {
		c, err := v.Committee(consensus.ShardID(s))
		if err != nil {
			return nil, err
		}
		committees = append(committees, c)
	}
	return proof.NewTrust(v.Hash(), committees, shardOf(v.Table))
}

// wire connects blocks, pool and the other shards.
func (n *Node) wire(headers *finalHeaders, g *genesis.Verified) (err error) {
	if n.blocks, err = n.openLog(n.home.Blocks(), false); err != nil {
		return err
	}
	n.closers = append(n.closers, n.blocks)
	n.meter = newMeter(time.Now())
	n.history = newHistory(n.chain, n.shard, n.shardOf, n.blocks, n.ledger, n.meter)
	n.seats = &seats{genesis: n.genesis, store: n.epochs, log: n.blocks}
	if n.pool, err = n.newPool(); err != nil {
		return err
	}
	if n.batches, err = n.newBatches(); err != nil {
		return err
	}
	if err := n.wireShards(g, headers); err != nil {
		return err
	}
	n.app = &application{
		chain: n.chain, shard: n.shard, seats: n.seats, ledger: n.ledger, pool: n.pool, batches: n.batches, cross: n.cross,
		history: n.history, pace: n.pace(),
		tell: n.tell, observe: observer{n}, wake: n.wake, open: map[consensus.Hash]*openBlock{},
	}
	height, _ := n.app.Final()
	if top, _ := n.blocks.Final(); height > top {
		return fmt.Errorf("state at height %d, log at %d: %w", height, top, engine.ErrStateAhead)
	}
	if err := n.history.restore(height); err != nil {
		return err
	}
	tip, err := n.history.certified(height)
	if err != nil {
		return err
	}
	n.cross.resume(n.ledger.Meta().Channels, tip)
	return nil
}

// pace is what the genesis says about blocks.
func (n *Node) pace() pace {
	p := n.genesis.Parameters
	return pace{
		interval: time.Duration(p.BlockIntervalMs) * time.Millisecond, heartbeat: time.Duration(p.HeartbeatMs) * time.Millisecond,
		maxBytes: int(p.MaxBodyBytes), maxTxs: int(p.MaxBlockTxs),
	}
}

// openLog opens the consensus log in a folder, and may make it if it is not there.
func (n *Node) openLog(dir string, create bool) (*blocklog.Log, error) {
	return blocklog.Open(blocklog.Options{
		FS: countedFS{disk(), &n.logWritten}, Dir: dir, Chain: consensus.Hash(n.chain), Shard: n.shard, Create: create,
		Retention: keptBlocks(n.cfg.Storage.RetentionBlocks),
	})
}

func (n *Node) newPool() (*pool.Pool, error) {
	height, _ := n.ledger.Final()
	c := n.cfg.Pool
	return pool.New(pool.Options{
		Genesis: n.chain, Shard: uint16(n.shard), Fees: n.genesis.Parameters.Fees, OpenDeposit: n.genesis.Parameters.OpenDeposit,
		ShardOf: func(id tx.ID) (uint16, bool) { return n.table.ShardOf(id.Partition()) },
		Height:  height, MaxTxs: c.MaxTransactions, MaxBytes: poolBytes, MaxPerAccount: c.MaxPerAccount, MaxAhead: maxAhead,
		Client:      pool.Quota{PerSecond: n.cfg.API.TransactionsPerSecond, Burst: n.cfg.API.TransactionsPerSecond, Held: c.MaxPerSource},
		Peer:        pool.Quota{PerSecond: n.cfg.API.TotalTransactionsPerSecond, Burst: n.cfg.API.TotalTransactionsPerSecond, Held: c.MaxPerSource},
		ResendAfter: resendAfter, Possession: bls.VerifyPossession,
	}, finalState{n.ledger}, n.verifier)
}

// largestBatch is how many transfers and bytes of encoding a batch may have: it fits in a block beside the signed
// transactions that wait, and in a message between validators.
func (n *Node) largestBatch() (count, size int) {
	p := n.pace()
	txs, bytes := p.room(p.maxBytes, p.maxTxs)
	return min(txs, distill.MaxCount), min(bytes-txs/8-1, maxBatchSize)
}

func (n *Node) newBatches() (*pool.Batches, error) {
	height, _ := n.ledger.Final()
	count, size := n.largestBatch()
	c, quota := n.cfg.Pool, pool.Quota{PerSecond: n.cfg.API.BatchedPerSecond, Held: n.cfg.Pool.MaxBatchedPerSource}
	quota.Burst = max(quota.PerSecond, count)
	peer := quota
	peer.PerSecond = n.cfg.API.TotalBatchedPerSecond
	peer.Burst = max(peer.PerSecond, count)
	return pool.NewBatches(pool.BatchOptions{
		Height: height, MaxCount: count, MaxSize: size, MaxTransfers: c.MaxBatched, MaxBytes: batchBytes, MaxAhead: maxAhead,
		Client: quota, Peer: peer, ResendAfter: resendAfter, Check: n.ledger.CheckBatch,
	})
}

// wireShards connects this node to the other shards.
func (n *Node) wireShards(g *genesis.Verified, headers *finalHeaders) error {
	trust, err := Trust(g)
	if err != nil {
		return err
	}
	byShard, _ := n.others()
	n.wake = make(chan struct{}, 1)
	j := judges{self: n.shard, headers: headers, trust: trust, current: n.seats.member}
	n.cross = newCrossLinks(j, n.transport, byShard, n.ledger, func() { poke(n.wake) })
	n.serveState(byShard[n.shard])
	n.serveHandovers()
	n.credits = newCredits(n.transport, byShard, trust, n.cross.want, backend{n}.Credit)
	n.forward = newForwarder(n.transport, func(k int) []netstack.NodeID {
		r := n.now()
		return upcomingLeaders(r.Committee, r.index, r.engine.Status().View, k)
	}, n.pool.Resend, n.batches.Resend)
	n.accountChunks = rate.NewLimiter(accountChunksPerSec, accountChunksPerSec)
	return nil
}

// startEngine recovers what the block log holds above the state, and begins to take part.
func (n *Node) startEngine(ctx context.Context, voting *keys.Secret) error {
	secret, err := voting.BLS()
	if err != nil {
		return err
	}
	if consensus.PublicKey(voting.Public()) != n.genesis.Shards[n.shard].Validators[n.index].Key {
		return fmt.Errorf("the voting key in %s is not the one that genesis has for this node: put the right key there", n.home.VotingKey())
	}
	n.signer, n.router = consensus.NewSigner(secret), newCommitteeRouter(n.transport)
	if err := n.enter(ctx); err != nil {
		return err
	}
	n.closers = append(n.closers, engineCloser{n})
	_, others := n.others()
	n.overview = newOverview(n.transport, others, n.tellStatus)
	return nil
}

// tell passes a final block on: to subscribers, and to the other shards.
func (n *Node) tell(b *proof.Block) {
	n.server.Publish(b)
	h := b.Final.Header()
	if len(b.Final.Headers) != 1 || len(n.committees) == 1 {
		return
	}
	if r := n.now(); r != nil && r.Committee.Leader(h.View) == r.index { // one voice is enough; the others ask by themselves
		fh := consensus.FinalHeader{Header: h, Cert: b.Final.Cert}
		_ = n.transport.Publish(finalTopic(n.shard), fh.Append(nil)) // best effort
	}
}

// tellStatus is this node's answer to its peers.
func (n *Node) tellStatus() peerStatus {
	now := time.Now()
	r := n.meter.read(now)
	e := n.now()
	return peerStatus{
		Shard: api.ShardStatus{Shard: n.shard, Height: finalHeight(e.engine.Status()), TPS: r.tps, FinalityMs: r.quantiles, Validators: n.validators(e, now)},
		API: api.NodeAPI{
			Shard: n.shard, Name: n.genesis.Shards[n.shard].Validators[n.index].Name, URL: n.apiURL(),
		},
	}
}

// apiURL is where others can reach the API: where it listens or, if that is every address of this machine, the first
// address in network.advertise; empty if that says nothing either.
func (n *Node) apiURL() string {
	host, _, err := net.SplitHostPort(n.cfg.API.Listen)
	_, port, err2 := net.SplitHostPort(n.listener.Addr().String())
	if err != nil || err2 != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return "http://" + net.JoinHostPort(host, port)
	}
	for _, a := range n.cfg.Network.Advertise {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			continue
		}
		for _, p := range []int{multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6} {
			if host, err := m.ValueForProtocol(p); err == nil {
				return "http://" + net.JoinHostPort(host, port)
			}
		}
	}
	return ""
}

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskSize is the size of the data folders, read now and then because it walks them.
type diskSize struct {
	mu  sync.Mutex // guards mib
	mib float64
}

func (d *diskSize) get() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mib
}

// watchDisk keeps n.disk and n.writes up to date until ctx ends.
func (n *Node) watchDisk(ctx context.Context) {
	beat := time.NewTicker(diskEvery)
	defer beat.Stop()
	for {
		var bytes int64
		for _, dir := range n.dataFolders() {
			_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // files come and go meanwhile
				if err == nil && e.Type().IsRegular() {
					if info, err := e.Info(); err == nil {
						bytes += info.Size()
					}
				}
				return nil
			})
		}
		n.disk.mu.Lock()
		n.disk.mib = float64(bytes) / (1 << 20)
		n.disk.mu.Unlock()
		n.writes.sample(time.Now(), n.written())
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}
