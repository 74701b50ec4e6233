package localnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/node"
	"tutti/consensus"
)

// small is a network of one validator with ports that are free now.
func small(t *testing.T) Options {
	t.Helper()
	port, err := FreePorts(2) // the second is for a broker
	if err != nil {
		t.Fatal(err)
	}
	return Options{Home: filepath.Join(t.TempDir(), "net"), Shards: 1, Validators: 1, Accounts: 3, APIPort: port, Binary: os.Args[0]}
}

func prepared(t *testing.T, o Options) *Network {
	t.Helper()
	n, err := Prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func refused(t *testing.T, o Options, want ...string) {
	t.Helper()
	_, err := Prepare(o)
	if err == nil {
		t.Fatal("not refused")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("refused with %q, which does not say %q", err, w)
		}
	}
}

func TestOptions(t *testing.T) {
	var d Options
	d.Home = "x"
	if err := d.withDefaults(); err != nil || d.Shards != 2 || d.Validators != 4 || d.Accounts != 10_000 || d.APIPort != config.DefaultAPIPort || d.Out == nil || d.Binary == "" {
		t.Errorf("defaults %+v: %v", d, err)
	}
	for name, o := range map[string]Options{
		"no home":         {},
		"shards":          {Home: "x", Shards: maxShards + 1},
		"no shards":       {Home: "x", Shards: -1},
		"validators":      {Home: "x", Validators: maxValidators + 1},
		"one account":     {Home: "x", Accounts: 1},
		"accounts":        {Home: "x", Accounts: maxAccounts + 1},
		"port":            {Home: "x", APIPort: -1},
		"ports that meet": {Home: "x", APIPort: 65535 - portsApart},
		"hosts":           {Home: "x", Hosts: []string{"192.0.2.1"}},
		"powers":          {Home: "x", Powers: []uint64{1}},
	} {
		if err := o.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		} else if o.Home != "" && !strings.Contains(err.Error(), "choose") && !strings.Contains(err.Error(), "name one for each") {
			t.Errorf("%s: %v: says not what to do", name, err)
		}
	}
}

