// Command bench-endless runs one validator's ledger and logs through very many small blocks, appends a sample of what they
// use to a file every so often, draws it, and fails when something grew that should not.
//
//	bench-endless -dir DIR -results FILE.tsv -plot FILE.svg [-blocks N] [-every N]
//
// A run goes on where another one in the same folder ended; without the folder it begins anew, and so does FILE.tsv.
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

	"tutti/bench/endless"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "bench-endless:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	f := flag.NewFlagSet("bench-endless", flag.ContinueOnError)
	c := endless.Config{Accounts: 10_000, Retention: 10_000, PageCycle: 10 * time.Minute}
	f.StringVar(&c.Dir, "dir", "", "folder of the chain")
	f.Uint64Var(&c.Blocks, "blocks", 1_000_000, "height to reach")
	f.Uint64Var(&c.Every, "every", 10_000, "blocks between samples")
	results := f.String("results", "", "file to append samples to")
	plot := f.String("plot", "", "file to draw them in")
	title := f.String("title", "", "of the drawing")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.Dir == "" || *results == "" || *plot == "" {
		return errors.New("-dir, -results and -plot are required")
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) { // a new chain has new results
		if err := os.Remove(*results); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := endless.Run(ctx, c, func(s endless.Sample) error {
		fmt.Printf("block %d: disk %d, resident %d, heap %d bytes; %.0f s of CPU\n", s.Height, s.Disk, s.Resident, s.Heap, s.CPU)
		return s.Append(*results)
	}); err != nil {
		return err
	}
	tsv, err := os.ReadFile(*results)
	if err != nil {
		return err
	}
	samples, err := endless.Read(bytes.NewReader(tsv))
	if err != nil {
		return err
	}
	var svg bytes.Buffer
	if err := endless.Plot(&svg, fmt.Sprintf("%s, %d blocks", *title, c.Blocks), samples); err != nil {
		return err
	}
	if err := os.WriteFile(*plot, svg.Bytes(), 0o644); err != nil {
		return err
	}
	return endless.Flat(samples)
}
