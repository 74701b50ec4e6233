package localnet

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/keys"
	"tutti/appliance/node"
	"tutti/consensus"
	"tutti/state/ledger"
)

// What a demo network is made with. Money is in units.
const (
	crowdBalance   = 1_000_000_000
	demoBalance    = 1_000_000_000
	blockInterval  = 200 // milliseconds
	heartbeat      = 1000
	maxBodyBytes   = 2 << 20
	batchBlockTxs  = 48_000 // of a network with a test crowd, which is for distilled batches
	maxBlockTxs    = 10_000 // at 5 blocks a second well above what this machine executes, so that overload waits in the pool and not in long blocks
	receiptWindow  = 16_384
	accountLimit   = 50_000_000
	openingsABlock = 1024
	openDeposit    = 1000
)

// logFile is each node's log, relative to its home.
const logFile = "log/node.log"

// friendAt is the place of the friend's account among the named ones of the last shard: behind the demo wallet's where
// they share a shard.
func friendAt(shards int) int {
	if shards == 1 {
		return 1
	}
	return 0
}

// seat is a validator that is being made.
type seat struct {
	name         string
	shard        int
	voting, node *keys.Secret
}

// create makes a new local network in an empty home.
func (n *Network) create(file string) (err error) {
	if err := n.clear(file); err != nil && !errors.Is(err, fs.ErrNotExist) { // left half-made by an interrupted start
		return err
	}
	fmt.Fprintf(n.opt.Out, "making keys and genesis for %d shards of %d validators and %s accounts in %s\n",
		n.opt.Shards, n.opt.Validators, number(n.opt.Accounts), n.Home)
	if err := config.CreateFormat(string(n.Home), config.HomeFormat); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(string(n.Home), "nodes"), 0o755); err != nil {
		return err
	}
	seats, err := n.seats()
	if err != nil {
		return err
	}
	v, err := n.createGenesis(seats)
	if err != nil {
		return err
	}
	if err := n.createNodes(seats, v); err != nil {
		return err
	}
	apis := make([]string, len(seats))
	for k := range seats {
		apis[k] = "http://" + n.apiAddr(k)
	}
	return errors.Join(n.Home.WriteEndpoints(apis), n.writeChoices(file))
}

