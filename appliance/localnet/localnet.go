// Package localnet runs a whole network on this machine: one process for each validator, with real ports, keys and disks
// under one home folder, for demonstrations, tests and benchmarks. Everything it makes is a throw-away: keys are sealed
// cheaply, and a made-up crowd of account holders is derived from a seed that lies beside them.
//
// Prepare makes the files once (keys, genesis, one home for each validator, a funded demo wallet); Start starts the
// processes and waits until all answer; Close stops them. A child never outlives this process, however it ends: it holds
// a pipe whose other end is here, and stops when that is closed.
//
// Layout of the home folder, besides what config.Home names for the user's own wallets and endpoints:
//
//	network.json      the choices this network was made with; written last, so that a half-made home is not taken for whole
//	crowd.seed        seed of the made-up crowd, hexadecimal
//	nodes/s0v1/       home of validator 1 of shard 0
package localnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/consensus"
	"tutti/state/tx"
)

// Options of a local network. Home is required.
type Options struct {
	Home       string
	Shards     int                  // 1 to 64; default 2
	Validators int                  // of each shard, 1 to 100; default 4
	Accounts   uint64               // in the made-up crowd; default 10,000
	TestCrowd  bool                 // of a benchmark: members have BLS keys, and genesis says of which seed all their keys are
	Broker     bool                 // start a broker of distilled batches, too, and have nodes tell of it
	APIPort    int                  // of the first validator; the others follow; default 9700
	Reset      bool                 // remove an existing local network first
	Binary     string               // tutti; default this program
	Config     func(*config.Config) // changes a new node's options; nil: none
	Hosts      []string             // IPv4 address of each validator, shard by shard; nil: 127.0.0.1
	Powers     []uint64             // of the validators of each shard; nil: 1 each
	// EpochBlocks and CommitteeSize are genesis.Parameters': after how many blocks seats change hands, and how many there are.
	EpochBlocks, CommitteeSize uint64
	IntervalMs                 uint64 // from a block to the next under load; default 200
	// Spawn starts the process of a node, and is called in Start and Restart alone; nil: cmd.Start. Tests put a node on a
	// machine of its own by it.
	Spawn    func(name string, cmd *exec.Cmd) error
	Profiles string    // existing folder for a CPU profile of each node, NAME.pprof, written when it stops; empty: none
	LoadTPS  int       // demo load for RunLoad
	Load     Load      // nil: no load
	Began    time.Time // of the genesis blocks; default now
	Absent   []string  // nodes that Start leaves alone; Restart starts them
	HomeFlag string    // how the commands to try should name the home; empty: they find it
	Out      io.Writer // progress lines of Prepare and Start; nil: none
	Terminal bool      // Out is one: lines may be drawn over
}

// Load sends transactions to n, tps a second, until ctx ends. report may be called now and then.
type Load func(ctx context.Context, n *Network, tps int, report func(LoadStats)) error

// LoadStats is how a load fares.
type LoadStats struct {
	Submitted, Final, Rejected uint64
	P50Ms, P99Ms               float64 // from due to verified finality
}

// Limits of what one machine is asked to run.
const (
	maxShards     = 64
	maxValidators = 100
	maxAccounts   = 100_000_000
	readyTimeout  = 60 * time.Second
	readyEach     = 6 * time.Microsecond // more, for each account of each validator: six times what it costs on a core
)

// choices are what a home was made with.
type choices struct {
	Format        int    `json:"format"`
	Shards        int    `json:"shards"`
	Validators    int    `json:"validators"`
	Accounts      uint64 `json:"accounts"`
	APIPort       int    `json:"api_port"`
	EpochBlocks   uint64 `json:"epoch_blocks,omitempty"`
	CommitteeSize uint64 `json:"committee_size,omitempty"`
	TestCrowd     bool   `json:"test_crowd,omitempty"`
	Broker        bool   `json:"broker,omitempty"`
}

const choicesFormat = 1

// DemoWallet is the name of the funded wallet.
const DemoWallet = "demo"

// Network is a running local network.
type Network struct {
	Home       config.Home
	Genesis    *genesis.Verified
	Crowd      genesis.Crowd
	Population genesis.Population
	APIs       [][]string // http addresses, by shard and validator
	PIDs       []int      // in the order of Names, those that were absent last
	Names      []string   // s0v0, s0v1, ...
	DemoID     tx.ID      // account of DemoWallet, on shard 0
	FriendID   tx.ID      // an account on the last shard to send to

	opt      Options
	children *children
	broker   lastWords // what it last said of its work
}

