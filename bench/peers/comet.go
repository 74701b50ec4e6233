package peers

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/BurntSushi/toml"

	"tutti/appliance/localnet"
	"tutti/bench/child"
)

// Versions of CometBFT that are measured: the newest of each line at the time of writing.
var CometVersions = []string{"v1.0.1", "v0.38.17"}

// cometPackage is the program of all versions.
const cometPackage = "github.com/cometbft/cometbft/cmd/cometbft"

// comet is a version of CometBFT, as a program of its own: nothing of it is in this one.
type comet struct {
	version string
	dir     string // where the program is installed
	go_     string // the Go command
}

// Comet is CometBFT at a version, installed under dir by `go install`, which needs the goCommand and a module proxy.
func Comet(version, dir, goCommand string) Adapter {
	return &comet{version, filepath.Join(dir, "cometbft-"+version), goCommand}
}

func (c *comet) Name() string { return "CometBFT " + c.version }

func (c *comet) Conditions() string {
	return "tuned; unsigned key-value transactions, application in memory, client believes one node"
}

func (c *comet) binary() string { return filepath.Join(c.dir, "cometbft") }

// installed reports whether the program is there in this version.
func (c *comet) installed() bool {
	info, err := buildinfo.ReadFile(c.binary())
	return err == nil && info.Path == cometPackage && info.Main.Version == c.version
}

// Install installs the program, if it is not there.
func (c *comet) Install(ctx context.Context, out io.Writer) error {
	if c.installed() {
		say(out, "%s is in %s", c.Name(), c.dir)
		return nil
	}
	dir, err := filepath.Abs(c.dir)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	say(out, "installing %s@%s into %s", cometPackage, c.version, c.dir)
	cmd := exec.CommandContext(ctx, c.go_, "install", cometPackage+"@"+c.version)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("peers: installing %s: %w; it needs a module proxy (GOPROXY): %s", c.Name(), err, end(said))
	}
	if !c.installed() {
		return fmt.Errorf("peers: go install left no %s in %s", c.Name(), c.binary())
	}
	return nil
}

// saidBytes is how much of what a program said goes into an error.
const saidBytes = 600

// end is the end of what a program said, on one line.
func end(said []byte) string {
	said = said[max(0, len(said)-saidBytes):]
	return string(bytes.Join(bytes.Fields(said), []byte(" ")))
}

// setting is a line of a node's config.toml.
type setting struct {
	table, key string // the table is empty at the top
	value      any
}

// tuned is what makes CometBFT fast on one machine. Every key has to be there already: a version that has renamed one would
// run untuned else.
var tuned = []setting{
	{"", "log_level", "error"},
	{"rpc", "max_request_batch_size", int64(1000)},
	{"p2p", "flush_throttle_timeout", "1ms"},
	{"p2p", "send_rate", int64(512_000_000)},
	{"p2p", "recv_rate", int64(512_000_000)},
	{"mempool", "size", int64(200_000)},
	{"mempool", "cache_size", int64(400_000)},
	{"mempool", "recheck", false},
	{"consensus", "timeout_commit", "0s"},
	{"consensus", "skip_timeout_commit", true},
	{"consensus", "peer_gossip_sleep_duration", "10ms"},
	{"tx_index", "indexer", "null"},
}

