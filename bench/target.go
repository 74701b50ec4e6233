package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/client"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/appliance/proof"
	"tutti/bench/lan"
	"tutti/bench/openloop"
	"tutti/bench/report"
	"tutti/consensus"
	"tutti/state/tx"
)

// target is the network that is measured. Immutable once made, but for stopped.
type target struct {
	genesis    *genesis.Genesis
	trust      *proof.Trust
	nodes      [][]*validator // by shard
	crowd      genesis.Crowd
	ids        []tx.ID // of the crowd, by member
	first      uint64  // member that pays first
	accounts   uint64  // that pay
	readRate   float64 // nonces to read from each node a second
	diskSyncMs *float64
	own        *localnet.Network // nil: somebody else's
	dir        string            // of own
	stopped    bool              // own no longer runs; of the goroutine that made it
	lan        *lan.Switch       // between the nodes of own; nil: they are on loopback
}

// validator is one node, asked alone.
type validator struct {
	name   string
	url    string
	shard  consensus.ShardID
	client *client.Client
}

const validatorTimeout = 5 * time.Second

func (t *target) add(shard consensus.ShardID, name, url string) error {
	c, err := client.New(client.Options{URLs: []string{url}, Trust: t.trust, CallTimeout: validatorTimeout, Rounds: 2})
	if err != nil {
		return err
	}
	t.nodes[shard] = append(t.nodes[shard], &validator{name: name, url: url, shard: shard, client: c})
	return nil
}

// apis is the addresses by shard.
func (t *target) apis() [][]string {
	out := make([][]string, len(t.nodes))
	for s, row := range t.nodes {
		for _, n := range row {
			out[s] = append(out[s], n.url)
		}
	}
	return out
}

func (t *target) close() error {
	for _, n := range slices.Concat(t.nodes...) {
		n.client.Close()
	}
	return t.stop()
}

// stop stops the network if it is our own. Calls after the first do nothing.
func (t *target) stop() error {
	if t.own == nil || t.stopped {
		return nil
	}
	t.stopped = true
	err := t.own.Close()
	if t.lan != nil {
		err = errors.Join(err, t.lan.Close())
	}
	return err
}

// clean removes the files of our own network, or says where they are.
func (b *bench) clean(t *target, keep bool) error {
	switch {
	case t.dir == "":
		return nil
	case keep:
		b.screen.say("the network's files and logs are kept in %s", t.dir)
		return nil
	}
	return os.RemoveAll(t.dir)
}

// syncWrites is how many writes the disk is probed with.
const syncWrites = 50

// start starts a network of our own.
func (b *bench) start(ctx context.Context) (_ *target, err error) {
	t := &target{readRate: 1000, accounts: b.Accounts}
	if t.dir, err = os.MkdirTemp("", "tutti-bench-"); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.clean(t, ctx.Err() == nil))
		}
	}()
	if l, err := host.ProbeSync(t.dir, syncWrites); err == nil {
		ms := report.Round(float64(l.P50)/float64(time.Millisecond), 3)
		t.diskSyncMs = &ms
	}
	port, err := localnet.FreePorts(b.Shards*b.Validators + 1) // and the broker's
	if err != nil {
		return nil, err
	}
	o := localnet.Options{
		Home: t.dir, Shards: b.Shards, Validators: b.Validators, Accounts: b.Accounts, APIPort: port, Binary: b.Binary, TestCrowd: b.Distilled > 0, Broker: b.Online, Config: unlimited, Profiles: b.Profiles, Out: b.Out, Terminal: b.Terminal,
	}
	if b.Link != nil {
		if t.lan, err = b.Link.join(&o); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, t.lan.Close())
			}
		}()
	}
	n, err := localnet.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	t.own, t.genesis, t.crowd, t.ids = n, n.Genesis.Genesis, n.Crowd, n.Population.CrowdIDs()
	if t.trust, err = node.Trust(n.Genesis); err != nil {
		return nil, err
	}
	t.nodes = make([][]*validator, len(n.APIs))
	for s, urls := range n.APIs {
		for i, u := range urls {
			if err := t.add(consensus.ShardID(s), localnet.NodeName(s, i), u); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// attach takes a network that runs. Its nodes tell where the others are.
func (b *bench) attach(ctx context.Context) (_ *target, err error) {
	a := b.Attach
	t := &target{genesis: a.Genesis, trust: a.Trust, nodes: make([][]*validator, len(a.Genesis.Shards)), readRate: 50}
	entry, err := client.New(client.Options{URLs: a.APIs, Trust: a.Trust})
	if err != nil {
		return nil, err
	}
	defer entry.Close()
	if err := b.discover(ctx, t, entry); err != nil {
		return nil, errors.Join(err, t.close())
	}
	shards := uint64(len(t.nodes))
	t.crowd = genesis.Crowd{Seed: a.Crowd, Count: a.Genesis.Accounts.Count} // at most; strangers are left out by their keys
	p := genesis.Population{Table: a.Genesis.Table, Crowd: t.crowd, Named: make([][]genesis.Account, shards)}
	t.ids = p.CrowdIDs()
	t.first = t.crowd.Count / 2 / shards * shards
	t.accounts = min(b.Accounts, t.crowd.Count-t.first)
	if b.Rate > 0 { // each nonce has to be read
		t.accounts = min(t.accounts, max(1000, uint64(spareSeconds*b.Rate)))
	}
	t.accounts = t.accounts / shards * shards
	return t, nil
}

// spareSeconds is for how long a rate can be kept up with payers that pay once.
const spareSeconds = 3

// discover asks for the addresses of all validators until it has one for every seat, or for some time.
func (b *bench) discover(ctx context.Context, t *target, entry *client.Client) error {
	wanted := 0
	for _, s := range t.genesis.Shards {
		wanted += len(s.Validators)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var found []api.NodeAPI
	for {
		n, err := entry.Network(ctx)
		if err != nil {
			return err
		}
		if found = n.APIs; len(found) >= wanted || !openloop.Wait(ctx, time.Second) {
			break
		}
	}
	if len(found) < wanted {
		b.screen.say("only %d of %d validators are known: the others are neither loaded nor checked", len(found), wanted)
	}
	slices.SortFunc(found, func(a, b api.NodeAPI) int { return slices.Compare([]byte(a.Name), []byte(b.Name)) })
	for _, f := range found {
		if int(f.Shard) >= len(t.nodes) {
			return fmt.Errorf("bench: node %s is of shard %d, the genesis file has %d: is it this network's?", f.Name, f.Shard, len(t.nodes))
		}
		if err := t.add(f.Shard, f.Name, f.URL); err != nil {
			return err
		}
	}
	for s, row := range t.nodes {
		if len(row) == 0 {
			return fmt.Errorf("bench: no node of shard %d is known: give one with --api", s)
		}
	}
	return nil
}
