package tree

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kinds tell licences apart by words that are in every copy of their text (lower case, single spaces), as SPDX names
// them. All of them allow commercial use in a program under another licence.
var kinds = []struct{ spdx, words string }{
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"MPL-2.0", "mozilla public license, version 2.0"},
	{"Apache-2.0", "apache license version 2.0, january 2004"},
	{"Apache-2.0", "licensed under the apache license, version 2.0 (the"},
	{"BSD-3-Clause", "redistribution and use in source and binary forms, with or without modification, are permitted"},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee is hereby granted"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted"},
	{"CC0-1.0", "cc0 1.0 universal"},
	{"Unlicense", "this is free and unencumbered software released into the public domain"},
	{either, "spdx-license-identifier: apache-2.0 or mit"},
	{either, "are licensed under a dual mit/apache-2.0 license"},
}

// either is what the files of Protocol Labs say that refer to two licences without their text.
const either = "Apache-2.0 OR MIT"

// refused are licences that would bind the whole program.
var refused = regexp.MustCompile(`gnu (affero |lesser |library )?general public license|server side public license|business source license|commons clause`)

// classify names the licences in a text. An unknown text, or one that binds the whole program, is an error.
func classify(text string) ([]string, error) {
	plain := strings.Join(strings.Fields(strings.ToLower(text)), " ")
	var found []string
	for _, k := range kinds {
		if strings.Contains(plain, k.words) {
			found = append(found, k.spdx)
		}
	}
	if i := slices.Index(found, "BSD-3-Clause"); i >= 0 && !strings.Contains(plain, "used to endorse or promote") {
		found[i] = "BSD-2-Clause"
	}
	slices.Sort(found)
	// The MPL names the GPL as one that it may be combined with; nothing else accepted here mentions it.
	if bad := refused.FindString(plain); bad != "" && !slices.Contains(found, "MPL-2.0") {
		return nil, fmt.Errorf("%q: tutti is sold on appliances and must not contain it", bad)
	}
	if found == nil {
		return nil, fmt.Errorf("unknown licence %.60q...: read it, and add it to kinds in internal/tree if it allows commercial use", plain)
	}
	return slices.Compact(found), nil
}

