package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tutti/accel/bls"
	"tutti/appliance/api"
	"tutti/appliance/epochs"
	"tutti/appliance/host"
	"tutti/appliance/keys"
	"tutti/appliance/metrics"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/blocklog"
	"tutti/consensus/engine"
	"tutti/netstack"
	"tutti/state/ledger"
	"tutti/state/statesync"
	"tutti/state/store"
	"tutti/state/tx"
)

const (
	joinReport = 5 * time.Second // between lines about the progress
	joinRetry  = 2 * time.Second // between attempts to get the blocks that the state ends with
	joinTries  = 60              // of them
	joinHold   = 2 * time.Second // when the API says to come back
)

// joining copies the data of a validator from the others of its shard, with a transport of its own, which ends before the
// node starts as ever, and an API of its own, which ends when the node's takes its place. Everything it does can be cut short at any point and is gone on with at the next start:
//
//  0. epochs gets the hand-overs up to the present epoch
//  1. state/ is filled with proven parts (state/statesync) and becomes a ledger, final at some height
//  2. blocks/ is begun there (engine.Follower.Adopt, with a vote floor) or, where this validator's own log is intact,
//     brought up to there (Extend), or begun there with its votes if nobody keeps what it lacks (Carry): so its votes are
//     kept and there is no need of a floor. The floor is of the present epoch, where a quorum answers that it has not begun the next
//     one; the blocks may be of an epoch before. Nothing is signed in epochs below a floor's (Node.enter)
//  3. the mark is taken away
type joining struct {
	n         *Node
	transport netstack.Transport
	names     map[netstack.NodeID]statesync.Peer // validators of the shard, but for this one
	ids       map[statesync.Peer]netstack.NodeID

	trust *proof.Trust // follows the hand-overs

	mu       sync.Mutex // guards what follows
	client   *statesync.Client
	follower *engine.Follower // of epoch
	epoch    consensus.Epoch
}

