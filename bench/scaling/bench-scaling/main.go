// Command bench-scaling measures how the cost of a transaction grows on this machine, one `tutti bench` for each point, and
// draws it; see tutti/bench/scaling.
//
//	bench-scaling -tutti BINARY -tsv FILE.tsv -plot FILE.svg
//
// It goes on where an earlier run at the same commit ended. Exit status 0 says that every point has its line, also if that
// says why this machine can not hold it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"tutti/appliance/host"
	"tutti/bench/child"
	"tutti/bench/report"
	"tutti/bench/scaling"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "bench-scaling:", err)
		os.Exit(1)
	}
}

// list is a flag of numbers with commas between.
type list struct{ to *[]int }

func (l list) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*l.to), " ", ","), "[]")
}

func (l list) Set(text string) error {
	*l.to = nil
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a list of numbers from 1 such as 1,2,4", text)
		}
		*l.to = append(*l.to, n)
	}
	return nil
}

// kinds is a flag of kinds with commas between.
type kinds struct{ to *[]scaling.Kind }

func (k kinds) String() string {
	if k.to == nil {
		return ""
	}
	var names []string
	for _, kind := range *k.to {
		names = append(names, string(kind))
	}
	return strings.Join(names, ",")
}

func (k kinds) Set(text string) error {
	*k.to = nil
	for part := range strings.SplitSeq(text, ",") {
		if !slices.Contains(scaling.Kinds, scaling.Kind(part)) {
			return fmt.Errorf("%q is none of %s", part, kinds{&scaling.Kinds})
		}
		*k.to = append(*k.to, scaling.Kind(part))
	}
	return nil
}

func run(ctx context.Context, args []string) error {
	machine := host.Describe()
	c := &scaling.Campaign{
		Plan: scaling.Standard(machine.Cores), Machine: machine, Out: os.Stdout,
		FreeMemory: func() (uint64, error) { _, free, err := host.Memory(); return free, err },
	}
	var accounts []int
	for _, n := range c.Accounts {
		accounts = append(accounts, int(n))
	}
	base := int(c.Base.Accounts)
	f := flag.NewFlagSet("bench-scaling", flag.ContinueOnError)
	binary := f.String("tutti", "bin/tutti", "Tutti's program")
	f.StringVar(&c.Results.Path, "tsv", "", "file of results, added to")
	plot := f.String("plot", "", "file to draw them in")
	f.StringVar(&c.Commit, "commit", "unknown", "commit that is measured")
	f.Var(kinds{&c.Kinds}, "kinds", "of load")
	f.Var(list{&c.Shards}, "shards", "points")
	f.Var(list{&c.Validators}, "validators", "points, validators of a shard")
	f.Var(list{&accounts}, "accounts", "points")
	f.Var(list{&c.Cores}, "cores", "points, up to the machine's; the base has all")
	f.IntVar(&base, "base-accounts", base, "accounts where they are not varied")
	f.Float64Var(&c.Rate, "rate", 2000, "signed transfers a second in each shard")
	f.Float64Var(&c.Distilled, "distilled", 10_000, "distilled transfers a second in each shard")
	f.DurationVar(&c.WarmUp, "warm-up", 5*time.Second, "load before each measurement")
	f.DurationVar(&c.Duration, "duration", 20*time.Second, "of each measurement")
	f.DurationVar(&c.Limit, "limit", 15*time.Minute, "on one run, with all that comes before and after")
	f.Float64Var(&c.Quiet, "quiet", 0.25, "cores of other work above which a run is made again next time")
	said := f.Bool("v", false, "show what tutti bench says")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.Results.Path == "" || *plot == "" || f.NArg() > 0 {
		return errors.New("-tsv and -plot are required, and nothing else without a dash")
	}
	c.Accounts, c.Base.Accounts = nil, uint64(base)
	for _, n := range accounts {
		c.Accounts = append(c.Accounts, uint64(n))
	}
	c.Bench = func(ctx context.Context, args []string, cores int, limit time.Duration) (*report.Report, error) {
		r := child.Run{Binary: *binary, Args: args, Cores: cores, Limit: limit}
		if *said {
			r.Out = os.Stderr
		}
		return child.Bench(ctx, r)
	}
	return errors.Join(c.Run(ctx), show(c, *plot)) // what there is, also if it was interrupted
}

// show prints and draws all lines that there are.
func show(c *scaling.Campaign, path string) error {
	had, err := c.Results.Read()
	if err != nil {
		return err
	}
	if err := c.Print(os.Stdout, had); err != nil {
		return err
	}
	var svg bytes.Buffer
	if err := c.Plot(&svg, had); err != nil {
		return err
	}
	return host.ReplaceFile(path, svg.Bytes(), 0o644)
}
