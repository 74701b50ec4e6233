package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/keys"
	"tutti/appliance/node"
	"tutti/consensus"
)

func stateCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "state",
		Short: "Write a shard's state to a file, check such a file, begin a node with one",
		Long: `Write a shard's state to a file, check such a file, begin a node with one.

A state file holds all accounts of a shard after a final block, the certificate of the shard's validators, and what a node
needs to go on from there. Nobody has to be trusted for it: 'verify' and 'import' check every account against the state root
in a certified header, and execute the blocks that no header has the root of yet.`,
	}
	c.AddCommand(stateExportCommand(a), stateVerifyCommand(a), stateImportCommand(a))
	return c
}

// validatorHome is the home of a node with its network's genesis, and the shard of its validator.
func (a *app) validatorHome() (config.Home, config.Config, *genesis.Verified, consensus.ShardID, error) {
	fail := func(err error) (config.Home, config.Config, *genesis.Verified, consensus.ShardID, error) {
		return "", config.Config{}, nil, 0, err
	}
	home, err := a.existingHome()
	if err != nil {
		return fail(err)
	}
	cfg, err := config.Load(home.Config())
	if err != nil {
		return fail(err)
	}
	v, err := genesis.Verify(home.Genesis())
	if err != nil {
		return fail(err)
	}
	k, err := keys.LoadType(home.NodeKey(), keys.Node)
	if err != nil {
		return fail(err)
	}
	shard, _, ok := node.Seat(v, [32]byte(k.Public()))
	if !ok {
		return fail(fmt.Errorf("the node key in %s is no validator's of network %s: put the genesis file there that has this node", home.Keys(), v.Name))
	}
	return home, cfg, v, shard, nil
}

func stateExportCommand(a *app) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "export FILE",
		Short: "Write the state of this home's node, which is stopped, to FILE",
		Example: `  tutti state export shard0.state --home /var/lib/tutti
  tutti state export shard0.state --json | jq .height`,
		Args: arguments("FILE"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			home, cfg, v, shard, err := a.validatorHome()
			if err != nil {
				return err
			}
			if err := absentFile(args[0]); err != nil {
				return err
			}
			var info *node.StateInfo
			if err := host.CreateFrom(args[0], 0o644, func(w io.Writer) error {
				info, err = node.ExportState(c.Context(), home, v, shard, cfg.Storage.RetentionBlocks, w, a.progress("chunks written"))
				return err
			}); err != nil {
				return err
			}
			return a.showState(info, "Wrote "+args[0])
		},
	})
}

func stateVerifyCommand(a *app) *cobra.Command {
	var genesisPath string
	c := &cobra.Command{
		Use:   "verify FILE --genesis genesis.json",
		Short: "Check everything in a state file against a genesis file alone",
		Long: `Check everything in a state file against a genesis file alone.

No home, node or disk is needed; memory is: about 90 bytes an account.`,
		Example: `  tutti state verify shard0.state --genesis genesis.json
  tutti state verify shard0.state --genesis genesis.json --json`,
		Args: arguments("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			v, err := genesis.Verify(genesisPath)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := node.VerifyState(c.Context(), f, v, 0, a.progress("chunks checked"))
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[0])
			}
			return a.showState(info, "Proven: "+args[0])
		},
	}
	c.Flags().StringVar(&genesisPath, "genesis", "", "genesis file of the network, with accounts.bin beside it (needed)")
	if err := c.MarkFlagRequired("genesis"); err != nil {
		panic(err) // the flag is defined above
	}
	return a.jsonFlag(c)
}

func stateImportCommand(a *app) *cobra.Command {
	var neverVoted bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Make the data of this home's node, which has none, of a state file; everything in it is checked",
		Long: `Make the data of this home's node, which has none, of a state file; everything in it is checked.

The file has no votes. A validator that has voted before and forgets it could vote twice in one view, and be slashed. So
the node does not vote at once: when it starts it asks the other validators how far the shard was, and takes part only
above that (the vote floor). Until more than two thirds of the power, without this validator, have answered it waits.

With --never-voted it votes at once. That is right only if no node has ever voted with this home's voting key: for a
validator that is new, or when a whole shard begins again from one file after all its data is lost, by agreement.

Where there is data already nothing is changed. An import that was interrupted leaves none: run it again.`,
		Example: `  tutti state import shard0.state --home /var/lib/tutti
  tutti state import shard0.state --home /var/lib/tutti --never-voted`,
		Args: arguments("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			home, cfg, v, shard, err := a.validatorHome()
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := node.ImportState(c.Context(), home, v, f, node.ImportOptions{
				Shard: shard, RetentionBlocks: cfg.Storage.RetentionBlocks, NeverVoted: neverVoted, Progress: a.progress("chunks taken"),
			})
			if err != nil {
				return fmt.Errorf("%w (%s)", err, args[0])
			}
			return a.showState(info, "Imported into "+home.Data())
		},
	}
	c.Flags().BoolVar(&neverVoted, "never-voted", false, "no node has ever voted with this home's voting key: vote at once, without asking the others")
	return a.jsonFlag(c)
}

// showState prints what is in a state file.
func (a *app) showState(info *node.StateInfo, what string) error {
	if a.json {
		return a.printJSON(info)
	}
	a.say("%s: shard %d of network %s after block %s", what, info.Shard, info.Network, number(uint64(info.Height)))
	t := newTable()
	t.row("accounts", number(info.Accounts))
	t.row("state root", fmt.Sprintf("%s, after block %s", info.Root, number(uint64(info.Proven))))
	if q := info.Quorum; q != nil {
		t.row("signed by", fmt.Sprintf("%d of %d validators (power %s of %s)", q.Signers, q.Of, number(uint64(q.Power)), number(uint64(q.Total))))
	}
	t.row("bytes", number(uint64(info.Bytes)))
	t.write(a.stdout)
	return nil
}

// progressEvery is how often progress is told.
const progressEvery = 2 * time.Second

// progress tells on standard error how far something is, now and then.
func (a *app) progress(what string) node.Progress {
	return progressTo(a.stderr, what, time.Now)
}

func progressTo(w io.Writer, what string, now func() time.Time) node.Progress {
	last := now()
	return func(done, total uint64) {
		if t := now(); t.Sub(last) >= progressEvery && total > 0 {
			last = t
			fmt.Fprintf(w, "%s: %s of %s (%d %%)\n", what, number(done), number(total), done*100/total)
		}
	}
}
