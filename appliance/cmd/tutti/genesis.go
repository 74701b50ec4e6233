package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/ledger"
)

func genesisCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "genesis",
		Short: "Make and check the files that a network begins with",
		Long: `Make and check the files that a network begins with.

Each validator runs 'tutti init' and 'tutti genesis entry' and gives what that prints to the maker of the network, who
writes a plan and runs 'tutti genesis create'. Everybody gets both files that this makes, genesis.json and accounts.bin.`,
	}
	c.AddCommand(genesisEntryCommand(a), genesisCreateCommand(a), genesisVerifyCommand(a))
	return c
}

func genesisEntryCommand(a *app) *cobra.Command {
	var network, name, passwordFile string
	var power uint64
	c := &cobra.Command{
		Use:   "entry --network NETWORK --name NAME",
		Short: "Print this node's entry for the genesis file of a network, signed with its voting key",
		Example: `  tutti genesis entry --network my-net --name anna > anna.json
  tutti genesis entry --network my-net --name anna --power 100`,
		Args: arguments(),
		RunE: func(*cobra.Command, []string) error {
			h, err := a.existingHome()
			if err != nil {
				return err
			}
			v, err := a.validator(h, network, name, consensus.Power(power), passwordFile)
			if err != nil {
				return err
			}
			return a.printJSON(v.Entry())
		},
	}
	c.Flags().StringVar(&network, "network", "", "name of the network (needed)")
	c.Flags().StringVar(&name, "name", "", "name of this validator, unique in the network (needed)")
	c.Flags().Uint64Var(&power, "power", 1, "voting power")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the password of the voting key, mode 0600 (default: the home folder's, else asked for)")
	for _, f := range []string{"network", "name"} {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return c
}

// validator is this home's seat in a network.
func (a *app) validator(h config.Home, network, name string, power consensus.Power, passwordFile string) (*genesis.Validator, error) {
	voting, err := keys.LoadType(h.VotingKey(), keys.Voting)
	if err != nil {
		return nil, err
	}
	node, err := keys.LoadType(h.NodeKey(), keys.Node)
	if err != nil {
		return nil, err
	}
	p, err := a.password(passwordSource{flag: passwordFile, home: keyPasswordFile(h), question: "Password of the voting key"})
	if err != nil {
		return nil, err
	}
	secret, err := voting.Open(p)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, h.VotingKey())
	}
	k, err := secret.BLS()
	if err != nil {
		return nil, err
	}
	v := &genesis.Validator{Name: name, Key: k.Public(), Node: [32]byte(node.Public()), Power: power}
	v.Possession = k.ProvePossession(genesis.ValidatorMessage(network, v.Node, v.Key))
	return v, nil
}

// plan is what the maker of a network writes, in TOML.
type plan struct {
	Name       string        `toml:"name"`
	Time       time.Time     `toml:"time"` // of the genesis blocks; none: now
	Seed       string        `toml:"seed"` // hex; empty: drawn at random
	Parameters planRules     `toml:"parameters"`
	Shards     []planShard   `toml:"shards"`
	Accounts   []planAccount `toml:"accounts"`
}

type planShard struct {
	Validators []string `toml:"validators"` // files that 'tutti genesis entry' printed, beside the plan
}

type planAccount struct {
	Shard   uint16 `toml:"shard"`
	Key     string `toml:"key"` // hex, as 'tutti wallet list' prints it
	Balance uint64 `toml:"balance"`
}

// planRules is genesis.Parameters with names for TOML.
type planRules struct {
	Fees            []uint64 `toml:"fees"`
	OpenDeposit     uint64   `toml:"open_deposit"`
	OpenCap         uint64   `toml:"open_cap"`
	AccountLimit    uint64   `toml:"account_limit"`
	ReceiptWindow   uint64   `toml:"receipt_window"`
	MaxBodyBytes    uint64   `toml:"max_body_bytes"`
	MaxBlockTxs     uint64   `toml:"max_block_txs"`
	BlockIntervalMs uint64   `toml:"block_interval_ms"`
	HeartbeatMs     uint64   `toml:"heartbeat_ms"`
	EpochBlocks     uint64   `toml:"epoch_blocks"`
	CommitteeSize   uint64   `toml:"committee_size"`
}

// standardRules are those of a plan that says nothing.
func standardRules() planRules {
	return planRules{
		Fees: []uint64{1}, OpenDeposit: 100, OpenCap: 1000, AccountLimit: 1 << 24, ReceiptWindow: 16384,
		MaxBodyBytes: 4 << 20, MaxBlockTxs: 40_000, BlockIntervalMs: 200, HeartbeatMs: 1000,
	}
}

const (
	maxPlanBytes  = 8 << 20
	maxEntryBytes = 4 << 10
)

func genesisCreateCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "create PLAN FOLDER",
		Short: "Make genesis.json and accounts.bin in FOLDER as a plan says; nothing is ever overwritten",
		Long: `Make genesis.json and accounts.bin in FOLDER as a plan says; nothing is ever overwritten.

A plan is a TOML file. Files in it lie beside it. Times, seed and parameters may be left out.

  name = "my-net"
  time = 2026-12-01T12:00:00Z     # of the genesis blocks; default: now
  seed = "64 hex digits"          # drives the leader schedule; default: drawn at random

  [parameters]                    # defaults:
  fees = [1]                      # price of each fee class, in units
  open_deposit = 100              # price of an account, besides the fee
  open_cap = 1000                 # accounts opened in one block
  account_limit = 16777216        # accounts in one shard
  receipt_window = 16384          # transfers on their way to another shard
  max_body_bytes = 4194304        # of a block
  max_block_txs = 40000           # transactions in a block
  block_interval_ms = 200         # between blocks under load
  heartbeat_ms = 1000             # between blocks on an idle chain
  epoch_blocks = 0                # after which seats and leaders change, 10 or more; 0: never
  committee_size = 0              # seats, which a shard's validators have in turn; 0: one for each

  [[shards]]                      # one for each shard, in order
  validators = ["anna.json", "ben.json", "cleo.json", "dan.json"]

  [[accounts]]                    # one for each account with money
  shard = 0
  key = "64 hex digits"           # as 'tutti wallet list' prints it
  balance = 1000000000`,
		Example: "  tutti genesis create plan.toml my-net",
		Args:    arguments("PLAN", "FOLDER"),
		RunE: func(_ *cobra.Command, args []string) error {
			g, p, err := readPlan(args[0])
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[0])
			}
			if err := os.MkdirAll(args[1], 0o755); err != nil {
				return err
			}
			v, err := genesis.Create(args[1], g, p.All())
			if err != nil {
				return err
			}
			if err := a.sayGenesis(v, filepath.Join(args[1], genesis.FileName)); err != nil || a.json {
				return err
			}
			t := newTable(3)
			t.row("account", "shard", "key", "balance")
			for s := range p.Named {
				for k, x := range p.Named[s] {
					t.row(p.NamedID(consensus.ShardID(s), k).String(), fmt.Sprint(s), hex.EncodeToString(x.Key[:]), number(x.Balance))
				}
			}
			t.write(a.stdout)
			a.say("The owner of a key says 'tutti wallet attach NAME ACCOUNT' once the network runs.")
			return nil
		},
	})
}

// readPlan reads a plan and the validators' entries that it names.
func readPlan(path string) (*genesis.Genesis, *genesis.Population, error) {
	text, err := readBounded(path, maxPlanBytes)
	if err != nil {
		return nil, nil, err
	}
	p := plan{Parameters: standardRules(), Time: time.Now()}
	meta, err := toml.Decode(string(text), &p)
	if err != nil {
		return nil, nil, err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, nil, fmt.Errorf("unknown fields %v: 'tutti genesis create --help' shows all there are", unknown)
	}
	g := &genesis.Genesis{Name: p.Name, TimeMs: p.Time.UnixMilli(), Parameters: genesis.Parameters(p.Parameters)}
	if p.Seed == "" {
		if _, err := rand.Read(g.Seed[:]); err != nil {
			return nil, nil, err
		}
	} else if err := (*proof.Digest)(&g.Seed).UnmarshalText([]byte(p.Seed)); err != nil {
		return nil, nil, fmt.Errorf("seed: %w", err)
	}
	for _, s := range p.Shards {
		shard, err := readEntries(filepath.Dir(path), s.Validators)
		if err != nil {
			return nil, nil, err
		}
		g.Shards = append(g.Shards, shard)
	}
	if len(g.Shards) > ledger.GenesisPartitions {
		return nil, nil, fmt.Errorf("shards: %d: at most %d", len(g.Shards), ledger.GenesisPartitions)
	}
	if len(g.Shards) > 0 { // Create reports an empty list with everything else
		if g.Table, err = ledger.GenesisTable(uint16(len(g.Shards))); err != nil {
			return nil, nil, err
		}
	}
	named, err := p.named()
	return g, &genesis.Population{Table: g.Table, Named: named}, err
}

// named is the accounts of the plan by shard.
func (p *plan) named() ([][]genesis.Account, error) {
	named := make([][]genesis.Account, len(p.Shards))
	for i, x := range p.Accounts {
		if int(x.Shard) >= len(named) {
			return nil, fmt.Errorf("accounts[%d].shard: is %d: this network has shards 0 to %d", i, x.Shard, len(named)-1)
		}
		var key proof.Digest
		if err := key.UnmarshalText([]byte(x.Key)); err != nil {
			return nil, fmt.Errorf("accounts[%d].key: %w: give the key as 'tutti wallet list' prints it", i, err)
		}
		named[x.Shard] = append(named[x.Shard], genesis.Account{Key: key, Balance: x.Balance})
	}
	return named, nil
}

