package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"tutti/appliance/client"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/host"
	"tutti/appliance/proof"
	"tutti/consensus"
	"tutti/consensus/evidence"
)

// needsLight is the remedy where the committee of an epoch is not known.
const needsLight = "'tutti light verify FILE' asks nodes for it and keeps it in the light client's state, light.json in the home folder or what --light names"

// withRemedy adds needsLight to an error that it can help.
func withRemedy(err error) error {
	if miss := (*proof.EpochError)(nil); errors.As(err, &miss) && !miss.Lost {
		return fmt.Errorf("%w: %s", err, needsLight)
	}
	return err
}

// saveEvery is how often a sync saves what it has learned.
const saveEvery = 10 * time.Second

// lightFlags are those of networkFlags, with the light client's state under its own name.
type lightFlags struct {
	networkFlags
	checkpoint string
}

func lightCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "light",
		Short: "Follow the committees' hand-overs without a node, and verify proofs of any epoch",
		Long: `Follow the committees' hand-overs without a node, and verify proofs of any epoch.

A shard's committee changes from epoch to epoch, and each one signs who the next is. The light client follows these
hand-overs from the genesis file on, one signature check for each, and keeps what it has learned in its state: light.json
in the home folder, or --state FILE. Nodes are asked and not trusted. With the state, 'tutti wallet' and 'tutti evidence'
check proofs of later epochs offline.

What a chain of hand-overs can't show is when it was signed: the keys of a committee that is long gone may be stolen, and
sign another chain. So run 'tutti light sync' at least every two weeks. To begin anew, or after a longer absence, take a
checkpoint from somebody you trust ('tutti light checkpoint' prints theirs) and give it with --checkpoint.`,
	}
	f := new(lightFlags)
	c.PersistentFlags().StringSliceVar(&f.api, "api", nil, "API address of a node, such as http://127.0.0.1:9700; again for more (default $TUTTI_API, else what the home folder says)")
	c.PersistentFlags().StringVar(&f.genesis, "genesis", "", "genesis file to begin with (default: genesis.json in the home folder)")
	c.PersistentFlags().StringVar(&f.light, "state", "", "file that keeps what was learned (default: light.json in the home folder)")
	c.AddCommand(lightSyncCommand(a, f), lightVerifyCommand(a, f), lightCheckpointCommand(a, f))
	return c
}

// lightInfo is what the light client knows, as --json prints it.
type lightInfo struct {
	State   string           `json:"state"`
	Genesis proof.Digest     `json:"genesis"`
	Shards  []lightShardInfo `json:"shards"`
	Checks  uint64           `json:"signature_checks"` // made by this command
}

type lightShardInfo struct {
	Shard     consensus.ShardID `json:"shard"`
	Epoch     consensus.Epoch   `json:"epoch"`
	Committee proof.Digest      `json:"committee"`
	Height    consensus.Height  `json:"height"` // of the last block of the epoch before
	Block     proof.Digest      `json:"block"`
}

func lightSyncCommand(a *app, f *lightFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "sync",
		Short: "Follow all shards' hand-overs as far as nodes show them, and save the state",
		Long: `Follow all shards' hand-overs as far as nodes show them, and save the state.

It goes on from the state that is there, else from --checkpoint, else from the genesis file; an interrupted sync goes on
where it was saved. Nodes that lie, keep hand-overs back or lag are named; what one node alone keeps back nobody can see,
so give several. Where there is a state already, --checkpoint is compared with what was followed. Where there is no genesis
file, the nodes' is taken if it has the hash that the checkpoint names.`,
		Example: `  tutti light sync --genesis genesis.json --api http://127.0.0.1:9700 --state light.json
  tutti light sync --checkpoint checkpoint.json --api http://127.0.0.1:9700 --api http://127.0.0.1:9704
  tutti light sync --json`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := a.openLight(c.Context(), f)
			if err != nil {
				return err
			}
			defer l.client.Close()
			if err := l.sync(c.Context(), a); err != nil {
				return err
			}
			return a.sayLight(l)
		},
	}
	c.Flags().StringVar(&f.checkpoint, "checkpoint", "", "checkpoint to begin with, or to compare with, from a source that you trust")
	return a.jsonFlag(c)
}

func lightVerifyCommand(a *app, f *lightFlags) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "verify PROOF",
		Short: "Check a proof of any epoch: of a payment, of accounts, or of slashable votes",
		Long: `Check a proof of any epoch: of a payment, of accounts, or of slashable votes.

Nodes are asked only for hand-overs that the state does not have yet; what was learned is saved, so that other commands can
check the same proof offline.`,
		Example: `  tutti light verify payment.json --genesis genesis.json --state light.json
  tutti light verify proofs.json --api http://127.0.0.1:9700 --json`,
		Args: arguments("PROOF"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readBounded(args[0], max(proof.MaxFileBytes, evidence.MaxFileBytes))
			if err != nil {
				return err
			}
			h, err := a.home()
			if err != nil {
				return err
			}
			l := &lightClient{home: h, flags: f}
			if l.network, err = f.load(h); err != nil {
				return err
			}
			defer l.close()
			return l.verify(c.Context(), a, b, args[0])
		},
	})
}

