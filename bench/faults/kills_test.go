package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tutti/consensus/killpoint"
	"tutti/internal/plant"
)

var kills = flag.Int("kills", 0, "kills of each kind at this commit, those in -results included; 0: the short version")

// killsANetwork is how many kills a network goes through.
const killsANetwork = 25

// What is planted: leaders that send small bodies in shards too, which is legal; a validator that forgets to log its votes; and
// one that calls a good block invalid, once.
var killBugs = []plant.Bug{
	{
		Name: "shards", File: "../../appliance/node/app.go",
		Old: "Body: committee.BodyRef(built.Body)",
		New: "Body: map[bool]func([]byte) consensus.BodyRef{true: committee.ShardsRef, false: committee.BodyRef}[planted(%q)](built.Body)",
	},
	{
		Name: "forgets", File: "../../consensus/engine/loop.go",
		Old: "	for _, r := range p.Records {\n",
		New: "	for _, r := range p.Records {\n		if planted(%q) && r.Vote != nil {\n			continue\n		}\n",
	},
	{
		Name: "contradicts", File: "../../appliance/node/app.go",
		Old: "	if errors.Is(err, ledger.ErrInvalidBody) {\n",
		New: "	if err == nil && planted(%q) && plantedCalls.Add(1) == 20 {\n		a.ledger.Abandon(tx.Hash(hash))\n		err = ledger.ErrInvalidBody\n	}\n	if errors.Is(err, ledger.ErrInvalidBody) {\n",
	},
}

// builtKills is made once, in a folder that TestMain removes.
var builtKills = sync.OnceValues(func() (string, error) {
	if err := os.MkdirAll(buildFolder, 0o755); err != nil {
		return "", err
	}
	return plant.Program(buildFolder, "tutti/appliance/cmd/tutti", killBugs, "-tags", "tutti_unsynced,tutti_kills")
})

var buildFolder = filepath.Join(os.TempDir(), fmt.Sprintf("tutti-kills-build-%d", os.Getpid()))

func buildKills(t *testing.T) string {
	t.Helper()
	binary, err := builtKills()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(killsFolder, "") // and what Open sets goes with the test
	return binary
}

// killRound makes a network and kills a validator of it n times, or until something goes wrong.
func killRound(t *testing.T, binary string, target killpoint.Target, n int, seed uint64) (points map[killpoint.Point]int, wrongs []string, convicted bool) {
	t.Helper()
	if os.Getenv("TUTTI_PLANTED") == "" {
		bug := ""
		if target.Kind == killpoint.Parts || target.Kind == killpoint.Relay {
			bug = "shards"
		}
		t.Setenv("TUTTI_PLANTED", bug)
		defer t.Setenv("TUTTI_PLANTED", "")
	}
	points = map[killpoint.Point]int{}
	k := &Kills{Binary: binary, Dir: dir(t), Target: target, Seed: seed, Logf: t.Logf}
	if err := k.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range n {
		began := time.Now()
		d, err := k.Kill(t.Context())
		if err != nil {
			k.w.witness.Wrong("%v", err)
		} else {
			at := killpoint.Some
			switch len(d.To) {
			case 0:
				at = killpoint.Before
			case d.Of:
				at = killpoint.All
			}
			points[at]++
			t.Logf("%s: view %d, left to %d of %d; back after %.1f s in all", d.Plan, d.View, len(d.To), d.Of, time.Since(began).Seconds())
		}
		if len(k.Wrongs()) > 0 {
			break
		}
	}
	if err := k.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return points, k.Wrongs(), k.Convicted()
}

// TestProcessKills kills real validators while they send: two, of a kind drawn at random, since the engine's TestKills has a few of
// each; or as many of each as -kills says.
func TestProcessKills(t *testing.T) {
	binary := buildKills(t)
	tally := killpoint.Tally{Path: *results, Commit: commit(t), Where: "process"}
	for round := 0; ; round++ {
		did := false
		targets := killpoint.Targets() // in any order, so that campaigns that share the file share the work
		rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		for _, target := range targets {
			name := killpoint.Plan{Kind: target.Kind, Again: target.Again}.Target()
			n := 2
			if *kills > 0 {
				done, bad, err := tally.Done()
				if err != nil {
					t.Fatal(err)
				}
				if bad > 0 {
					t.Fatalf("%d lines of %s at this commit are failures", bad, *results)
				}
				n = min(*kills-done[name], killsANetwork)
			} else if did || target.Again {
				continue
			}
			if n <= 0 {
				continue
			}
			did = true
			seed, began := freshSeed(), time.Now()
			points, wrongs, _ := killRound(t, binary, target, n, seed)
			outcome := killpoint.Passed
			for _, wrong := range wrongs {
				t.Errorf("%s, seed %d: %s", name, seed, wrong)
				outcome = "FAIL: " + wrongs[0]
			}
			t.Logf("%s, seed %d: %v, %.1f s", name, seed, points, time.Since(began).Seconds())
			if *kills > 0 {
				if err := tally.Append(seed, name, points, time.Since(began), outcome); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !did || *kills == 0 {
			return
		}
	}
}

// convictedWithin is in how many kills a validator that logs no votes has to be convicted.
const convictedWithin = 100

// TestProcessKillsCatch is the canary, for the campaign alone: it takes some dozens of kills.
func TestProcessKillsCatch(t *testing.T) {
	if *kills == 0 {
		t.Skip("the engine's TestKillsCatch is the canary of the short version")
	}
	binary := buildKills(t)
	t.Setenv("TUTTI_PLANTED", "forgets")
	tally := killpoint.Tally{Path: *results, Commit: commit(t), Where: "process"}
	for count, seed := 0, uint64(1); count < convictedWithin; seed++ {
		began := time.Now()
		points, wrongs, convicted := killRound(t, binary, killpoint.Target{Kind: killpoint.Whole}, convictedWithin-count, seed)
		for _, n := range points {
			count += n
		}
		count++
		if convicted {
			t.Logf("convicted in kill %d: %v", count, wrongs)
			if err := tally.Append(seed, string(killpoint.Whole), points, time.Since(began), fmt.Sprintf("%s no vote is logged, convicted in kill %d: %s", killpoint.Canary, count, wrongs[0])); err != nil {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("no vote was logged, and %d kills convicted nobody", convictedWithin)
}