// readEntries reads the entries of one shard's validators.
func readEntries(dir string, files []string) (genesis.Shard, error) {
	var s genesis.Shard
	for _, file := range files {
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		b, err := readBounded(file, maxEntryBytes)
		if err != nil {
			return s, err
		}
		var e genesis.Entry
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return s, fmt.Errorf("%s: %w: it must be what 'tutti genesis entry' prints", file, err)
		}
		v, err := e.Validator()
		if err != nil {
			return s, fmt.Errorf("%w (%s)", err, file)
		}
		s.Validators = append(s.Validators, v)
	}
	return s, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s is over %d bytes: it is not the right file", path, limit)
	}
	return b, nil
}

func genesisVerifyCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "verify FILE",
		Short: "Check a genesis file and the accounts file beside it in full, and print the genesis hash",
		Example: `  tutti genesis verify genesis.json
  tutti genesis verify genesis.json --json | jq -r .hash`,
		Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := genesis.Verify(args[0])
			if err != nil {
				return err
			}
			return a.sayGenesis(v, args[0])
		},
	})
}

// genesisInfo describes a genesis to programs.
type genesisInfo struct {
	File     string       `json:"file"`
	Name     string       `json:"name"`
	Hash     proof.Digest `json:"hash"`
	TimeMs   int64        `json:"time_ms"`
	Shards   []shardInfo  `json:"shards"`
	Accounts uint64       `json:"accounts"`
	Supply   uint64       `json:"supply,string"`
	Test     bool         `json:"test_network"` // everybody can compute keys of its crowd
}

type shardInfo struct {
	Shard      int             `json:"shard"`
	Validators int             `json:"validators"`
	Power      consensus.Power `json:"power"`
	Accounts   uint64          `json:"accounts"`
	Supply     uint64          `json:"supply,string"`
}

// sayGenesis prints what a verified genesis holds.
func (a *app) sayGenesis(v *genesis.Verified, file string) error {
	info := genesisInfo{
		File: file, Name: v.Name, Hash: proof.Digest(v.Hash()), TimeMs: v.TimeMs,
		Accounts: v.Accounts.Count, Supply: v.Accounts.Total, Test: v.TestCrowd != nil,
	}
	for i := range v.Shards {
		s := shardInfo{Shard: i, Validators: len(v.Shards[i].Validators), Accounts: v.Counts[i], Supply: v.Supplies[i]}
		for _, seat := range v.Shards[i].Validators {
			s.Power += seat.Power
		}
		info.Shards = append(info.Shards, s)
	}
	if a.json {
		return a.printJSON(info)
	}
	a.say("%s: network %s, begins %s", a.colour(good, "Good"), v.Name, time.UnixMilli(v.TimeMs).UTC().Format("2006-01-02 15:04:05 UTC"))
	a.say("genesis hash %s", info.Hash)
	if v.TestCrowd != nil {
		a.say("%s: the keys of %s accounts follow from a seed in the file, so that anybody can spend what they hold", a.colour(bad, "A test network"), number(v.TestCrowd.Count))
	}
	t := newTable(0, 1, 2, 3, 4)
	t.row("shard", "validators", "power", "accounts", "supply")
	for _, s := range info.Shards {
		t.row(fmt.Sprint(s.Shard), fmt.Sprint(s.Validators), number(uint64(s.Power)), number(s.Accounts), number(s.Supply))
	}
	t.write(a.stdout)
	return nil
}

// takeGenesis verifies a genesis and copies it to a home, unless it is there already.
func takeGenesis(path string, h config.Home) error {
	v, err := genesis.Verify(path)
	if err != nil {
		return err
	}
	if there, err := genesis.Verify(h.Genesis()); err == nil && there.Hash() == v.Hash() {
		return nil
	}
	if err := v.CopyTo(string(h)); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: another genesis lies in %s, move it away", err, h)
	} else if err != nil {
		return err
	}
	return nil
}

// genesis checks the genesis files of a node's home, and that the node has a seat.
func (d *doctor) genesis(h config.Home) {
	v, err := genesis.Verify(h.Genesis())
	if errors.Is(err, fs.ErrNotExist) {
		d.warn("genesis", "none at "+h.Genesis(), "get genesis.json and accounts.bin from the network's maker and put them there")
		return
	}
	if err != nil {
		d.fail("genesis", oneLine(err), "copy both files again from where they were made")
		return
	}
	d.ok("genesis", "network %s, hash %s…, %d shards, %s accounts", v.Name, v.Hash().Short(), len(v.Shards), number(v.Accounts.Count))
	k, err := keys.LoadType(h.VotingKey(), keys.Voting)
	if err != nil {
		return // reported with the keys
	}
	for s := range v.Shards {
		for i, seat := range v.Shards[s].Validators {
			if seat.Key == consensus.PublicKey(k.Public()) {
				d.ok("seat", "validator %s, seat %d of shard %d", seat.Name, i, s)
				return
			}
		}
	}
	d.warn("seat", "this node's voting key is not in the genesis: it can follow, not vote", "send what 'tutti genesis entry' prints to the network's maker before the network begins")
}
