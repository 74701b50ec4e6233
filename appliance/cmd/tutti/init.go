package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/appliance/keys"
)

type initOptions struct {
	genesis      string
	listen       []string
	advertise    []string
	peers        []string
	api          string
	passwordFile string
	ask          bool
}

func initCommand(a *app) *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a node's home folder: options with comments, voting key and node key",
		Long: `Make a node's home folder: options with comments, voting key and node key.

Unless told otherwise the keys' password is drawn at random into keys/password, so that the node can start unattended. Such
a password protects copies of the key files, not the home folder itself.`,
		Example: `  tutti init --home /var/lib/tutti --genesis genesis.json
  tutti init --advertise /ip4/203.0.113.7/udp/9710/quic-v1 --peer KEY@/ip4/203.0.113.8/udp/9710/quic-v1`,
		Args: arguments(),
		RunE: func(*cobra.Command, []string) error { return a.initHome(o) },
	}
	f := c.Flags()
	f.StringVar(&o.genesis, "genesis", "", "genesis file of the network to join; it is copied")
	f.StringSliceVar(&o.listen, "listen", nil, "address (multiaddr) to listen at for other nodes")
	f.StringSliceVar(&o.advertise, "advertise", nil, "address (multiaddr) that others reach this node at")
	f.StringSliceVar(&o.peers, "peer", nil, "another node, as NODEKEY@ADDRESS; again for more")
	f.StringVar(&o.api, "api", "", "address, host:port, of the API and the dashboard")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the password for the keys, mode 0600; the node reads it at each start")
	f.BoolVar(&o.ask, "ask-password", false, "ask for the password now and at each start")
	c.MarkFlagsMutuallyExclusive("password-file", "ask-password")
	return a.jsonFlag(c)
}

// options is the configuration that the flags describe.
func (o *initOptions) options() (config.Config, error) {
	c := config.Default()
	if len(o.listen) > 0 {
		c.Network.Listen = o.listen
	}
	if len(o.advertise) > 0 {
		c.Network.Advertise = o.advertise
	}
	if o.api != "" {
		c.API.Listen = o.api
	}
	for _, p := range o.peers {
		node, addr, ok := strings.Cut(p, "@")
		if !ok {
			return c, usagef("--peer %q: write it as NODEKEY@ADDRESS", p)
		}
		c.Peers = append(c.Peers, config.Peer{Node: node, Addrs: []string{addr}})
	}
	if err := c.Validate(); err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// initHome makes the home. What an interrupted init left is kept and completed; config.toml is written last.
func (a *app) initHome(o initOptions) error {
	c, err := o.options()
	if err != nil {
		return err
	}
	h, err := a.home()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(h.Config()); err == nil {
		return fmt.Errorf("%s is a home already: edit %s, or name another folder with --home", h, h.Config())
	}
	if err := config.CreateFormat(string(h), config.HomeFormat); err != nil {
		return err
	}
	p, err := a.initPassword(h, o, &c)
	if err != nil {
		return err
	}
	var all []keyInfo
	for _, t := range []keys.Type{keys.Voting, keys.Node} {
		k, err := keys.LoadType(keyPath(h, t), t)
		if errors.Is(err, fs.ErrNotExist) {
			k, err = a.newKey(t, keyPath(h, t), p)
		} else if err == nil {
			_, err = k.Open(p) // of an init that was interrupted: both keys must have one password
		}
		if err != nil {
			return fmt.Errorf("%w (%s)", err, keyPath(h, t))
		}
		all = append(all, infoOf(k, keyPath(h, t)))
	}
	if o.genesis != "" {
		if err := takeGenesis(o.genesis, h); err != nil {
			return err
		}
	}
	if err := c.Write(h.Config()); err != nil {
		return err
	}
	if !a.json {
		a.say("Made %s. Options: %s", h, h.Config())
	}
	if err := a.showKeys(all); err != nil || a.json {
		return err
	}
	if o.genesis == "" {
		a.say("Next: 'tutti genesis entry' prints what the maker of the genesis file needs; put both files that come back into %s.", h)
	} else {
		a.say("Next: 'tutti doctor', then 'tutti run'.")
	}
	return nil
}

// initPassword settles the password of the node's keys and says in c where the node finds it.
func (a *app) initPassword(h config.Home, o initOptions, c *config.Config) (keys.Password, error) {
	switch {
	case o.ask:
		c.Keys.PasswordFile = ""
		p, err := keys.Prompt(a.stdin, a.stderr, "Password for the node's keys", true)
		if err != nil {
			return p, err
		}
		return p, p.ForNew()
	case o.passwordFile != "":
		abs, err := filepath.Abs(o.passwordFile)
		if err != nil {
			return keys.Password{}, err
		}
		c.Keys.PasswordFile = abs
		return a.password(passwordSource{flag: abs, isNew: true})
	}
	p, err := keys.ReadPasswordFile(h.KeyPassword())
	if errors.Is(err, fs.ErrNotExist) {
		p = keys.RandomPassword()
		err = keys.WritePasswordFile(h.KeyPassword(), p)
	}
	return p, err
}