func TestPrepare(t *testing.T) {
	o := small(t)
	o.Shards, o.Validators = 2, 2
	o.Config = func(c *config.Config) { c.Pool.MaxPerAccount = 7 }
	n := prepared(t, o)
	if got := strings.Join(n.Names, " "); got != "s0v0 s0v1 s1v0 s1v1" {
		t.Errorf("names %s", got)
	}
	urls, err := n.Home.Endpoints()
	if err != nil || len(urls) != 4 || urls[2] != n.APIs[1][0] || urls[2] != "http://127.0.0.1:"+strconv.Itoa(o.APIPort+2) {
		t.Errorf("endpoints %v, APIs %v: %v", urls, n.APIs, err)
	}
	for k, name := range n.Names {
		home := config.Home(n.nodeHome(name))
		c, err := config.Load(home.Config())
		if err != nil {
			t.Fatal(err)
		}
		if c.API.Listen != n.apiAddr(k) || len(c.Peers) != 3 || c.Pool.MaxPerAccount != 7 || c.API.TotalRequestsPerSecond < c.API.RequestsPerSecond {
			t.Errorf("%s: %+v", name, c)
		}
		key, err := keys.LoadType(home.NodeKey(), keys.Node)
		if err != nil {
			t.Fatal(err)
		}
		if shard, index, ok := node.Seat(n.Genesis, [32]byte(key.Public())); !ok || int(shard) != k/2 || index != k%2 {
			t.Errorf("%s has seat %d of shard %d (%t)", name, index, shard, ok)
		}
	}
	password, err := keys.ReadPasswordFile(n.Home.WalletPassword())
	if err != nil {
		t.Fatal(err)
	}
	store := keys.Store{Dir: n.Home.Wallets()}
	for name, want := range map[string]struct {
		id      any
		shard   uint16
		balance uint64
	}{DemoWallet: {n.DemoID, 0, demoBalance}, FriendWallet: {n.FriendID, 1, 0}} {
		e, err := store.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		a, ok := e.Account([32]byte(n.Genesis.Hash()))
		if !ok || a.ID != want.id || a.Shard != want.shard {
			t.Errorf("wallet %s: %+v", name, a)
		}
		k, err := store.Keystore(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Open(password); err != nil {
			t.Errorf("wallet %s: %v", name, err)
		}
		found := false
		if err := n.Genesis.AccountsOf(consensus.ShardID(want.shard), func(g genesis.Account) bool {
			found = found || g.ID == a.ID && g.Key == e.Key && g.Balance == want.balance
			return true
		}); err != nil || !found {
			t.Errorf("the genesis does not have %s's account: %v", name, err)
		}
	}

	again := prepared(t, o)
	if again.Genesis.Hash() != n.Genesis.Hash() || again.Crowd != n.Crowd || again.DemoID != n.DemoID || again.FriendID != n.FriendID {
		t.Error("the second start made another network")
	}
	for name, change := range map[string]func(*Options){
		"shards":     func(o *Options) { o.Shards = 1 },
		"validators": func(o *Options) { o.Validators = 1 },
		"accounts":   func(o *Options) { o.Accounts++ },
		"port":       func(o *Options) { o.APIPort += 10 },
	} {
		other := o
		change(&other)
		t.Run("another number of "+name, func(t *testing.T) {
			refused(t, other, "2 shards, 2 validators each, 3 accounts", "--reset")
		})
	}
}

// TestHosts: validators of different hosts and powers.
func TestHosts(t *testing.T) {
	o := small(t)
	o.Shards, o.Validators = 2, 2
	o.Hosts, o.Powers = []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, []uint64{3, 5}
	n := prepared(t, o)
	for k, name := range n.Names {
		c, err := config.Load(config.Home(n.nodeHome(name)).Config())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(c.Network.Listen[0], o.Hosts[k]) || !strings.HasPrefix(c.API.Listen, o.Hosts[k]) || n.URL(name) != "http://"+c.API.Listen {
			t.Errorf("%s of host %s listens at %v and %s, its API is said to be at %s", name, o.Hosts[k], c.Network.Listen, c.API.Listen, n.URL(name))
		}
		if last := c.Peers[len(c.Peers)-1].Addrs[0]; k < 3 && !strings.Contains(last, o.Hosts[3]) {
			t.Errorf("%s looks for %s at %s", name, n.Names[3], last)
		}
		if v := n.Genesis.Shards[k/2].Validators[k%2]; uint64(v.Power) != o.Powers[k%2] {
			t.Errorf("%s has power %d", name, v.Power)
		}
	}
}

func TestFriendBesideDemo(t *testing.T) {
	n := prepared(t, small(t))
	if n.DemoID == n.FriendID {
		t.Error("one account for two wallets")
	}
	if n.Genesis.Counts[0] != 5 {
		t.Errorf("%d accounts, want 3 of the crowd and 2", n.Genesis.Counts[0])
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestForeignFoldersStay: what is not a local network is refused, with and without --reset, and nothing in it is touched.
func TestForeignFoldersStay(t *testing.T) {
	for name, c := range map[string]struct{ files, want []string }{
		"photographs":       {[]string{"cat.jpg"}, []string{"other files"}},
		"a node's home":     {[]string{"FORMAT", "config.toml", "keys/voting.json", "data/FORMAT"}, []string{"node's home"}},
		"a person's wallet": {[]string{"FORMAT", "wallets/savings.json"}, []string{"--home"}},
		"another format":    {[]string{"FORMAT=tutti-home/99", "nodes/x"}, []string{"other files"}},
		"files named alike": {[]string{"nodes/s0v0/data/x", "crowd.seed"}, []string{"other files"}},
	} {
		for _, reset := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				o := small(t)
				o.Reset = reset
				for _, f := range c.files {
					f, text, ok := strings.Cut(f, "=")
					if !ok && f == "FORMAT" {
						text = config.HomeFormat
					}
					write(t, filepath.Join(o.Home, f), text)
				}
				refused(t, o, c.want...)
				for _, f := range c.files {
					f, _, _ := strings.Cut(f, "=")
					if !exists(filepath.Join(o.Home, f)) {
						t.Errorf("%s has gone", f)
					}
				}
				if exists(filepath.Join(o.Home, "network.json")) {
					t.Error("a network was made beside")
				}
			})
		}
	}
}

