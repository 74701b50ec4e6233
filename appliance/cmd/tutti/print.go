package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// printJSON writes v for programs: one indented value.
func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", b)
	return err
}

// say writes one line for people.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }

// table aligns rows in columns, two spaces apart. Columns named in right are aligned to the right.
type table struct {
	rows  [][]string
	right map[int]bool
}

func newTable(right ...int) *table {
	t := &table{right: make(map[int]bool)}
	for _, c := range right {
		t.right[c] = true
	}
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) {
	var width []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], visible(cell))
		}
	}
	for _, r := range t.rows {
		var line strings.Builder
		for i, cell := range r {
			pad := strings.Repeat(" ", width[i]-visible(cell))
			if t.right[i] {
				line.WriteString(pad + cell + "  ")
			} else {
				line.WriteString(cell + pad + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// visible is the width of a cell on screen, without its colour codes.
func visible(cell string) int {
	n := utf8.RuneCountInString(cell)
	for rest := cell; ; {
		_, after, ok := strings.Cut(rest, "\x1b[")
		if !ok {
			return n
		}
		code, tail, _ := strings.Cut(after, "m")
		n -= len("\x1b[") + len(code) + len("m")
		rest = tail
	}
}

// Colours, by what they mean.
const (
	good = "32"
	warn = "33"
	bad  = "31"
)

// colour paints text where standard output is a terminal that wants it (https://no-color.org).
func (a *app) colour(code, text string) string {
	f, ok := a.stdout.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// number writes n with a comma between groups of three digits.
func number[N int | int64 | uint16 | uint32 | uint64](n N) string {
	text := strconv.FormatInt(int64(n), 10)
	if n > 0 {
		text = strconv.FormatUint(uint64(n), 10)
	}
	sign := ""
	if text[0] == '-' {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// parseAmount reads whole units as number writes them: digits, alone or in groups of three with ',' or '_' between.
func parseAmount(text string) (uint64, error) {
	groups := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '_' })
	ok := strings.Count(text, ",")+strings.Count(text, "_") == len(groups)-1
	for i, g := range groups {
		ok = ok && (len(groups) == 1 || len(g) == 3 || i == 0 && len(g) < 3)
	}
	n, err := strconv.ParseUint(strings.Join(groups, ""), 10, 64)
	if !ok || err != nil || n == 0 {
		return 0, usagef("%q is not an amount: give whole units, as 1500 or 1,500", text)
	}
	return n, nil
}

// bytesText writes a size in the unit that suits it.
func bytesText(n uint64) string {
	switch {
	case n >= 10<<30:
		return number(n>>30) + " GiB"
	case n >= 10<<20:
		return number(n>>20) + " MiB"
	}
	return number(n>>10) + " KiB"
}
