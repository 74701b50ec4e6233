// Command bench-accel measures the kernels of accel and prints each beside its references: the minimum and the median
// of 15 measurements, in nanoseconds of CPU time per item, garbage collection included.
//
//	bench-accel [-json FILE] [-rounds N] [-rows REGEXP] [-toy]
//
// Rows are measured in turns on one machine in one process; columns are comparable within a run.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"tutti/accel"
	"tutti/accel/internal/rows"
	"tutti/accel/internal/rows/bls"
	"tutti/accel/internal/rows/distill"
	"tutti/accel/internal/rows/ed"
	"tutti/accel/internal/rows/era"
	"tutti/accel/internal/rows/hash"
)

// parts are the rows of every part of accel.
func parts(toy bool) []rows.Row {
	if toy {
		return slices.Concat(ed.Rows(), bls.Rows(), distill.RowsFor(32), hash.Rows(16), era.Rows())
	}
	return slices.Concat(ed.Rows(), bls.Rows(), distill.Rows(), hash.Rows(1<<16), era.Rows())
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "bench-accel:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("bench-accel", flag.ContinueOnError)
	f.SetOutput(stderr)
	file := f.String("json", "", "`FILE` to write the rows to, for programs")
	rounds := f.Int("rounds", 0, "measurements of each row (default 15)")
	wanted := f.String("rows", "", "measure only rows whose name matches this `REGEXP`")
	toy := f.Bool("toy", false, "small batches, once each: only shows that every row runs")
	if err := f.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*wanted)
	if err != nil {
		return err
	}
	options := rows.Standard()
	if *toy {
		options = rows.Toy()
	}
	if *rounds > 0 {
		options.Rounds = *rounds
	}
	options.Each = func(done, all int) { fmt.Fprintf(stderr, "\rgroup %d of %d", done, all) }
	all := parts(*toy)
	if err := rows.Check(all); err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(r rows.Row) bool { return !match.MatchString(r.Name) })
	if err := accel.Ready(accel.SelfTest()); err != nil { // also: chosen now, not in the first row
		return err
	}
	results := rows.Measure(all, options)
	fmt.Fprintln(stderr)
	cpu := accel.Detect()
	if _, err := fmt.Fprintf(stdout, "%s, %s: nanoseconds of CPU time per item, min and median of %d\n", cpu.Name, cpu.Arch, options.Rounds); err != nil {
		return err
	}
	if err := rows.Print(stdout, results); err != nil {
		return err
	}
	if *file == "" {
		return nil
	}
	b, err := json.MarshalIndent(rows.NewReport(results), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, append(b, '\n'), 0o644)
}