func (n *Network) seats() (all []seat, err error) {
	for s := range n.opt.Shards {
		for i := range n.opt.Validators {
			t := seat{name: NodeName(s, i), shard: s}
			if t.voting, err = keys.New(keys.Voting); err != nil {
				return nil, err
			}
			if t.node, err = keys.New(keys.Node); err != nil {
				return nil, err
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// createGenesis makes genesis, crowd and demo wallet.
func (n *Network) createGenesis(seats []seat) (*genesis.Verified, error) {
	table, err := ledger.GenesisTable(uint16(n.opt.Shards))
	if err != nil {
		return nil, err
	}
	g := &genesis.Genesis{
		Name: "localnet", TimeMs: n.began().UnixMilli(), Table: table, Shards: make([]genesis.Shard, n.opt.Shards),
		Parameters: genesis.Parameters{
			Fees: []uint64{1, 10}, OpenDeposit: openDeposit, OpenCap: openingsABlock, AccountLimit: accountLimit,
			ReceiptWindow: receiptWindow, MaxBodyBytes: maxBodyBytes, MaxBlockTxs: maxBlockTxs,
			BlockIntervalMs: n.opt.IntervalMs, HeartbeatMs: heartbeat,
			EpochBlocks: n.opt.EpochBlocks, CommitteeSize: n.opt.CommitteeSize,
		},
	}
	crowd := genesis.Crowd{Count: n.opt.Accounts, Balance: crowdBalance}
	for _, b := range [][]byte{g.Seed[:], crowd.Seed[:]} {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
	}
	for _, s := range seats {
		k, err := s.voting.BLS()
		if err != nil {
			return nil, err
		}
		v := genesis.Validator{Name: s.name, Key: k.Public(), Node: [32]byte(s.node.Public()), Power: 1}
		if n.opt.Powers != nil {
			v.Power = consensus.Power(n.opt.Powers[len(g.Shards[s.shard].Validators)])
		}
		v.Possession = k.ProvePossession(genesis.ValidatorMessage(g.Name, v.Node, v.Key))
		g.Shards[s.shard].Validators = append(g.Shards[s.shard].Validators, v)
	}
	if n.opt.TestCrowd {
		g.Parameters.MaxBlockTxs = batchBlockTxs
		g.TestCrowd = &crowd
	}
	demo, err := keys.New(keys.Wallet)
	if err != nil {
		return nil, err
	}
	friend, err := keys.New(keys.Wallet)
	if err != nil {
		return nil, err
	}
	p := genesis.Population{Table: table, Crowd: crowd, BLS: n.opt.TestCrowd, Named: make([][]genesis.Account, n.opt.Shards)}
	last := n.opt.Shards - 1
	for _, w := range []struct {
		secret  *keys.Secret
		shard   int
		balance uint64
	}{{demo, 0, demoBalance}, {friend, last, 0}} {
		k, err := batchKey(g.Name, w.secret)
		if err != nil {
			return nil, err
		}
		p.Named[w.shard] = append(p.Named[w.shard], genesis.Account{Key: [32]byte(w.secret.Public()), Balance: w.balance, BLS: k})
	}
	shown := n.progress(fmt.Sprintf("making %s accounts", number(n.opt.Accounts)), n.opt.Accounts)
	v, err := genesis.Create(string(n.Home), g, counted(p.All(), shown))
	shown.end(err)
	if err != nil {
		return nil, err
	}
	n.Genesis = v
	if err := host.CreateFile(n.seedFile(), []byte(hex.EncodeToString(crowd.Seed[:])+"\n"), 0o600); err != nil {
		return nil, err
	}
	return v, n.createWallets(v, p, demo, friend)
}

// batchKey is a wallet's BLS key in genesis.
func batchKey(network string, wallet *keys.Secret) (*genesis.BLSKey, error) {
	secret, err := wallet.Batches()
	if err != nil {
		return nil, err
	}
	k := &genesis.BLSKey{Key: secret.Public()}
	k.Possession = secret.ProvePossession(genesis.AccountMessage(network, [32]byte(wallet.Public()), k.Key))
	return k, nil
}

// createWallets seals the demo wallet and a friend on the last shard to send to.
func (n *Network) createWallets(v *genesis.Verified, p genesis.Population, demo, friend *keys.Secret) error {
	if err := keys.EnsureFolder(n.Home.Wallets()); err != nil {
		return err
	}
	password := keys.RandomPassword()
	if err := keys.WritePasswordFile(n.Home.WalletPassword(), password); err != nil {
		return err
	}
	store := keys.Store{Dir: n.Home.Wallets()}
	last := n.opt.Shards - 1
	for _, w := range []struct {
		name   string
		secret *keys.Secret
		shard  int
		at     int
	}{{DemoWallet, demo, 0, 0}, {FriendWallet, friend, last, friendAt(n.opt.Shards)}} {
		k, err := keys.Seal(w.secret, password, keys.CostDemo, "wallet of a local network")
		if err != nil {
			return err
		}
		if err := store.Add(w.name, k); err != nil {
			return err
		}
		id := p.NamedID(consensus.ShardID(w.shard), w.at)
		if err := store.SetAccount(w.name, keys.Account{Genesis: [32]byte(v.Hash()), ID: id, Shard: uint16(w.shard)}); err != nil {
			return err
		}
	}
	return nil
}

// FriendWallet is the name of an empty wallet on the last shard.
const FriendWallet = "friend"

// createNodes makes the homes, shard by shard: a shard's state at genesis is made once for all of its validators.
func (n *Network) createNodes(seats []seat, v *genesis.Verified) error {
	password := keys.RandomPassword()
	writing := n.progress("writing the state of each validator", uint64(len(seats)))
	for shard := range n.opt.Shards {
		making := n.progress(fmt.Sprintf("making the state of shard %d, %s accounts", shard, number(v.Counts[shard])), v.Counts[shard])
		b, err := node.Begin(v, consensus.ShardID(shard), making.at)
		making.end(err)
		if err != nil {
			return err
		}
		for k, s := range seats {
			if s.shard == shard && err == nil {
				if err = n.createNode(k, s, seats, v, b, password); err != nil {
					err = fmt.Errorf("%s: %w", s.name, err)
				}
				writing.at(uint64(k) + 1)
			}
		}
		if err = errors.Join(err, b.Close()); err != nil {
			return err
		}
	}
	writing.end(nil)
	return nil
}

// createNode makes the home of one validator.
func (n *Network) createNode(k int, s seat, seats []seat, v *genesis.Verified, b *node.Beginning, password keys.Password) error {
	home := config.Home(n.nodeHome(s.name))
	if err := config.CreateFormat(string(home), config.HomeFormat); err != nil {
		return err
	}
	if err := keys.EnsureFolder(home.Keys()); err != nil {
		return err
	}
	if err := keys.WritePasswordFile(home.KeyPassword(), password); err != nil {
		return err
	}
	for path, secret := range map[string]*keys.Secret{home.VotingKey(): s.voting, home.NodeKey(): s.node} {
		sealed, err := keys.Seal(secret, password, keys.CostDemo, "key of a local network")
		if err != nil {
			return err
		}
		if err := sealed.Save(path); err != nil {
			return err
		}
	}
	if err := v.LinkTo(string(home)); err != nil {
		return err
	}
	c := n.nodeConfig(k, seats)
	if err := b.Create(home, c.Storage.RetentionBlocks); err != nil {
		return err
	}
	return c.Write(home.Config())
}

// nodeConfig is the options of the k-th node.
func (n *Network) nodeConfig(k int, seats []seat) config.Config {
	addrs := func(k int) []string { return config.ListenAddrs(n.host(k), n.opt.APIPort+portsApart+k) }
	c := config.Default()
	c.Network.Listen = addrs(k)
	c.API.Listen = n.apiAddr(k)
	c.API.RequestsPerSecond, c.API.TotalRequestsPerSecond = 5000, 5000 // all clients share this machine's one address
	c.Log.File = logFile
	if n.opt.Broker {
		c.API.Brokers = []string{n.BrokerAddr()}
	}
	c.Verify.Workers = max(1, runtime.NumCPU()/2)
	for j, other := range seats {
		if j != k {
			c.Peers = append(c.Peers, config.Peer{Node: hex.EncodeToString(other.node.Public()), Addrs: addrs(j)})
		}
	}
	if n.opt.Config != nil {
		n.opt.Config(&c)
	}
	return c
}

// began is when the network says that it began.
func (n *Network) began() time.Time {
	if n.opt.Began.IsZero() {
		return time.Now()
	}
	return n.opt.Began
}

func (n *Network) seedFile() string { return filepath.Join(string(n.Home), "crowd.seed") }

func readSeed(path string) (seed [32]byte, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return seed, err
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != len(seed) {
		return seed, fmt.Errorf("%s is not a seed of 64 hexadecimal digits: start anew with --reset", path)
	}
	return [32]byte(raw), nil
}