func (o *Options) withDefaults() error {
	if o.Shards == 0 {
		o.Shards = 2
	}
	if o.Validators == 0 {
		o.Validators = 4
	}
	if o.Accounts == 0 {
		o.Accounts = 10_000
	}
	if o.APIPort == 0 {
		o.APIPort = config.DefaultAPIPort
	}
	if o.IntervalMs == 0 {
		o.IntervalMs = blockInterval
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	nodes := o.Shards * o.Validators
	switch {
	case o.Home == "":
		return errors.New("localnet: no home folder")
	case o.Hosts != nil && len(o.Hosts) != nodes:
		return fmt.Errorf("localnet: %d hosts for %d validators: name one for each", len(o.Hosts), nodes)
	case o.Powers != nil && len(o.Powers) != o.Validators:
		return fmt.Errorf("localnet: %d powers for %d validators: name one for each", len(o.Powers), o.Validators)
	case o.Shards < 1 || o.Shards > maxShards:
		return fmt.Errorf("localnet: %d shards: choose 1 to %d", o.Shards, maxShards)
	case o.Validators < 1 || o.Validators > maxValidators:
		return fmt.Errorf("localnet: %d validators in a shard: choose 1 to %d", o.Validators, maxValidators)
	case o.Accounts < 2 || o.Accounts > maxAccounts:
		return fmt.Errorf("localnet: %d accounts: choose 2 to %d", o.Accounts, maxAccounts)
	case o.APIPort < 1 || o.APIPort+portsApart+nodes > 65535:
		return fmt.Errorf("localnet: API port %d: choose 1 to %d, so that the other ports fit above", o.APIPort, 65535-portsApart-nodes)
	}
	if o.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("localnet: %w", err)
		}
		o.Binary = self
	}
	return nil
}

// Prepare makes the home if it is new, or opens the one that is there, and starts nothing. What was chosen when the home
// was made stays; other choices are refused with the remedy.
func Prepare(opt Options) (*Network, error) {
	if err := opt.withDefaults(); err != nil {
		return nil, err
	}
	n := &Network{Home: config.Home(opt.Home), opt: opt}
	if err := n.portsFree(); err != nil { // before anything is made or removed
		return nil, err
	}
	if err := n.prepare(); err != nil {
		return nil, err
	}
	return n, nil
}

