package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tutti/appliance/config"
	"tutti/appliance/localnet"
	"tutti/bench"
)

func localnetCommand(a *app) *cobra.Command {
	var o localnet.Options
	c := &cobra.Command{
		Use:   "localnet",
		Short: "Run a whole network on this machine, with a steady demo load, until Ctrl-C",
		Long: `Run a whole network on this machine, with a steady demo load, until Ctrl-C.

The first start makes keys, genesis and a funded wallet named demo; later starts go on from where the last one stopped. The
home folder is --home, else $TUTTI_HOME, else ./localnet. Its keys are throw-aways.`,
		Example: `  tutti localnet
  tutti localnet --shards 4 --validators 4 --accounts 100000 --load 2000
  tutti localnet --validators 5 --epoch-blocks 300 --committee-size 4
  tutti localnet --reset --load 0`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error { return a.localnet(c.Context(), o) },
	}
	f := c.Flags()
	f.IntVar(&o.Shards, "shards", 2, "shards")
	f.IntVar(&o.Validators, "validators", 4, "validators of each shard")
	f.Uint64Var(&o.Accounts, "accounts", 10_000, "accounts of the made-up crowd")
	f.IntVar(&o.LoadTPS, "load", 200, "demo load in transactions a second, 0 for none")
	f.IntVar(&o.APIPort, "api-port", config.DefaultAPIPort, "port of the first node's API and dashboard; the others follow")
	f.Uint64Var(&o.EpochBlocks, "epoch-blocks", 0, "blocks after which each shard's seats and leaders change; 0 for never")
	f.Uint64Var(&o.CommitteeSize, "committee-size", 0, "seats, which the validators have in turn; 0 for one each")
	f.BoolVar(&o.Broker, "broker", false, "run a broker of distilled batches, too, which wallets then use by themselves")
	f.BoolVar(&o.Reset, "reset", false, "remove the local network that is there, and begin a new one")
	return c
}

func (a *app) localnet(ctx context.Context, o localnet.Options) (err error) {
	o.Home, o.HomeFlag = a.homeFlag, a.homeFlag
	if o.Home == "" {
		if h, err := config.FindHome(""); err == nil && filepath.Base(string(h)) != ".tutti" {
			o.Home = string(h)
		} else {
			o.Home = "localnet"
		}
	}
	if o.Home, err = filepath.Abs(o.Home); err != nil {
		return err
	}
	o.Out, o.Terminal, o.Load = a.stdout, isTerminal(a.stdout), bench.DemoLoad
	n, err := localnet.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return n.Run(ctx, localnet.Screen{Out: a.stdout, Terminal: isTerminal(a.stdout)})
}

// isTerminal reports whether w is a terminal that understands cursor movement.
func isTerminal(w any) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
