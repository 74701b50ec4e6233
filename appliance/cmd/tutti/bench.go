package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tutti/appliance/config"
	"tutti/appliance/host"
	"tutti/bench"
	"tutti/bench/page"
	"tutti/bench/report"
	"tutti/bench/workload"
)

type benchOptions struct {
	config   bench.Config
	workload string
	rate     string
	json     string
	html     string
	crowd    string
	link     string
	network  networkFlags
}

func benchCommand(a *app) *cobra.Command {
	o := benchOptions{config: bench.Standard()}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure throughput and finality of a network under an open-loop load of signed transfers",
		Long: `Measure throughput and finality of a network under an open-loop load of signed transfers.

Starts a network of its own on this machine, in the folder for temporary files ($TMPDIR: choose one on the disk that is
to be measured), unless --api names one that runs. Each transfer is due at a fixed time; its latency runs from then to the
moment when this client has verified its finality proof, for a transfer between shards of the credit. Afterwards the
validators are checked against one another. Exit status 0 only if every check holds.`,
		Example: `  tutti bench --shards 1 --validators 4 --accounts 100000 --rate 8000 --duration 30s --json result.json
  tutti bench --shards 2 --cross-shard 0.2 --workload zipf --invalid 0.01 --rate 4000
  tutti bench --accounts 100000 --distilled 1 --online --rate 500
  tutti bench --rate max
  tutti bench --api http://127.0.0.1:9700 --genesis localnet/genesis.json --crowd localnet/crowd.seed --rate 500`,
		Args: arguments(),
		RunE: func(c *cobra.Command, _ []string) error { return a.bench(c.Context(), o) },
	}
	f := c.Flags()
	f.IntVar(&o.config.Shards, "shards", o.config.Shards, "shards")
	f.IntVar(&o.config.Validators, "validators", o.config.Validators, "validators of each shard")
	f.Uint64Var(&o.config.Accounts, "accounts", o.config.Accounts, "accounts that pay and are paid")
	f.StringVar(&o.workload, "workload", string(o.config.Workload), "who pays whom: uniform or zipf")
	f.Float64Var(&o.config.CrossShard, "cross-shard", 0, "share of transfers to another shard, 0 to 1")
	f.Float64Var(&o.config.Distilled, "distilled", 0, "share of transfers in distilled batches, 0 to 1; the rest then carries its own signature there")
	f.BoolVar(&o.config.Online, "online", false, "with --distilled 1: a broker of its own distils them in the run, from real submissions, and its time counts")
	f.Float64Var(&o.config.Invalid, "invalid", 0, "share of transfers with a wrong signature, 0 to 1")
	f.BoolVar(&o.config.Alternate, "alternate", false, "with --invalid: the rate is of valid transfers, without wrong ones and with them in turn, twice each, and compared")
	f.Float64Var(&o.config.Overload, "overload", 0, "after the measurement so many times its rate for as long, then its rate again: what it does to throughput, memory and finality")
	f.BoolVar(&o.config.Burst, "burst", false, "each second's transfers are due within its first 100 ms")
	f.StringVar(&o.rate, "rate", strconv.FormatFloat(o.config.Rate, 'f', -1, 64), "transfers due a second, or max: the highest rate with p99 at most 1 s")
	f.DurationVar(&o.config.Duration, "duration", o.config.Duration, "length of the measurement, after a warm-up")
	f.DurationVar(&o.config.WarmUp, "warm-up", o.config.WarmUp, "load before the measurement")
	f.Uint64Var(&o.config.Seed, "seed", o.config.Seed, "seed of the transfers")
	f.StringVar(&o.link, "link", "", "as root: put validators and client into network namespaces with this between any two: "+linkNames())
	f.StringVar(&o.json, "json", "", "file for the result, schema "+report.Schema+"; - is standard output, and then the table goes to standard error")
	f.StringVar(&o.html, "html", "", "file for the result as one page with plots")
	f.StringVar(&o.config.Profiles, "profiles", "", "existing folder for a CPU profile of each validator and of the generator, for 'go tool pprof'; the result then has the CPU by stage. It interrupts every busy thread 100 times a second: take the figures from a run without")
	f.StringVar(&o.crowd, "crowd", "", "with --api: file with the crowd's seed (default: crowd.seed beside the genesis file)")
	c.AddCommand(benchHTMLCommand(a))
	f.StringSliceVar(&o.network.api, "api", nil, "API address of a node of a network that runs, such as http://127.0.0.1:9700; again for more")
	f.StringVar(&o.network.genesis, "genesis", "", "with --api: genesis file that answers are checked against (default: genesis.json in the home folder)")
	c.AddCommand(benchVerifyCommand(a))
	return c
}

// linkNames are the names of the links, for people.
func linkNames() string {
	var names []string
	for i := range bench.Links {
		names = append(names, bench.Links[i].String())
	}
	return strings.Join(names, "; ")
}

