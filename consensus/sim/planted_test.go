package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"tutti/consensus/trace"
	"tutti/internal/plant"
)

// bug is a fault in the machine or the committee that a test has to catch.
type bug struct {
	plant.Bug
	test   string // empty: another part of the one before
	within uint64 // runs
}

var bugs = []bug{
	{plant.Bug{
		Name: "a quorum of exactly two thirds", File: "../committee.go",
		Old: "return 3*p > 2*c.total",
		New: "return 3*p > 2*c.total || planted(%q) && 3*p == 2*c.total",
	}, "TestVerifyTwins", 100},
	{plant.Bug{
		Name: "notarize without the nullifications between", File: "../simplex/rules.go",
		Old: "if !m.nullifiedBetween(p.view, m.view) || !m.room(b) ||",
		New: "if !planted(%q) && !m.nullifiedBetween(p.view, m.view) || !m.room(b) ||",
	}, "TestVerifyTwins", 100},
	{plant.Bug{
		Name: "finalize after nullify", File: "../simplex/rules.go",
		Old: "		barred = r.own[nullify]\n",
		New: "		if barred = r.own[nullify]; planted(%q) && k == consensus.Finalize { barred = nil }\n",
	}, "TestVerifyTwins", 20},
	{plant.Bug{
		Name: "a contradiction is kept quiet", File: "../simplex/ballot.go",
		Old: "	if first := b.votes[i]; m.proven(b, i) {\n",
		New: "	if first := b.votes[i]; planted(%q) {\n	} else if m.proven(b, i) {\n",
	}, "TestVerifyTwins", 20},
	{plant.Bug{
		Name: "finalize beside nullify is kept quiet", File: "../simplex/ballot.go",
		Old: "	if m.proven(n, i) && m.proven(f, i) {\n",
		New: "	if !planted(%q) && m.proven(n, i) && m.proven(f, i) {\n",
	}, "TestVerifyTwins", 100},
	{plant.Bug{
		Name: "certificates are not logged before the vote", File: "../simplex/rules.go",
		Old: "	m.logCerts()\n	m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})",
		New: "	if !planted(%q) { m.logCerts() }\n	m.out.Persist.Records = append(m.out.Persist.Records, Record{Vote: v})",
	}, "TestVerifyAbove", 100},
	{plant.Bug{
		Name: "final blocks vouch for no vote", File: "../simplex/rules.go",
		Old: "		chain, _, _ := m.ancestry(m.blocks[h])\n		m.persist(chain)\n",
		New: "		chain, _, _ := m.ancestry(m.blocks[h])\n		if !planted(%q) { m.persist(chain) }\n",
	}, "TestVerifySeeds", 20},
	{plant.Bug{
		Name: "an invalid block is certified", File: "../simplex/inbound.go",
		Old: "	case b != nil && b.verdict == asked && e.Valid:\n",
		New: "	case b != nil && b.verdict == asked && (e.Valid || planted(%q)):\n",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "the own vote is forgotten at a restart", File: "../simplex/config.go",
		Old: "	r.own[v.Kind-1] = v\n",
		New: "	if !planted(%q) { r.own[v.Kind-1] = v }\n",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "a late verdict ends no view", File: "../simplex/rules.go",
		Old: "			m.enter(r.view + 1)\n		case invalid:",
		New: "			if !planted(%q) || r.own[nullify] == nil { m.enter(r.view + 1) }\n		case invalid:",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "own votes are not repeated", File: "../simplex/repeat.go",
		Old: "			if v != nil && r.certs[k] == nil &&",
		New: "			if v != nil && !planted(%q) && r.certs[k] == nil &&",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "a missing block is asked for once", File: "../simplex/repeat.go",
		Old: "w.ticks > 1 && (w",
		New: "w.ticks > 1 && !planted(%q) && (w",
	}, "TestVerifyTwins", 100},
	{plant.Bug{
		Name: "the floor is not looked at", File: "../simplex/rules.go",
		Old: "	if m.c.Index < 0 || view <= m.agreed || view <= m.silent {",
		New: "	if m.c.Index < 0 || view <= m.agreed || view <= m.silent && !planted(%q) {",
	}, "TestVerifyLostDisks", 100},
	{plant.Bug{
		Name: "no body is encoded again", File: "../../accel/erasure/assembly.go",
		Old: "if set.root != a.commitment {", New: "if !planted(%q) && set.root != a.commitment {",
	}, "TestVerifySeeds", 40},
	{plant.Bug{
		Name: "no body is encoded again", File: "../simplex/parts.go",
		Old: "case e.Shreds.Ref() == b.Header.Body:", New: "case planted(%q) || e.Shreds.Ref() == b.Header.Body:",
	}, "", 0},
	{plant.Bug{
		Name: "a vote needs no part of the body", File: "../simplex/rules.go",
		Old: "!(b.here || b.own != nil)", New: "!(planted(%q) || b.here || b.own != nil)",
	}, "TestVerifySeeds", 40},
	{plant.Bug{
		Name: "shards are kept unchecked", File: "../shred/assembly.go",
		Old: "if err := Check(a.c, p); err != nil {", New: "if err := Check(a.c, p); err != nil && !planted(%q) {",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "an epoch ends with a notarization", File: "../simplex/rules.go",
		Old: "			m.cast(consensus.Finalize, r.view, b.hash)\n",
		New: "			if m.cast(consensus.Finalize, r.view, b.hash); planted(%q) && m.ends(b) && r.certs[notarize] != nil {\n				chain, _, _ := m.ancestry(b)\n				m.handOver(chain, r.certs[notarize])\n				return true\n			}\n",
	}, "TestVerifySeeds", 20},
	{plant.Bug{
		Name: "an echo is handed over", File: "../simplex/rules.go",
		Old: "		if b.Header.IsEcho() {\n			echoes", New: "		if b.Header.IsEcho() && !planted(%q) {\n			echoes",
	}, "TestVerifySeeds", 40},
	{plant.Bug{
		Name: "a block with content on the last block of an epoch", File: "../simplex/rules.go",
		Old: "	case m.ends(p) && consensus.Echo(", New: "	case m.ends(p) && !planted(%q) && consensus.Echo(",
	}, "TestVerifySeeds", 100},
	{plant.Bug{
		Name: "a verdict is asked for without the body", File: "../simplex/rules.go",
		Old: "case !b.here:", New: "case !b.here && !planted(%q):",
	}, "TestVerifySeeds", 40},
}