// dependency is a module of other people in the build.
type dependency struct {
	path, version string
	licences      []string // SPDX names
	texts         []string // of the licence files and of NOTICE
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(un)?licen[cs]e([-.].*)?$|^copying([-.].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^notice([-.].*)?$`)
)

// dependencies reads the licences of every module in the build from the module cache.
func dependencies(t *testing.T) (all []dependency) {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range packages(t) {
		if p.Module == nil || p.Module.Path == module || seen[p.Module.Path] {
			continue
		}
		seen[p.Module.Path] = true
		d := dependency{path: p.Module.Path, version: p.Module.Version}
		dir := p.Module.Dir
		if r := p.Module.Replace; r != nil {
			d.version, dir = r.Version, r.Dir
		}
		if dir == "" {
			t.Fatalf("%s %s is not in the module cache: run go mod download", d.path, d.version)
		}
		if err := d.read(dir); err != nil {
			t.Errorf("%s %s: %v", d.path, d.version, err)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b dependency) int { return cmp.Compare(a.path, b.path) })
	return all
}

func (d *dependency) read(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		isLicence := licenceFile.MatchString(e.Name())
		if !e.Type().IsRegular() || !isLicence && !noticeFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		d.texts = append(d.texts, string(text))
		if !isLicence {
			continue
		}
		found, err := classify(string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		d.licences = append(d.licences, found...)
	}
	if len(d.licences) == 0 {
		return fmt.Errorf("no licence file in %s: a module without one must not be used", dir)
	}
	if slices.Contains(d.licences, either) {
		d.licences = slices.DeleteFunc(d.licences, func(l string) bool { return l == "Apache-2.0" || l == "MIT" })
	}
	slices.Sort(d.licences)
	d.licences = slices.Compact(d.licences)
	return nil
}

// copyright is a line that names who holds the rights, as opposed to the terms.
var copyright = regexp.MustCompile(`(?i)^\W*(copyright|\(c\)|©)\s*(\(c\)|©|&copy;|:|\d|by|the |\w+ (20|19)\d\d)`)

// split takes a licence text apart into the lines that name the holders and the terms, which many modules share. A
// text with several licences stays whole, because who holds what is in its order.
func split(text string) (holders []string, terms string) {
	found, _ := classify(text) // an error was reported when the text was read
	var rest []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		line = strings.TrimRight(line, " \t\n")
		if len(found) < 2 && copyright.MatchString(line) {
			holders = append(holders, strings.TrimSpace(line))
		} else {
			rest = append(rest, line)
		}
	}
	return holders, strings.Trim(strings.Join(rest, "\n"), "\n")
}

const noticeHead = `Tutti
Copyright 2026 The Tutti Authors

Licensed under the Apache License, Version 2.0: see LICENSE.

The program contains the Go runtime and standard library (Copyright 2009 The Go Authors, BSD-3-Clause) and code of the
modules below, each under its own licence. Numbers in brackets refer to the texts at the end. The unmodified source of
each module is at https://proxy.golang.org/MODULE/@v/VERSION.zip (capital letters as ! and the small letter).

This file is written by: go test ./internal/tree -run TestNotice -update
`

// notice is the content of NOTICE.
func notice(all []dependency) []byte {
	var list, texts bytes.Buffer
	number := map[string]int{} // of terms, by their words
	for _, d := range all {
		fmt.Fprintf(&list, "\n%s %s: %s", d.path, d.version, strings.Join(d.licences, ", "))
		var holders []string
		for _, text := range d.texts {
			h, terms := split(text)
			holders = append(holders, h...)
			words := strings.Join(strings.Fields(strings.ToLower(terms)), " ")
			if number[words] == 0 {
				number[words] = len(number) + 1
				fmt.Fprintf(&texts, "\n%s [%d]\n\n%s\n", strings.Repeat("-", 80), number[words], terms)
			}
			fmt.Fprintf(&list, " [%d]", number[words])
		}
		fmt.Fprintln(&list)
		for _, h := range slices.Compact(holders) {
			fmt.Fprintf(&list, "    %s\n", h)
		}
	}
	return slices.Concat([]byte(noticeHead), list.Bytes(), texts.Bytes())
}

// TestNotice fails for a module whose licence is missing, unknown or refused, and for a NOTICE that is out of date.
func TestNotice(t *testing.T) {
	all := dependencies(t)
	if len(all) < 10 {
		t.Fatalf("saw %d modules: is go list still asked the right question?", len(all))
	}
	want := notice(all)
	path := filepath.Join(root, "NOTICE")
	if *update && !t.Failed() {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if line := fmt.Sprintf("\n%s %s: %s", d.path, d.version, strings.Join(d.licences, ", ")); !bytes.Contains(got, []byte(line)) {
			t.Errorf("NOTICE lacks%s", line)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("NOTICE is not what the build contains now: go test ./internal/tree -run TestNotice -update")
	}
}

// TestClassify is the canary: restrictive and unknown licences are refused.
func TestClassify(t *testing.T) {
	const (
		bsd = "Redistribution and use in source and binary forms, with or without\n modification, are permitted provided..."
		mit = "Permission is hereby granted, free of charge, to any person obtaining a copy"
	)
	for _, tc := range []struct{ name, text, want, refusal string }{
		{"MIT", mit, "MIT", ""},
		{"two", mit + "\n" + bsd, "BSD-2-Clause MIT", ""},
		{"three clauses", bsd + " nor may names be used to endorse or promote products", "BSD-3-Clause", ""},
		{"MPL", "Mozilla Public License, version 2.0 ... the GNU General Public License, Version 2.0", "MPL-2.0", ""},
		{"GPL", "GNU GENERAL PUBLIC LICENSE Version 3", "", "gnu general public license"},
		{"AGPL", "GNU AFFERO GENERAL\nPUBLIC LICENSE", "", "gnu affero general public license"},
		{"LGPL", "GNU Lesser General Public License", "", "gnu lesser general public license"},
		{"MIT or GPL in one file", mit + "\nGNU General Public License", "", "gnu general public license"},
		{"BUSL", "Business Source License 1.1", "", "business source license"},
		{"unknown", "All rights reserved.", "", "unknown licence"},
		{"empty", "", "", "unknown licence"},
	} {
		found, err := classify(tc.text)
		if got := strings.Join(found, " "); got != tc.want || (err != nil) != (tc.refusal != "") || err != nil && !strings.Contains(err.Error(), tc.refusal) {
			t.Errorf("%s: %q, error %v; want %q, %q", tc.name, got, err, tc.want, tc.refusal)
		}
	}
	if err := (&dependency{}).read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no licence file") {
		t.Errorf("a module without a licence file: error %v", err)
	}
}
