package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tutti/appliance/api"
	"tutti/appliance/config"
	"tutti/appliance/keys"
	"tutti/appliance/localnet"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/state/tx"
)

func (n *network) home(name string) config.Home {
	return config.Home(filepath.Join(string(n.Home), "nodes", name))
}

// ready reports whether a node is ready. Its API goes away for a moment when it has copied its data.
func (n *network) ready(name string) bool {
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, n.nodes[name].url+"/readyz", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// load pays from one member of the crowd to another of either shard, again and again, until stop is called.
func (n *network) load(from uint64, to ...int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			s := n.sign(from, tx.Tx{Kind: tx.Transfer, To: n.member(to[i%len(to)]), Amount: 1})
			for ctx.Err() == nil && n.client.Submit(ctx, []tx.Signed{s})[0] != nil {
			}
			if i%16 == 15 {
				_, _, _ = n.client.Await(ctx, &s)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// signs waits until a final block that another node has is signed by a validator, above a height.
func (n *network) signs(name, witness string, seat int, above consensus.Height) {
	n.t.Helper()
	n.until(name+" signs", func() bool {
		got, status := get[api.Block](n, witness, "/v1/blocks/latest")
		if status != http.StatusOK || got.FinalisedBy <= above {
			return false
		}
		for _, i := range got.Signers {
			if i == seat {
				return true
			}
		}
		return false
	})
}

// agrees waits until two nodes of a shard show the same state root for the same height, above another.
func (n *network) agrees(a, b string, above consensus.Height) {
	n.t.Helper()
	roots := map[consensus.Height][32]byte{}
	n.until(a+" and "+b+" agree", func() bool {
		x, answered := get[api.Status](n, a, "/v1/status")
		y, also := get[api.Status](n, b, "/v1/status")
		if answered != http.StatusOK || also != http.StatusOK {
			return false
		}
		if !x.Supply.Conserved() || !y.Supply.Conserved() {
			n.t.Fatalf("supply: %+v, %+v", x.Supply, y.Supply)
		}
		roots[x.StateHeight] = x.StateRoot
		root, known := roots[y.StateHeight]
		if known && root != y.StateRoot {
			n.t.Fatalf("after block %d the state root is %x for %s, %x for %s", y.StateHeight, root, a, y.StateRoot, b)
		}
		return known && y.StateHeight > above
	})
}

// loseData: a validator of a running network loses its data folder, copies it from the others, and votes again.
func (n *network) loseData(t *testing.T) {
	const name, other = "s0v3", "s0v1"
	stop := n.load(0, 1, 2)
	defer stop()
	old, _ := get[api.Status](n, name, "/v1/status")
	n.stop(name)
	if err := os.RemoveAll(n.home(name).Data()); err != nil {
		t.Fatal(err)
	}
	if err := n.fails(name); err == nil || !strings.Contains(err.Error(), "tutti run --sync") {
		t.Errorf("a start without data: %v", err)
	}
	// It is stopped again and again on its way; any command goes on with it then.
	for range 3 {
		n.begin(name, node.Sync)
		n.stop(name)
	}
	n.start(name)
	n.until("it is there again", func() bool { return n.ready(name) })
	if _, err := os.Lstat(n.home(name).SyncMark()); err == nil {
		t.Error("the mark of a sync is still there")
	}
	n.signs(name, other, 3, old.FinalHeight)
	n.agrees(other, name, old.FinalHeight)
	// What it does not know it does not make up.
	if got, _ := get[api.Answer](n, name, "/v1/blocks/1"); got.Error.Code != api.Pruned {
		t.Errorf("block 1 of a node that began later: %+v", got)
	}
	// With the data there, the same command starts it as ever.
	n.stop(name)
	n.begin(name, node.Sync)
	n.until("it is ready", func() bool { return n.ready(name) })
	stop()
}

// TestSyncAlone: a validator that is to copy its data and reaches nobody says so to everyone who asks, and its data is never
// taken for whole.
func TestSyncAlone(t *testing.T) {
	ports, err := localnet.FreePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	net, err := localnet.Prepare(localnet.Options{Home: filepath.Join(t.TempDir(), "net"), Shards: 1, Accounts: 16, APIPort: ports})
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Network: net, t: t, nodes: map[string]*running{}}
	const name = "s0v0"
	if err := os.RemoveAll(n.home(name).Data()); err != nil {
		t.Fatal(err)
	}
	n.begin(name, node.Sync)
	status, _ := get[api.Status](n, name, "/v1/status")
	if !status.Syncing || status.Sync == nil || status.Sync.Step == "" || status.Sync.LeftS != nil || status.Sync.TotalBytes != 0 || status.Shards != 1 {
		t.Errorf("status %+v, %+v", status, status.Sync)
	}
	for _, path := range []string{
		"/v1/network", "/v1/accounts/" + n.member(0).String(), "/v1/transactions/" + strings.Repeat("0", 64),
		"/v1/blocks/latest", "/v1/finality", "/readyz",
	} {
		got, code := get[api.Answer](n, name, path)
		if code != http.StatusServiceUnavailable || got.Error.Code != api.NotReady || !strings.Contains(got.Error.Detail, "syncing") {
			t.Errorf("%s: %d %+v", path, code, got)
		}
	}
	for _, path := range []string{"/healthz", "/v1/params", "/v1/genesis", "/openapi.yaml", "/"} {
		if _, code := n.raw(name, path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	n.stop(name)
	if err := config.CheckFormat(n.home(name).Data(), config.DataFormat); err == nil {
		t.Error("data that was never copied has the mark of whole data")
	}
	n.start(name) // goes on
	if status, _ = get[api.Status](n, name, "/v1/status"); status.Sync == nil {
		t.Error("a plain start does not go on with the copy")
	}
	n.stop(name)
	// A copy that is damaged is of no value: it is removed with a word, and the next start begins anew.
	manifests, err := filepath.Glob(filepath.Join(n.home(name).State(), "db", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal("the copy has no database", err)
	}
	for _, path := range manifests {
		if err := os.WriteFile(path, bytes.Repeat([]byte("not what was written "), 100), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.fails(name); err == nil || !strings.Contains(err.Error(), "start again to copy it anew") {
		t.Errorf("a damaged copy: %v", err)
	}
	if _, err := os.Lstat(n.home(name).State()); err == nil {
		t.Error("the damaged copy is still there")
	}
	n.start(name)
	if status, _ = get[api.Status](n, name, "/v1/status"); status.Sync == nil {
		t.Error("it does not begin anew")
	}
	n.stop(name)
}

// damageData: a node whose state is damaged says which command repairs it, and that command does, with the votes kept.
func (n *network) damageData(t *testing.T) {
	const name, other = "s0v2", "s0v1"
	stop := n.load(4, 1, 6)
	defer stop()
	old, _ := get[api.Status](n, name, "/v1/status")
	n.stop(name)
	n.start(name) // what was in a log only is in tables now
	n.stop(name)
	damage(t, filepath.Join(n.home(name).State(), "db"))
	if err := n.fails(name); err == nil || !strings.Contains(err.Error(), "--resync") {
		t.Fatalf("a start with damaged data: %v", err)
	}
	n.begin(name, node.Resync)
	n.until("it is there again", func() bool { return n.ready(name) })
	n.signs(name, other, 2, old.FinalHeight)
	n.agrees(other, name, old.FinalHeight)
	if _, err := os.Lstat(n.home(name).State() + ".damaged-1"); err != nil {
		t.Errorf("the damaged state: %v", err)
	}
	if _, err := os.Lstat(n.home(name).Blocks() + ".damaged-1"); err == nil {
		t.Error("the consensus log was intact and has been moved aside")
	}
	if _, status := n.raw(name, "/v1/blocks/1/raw"); status != http.StatusGone {
		t.Errorf("block 1, whose credits and openings it does not know: HTTP status %d", status)
	}
}

// damage changes every block of every table of a store. Logs are left alone: one that is changed at its end can't be told from
// one that a crash has cut, and then the state is made again from the block log, with no need of others.
func damage(t *testing.T, dir string) {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables in %s: %v", dir, err)
	}
	for _, path := range tables {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(b); i += 256 {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// homeOfProcess is the environment variable that makes this program a node's process.
const homeOfProcess = "TUTTI_TEST_NODE_HOME"

// runProcess runs a node with the data as it is until its standard input ends, and ends the process. What ended the node is
// on standard error.
func runProcess(home config.Home) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	cfg, err := config.Load(home.Config())
	if err == nil {
		var password keys.Password
		if password, err = keys.ReadPasswordFile(home.KeyPassword()); err == nil {
			err = node.Run(ctx, node.Options{Home: home, Config: cfg, Password: password, Log: slog.New(slog.DiscardHandler)})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fails runs a node in a process of its own, as a store that has failed keeps its folder locked until the process ends. It
// is expected to end by itself with an error, which is returned; nil: it did not.
func (n *network) fails(name string) error {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	var said bytes.Buffer
	c := exec.CommandContext(ctx, self)
	c.Env = append(os.Environ(), homeOfProcess+"="+string(n.home(name)))
	c.Stderr = &said
	in, err := c.StdinPipe() // open until it has ended, or this process has
	if err != nil {
		n.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	err = c.Wait()
	_ = in.Close()
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return errors.New(said.String())
}

// TestRootAtGenesis: a node that has seen no final block shows the state root at genesis, which block 1 carries, so that who
// compares nodes by height finds them alike.
func TestRootAtGenesis(t *testing.T) {
	n := prepared(t, localnet.Options{Shards: 1, Validators: 4, IntervalMs: 50})
	n.start("s0v0")
	early, _ := get[api.Status](n, "s0v0", "/v1/status")
	n.start("s0v1", "s0v2", "s0v3")
	var block api.Block
	n.until("block 1 is final", func() (ok bool) {
		var status int
		block, status = get[api.Block](n, "s0v0", "/v1/blocks/1")
		return status == http.StatusOK
	})
	if early.FinalHeight != 0 || early.StateHeight != 0 || block.StateHeight != 0 || early.StateRoot != block.StateRoot {
		t.Errorf("alone it showed root %s of block %d, final height %d; block 1 has %s", early.StateRoot, early.StateHeight, early.FinalHeight, block.StateRoot)
	}
	n.stop(n.Names...)
}

// TestStatesLost: two of four validators lose their states at once, and keep their votes. The shard stands still until they have
// copied the state from the other two, for whom it stands as well.
func TestStatesLost(t *testing.T) {
	n := startOf(t, localnet.Options{Shards: 1, Validators: 4, IntervalMs: 50})
	n.client = n.newClient(n.Names...)
	defer n.client.Close()
	first := n.sign(2, tx.Tx{Kind: tx.Transfer, To: n.member(1), Amount: 7})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.client.Submit(ctx, []tx.Signed{first})[0]; err != nil {
		t.Fatal(err)
	}
	if p, _, err := n.client.Await(ctx, &first); err != nil || !p.Success {
		t.Fatalf("%+v, %v", p, err)
	}
	lost := []string{"s0v2", "s0v3"}
	n.agrees("s0v0", "s0v2", 2)
	n.stop(lost...)
	for _, name := range lost {
		if err := os.RemoveAll(n.home(name).State()); err != nil {
			t.Fatal(err)
		}
	}
	stood, _ := get[api.Status](n, "s0v0", "/v1/status")
	for _, name := range lost {
		n.begin(name, node.Resync)
	}
	for i, name := range lost {
		n.until(name+" is there again", func() bool { return n.ready(name) })
		n.signs(name, "s0v0", 2+i, stood.FinalHeight)
		n.agrees("s0v0", name, stood.FinalHeight)
	}
	n.stop(n.Names...)
}