// Start is Prepare, starts the processes and waits until every node is ready. After an error nothing runs.
func Start(ctx context.Context, opt Options) (_ *Network, err error) {
	n, err := Prepare(opt)
	if err != nil {
		return nil, err
	}
	opt = n.opt
	if n.children, err = newChildren(len(n.Names) + 1); err != nil {
		return nil, err
	}
	n.children.spawn = opt.Spawn
	defer func() {
		if err != nil {
			err = errors.Join(err, n.children.stop())
		}
	}()
	for _, name := range n.Names {
		if slices.Contains(opt.Absent, name) {
			continue
		}
		if err := n.launch(name); err != nil {
			return nil, err
		}
	}
	n.PIDs = n.pids()
	fmt.Fprintf(opt.Out, "started %d validators, waiting for them to agree\n", len(n.Names))
	if err := n.awaitReady(ctx); err != nil {
		return nil, err
	}
	if opt.Broker {
		if err := n.launchBroker(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close stops all processes and waits for them.
func (n *Network) Close() error { return n.children.stop() }

// Ended receives the name of a node whose process has ended, and how.
func (n *Network) ended(ctx context.Context) (name, why string, ok bool) {
	select {
	case c := <-n.children.ended:
		return c.name, c.why(), true
	case <-ctx.Done():
		return "", "", false
	}
}

func (n *Network) nodeHome(name string) string { return filepath.Join(string(n.Home), "nodes", name) }

// apiAddr is where the k-th node's API listens.
func (n *Network) apiAddr(k int) string {
	return net.JoinHostPort(n.host(k), strconv.Itoa(n.opt.APIPort+k))
}

func (n *Network) host(k int) string {
	if n.opt.Hosts == nil {
		return "127.0.0.1"
	}
	return n.opt.Hosts[k]
}

// portsFree says in one line which port is taken, before eight processes say it.
func (n *Network) portsFree() error {
	if n.opt.Hosts != nil {
		return nil // they may be of other machines
	}
	taken := func(port int, err error) error {
		return fmt.Errorf("port %d is taken by another program, perhaps another local network (%w): stop it, or choose other ports with --api-port and a new --home", port, err)
	}
	for k := range n.opt.Shards * n.opt.Validators {
		if port, err := takenPort(n.opt.APIPort + k); err != nil {
			return taken(port, err)
		}
	}
	if n.opt.Broker {
		if err := listens("udp", n.brokerPort()); err != nil {
			return taken(n.brokerPort(), err)
		}
	}
	return nil
}

// awaitReady waits until every node says that it is ready.
func (n *Network) awaitReady(ctx context.Context) error {
	timeout := readyTimeout + time.Duration(n.opt.Accounts)*time.Duration(n.opt.Validators)*readyEach
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not all nodes were ready within %s: see the logs in %s", timeout, filepath.Join(string(n.Home), "nodes")))
	defer cancel()
	shown := n.progress("waiting for the validators", uint64(len(n.Names)))
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for k, name := range n.Names {
		if slices.Contains(n.opt.Absent, name) {
			continue
		}
		url := "http://" + n.apiAddr(k) + "/readyz"
		for !answers(ctx, url) {
			select {
			case c := <-n.children.ended:
				return fmt.Errorf("%s ended: %s", c.name, c.why())
			case <-poll.C:
				shown.at(uint64(k))
			case <-ctx.Done():
				shown.end(ctx.Err())
				return context.Cause(ctx)
			}
		}
	}
	shown.end(nil)
	return nil
}

func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Close = true // nothing idle is left behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// prepare makes the home, or opens the one that is there.
func (n *Network) prepare() error {
	file := filepath.Join(string(n.Home), "network.json")
	if n.opt.Reset {
		if err := n.clear(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := n.create(file); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := n.accept(b, file); err != nil {
			return err
		}
	}
	return n.load()
}

// clear empties a home that holds a local network, whole or half-made, which does not run; any other is refused. The
// folder itself stays: it may be a link or a mount point.
func (n *Network) clear(file string) error {
	entries, err := os.ReadDir(string(n.Home))
	if err != nil || len(entries) == 0 {
		return err
	}
	if config.CheckFormat(string(n.Home), config.HomeFormat) != nil {
		return fmt.Errorf("%s holds other files than a local network's: choose an empty folder with --home, or empty it yourself", n.Home)
	}
	nodes, err := os.ReadDir(filepath.Join(string(n.Home), "nodes"))
	if err != nil && len(entries) > 1 { // FORMAT alone is one that had hardly begun
		return fmt.Errorf("%s is a node's home, not a local network: choose another folder with --home", n.Home)
	}
	for _, d := range nodes {
		release, err := config.Home(n.nodeHome(d.Name())).Lock()
		if err != nil {
			return fmt.Errorf("the local network in %s is running: stop it first (%w)", n.Home, err)
		}
		release()
	}
	// First what says that it is whole, last what says that it is a local network's.
	names, last := []string{filepath.Base(file)}, []string{"nodes", "FORMAT"}
	for _, e := range entries {
		if !slices.Contains(last, e.Name()) {
			names = append(names, e.Name())
		}
	}
	for _, name := range append(names, last...) {
		if err := os.RemoveAll(filepath.Join(string(n.Home), name)); err != nil {
			return err
		}
	}
	return nil
}

// accept checks the choices of an existing home against the wanted ones.
func (n *Network) accept(b []byte, file string) error {
	var c choices
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%s cannot be read (%w): start anew with --reset", file, err)
	}
	if c.Format != choicesFormat {
		return fmt.Errorf("%s has format %d, this build knows %d: use the tutti that made it, or start anew with --reset", file, c.Format, choicesFormat)
	}
	if want := n.choices(); c != want {
		return fmt.Errorf("%s holds a network of %d shards, %d validators each, %d accounts, API port %d, epochs of %d blocks, committees of %d, %s broker: give the same, or start anew with --reset",
			n.Home, c.Shards, c.Validators, c.Accounts, c.APIPort, c.EpochBlocks, c.CommitteeSize, map[bool]string{true: "with a", false: "without a"}[c.Broker])
	}
	return nil
}

func (n *Network) choices() choices {
	return choices{choicesFormat, n.opt.Shards, n.opt.Validators, n.opt.Accounts, n.opt.APIPort, n.opt.EpochBlocks, n.opt.CommitteeSize, n.opt.TestCrowd, n.opt.Broker}
}

// load reads what prepare made or found.
func (n *Network) load() error {
	if n.Genesis == nil { // not made just now
		v, err := genesis.Open(n.Home.Genesis())
		if err != nil {
			return err
		}
		n.Genesis = v
	}
	seed, err := readSeed(n.seedFile())
	if err != nil {
		return err
	}
	n.Crowd = genesis.Crowd{Seed: seed, Count: n.opt.Accounts, Balance: crowdBalance}
	n.Population = genesis.Population{Table: n.Genesis.Table, Crowd: n.Crowd, BLS: n.opt.TestCrowd, Named: make([][]genesis.Account, n.opt.Shards)}
	n.DemoID = n.Population.NamedID(0, 0)
	n.FriendID = n.Population.NamedID(consensus.ShardID(n.opt.Shards-1), friendAt(n.opt.Shards))
	n.Names, n.APIs = nil, nil
	for s := range n.opt.Shards {
		var urls []string
		for i := range n.opt.Validators {
			urls = append(urls, "http://"+n.apiAddr(len(n.Names)))
			n.Names = append(n.Names, NodeName(s, i))
		}
		n.APIs = append(n.APIs, urls)
	}
	return nil
}

// NodeName is how the processes and folders of the network name a validator of a shard, both from 0.
func NodeName(shard, validator int) string { return fmt.Sprintf("s%dv%d", shard, validator) }

// writeChoices is the last step of making a home.
func (n *Network) writeChoices(file string) error {
	b, err := json.MarshalIndent(n.choices(), "", "  ")
	if err != nil {
		return err
	}
	return host.CreateFile(file, append(b, '\n'), 0o644)
}
