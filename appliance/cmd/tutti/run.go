package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"tutti/accel"
	"tutti/appliance/config"
	"tutti/appliance/genesis"
	"tutti/appliance/keys"
	"tutti/appliance/node"
)

// stopLimit is how long a stopping node may take before its process ends anyway. What is durable stays so.
const stopLimit = 9 * time.Second

func runCommand(a *app) *cobra.Command {
	var o struct {
		passwordFile string
		firstStart   bool
		sync         bool
		resync       bool
		parentFD     int
		profile      string
	}
	c := &cobra.Command{
		Use:   "run",
		Short: "Run this home's node until SIGTERM or Ctrl-C",
		Example: `  tutti run --home /var/lib/tutti --first-start   the first time, when the network begins
  tutti run --home /var/lib/tutti --sync          the first time, when the network runs already, or when the data is lost
  tutti run --home /var/lib/tutti                 from then on
  tutti run --home /var/lib/tutti --resync        when it says that its data is damaged`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if o.parentFD > 0 {
				var cancel context.CancelFunc
				ctx, cancel = untilParentEnds(ctx, o.parentFD)
				defer cancel()
			}
			stop, err := profileTo(o.profile)
			if err != nil {
				return err
			}
			return errors.Join(a.runNode(ctx, o.passwordFile, o.firstStart, sourceOf(o.sync, o.resync)), stop())
		},
	}
	f := c.Flags()
	f.StringVar(&o.passwordFile, "password-file", "", "file with the password of the keys, mode 0600")
	f.BoolVar(&o.firstStart, "first-start", false, "begin the data of a validator that has never run; never use it to replace lost data")
	f.BoolVar(&o.sync, "sync", false, "where there is no data yet, copy it from the other validators first; may stay in the command")
	f.BoolVar(&o.resync, "resync", false, "move damaged data aside and copy it again from the other validators; only once")
	c.MarkFlagsMutuallyExclusive("first-start", "sync", "resync")
	f.StringVar(&o.profile, "cpu-profile", "", "file for a CPU profile of the whole run, for 'go tool pprof'")
	f.IntVar(&o.parentFD, "parent-fd", 0, "descriptor whose end of file means that the parent has ended")
	if err := f.MarkHidden("parent-fd"); err != nil {
		panic(err) // the flag was defined above
	}
	return c
}

// profileTo records a CPU profile until stop is called; nothing if path is empty.
func profileTo(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// untilParentEnds is ctx until the pipe at a descriptor, which only the parent holds open, reaches its end.
func untilParentEnds(ctx context.Context, fd int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	pipe := os.NewFile(uintptr(fd), "parent")
	go func() {
		_, _ = io.Copy(io.Discard, pipe) // returns at the end, or at once where there is no such descriptor
		cancel()
	}()
	return ctx, cancel
}

func sourceOf(sync, resync bool) node.Source {
	switch {
	case sync:
		return node.Sync
	case resync:
		return node.Resync
	}
	return node.AsItIs
}

func (a *app) runNode(ctx context.Context, passwordFile string, firstStart bool, source node.Source) (err error) {
	home, err := a.existingHome()
	if err != nil {
		return err
	}
	cfg, err := config.Load(home.Config())
	if err != nil {
		return err
	}
	notes, err := accel.Configure(accel.Settings{Use: cfg.Accel.Use, Dir: string(home)})
	if err != nil {
		return err
	}
	if err := accel.Ready(accel.SelfTest()); err != nil {
		return err
	}
	if passwordFile == "" && cfg.Keys.PasswordFile != "" {
		passwordFile = home.Resolve(cfg.Keys.PasswordFile)
	}
	password, err := a.password(passwordSource{flag: passwordFile, question: "Password of the node's keys"})
	if err != nil {
		return err
	}
	log, closer, err := cfg.Log.Open(home, a.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	for _, note := range notes {
		log.Warn("cryptographic kernels", "note", note)
	}
	if firstStart {
		if err := beginData(home, cfg); err != nil {
			return err
		}
	}
	context.AfterFunc(ctx, func() {
		time.AfterFunc(stopLimit, func() {
			fmt.Fprintln(a.stderr, "tutti: stopping took too long and was cut short; nothing durable is lost")
			os.Exit(1)
		})
	})
	v := thisVersion()
	err = node.Run(ctx, node.Options{
		Home: home, Config: cfg, Password: password, Source: source, Build: node.Build{Version: v.Version, Commit: v.Commit}, Log: log,
		Ready: func(api string) { a.say("API and dashboard: http://%s", api) },
	})
	if err != nil {
		log.Error("node stopped", "err", err)
	}
	return err
}

// beginData makes the data folder of a new validator.
func beginData(home config.Home, cfg config.Config) error {
	v, err := genesis.Verify(home.Genesis())
	if err != nil {
		return err
	}
	k, err := keys.LoadType(home.NodeKey(), keys.Node)
	if err != nil {
		return err
	}
	shard, _, ok := node.Seat(v, [32]byte(k.Public()))
	if !ok {
		return fmt.Errorf("the node key in %s is no validator's of network %s: put the genesis file there that has this node", home.Keys(), v.Name)
	}
	return node.Create(home, v, shard, cfg.Storage.RetentionBlocks)
}