func TestHalfMadeHomeIsMadeAnew(t *testing.T) {
	for name, files := range map[string][]string{
		"begun":          {"FORMAT"},
		"without nodes":  {"FORMAT", "nodes/"},
		"nearly all":     {"FORMAT", "nodes/s0v0/FORMAT", "nodes/s0v0/keys/voting.json", "genesis.json", "accounts.bin", "crowd.seed", "wallets/demo.json"},
		"an empty one":   {"./"},
		"half taken off": {"FORMAT", "nodes/s0v0/FORMAT"},
	} {
		t.Run(name, func(t *testing.T) {
			o := small(t)
			for _, f := range files {
				if strings.HasSuffix(f, "/") {
					if err := os.MkdirAll(filepath.Join(o.Home, f), 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				write(t, filepath.Join(o.Home, f), config.HomeFormat)
			}
			n := prepared(t, o)
			if _, err := config.Load(config.Home(n.nodeHome("s0v0")).Config()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReset(t *testing.T) {
	o := small(t)
	real := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, o.Home); err != nil {
		t.Fatal(err)
	}
	before := prepared(t, o)
	write(t, filepath.Join(o.Home, "receipts", "old.json"), "{}")
	o.Reset = true

	release, err := config.Home(before.nodeHome("s0v0")).Lock()
	if err != nil {
		t.Fatal(err)
	}
	refused(t, o, "is running", "stop it first")
	release()
	if prepared(t, Options{Home: o.Home, Shards: 1, Validators: 1, Accounts: 3, APIPort: o.APIPort}).Genesis.Hash() != before.Genesis.Hash() {
		t.Fatal("the refused reset has changed the network")
	}

	o.Accounts = 4 // other choices are fine now
	after := prepared(t, o)
	if after.Genesis.Hash() == before.Genesis.Hash() || after.Crowd.Seed == before.Crowd.Seed {
		t.Error("the old network is still there")
	}
	if exists(filepath.Join(o.Home, "receipts")) || !exists(filepath.Join(real, "network.json")) {
		t.Error("the reset left old files, or replaced the link to another disk")
	}
	o.Home = filepath.Join(t.TempDir(), "fresh")
	prepared(t, o) // nothing to remove
}

func TestBusyPort(t *testing.T) {
	o := small(t)
	o.Broker = true
	for name, listen := range map[string]func() (io.Closer, error){
		"API":            func() (io.Closer, error) { return net.Listen("tcp", addr(o.APIPort)) },
		"node, over TCP": func() (io.Closer, error) { return net.Listen("tcp", addr(o.APIPort+portsApart)) },
		"node, over UDP": func() (io.Closer, error) { return net.ListenPacket("udp", addr(o.APIPort+portsApart)) },
		"broker":         func() (io.Closer, error) { return net.ListenPacket("udp", addr(o.APIPort+portsApart+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := listen()
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			refused(t, o, "is taken by another program", "--api-port")
			if exists(o.Home) {
				t.Error("a home was made all the same")
			}
		})
	}
	prepared(t, o)
	l, err := net.Listen("tcp", addr(o.APIPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o.Reset = true
	refused(t, o, "is taken")
	if !exists(filepath.Join(o.Home, "network.json")) {
		t.Error("the refused start has removed the network")
	}
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func TestBrokenHome(t *testing.T) {
	o := small(t)
	n := prepared(t, o)
	file := filepath.Join(o.Home, "network.json")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"no JSON": "network", "a newer format": strings.Replace(string(good), `"format": 1`, `"format": 2`, 1)} {
		t.Run(name, func(t *testing.T) {
			write(t, file, text)
			refused(t, o, "--reset")
		})
	}
	write(t, file, string(good))
	var c choices
	if err := json.Unmarshal(good, &c); err != nil || c != n.choices() {
		t.Errorf("network.json says %+v: %v", c, err)
	}
	for name, text := range map[string]string{"short": "abcd", "no hexadecimal": strings.Repeat("x", 64)} {
		t.Run("a seed that is "+name, func(t *testing.T) {
			write(t, n.seedFile(), text)
			refused(t, o, "--reset")
		})
	}
	if err := os.Remove(n.seedFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no seed: %v", err)
	}
}

func TestStartSaysWhyANodeEnded(t *testing.T) {
	o := small(t) // whose program fails at once
	var out strings.Builder
	o.Out = &out
	n, err := Start(t.Context(), o)
	if n != nil || err == nil || !strings.Contains(err.Error(), "s0v0 ended: exit status 1: tutti: the disk is full: free some space") {
		t.Errorf("started %v: %v", n, err)
	}
	if got := out.String(); !strings.Contains(got, "making keys and genesis for 1 shards") || !strings.Contains(got, "started 1 validators") {
		t.Errorf("said %q", got)
	}
}

// TestFreePorts: the ports are free, in a row, and a taken one is left out.
func TestFreePorts(t *testing.T) {
	first, err := FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+1+portsApart))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	second, err := FreePorts(3)
	if err != nil || second <= first+1 && second+2 >= first+1 {
		t.Errorf("ports from %d on, though %d is taken: %v", second, first+1+portsApart, err)
	}
	if _, err := FreePorts(lastPort); err == nil {
		t.Error("more ports than there are")
	}
}
