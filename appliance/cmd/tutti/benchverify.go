package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/genesis"
	"tutti/bench/replay"
)

func benchVerifyCommand(a *app) *cobra.Command {
	var genesisPath string
	c := &cobra.Command{
		Use:   "verify REPORT...",
		Short: "Check the figures of a report of 'tutti bench' against the evidence in it, without any network",
		Long: `Check the figures of a report of 'tutti bench' against the evidence in it, without any network.

Each line says of one thing whether it is proven (by certificates of the network whose genesis hash is named), agrees
(follows from that and from the client's own clock and word), is claimed only, or is REFUSED. Whoever holds the keys of a
network can make any chain of it: name its genesis file, as you know it, with --genesis. Exit status 0 only if nothing in
any of the reports is refused.`,
		Example: `  tutti bench verify result.json
  tutti bench verify --genesis localnet/genesis.json result.json
  tutti bench verify --json bench/results/*.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("REPORT is missing")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.benchVerify(args, genesisPath) },
	}
	c.Flags().StringVar(&genesisPath, "genesis", "", "genesis file of the network that the reports have to be of")
	return a.jsonFlag(c)
}

// reportVerdict is one report's part of --json.
type reportVerdict struct {
	Report string `json:"report"`
	*replay.Verdict
}

func (a *app) benchVerify(paths []string, genesisPath string) error {
	var options replay.Options
	if genesisPath != "" {
		text, err := readBounded(genesisPath, maxGenesisBytes)
		if err != nil {
			return err
		}
		if options.Genesis, err = genesis.Parse(text); err != nil {
			return fmt.Errorf("%w (%s)", err, genesisPath)
		}
	}
	var verdicts []reportVerdict
	var refused []string
	for _, path := range paths {
		v, err := verifyReport(path, options)
		if err != nil {
			return err
		}
		verdicts = append(verdicts, reportVerdict{path, v})
		if !v.OK {
			refused = append(refused, path)
		}
		if !a.json {
			a.printVerdict(path, v)
		}
	}
	if a.json {
		if err := a.printJSON(verdicts); err != nil {
			return err
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%d of %d reports are refused, since they do not bear themselves out: %s", len(refused), len(paths), strings.Join(refused, ", "))
	}
	if !a.json {
		fmt.Fprintln(a.stdout, replay.Bound)
	}
	return nil
}

// verifyReport checks one file. The error is about reading it.
func verifyReport(path string, o replay.Options) (*replay.Verdict, error) {
	b, err := readBounded(path, replay.MaxReport)
	if err != nil {
		return nil, err
	}
	r, err := replay.Read(b)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, path)
	}
	return replay.Verify(r, o), nil
}

func (a *app) printVerdict(path string, v *replay.Verdict) {
	fmt.Fprintln(a.stdout, path)
	for _, f := range v.Findings {
		fmt.Fprintf(a.stdout, "  %-8s  %-12s  %s\n", f.Standing, f.Name, f.Detail)
	}
}