// join makes the data whole. ready is called with the address of the API.
func (n *Node) join(ctx context.Context, node *keys.Secret, ready func(api string)) (err error) {
	transport, err := n.dial(ctx, node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, transport.Close()) }()
	j := &joining{n: n, transport: transport, names: map[netstack.NodeID]statesync.Peer{}, ids: map[statesync.Peer]netstack.NodeID{}}
	for i, v := range n.genesis.Shards[n.shard].Validators {
		if id := netstack.NodeID(v.Node); i != n.index {
			name := statesync.Peer(fmt.Sprintf("%s (%s)", v.Name, id.Short()))
			j.names[id], j.ids[name] = name, id
		}
	}
	if err := n.openEpochs(); errors.Is(err, epochs.ErrDamaged) {
		n.log.Warn("the file of hand-overs is damaged: it is moved aside, and copied from the others", "err", err)
		if _, err := moveAside(n.home.Epochs()); err != nil {
			return err
		}
		if err := n.openEpochs(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if j.trust, err = n.trusted(); err != nil {
		return err
	}
	if err := j.followNewest(); err != nil {
		return err
	}
	if err := j.serve(ctx, ready); err != nil {
		return err
	}
	began := time.Now()
	n.log.Info("the data of this validator is copied from the others of its shard", "shard", n.shard, "validators", len(j.names))
	if err := j.handovers(ctx); err != nil {
		return err
	}
	defer j.nameLiars()
	height, err := j.state(ctx)
	if err != nil {
		return err
	}
	if err := j.log(ctx, consensus.Height(height)); err != nil {
		return err
	}
	if err := unmark(n.home); err != nil {
		return err
	}
	n.log.Info("the data is whole", "height", height, "took_s", int(time.Since(began).Seconds()))
	return nil
}

// nameLiars tells which validators sent wrong headers or certificates.
func (j *joining) nameLiars() {
	f, epoch := j.following()
	t, err := j.n.epochs.Term(epoch)
	if err != nil {
		return
	}
	for _, l := range f.Liars() {
		id := netstack.NodeID(t.Committee.Validators[l.Member].Node)
		j.n.log.Warn("a validator sent something wrong and is not asked any more", "validator", string(j.names[id]), "what", l.Reason)
	}
}

// state fills the state folder, or finds that this was done before, and returns the height at which it is final. A copy that
// was begun and is damaged is of no value: it is removed, and the next start makes it anew. Not this one: a store that has
// failed keeps its folder locked until the process ends.
func (j *joining) state(ctx context.Context) (height uint64, err error) {
	height, err = j.fill(ctx)
	if !errors.Is(err, store.ErrCorrupt) {
		return height, err
	}
	if again := os.RemoveAll(j.n.home.State()); again != nil {
		return 0, errors.Join(err, again)
	}
	return 0, fmt.Errorf("the copy of the state was damaged on this node's disk and has been removed: check the disk (dmesg, smartctl), then start again to copy it anew (%v)", err)
}

func (j *joining) fill(ctx context.Context) (height uint64, err error) {
	n, params := j.n, j.n.params
	r, err := ledger.OpenRestore(ledger.RestoreOptions{
		FS: disk(), Dir: n.home.State(), Params: params, Workers: n.workers(), CacheBytes: int64(n.cfg.Memory.CacheMiB) << 20,
	})
	if errors.Is(err, store.ErrExists) {
		return finalIn(n.home.State(), params)
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	client, err := statesync.NewClient(statesync.Options{
		Restore: r, Network: j, Headers: followed{j}, Observer: j, Partitions: params.Table.Partitions(params.Shard),
	})
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	j.client = client
	j.mu.Unlock()
	reporting, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { j.report(reporting) })
	return client.Run(ctx)
}

// finalIn is the height at which a ledger is final.
func finalIn(dir string, params ledger.Params) (uint64, error) {
	l, err := ledger.Open(ledger.Options{
		FS: disk(), Dir: dir, Params: params, Verifier: noBlocks{}, Headers: noBlocks{}, Possession: bls.VerifyPossession,
	})
	if err != nil {
		return 0, err
	}
	height, _ := l.Final()
	return height, l.Close()
}

// log makes a consensus log that holds the final block at a height.
func (j *joining) log(ctx context.Context, height consensus.Height) error {
	n := j.n
	if err := n.nameCarried(); err != nil {
		return err
	}
	l, err := n.openLog(n.home.Blocks(), true)
	if errors.As(err, new(*blocklog.CorruptionError)) {
		n.log.Warn("the consensus log is damaged: it is moved aside, and a vote floor takes its place", "err", err)
		l, err = n.freshLog()
	}
	if err != nil {
		return err
	}
	bring := j.adopt
	if voted(l) {
		bring = j.extend
	}
	err = j.follow(ctx, func() error { return bring(ctx, l, height) })
	if errors.Is(err, engine.ErrNoAnswer) && voted(l) {
		n.log.Info("the others do not keep the blocks that this validator's log lacks: it begins anew with its votes", "reason", err)
		err = j.follow(ctx, func() error { return errors.Join(j.carry(ctx, l, height), j.middle(ctx, height)) })
		if err = errors.Join(err, l.Close()); err == nil {
			if _, err = moveAside(n.home.Blocks()); err == nil {
				err = n.nameCarried()
			}
		}
		return err
	}
	if err == nil {
		err = j.follow(ctx, func() error { return j.middle(ctx, height) })
	}
	return errors.Join(err, l.Close())
}

// carriedSuffix is added to the name of a consensus log that is made of another one's votes. The old one goes when it is whole.
const carriedSuffix = ".carried"

// carry makes a log that begins at a height and has the votes of another one.
func (j *joining) carry(ctx context.Context, old *blocklog.Log, height consensus.Height) error {
	dir := j.n.home.Blocks() + carriedSuffix
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	l, err := j.n.openLog(dir, true)
	if err != nil {
		return err
	}
	f, err := j.followerAt(height)
	if err == nil {
		err = f.Carry(ctx, old, l, height)
	}
	return errors.Join(err, l.Close())
}

// nameCarried gives a log that carry has made the old one's name, if that has gone.
func (n *Node) nameCarried() error {
	from, to := n.home.Blocks()+carriedSuffix, n.home.Blocks()
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(from, to); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return host.SyncDir(n.home.Data())
}

// follow tries to bring a log to a height until it is there. The others may be busy, or not be there for a moment. That they
// say that they do not hold what is needed is final for now.
func (j *joining) follow(ctx context.Context, bring func() error) (err error) {
	pause := time.NewTicker(joinRetry)
	defer pause.Stop()
	for range joinTries {
		if err = bring(); !errors.Is(err, engine.ErrNoAnswer) && !errors.Is(err, engine.ErrEpochOver) || errors.Is(err, engine.ErrNotKept) {
			return err
		}
		if again := j.handovers(ctx); again != nil { // they may be in another epoch by now
			return again
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// voted reports whether a log has votes of this validator from before.
func voted(l *blocklog.Log) bool {
	floor := false
	for _, r := range l.Records() {
		if r.Vote != nil {
			return true
		}
		floor = floor || r.Floor != nil
	}
	return !floor && l.Stats().Blocks > 0
}

// freshLog moves the consensus log aside and makes an empty one.
func (n *Node) freshLog() (*blocklog.Log, error) {
	if _, err := moveAside(n.home.Blocks()); err != nil {
		return nil, err
	}
	return n.openLog(n.home.Blocks(), true)
}

// followed is a follower as state sync sees it.
type followed struct{ j *joining }

// Advance implements statesync.Headers.
func (h followed) Advance(ctx context.Context) (uint64, error) {
	f, epoch := h.j.following()
	tip, err := f.Advance(ctx)
	if errors.Is(err, engine.ErrEpochOver) || errors.Is(err, engine.ErrNoAnswer) {
		if err := h.j.handovers(ctx); err != nil {
			return 0, err
		}
		next, now := h.j.following()
		if now == epoch {
			return 0, err
		}
		tip, err = next.Advance(ctx)
	}
	if err != nil {
		return 0, err
	}
	return uint64(tip.Height), nil
}

// Headers implements statesync.Headers.
func (h followed) Headers(ctx context.Context, from, to uint64) ([]ledger.Trusted, error) {
	f, _ := h.j.following()
	hs, err := f.Headers(ctx, consensus.Height(from), consensus.Height(to))
	if err != nil {
		return nil, err
	}
	out := make([]ledger.Trusted, len(hs))
	for i, x := range hs {
		out[i] = ledger.Trusted{Hash: tx.Hash(x.Hash()), Parent: tx.Hash(x.Parent), State: tx.Hash(x.State), Diff: tx.Hash(x.Diff)}
	}
	return out, nil
}

// Peers implements statesync.Network: the other validators of the shard. Who is not connected fails at once.
func (j *joining) Peers() []statesync.Peer { return slices.Collect(maps.Values(j.names)) }

// Request implements statesync.Network.
func (j *joining) Request(ctx context.Context, to statesync.Peer, request []byte) ([]byte, error) {
	return j.transport.Request(ctx, j.ids[to], stateProtocol, request)
}

// Began implements statesync.Observer.
func (j *joining) Began(s statesync.Step) { j.n.log.Info("copying the state", "now", string(s)) }

// Dropped implements statesync.Observer.
func (j *joining) Dropped(p statesync.Peer, why string) {
	j.n.log.Warn("a validator sent something wrong and is not asked any more", "validator", string(p), "what", why)
}

// Again implements statesync.Observer.
func (j *joining) Again(below uint64) {
	j.n.log.Warn("nobody keeps the blocks' changes that older parts need: they are copied again", "below_height", below)
}

// report writes a line about the progress now and then until ctx ends.
func (j *joining) report(ctx context.Context) {
	beat := time.NewTicker(joinReport)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			s := j.status()
			j.n.log.Info("copying the state", "now", s.Step, "progress", s.String(), "accounts", s.Accounts, "of", s.TotalAccounts,
				"mib", s.Bytes>>20, "mib_per_second", int(s.BytesPerSecond/(1<<20)), "height", s.Height, "tip", s.Tip)
		case <-ctx.Done():
			return
		}
	}
}

// status is how far it is.
func (j *joining) status() *api.SyncStatus {
	j.mu.Lock()
	client := j.client
	j.mu.Unlock()
	if client == nil {
		return &api.SyncStatus{Step: "opening the data folder"}
	}
	p := client.Progress()
	s := &api.SyncStatus{
		Step: string(p.Step), Share: p.Share(), Bytes: p.Bytes, TotalBytes: p.TotalBytes, BytesPerSecond: p.Rate,
		Accounts: p.Accounts, TotalAccounts: p.TotalAccounts, Height: consensus.Height(p.Height), Tip: consensus.Height(p.Tip),
	}
	if p.LeftKnown {
		left := p.Left.Seconds()
		s.LeftS = &left
	}
	for _, m := range p.Peers {
		s.Peers = append(s.Peers, api.SyncPeer{Name: string(m.Peer), Answers: m.Answers, Bytes: m.Bytes, Trouble: m.Last, Dropped: m.Dropped != ""})
	}
	return s
}

// serve runs the API of a node that has no state yet: its status, and what does not depend on the state. It goes on until
// Node.endEarly, which leaves the port to the node's own API.
func (j *joining) serve(ctx context.Context, ready func(string)) error {
	n := j.n
	m, err := metrics.New(prometheus.NewRegistry(), n.build.Version, n.build.Commit)
	if err != nil {
		return err
	}
	server, listener, err := n.listen(joiningBackend{j: j}, api.Options{Counters: &m.API, Hold: j.hold})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	n.endEarly = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if err := server.Serve(ctx, listener); err != nil {
			n.log.Warn("the API ended while the state is copied", "err", err)
		}
	}()
	ready(listener.Addr().String())
	return nil
}

// hold is why everything else is refused.
func (j *joining) hold() error {
	return &api.Error{Code: api.NotReady, Detail: "syncing: " + j.status().String(), RetryAfter: joinHold}
}

// joiningBackend is a node without a state as the API sees it. What is not here is refused before it is asked for.
type joiningBackend struct {
	api.Backend // nil
	j           *joining
}

// FinalHeight implements api.Backend.
func (b joiningBackend) FinalHeight() consensus.Height { return 0 }

// Ready implements api.Backend.
func (b joiningBackend) Ready() error { return b.j.hold() }

// Status implements api.Backend.
func (b joiningBackend) Status() api.Status {
	n := b.j.n
	now := time.Now()
	s := api.Status{
		Version: n.build.Version, Commit: n.build.Commit, Chain: n.genesis.Name, Genesis: proof.Digest(n.chain),
		Node: proof.Digest(b.j.transport.Self()), Shard: n.shard, Shards: len(n.committees), ValidatorIndex: n.index, Role: "validator",
		TimeMs: now.UnixMilli(), Syncing: true, Sync: b.j.status(), UptimeS: now.Sub(n.started).Seconds(),
		Memory: api.Memory{RSSMiB: residentMiB()}, CPUS: cpuSeconds(),
	}
	for _, p := range b.j.transport.Peers() {
		if p.Connected {
			s.PeersConnected++
		}
	}
	return s
}