// configure changes settings of a config.toml.
func configure(path string, settings []setting) error {
	config := map[string]any{}
	if _, err := toml.DecodeFile(path, &config); err != nil {
		return fmt.Errorf("peers: %s: %w", path, err)
	}
	for _, s := range settings {
		table := config
		if s.table != "" {
			table, _ = config[s.table].(map[string]any)
		}
		old, there := table[s.key]
		if !there || fmt.Sprintf("%T", old) != fmt.Sprintf("%T", s.value) {
			return fmt.Errorf("peers: %s has no %T %s in [%s]: this version is configured in another way", path, s.value, s.key, s.table)
		}
		table[s.key] = s.value
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(config); err != nil {
		return fmt.Errorf("peers: %s: %w", path, err)
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// addresses are the settings of where node i listens and finds the others. peers is what `cometbft testnet` wrote, id@host:port
// for each node; ports begins with the first node's, two for each.
func addresses(peers string, i, port int) ([]setting, error) {
	listen := func(k, which int) string { return "127.0.0.1:" + strconv.Itoa(port+2*k+which) }
	all := strings.Split(peers, ",")
	for k, p := range all {
		id, _, ok := strings.Cut(p, "@")
		if !ok {
			return nil, fmt.Errorf("peers: persistent peer %q has no id", p)
		}
		all[k] = id + "@" + listen(k, 0)
	}
	return []setting{
		{"p2p", "laddr", "tcp://" + listen(i, 0)},
		{"p2p", "persistent_peers", strings.Join(all, ",")},
		{"rpc", "laddr", "tcp://" + listen(i, 1)},
	}, nil
}

// Start makes the nodes' files, starts them and waits until each has a block.
func (c *comet) Start(ctx context.Context, dir string, validators int) (_ Network, err error) {
	made := exec.CommandContext(ctx, c.binary(), "testnet", "--v", strconv.Itoa(validators), "--o", dir, "--starting-ip-address", "127.0.0.1")
	if said, err := made.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("peers: %s testnet: %w: %s", c.Name(), err, end(said))
	}
	port, err := localnet.FreePorts(2 * validators)
	if err != nil {
		return nil, err
	}
	n := &cometNetwork{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for i := range validators {
		if err := n.startNode(c.binary(), filepath.Join(dir, "node"+strconv.Itoa(i)), i, port); err != nil {
			return nil, err
		}
	}
	for i := range n.nodes {
		if err := n.awaitBlock(ctx, i); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// cometNetwork is a network that runs.
type cometNetwork struct {
	nodes []*child.Process
	logs  []string
	rpcs  []*rpc
}

func (n *cometNetwork) startNode(binary, home string, i, port int) error {
	path := filepath.Join(home, "config", "config.toml")
	var has struct {
		P2P struct {
			Peers string `toml:"persistent_peers"`
		} `toml:"p2p"`
	}
	if _, err := toml.DecodeFile(path, &has); err != nil {
		return fmt.Errorf("peers: %s: %w", path, err)
	}
	where, err := addresses(has.P2P.Peers, i, port)
	if err != nil {
		return err
	}
	if err := configure(path, append(where, tuned...)); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(binary, "start", "--home", home, "--proxy_app", "kvstore")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := child.Start(cmd, 0)
	if err != nil {
		return err
	}
	n.nodes, n.logs = append(n.nodes, p), append(n.logs, log.Name())
	n.rpcs = append(n.rpcs, newRPC("127.0.0.1:"+strconv.Itoa(port+2*i+1)))
	return nil
}

const (
	askEvery  = 50 * time.Millisecond
	stopGrace = 5 * time.Second
)

// awaitBlock waits until a node has a block.
func (n *cometNetwork) awaitBlock(ctx context.Context, i int) error {
	for {
		if height, err := n.rpcs[i].height(ctx); err == nil && height > 0 {
			return nil
		}
		select {
		case <-n.nodes[i].Done():
			log, _ := os.ReadFile(n.logs[i]) // what there is of it
			return fmt.Errorf("peers: node %d ended (%v): %s", i, n.nodes[i].Err(), end(log))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(askEvery):
		}
	}
}

// keyDigits are the hexadecimal digits of a transaction's number, which are its key.
const keyDigits = 16

// Transaction is "key=value" for the key-value application, the value of hexadecimal digits that do not repeat.
func (n *cometNetwork) Transaction(number uint64, size int) []byte {
	b := fmt.Appendf(make([]byte, 0, size+keyDigits), "%0*x=", keyDigits, number)
	for x := number; len(b) <= keyDigits+1 || len(b) < size; {
		x = x*6364136223846793005 + 1442695040888963407 // Knuth's constants: any noise would do
		b = fmt.Appendf(b, "%016x", x)
	}
	return b[:max(size, keyDigits+2)]
}

func (n *cometNetwork) Number(tx []byte) (uint64, bool) {
	if len(tx) <= keyDigits || tx[keyDigits] != '=' {
		return 0, false
	}
	number, err := strconv.ParseUint(string(tx[:keyDigits]), 16, 64)
	return number, err == nil
}

func (n *cometNetwork) Submit(ctx context.Context, node int, txs [][]byte) error {
	return n.rpcs[node].broadcast(ctx, txs)
}

func (n *cometNetwork) Follow(ctx context.Context, block func(txs [][]byte)) error {
	return n.rpcs[0].follow(ctx, block)
}

func (n *cometNetwork) Processes() (pids []int) {
	for _, p := range n.nodes {
		pids = append(pids, p.PID())
	}
	return pids
}

func (n *cometNetwork) Close() error {
	var group sync.WaitGroup
	for _, p := range n.nodes {
		group.Go(func() { p.Stop(stopGrace) })
	}
	group.Wait()
	for _, r := range n.rpcs {
		r.close()
	}
	return nil
}
