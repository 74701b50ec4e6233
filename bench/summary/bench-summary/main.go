// Command bench-summary writes the table and the picture of README from the reports that are kept; see tutti/bench/summary.
//
//	bench-summary -results DIR -plot FILE.svg -readme FILE.md
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"

	"tutti/bench/summary"
)

func main() {
	results := flag.String("results", "bench/results", "folder of reports")
	picture := flag.String("plot", "docs/figures.svg", "file to draw in")
	readme := flag.String("readme", "README.md", "file whose table is made anew")
	flag.Parse()
	if err := run(*results, *picture, *readme); err != nil {
		fmt.Fprintln(os.Stderr, "bench-summary:", err)
		os.Exit(1)
	}
}

func run(results, picture, readme string) error {
	s, err := summary.Read(results)
	if err != nil {
		return err
	}
	var drawn bytes.Buffer
	if err := s.Plot(&drawn); err != nil {
		return err
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	if text, err = s.Insert(text); err != nil {
		return fmt.Errorf("%s: %w", readme, err)
	}
	if err := os.WriteFile(picture, drawn.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(readme, text, 0o644)
}