var failedSeed = regexp.MustCompile(`seed (\d+) \(.*`)

// TestVerifyPlanted is the canary: each bug, built into the production machine, has to make its test fail within the stated
// number of runs. Without one all pass in the same build.
func TestVerifyPlanted(t *testing.T) {
	var all []plant.Bug
	for _, b := range bugs {
		all = append(all, b.Bug)
	}
	binary, err := plant.Tests(t.TempDir(), all)
	if err != nil {
		t.Fatal(err)
	}
	run := func(bug, test string, runs uint64) (string, error) {
		n := fmt.Sprint(runs)
		cmd := exec.Command(binary, "-test.run", "^"+test+"$", "-seeds", n, "-lost", n, "-schedules", n)
		cmd.Env = plant.Awake(bug)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("", "TestVerify(Seeds|LostDisks|Twins|Above)", 20); err != nil {
		t.Fatalf("without a bug: %v\n%s", err, out)
	}
	t.Run("trace", func(t *testing.T) { plantedTrace(t, binary) })
	for _, b := range bugs {
		if b.test == "" {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			out, err := run(b.Name, b.test, b.within)
			if found := failedSeed.FindStringSubmatch(out); err == nil || found == nil {
				t.Errorf("not caught in %d runs: %v\n%s", b.within, err, out)
			} else if n, _ := strconv.ParseUint(found[1], 10, 64); n > b.within {
				t.Errorf("caught in run %d only", n)
			} else {
				t.Log(found[0])
			}
		})
	}
}

// plantedTrace: what a machine with a bug did, its own build finds right, and this one refuses.
func plantedTrace(t *testing.T, binary string) {
	for _, bug := range []string{"", "own votes are not repeated"} {
		dir := t.TempDir()
		cmd := exec.Command(binary, "-test.run", "^TestVerifyTraces$", "-seeds", "1", "-traces", dir)
		cmd.Env = plant.Awake(bug)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o, _ := losing(1)
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatal(err, len(files))
		}
		refused := 0
		for _, file := range files {
			b, err := os.ReadFile(filepath.Join(dir, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trace.Check(bytes.NewReader(b), o.Chain, o.Committee, o.Keys); errors.Is(err, trace.ErrRefused) {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		if (refused > 0) != (bug != "") {
			t.Errorf("bug %q: %d of %d traces refused", bug, refused, len(files))
		}
	}
}