// complete fills in what is not a flag's own value.
func (o *benchOptions) complete(a *app) error {
	c := &o.config
	c.Workload = workload.Kind(o.workload)
	if c.Rate = 0; o.rate != "max" {
		rate, err := strconv.ParseFloat(o.rate, 64)
		if err != nil || !(rate > 0) {
			return usagef("--rate %q: give transfers a second, or max", o.rate)
		}
		c.Rate = rate
	}
	if o.link != "" {
		link, err := bench.LinkNamed(o.link)
		if err != nil {
			return usageError{err}
		}
		c.Link = link
	}
	c.Commit, c.Command = thisVersion().Commit, commandLine(os.Args)
	c.Out, c.Terminal = a.stderr, isTerminal(a.stderr)
	if len(o.network.api) > 0 {
		if err := o.attach(a); err != nil {
			return err
		}
	} else if o.crowd != "" || o.network.genesis != "" {
		return usagef("--genesis and --crowd describe a network that runs: name a node of it with --api")
	}
	if err := c.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// commandLine is how a command can be given again in a shell.
func commandLine(args []string) string {
	out := []string{"tutti"}
	for _, a := range args[min(1, len(args)):] {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return !strings.ContainsRune(plain, r) }) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

// plain is what needs no quotes in a shell.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,+@%"

// attach describes the network that runs.
func (o *benchOptions) attach(a *app) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	n, err := o.network.load(h)
	if err != nil {
		return err
	}
	for _, u := range o.network.api {
		if err := config.CheckEndpoint(u); err != nil {
			return usageError{err}
		}
	}
	if o.crowd == "" {
		path := o.network.genesis
		if path == "" {
			path = h.Genesis()
		}
		o.crowd = filepath.Join(filepath.Dir(path), "crowd.seed")
	}
	o.config.Attach = &bench.Attach{APIs: o.network.api, Genesis: n.genesis, Trust: n.trust}
	return readCrowd(o.crowd, &o.config.Attach.Crowd)
}

func readCrowd(path string, seed *[32]byte) error {
	b, err := readBounded(path, 1024)
	if err != nil {
		return fmt.Errorf("the seed of the crowd that pays is needed: %w: name its file with --crowd", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != len(seed) {
		return fmt.Errorf("%s is not a seed of 64 hexadecimal digits: name a local network's crowd.seed with --crowd", path)
	}
	copy(seed[:], raw)
	return nil
}

func (a *app) bench(ctx context.Context, o benchOptions) error {
	if err := o.complete(a); err != nil {
		return err
	}
	if o.config.Link != nil {
		if status, done, err := bench.Isolate(ctx); err != nil {
			return err
		} else if done && status != 0 {
			return exitStatus(status)
		} else if done {
			return nil
		}
	}
	r, err := bench.Run(ctx, o.config)
	if err != nil {
		return err
	}
	table := a.stdout
	if o.json == "-" {
		table = a.stderr
	}
	if err := r.WriteTable(table); err != nil {
		return err
	}
	if err := a.writeResult(o.json, r); err != nil {
		return err
	}
	if err := writePage(o.html, r); err != nil {
		return err
	}
	if failed := r.Failed(); len(failed) > 0 {
		return fmt.Errorf("the run does not count: %s did not hold; the lines above say why", strings.Join(failed, ", "))
	}
	return nil
}

func benchHTMLCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "html REPORT.json [MORE.json...]",
		Short: "Write a result as one HTML page with plots, to standard output",
		Long: `Write a result of tutti bench --json as one HTML page with plots, to standard output. The page needs no other file. More results
stand beside the first in a table, and are drawn over what they differ in: shards, validators, accounts or rate.`,
		Example: `  tutti bench html result.json > result.html
  tutti bench html shards-2.json shards-1.json shards-4.json > scaling.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("REPORT.json is missing")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, paths []string) error { return a.benchHTML(paths) },
	}
}

func (a *app) benchHTML(paths []string) error {
	var reports []*report.Report
	for _, path := range paths {
		r, err := readReport(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		reports = append(reports, r)
	}
	return page.Write(a.stdout, reports[0], reports[1:]...)
}

func readReport(path string) (*report.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return report.Read(f)
}

// writePage writes the result's page, if one is wanted.
func writePage(path string, r *report.Report) error {
	if path == "" {
		return nil
	}
	var b bytes.Buffer
	if err := page.Write(&b, r); err != nil {
		return err
	}
	return host.ReplaceFile(path, b.Bytes(), 0o644)
}

func (a *app) writeResult(path string, r *report.Report) error {
	switch path {
	case "":
		return nil
	case "-":
		return r.WriteJSON(a.stdout)
	}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		return err
	}
	return host.ReplaceFile(path, b.Bytes(), 0o644)
}
