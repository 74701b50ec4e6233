package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/appliance/proof"
	"tutti/bench/load"
	"tutti/bench/workload"
	"tutti/consensus"
	"tutti/state/tx"
)

// size is a network to run.
type size struct {
	shards, validators int
	accounts           uint64 // that pay the load
	probes             uint64 // further ones, that the scenario pays with
	cross              float64
	rate               float64
	eachNode           bool // a client for each node, else one for each shard
}

// world is a network of real processes, its load, and the clients that are told what becomes final. One goroutine runs it.
type world struct {
	size    size
	home    string
	net     *localnet.Network
	trust   *proof.Trust
	ids     []tx.ID // of the whole crowd
	nodes   []*apiNode
	shards  [][]Node
	witness *Witness
	session *load.Session
	http    *http.Client
	random  *rand.Rand
	logf    func(format string, args ...any)

	load      sync.WaitGroup
	stopLoad  chan struct{}
	outcome   *load.Outcome
	loadErr   error
	began     time.Time
	follow    sync.WaitGroup
	unfollow  context.CancelFunc
	nextProbe uint64
	logged    map[string]int64                    // bytes of each node's log that were looked at
	excuse    func(name string, line []byte) bool // what a node may write, and is no complaint; nil: nothing
}

// open starts a network in a new home below dir, and its load. Of opt the ports and what sz says are filled in.
func open(ctx context.Context, opt localnet.Options, dir string, sz size, seed uint64, logf func(string, ...any)) (_ *world, err error) {
	w := newWorld(sz, seed, logf)
	if w.home, err = os.MkdirTemp(dir, "tutti-faults-"); err != nil {
		return nil, err
	}
	if opt.APIPort, err = localnet.FreePorts(sz.shards * sz.validators); err != nil {
		return nil, err
	}
	if err := w.launch(ctx, opt, seed); err != nil {
		return nil, err
	}
	return w, nil
}

func newWorld(sz size, seed uint64, logf func(string, ...any)) *world {
	return &world{
		size: sz, logf: logf, random: rand.New(rand.NewPCG(seed, 0xfa)), logged: map[string]int64{},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: asksAtOnce}},
	}
}

// launch starts the network below w.home, and its load. After an error nothing runs.
func (w *world) launch(ctx context.Context, opt localnet.Options, seed uint64) (err error) {
	if opt.Home = filepath.Join(w.home, "net"); opt.Config == nil {
		opt.Config = unlimited
	}
	opt.Shards, opt.Validators, opt.Accounts = w.size.shards, w.size.validators, w.size.accounts+w.size.probes
	if w.net, err = localnet.Start(ctx, opt); err != nil {
		return err
	}
	if w.trust, err = node.Trust(w.net.Genesis); err != nil {
		return errors.Join(err, w.net.Close())
	}
	w.meet()
	if err := w.begin(ctx, seed); err != nil {
		return errors.Join(err, w.close())
	}
	return nil
}

// meet makes what clients know of a network.
func (w *world) meet() {
	w.ids = w.net.Population.CrowdIDs()
	balances := make(map[tx.ID]uint64, len(w.ids))
	for _, id := range w.ids {
		balances[id] = w.net.Crowd.Balance
	}
	w.witness = NewWitness(w.size.shards, w.net.Genesis.Genesis.Parameters.Fees, balances, w.trust.ShardOf)
	w.shards = make([][]Node, w.size.shards)
	for k, name := range w.net.Names {
		n := &apiNode{name: name, shard: consensus.ShardID(k / w.size.validators), url: w.net.URL(name), trust: w.trust, http: w.http}
		w.nodes = append(w.nodes, n)
		w.shards[n.shard] = append(w.shards[n.shard], n)
	}
}

// begin starts clients and load.
func (w *world) begin(ctx context.Context, seed uint64) (err error) {
	crowd, err := workload.NewCrowd(ctx, w.net.Crowd, w.ids, 0, w.size.accounts, w.net.Genesis.Hash(), nil)
	if err != nil {
		return err
	}
	w.startFollowing(ctx)
	w.session, err = load.Open(ctx, load.Options{
		Target: load.Target{Trust: w.trust, APIs: w.net.APIs, Crowd: crowd, Fee: w.net.Genesis.Parameters.Fees[0]},
		Workload: workload.Options{
			Kind: workload.Uniform, Seed: seed, Shards: w.size.shards, Accounts: int(w.size.accounts), CrossShard: w.size.cross, Window: 2,
		},
		Fresh: true, Patience: -1, ExpiryBlocks: 1000,
	})
	if err != nil {
		return err
	}
	w.stopLoad, w.began = make(chan struct{}), time.Now()
	w.load.Go(func() {
		w.outcome, w.loadErr = w.session.Run(ctx, load.Phase{Rate: w.size.rate, Stop: w.stopLoad, Drain: settleWithin})
	})
	return nil
}

// endLoad ends the load and waits until what it sent has settled. It returns how long the load lasted.
func (w *world) endLoad() (time.Duration, error) {
	lasted := time.Since(w.began)
	close(w.stopLoad)
	w.load.Wait()
	w.stopLoad = nil
	return lasted, w.loadErr
}

// startFollowing has clients follow the shards, from where the witness is.
func (w *world) startFollowing(ctx context.Context) {
	ctx, w.unfollow = context.WithCancel(ctx)
	for shard, urls := range w.net.APIs {
		if !w.size.eachNode {
			w.follow.Go(func() { w.followShard(ctx, consensus.ShardID(shard), fmt.Sprintf("shard %d", shard), urls) })
			continue
		}
		for i, url := range urls {
			name := w.shards[shard][i].Name()
			w.follow.Go(func() { w.followShard(ctx, consensus.ShardID(shard), name, []string{url}) })
		}
	}
}

