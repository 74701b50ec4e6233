// Command bench-peers measures CometBFT and Tutti in turn on this machine and prints the ratios; see tutti/bench/peers.
//
//	bench-peers -tutti BINARY -bin DIR [-tsv FILE] [-json FILE]
//
// It installs what it measures into DIR, with the Go command and a module proxy. A run of three rounds takes about
// twenty minutes. Exit status 0 says that all was measured, whatever the ratios are.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"tutti/appliance/host"
	"tutti/bench/peers"
	"tutti/bench/report"
	"tutti/state/tx"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "bench-peers:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	trials                        peers.Trials
	contest                       peers.Contest
	binary, bin, goCommand        string
	commit, tsv, json             string
	signed, distilled             float64
	signedAccounts, distilledAccs uint64
	newer, older                  float64 // where the versions of CometBFT start
	said                          bool
}

func parse(args []string) (*options, error) {
	o := new(options)
	f := flag.NewFlagSet("bench-peers", flag.ContinueOnError)
	f.StringVar(&o.binary, "tutti", "bin/tutti", "Tutti's program")
	f.StringVar(&o.bin, "bin", "bin/peers", "folder to install peers in")
	f.StringVar(&o.goCommand, "go", "go", "Go command")
	f.StringVar(&o.commit, "commit", "unknown", "commit of this tree, for the results")
	f.StringVar(&o.tsv, "tsv", "", "file to append each trial to")
	f.StringVar(&o.json, "json", "", "file for the table")
	f.StringVar(&o.trials.Dir, "dir", "", "existing folder for the peers' networks (Tutti's are in $TMPDIR: choose both on one disk)")
	f.IntVar(&o.trials.Validators, "validators", 4, "validators of each network")
	f.IntVar(&o.trials.TxBytes, "size", tx.TransferWire, "bytes of a peer's transaction; that of Tutti's signed transfer is the default")
	f.IntVar(&o.trials.PerCall, "per-call", 100, "transactions in one call to a peer, at most; fewer cost it more")
	f.DurationVar(&o.trials.WarmUp, "warm-up", 5*time.Second, "load before each measurement")
	f.DurationVar(&o.trials.Duration, "duration", 20*time.Second, "of each measurement")
	f.DurationVar(&o.trials.Drain, "drain", 10*time.Second, "to wait at the end for what has not come")
	f.IntVar(&o.contest.Rounds, "rounds", 3, "turns of each contender")
	f.Float64Var(&o.contest.Step, "step", 1.1, "of the ladder of rates")
	f.Float64Var(&o.signed, "signed", 28_000, "Tutti's signed transfers a second; 0: leave them out")
	f.Float64Var(&o.distilled, "distilled", 100_000, "Tutti's distilled transfers a second; 0: leave them out")
	f.Uint64Var(&o.signedAccounts, "signed-accounts", 100_000, "accounts for signed transfers")
	f.Uint64Var(&o.distilledAccs, "distilled-accounts", 1_000_000, "accounts for distilled transfers")
	f.Float64Var(&o.newer, "newer", 3000, "where CometBFT "+peers.CometVersions[0]+" starts on the ladder; 0: leave it out")
	f.Float64Var(&o.older, "older", 2500, "where CometBFT "+peers.CometVersions[1]+" starts on the ladder; 0: leave it out")
	f.BoolVar(&o.said, "v", false, "show what tutti bench says")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if o.trials.PerCall < 1 {
		return nil, fmt.Errorf("-per-call %d: choose 1 or more", o.trials.PerCall)
	}
	return o, nil
}

// Goals of system.md, section 5, for the ratio to the best peer.
const (
	goalSigned    = 8
	goalDistilled = 30
)

// entries installs the peers and puts the contenders in their order.
func (o *options) entries(ctx context.Context) ([]peers.Entry, error) {
	var all []peers.Entry
	for i, start := range []float64{o.newer, o.older} {
		if start == 0 {
			continue
		}
		a := peers.Comet(peers.CometVersions[i], o.bin, o.goCommand)
		if err := a.Install(ctx, os.Stdout); err != nil {
			return nil, err
		}
		all = append(all, peers.Entry{Contender: peers.Open(a, o.trials), Start: start, Climb: true, Peer: true})
	}
	tutti := peers.Tutti{Trials: o.trials, Binary: o.binary}
	if o.said {
		tutti.Out = os.Stderr
	}
	if o.signed > 0 {
		t := tutti
		t.Accounts = o.signedAccounts
		all = append(all, peers.Entry{Contender: &t, Start: o.signed, Goal: goalSigned})
	}
	if o.distilled > 0 {
		t := tutti
		t.Accounts, t.Distilled = o.distilledAccs, true
		all = append(all, peers.Entry{Contender: &t, Start: o.distilled, Goal: goalDistilled})
	}
	return all, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.contest.Entries, err = o.entries(ctx); err != nil {
		return err
	}
	o.contest.Out = os.Stdout
	o.contest.Each = func(t peers.Trial) error {
		if o.tsv == "" {
			return nil
		}
		return t.Append(o.tsv, o.commit, o.trials)
	}
	all, err := o.contest.Run(ctx)
	if err != nil {
		return err
	}
	table := peers.Tabulate(o.commit, report.Machine{Machine: host.Describe()}, all)
	if err := peers.Print(os.Stdout, table, all); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	var b bytes.Buffer
	if err := table.WriteJSON(&b); err != nil {
		return err
	}
	return host.ReplaceFile(o.json, b.Bytes(), 0o644)
}
