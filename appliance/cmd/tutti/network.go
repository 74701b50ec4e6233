package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/state/tx"
)

// networkFlags say which network a command is about and how to reach it.
type networkFlags struct {
	api     []string
	genesis string
	light   string // state of the light client; "" is the home folder's, if it has one
	trouble func(url string, err error)
}

// add registers the flags for a command and all below it.
func (f *networkFlags) add(c *cobra.Command) {
	c.PersistentFlags().StringSliceVar(&f.api, "api", nil, "API address of a node, such as http://127.0.0.1:9700; again for more (default $TUTTI_API, else what the home folder says)")
	c.PersistentFlags().StringVar(&f.genesis, "genesis", "", "genesis file that answers are checked against (default: genesis.json in the home folder)")
	f.addLight(c)
}

// addLight registers the flag that names the light client's state.
func (f *networkFlags) addLight(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.light, "light", "", "state of 'tutti light sync', for later epochs than the genesis' (default: light.json in the home folder, if it is there)")
}

// network is what is trusted: the genesis file, and the hand-overs that the light client has followed from it.
type network struct {
	genesis *genesis.Genesis
	hash    tx.Hash
	trust   *proof.Trust
}

// maxGenesisBytes bounds genesis.json.
const maxGenesisBytes = 128 << 20

// noShard keeps the accounts of partitions that belong to no shard: no network has that many.
const noShard consensus.ShardID = 0xffff

func (f *networkFlags) genesisPath(h config.Home) string {
	if f.genesis != "" {
		return f.genesis
	}
	return h.Genesis()
}

// load reads the genesis file and, if it is there, the light client's state.
func (f *networkFlags) load(h config.Home) (*network, error) {
	n, err := f.loadGenesis(h)
	if err != nil {
		return nil, err
	}
	return n, f.restore(h, n.trust)
}

func (f *networkFlags) loadGenesis(h config.Home) (*network, error) {
	path := f.genesisPath(h)
	text, err := readBounded(path, maxGenesisBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no genesis file %s to check answers against: get it from the network's maker and name it with --genesis", path)
	}
	if err != nil {
		return nil, err
	}
	g, err := genesis.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	committees := make([]*consensus.Committee, len(g.Shards))
	for i := range committees {
		if committees[i], err = g.Committee(consensus.ShardID(i)); err != nil {
			return nil, err
		}
	}
	trust, err := proof.NewTrust(g.Hash(), committees, func(id tx.ID) consensus.ShardID {
		shard, ok := g.Table.ShardOf(id.Partition())
		if !ok {
			return noShard
		}
		return consensus.ShardID(shard)
	})
	if err != nil {
		return nil, err
	}
	return &network{genesis: g, hash: tx.Hash(g.Hash()), trust: trust}, nil
}

// lightPath is where the light client's state is.
func (f *networkFlags) lightPath(h config.Home) string {
	if f.light != "" {
		return f.light
	}
	return h.Light()
}

// restore reads the light client's state. It need not be there, unless it was named.
func (f *networkFlags) restore(h config.Home, trust *proof.Trust) error {
	path := f.lightPath(h)
	b, err := readBounded(path, proof.MaxStateBytes)
	if errors.Is(err, fs.ErrNotExist) && f.light == "" {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no light client's state %s: make it with 'tutti light sync'", path)
	}
	if err != nil {
		return err
	}
	s, err := proof.DecodeState(b)
	if err == nil {
		err = trust.Restore(s)
	}
	if err != nil {
		return fmt.Errorf("%w (%s; remove the file and run 'tutti light sync' to make it again)", err, path)
	}
	return nil
}

// client connects to the network's nodes. trust may be nil where nothing is to be verified.
func (f *networkFlags) client(h config.Home, trust *proof.Trust) (*client.Client, error) {
	urls := f.api
	if env := os.Getenv("TUTTI_API"); len(urls) == 0 && env != "" {
		urls = strings.Split(env, ",")
	}
	if len(urls) == 0 {
		var err error
		if urls, err = h.Endpoints(); err != nil {
			return nil, err
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("no node is known: give --api http://HOST:%d, set TUTTI_API, or name a home folder with --home", config.DefaultAPIPort)
	}
	for _, u := range urls {
		if err := config.CheckEndpoint(u); err != nil {
			return nil, usageError{err}
		}
	}
	return client.New(client.Options{URLs: urls, Trust: trust, Trouble: f.trouble})
}

// session is an open connection to the network of a home.
type session struct {
	*network
	home   config.Home
	client *client.Client
}

// open loads the genesis file and makes a client that verifies against it. Close the client.
func (f *networkFlags) open(a *app) (*session, error) {
	h, err := a.home()
	if err != nil {
		return nil, err
	}
	n, err := f.load(h)
	if err != nil {
		return nil, err
	}
	c, err := f.client(h, n.trust)
	if err != nil {
		return nil, err
	}
	return &session{network: n, home: h, client: c}, nil
}

// fee is the price of a fee class of the network.
func (n *network) fee(class uint16) (uint64, error) {
	fees := n.genesis.Parameters.Fees
	if int(class) >= len(fees) {
		return 0, usagef("--fee-class %d: this network has classes 0 to %d", class, len(fees)-1)
	}
	return fees[class], nil
}