// stopFollowing ends what startFollowing began.
func (w *world) stopFollowing() {
	w.unfollow()
	w.follow.Wait()
}

// followShard tells the witness what nodes of a shard say, until ctx ends.
func (w *world) followShard(ctx context.Context, shard consensus.ShardID, name string, urls []string) {
	c, err := client.New(client.Options{URLs: urls, Trust: w.trust, CallTimeout: askTimeout, HTTP: w.http})
	if err != nil {
		w.witness.Wrong("follow %s: %v", name, err)
		return
	}
	err = c.Follow(ctx, client.FollowOptions{Shard: shard, From: w.witness.Height(shard) + 1, Body: true, Patience: time.Hour}, func(e client.Event) error {
		w.witness.Tell(name, e.Contents)
		return nil
	})
	if ctx.Err() == nil {
		w.witness.Wrong("follow %s: %v", name, err)
	}
}

// close ends everything, and removes the home unless it is worth a look.
func (w *world) close() error {
	var errs []error
	if w.unfollow != nil {
		w.stopFollowing()
	}
	if w.session != nil {
		errs = append(errs, w.session.Close())
	}
	w.load.Wait()
	errs = append(errs, w.net.Kill(w.net.Names...), w.net.Close())
	w.http.CloseIdleConnections()
	if len(w.witness.Wrongs()) == 0 {
		errs = append(errs, os.RemoveAll(w.home))
	} else {
		w.logf("see %s", w.home)
	}
	return errors.Join(errs...)
}

// unlimited lifts the limits that protect a node from one client, since all clients here have one address.
func unlimited(c *config.Config) {
	c.API.RequestsPerSecond, c.API.TotalRequestsPerSecond = 1_000_000, 1_000_000
	c.API.TransactionsPerSecond, c.API.TotalTransactionsPerSecond = 1_000_000, 1_000_000
	c.API.BatchedPerSecond, c.API.TotalBatchedPerSecond = 10_000_000, 10_000_000
	c.Pool.MaxPerSource, c.Pool.MaxBatchedPerSource = c.Pool.MaxTransactions, c.Pool.MaxBatched
}

// all is the names of a shard's nodes.
func (w *world) all(shard consensus.ShardID) (names []string) {
	for _, n := range w.shards[shard] {
		names = append(names, n.Name())
	}
	return names
}

func (w *world) node(name string) *apiNode {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// orderly complains about processes that ended by themselves, wrote to standard error, or logged an error or a warning, such
// as that a validator contradicted itself, or sent what no correct one sends.
func (w *world) orderly() {
	for {
		name, why, ok := w.net.Died()
		if !ok {
			break
		}
		w.witness.Wrong("%s ended by itself: %s", name, why)
	}
	for _, name := range w.net.Names {
		w.silent(name)
	}
}

// silent complains if a node's process has written to standard error, or a complaint to its log.
func (w *world) silent(name string) {
	const most = 4000
	b, err := os.ReadFile(w.net.Stderr(name))
	if err != nil {
		w.witness.Wrong("%s: standard error: %v", name, err)
	} else if b = bytes.TrimSpace(b); len(b) > 0 && !w.excused(name, b) {
		w.witness.Wrong("%s wrote to standard error: %s", name, b[:min(len(b), most)])
	}
	f, err := os.Open(w.net.Log(name))
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.NewSectionReader(f, w.logged[name], 1<<40))
	}
	if err != nil {
		w.witness.Wrong("%s: log: %v", name, err)
		return
	}
	w.logged[name] += int64(len(b))
	for line := range bytes.Lines(b) {
		if (bytes.Contains(line, []byte("level=ERROR")) || bytes.Contains(line, []byte("level=WARN"))) && !w.excused(name, line) {
			w.witness.Wrong("%s logged: %s", name, bytes.TrimSpace(line[:min(len(line), most)]))
		}
	}
}

func (w *world) excused(name string, line []byte) bool {
	return w.excuse != nil && w.excuse(name, line)
}

// kill kills nodes at one moment.
func (w *world) kill(names ...string) error {
	w.orderly()
	return w.net.Kill(names...)
}

// finalAt waits until a node calls a height final.
func (w *world) finalAt(ctx context.Context, n Node, height consensus.Height, most time.Duration) error {
	return reaches(ctx, n, height, most, func() bool { return w.net.Alive(n.Name()) })
}

// grows waits until clients were told of some more blocks of a shard.
func (w *world) grows(ctx context.Context, shard consensus.ShardID, blocks int, most time.Duration) error {
	return w.passes(ctx, shard, w.witness.Height(shard)+consensus.Height(blocks), most)
}

// passes waits until clients were told of a shard's block at a height.
func (w *world) passes(ctx context.Context, shard consensus.ShardID, height consensus.Height, most time.Duration) error {
	if await(ctx, most, w.witness.News, func() bool { return w.witness.Height(shard) >= height }) {
		return nil
	}
	return fmt.Errorf("shard %d: no client was told of block %d within %s; the last one was %d", shard, height, most, w.witness.Height(shard))
}

// supply is what genesis gave all shards.
func (w *world) supply() (sum uint64) {
	for _, v := range w.net.Genesis.Supplies {
		sum += v
	}
	return sum
}

// audited is how many accounts of a shard a sample has.
const audited = 20

// sample is accounts of a shard that took part, the same for each of its nodes.
func (w *world) sample(shard consensus.ShardID) (ids []tx.ID) {
	stride := len(w.ids)/audited/2 | 1
	for i := int(shard); i < len(w.ids) && len(ids) < audited; i += stride {
		if w.trust.ShardOf(w.ids[i]) == shard {
			ids = append(ids, w.ids[i])
		}
	}
	return ids
}