func lightCheckpointCommand(a *app, f *lightFlags) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "checkpoint",
		Short: "Print a checkpoint of the newest epochs, JSON, for others to begin with",
		Long: `Print a checkpoint of the newest epochs, JSON, for others to begin with.

It is as good as the state: sync first, and from several nodes. Who takes it trusts you.`,
		Example: `  tutti light checkpoint > checkpoint.json
  tutti light checkpoint --state light.json --genesis genesis.json`,
		Args: arguments(),
		RunE: func(*cobra.Command, []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			if _, err := os.Stat(f.lightPath(h)); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no light client's state %s: make it with 'tutti light sync'", f.lightPath(h))
			}
			n, err := f.load(h)
			if err != nil {
				return err
			}
			return a.printJSON(n.trust.Checkpoint())
		},
	})
}

// lightClient is a light client and where its state goes. client is nil until it is needed.
type lightClient struct {
	*network
	home       config.Home
	flags      *lightFlags
	client     *client.Client
	checkpoint *proof.Checkpoint // to compare with what was followed
}

// openLight reads the state, or begins one.
func (a *app) openLight(ctx context.Context, f *lightFlags) (*lightClient, error) {
	h, err := a.home()
	if err != nil {
		return nil, err
	}
	l := &lightClient{home: h, flags: f}
	f.trouble = func(url string, err error) { fmt.Fprintf(a.stderr, "%s: %s\n", url, oneLine(err)) }
	if f.checkpoint != "" {
		b, err := readBounded(f.checkpoint, proof.MaxFileBytes)
		if err != nil {
			return nil, err
		}
		if l.checkpoint, err = proof.DecodeCheckpoint(b); err != nil {
			return nil, fmt.Errorf("%w (%s)", err, f.checkpoint)
		}
		if err := a.fetchGenesis(ctx, l); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(f.lightPath(h)); err == nil {
		l.network, err = f.load(h)
		if err != nil {
			return nil, err
		}
	} else {
		if l.network, err = f.loadGenesis(h); err != nil {
			return nil, err
		}
		if l.checkpoint != nil {
			if err := l.trust.Adopt(l.checkpoint); err != nil {
				return nil, fmt.Errorf("%w (%s)", err, f.checkpoint)
			}
			l.checkpoint = nil
		}
	}
	l.client, err = f.client(h, l.trust)
	return l, err
}

// fetchGenesis gets the genesis file from a node if there is none, and keeps it if it is the checkpoint's.
func (a *app) fetchGenesis(ctx context.Context, l *lightClient) error {
	path := l.flags.genesisPath(l.home)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := l.flags.client(l.home, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	var wrong error
	for range max(1, len(l.flags.api)) { // each begins with another node
		b, err := c.Genesis(ctx)
		if err != nil {
			return err
		}
		g, err := genesis.Parse(b)
		if err != nil || g.Hash() != l.checkpoint.Genesis {
			wrong = fmt.Errorf("a node's genesis file is not the one that %s names: ask other nodes with --api, or give the file with --genesis", l.flags.checkpoint)
			continue
		}
		if err := l.folder(); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "took the genesis file from a node, as the checkpoint names it: %s\n", path)
		return host.CreateFile(path, b, 0o644)
	}
	return wrong
}

// folder makes the home folder if the state goes there.
func (l *lightClient) folder() error {
	if l.flags.light != "" {
		return nil
	}
	return config.CreateFormat(string(l.home), config.HomeFormat)
}

// sync follows all shards. What was learned is saved whatever happens, but not a chain that contradicts the checkpoint.
func (l *lightClient) sync(ctx context.Context, a *app) error {
	var failed error
	saved, told := time.Now(), time.Now()
	for _, s := range l.trust.Checkpoint().Shards {
		err := l.client.Sync(ctx, s.Shard, func(e consensus.Epoch) {
			if time.Since(told) >= progressEvery {
				told = time.Now()
				fmt.Fprintf(a.stderr, "shard %d: epoch %s\n", s.Shard, number(uint64(e)))
			}
			if time.Since(saved) >= saveEvery && l.checkpoint == nil {
				saved = time.Now()
				failed = errors.Join(failed, l.save())
			}
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("shard %d: %w", s.Shard, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if l.checkpoint != nil {
		err := l.trust.Check(l.checkpoint)
		var miss *proof.EpochError
		switch {
		case errors.As(err, &miss) && miss.Lost:
			fmt.Fprintf(a.stderr, "the checkpoint is of before what the state begins with, so it says nothing of it\n")
		case errors.As(err, &miss):
			failed = errors.Join(failed, fmt.Errorf("the checkpoint is of epoch %d of shard %d, and the nodes show less: ask others with --api", miss.Epoch, miss.Shard))
		case err != nil:
			return fmt.Errorf("%w: one of the two is forged: if you trust the checkpoint more, remove %s and sync again", err, l.flags.lightPath(l.home))
		}
	}
	return errors.Join(failed, l.save())
}

// save writes the state.
func (l *lightClient) save() error {
	if err := l.folder(); err != nil {
		return err
	}
	b, err := json.Marshal(l.trust.State())
	if err != nil {
		return err
	}
	return host.ReplaceFile(l.flags.lightPath(l.home), append(b, '\n'), 0o644)
}

func (l *lightClient) close() {
	if l.client != nil {
		l.client.Close()
	}
}

// known calls verify, and again when the committees that it missed are learned from nodes, and saved.
func (l *lightClient) known(ctx context.Context, a *app, verify func() error) error {
	learned := false
	for {
		err := verify()
		var miss *proof.EpochError
		if !errors.As(err, &miss) || miss.Lost {
			if learned {
				err = errors.Join(err, l.save())
			}
			return err
		}
		if l.client == nil {
			l.flags.trouble = func(url string, err error) { fmt.Fprintf(a.stderr, "%s: %s\n", url, oneLine(err)) }
			var failed error
			if l.client, failed = l.flags.client(l.home, l.trust); failed != nil {
				return fmt.Errorf("%w: %w", err, failed)
			}
		}
		before := l.trust.Newest(miss.Shard)
		failed := l.client.Learn(ctx, miss.Shard, miss.Epoch)
		learned = learned || failed == nil || l.trust.Newest(miss.Shard) > before
		if failed != nil {
			err = fmt.Errorf("the hand-overs that it needs were not found: %w", failed)
			if learned {
				err = errors.Join(err, l.save())
			}
			return err
		}
	}
}

// verify checks a proof file of any kind and prints what it proves.
func (l *lightClient) verify(ctx context.Context, a *app, b []byte, path string) error {
	format, other := proof.FormatOf(b) // other: evidence in binary, or no proof at all
	if other != nil {
		format = evidence.FileFormat
	}
	switch format {
	case evidence.FileFormat:
		proofs, err := evidence.DecodeFile(b)
		if err != nil && other != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		return l.verifyEvidence(ctx, a, proofs, path)
	case proof.FinalityFormat:
		f, err := proof.DecodeFinality(b)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		var p *proof.Proven
		if err := l.known(ctx, a, func() (err error) { p, err = f.Verify(l.trust); return err }); err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		return a.sayReceipt(p, path)
	case proof.AccountFormat:
		f, err := proof.DecodeAccount(b)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		var st *proof.AccountStatement
		if err := l.known(ctx, a, func() (err error) { st, err = f.Verify(l.trust); return err }); err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		return a.sayAccounts([]*proof.AccountStatement{st})
	case proof.AccountsFormat:
		f, err := proof.DecodeAccounts(b)
		if err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		var all []*proof.AccountStatement
		if err := l.known(ctx, a, func() (err error) { all, err = f.Verify(l.trust); return err }); err != nil {
			return fmt.Errorf("%w (%s)", err, path)
		}
		return a.sayAccounts(all)
	}
	return fmt.Errorf("%s is not a proof that this build knows: give one of a payment, of accounts, or of slashable votes", path)
}

func (l *lightClient) verifyEvidence(ctx context.Context, a *app, proofs []*evidence.Proof, path string) error {
	for _, p := range proofs {
		st := p.Statements()[0]
		if p.Chain != consensus.Hash(l.hash) || int(st.Shard) >= len(l.genesis.Shards) {
			continue // judged as what it is below
		}
		err := l.known(ctx, a, func() error { _, _, err := l.trust.Committee(st.Shard, st.Epoch); return err })
		if err != nil && !errors.Is(err, proof.ErrEpoch) {
			return err
		}
	}
	return a.sayJudged(l.network, proofs, path)
}

// sayAccounts prints proven accounts.
func (a *app) sayAccounts(all []*proof.AccountStatement) error {
	if a.json {
		return a.printJSON(all)
	}
	t := newTable(1, 2, 3)
	t.row("account", "balance", "sent", "shard", "proven after block")
	for _, st := range all {
		balance, sent := number(st.Balance), number(st.Nonce)
		if !st.Exists {
			balance, sent = "does not exist", "-"
		}
		t.row(st.ID.String(), balance, sent, fmt.Sprint(st.Where.Shard), number(uint64(st.StateHeight)))
	}
	t.write(a.stdout)
	return nil
}

// sayLight prints what the light client knows.
func (a *app) sayLight(l *lightClient) error {
	info := lightInfo{State: l.flags.lightPath(l.home), Genesis: proof.Digest(l.hash), Checks: l.trust.Checks()}
	for _, s := range l.trust.Checkpoint().Shards {
		info.Shards = append(info.Shards, lightShardInfo{s.Shard, s.Epoch, proof.Digest(s.Committee), s.Height, proof.Digest(s.Block)})
	}
	if a.json {
		return a.printJSON(info)
	}
	t := newTable(0, 1, 2)
	t.row("shard", "epoch", "since block", "committee")
	for _, s := range info.Shards {
		t.row(fmt.Sprint(s.Shard), number(uint64(s.Epoch)), number(uint64(s.Height)), s.Committee.String())
	}
	t.write(a.stdout)
	a.say("Followed with %s signature checks; saved in %s.", number(info.Checks), info.State)
	return nil
}
